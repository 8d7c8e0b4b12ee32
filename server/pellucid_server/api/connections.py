"""Connections of HTTP: how many there may be, and how long each may be without a call."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_TIMEOUT_S = 10.0
"""How long a connection may take to shake hands, and to bring all of a call's head."""

_CLOSE_S = 5.0
"""How long a peer may take to answer the end of TLS."""

LEAVE_TIMEOUT_S = 10.0
"""How long a WebSocket's peer may take to read what is left for it, and to answer the end."""

SPARE_CONNECTIONS = 256
"""Beyond max_requests: health, models, refusals with a delay, and those between two calls."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"connection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
)


class HttpServer(uvicorn.Server):
    """Uvicorn's, which by itself waits for ever for a head, and a minute for a handshake.

    It leaves signals alone: their one owner is serve.

    Args:
        config: Uvicorn's.
        max_requests: Requests at once, of which each may have a connection.
    """

    def __init__(self, config: uvicorn.Config, max_requests: int) -> None:
        super().__init__(config)
        self._most_connections = max_requests + SPARE_CONNECTIONS

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        tls: dict[str, Any] = {}
        if self.config.ssl is not None:
            tls = {"ssl_handshake_timeout": HEAD_TIMEOUT_S, "ssl_shutdown_timeout": _CLOSE_S}
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._connection, sock=one, backlog=self.config.backlog, ssl=self.config.ssl, **tls
            )
            for one in sockets
        ]
        self.started = True

    def _connection(self) -> "_Connection":
        return _Connection(
            self._most_connections,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


class _Connection(H11Protocol):
    """Ends when no call is under way for long. Bytes that are no call do not keep it.

    Between two calls uvicorn waits for the next byte, for its shorter time.
    """

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = most
        self._ending: asyncio.TimerHandle | None = None
        self._upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.write(_FULL)
            transport.close()
        self._time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._upgraded = True
        if self._ending is not None:
            self._ending.cancel()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)

    def _time(self) -> None:
        if self._upgraded:  # a WebSocket's handler sees to its own times
            return
        called = self.cycle is not None  # before the first call, whatever uvicorn's types say
        calling = called and not self.cycle.response_complete
        if calling and self._ending is not None:
            self._ending.cancel()
            self._ending = None
        elif not calling and self._ending is None:
            self._ending = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """Uvicorn's, which keeps a connection for ever whose peer does not read all that was sent."""

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            self.loop.call_later(LEAVE_TIMEOUT_S, self.transport.abort)
