"""Cycles that calls leave behind."""

import asyncio
import time
import weakref
from types import SimpleNamespace

import pytest
from pellucid_server.api import sweep
from pellucid_server.api.sweep import Sweeper

from tests.harness import without_collections


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def fail(sweeper: Sweeper, kind: type[BaseException] = KeyError) -> "weakref.ref[Cycle]":
    left = Cycle()
    with pytest.raises(kind), sweeper.watching():
        raise kind
    return weakref.ref(left)


@pytest.mark.parametrize("kind", [KeyError, asyncio.CancelledError, GeneratorExit])
def test_a_cycle_goes_soon(kind: type[BaseException]) -> None:
    async def run() -> None:
        left = fail(Sweeper(), kind)
        assert left() is not None
        until_s = time.monotonic() + 30
        while left() is not None:
            assert time.monotonic() < until_s
            await asyncio.sleep(0.01)

    with without_collections():
        asyncio.run(run())


def test_what_ends_outside_a_loop_keeps_its_error_and_later_ones_are_swept() -> None:
    sweeper = Sweeper()
    fail(sweeper)

    async def run() -> None:
        fail(sweeper)
        assert sweeper._waiting == set(sweep._PAUSES_S)

    asyncio.run(run())


def test_calls_that_fail_together_are_swept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more, for the last of them, after a pause of its own."""
    monkeypatch.setattr(sweep, "gc", SimpleNamespace(collect=lambda: 0))
    monkeypatch.setattr(sweep, "_PAUSES_S", (0.01, 0.02))
    sweeper, swept = Sweeper(), list[float]()
    really = sweeper._sweep

    def counting(pause_s: float, since_s: float) -> None:
        swept.append(pause_s)
        really(pause_s, since_s)

    monkeypatch.setattr(sweeper, "_sweep", counting)

    async def run() -> None:
        for _ in range(50):
            fail(sweeper)
        while sweeper._waiting:
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert sorted(swept) == [0.01, 0.01, 0.02, 0.02]
