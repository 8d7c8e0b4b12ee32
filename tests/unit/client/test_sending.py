"""Calls that end while their messages are still sent: both clients say what the server said."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pellucid
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pellucid.v1 import codes_pb2, video_pb2

from .conftest import FakeServer, failure, fake_server, tensor

CODES = np.zeros((20_000, 500), np.float32)
"""40 MB: far more than what a connection takes before a server reads."""
FULL = failure(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "full", error_details_pb2.ErrorInfo(reason="FULL")
)


class Hasty(FakeServer):
    """Ends a call as it is told, after its first message."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self._way = way
        self.left = threading.Event()

    def Project(self, messages: Any, context: grpc.ServicerContext) -> Any:
        next(messages)
        context.add_callback(self.left.set)
        if self._way == "refuses":
            context.abort_with_status(rpc_status.to_status(FULL))
        if self._way == "answers":
            points = tensor(np.ones((4, 2), np.float32))
            spec = codes_pb2.ProjectSpec(t_sne=codes_pb2.TSne())
            result = codes_pb2.ProjectResult(points=points, spec=spec)
            yield codes_pb2.ProjectResponse(result=result)
            return
        yield codes_pb2.ProjectResponse(progress=codes_pb2.ProjectProgress())
        self.left.wait(10)

    def StylizeVideo(self, messages: Any, context: grpc.ServicerContext) -> Any:
        for _ in self.Project(messages, context):
            yield video_pb2.StylizeVideoResponse()


def project(kind: Any, address: str, items: Any, timeout_s: float) -> Any:
    if kind is pellucid.Client:
        with pellucid.Client(address) as client:
            return client.project(items, timeout_s=timeout_s).result()

    async def run() -> Any:
        async with pellucid.AsyncClient(address) as client:
            return await client.project(items, timeout_s=timeout_s).result()

    return asyncio.run(run())


@pytest.fixture(params=[pellucid.Client, pellucid.AsyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_what_a_server_says_amid_messages(kind: Any) -> None:
    with fake_server(Hasty("refuses")) as server:
        with pytest.raises(pellucid.ResourceExhausted, match="full") as caught:
            project(kind, server.address, CODES, 10)
        assert caught.value.reason == "FULL"


def test_a_deadline_amid_messages(kind: Any) -> None:
    with fake_server(Hasty("waits")) as server, pytest.raises(pellucid.DeadlineExceeded):
        project(kind, server.address, CODES, 0.3)


def test_a_server_that_has_enough(kind: Any) -> None:
    with fake_server(Hasty("answers")) as server:
        assert project(kind, server.address, CODES, 10).points.shape == (4, 2)


def test_a_photo_that_is_not_there_ends_the_call(kind: Any) -> None:
    with fake_server(Hasty("waits")) as server, pytest.raises(pellucid.PhotoNotFound):
        project(kind, server.address, ["nowhere.jpg"] * 4, 10)


def test_cancelling_amid_messages() -> None:
    hasty = Hasty("waits")

    async def run() -> None:
        async with pellucid.AsyncClient(hasty.address) as client:
            projection = client.project(CODES)
            await anext(projection)
            task = asyncio.ensure_future(projection.result())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(hasty.left.wait, 5)

    with fake_server(hasty):
        asyncio.run(run())


def test_a_video_is_told_the_same() -> None:
    async def frames() -> AsyncIterator[Any]:
        while True:
            yield np.zeros((300, 300, 3), np.uint8)

    async def run(address: str) -> None:
        async with pellucid.AsyncClient(address) as client:
            await client.stylize_video(frames(), "strokes", timeout_s=10).result()

    with (
        fake_server(Hasty("refuses")) as server,
        pytest.raises(pellucid.ResourceExhausted, match="full"),
    ):
        asyncio.run(run(server.address))


def test_frames_that_are_cancelled_end_the_call() -> None:
    async def frames() -> AsyncIterator[Any]:
        yield np.zeros((32, 32, 3), np.uint8)
        raise asyncio.CancelledError

    async def run(address: str) -> None:
        async with pellucid.AsyncClient(address) as client:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(client.stylize_video(frames(), "strokes").result(), 5)

    with fake_server(Hasty("waits")) as server:
        asyncio.run(run(server.address))


def test_a_task_that_was_cancelled_before_hears_what_is_wrong() -> None:
    async def run(address: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        async with pellucid.AsyncClient(address) as client:
            with pytest.raises(pellucid.PhotoNotFound):
                await client.project(["nowhere.jpg"] * 4, timeout_s=10).result()

    with fake_server(Hasty("waits")) as server:
        asyncio.run(run(server.address))
