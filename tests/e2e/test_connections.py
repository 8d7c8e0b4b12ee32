"""Connections and calls that bring nothing: each ends, and what is under way goes on."""

import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
import trustme

ONE = np.random.default_rng(0).standard_normal((3, 96, 96)).astype(np.float32)
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of gRPC says first: the preface, and settings."""


def ended(port: int, first: bytes = b"", *more: bytes) -> bytes:
    """What a server says to what it is sent, one after the other, until it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(first)
        said = b""
        for part in more:
            said += connection.recv(1 << 16)
            connection.sendall(part)
        return said + read_all(connection)


def read_all(connection: socket.socket, last: bytes | None = None) -> bytes:
    """What it says until the end, or until those words."""
    said = b""
    while (last is None or last not in said) and (more := connection.recv(1 << 16)):
        said += more
    return said


def wait_for(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid_server.api.connections.HEAD_TIMEOUT_S", 0.2)


@pytest.mark.parametrize(
    "sent",
    [
        (),
        (b"GET /health/live HTTP/1.1\r\nhost: her",),
        (b"GET /health/live HTTP/1.1\r\nhost: here\r\n\r\n", b"GET /health"),
        (b"GET /health/live HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n", b"1"),
    ],
    ids=["silent", "half a head", "half a second head", "half a body that nobody reads"],
)
@pytest.mark.usefixtures("short")
def test_a_connection_without_a_call_ends(served: Any, sent: tuple[bytes, ...]) -> None:
    said = ended(served.server.http_port, *sent)
    assert said.count(b"200 OK") == (len(sent) > 1)


@pytest.mark.usefixtures("short")
def test_a_call_under_way_may_take_longer(served: Any) -> None:
    given = {"name": "input", "datatype": "FP32", "shape": [1, 3, 96, 96]}
    body = {"inputs": [given | {"data": ONE.ravel().tolist()}]}
    url = f"{served.http}/v2/models/efficientnet_lite0/infer"
    with ThreadPoolExecutor(1) as callers:
        with served.held():
            answer = callers.submit(httpx.post, url, json=body, timeout=60)
            wait_for(lambda: served.server.engine.admission.depth)
            ended(served.server.http_port)  # which takes as long as any connection may
        assert answer.result().status_code == 200


def test_connections_have_a_bound(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid_server.api.connections.SPARE_CONNECTIONS", 1)
    with make_server(start=False, max_requests=1) as running:
        running.do(running.server._open_http(None))
        live = f"{running.http}/health/live"
        with httpx.Client() as first, httpx.Client() as second:
            assert [one.get(live).status_code for one in (first, second)] == [200, 200]
            assert ended(running.server.http_port).startswith(b"HTTP/1.1 503 ")
            assert [one.get(live).status_code for one in (first, second)] == [200, 200]


@pytest.fixture
def identity(tmp_path: Path) -> dict[str, Path]:
    made = trustme.CA().issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    made.private_key_pem.write_to_path(tmp_path / "server.key")
    return {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid_server.api.grpc._HANDSHAKE_MS", 200)


@pytest.mark.usefixtures("short", "hasty")
def test_handshakes_have_a_deadline(make_server: Callable[..., Any], identity: Any) -> None:
    with make_server(start=False, **identity) as running:
        running.do(running.server._open_grpc(None))
        running.do(running.server._open_http(None))
        for port in (running.server.http_port, running.server.grpc_port):
            assert ended(port) == b""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address = ("127.0.0.1", running.server.http_port)
        with (
            socket.create_connection(address, timeout=20) as plain,
            context.wrap_socket(plain) as silent,
        ):
            assert read_all(silent) == b""


@pytest.mark.usefixtures("hasty")
def test_http2_has_a_deadline(make_server: Callable[..., Any]) -> None:
    with make_server(start=False) as running:
        running.do(running.server._open_grpc(None))
        ended(running.server.grpc_port)


@pytest.mark.parametrize(
    ("limit", "word"), [("_MOST_IDLE_MS", b"connection idle"), ("_MOST_AGE_MS", b"max_age")]
)
def test_channels_outlive_their_connections(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, limit: str, word: bytes
) -> None:
    """A connection ends, and the next call opens another; a call under way is not cut."""
    monkeypatch.setattr(f"pellucid_server.api.grpc.{limit}", 300)
    with (
        make_server(buckets=(1,)) as running,
        pellucid.Client(running.grpc, max_retries=0) as client,
        ThreadPoolExecutor(1) as callers,
    ):
        model = client.list_models()[0].name
        address = ("127.0.0.1", running.server.grpc_port)

        def outlive_another() -> None:
            """Waits as long as a connection of this kind lasts."""
            with socket.create_connection(address, timeout=20) as other:
                other.sendall(HTTP2)
                assert word in read_all(other, word)

        with running.held():
            answer = callers.submit(client.predict, ONE, model=model)
            wait_for(lambda: running.server.engine.admission.depth)
            outlive_another()
        assert answer.result().predictions
        outlive_another()
        assert client.list_models()[0].name == model


@pytest.fixture
def silence() -> Iterator[Iterator[bytes]]:
    """A message that never comes."""
    nothing: queue.Queue[Any] = queue.Queue()
    yield iter(nothing.get, None)
    nothing.put(None)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("pellucid.v1.PellucidService/Predict", "unary"),
        ("pellucid.v1.PellucidService/ExplainStream", "stream"),
        ("pellucid.v1.PellucidService/ListModels", "unary"),
        ("inference.GRPCInferenceService/ModelInfer", "unary"),
        ("inference.GRPCInferenceService/ServerLive", "unary"),
        ("grpc.health.v1.Health/Check", "unary"),
        ("grpc.health.v1.Health/Watch", "stream"),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "stream"),
    ],
)
def test_a_message_that_does_not_come_ends_the_call(
    served: Any,
    monkeypatch: pytest.MonkeyPatch,
    silence: Iterator[bytes],
    method: str,
    kind: str,
) -> None:
    monkeypatch.setattr("pellucid_server.api.rpc.RECEIVE_TIMEOUT_S", 0.2)
    with grpc.insecure_channel(served.grpc) as channel:
        invoke = getattr(channel, f"stream_{kind}")(f"/{method}")
        with pytest.raises(grpc.RpcError) as late:
            list(invoke(silence, timeout=20)) if kind == "stream" else invoke(silence, timeout=20)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.value.details() == "no message came for 0.2 s"
