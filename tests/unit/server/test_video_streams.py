"""Streams of video without a protocol: order, drops, errors, and how they end."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import data_pb2, video_pb2
from pellucid_server import wire
from pellucid_server.api.video import MOST_UNDERWAY, MOST_WAITING, Videos
from pellucid_server.engine.engine import Unobserved
from pellucid_server.engine.job import Priority
from pellucid_server.engine.schedule import Batch
from pellucid_server.errors import (
    Cancelled,
    DeadlineExpired,
    InvalidArgument,
    Overloaded,
    PellucidError,
    Unavailable,
)
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.styles.library import Library, style_loads
from pellucid_server.observe import Metrics
from PIL import Image

from tests.harness import Runner, photo, running

CALL = wire.Call("me", time.monotonic() + 86_400)  # since collection, whenever tests are run
LIMITS = wire.Limits(10**6, (1, 2), 1 << 16, Buckets(2), b"")
BASE = photo("cat")


def image(height_px: int = 48, width_px: int = 64, at: int = 0) -> data_pb2.Image:
    pixels = BASE[at : at + height_px, at : at + width_px]
    tensor = data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()
    )
    return data_pb2.Image(tensor=tensor)


def asked(**fields: Any) -> video_pb2.StylizeVideoSpec:
    spec = video_pb2.StylizeVideoSpec(**fields)
    if not spec.fast.styles and not spec.styles:
        spec.fast.styles.add(name="19")
    return spec


@pytest.fixture(scope="module")
def library(styles: Path) -> Library:
    return Library([load() for load in style_loads(styles, device=torch.device("cpu"))])


Sent = list[video_pb2.StylizeVideoResponse]


class Bench:
    """Streams on a real engine, with workers and without a server."""

    def __init__(self, runner: Runner, library: Library, **options: Any) -> None:
        self.runner, self.library, self.metrics = runner, library, Metrics()
        settings = {"most": 2, "idle_s": 60.0} | options
        self.videos = Videos(runner.engine, self._work, self.metrics, LIMITS, **settings)

    async def _work(self, priority: Priority, call: wire.Call, function: Callable[[], Any]) -> Any:
        submitted = self.runner.workers.submit(function, priority, call.deadline_s)
        return await asyncio.wrap_future(submitted)

    async def run(
        self,
        spec: video_pb2.StylizeVideoSpec,
        receive: Callable[[], Awaitable[video_pb2.VideoFrame | None]],
        sent: Sent,
    ) -> None:
        async def send(response: video_pb2.StylizeVideoResponse) -> None:
            sent.append(response)

        await self.videos.run(spec, CALL, self.library, receive, send)


def feed(*frames: video_pb2.VideoFrame) -> Callable[[], Awaitable[video_pb2.VideoFrame | None]]:
    left = list(frames)

    async def receive() -> video_pb2.VideoFrame | None:
        return left.pop(0) if left else None

    return receive


def numbered(count: int) -> list[video_pb2.VideoFrame]:
    return [
        video_pb2.VideoFrame(index=i, timestamp_ms=i * 40.0, image=image(at=i))
        for i in range(count)
    ]


def frames_of(sent: Sent) -> list[video_pb2.StylizedFrame]:
    return [one.frame for one in sent if one.HasField("frame")]


async def never() -> None:
    await asyncio.sleep(600)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_frames_keep_their_order_and_what_they_bring(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL)
        asyncio.run(bench.run(spec, feed(*numbered(12)), sent))
        assert runner.engine.admission.byte_count == 0
    assert sent[0].started.model == "styles/multistyle26"
    assert [(one.index, one.timestamp_ms) for one in frames_of(sent)] == [
        (i, i * 40.0) for i in range(12)
    ]
    assert all(one.image.width_px == 64 and one.image.height_px == 48 for one in frames_of(sent))
    summary = sent[-1].summary
    assert (summary.received_count, summary.stylized_count) == (12, 12)
    assert summary.dropped_count == summary.failed_count == 0
    assert 0 < summary.most_waiting_count <= MOST_WAITING


def test_what_is_dropped_while_the_device_stands_still(library: Library) -> None:
    """Of 20 frames 3 are under way, and the last 4 wait; all others are dropped and counted."""
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        dropped = bench.metrics.registry.get_sample_value

        async def go() -> None:
            received = asyncio.Event()
            left = numbered(20)

            async def receive() -> video_pb2.VideoFrame | None:
                if len(left) == 20 - MOST_UNDERWAY:
                    await until(lambda: len(runner.engine.admission.jobs()) == MOST_UNDERWAY)
                if left:
                    return left.pop(0)
                await received.wait()
                return None

            with runner.held():
                runner.submitted.clear()
                stream = asyncio.create_task(bench.run(asked(), receive, sent))
                name = "pellucid_video_frames_total"
                await until(lambda: dropped(name, {"outcome": "dropped"}) == 20 - 7)
            received.set()
            await stream

        asyncio.run(go())
    indices = [one.index for one in frames_of(sent)]
    assert indices == [0, 1, 2, 16, 17, 18, 19]
    assert frames_of(sent)[-1].dropped_count == 13
    summary = sent[-1].summary
    assert (summary.received_count, summary.stylized_count, summary.dropped_count) == (20, 7, 13)
    assert summary.most_waiting_count == 4


def test_what_a_caller_leaves_is_counted(library: Library) -> None:
    """3 frames under way, and 4 that wait."""
    with running(buckets=(1, 2)) as runner:
        bench = Bench(runner, library)

        def count(outcome: str) -> float | None:
            labels = {"outcome": outcome}
            return bench.metrics.registry.get_sample_value("pellucid_video_frames_total", labels)

        async def go() -> None:
            left = numbered(20)

            async def receive() -> video_pb2.VideoFrame | None:
                if len(left) == 20 - MOST_UNDERWAY:
                    await until(lambda: len(runner.engine.admission.jobs()) == MOST_UNDERWAY)
                if not left:
                    await never()
                return left.pop(0)

            with runner.held():
                runner.submitted.clear()
                stream = asyncio.create_task(bench.run(asked(), receive, Sent()))
                await until(lambda: count("dropped") == 20 - 7)
                stream.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await stream

        asyncio.run(go())
        assert count("left") == 7
        assert count("stylized") is None
        assert runner.engine.admission.byte_count == 0


def test_of_what_is_to_be_kept_nothing_is_dropped_when_a_caller_leaves(library: Library) -> None:
    """3 frames under way, 4 that wait, and 1 that there is no room for yet."""
    with running(buckets=(1, 2)) as runner:
        bench, taken = Bench(runner, library), list[int]()

        async def go() -> None:
            left = numbered(20)

            async def receive() -> video_pb2.VideoFrame | None:
                taken.append(len(left))
                return left.pop(0)

            spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL)
            with runner.held():
                stream = asyncio.create_task(bench.run(spec, receive, Sent()))
                await until(lambda: len(taken) == 8)
                await asyncio.sleep(0.1)
                stream.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await stream

        asyncio.run(go())
        value = bench.metrics.registry.get_sample_value
        assert value("pellucid_video_frames_total", {"outcome": "left"}) == 8
        assert value("pellucid_video_frames_total", {"outcome": "dropped"}) is None
        assert runner.engine.admission.byte_count == 0


def test_where_memory_is_short_the_newest_frames_stay(library: Library) -> None:
    """There is room for 3 frames under way and 2 that wait."""
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        admission = runner.engine.admission
        hold, most = admission.hold, 1 << 40

        def holding(held: Any, byte_count: int) -> None:
            if admission.byte_count + byte_count > most:
                raise Overloaded("full", retry_delay_ms=1)
            hold(held, byte_count)

        async def go() -> None:
            received = asyncio.Event()
            left = numbered(20)

            async def receive() -> video_pb2.VideoFrame | None:
                nonlocal most
                if len(left) == 20 - MOST_UNDERWAY:
                    await until(lambda: len(admission.jobs()) == MOST_UNDERWAY)
                if len(left) == 20 - MOST_UNDERWAY - 2:
                    most = admission.byte_count + 99
                if left:
                    return left.pop(0)
                most = 1 << 40
                received.set()
                return None

            with runner.held():
                runner.submitted.clear()
                stream = asyncio.create_task(bench.run(asked(), receive, sent))
                await received.wait()
            await stream

        admission.hold = holding  # type: ignore[method-assign]
        asyncio.run(go())
        assert admission.byte_count == 0
    assert [one.index for one in frames_of(sent)] == [0, 1, 2, 18, 19]
    summary = sent[-1].summary
    assert (summary.received_count, summary.stylized_count, summary.dropped_count) == (20, 5, 15)


def test_a_frame_that_fails_does_not_end_the_stream(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        frames = numbered(5)
        file = BytesIO()
        Image.fromarray(BASE[:48, :64]).save(file, "JPEG")
        frames[1].image.encoded = file.getvalue()[:-200]
        frames[2].image.CopyFrom(image(64, 48))
        frames[3].image.encoded = b"no picture"
        spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL)
        asyncio.run(bench.run(spec, feed(*frames), sent))
        assert runner.engine.admission.byte_count == 0
    made = frames_of(sent)
    assert [one.index for one in made] == [0, 1, 2, 3, 4]
    assert [one.WhichOneof("outcome") for one in made] == [
        "image",
        "failure",
        "failure",
        "failure",
        "image",
    ]
    assert "truncated or corrupt" in made[1].failure.message
    assert "all frames of a stream are of one size" in made[2].failure.message
    assert made[2].failure.reason == "INVALID_ARGUMENT"
    assert made[2].failure.violations[0].field == "frame.image"
    assert sent[-1].summary.failed_count == 3
    assert sent[-1].summary.stylized_count == 2


def test_a_late_frame_fails_and_the_stream_goes_on(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()

        async def go() -> None:
            spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL, frame_timeout_ms=3000)
            begun, go_on = asyncio.Event(), asyncio.Event()
            left = numbered(4)

            async def receive() -> video_pb2.VideoFrame | None:
                if len(left) == 3:
                    begun.set()
                    await go_on.wait()
                return left.pop(0) if left else None

            with runner.held():
                runner.submitted.clear()
                stream = asyncio.create_task(bench.run(spec, receive, sent))
                await begun.wait()
                await asyncio.sleep(3.2)
            await until(lambda: len(frames_of(sent)) == 1)
            go_on.set()
            await stream

        asyncio.run(go())
    first, *others = frames_of(sent)
    assert first.failure.reason == "DEADLINE_EXPIRED"
    assert [one.WhichOneof("outcome") for one in others] == ["image"] * 3


def test_a_worker_that_is_late_changes_nothing(library: Library) -> None:
    """What it comes to is of another size, and bright, and must not be seen in the next frames."""
    black = np.zeros((48, 64, 3), np.uint8)
    still = data_pb2.Image(
        tensor={
            "data_type": data_pb2.DATA_TYPE_UINT8,
            "shape": black.shape,
            "data": black.tobytes(),
        }
    )
    results = []
    for late in (None, Priority.PREDICT, Priority.EXPLAIN):
        with running(buckets=(1, 2)) as runner:
            bench, sent = Bench(runner, library), Sent()
            work, counts = bench._work, Counter[Priority]()

            async def working(
                priority: Priority,
                *rest: Any,
                late: Any = late,
                work: Any = work,
                counts: Any = counts,
            ) -> Any:
                made = await work(priority, *rest)
                counts[priority] += 1
                # The first read is the spec's.
                if priority == late and counts[priority] == 1 + (late == Priority.PREDICT):
                    raise DeadlineExpired("late")
                return made

            bench.videos._work = working
            first = image(64, 48) if late == Priority.PREDICT else image(48, 64)
            frames = [video_pb2.VideoFrame(index=1, image=still) for _ in range(2)]
            if late is not None:
                frames.insert(0, video_pb2.VideoFrame(index=0, image=first))
            if late == Priority.EXPLAIN:  # as alike as frames can be: all would be blended
                frames[0].image.CopyFrom(still)
                frames[0].image.tensor.data = bytes([5]) * black.size
            spec = asked(
                overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL,
                format=video_pb2.FRAME_FORMAT_RGB,
                smoothing=0.9,
            )
            spec.fast.bucket_size = 1  # or bits would depend on which frames met
            asyncio.run(bench.run(spec, feed(*frames), sent))
        made = frames_of(sent)
        assert [one.HasField("failure") for one in made] == [late is not None, False, False][
            -len(made) :
        ]
        results.append([one.pixels.data for one in made[-2:]])
    assert results[0] == results[1] == results[2]


def test_without_room_frames_wait_for_it(library: Library) -> None:
    """What the engine refuses for want of room is tried again: nothing that is kept is lost."""
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        submit, refusals = runner.engine.submit, [True, True, False, True, False, False]

        def sometimes(*args: Any, **options: Any) -> Any:
            if refusals and refusals.pop(0):
                raise Overloaded("full", retry_delay_ms=1)
            return submit(*args, **options)

        runner.engine.submit = sometimes  # type: ignore[method-assign]
        spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL)
        asyncio.run(bench.run(spec, feed(*numbered(6)), sent))
    assert not refusals
    assert [one.index for one in frames_of(sent)] == list(range(6))
    assert sent[-1].summary.stylized_count == 6


def test_a_long_delay_is_cut_to_the_deadline(library: Library) -> None:
    """Of workers and of the engine alike, who say to come back after the frame's deadline."""
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        work, submit = bench._work, runner.engine.submit
        refused: Counter[str] = Counter()

        def refuse(what: str) -> None:
            refused[what] += 1
            if refused[what] == 1:
                raise Overloaded("full", retry_delay_ms=10_000)

        async def working(*arguments: Any) -> Any:
            if sent:  # the spec is read
                refuse(str(arguments[0]))
            return await work(*arguments)

        def submitting(*arguments: Any, **options: Any) -> Any:
            refuse("submit")
            return submit(*arguments, **options)

        bench.videos._work = working  # type: ignore[assignment]
        runner.engine.submit = submitting  # type: ignore[method-assign]
        spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL, frame_timeout_ms=8000)
        asyncio.run(bench.run(spec, feed(*numbered(1)), sent))
    assert sent[-1].summary.stylized_count == 1
    assert len(refused) == 3


def test_what_keeps_all_does_not_wait_for_memory_for_ever(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library, idle_s=1.0), Sent()
        admission = runner.engine.admission
        hold = admission.hold

        def holding(held: Any, byte_count: int) -> None:
            if len(left) == 1 and not held.byte_count:  # the second frame arrives
                raise Overloaded("no memory is left", retry_delay_ms=50)
            hold(held, byte_count)

        async def receive() -> video_pb2.VideoFrame | None:
            return left.pop(0) if left else None

        left = numbered(3)
        admission.hold = holding  # type: ignore[method-assign]
        spec = asked(overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL)

        async def go() -> None:
            async with asyncio.timeout(30):
                await bench.run(spec, receive, sent)

        with pytest.raises(Overloaded, match="no memory is left"):
            asyncio.run(go())
        assert admission.byte_count == 0
    summary = sent[-1].summary
    assert (summary.received_count, summary.stylized_count, summary.dropped_count) == (2, 1, 1)


def test_a_stream_ends_when_no_frame_comes(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library, idle_s=0.2), Sent()
        left = numbered(2)

        async def receive() -> video_pb2.VideoFrame | None:
            if not left:
                await never()
            return left.pop(0)

        with pytest.raises(DeadlineExpired, match=r"no frame came for 0\.2 s"):
            asyncio.run(bench.run(asked(), receive, sent))
    assert sent[-1].summary.stylized_count == 2


def test_a_stream_ends_when_none_is_taken(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench = Bench(runner, library, idle_s=0.2)
        count = 0

        async def send(_: video_pb2.StylizeVideoResponse) -> None:
            nonlocal count
            count += 1
            if count == 3:
                await never()

        async def go() -> None:
            receive = feed(*numbered(9))
            await bench.videos.run(asked(), CALL, library, receive, send)

        with pytest.raises(DeadlineExpired, match=r"no frame was taken for 0\.2 s"):
            asyncio.run(go())
        assert runner.engine.admission.byte_count == 0


def test_a_drain_finishes_what_came(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        left = numbered(3)

        async def receive() -> video_pb2.VideoFrame | None:
            if not left:
                bench.videos.end()
                await never()
            return left.pop(0)

        with pytest.raises(Unavailable, match="another replica"):
            asyncio.run(bench.run(asked(), receive, sent))
    assert [one.index for one in frames_of(sent)] == [0, 1, 2]
    assert sent[-1].summary.received_count == 3


@pytest.mark.parametrize("when", ["spec", "code", "started"])
def test_a_drain_before_the_first_frame(library: Library, when: str) -> None:
    """While the spec is read, the code of a picture is computed, or the caller is told of both."""
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library), Sent()
        work, submit = bench._work, runner.engine.submit

        async def working(*arguments: Any) -> Any:
            if when == "spec":
                bench.videos.end()
            return await work(*arguments)

        def submitting(*arguments: Any) -> Any:
            if when == "code":
                bench.videos.end()
            return submit(*arguments)

        async def send(response: video_pb2.StylizeVideoResponse) -> None:
            sent.append(response)
            if when == "started":
                bench.videos.end()

        async def go() -> None:
            bench.videos._work = working  # type: ignore[assignment]
            runner.engine.submit = submitting  # type: ignore[method-assign]
            spec = video_pb2.StylizeVideoSpec()
            spec.styles.add(image=image(64, 64))
            async with asyncio.timeout(60):
                await bench.videos.run(spec, CALL, library, feed(*numbered(2)), send)

        with pytest.raises(Unavailable, match="another replica"):
            asyncio.run(go())
    assert [one.WhichOneof("event") for one in sent] == ["started", "summary"]


def test_what_breaks_the_protocol_ends_the_stream_after_what_came(library: Library) -> None:
    for error in (InvalidArgument("frame: required"), Cancelled("gone")):
        with running(buckets=(1, 2)) as runner:
            bench, sent = Bench(runner, library), Sent()
            left = numbered(2)

            async def receive(error: PellucidError = error, left: Any = left) -> Any:
                if not left:
                    raise error
                return left.pop(0)

            with pytest.raises(type(error)):
                asyncio.run(bench.run(asked(), receive, sent))
            assert sent[-1].HasField("summary") == isinstance(error, InvalidArgument)
            assert runner.engine.admission.byte_count == 0


def test_streams_are_bounded(library: Library) -> None:
    with running(buckets=(1, 2)) as runner:
        bench, sent = Bench(runner, library, most=1), Sent()

        async def go() -> None:
            async def receive() -> None:
                await never()

            first = asyncio.create_task(bench.run(asked(), receive, sent))
            await until(lambda: len(sent) == 1)
            with pytest.raises(Overloaded, match="1 streams of video are under way"):
                await bench.run(asked(), receive, sent)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            sent.clear()
            await bench.run(asked(), feed(*numbered(1)), sent)

        asyncio.run(go())
    assert sent[-1].summary.stylized_count == 1


def test_pictures_are_looked_at_once(library: Library) -> None:
    """The code of a stream is computed once; strength is between frame and painting."""
    results = []
    rows_of: Counter[str] = Counter()

    class Counting(Unobserved):
        def batch(self, batch: Batch, batch_ms: float) -> None:
            rows_of[batch.key.model.name] += len(batch.tickets)

    with running(buckets=(1, 2), observer=Counting()) as runner:
        for strength in (0.0, 0.5, 1.0):
            bench, sent = Bench(runner, library), Sent()
            spec = video_pb2.StylizeVideoSpec(
                fast={"strength": strength}, format=video_pb2.FRAME_FORMAT_RGB
            )
            spec.styles.add(image=image(200, 200, 50))
            asyncio.run(bench.run(spec, feed(*numbered(2)), sent))
            rows = [
                np.frombuffer(one.pixels.data, np.uint8).reshape(one.pixels.shape).astype(int)
                for one in frames_of(sent)
            ]
            results.append(rows)
    assert rows_of == {"styles/predictor": 1, "styles/arbitrary": 6}
    photos = [BASE[i : i + 48, i : i + 64].astype(int) for i in range(2)]
    for i in range(2):
        assert np.array_equal(results[0][i], photos[i])
        assert np.abs(results[2][i] - photos[i]).mean() > 5
        half = (results[2][i] + photos[i]) / 2
        assert np.abs(results[1][i] - half).max() <= 1
