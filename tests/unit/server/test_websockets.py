"""Connections of WebSockets, with an application of the test's own."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest
import uvicorn
from pellucid_server.api import connections
from pellucid_server.api.connections import HttpServer, WebSocketConnection

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def flooding(scope: Any, receive: Any, send: Any) -> None:
    """Sends until there has been no room for long, and gives up."""
    await receive()
    await send({"type": "websocket.accept"})
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.2):
                await send({"type": "websocket.send", "bytes": bytes(1 << 20)})


def test_a_peer_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LEAVE_TIMEOUT_S", 0.2)

    async def go() -> None:
        config = uvicorn.Config(flooding, lifespan="off", ws=WebSocketConnection, log_config=None)
        config.load()
        server = HttpServer(config, 1)
        server.lifespan = config.lifespan_class(config)
        listening = socket.create_server(("127.0.0.1", 0))
        await server.startup([listening])
        kept = server.server_state.connections
        with socket.create_connection(listening.getsockname()) as peer:
            peer.sendall(HANDSHAKE)
            async with asyncio.timeout(30):
                while not any(isinstance(one, WebSocketConnection) for one in kept):
                    await asyncio.sleep(0.01)
                while kept:
                    await asyncio.sleep(0.01)
        server.servers[0].close()

    asyncio.run(go())
