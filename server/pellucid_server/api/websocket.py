"""Stylized video for browsers: the same stream over a WebSocket.

The caller sends the StylizeVideoSpec as a text message of JSON, then each frame as a binary
message, and at the end the text {"end": true}. It is sent text messages, each a
StylizeVideoResponse as JSON, or {"error": …} as REST has it before the socket is closed; but what
came of a frame is a binary message.

A binary message is the length of its head in 4 bytes, little-endian; the head, which is a
VideoFrame, or a StylizedFrame, as JSON but for the bytes of its image; and these.
"""

import asyncio
import contextlib
import functools
import json
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format
from pellucid.v1 import video_pb2
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..config import Settings
from ..engine.job import Priority
from ..errors import (
    Cancelled,
    DeadlineExpired,
    Internal,
    InvalidArgument,
    Overloaded,
    PellucidError,
    Unavailable,
    failure_of,
)
from . import forms, http
from .service import Service

PROTOCOL = "pellucid.v1"
"""Of the socket, where a browser names protocols: it is accepted, as one must be."""

_MOST_HEAD_BYTES = 4096
_MOST_END_LENGTH = 64
_LENGTH = struct.Struct("<I")

_NORMAL, _BAD, _BROKEN, _LATER = 1000, 1008, 1011, 1013
"""Codes that a socket is closed with (RFC 6455, section 7.4.1, and its registry)."""


class VideoSocket:
    """StylizeVideo over a WebSocket.

    Args:
        service: Streams.
        settings: The server's.
        write_error: An error as REST has it.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        write_error: Callable[[PellucidError], dict[str, Any]],
    ) -> None:
        self._service, self._write_error = service, write_error
        self._idle_s, self._origins = settings.video_idle_timeout_s, settings.web_origins

    async def stylize(self, socket: WebSocket) -> None:
        """From its handshake to its end."""
        if not self._is_welcome(socket):
            await socket.close(_BAD)
            return
        named = PROTOCOL in socket.scope["subprotocols"]
        await socket.accept(PROTOCOL if named else None)
        failure: PellucidError | None = None
        try:
            await self._serve(socket)
        except Cancelled:
            return
        except Exception as error:
            failure = failure_of(error)
        with contextlib.suppress(WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(self._idle_s):
                if failure is not None:
                    await socket.send_text(json.dumps(self._write_error(failure)))
                await socket.close(_code_of(failure))

    def _is_welcome(self, socket: WebSocket) -> bool:
        """Whether it is no page's, or a page's that may: browsers let every page open sockets."""
        origin = socket.headers.get("origin")
        if origin is None or origin in self._origins:
            return True
        return urlsplit(origin).netloc == socket.headers.get("host")

    async def _serve(self, socket: WebSocket) -> None:
        request = video_pb2.StylizeVideoSpec()
        with self._service.arrival(lambda: request) as held:
            call = self._service.call(http.caller_of(socket), None)
            self._service.check_room(Priority.EXPLAIN)
            try:
                async with asyncio.timeout(self._idle_s):
                    message = await _receive(socket)
            except TimeoutError:
                raise DeadlineExpired(f"no spec came for {self._idle_s:g} s") from None
            if not isinstance(message, str):
                raise InvalidArgument("the first message must be text: a StylizeVideoSpec as JSON")
            body = message.encode()
            held.add(len(body))
            read = functools.partial(forms.read, request, body, None, [])
            await self._service.read(read, call.deadline_s)
            await self._service.stylize_video(
                request,
                call,
                functools.partial(_receive_frame, socket),
                functools.partial(_show, socket),
            )


async def _receive(socket: WebSocket) -> str | bytes:
    """The next message.

    Raises:
        Cancelled: The caller went away.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise Cancelled("the caller went away")
    data = message.get("bytes")
    text: str | bytes = message["text"] if data is None else data
    return text


async def _receive_frame(socket: WebSocket) -> video_pb2.VideoFrame | None:
    message = await _receive(socket)
    if isinstance(message, str):
        if not _is_end(message):
            raise InvalidArgument('a text message after the first must be {"end": true}')
        return None
    if len(message) < _LENGTH.size:
        raise InvalidArgument("a frame must begin with the length of its head, 4 bytes")
    (length,) = _LENGTH.unpack_from(message)
    if length > min(_MOST_HEAD_BYTES, len(message) - _LENGTH.size):
        raise InvalidArgument(
            f"a frame's head has {length} bytes, as its first 4 say; at most {_MOST_HEAD_BYTES} "
            "are allowed, and no more than follow"
        )
    frame, end = video_pb2.VideoFrame(), _LENGTH.size + length
    forms.read(frame, message[_LENGTH.size : end], None, [])
    if frame.image.HasField("tensor"):
        frame.image.tensor.data = message[end:]
    else:
        frame.image.encoded = message[end:]
    return frame


def _is_end(message: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return len(message) <= _MOST_END_LENGTH and json.loads(message) == {"end": True}
    return False


async def _show(socket: WebSocket, response: video_pb2.StylizeVideoResponse) -> None:
    frame = response.frame
    outcome = frame.WhichOneof("outcome") if response.HasField("frame") else "failure"
    if outcome not in ("image", "pixels"):
        await _send(socket, json.dumps(_mapping(response)))
        return
    image = getattr(frame, str(outcome))
    data = image.data
    image.ClearField("data")
    head = _mapping(frame)
    del head[str(outcome)]["data"]
    encoded = json.dumps(head).encode()
    await _send(socket, _LENGTH.pack(len(encoded)) + encoded + data)


async def _send(socket: WebSocket, message: str | bytes) -> None:
    """Returns when there is room for it.

    Raises:
        Cancelled: The caller went away.
    """
    try:
        if isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)
    except WebSocketDisconnect:
        raise Cancelled("the caller went away") from None


def _mapping(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _code_of(error: PellucidError | None) -> int:
    if error is None:
        return _NORMAL
    if isinstance(error, Overloaded | Unavailable):
        return _LATER
    return _BROKEN if isinstance(error, Internal) else _BAD
