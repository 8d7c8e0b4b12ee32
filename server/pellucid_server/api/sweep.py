"""Memory of calls that failed or were left."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator

_PAUSES_S = (0.1, 1.0, 10.0)
"""From such a call's end to the collections after it: other threads may still be at work on it."""

_MOST_TIME = 0.02
"""Of the loop's, that collections of one pause may take: in a server that does nothing else each
takes a millisecond, since what was there at its start is frozen.
"""


class Sweeper:
    """Collects what calls that end in an error leave behind. On the loop.

    asyncio, anyio and grpc.aio keep errors and cancellations in cycles, by their tracebacks: with
    them stay the request, its photo and its job. Python's own collector would come to it after
    hundreds of calls.
    """

    def __init__(self) -> None:
        self._last_s = self._taken_s = 0.0
        self._waiting: set[float] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A call, from its arrival to its end."""
        try:
            yield
        except BaseException:
            self._last_s = time.monotonic()
            for pause_s in _PAUSES_S:
                if pause_s not in self._waiting:
                    self._wait(pause_s)
            raise

    def _wait(self, pause_s: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the call is ended by what collects it, or after its loop
        wait_s = max(pause_s, self._taken_s / _MOST_TIME)
        loop.call_later(wait_s, self._sweep, pause_s, time.monotonic())
        self._waiting.add(pause_s)

    def _sweep(self, pause_s: float, since_s: float) -> None:
        self._waiting.discard(pause_s)
        started_s = time.monotonic()
        gc.collect()
        self._taken_s = time.monotonic() - started_s
        if self._last_s > since_s:  # the last call has not had its pause
            self._wait(pause_s)
