"""Optimizations whose servers leave, are full or refuse a checkpoint: a fake one plays them all."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pellucid
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pellucid.v1 import data_pb2, optimize_pb2

from .conftest import FakeServer, failure

QUEUED = optimize_pb2.OptimizeResponse(queued=optimize_pb2.OptimizeQueued(bucket_size=4))
RESULT = optimize_pb2.OptimizeResponse(
    result=optimize_pb2.OptimizeResult(
        images=[optimize_pb2.OptimizedImage(image=data_pb2.EncodedImage(data=b"png"))],
        notes=["made on another device"],
    )
)
LEFT = failure(
    grpc.StatusCode.UNAVAILABLE, "it stops", error_details_pb2.ErrorInfo(reason="STOPPING")
)
FULL = failure(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "full",
    error_details_pb2.RetryInfo(retry_delay=Duration(nanos=10_000_000)),
)


def refusal(field: str) -> Any:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="wrong")
    return failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: wrong",
        error_details_pb2.BadRequest(field_violations=[violation]),
    )


def checkpoint(step: int, data: bytes) -> optimize_pb2.OptimizeResponse:
    return optimize_pb2.OptimizeResponse(
        checkpoint=optimize_pb2.OptimizeCheckpoint(step=step, chunk=data, last=True)
    )


@dataclass
class Outcome:
    """What a caller meets: events, the result or error of result(), and of asking again."""

    events: list[Any] = field(default_factory=list)
    result: Any = None
    again: Any = None
    checkpoint: pellucid.Checkpoint | None = None


def _blocking(address: str, *args: Any, **kwargs: Any) -> Outcome:
    found = Outcome()
    with pellucid.Client(address) as client:
        optimization = client.optimize(*args, **kwargs)
        with suppress(pellucid.StatusError):
            found.events.extend(optimization)
        for name in ("result", "again"):
            try:
                setattr(found, name, optimization.result())
            except pellucid.StatusError as error:
                setattr(found, name, error)
        found.checkpoint = optimization.checkpoint
    return found


async def _run(address: str, *args: Any, **kwargs: Any) -> Outcome:
    found = Outcome()
    async with pellucid.AsyncClient(address) as client:
        optimization = client.optimize(*args, **kwargs)
        try:
            async for event in optimization:
                found.events.append(event)
        except pellucid.StatusError:
            pass
        for name in ("result", "again"):
            try:
                setattr(found, name, await optimization.result())
            except pellucid.StatusError as error:
                setattr(found, name, error)
        found.checkpoint = optimization.checkpoint
    return found


def _asynchronous(address: str, *args: Any, **kwargs: Any) -> Outcome:
    return asyncio.run(_run(address, *args, **kwargs))


Optimize = Callable[..., Outcome]


@pytest.fixture(params=[_blocking, _asynchronous], ids=["Client", "AsyncClient"])
def optimize(request: pytest.FixtureRequest, server: FakeServer) -> Optimize:
    """Optimizes for a class on the fake server, by either client."""
    return lambda **options: request.param(server.address, 1, **{"timeout_s": 20.0} | options)


def sent(server: FakeServer) -> list[bytes]:
    """The checkpoint of each attempt."""
    return [
        b"".join(message.checkpoint_chunk for message in messages) for messages in server.requests
    ]


def test_a_server_that_is_not_there_is_tried_as_by_every_call(
    optimize: Optimize, server: FakeServer
) -> None:
    server.failures += [LEFT] * 9
    found = optimize()
    assert type(found.result) is pellucid.Unavailable
    assert found.result.reason == "STOPPING"
    assert len(server.requests) == 4
    server.requests.clear()
    assert type(optimize(resume_from=b"old").result) is pellucid.Unavailable
    assert len(server.requests) == 4


def test_it_goes_on_from_the_last_checkpoint(optimize: Optimize, server: FakeServer) -> None:
    server.courses = [[QUEUED, checkpoint(50, b"a"), LEFT], [QUEUED, RESULT]]
    found = optimize()
    assert sent(server) == [b"", b"a"]
    assert [type(event).__name__ for event in found.events] == ["Queued", "Checkpoint", "Queued"]
    assert found.result.notes == ("made on another device",)
    assert found.again is found.result
    assert found.checkpoint == pellucid.Checkpoint(50, b"a")


def test_a_full_replica_is_waited_for(optimize: Optimize, server: FakeServer) -> None:
    full = [[FULL]] * 5  # more than max_retries
    server.courses = [[QUEUED, checkpoint(50, b"a"), LEFT], *full, [QUEUED, RESULT]]
    assert optimize().result.best.encoded == b"png"
    assert sent(server) == [b"", *[b"a"] * 6]


def test_a_full_server_is_not_waited_for_longer_than_by_every_call(
    optimize: Optimize, server: FakeServer
) -> None:
    server.courses = [[FULL] for _ in range(9)]
    assert type(optimize().result) is pellucid.ResourceExhausted
    assert len(server.requests) == 3


@pytest.mark.parametrize("first", [None, b"mine"])
def test_where_its_checkpoint_is_refused_it_starts_over(
    optimize: Optimize, server: FakeServer, first: bytes | None
) -> None:
    server.courses = [
        [QUEUED, checkpoint(50, b"a"), LEFT],
        [refusal("checkpoint")],
        [QUEUED, checkpoint(50, b"b"), LEFT],
        [QUEUED, RESULT],
    ]
    found = optimize(resume_from=first)
    assert sent(server) == [first or b"", b"a", first or b"", b"b"]
    started_over, own = found.result.notes
    assert "step 50" in started_over
    assert "checkpoint: wrong" in started_over
    assert own == "made on another device"


def test_a_checkpoint_that_comes_too_slowly_is_told(optimize: Optimize, server: FakeServer) -> None:
    """And not that a server left before."""
    slowly = error_details_pb2.ErrorInfo(reason="RECEIVED_TOO_SLOWLY")
    late = failure(grpc.StatusCode.DEADLINE_EXCEEDED, "came too slowly", slowly)
    server.courses = [[QUEUED, checkpoint(50, b"a"), LEFT], [late]]
    found = optimize().result
    assert type(found) is pellucid.DeadlineExceeded
    assert found.reason == "RECEIVED_TOO_SLOWLY"


def test_checkpoints_that_are_too_much_are_done_without(
    optimize: Optimize, server: FakeServer
) -> None:
    """But for those that the caller asks for, and where anything else is wrong."""
    too_much = refusal("ascend.checkpoint_every")
    server.courses = [[too_much], [QUEUED, RESULT]]
    found = optimize()
    first, second = [messages[0].spec.ascend for messages in server.requests]
    assert first.checkpoint_every == 50
    assert not second.HasField("checkpoint_every")
    without, own = found.result.notes
    assert "without checkpoints (ascend.checkpoint_every: wrong)" in without
    assert own == "made on another device"
    for courses, options in (
        ([[too_much]], {"checkpoint_every": 50}),
        ([[too_much], [too_much]], {}),
        ([[refusal("ascend.preset")]], {}),
    ):
        server.courses = courses
        assert type(optimize(**options).result) is pellucid.InvalidArgument


def test_a_checkpoint_of_the_callers_is_refused_to_the_caller(
    optimize: Optimize, server: FakeServer
) -> None:
    server.courses = [[refusal("checkpoint")]]
    assert type(optimize(resume_from=b"mine").result) is pellucid.InvalidArgument
    server.courses = [[QUEUED, LEFT], [refusal("checkpoint")]]
    assert type(optimize(resume_from=b"mine").result) is pellucid.InvalidArgument
    server.courses = [[QUEUED, checkpoint(50, b"a"), LEFT], [refusal("ascend.preset")]]
    assert type(optimize().result) is pellucid.InvalidArgument
    server.courses = [[QUEUED, checkpoint(50, b"a"), LEFT]]
    assert type(optimize(resume=False).result) is pellucid.Unavailable


def test_an_error_stays_and_the_checkpoint_with_it(optimize: Optimize, server: FakeServer) -> None:
    broken = failure(grpc.StatusCode.INTERNAL, "broken")
    server.courses = [[QUEUED, checkpoint(50, b"a"), checkpoint(100, b"b"), broken]]
    found = optimize()
    assert type(found.result) is pellucid.Internal
    assert str(found.result) == "broken"
    assert found.again is found.result
    assert found.checkpoint == pellucid.Checkpoint(100, b"b")


def test_a_stream_without_a_result_is_an_error(optimize: Optimize, server: FakeServer) -> None:
    server.courses = [[QUEUED]]
    found = optimize()
    assert type(found.result) is pellucid.Internal
    assert "without a result" in str(found.result)
    assert found.again is found.result


def test_one_that_was_closed_has_no_result(server: FakeServer) -> None:
    server.courses = [[QUEUED, RESULT]] * 2
    with pellucid.Client(server.address) as client:
        optimization = client.optimize(1)
        next(optimization)
        optimization.close()
        with pytest.raises(pellucid.Cancelled, match="closed"):
            optimization.result()

    async def run() -> None:
        async with pellucid.AsyncClient(server.address) as client:
            optimization = client.optimize(1)
            await anext(optimization)
            await optimization.close()
            with pytest.raises(pellucid.Cancelled, match="closed"):
                await optimization.result()

    asyncio.run(run())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *(("optimize", {"timeout_s": seconds}, "timeout_s: is") for seconds in (-1, 0, float("nan"))),
    ("optimize", {"stepcount": 3}, "stepcount: not a parameter"),
    ("optimize", {"photo": 3}, "photo: is int"),
    ("attack", {"method": "magic"}, "method: is 'magic'"),
    ("attack", {"timeout_s": float("inf")}, "timeout_s: is inf"),
    ("universal", {"photos": "cat.jpg"}, "photos: is one photo"),
    ("universal", {"photos": [b"x", 3]}, "photo: is int"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
@pytest.mark.parametrize("kind", [pellucid.Client, pellucid.AsyncClient])
def test_wrong_arguments_are_refused_at_the_call(
    kind: Any, name: str, options: dict[str, Any], message: str
) -> None:
    given = {"optimize": {"objectives": 1}, "attack": {"photo": b"x"}, "universal": {}}[name]
    with pytest.raises(pellucid.BadArgument, match=message):
        getattr(kind("localhost:1"), name)(**given, **options)


def test_the_deadline_starts_at_the_call(server: FakeServer) -> None:
    async def run() -> Any:
        async with pellucid.AsyncClient(server.address) as client:
            optimization = client.optimize(1, timeout_s=0.05)
            await asyncio.sleep(0.1)
            await optimization.result()

    with pytest.raises(pellucid.DeadlineExceeded):
        asyncio.run(run())


def test_a_photo_that_is_not_there() -> None:
    with pytest.raises(pellucid.PhotoNotFound):
        pellucid.Client("localhost:1").attack("nowhere.jpg")

    async def run() -> None:
        async with pellucid.AsyncClient("localhost:1") as client:
            attack = client.attack("nowhere.jpg")
            for _ in range(2):
                with pytest.raises(pellucid.PhotoNotFound):
                    await attack.result()

    asyncio.run(run())
