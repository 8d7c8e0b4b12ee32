"""Both protocols behind one lock: a call without a token is refused before its message is read.

All calls are locked, those that are added later too, but for what is open here by name.
"""

import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

import grpc

from ..errors import Unauthenticated
from ..locks import Tokens, Watched, caller_of_token
from .health import HEALTH

# Not Watch: its calls last as long as their callers like, and would take the places of others.
OPEN_RPCS = frozenset({f"/{HEALTH}/Check"})
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})

BEARER_PROTOCOL = "bearer"
"""bearer.TOKEN, the token in base64url without padding, as the name of a WebSocket's protocol."""

_CHALLENGE = {"www-authenticate": "Bearer"}

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Any]


class Lock:
    """What calls are held against, and who counts those that are refused."""

    def __init__(self, tokens: Watched[Tokens], refused: Callable[[str], None]) -> None:
        self._tokens = tokens
        self._refused = refused

    def admit(self, authorization: Sequence[str], protocol: str) -> None:
        """Lets a call in, under the name of its token.

        Raises:
            Unauthenticated: It has none.
        """
        try:
            caller_of_token.set(self._tokens.value.admit(authorization))
        except Unauthenticated:
            self._refused(protocol)
            raise


class LockedRpcs(grpc.aio.ServerInterceptor):
    """Answers for the method that is called, whether or not there is one of that name."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        if handler_call_details.method not in OPEN_RPCS:
            metadata = handler_call_details.invocation_metadata or ()
            try:
                self._lock.admit([str(v) for k, v in metadata if k == "authorization"], "grpc")
            except Unauthenticated as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def _refusal(error: Unauthenticated) -> _Handler:
    """A handler of streams, which can end without reading a message, where others cannot."""

    async def refuse(_: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        raise error

    return grpc.stream_stream_rpc_method_handler(refuse)


def _authorization(scope: _Scope) -> list[str]:
    """All headers of that name; of a WebSocket also protocols that bring a token.

    Pages can give a WebSocket no header of their own, but names of protocols.
    """
    given = [v.decode("latin-1") for k, v in scope["headers"] if k == b"authorization"]
    for protocol in scope.get("subprotocols", ()):
        kind, _, token = protocol.partition(".")
        if kind == BEARER_PROTOCOL:
            with contextlib.suppress(ValueError):
                decoded = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
                given.append(f"Bearer {decoded.decode()}")
    return given


class _WriteError(Protocol):
    def __call__(
        self, path: str, error: Unauthenticated, headers: Mapping[str, str], /
    ) -> _App: ...


class LockedApp:
    """An ASGI application behind the lock."""

    def __init__(self, app: _App, lock: Lock, write_error: _WriteError) -> None:
        self._app = app
        self._lock = lock
        self._write_error = write_error

    async def __call__(
        self,
        scope: _Scope,
        receive: Callable[..., Awaitable[Any]],
        send: Callable[..., Awaitable[Any]],
    ) -> None:
        app = self._app
        if scope["path"] not in OPEN_PATHS:
            try:
                self._lock.admit(_authorization(scope), "http")
            except Unauthenticated as error:
                app = self._write_error(scope["path"], error, _CHALLENGE)
        await app(scope, receive, send)
