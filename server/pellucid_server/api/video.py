"""Streams of video, free of any protocol: frames wait, are painted, and leave in order."""

import asyncio
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pellucid.v1 import video_pb2
from torch import Tensor

from .. import wire
from ..engine.admission import Held
from ..engine.engine import Engine
from ..engine.job import Done, Job, Priority, Spec
from ..errors import (
    Cancelled,
    DeadlineExpired,
    Overloaded,
    PellucidError,
    Unavailable,
    failure_of,
)
from ..methods.stylize.video import Smoother
from ..models.styles.library import Library
from ..observe import Metrics

MOST_WAITING = 4
"""Frames of a stream."""

MOST_UNDERWAY = 3
"""Frames of a stream beyond those that wait: one is decoded, one painted, one encoded."""

_RETRY_DELAY_MS = 1000.0
"""When to come back if there are too many streams."""

_LEAST_PAUSE_S = 0.01
"""Between two attempts at what there is no room for."""

_Item = TypeVar("_Item")
_Returned = TypeVar("_Returned")

Receive = Callable[[], Awaitable[video_pb2.VideoFrame | None]]
"""The next frame; None: there are no more. Cancelled: the caller went away."""
Send = Callable[[video_pb2.StylizeVideoResponse], Awaitable[None]]
"""Returns when the caller has room for more."""


class Work(Protocol):
    """Has a worker run a function of a call, by its deadline."""

    def __call__(
        self, priority: Priority, call: wire.Call, function: Callable[[], _Returned]
    ) -> Awaitable[_Returned]: ...


class Waiting(Generic[_Item]):
    """What waits, in order, and never more of it than there is room for. On the loop.

    Args:
        most: That wait at once.
        keeps_all: Whether who puts waits for room; else the oldest makes room.

    Attributes:
        most_count: How many waited at once so far, at most.
    """

    def __init__(self, most: int, *, keeps_all: bool) -> None:
        self._most, self._keeps_all = most, keeps_all
        self._items: deque[_Item] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        self.most_count = 0

    async def put(self, item: _Item) -> _Item | None:
        """Has one wait; returns the one that is dropped for it, if one is."""
        while self._keeps_all and len(self._items) >= self._most:
            await self._change()
        dropped = self.drop() if len(self._items) >= self._most else None
        self._items.append(item)
        self.most_count = max(self.most_count, len(self._items))
        self._changed.set()
        return dropped

    async def get(self) -> _Item | None:
        """Waits for the oldest; None: there will be no more."""
        while not self._items and not self._ended:
            await self._change()
        if not self._items:
            return None
        self._changed.set()
        return self._items.popleft()

    def drop(self) -> _Item | None:
        """Takes the oldest, if one waits."""
        return self._items.popleft() if self._items else None

    def end(self) -> None:
        """Nothing more is put."""
        self._ended = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Videos:
    """The streams that are under way.

    Args:
        engine: Paints.
        work: Has workers read and encode.
        metrics: Counts frames.
        limits: Of specs and frames.
        most: Streams at once.
        idle_s: How long one may bring no frame, or take none.
    """

    def __init__(
        self,
        engine: Engine,
        work: Work,
        metrics: Metrics,
        limits: wire.Limits,
        most: int,
        idle_s: float,
    ) -> None:
        self._engine, self._work, self._metrics = engine, work, metrics
        self._limits, self._most, self._idle_s = limits, most, idle_s
        self._streams: set[_Stream] = set()

    async def run(
        self,
        request: video_pb2.StylizeVideoSpec,
        call: wire.Call,
        library: Library,
        receive: Receive,
        send: Send,
    ) -> None:
        """A stream from its spec to its summary; cancelling ends it.

        Args:
            request: Its spec.
            call: Who calls, and until when the spec is to be read and styles' codes are computed.
            library: The styles that there are.
            receive: See Receive.
            send: See Send.
        """
        if len(self._streams) >= self._most:
            raise Overloaded(
                f"{self._most} streams of video are under way", retry_delay_ms=_RETRY_DELAY_MS
            )
        stream = _Stream(self._engine, self._work, self._metrics, call, receive, send, self._idle_s)
        self._streams.add(stream)
        try:
            with self._metrics.video():
                await stream.run(request, library, self._limits)
        finally:
            self._streams.discard(stream)

    def end(self) -> None:
        """Streams take no further frame; those that came are finished."""
        for stream in self._streams:
            stream.leave(Unavailable("the server is stopping; another replica will answer"))


@dataclass(eq=False)
class _Frame:
    """A frame from its arrival to its leaving.

    Attributes:
        held: Its bytes.
        deadline_s: Once it waits no more, by time.monotonic().
        outcome: What became of it.
    """

    message: video_pb2.VideoFrame
    held: Held
    arrived_s: float = field(default_factory=time.monotonic)
    deadline_s: float = 0.0
    outcome: "Awaitable[Done | PellucidError] | None" = None


class _Stream:
    """One stream. Three tasks hand frames on: one receives, one has them painted, one sends."""

    def __init__(
        self,
        engine: Engine,
        work: Work,
        metrics: Metrics,
        call: wire.Call,
        receive: Receive,
        send: Send,
        idle_s: float,
    ) -> None:
        self._engine, self._work, self._metrics, self._call = engine, work, metrics, call
        self._receive, self._send, self._idle_s = receive, send, idle_s
        self._room = asyncio.Semaphore(MOST_UNDERWAY)
        self._underway: asyncio.Queue[_Frame | None] = asyncio.Queue()
        self._frames: set[_Frame] = set()
        self._receiving: asyncio.Task[None] | None = None
        self._ending: PellucidError | None = None
        self._summary = video_pb2.VideoSummary()

    def leave(self, error: PellucidError) -> None:
        """Receives no further frame; the stream ends in this error when all that came is done."""
        self._ending = self._ending or error
        if self._receiving is not None:
            self._receiving.cancel()

    async def run(
        self, request: video_pb2.StylizeVideoSpec, library: Library, limits: wire.Limits
    ) -> None:
        """See Videos.run."""
        read = functools.partial(wire.read_video, request, library, limits)
        asked = await self._work(Priority.PREDICT, self._call, read)
        reader = wire.FrameReader(asked, await self._code(asked), limits)
        waiting: Waiting[_Frame] = Waiting(MOST_WAITING, keeps_all=asked.keeps_all)
        await self._show(wire.write_started(asked))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._paint_all(asked, waiting, reader, group))
                group.create_task(self._send_all(asked))
                self._receiving = group.create_task(self._receive_all(asked, waiting))
                # Not in the task: cancelled before its first step, it would never come to it.
                self._receiving.add_done_callback(lambda _: waiting.end())
                if self._ending is not None:
                    self._receiving.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for frame in list(self._frames):
                self._let_go(frame, "left")
        self._summary.most_waiting_count = waiting.most_count
        await self._show(video_pb2.StylizeVideoResponse(summary=self._summary))
        if self._ending is not None:
            raise self._ending

    async def _receive_all(self, asked: wire.AskedVideo, waiting: Waiting[_Frame]) -> None:
        while (message := await self._next()) is not None:
            self._summary.received_count += 1
            frame = _Frame(message, Held(self._engine.admission))
            self._frames.add(frame)
            dropped: _Frame | None = frame  # unless there is room for it
            try:
                if await self._hold(asked, waiting, frame):
                    dropped = await waiting.put(frame)
            except Overloaded as error:  # what keeps all goes no further without one
                self._ending = self._ending or error
                return
            except asyncio.CancelledError:
                if self._ending is None:  # its caller went away: it is among what is left
                    dropped = None
                raise
            finally:
                if dropped is not None:
                    self._drop(dropped)

    async def _hold(self, asked: wire.AskedVideo, waiting: Waiting[_Frame], frame: _Frame) -> bool:
        """Whether there is memory for a frame: the oldest that wait make room for it.

        Raises:
            Overloaded: All are to be kept, and there was none for as long as a stream may idle.
        """
        hold = functools.partial(frame.held.add, frame.message.ByteSize())
        if asked.keeps_all:
            await _patiently(_called(hold), time.monotonic() + self._idle_s)
            return True
        while True:
            try:
                hold()
                return True
            except Overloaded:
                oldest = waiting.drop()
            if oldest is None:
                return False
            self._drop(oldest)

    def _drop(self, frame: _Frame) -> None:
        self._summary.dropped_count += 1
        self._let_go(frame, "dropped")

    async def _next(self) -> video_pb2.VideoFrame | None:
        """The next frame; None: no further one is taken."""
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._receive()
        except TimeoutError:
            self._ending = DeadlineExpired(f"no frame came for {self._idle_s:g} s")
        except Cancelled:
            raise
        except PellucidError as error:
            self._ending = error
        return None

    async def _paint_all(
        self,
        asked: wire.AskedVideo,
        waiting: Waiting[_Frame],
        reader: wire.FrameReader,
        group: asyncio.TaskGroup,
    ) -> None:
        while True:
            await self._room.acquire()  # before a frame is taken: one that waits can be dropped
            frame = await waiting.get()
            if frame is None:
                break
            frame.deadline_s = time.monotonic() + asked.video.frame_timeout_ms / 1e3
            call = wire.Call(self._call.caller, frame.deadline_s)
            read = functools.partial(reader.read, frame.message, call)
            # A worker that is late goes on; what it comes to then is not taken.
            work = functools.partial(self._work, Priority.PREDICT, call, read)
            made = await _outcome(functools.partial(_patiently, work, frame.deadline_s))
            spec: Spec[Any] | PellucidError
            if isinstance(made, PellucidError):
                spec = made
            else:
                spec, reader = made
            frame.message.ClearField("image")  # the spec has it
            # Called by the task, which may be cancelled before it begins.
            paint = functools.partial(self._paint, frame, spec)
            frame.outcome = group.create_task(_outcome(paint))
            self._underway.put_nowait(frame)
        self._underway.put_nowait(None)

    async def _paint(self, frame: _Frame, spec: Spec[Any] | PellucidError) -> Done:
        if isinstance(spec, PellucidError):
            raise spec
        hold = functools.partial(frame.held.add, spec.byte_count)
        await _patiently(_called(hold), spec.deadline_s)
        submit = functools.partial(self._engine.submit, spec, frame.arrived_s)
        return await self._done(await _patiently(_called(submit), spec.deadline_s))

    async def _done(self, job: Job) -> Done:
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            if not job.future.done():
                self._engine.cancel(job)

    async def _code(self, asked: wire.AskedVideo) -> Tensor:
        """Of the styles, once for all frames."""
        spec = wire.code_spec(asked, self._call)
        if spec is None:
            return wire.named_code(asked)
        code: Tensor = (await self._done(self._engine.submit(spec))).result
        return code

    async def _send_all(self, asked: wire.AskedVideo) -> None:
        smoother = Smoother(asked.video.smoothing)
        while (frame := await self._underway.get()) is not None:
            assert frame.outcome is not None
            made: Any = await frame.outcome
            if isinstance(made, Done):
                write = functools.partial(self._write, asked, smoother, made)
                call = wire.Call(self._call.caller, frame.deadline_s)
                work = functools.partial(self._work, Priority.EXPLAIN, call, write)
                made = await _outcome(functools.partial(_patiently, work, frame.deadline_s))
                if not isinstance(made, PellucidError):
                    made, smoother = made
            if isinstance(made, PellucidError):
                self._summary.failed_count += 1
                self._let_go(frame, "failed")
                made = wire.write_failed(made)
            else:
                self._summary.stylized_count += 1
                self._let_go(frame, "stylized")
            made.index, made.timestamp_ms = frame.message.index, frame.message.timestamp_ms
            made.dropped_count = self._summary.dropped_count
            made.taken_ms = (time.monotonic() - frame.arrived_s) * 1e3
            await self._show(video_pb2.StylizeVideoResponse(frame=made))
            self._room.release()

    def _write(
        self, asked: wire.AskedVideo, smoother: Smoother, done: Done
    ) -> tuple[video_pb2.StylizedFrame, Smoother]:
        """In a worker."""
        done.timing.render_started_s = time.monotonic()
        self._metrics.queued("video_frame", done.timing.queue_ms)
        return wire.write_frame(asked, smoother, done)

    def _let_go(self, frame: _Frame, outcome: str) -> None:
        self._metrics.video_frame(outcome)
        frame.held.release()
        self._frames.discard(frame)

    async def _show(self, response: video_pb2.StylizeVideoResponse) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await self._send(response)
        except TimeoutError:
            raise DeadlineExpired(f"no frame was taken for {self._idle_s:g} s") from None


def _called(function: Callable[[], _Returned]) -> Callable[[], Awaitable[_Returned]]:
    """A function as an attempt."""

    async def call() -> _Returned:
        return function()

    return call


async def _patiently(attempt: Callable[[], Awaitable[_Returned]], until_s: float) -> _Returned:
    """What is attempted, again where there is no room for it, until a time by time.monotonic()."""
    while True:
        try:
            return await attempt()
        except Overloaded as error:
            left_s = until_s - time.monotonic()
            if left_s <= _LEAST_PAUSE_S:
                raise
            # At the end itself it would be too late: sooner than told, if that is what there is.
            pause_s = min((error.retry_delay_ms or _RETRY_DELAY_MS) / 1e3, left_s / 2)
        await asyncio.sleep(max(pause_s, _LEAST_PAUSE_S))


async def _outcome(attempt: Callable[[], Awaitable[_Returned]]) -> _Returned | PellucidError:
    """What is attempted, or what went wrong with it."""
    try:
        return await attempt()
    except Exception as error:
        return failure_of(error)
