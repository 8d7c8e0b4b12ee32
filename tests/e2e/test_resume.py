"""Optimizations that outlive their server: one that is stopped, and one that is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
import pytest

from tests.harness import photo

ONE: dict[str, Any] = {"step_count": 24, "seed": 5, "include_pixels": True}
CONTENT, STYLE = (photo(name)[::4, ::4].copy() for name in ("cat", "coffee"))
STYLIZED: dict[str, Any] = {
    **{"side_px": 90, "scale_count": 2, "step_count": 12, "original_colors": "luminance"},
    "include_pixels": True,
}
KEPT: dict[str, Any] = {"checkpoint_every": 4, "timeout_s": 600}


def optimized(client: pellucid.Client, **options: Any) -> Any:
    return client.optimize("goldfish", **ONE, **options)


def stylized(client: pellucid.Client, **options: Any) -> Any:
    return client.stylize(CONTENT, STYLE, **STYLIZED, **options)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(b"a key that replicas share")
    return path


@pytest.fixture(scope="module")
def replica(make_server: Any, key: Path) -> Iterator[Any]:
    """The one that stays."""
    with make_server(checkpoint_key_file=key, buckets=(1, 4)) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(replica: Any) -> Any:
    with pellucid.Client(replica.grpc) as client:
        return optimized(client).result().best.pixels


@contextmanager
def competition(*addresses: str) -> Iterator[None]:
    """Optimizations and predictions of somebody else, until the block ends."""
    over = threading.Event()

    def compete(address: str) -> None:
        with pellucid.Client(address, caller="other", timeout_s=60) as client:
            others = client.optimize([5], step_count=10_000, resume=False)
            try:
                while not over.is_set():
                    client.predict(np.zeros((96, 96, 3), np.uint8))
                    next(others)
            except pellucid.StatusError:
                pass  # its server has gone
            others.close()

    threads = [threading.Thread(target=compete, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def both(first: str, second: str) -> str:
    """A name with both addresses: calls go to those that answer, in turn."""
    return f"ipv4:{first},{second}"


def test_a_server_that_stops_hands_its_jobs_over(
    make_server: Any, key: Path, replica: Any, undisturbed: Any
) -> None:
    with make_server(checkpoint_key_file=key, buckets=(1, 4)) as leaving:
        with pellucid.Client(leaving.grpc) as client:
            optimization = client.optimize(
                "goldfish", resume=False, checkpoint_every=10_000, timeout_s=60, **ONE
            )
            next(event for event in optimization if isinstance(event, pellucid.Progress))
            leaving.do(leaving.server.stop())
            checkpoints = []
            with pytest.raises(pellucid.Unavailable):
                checkpoints.extend(e for e in optimization if isinstance(e, pellucid.Checkpoint))
        assert len(checkpoints) == 1
        assert 0 < checkpoints[0].step < ONE["step_count"]
    with pellucid.Client(replica.grpc) as client:
        result = client.optimize("goldfish", resume_from=checkpoints[0], **ONE).result()
        assert result.notes == ()
        assert np.array_equal(result.best.pixels, undisturbed)
        with pytest.raises(pellucid.InvalidArgument, match="of another ascend"):
            client.optimize("cup", resume_from=checkpoints[0], **ONE).result()
        with pytest.raises(pellucid.InvalidArgument, match="is damaged"):
            client.optimize("goldfish", resume_from=checkpoints[0].data[:-9], **ONE).result()


def test_a_replica_of_another_key_starts_over(
    make_server: Any, key: Path, replica: Any, undisturbed: Any, tmp_path: Path
) -> None:
    other = tmp_path / "key"
    other.write_bytes(b"a key of its own, of a server that was installed apart")
    with (
        make_server(checkpoint_key_file=other, buckets=(1, 4)) as leaving,
        pellucid.Client(both(leaving.grpc, replica.grpc), caller="mine") as client,
        started_elsewhere(replica, client, optimized) as optimization,
    ):
        next(event for event in optimization if isinstance(event, pellucid.Checkpoint))
        leaving.do(leaving.server.stop())
        result = optimization.result()
    (note,) = result.notes
    assert "started over" in note
    assert np.array_equal(result.best.pixels, undisturbed)
    assert optimization.checkpoint is not None


@contextmanager
def process(key: Path) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its address and process id, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "PELLUCID_GRPC_PORT": str(port),
        "PELLUCID_HTTP_PORT": "0",
        "PELLUCID_METRICS_PORT": "0",
        "PELLUCID_INPUT_PX": "96",
        "PELLUCID_BUCKETS": "[1, 4]",
        "PELLUCID_CHECKPOINT_KEY_FILE": str(key),
    }
    command = [sys.executable, "-m", "pellucid", "serve"]
    with subprocess.Popen(
        command,
        env=os.environ | variables,
        cwd=Path(__file__).parent,  # where there are no styles
        stderr=subprocess.DEVNULL,
    ) as made:
        try:
            yield f"127.0.0.1:{port}", made.pid
        finally:
            made.kill()


@contextmanager
def started_elsewhere(
    replica: Any, client: pellucid.Client, start: Callable[..., Any]
) -> Iterator[Any]:
    """A job on the other of two servers that take calls in turn."""
    while True:
        with start(client, **KEPT) as job:
            assert isinstance(next(job), pellucid.Queued)
            jobs = replica.server.engine.admission.jobs()
            if all(one.spec.caller != "mine" for one in jobs):
                yield job
                return


@pytest.mark.parametrize("start", [optimized, stylized])
def test_a_server_that_is_killed_costs_nothing_but_time(
    key: Path, replica: Any, start: Callable[..., Any]
) -> None:
    """kill -9 in the middle, both servers under load: the client finishes on the other one."""
    with pellucid.Client(replica.grpc) as client:
        undisturbed = start(client).result()
    with process(key) as (address, pid):
        with pellucid.Client(address, timeout_s=60) as client:
            while True:
                try:
                    client.predict(np.zeros((96, 96, 3), np.uint8))
                    break
                except pellucid.Unavailable:
                    pass
        events, killed = [], False
        with (
            competition(address, replica.grpc),
            pellucid.Client(both(address, replica.grpc), caller="mine") as client,
            started_elsewhere(replica, client, start) as job,
        ):
            for event in job:
                events.append(type(event))
                if events.count(pellucid.Checkpoint) == 2 and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed = True
            result = job.result()
    assert events.count(pellucid.Queued) == 1  # by the other one; the first was taken before
    assert killed
    assert result.notes == ()
    assert np.array_equal(pixels(result), pixels(undisturbed))


def pixels(result: Any) -> np.ndarray:
    made: np.ndarray = (
        result.pixels if isinstance(result, pellucid.Stylized) else result.best.pixels
    )
    assert made.std() > 0.01
    return made
