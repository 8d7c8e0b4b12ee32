"""What the gRPC services share: who calls, the message, and the error that ends a call."""

import asyncio
import logging
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NoReturn, TypeVar

import grpc
from grpc_status import rpc_status

from .. import wire
from ..config import Settings
from ..errors import DeadlineExpired, Internal, InvalidArgument, PellucidError
from .service import CALLER_KEY

log = logging.getLogger(__name__)

_MOST_STATUS_BYTES = 4000
"""Of an error, which travels in headers, in base64: peers take 8 KiB of them."""

Context = grpc.aio.ServicerContext[Any, Any]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Inbox:
    """Where messages with images are received, few at once.

    Calls that bring images are taken as streams of their one message, which look the same on
    the wire: so a message is read after a look at the queue.
    """

    def __init__(self, settings: Settings) -> None:
        self.most_at_once = max(1, settings.queue_bytes // settings.max_message_bytes)
        self._receiving = asyncio.Semaphore(self.most_at_once)

    async def receive(self, messages: AsyncIterator[_Request], call: wire.Call) -> _Request:
        """The one message of a call.

        Raises:
            DeadlineExpired: It did not arrive in time.
            InvalidArgument: The call ended without it.
        """
        try:
            async with asyncio.timeout(call.deadline_s - time.monotonic()), self._receiving:
                return await anext(messages)
        except TimeoutError:
            raise DeadlineExpired("the message did not arrive in time") from None
        except StopAsyncIteration:
            raise InvalidArgument("the call has no message") from None


def caller_of(context: Context) -> str:
    """The name that the caller gives itself, or its address."""
    metadata = dict(context.invocation_metadata() or ())
    peer = urllib.parse.unquote(context.peer())  # ipv4:127.0.0.1:5, ipv6:[::1]:5
    address = peer.partition(":")[2].rpartition(":")[0].strip("[]")
    return str(metadata.get(CALLER_KEY, address))


async def answer_or_abort(context: Context, response: Awaitable[_Response]) -> _Response:
    """The response, or the error as the call's status."""
    try:
        return await response
    except PellucidError as error:
        await abort(context, error)
    except Exception:
        log.exception("a request failed")
        await abort(context, Internal())


async def abort(context: Context, error: PellucidError) -> NoReturn:
    """Ends a call with an error."""
    told = wire.write_error(error)
    for count in range(len(error.violations) - 1, -1, -1):
        if told.ByteSize() <= _MOST_STATUS_BYTES:
            break
        told = wire.write_error(_cut(error, count))
    status = rpc_status.to_status(told)
    await context.abort(status.code, status.details, status.trailing_metadata)


def _cut(error: PellucidError, count: int) -> PellucidError:
    """An error with its first violations only."""
    kept = error.violations[:count]
    words = [f"{v.field}: {v.description}" for v in kept]
    words.append(f"and {len(error.violations) - count} more")
    return type(error)("; ".join(words), violations=kept)
