"""A connection to one server, and calls over it: sync and async twins."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import nullcontext
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from . import _wire
from ._channel import FilePath, channel_credentials, connect, connect_aio
from ._sending import sending
from .errors import Internal
from .v1 import service_pb2_grpc


class Connection:
    """A channel to one server; the arguments are those of Client."""

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        timeout_s: float = 30.0,
        max_retries: int = 2,
        caller: str = "",
        token: str | None = None,
        tls: bool = False,
        ca_file: FilePath | None = None,
        certificate_file: FilePath | None = None,
        key_file: FilePath | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._metadata = _wire.call_metadata(caller, token)
        credentials = channel_credentials(
            target,
            credentials,
            token=token,
            tls=tls,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
        )
        self._channel = connect(target, credentials)
        self._stub = service_pb2_grpc.PellucidServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, rpc: str, request: Message, timeout_s: float | None) -> Any:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send = getattr(self._stub, rpc)
        while True:
            try:
                return send(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error)
            time.sleep(pause_s)

    def _stream(
        self, rpc: str, request: Message | Iterable[Message], timeout_s: float | None
    ) -> Generator[Any, None, None]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send, started = getattr(self._stub, rpc), False
        while True:
            sent = request if isinstance(request, Message) else iter(request)
            call = send(sent, timeout=attempts.remaining_s(), metadata=self._metadata)
            try:
                for response in call:
                    started = True
                    yield response
                if not started:
                    raise Internal("the server's stream is empty")
                return
            except grpc.RpcError as error:
                error.__traceback__ = None  # the call is its own error: it would hold this frame
                pause_s = attempts.pause_s(error, started=started)
            finally:
                call.cancel()
            time.sleep(pause_s)


class AsyncConnection:
    """The same for asyncio; it belongs to the loop that its first call runs in."""

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        timeout_s: float = 30.0,
        max_retries: int = 2,
        caller: str = "",
        token: str | None = None,
        tls: bool = False,
        ca_file: FilePath | None = None,
        certificate_file: FilePath | None = None,
        key_file: FilePath | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._metadata = _wire.call_metadata(caller, token)
        self._target = target
        self._credentials = channel_credentials(
            target,
            credentials,
            token=token,
            tls=tls,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
        )

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return connect_aio(self._target, self._credentials)

    @cached_property
    def _stub(self) -> service_pb2_grpc.PellucidServiceStub:
        return service_pb2_grpc.PellucidServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the connection; calls that are under way are cancelled."""
        if "_channel" in vars(self):
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, rpc: str, request: Message, timeout_s: float | None) -> Any:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send = getattr(self._stub, rpc)
        while True:
            try:
                return await send(request, timeout=attempts.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error)
            await asyncio.sleep(pause_s)

    async def _stream(
        self, rpc: str, request: Message | Iterable[Message], timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = _wire.Attempts(timeout_s, self._max_retries)
        send, started = getattr(self._stub, rpc), False
        while True:
            given = [request] if isinstance(request, Message) else []
            call = send(*given, timeout=attempts.remaining_s(), metadata=self._metadata)
            sent = nullcontext() if isinstance(request, Message) else sending(call, request)
            try:
                async with sent:
                    async for response in call:
                        started = True
                        yield response
                if not started:
                    raise Internal("the server's stream is empty")
                return
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error, started=started)
            finally:
                call.cancel()
            await asyncio.sleep(pause_s)
