"""Stylized video on a real server: gRPC, WebSocket, both clients, the command line."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid.v1 import service_pb2_grpc, video_pb2
from PIL import Image

from tests.harness import MOST_SENT, file_of, moving, padded, photo, settle

STYLE = photo("coffee")[::4, ::4].copy()
FEW = 4
"""Of a style network's buckets that are measured at the start."""


@pytest.fixture(scope="module")
def server(make_server: Any, styles: Path) -> Iterator[Any]:
    with make_server(models=("efficientnet_lite0",), styles=styles, buckets=(1, FEW)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(server.grpc, timeout_s=120) as client:
        yield client


def sample(server: Any, name: str) -> float:
    lines = httpx.get(server.metrics).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


DROPPED = 'pellucid_video_frames_total{outcome="dropped"}'


def until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


# The stream.


def test_a_sender_at_twice_the_capacity(server: Any, client: pellucid.Client) -> None:
    """100 frames, 2 for each that comes back: in order, at most 4 waiting, all accounted for."""
    # At first more than the 3 that can be under way and the 4 that can wait.
    may_go = threading.Semaphore(8)
    made: list[pellucid.StylizedFrame] = []

    def paced() -> Iterator[tuple[Any, float]]:
        for i, frame in enumerate(moving(100)):
            assert may_go.acquire(timeout=60)
            yield frame, i * 40.0

    def take(stream: Any) -> None:
        for frame in stream:
            made.append(frame)
            may_go.release(2)

    dropped_before = sample(server, DROPPED)
    with closing(client.stylize_video(paced(), "19")) as stream, ThreadPoolExecutor(1) as threads:
        with server.held():
            taking = threads.submit(take, stream)
            until(lambda: sample(server, DROPPED) > dropped_before)
        taking.result()
        summary = stream.result()
    indices = [frame.index for frame in made]
    assert indices == sorted(set(indices))
    assert indices[-1] == 99  # the newest is never dropped
    assert [frame.timestamp_ms for frame in made] == [i * 40.0 for i in indices]
    assert summary.received_count == 100
    assert summary.most_waiting_count <= 4
    assert summary.failed_count == 0
    assert summary.dropped_count > 0
    assert sample(server, DROPPED) == dropped_before + summary.dropped_count
    assert summary.stylized_count == len(made) == 100 - summary.dropped_count
    dropped = [frame.dropped_count for frame in made]
    assert dropped == sorted(dropped)
    # Whatever was skipped before a frame had been dropped by then.
    assert all(frame.dropped_count >= frame.index - i for i, frame in enumerate(made))
    assert dropped[-1] == summary.dropped_count


def test_with_flow_control_none_is_lost(server: Any, client: pellucid.Client) -> None:
    """While nothing is painted the sender is slowed, too, and not only the server's queue short."""
    sent, go_on = [0], threading.Event()

    def frames() -> Iterator[bytes]:
        for i, frame in enumerate(padded(moving(100))):
            if i:
                go_on.wait(60)
            sent.append(i)
            yield frame

    stream = client.stylize_video(frames(), "19", keep_all=True)
    made = [next(stream)]
    with server.held():
        go_on.set()
        settle(lambda: sent[-1], 7)
        assert sent[-1] < MOST_SENT
    made += stream
    assert [frame.index for frame in made] == list(range(100))
    summary = stream.result()
    assert summary.stylized_count == summary.received_count == 100
    assert summary.dropped_count == summary.failed_count == 0
    assert summary.most_waiting_count <= 4


def test_as_photos_are_painted(client: pellucid.Client) -> None:
    """The same pixels as of Stylize at one bucket, whatever the frames come as."""
    options: dict[str, Any] = {"strength": 0.7, "original_colors": "luminance", "bucket_size": FEW}
    pixels = moving(3)
    for which in ("19", ["3", ("12", 3.0)]):
        photos = [
            client.stylize(one, which, method="fast", side_px=96, **options).result().image
            for one in pixels
        ]
        files = [pixels[0], file_of(pixels[1], "PNG"), Image.fromarray(pixels[2])]
        shown = client.stylize_video(files, which, keep_all=True, format="rgb", **options)
        for frame, expected in zip(shown, photos, strict=True):
            assert np.array_equal(frame.pixels, np.asarray(expected))
    small = client.stylize_video(pixels, "19", side_px=64, quality=30, keep_all=True)
    for frame in small:
        assert frame.encoded is not None
        assert frame.encoded.startswith(b"\xff\xd8")
        assert frame.pixels.shape == (43, 64, 3)


def test_streams_of_several_styles_ride_together(server: Any, client: pellucid.Client) -> None:
    """To the bit as each alone, at one bucket."""
    options: dict[str, Any] = {"keep_all": True, "format": "rgb", "bucket_size": FEW}

    def run(style: Any) -> list[Any]:
        return [frame.pixels for frame in client.stylize_video(moving(12), style, **options)]

    names = ("19", "6", "3")
    alone = [run(name) for name in names]
    rows, batches = "pellucid_batch_rows_sum", "pellucid_batch_rows_count"
    before = sample(server, rows), sample(server, batches)
    with ThreadPoolExecutor(3) as threads:
        with server.held():
            together = [threads.submit(run, name) for name in names]
            time.sleep(0.3)
        made = [one.result() for one in together]
    assert sample(server, rows) - before[0] > sample(server, batches) - before[1]
    for one, other in zip(alone, made, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(alone[0][0], alone[1][0])


def test_a_bad_frame_is_its_own_error(client: pellucid.Client) -> None:
    whole = [file_of(one) for one in moving(6)]
    whole[1] = whole[1][:-300]
    whole[3] = file_of(moving(1, 96, 64)[0])
    stream = client.stylize_video(whole, STYLE, keep_all=True)
    made = list(stream)
    assert [frame.index for frame in made] == list(range(6))
    errors = {frame.index: frame.error for frame in made if frame.error is not None}
    assert errors.keys() == {1, 3}
    assert isinstance(errors[1], pellucid.InvalidArgument)
    assert "truncated or corrupt" in str(errors[1])
    assert "of 96 × 64 pixels, and the stream of 64 × 96" in str(errors[3])
    with pytest.raises(pellucid.InvalidArgument, match="truncated"):
        _ = made[1].pixels
    summary = stream.result()
    assert (summary.failed_count, summary.stylized_count) == (2, 4)


def test_what_is_asked_wrongly(client: pellucid.Client, served: Any) -> None:
    with pytest.raises(pellucid.NotFound, match="is 'mosaic'; styles are: 0, 1"):
        client.stylize_video(moving(1), "mosaic").result()
    with pytest.raises(pellucid.InvalidArgument, match=r"smoothing: is 1\.0; must be 0 to 0\.95"):
        client.stylize_video(moving(1), "1", smoothing=1.0).result()
    with pytest.raises(pellucid.BadArgument, match="step_count: not a parameter of a video"):
        client.stylize_video(moving(1), "1", step_count=3)
    with pytest.raises(pellucid.PhotoNotFound):
        client.stylize_video(moving(1), "mosaic.jpg")
    with (
        pellucid.Client(served.grpc) as other,
        pytest.raises(pellucid.FailedPrecondition, match="`pellucid models pull styles`"),
    ):
        other.stylize_video(moving(1), "1").result()


def test_what_goes_wrong_with_the_callers_moving(client: pellucid.Client) -> None:
    """Frames before it come back; then it is raised where frames are taken."""

    def broken() -> Iterator[Any]:
        yield from moving(3)
        raise RuntimeError("the camera fell down")

    taken = []
    stream = client.stylize_video(broken(), "19", keep_all=True)
    with pytest.raises(RuntimeError, match="the camera fell down"):
        for frame in stream:
            taken.append(frame.index)  # noqa: PERF401
    assert taken == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the camera fell down"):
        stream.result()
    assert stream.last is not None
    assert stream.last.stylized_count == 3
    with pytest.raises(pellucid.BadArgument, match="photo: is int"):
        client.stylize_video([1], "19").result()  # type: ignore[list-item]


def test_leaving_early_cancels(server: Any, client: pellucid.Client) -> None:
    go_on = threading.Event()

    def endless() -> Iterator[Any]:
        for i in itertools.count():
            yield moving(1)[0]
            if i > 5:
                go_on.wait(30)

    with client.stylize_video(endless(), "19") as stream:
        assert next(stream).index == 0
        assert sample(server, "pellucid_video_streams") == 1
    go_on.set()
    with pytest.raises(pellucid.Cancelled):
        stream.result()
    until(lambda: not sample(server, "pellucid_video_streams"))
    until(lambda: not server.server.engine.admission.byte_count)


def test_on_asyncio(server: Any, client: pellucid.Client) -> None:
    options: dict[str, Any] = {"keep_all": True, "bucket_size": FEW}
    expected = [one.encoded for one in client.stylize_video(moving(5), "19", **options)]

    async def coming() -> Any:
        for frame in moving(5):
            yield frame, 7.0

    async def go() -> None:
        async with pellucid.AsyncClient(server.grpc) as asynchronous:
            for which in (coming(), moving(5)):
                stream = asynchronous.stylize_video(which, "19", **options)
                assert [frame.encoded async for frame in stream] == expected
                assert (await stream.result()).stylized_count == 5
            left = asynchronous.stylize_video(moving(50), "19", keep_all=True)
            async with left:
                assert (await anext(left)).index == 0
            with pytest.raises(pellucid.NotFound):
                await asynchronous.stylize_video(moving(1), "mosaic").result()

    asyncio.run(go())


def test_smoothing_steadies_what_stands_still(client: pellucid.Client) -> None:
    """A still picture with a camera's noise: results differ less from frame to frame."""
    noise = np.random.default_rng(0).integers(-4, 5, (12, 64, 96, 3))
    still = [np.clip(moving(1)[0] + one, 0, 255).astype(np.uint8) for one in noise]

    def flicker(smoothing: float) -> float:
        options: dict[str, Any] = {"keep_all": True, "format": "rgb", "smoothing": smoothing}
        made = [f.pixels.astype(int) for f in client.stylize_video(still, "19", **options)]
        return float(np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(made[4:])]))

    assert flicker(0.8) < 0.5 * flicker(0.0)


# How streams end on a server of their own.


def test_bounds_idleness_and_drain(make_server: Any, styles: Path) -> None:
    settings = {"buckets": (1,), "max_video_streams": 1, "video_idle_timeout_s": 3.0}
    with make_server(models=("efficientnet_lite0",), styles=styles, **settings) as running:
        go_on = threading.Event()

        def slow() -> Iterator[Any]:
            yield from moving(2)
            go_on.wait(60)

        async def idle(address: str) -> None:
            async with pellucid.AsyncClient(address) as client:
                stream = client.stylize_video(slow(), "19", keep_all=True)
                assert (await anext(stream)).index == 0
                assert stream.last is None
                for _ in range(2):
                    with pytest.raises(pellucid.DeadlineExceeded, match="no frame came for 3 s"):
                        await stream.result()
                assert stream.last is not None
                assert (stream.last.received_count, stream.last.stylized_count) == (2, 2)
                go_on.set()

        with pellucid.Client(running.grpc, max_retries=0) as client:
            with client.stylize_video(slow(), "19", keep_all=True) as first:
                assert next(first).index == 0
                with pytest.raises(pellucid.ResourceExhausted, match="1 streams of video"):
                    client.stylize_video(moving(1), "19").result()
                assert next(first).index == 1
                assert first.last is None
                for _ in range(2):
                    with pytest.raises(pellucid.DeadlineExceeded, match="no frame came for 3 s"):
                        first.result()
                assert first.last is not None
                assert (first.last.received_count, first.last.stylized_count) == (2, 2)
            go_on.set()
            go_on.clear()
            asyncio.run(idle(running.grpc))
            go_on.clear()
            spec = video_pb2.StylizeVideoSpec(fast={"styles": [{"name": "19"}]})

            def messages() -> Iterator[video_pb2.StylizeVideoRequest]:
                yield video_pb2.StylizeVideoRequest(spec=spec)
                encoded = {"encoded": file_of(moving(1)[0])}
                yield video_pb2.StylizeVideoRequest(frame={"image": encoded})
                go_on.wait(60)

            stub = service_pb2_grpc.PellucidServiceStub(client._channel)
            events = stub.StylizeVideo(messages(), timeout=60)
            kinds = [next(events).WhichOneof("event") for _ in range(2)]
            draining = threading.Thread(target=running.do, args=(running.server.service.drain(30),))
            draining.start()
            kinds.append(next(events).WhichOneof("event"))
            assert kinds == ["started", "frame", "summary"]
            with pytest.raises(Exception, match="another replica will answer"):
                next(events)
            draining.join()
            go_on.set()
