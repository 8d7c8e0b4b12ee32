"""Maps: photos become codes on the engine as they come, and codes a map in a process."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import numpy as np

from .. import wire
from ..engine.admission import Admission, Held
from ..engine.job import Done, Priority, Spec
from ..models.registry import Registry
from ..processes import Processes
from ..projection.plan import Progress
from ..projection.result import Map
from .deadlines import in_time
from .jobs import Jobs
from .permits import Permits

_PRIORITY = Priority.OPTIMIZE
_Answer = TypeVar("_Answer")
Parts = AsyncGenerator[tuple[Any, int], None]
"""Photos and codes, each a ProjectRequest, and its bytes where they are not counted yet."""

_IN_FLIGHT = 32
"""Photos that are embedded at once: two batches of the largest usual bucket."""

_PLACE_BYTES = 2 << 20
"""A larger photo takes the place of several: all in flight have 64 MiB, whatever a stream sends."""


class Projecting:
    """Has maps made. On the server's loop.

    Args:
        jobs: Has photos read, and run on the engine.
        permits: Which requests are under way.
        admission: Counts the bytes of photos.
        processes: Solve.
        limits: What may be asked for.
    """

    def __init__(
        self,
        jobs: Jobs,
        permits: Permits,
        admission: Admission,
        processes: Processes,
        limits: wire.Limits,
    ) -> None:
        self._jobs = jobs
        self._permits = permits
        self._admission = admission
        self._processes = processes
        self._limits = limits

    async def events(
        self,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], wire.AskedProject],
        parts: Callable[[], Parts],
        write: Callable[[Any], _Answer],
        most_bytes: int,
    ) -> AsyncGenerator[_Answer, None]:
        """The newest progress as far as it is taken, the result last. Closing it cancels all.

        Args:
            call: By whom, and until when.
            held: What is counted of it.
            read: Validates the spec.
            parts: What follows the spec; called once that has been validated.
            write: Makes a response what is sent; runs in a worker.
            most_bytes: Of a response.
        """
        shown = _Shown()
        work = asyncio.create_task(self._work(call, held, read, parts, shown, write, most_bytes))
        work.add_done_callback(lambda _: shown.end())
        try:
            while (progress := await shown.get()) is not None:
                made = functools.partial(wire.write_progress, progress)
                async with in_time(call):
                    answer = await self._jobs.finish(_PRIORITY, call, made, write)
                yield answer
            yield await work
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def _work(
        self,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], wire.AskedProject],
        parts: Callable[[], Parts],
        shown: "_Shown",
        write: Callable[[Any], _Answer],
        most_bytes: int,
    ) -> _Answer:
        """All of it, by the deadline: whoever does not read on holds no permit for longer."""
        with self._permits.permit(_PRIORITY) as registry:
            async with in_time(call):
                self._processes.check_room()
                asked = await self._jobs.read(_PRIORITY, call, lambda: read(registry))
                intake = _Intake(asked, self._limits, call)
                await self._take_in(intake, parts(), held, shown)
                problem = await self._jobs.work(_PRIORITY, call, intake.problem)
                result = await self._solve(call, problem, shown)
                made = functools.partial(
                    wire.write_project, asked, problem, result, intake.embeddings, most_bytes
                )
                return await self._jobs.finish(_PRIORITY, call, made, write)

    async def _take_in(self, intake: "_Intake", parts: Parts, held: Held, shown: "_Shown") -> None:
        """Codes as they come, photos as codes: of these no more are kept than are embedded.

        What comes is counted as soon as it is there, until it is codes.
        """
        free = asyncio.Semaphore(_IN_FLIGHT)

        async def embed(place: int, number: int, image: Any, places: int, byte_count: int) -> None:
            try:
                await self._embed(intake, place, number, image)
                held.add(intake.width * 4)
                shown.put(Progress("embed", intake.embedded_count))
            finally:
                held.drop(byte_count)
                for _ in range(places):
                    free.release()

        try:
            async with asyncio.TaskGroup() as group, contextlib.aclosing(parts):
                async for part, byte_count in parts:
                    held.add(byte_count)
                    intake.check(part)
                    if part.HasField("image"):
                        places = min(1 + part.ByteSize() // _PLACE_BYTES, _IN_FLIGHT)
                        for _ in range(places):
                            await free.acquire()
                        embedding = embed(*intake.reserve(), part.image, places, byte_count)
                        group.create_task(embedding)
                    else:
                        held.add(
                            await self._jobs.work(_PRIORITY, intake.call, intake.reading(part))
                        )
                        held.drop(byte_count)
                        shown.put(Progress("receive", intake.count))
                    del part
        except ExceptionGroup as several:
            raise several.exceptions[0] from None  # the others were cancelled, or fail alike

    async def _embed(self, intake: "_Intake", place: int, number: int, image: Any) -> None:
        call = intake.call
        read = functools.partial(wire.read_photo, intake.asked, number, image, call, intake.limits)
        spec = await self._jobs.read(_PRIORITY, call, read)
        with self._admission.holding() as of_photo:
            of_photo.add(spec.byte_count)
            done = await self._jobs.run(spec, arrived_s=time.monotonic())
        done.timing.render_started_s = done.timing.finished_s
        intake.put(place, spec, done)

    async def _solve(self, call: wire.Call, problem: Any, shown: "_Shown") -> Map:
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(shown.put, progress)

        shown.put(Progress("queue"))
        task = self._processes.submit(
            "pellucid_server.projection.solve:project",
            (problem.codes, problem.which, problem.plan, problem.reference),
            call.deadline_s,
            report,
        )
        try:
            made: Map = await asyncio.wrap_future(task.future)
            return made
        finally:
            self._processes.cancel(task)


class _Intake:
    """The codes of one request, as far as they are there. On the loop, but for what says so."""

    def __init__(self, asked: wire.AskedProject, limits: wire.Limits, call: wire.Call) -> None:
        self.asked, self.limits, self.call = asked, limits, call
        self.count = self.width = self.photo_count = self.embedded_count = 0
        self._of_photos = False
        self._codes: dict[int, Any] = {}  # by the place of the first of them
        self._one: tuple[Spec, Done] | None = None
        self._longest_ms = (0.0, 0.0, 0.0)

    def check(self, part: Any) -> None:
        """Refuses what may not come next."""
        is_photo = part.HasField("image")
        wire.check_next(self.asked, part, self.count, self.width, self._of_photos, self.limits)
        self._of_photos = is_photo

    def reserve(self) -> tuple[int, int]:
        """The place of the photo that is next among all points, and among the photos."""
        self.count, self.photo_count = self.count + 1, self.photo_count + 1
        return self.count - 1, self.photo_count - 1

    def reading(self, part: Any) -> Callable[[], int]:
        """What reads the next codes, in a worker, and returns their bytes."""

        def read() -> int:
            codes = wire.read_codes(part.codes, self.count, self.width)
            self._codes[self.count] = codes
            self.count, self.width = self.count + len(codes), codes.shape[1]
            return int(codes.nbytes)

        return read

    def put(self, place: int, spec: Spec, done: Done) -> None:
        """The code of a photo is there."""
        self._codes[place] = code = wire.code_of(done)
        self.width, self.embedded_count = code.shape[1], self.embedded_count + 1
        timing = done.timing
        times_s = (
            timing.ready_s - timing.decode_started_s,
            timing.queue_ms / 1e3,
            timing.finished_s - timing.launched_s,
        )
        longest = zip(self._longest_ms, times_s, strict=True)
        decode_ms, queue_ms, run_ms = (max(before, 1e3 * taken_s) for before, taken_s in longest)
        self._longest_ms = (decode_ms, queue_ms, run_ms)
        self._one = self._one or (spec, done)

    def problem(self) -> wire.Problem:
        """What is to be solved, in a worker."""
        parts = [self._codes[place] for place in sorted(self._codes)]
        made = wire.read_problem(self.asked, parts, of_photos=self._of_photos)
        if self._one is not None:
            codes = np.concatenate(parts)[-self.embedded_count :]  # those of a map come before
            self.embeddings = wire.Embeddings(codes, *self._one, *self._longest_ms)
        self._codes.clear()
        return made

    embeddings: wire.Embeddings | None = None


class _Shown:
    """The newest progress, in the place of the one before. On the loop."""

    def __init__(self) -> None:
        self._newest: Progress | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, progress: Progress) -> None:
        self._newest = progress
        self._changed.set()

    def end(self) -> None:
        self._newest, self._ended = None, True
        self._changed.set()

    async def get(self) -> Progress | None:
        """Waits for a newer one; None: there is no more."""
        while self._newest is None and not self._ended:
            await self._changed.wait()
            self._changed.clear()
        newest, self._newest = self._newest, None
        return newest
