"""What is done for a request: by the workers, and by the engine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from typing import TypeVar

from .. import wire
from ..engine.admission import Held
from ..engine.engine import Engine
from ..engine.job import Done, Job, Priority, Spec
from ..models.registry import Registry
from ..observe import Metrics
from ..workers import Workers
from .deadlines import expired, in_time
from .permits import Permits

_Asked = TypeVar("_Asked", wire.Asked, wire.AskedOptimize, wire.AskedStylize)
_Answer = TypeVar("_Answer")
_Returned = TypeVar("_Returned")


class Jobs:
    """Has requests read, run and written. On the server's loop.

    Args:
        engine: What runs them.
        workers: Validate, decode and render.
        metrics: Counts them.
        permits: Which are under way.
    """

    def __init__(
        self, engine: Engine, workers: Workers, metrics: Metrics, permits: Permits
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._metrics = metrics
        self._permits = permits

    async def work(
        self, priority: Priority, call: wire.Call, function: Callable[[], _Returned]
    ) -> _Returned:
        """Has a worker do a part of a request."""
        return await asyncio.wrap_future(self._workers.submit(function, priority, call.deadline_s))

    async def read(
        self, priority: Priority, call: wire.Call, read: Callable[[], _Returned]
    ) -> _Returned:
        """Has a worker validate a request."""
        # Reading headers is short: what must be refused is, before any rendering. Trying the sizes
        # of an optimization is not, nor is reading a checkpoint.
        urgent = priority if priority is Priority.OPTIMIZE else Priority.PREDICT
        return await self.work(urgent, call, read)

    async def finish(
        self,
        priority: Priority,
        call: wire.Call,
        made: Callable[[], _Returned],
        write: Callable[[_Returned], _Answer],
    ) -> _Answer:
        """Has a worker make a response, and of it what is sent."""
        return await self.work(priority, call, lambda: write(made()))

    def write(self, spec: Spec, done: Done, write: Callable[[Done], _Answer]) -> _Answer:
        """The response to what is done. In a worker."""
        done.timing.render_started_s = time.monotonic()
        self._metrics.queued(spec.method.name, done.timing.queue_ms)
        return write(done)

    async def run(
        self,
        spec: Spec,
        outlet: Callable[[Done], None] | None = None,
        *,
        arrived_s: float,
    ) -> Done:
        """Runs a job to its end; whoever waits no longer cancels it."""
        job = self._engine.submit(spec, arrived_s, outlet)
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            if not job.future.done():
                self._engine.cancel(job)

    async def stream(
        self,
        priority: Priority,
        call: wire.Call,
        held: Held,
        read: Callable[[Registry], Awaitable[_Asked]],
        newest: "Newest",
    ) -> AsyncGenerator[tuple[_Asked, Job, Done | None, bool], None]:
        """A job from its admission to its result: what it shows, as far as it is taken.

        The first has nothing done yet; of the last, the last member is true.

        Whoever does not read on by the deadline holds nothing any more.

        Args:
            priority: Its class.
            call: By whom, and until when.
            held: What is counted of it.
            read: Validates the request, and takes in what follows it.
            newest: Where what the job shows is put.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as holding:
            registry = holding.enter_context(self._permits.permit(priority))
            holding.callback(held.release)
            arrived_s = time.monotonic()
            timer = loop.call_later(call.deadline_s - arrived_s, holding.close)
            holding.callback(timer.cancel)
            async with in_time(call):
                asked = await read(registry)
                held.add(asked.byte_count)
            job = self._engine.submit(asked.spec, arrived_s, newest.put)
            holding.callback(self._engine.cancel, job)
            ended = asyncio.wrap_future(job.future)
            ended.add_done_callback(lambda _: newest.end())
            holding.callback(ended.cancel)  # nobody may be left to take what it ends in
            yield asked, job, None, False
            last = False
            while not last:
                shown = await newest.get()
                if call.deadline_s <= time.monotonic():
                    raise expired()
                last = shown is None
                async with in_time(call):
                    done = shown or await ended
                    yield asked, job, done, last


class Newest:
    """The newest that a job shows of each kind, in the place of the one before. On the loop.

    Args:
        kind: Of what is shown.
        outlasts: Whether what is shown is worth something when the job has ended.
    """

    def __init__(
        self,
        kind: Callable[[Done], Hashable] = lambda _: None,
        outlasts: Callable[[Done], bool] = lambda _: False,
    ) -> None:
        self._kind, self._outlasts = kind, outlasts
        self._shown: dict[Hashable, Done] = {}
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, done: Done) -> None:
        kind = self._kind(done)
        self._shown.pop(kind, None)  # it comes when the newest does
        self._shown[kind] = done
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._shown = {kind: one for kind, one in self._shown.items() if self._outlasts(one)}
        self._changed.set()

    async def get(self) -> Done | None:
        """Waits for a newer one; None: the job has ended."""
        while not self._shown and not self._ended:
            await self._changed.wait()
            self._changed.clear()
        return self._shown.pop(next(iter(self._shown))) if self._shown else None
