"""The server with too much to do, and as it starts and stops."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pellucid.v1 import data_pb2, inference_pb2, service_pb2, service_pb2_grpc
from pellucid_server import serve, wire
from pellucid_server.inputs import EncodedPhoto
from PIL import Image

from tests.harness import photo


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


@contextmanager
def slow_renderings(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Explanations are not rendered until the event is set."""
    go_on, write = threading.Event(), wire.write_explain

    def waiting(*args: Any) -> Any:
        go_on.wait(60)
        return write(*args)

    monkeypatch.setattr(wire, "write_explain", waiting)
    try:
        yield go_on
    finally:
        go_on.set()


def test_a_prediction_waits_for_no_rendering(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        make_server() as running,
        pellucid.Client(running.grpc, timeout_s=60) as client,
        ThreadPoolExecutor(8) as callers,
    ):
        with slow_renderings(monkeypatch) as go_on:
            slow = [callers.submit(client.explain, photo("cat")) for _ in range(8)]
            wait_for(lambda: len(running.server._workers._waiting[1]) == 6)
            started_s = time.monotonic()
            assert client.predict(photo("cat")).top
            assert time.monotonic() - started_s < 5
            # Its own deadline ends a request that waits for a worker, with the right reason.
            answer = httpx.post(
                f"{running.http}/v1/explain?timeout_ms=300",
                files={"image": encoded()},
                data={"method": "gradient"},
                timeout=30,
            )
            assert answer.status_code == 504
            assert "DEADLINE_EXPIRED" in answer.text
            assert len(running.server._workers._waiting[1]) == 6
            time.sleep(1.0)
            go_on.set()
            runs = [future.result(60).run for future in slow]
        waited_ms = sorted(run.queue_ms for run in runs)
        assert waited_ms[2] > 900  # two were in the hands of the workers, six waited
        waits = httpx.get(running.metrics).text
        (waited_s,) = re.findall(r'pellucid_queue_seconds_sum{method="gradient"} (\S+)', waits)
        assert float(waited_s) == pytest.approx(sum(waited_ms) / 1e3, rel=0.01)


def test_a_drain_answers_all_that_was_taken(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_CLOSE_S", 1)
    with (
        make_server() as running,
        pellucid.Client(running.grpc, timeout_s=60, max_retries=0) as client,
        ThreadPoolExecutor(12) as callers,
        slow_renderings(monkeypatch) as go_on,
    ):
        slow = [callers.submit(client.explain, photo("cat")) for _ in range(6)]
        slow += [callers.submit(explain_by_rest, running) for _ in range(6)]
        wait_for(lambda: len(running.server._workers._waiting[1]) == 10)
        stop = asyncio.run_coroutine_threadsafe(running.server.stop(), running.loop)
        wait_for(lambda: httpx.get(f"{running.http}/health/ready").status_code == 503)
        with grpc.insecure_channel(running.grpc) as channel:
            alive = health_pb2.HealthCheckRequest(service="liveness")
            answer = health_pb2_grpc.HealthStub(channel).Check(alive)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(pellucid.Unavailable, match="stopping"):
            client.predict(photo("cat"))
        time.sleep(1.5)  # longer than the close alone
        assert not stop.done()
        go_on.set()
        stop.result(60)
        assert all(future.result(60) for future in slow)


def test_messages_are_read_after_a_look_at_the_queue_and_few_at_once(
    make_server: Callable[..., Any],
) -> None:
    cap = 4 << 20
    request = inference_pb2.PredictRequest(image=data_pb2.Image(encoded=b"\xff" * (cap - 64)))
    with (
        make_server(queue_bytes=3 * cap, max_message_bytes=cap, queue_budget_ms=1.0) as running,
        pellucid.Client(running.grpc, timeout_s=60) as client,
        grpc.insecure_channel(running.grpc) as channel,
        ThreadPoolExecutor(4) as callers,
    ):
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        errors = [stub.Predict.future(request, timeout=60).exception() for _ in range(8)]
        assert {error.code() for error in errors} <= {
            grpc.StatusCode.INVALID_ARGUMENT,  # it was read: it is no photo
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        # A stream that brings its message late holds up none but as many as fit: two, and one of
        # what follows first messages.
        never = threading.Event()
        path = f"/{service_pb2.DESCRIPTOR.services_by_name['PellucidService'].full_name}/Predict"
        late = channel.stream_unary(path, inference_pb2.PredictRequest.SerializeToString)

        def wait() -> Iterator[Any]:
            never.wait(60)
            yield from ()

        first = late.future(wait(), timeout=60)
        assert client.predict(photo("cat")).top
        second = late.future(wait(), timeout=60)
        with pytest.raises(pellucid.DeadlineExceeded):
            for _ in range(60):  # until the second has come
                client.predict(photo("cat"), timeout_s=1.0)
        never.set()
        assert first.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
        assert second.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
        with running.held():
            taken = [callers.submit(client.predict, photo("cat")) for _ in range(4)]
            wait_for(lambda: running.server.engine.admission.depth == 4)
            refused = late.future(wait(), timeout=60).exception()  # its message never comes
            assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert all(future.result(60).top for future in taken)


def encoded(side_px: int = 64) -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((side_px, side_px, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def explain_by_rest(running: Any) -> bool:
    answer = httpx.post(
        f"{running.http}/v1/explain",
        files={"image": encoded()},
        data={"method": "gradient"},
        timeout=60,
    )
    return answer.status_code == 200


def test_decoded_photos_count_until_they_are_answered(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files of large photos: the canvas that they become is what is bounded."""
    side_px = 2048
    canvas = 3 * side_px**2
    file = encoded(side_px)
    assert len(file) < canvas / 100
    with (
        make_server(queue_bytes=3 * canvas) as running,
        pellucid.Client(running.grpc, timeout_s=60, max_retries=0) as client,
        ThreadPoolExecutor(3) as callers,
    ):
        admission = running.server.engine.admission

        def explain() -> Any:
            return client.explain(file, longest_side_px=side_px, outputs=("rendering",))

        with slow_renderings(monkeypatch) as go_on:
            taken = [callers.submit(explain) for _ in range(2)]
            wait_for(lambda: admission.depth == 0 and admission.byte_count > 2 * canvas)
            decoded = []
            load = EncodedPhoto.load
            monkeypatch.setattr(
                EncodedPhoto, "load", lambda self, on: (decoded.append(self), load(self, on))[1]
            )
            with pytest.raises(pellucid.ResourceExhausted, match="images") as caught:
                explain()
            assert caught.value.retry_delay_s > 0
            assert decoded == []
            assert client.predict(file).top  # has no canvas
            go_on.set()
            assert all(future.result(60).image for future in taken)
        wait_for(lambda: admission.byte_count == 0)


# The process.


def run_serve(*flags: str, **variables: str) -> subprocess.Popen[str]:
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", "serve", "--input-px=96", *ports, *flags],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,  # where there are no styles
        env=os.environ | {"COLUMNS": "200", "PELLUCID_BUCKETS": "[1]"} | variables,
    )


@pytest.mark.parametrize("kind", ["http", "grpc", "metrics"])
def test_a_port_that_is_taken_is_named(make_server: Callable[..., Any], kind: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        make_server(start=False, **{f"{kind}_port": (port := taken.getsockname()[1])}) as running,
        pytest.raises(OSError, match=f"port {port} of "),
    ):
        running.do(running.server.start())


def test_the_command_says_it_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run_serve(f"--http-port={port}")
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert f"port {port}" in told
    assert "Traceback" not in told
    assert "Exception ignored" not in told


@pytest.mark.parametrize(
    ("flags", "variables", "code", "words"),
    [
        (["--model=nobody"], {}, 1, "nobody: not on the allow-list"),
        ([], {"PELLUCID_BUCKETS": "[16,4,1]"}, 2, "buckets"),
        ([], {"PELLUCID_BUCKETS": "[0,1]"}, 2, "buckets"),
        ([], {"PELLUCID_BUCKETS": "[1,1]"}, 2, "buckets"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    flags: list[str], variables: dict[str, str], code: int, words: str
) -> None:
    process = run_serve(*flags, **variables)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert words in told
    assert "Traceback" not in told
    assert "Exception ignored" not in told


def test_sigterm_ends_a_start_before_torch_is_loaded() -> None:
    """By a handler: the first process of a container has no default that would end it."""
    script = """
import os, signal, sys
from pellucid_server import cli

class Interrupts:
    def find_spec(self, name, *_):
        if name == "pellucid_server.serve":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Interrupts())
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_sigterm_ends_a_start_at_the_next_model() -> None:
    with run_serve(*["--model=resnet18"] * 10) as process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "warmed up" in line)
        process.send_signal(signal.SIGTERM)
        told += process.stderr.read()
    assert process.returncode == 0, told
    assert "serving on" not in told
    assert told.count("warmed up") <= 2
    assert "Traceback" not in told


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_it_listens_on_ipv6_and_calls_callers_the_same(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_server(host="::1") as running:
        callers = []
        submit = running.server.engine.submit
        monkeypatch.setattr(
            running.server.engine,
            "submit",
            lambda spec, *args: (callers.append(spec.caller), submit(spec, *args))[1],
        )
        with pellucid.Client(f"[::1]:{running.server.grpc_port}") as client:
            assert client.predict(photo("cat")).top
        address = f"http://[::1]:{running.server.http_port}/v1/predict"
        assert httpx.post(address, files={"image": encoded()}).status_code == 200
    assert callers == ["::1", "::1"]
