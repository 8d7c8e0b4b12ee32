"""A loop whose clock jumps to the next thing that waits for it: a day takes a moment."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Returned = TypeVar("_Returned")


class _Jumping(selectors.SelectSelector):
    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing will ever happen"
        self.now_s += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def block(self, seconds: float) -> None:
        """What runs now takes so long: nothing else can."""
        self._jumping.now_s += seconds


def virtually(work: Coroutine[Any, Any, _Returned]) -> _Returned:
    """Runs it by the virtual clock, from 1000 s on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
