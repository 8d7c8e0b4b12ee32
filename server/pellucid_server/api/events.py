"""What a job that makes images shows on the way."""

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from .. import wire
from ..engine.admission import Held
from ..engine.job import Done, Job, Priority
from ..methods.optimize.snapshot import Snapshot
from ..models.registry import Registry
from .deadlines import in_time
from .jobs import Jobs, Newest

_Long = TypeVar("_Long", wire.AskedOptimize, wire.AskedStylize)
_Shown = TypeVar("_Shown")
_Answer = TypeVar("_Answer")


async def events(
    jobs: Jobs,
    priority: Priority,
    call: wire.Call,
    held: Held,
    read: Callable[[Registry], Awaitable[_Long]],
    made: Callable[[_Long, Job, Done | None, bool], _Shown],
    parts: Callable[[_Long, Sequence[Snapshot]], Iterator[_Shown]],
    write: Callable[[_Shown], _Answer],
) -> AsyncGenerator[_Answer, None]:
    """Of each kind and image the newest, and every checkpoint; the result last.

    Args:
        jobs: Has it run.
        priority: Its class.
        call: By whom, and until when.
        held: What is counted of it.
        read: Validates the request, and takes in what follows it.
        made: A response: that it is queued, where nothing is done yet, or what is done, and
            whether that is the last.
        parts: A checkpoint's responses, made in workers as they are taken.
        write: Makes a response what is sent; runs in a worker.
    """
    newest = Newest(
        lambda done: (type(done.result), getattr(done.result, "restart", 0)),
        lambda done: isinstance(done.result, Snapshot),
    )
    collector: wire.Collector | None = None
    stream = jobs.stream(priority, call, held, read, newest)
    async with contextlib.aclosing(stream) as shown:
        async for one in shown:
            asked, _, done, _ = one
            if done is None or not isinstance(done.result, Snapshot):
                async with in_time(call):
                    response = functools.partial(made, *one)
                    answer = await jobs.finish(priority, call, response, write)
                yield answer
                continue
            collector = collector or wire.Collector(asked.image_count, asked.states)
            snapshots = collector.add(done.result)
            if snapshots is None:
                continue
            checkpoint = map(write, parts(asked, snapshots))
            del snapshots
            part = functools.partial(next, checkpoint, None)
            while True:
                async with in_time(call):
                    sent = await jobs.work(Priority.OPTIMIZE, call, part)
                if sent is None:
                    break
                yield sent
