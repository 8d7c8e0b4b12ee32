"""What the routes share: who calls, the body, the caller who goes away, and errors."""

import asyncio
import math
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from ..engine.admission import Held
from ..errors import CODES, Cancelled, PellucidError, TooLarge, UnsupportedMedia
from .service import CALLER_KEY

_Returned = TypeVar("_Returned")


def caller_of(request: HTTPConnection) -> str:
    """The name that the caller gives itself, or its address."""
    address = request.client.host if request.client else ""
    return request.headers.get(CALLER_KEY, address)


def refuse_coding(request: Request) -> None:
    """Refuses a body that is compressed.

    Raises:
        UnsupportedMedia: It is.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise UnsupportedMedia(f"bodies coded as {coding} are not read; send them as they are")


async def read_body(request: Request, held: Held | None, most_bytes: int) -> bytes:
    """The body, its bytes counted as they come; None holds what is too small to count.

    Raises:
        TooLarge: It has more than most_bytes.
        Overloaded: Other requests leave no room for it.
        Cancelled: The caller went away.
    """
    too_large = TooLarge(f"the body is larger than {most_bytes} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            if len(body) + len(chunk) > most_bytes:
                raise too_large
            if held is not None:
                held.add(len(chunk))
            body += chunk
    except ClientDisconnect:
        raise Cancelled("the caller went away") from None
    return bytes(body)


async def unless_gone(request: Request, answer: Awaitable[_Returned]) -> _Returned:
    """What is awaited, cancelled when the caller goes away: no server does that by itself."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.create_task(_leave(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Cancelled("the caller went away")
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _leave(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def write_error(
    error: PellucidError, content: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """What a protocol says of an error, under its HTTP status and with its delay."""
    headers = dict(headers or {})
    if error.retry_delay_ms is not None:
        headers["retry-after"] = str(math.ceil(error.retry_delay_ms / 1e3))
    return JSONResponse(content, CODES[type(error)].http, headers)
