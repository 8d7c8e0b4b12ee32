"""Explanations that are shown as they are made."""

import asyncio
import time
from contextlib import aclosing, closing

import grpc
import pellucid
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pellucid import AsyncClient, Client

from .conftest import Call, FakeServer

RETRY_SOON = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))


def test_estimates_and_the_explanation(call: Call, server: FakeServer) -> None:
    results = call("explain_stream", b"x", "rise", outputs=["heatmap"], mask_count=99)
    assert [one.convergence.stop for one in results] == ["running", "running", "tolerance"]
    assert [one.convergence.row_count for one in results] == [8, 16, 32]
    assert [one.convergence.error for one in results] == [0.5, 0.25, 0.125]
    assert results[-1].image.size == (5, 4)
    assert server.requests[0].explain.rise.mask_count == 99


def test_estimates_come_before_the_end(server: FakeServer) -> None:
    server.goes_on.clear()
    with Client(server.address) as client:
        stream = client.explain_stream(b"x", "rise")
        first = next(stream)
        assert first.convergence is not None
        assert first.convergence.row_count == 8
        assert not server.ended.is_set()
        server.goes_on.set()
        assert len(list(stream)) == 2


def test_leaving_the_loop_cancels_the_call(server: FakeServer) -> None:
    server.goes_on.clear()
    with Client(server.address) as client:
        for _ in client.explain_stream(b"x", "rise"):
            break
        assert server.ended.wait(2)
        server.ended.clear()
        with closing(client.explain_stream(b"x", "rise")) as stream:
            next(stream)
            assert not server.ended.is_set()
        assert server.ended.wait(2)


def test_leaving_the_asynchronous_loop_cancels_the_call(server: FakeServer) -> None:
    server.goes_on.clear()

    async def run() -> None:
        async with AsyncClient(server.address) as client:
            async with aclosing(client.explain_stream(b"x", "rise")) as stream:
                async for _ in stream:
                    break
                assert not server.ended.is_set()
            assert await asyncio.to_thread(server.ended.wait, 2)
            server.ended.clear()
            async for _ in client.explain_stream(b"x", "rise"):
                break
            assert await asyncio.to_thread(server.ended.wait, 2)

    asyncio.run(run())


def test_a_full_queue_is_tried_again_before_the_first_event(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", RETRY_SOON, times=2)
    assert len(call("explain_stream", b"x", "rise")) == 3
    assert len(server.requests) == 3


def test_nothing_is_tried_again_after_the_first_event(call: Call, server: FakeServer) -> None:
    server.events[1:] = ["full"]
    with pytest.raises(pellucid.ResourceExhausted, match="full"):
        call("explain_stream", b"x", "rise")
    assert len(server.requests) == 1


def test_an_empty_stream_is_an_error(call: Call, server: FakeServer) -> None:
    server.events.clear()
    with pytest.raises(pellucid.Internal, match="stream is empty"):
        call("explain_stream", b"x", "rise")


def test_deadline_and_caller(call: Call, server: FakeServer) -> None:
    call("explain_stream", b"x", "rise", timeout_s=9, options={"caller": "batch-7"})
    assert 5 < server.remaining_s[0] < 9.2
    assert server.metadata[0]["pellucid-caller"] == "batch-7"
    server.goes_on.clear()
    start_s = time.monotonic()
    with pytest.raises(pellucid.DeadlineExceeded):
        call("explain_stream", b"x", "rise", timeout_s=0.3)
    assert time.monotonic() - start_s < 3


def test_errors_of_streams(call: Call, server: FakeServer) -> None:
    server.fail(
        grpc.StatusCode.FAILED_PRECONDITION, "cannot", error_details_pb2.ErrorInfo(reason="NO")
    )
    with pytest.raises(pellucid.FailedPrecondition) as caught:
        call("explain_stream", b"x", "gradient")
    assert caught.value.reason == "NO"
    with pytest.raises(pellucid.BadArgument, match="method: is 'shap'"):
        call("explain_stream", b"x", "shap")
