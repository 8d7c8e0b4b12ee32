"""Deadlines, retries, metadata and errors on the way to a server."""

import inspect
import pickle
import time
from typing import Any

import grpc
import pellucid
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pellucid import AsyncClient, Client, _wire, errors

from .conftest import Call, FakeServer, fake_server

RETRY_SOON = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))


@pytest.mark.parametrize(
    ("options", "timeout_s", "expected_s"),
    [({}, None, 30), ({"timeout_s": 9}, None, 9), ({}, 5, 5)],
)
def test_every_call_has_a_deadline(
    call: Call, server: FakeServer, options: dict[str, float], timeout_s: float, expected_s: float
) -> None:
    call("predict", b"x", options=options, timeout_s=timeout_s)
    call("explain", b"x", options=options, timeout_s=timeout_s)
    call("list_models", options=options, timeout_s=timeout_s)
    call("get_model", "lite", options=options, timeout_s=timeout_s)
    assert len(server.remaining_s) == 4
    # gRPC rounds what it sends up, to a tenth of a second here
    assert all(0 < left_s < expected_s + 0.2 for left_s in server.remaining_s)
    assert max(server.remaining_s) > expected_s - 4  # to connect takes the first one some time


def test_deadline_passes(call: Call, server: FakeServer) -> None:
    server.delay_s = 0.5
    with pytest.raises(TimeoutError) as caught:
        call("predict", b"x", timeout_s=0.1)
    assert isinstance(caught.value, pellucid.DeadlineExceeded)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_calls_without_a_deadline_are_refused(call: Call, timeout_s: float) -> None:
    with pytest.raises(pellucid.BadArgument, match="timeout_s"):
        call("list_models", timeout_s=timeout_s)


def test_caller_goes_along(call: Call, server: FakeServer) -> None:
    call("list_models", options={"caller": "batch-7"})
    call("list_models")
    assert server.metadata[0]["pellucid-caller"] == "batch-7"
    assert "pellucid-caller" not in server.metadata[1]
    with pytest.raises(pellucid.BadArgument, match="caller"):
        call("list_models", options={"caller": "zoë"})


def test_all_addresses_of_a_server_are_used(server: FakeServer) -> None:
    with fake_server() as other:
        ports = [one.address.rpartition(":")[2] for one in (server, other)]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        with Client(f"ipv4:{addresses}") as client:
            deadline_s = time.monotonic() + 30
            while not (server.requests and other.requests) and time.monotonic() < deadline_s:
                client.list_models()
        assert server.requests
        assert other.requests


def test_an_unavailable_server_is_tried_again(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.UNAVAILABLE, "starting", times=2)
    photo = bytes(2**20)  # more than gRPC keeps for retries by default
    assert call("predict", photo).top.class_index == 2
    assert [len(request.image.encoded) for request in server.requests] == [2**20] * 3


def test_an_unavailable_server_is_tried_four_times(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.UNAVAILABLE, "starting", times=5)
    with pytest.raises(pellucid.Unavailable, match="starting"):
        call("list_models")
    assert len(server.requests) == 4


def test_a_closing_server_is_left_for_the_next(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.CANCELLED, "CANCELLED", times=2)
    assert call("predict", b"x").top.class_index == 2
    server.fail(grpc.StatusCode.CANCELLED, "CANCELLED")
    server.fail(grpc.StatusCode.UNAVAILABLE, "gone", times=3)
    with pytest.raises(pellucid.Unavailable, match="gone"):
        call("predict", b"x", options={"max_retries": 0})
    assert len(server.requests) == 7


def test_a_full_queue_is_tried_again_after_its_delay(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", RETRY_SOON, times=2)
    start_s = time.monotonic()
    call("predict", b"x", timeout_s=5)
    assert time.monotonic() - start_s >= 0.1
    assert len(server.requests) == 3


def test_all_attempts_share_one_deadline(call: Call, server: FakeServer) -> None:
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=400_000_000))
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", delay)
    call("predict", b"x", timeout_s=2)
    assert server.remaining_s[1] < 1.7


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 2), (2, 3)])
def test_retries_are_bounded(
    call: Call, server: FakeServer, max_retries: int, attempts: int
) -> None:
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", RETRY_SOON, times=5)
    with pytest.raises(pellucid.ResourceExhausted) as caught:
        call("predict", b"x", options={"max_retries": max_retries})
    assert len(server.requests) == attempts
    assert caught.value.retry_delay_s == 0.05


def test_no_retry_beyond_the_deadline(call: Call, server: FakeServer) -> None:
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=10))
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", delay)
    start_s = time.monotonic()
    with pytest.raises(pellucid.ResourceExhausted) as caught:
        call("predict", b"x", timeout_s=5)
    assert time.monotonic() - start_s < 4
    assert caught.value.retry_delay_s == 10
    assert len(server.requests) == 1


def test_no_retry_where_none_is_offered(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    server.fail(grpc.StatusCode.INTERNAL, "a bug", RETRY_SOON)
    for kind in (pellucid.ResourceExhausted, pellucid.Internal):
        with pytest.raises(kind):
            call("predict", b"x")
    assert len(server.requests) == 2


def test_photos_beyond_the_cap(call: Call, server: FakeServer) -> None:
    with pytest.raises(pellucid.ResourceExhausted):
        call("predict", bytes(33 * 2**20))
    call("predict", bytes(31 * 2**20))
    assert len(server.requests) == 1


def test_details_of_an_error(call: Call, server: FakeServer) -> None:
    server.fail(
        grpc.StatusCode.INVALID_ARGUMENT,
        "two things",
        error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="pellucid"),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="top_k", description="is 0"),
                error_details_pb2.BadRequest.FieldViolation(field="image", description="required"),
            ]
        ),
        error_details_pb2.Help(),  # a kind that is not read
    )
    with pytest.raises(pellucid.InvalidArgument) as caught:
        call("predict", b"x")
    error = caught.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.message, str(error), error.reason) == (
        "two things",
        "two things",
        "INVALID_ARGUMENT",
    )
    assert error.violations == (
        pellucid.Violation("top_k", "is 0"),
        pellucid.Violation("image", "required"),
    )
    assert error.retry_delay_s is None
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)
def test_every_code_has_its_error(server: FakeServer, code: grpc.StatusCode) -> None:
    assert errors.BY_CODE[code].__name__ == code.name.title().replace("_", "")
    server.fail(code, "why", times=4)
    with Client(server.address) as client, pytest.raises(errors.BY_CODE[code], match="why"):
        client.list_models()


def test_details_that_cannot_be_read() -> None:
    class Broken(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

        def details(self) -> str:
            return "why"

        def trailing_metadata(self) -> Any:
            return (("grpc-status-details-bin", b"\xff"),)

    error = _wire.failure_of(Broken())
    assert (type(error), error.message, error.reason) == (pellucid.NotFound, "why", "")


def test_the_table_of_errors_is_exact() -> None:
    assert set(errors.BY_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    tree = errors.__doc__ or ""
    for error in [*errors.BY_CODE.values(), *errors.PellucidError.__subclasses__()]:
        assert f"── {error.__name__} " in tree
        assert error.__name__ in pellucid.__all__


def test_errors_survive_pickling() -> None:
    error = pellucid.NotFound("no such model", reason="NOT_FOUND", retry_delay_s=1.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is pellucid.NotFound
    assert vars(copy) == vars(error)
    assert str(pickle.loads(pickle.dumps(pellucid.PhotoNotFound("gone")))) == "gone"


def test_the_twins_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(kind)
            if callable(member) and (not name.startswith("_") or name == "__init__")
        }

    blocking, asynchronous = methods(Client), methods(AsyncClient)
    # What they return is each one's own.
    for name in ("explain_stream", "optimize", "attack", "universal", "stylize", "project"):
        assert blocking.pop(name).parameters == asynchronous.pop(name).parameters
    # So are the frames that it takes.
    taken, taken_aio = (of.pop("stylize_video").parameters for of in (blocking, asynchronous))
    assert list(taken) == list(taken_aio)
    assert {name for name in taken if taken[name] != taken_aio[name]} == {"frames"}
    assert inspect.isgeneratorfunction(Client.explain_stream)
    assert inspect.isasyncgenfunction(AsyncClient.explain_stream)
    assert blocking == asynchronous
    for name in asynchronous.keys() - {"__init__"}:
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name))
