"""Which requests are under way: each holds a permit, from before any work to its answer."""

import asyncio
import contextlib
from collections.abc import Iterator

from ..engine.admission import Admission
from ..engine.job import Priority
from ..errors import Overloaded, Unavailable
from ..models.registry import Registry

_RETRY_DELAY_MS = 100.0
"""When to come back if all permits are taken: about one CPU iteration."""


class Permits:
    """None before the models are loaded, none while the server drains. On the server's loop.

    Args:
        most: How many there are.
        admission: Says whether there is room for another job.
    """

    def __init__(self, most: int, admission: Admission) -> None:
        self._most = self._left = most
        self._admission = admission
        self._registry: Registry | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def given(self) -> bool:
        """Whether there are any to be had."""
        return self._registry is not None and not self._draining

    def open(self, registry: Registry) -> None:
        """These models are loaded: permits are given from now on."""
        self._registry = registry

    async def drain(self, timeout_s: float) -> bool:
        """Gives no more, waits until none is held; false: time ran out."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self._idle.is_set()

    def registry(self) -> Registry:
        """The models that answer.

        Raises:
            Unavailable: They are not loaded yet.
        """
        if self._registry is None:
            raise Unavailable("the server is still loading its models", retry_delay_ms=1000.0)
        return self._registry

    def check_room(self, *priorities: Priority) -> None:
        """Refuses what cannot be taken in now, before anything of it is read.

        Args:
            priorities: The class that it is of, or those that it may turn out to be of.

        Raises:
            Overloaded, Unavailable: It cannot, of whichever class it is.
        """
        self.registry()
        if self._draining:
            raise Unavailable("the server is stopping; another replica will answer")
        self._admission.check_room(*priorities)
        if self._left == 0:
            raise Overloaded(f"{self._most} requests are under way", retry_delay_ms=_RETRY_DELAY_MS)

    @contextlib.contextmanager
    def permit(self, priority: Priority) -> Iterator[Registry]:
        """Held by a request while it is under way; a drain waits for all of them.

        Raises:
            Overloaded, Unavailable: See check_room.
        """
        self.check_room(priority)
        registry = self.registry()
        self._left -= 1
        self._idle.clear()
        try:
            yield registry
        finally:
            self._left += 1
            if self._left == self._most:
                self._idle.set()
