"""Photos for a map as they come: few at once, and all of them counted."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from pellucid.v1 import codes_pb2, data_pb2
from pellucid_server.api.projecting import Projecting, _Shown
from pellucid_server.engine.admission import Admission, QueueLimits
from pellucid_server.errors import Overloaded


class Waits(Projecting):
    """Embeds nothing until it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.embedding = 0

    async def _embed(self, *_: Any) -> None:
        self.embedding += 1
        await self.go_on.wait()
        self.embedding -= 1


class Anything:
    """An intake that takes all."""

    width = 10
    embedded_count = 0

    def check(self, part: Any) -> None: ...

    def reserve(self) -> tuple[int, int]:
        return 0, 0


def photo_of(byte_count: int) -> codes_pb2.ProjectRequest:
    return codes_pb2.ProjectRequest(image=data_pb2.Image(encoded=bytes(byte_count)))


async def settled(of: Callable[[], int]) -> int:
    for _ in range(500):
        await asyncio.sleep(0)
    return of()


@pytest.mark.parametrize(("photo_bytes", "at_once"), [(1000, 32), (5000, 10), (80_000, 1)])
def test_few_photos_are_in_flight_and_are_counted(
    photo_bytes: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid_server.api.projecting._PLACE_BYTES", 2000)

    async def test() -> None:
        projecting, admission, came = Waits(), Admission(QueueLimits()), 0

        async def parts() -> Any:
            nonlocal came
            for _ in range(40):
                came += 1
                yield photo_of(photo_bytes), photo_bytes

        with admission.holding() as held:
            taking = asyncio.create_task(
                projecting._take_in(cast(Any, Anything()), parts(), held, _Shown())
            )
            assert await settled(lambda: projecting.embedding) == at_once
            assert came == at_once + 1  # one more waits for its place
            assert held.byte_count == came * photo_bytes
            projecting.go_on.set()
            async with asyncio.timeout(60):
                await taking
            assert came == 40
            assert held.byte_count == 40 * 10 * 4  # the codes alone

    asyncio.run(test())


def test_a_photo_that_others_leave_no_room_for_is_refused() -> None:
    async def test() -> None:
        admission = Admission(QueueLimits(byte_count=3000))

        async def parts() -> Any:
            for _ in range(2):
                yield photo_of(1000), 1000

        with admission.holding() as other, admission.holding() as held:
            other.add(1500)
            with pytest.raises(Overloaded, match="images of other requests"):
                await Waits()._take_in(cast(Any, Anything()), parts(), held, _Shown())

    asyncio.run(test())
