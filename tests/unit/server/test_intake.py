"""What follows the first message of a stream: at what pace it must come, and how much at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest
from pellucid.v1 import optimize_pb2
from pellucid_server import wire
from pellucid_server.api.grpc import PellucidServicer
from pellucid_server.api.rpc import Inbox, Intake
from pellucid_server.config import Settings
from pellucid_server.engine.admission import Admission, QueueLimits
from pellucid_server.errors import DeadlineExpired, InvalidArgument, Overloaded, ReceivedTooSlowly

MESSAGE_BYTES = 1024


def call(timeout_s: float = 60.0) -> wire.Call:
    return wire.Call("", time.monotonic() + timeout_s)


def inbox(places: int) -> Inbox:
    return Inbox(Settings(queue_bytes=places * MESSAGE_BYTES, max_message_bytes=MESSAGE_BYTES))


async def coming(pause_s: float, count: int = 10**9) -> AsyncIterator[bytes]:
    """As many messages, each a while after the last."""
    for _ in range(count):
        await asyncio.sleep(pause_s)
        yield b"a"


async def taken(intake: Intake[bytes], byte_count: int) -> int:
    """How many messages come, each of them counted as so many bytes."""
    count = 0
    while await intake.receive_if_any() is not None:
        intake.count(byte_count)
        count += 1
    return count


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(in_time())


def test_whoever_dribbles_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message is late, and all of them together are."""
    monkeypatch.setattr("pellucid_server.api.rpc.RECEIVE_TIMEOUT_S", 0.5)

    async def test() -> None:
        async with inbox(4).intake(coming(0.05), call()) as intake:
            with pytest.raises(
                ReceivedTooSlowly, match=r"came too slowly, \d+ bytes .* 0.5 s"
            ) as end:
                await taken(intake, 1)
        assert "as many more for each 1024 bytes" in str(end.value)

    run(test)


def test_whoever_keeps_the_pace_has_all_the_time_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pellucid_server.api.rpc.RECEIVE_TIMEOUT_S", 0.5)

    async def test() -> None:
        started_s = time.monotonic()
        async with inbox(4).intake(coming(0.02, 40), call()) as intake:
            assert await taken(intake, MESSAGE_BYTES) == 40
        assert time.monotonic() - started_s > 0.5  # longer than one message may take

    run(test)


def test_an_intake_ends_with_the_calls_deadline_and_with_its_messages() -> None:
    async def test() -> None:
        async with inbox(4).intake(coming(60), call(0.1)) as intake:
            with pytest.raises(DeadlineExpired, match="did not arrive in time"):
                await intake.receive()
        async with inbox(4).intake(coming(0, 1), call()) as intake:
            assert await intake.receive() == b"a"
            with pytest.raises(InvalidArgument, match="no message"):
                await intake.receive()

    run(test)


@pytest.mark.parametrize(("places", "of_streams"), [(1, 1), (4, 1), (9, 2)])
def test_streams_take_no_places_of_other_calls(places: int, of_streams: int) -> None:
    """Nor do more of them wait than are received."""
    box = inbox(places)

    async def test() -> None:
        async def hold(over: asyncio.Event) -> None:
            async with box.intake(coming(60), call()):
                await over.wait()

        over = asyncio.Event()
        streams = [asyncio.create_task(hold(over)) for _ in range(2 * of_streams)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many streams") as refused:
            async with box.intake(coming(0), call()):
                pass
        assert refused.value.retry_delay_ms
        assert await box.receive(coming(0), call()) == b"a"
        over.set()
        await asyncio.gather(*streams)
        async with box.intake(coming(0), call()) as intake:
            assert await intake.receive() == b"a"

    run(test)


def test_a_stream_does_not_wait_for_a_place_beyond_its_deadline() -> None:
    box = inbox(4)

    async def test() -> None:
        async with box.intake(coming(60), call()):
            with pytest.raises(DeadlineExpired, match="other streams"):
                async with box.intake(coming(0), call(0.05)):
                    pass
        async with box.intake(coming(0), call()) as intake:
            assert await intake.receive() == b"a"

    run(test)


def receiving(box: Inbox) -> Any:
    """What reads the messages after the first."""
    return PellucidServicer(
        cast(Any, None), Settings(max_checkpoint_bytes=1 << 50), box
    )._receive_rest


async def chunks(*parts: bytes) -> AsyncIterator[optimize_pb2.OptimizeRequest]:
    for part in parts:
        yield optimize_pb2.OptimizeRequest(checkpoint_chunk=part)


def test_a_checkpoint_takes_no_memory_before_it_comes() -> None:
    """Of a petabyte that is announced three bytes come, while others are let in."""
    spec = optimize_pb2.OptimizeSpec(checkpoint_bytes=1 << 50)
    admission = Admission(QueueLimits(byte_count=100))

    async def test() -> None:
        with admission.holding() as held, admission.holding() as other:
            other.add(1)
            with pytest.raises(InvalidArgument, match="the call has no message"):
                await receiving(inbox(4))(spec, chunks(b"abc"), call(), held)
            assert held.byte_count == 3
            with pytest.raises(Overloaded, match="images of other requests"):
                await receiving(inbox(4))(spec, chunks(bytes(97)), call(), held)

    run(test)
