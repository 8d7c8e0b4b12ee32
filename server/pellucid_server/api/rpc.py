"""What the gRPC services share: who calls, the message, and the error that ends a call."""

import asyncio
import contextlib
import inspect
import time
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, NoReturn, Self, TypeAlias, TypeVar

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from .. import wire
from ..config import Settings
from ..errors import (
    DeadlineExpired,
    InvalidArgument,
    Overloaded,
    PellucidError,
    ReceivedTooSlowly,
    failure_of,
)
from .service import CALLER_KEY

_MOST_STATUS_BYTES = 4000
"""Of an error, which travels in headers, in base64: peers take 8 KiB of them."""

RECEIVE_TIMEOUT_S = 30.0
"""How long a call's one message may take to come: the longest one, at 9 Mbit/s."""

_INTAKE_RETRY_DELAY_MS = 1000.0
"""When to come back if too many streams are being received: about a second of 9 Mbit/s each."""

Context = grpc.aio.ServicerContext[Any, Any]

_REFLECTION = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Inbox:
    """Where messages with images are received, few at once.

    Calls that bring images are taken as streams of their one message, which look the same on
    the wire: so a message is read after a look at the queue. What follows the first message of a
    stream has places of its own, so that no stream, however slow, keeps other calls waiting.
    """

    def __init__(self, settings: Settings) -> None:
        most_at_once = settings.queue_bytes // settings.max_message_bytes
        of_streams = max(1, most_at_once // 4)
        self._message_bytes = settings.max_message_bytes
        self._receiving = asyncio.Semaphore(max(1, most_at_once - of_streams))
        self._taking_in = asyncio.Semaphore(of_streams)
        self._room = 2 * of_streams

    async def receive(self, messages: AsyncIterator[_Request], call: wire.Call) -> _Request:
        """The one message of a call, or the first.

        Raises:
            DeadlineExpired: It did not arrive in time.
            InvalidArgument: The call ended without it.
        """
        try:
            async with asyncio.timeout(call.deadline_s - time.monotonic()), self._receiving:
                return await _receive(messages)
        except TimeoutError:
            raise DeadlineExpired("the message did not arrive in time") from None

    @contextlib.asynccontextmanager
    async def intake(
        self, messages: AsyncIterator[_Request], call: wire.Call
    ) -> AsyncIterator["Intake[_Request]"]:
        """A place for all that follows the first message of a stream; as many may wait for one.

        Args:
            messages: Those that follow, of a request that holds a permit.
            call: By whom, and until when.

        Raises:
            Overloaded: Too many wait already.
            DeadlineExpired: None was free in time.
        """
        if self._room == 0:
            raise Overloaded(
                "too many streams are being received", retry_delay_ms=_INTAKE_RETRY_DELAY_MS
            )
        self._room -= 1
        try:
            try:
                async with asyncio.timeout(call.deadline_s - time.monotonic()):
                    await self._taking_in.acquire()
            except TimeoutError:
                raise DeadlineExpired("other streams were being received all the time") from None
            try:
                yield Intake(messages, call, self._message_bytes)
            finally:
                self._taking_in.release()
        finally:
            self._room += 1


class Intake(Generic[_Request]):
    """What follows the first message of a stream, at no lower pace than one message may have.

    Args:
        messages: Those that follow.
        call: By whom, and until when.
        message_bytes: Of the longest message, for which there are RECEIVE_TIMEOUT_S.
    """

    def __init__(
        self, messages: AsyncIterator[_Request], call: wire.Call, message_bytes: int
    ) -> None:
        self._messages = messages
        self._call = call
        self._message_bytes = message_bytes
        self._started_s = time.monotonic()
        self._byte_count = 0

    async def receive(self) -> _Request:
        """The next message.

        Raises:
            DeadlineExpired: It did not come.
            ReceivedTooSlowly: The messages come too slowly.
            InvalidArgument: The call has ended its messages.
        """
        return await self._in_time(_receive(self._messages))

    async def receive_if_any(self) -> _Request | None:
        """The next message; None: the call has ended its messages.

        Raises:
            DeadlineExpired: Neither came.
            ReceivedTooSlowly: The messages come too slowly.
        """
        return await self._in_time(_receive(self._messages, None))

    def count(self, byte_count: int) -> None:
        """So many bytes have come."""
        self._byte_count += byte_count

    async def _in_time(self, message: Awaitable[_Response]) -> _Response:
        share = 1 + self._byte_count / self._message_bytes
        pace_s = self._started_s + RECEIVE_TIMEOUT_S * share
        try:
            async with asyncio.timeout(min(pace_s, self._call.deadline_s) - time.monotonic()):
                return await message
        except TimeoutError:
            if self._call.deadline_s <= pace_s:
                raise DeadlineExpired("the messages did not arrive in time") from None
            raise ReceivedTooSlowly(
                f"what follows the first message came too slowly, {self._byte_count} bytes of it "
                f"in {time.monotonic() - self._started_s:.1f} s: there are {RECEIVE_TIMEOUT_S:g} "
                f"s, and as many more for each {self._message_bytes} bytes"
            ) from None


class AnsweredRpcs(grpc.aio.ServerInterceptor):
    """What goes wrong in answering a call becomes its status; grpc.aio knows its own errors."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        asked, answered = (
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, f"{asked}_{answered}")
        # Streams are also answered by coroutines, which write to the context.
        wrap = _yielding if inspect.isasyncgenfunction(behaviour) else _returning
        answer = wrap(behaviour, handler.request_streaming)
        make = getattr(grpc, f"{asked}_{answered}_rpc_method_handler")
        wrapped: _Handler = make(answer, handler.request_deserializer, handler.response_serializer)
        return wrapped


class _Messages(Generic[_Request]):
    """The messages of a call. grpc.aio's iterator holds the last of them, and itself."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Request:
        message: _Request = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message


def _returning(
    behaviour: Callable[[Any, Context], Awaitable[Any]], request_streaming: bool
) -> Callable[..., Awaitable[Any]]:
    """A coroutine function that aborts where another one raises."""

    async def answer(asked: Any, context: Context) -> Any:
        asked = _Messages(context) if request_streaming else asked
        try:
            return await behaviour(asked, context)
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            failure = failure_of(error)
        return await _abort(context, failure)

    return answer


def _yielding(
    behaviour: Callable[[Any, Context], AsyncGenerator[Any, None]], request_streaming: bool
) -> Callable[..., AsyncGenerator[Any, None]]:
    """A generator function that aborts where another one raises."""

    async def answer(asked: Any, context: Context) -> AsyncGenerator[Any, None]:
        asked = _Messages(context) if request_streaming else asked
        try:
            async with contextlib.aclosing(behaviour(asked, context)) as responses:
                async for response in responses:
                    yield response
                    del response  # grpc.aio keeps the frame of a call that is aborted
            return
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            failure = failure_of(error)
        await _abort(context, failure)

    return answer


class PromptRpcs(grpc.aio.ServerInterceptor):
    """Calls whose messages do not come soon end, where gRPC would wait for ever.

    Methods of this server that take streams see to it themselves.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if not handler.request_streaming:
            return _prompt(handler)
        if handler_call_details.method == _REFLECTION:
            return _prompt_stream(handler)
        return handler


def _prompt(handler: _Handler) -> _Handler:
    """A handler that is given a stream of its one message, which looks the same on the wire."""
    kind = "stream" if handler.response_streaming else "unary"
    behaviour = getattr(handler, f"unary_{kind}")

    async def answer(messages: AsyncIterator[Any], context: Context) -> Any:
        return await behaviour(await _receive(messages), context)

    make = getattr(grpc, f"stream_{kind}_rpc_method_handler")
    prompt: _Handler = make(answer, handler.request_deserializer, handler.response_serializer)
    return prompt


def _prompt_stream(handler: _Handler) -> _Handler:
    behaviour: Any = handler.stream_stream

    async def answer(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async def prompt() -> AsyncIterator[Any]:
            while (message := await _receive(messages, None)) is not None:
                yield message

        async for response in behaviour(prompt(), context):
            yield response

    return grpc.stream_stream_rpc_method_handler(
        answer, handler.request_deserializer, handler.response_serializer
    )


async def receive_if_any(messages: AsyncIterator[_Request], call: wire.Call) -> _Request | None:
    """The next message of a call that works on them as they come; None: it has ended them.

    Raises:
        DeadlineExpired: Neither came in time.
    """
    try:
        async with asyncio.timeout(call.deadline_s - time.monotonic()):
            return await _receive(messages, None)
    except TimeoutError:
        raise DeadlineExpired("the messages did not arrive in time") from None


async def _receive(messages: AsyncIterator[_Request], *at_end: Any) -> _Request:
    """The next message of a call; at_end, if that is given, once there are no more.

    Raises:
        DeadlineExpired: It did not arrive soon.
        InvalidArgument: The call ended without it.
    """
    try:
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            return await anext(messages, *at_end)
    except TimeoutError:
        raise DeadlineExpired(f"no message came for {RECEIVE_TIMEOUT_S:g} s") from None
    except StopAsyncIteration:
        raise InvalidArgument("the call has no message") from None


def caller_of(context: Context) -> str:
    """The name that the caller gives itself, or its address."""
    metadata = dict(context.invocation_metadata() or ())
    peer = urllib.parse.unquote(context.peer())  # ipv4:127.0.0.1:5, ipv6:[::1]:5
    address = peer.partition(":")[2].rpartition(":")[0].strip("[]")
    return str(metadata.get(CALLER_KEY, address))


async def _abort(context: Context, error: PellucidError) -> NoReturn:
    """Ends a call with an error."""
    status = _status_of(error)
    await context.abort(status.code, status.details, status.trailing_metadata)


def _status_of(error: PellucidError) -> grpc.Status:
    """An error with as many of its violations as headers hold."""
    written = wire.write_error(error)
    for count in range(len(error.violations) - 1, -1, -1):
        if written.ByteSize() <= _MOST_STATUS_BYTES:
            break
        written = wire.write_error(_cut(error, count))
    return rpc_status.to_status(written)


def _cut(error: PellucidError, count: int) -> PellucidError:
    """An error with its first violations only."""
    kept = error.violations[:count]
    words = [f"{v.field}: {v.description}" for v in kept]
    words.append(f"and {len(error.violations) - count} more")
    return type(error)("; ".join(words), violations=kept)
