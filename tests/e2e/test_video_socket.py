"""Stylized video over a WebSocket, on a real server: as over gRPC, and as REST is locked."""

import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pellucid
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.harness import MOST_SENT, file_of, moving, padded, settle

FEW = 4
"""Of a style network's buckets that are measured at the start."""


@pytest.fixture(scope="module")
def server(make_server: Any, styles: Path) -> Iterator[Any]:
    with make_server(models=("efficientnet_lite0",), styles=styles, buckets=(1, FEW)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(server.grpc, timeout_s=120) as client:
        yield client


def sample(server: Any, name: str) -> float:
    lines = httpx.get(server.metrics).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def url(server: Any) -> str:
    return f"{server.http.replace('http', 'ws')}/v1/stylize/video"


def message(head: dict[str, Any], data: bytes) -> bytes:
    encoded = json.dumps(head).encode()
    return struct.pack("<I", len(encoded)) + encoded + data


def parted(binary: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<I", binary)
    return json.loads(binary[4 : 4 + length]), binary[4 + length :]


def spec_of(**fields: Any) -> str:
    return json.dumps({"fast": {"styles": [{"name": "19"}]}} | fields)


def test_the_same_over_a_websocket(server: Any, client: pellucid.Client) -> None:
    """Files and raw pixels; to the byte what gRPC brings; errors of frames in their places."""
    pixels = moving(6)
    files = [file_of(one) for one in pixels]
    damaged, other = files[1][:-300], file_of(moving(1, 96, 64)[0])
    sent = [files[0], damaged, files[2], other, files[4], pixels[5]]
    expected = list(client.stylize_video(sent, "19", keep_all=True, quality=80))
    with connect(url(server), max_size=None, subprotocols=["pellucid.v1"]) as socket:
        assert socket.subprotocol == "pellucid.v1"
        socket.send(spec_of(overflow="VIDEO_OVERFLOW_KEEP_ALL", quality=80))
        started = json.loads(socket.recv(60))["started"]
        assert started["model"] == "styles/multistyle26"
        assert started["asked"]["quality"] == 80
        for i, file in enumerate(sent[:5]):
            socket.send(message({"index": i, "timestampMs": i * 40.5}, file))
        shape = {"dataType": "DATA_TYPE_UINT8", "shape": [64, 96, 3]}
        socket.send(message({"index": 5, "image": {"tensor": shape}}, pixels[5].tobytes()))
        socket.send('{"end": true}')
        for i, frame in enumerate(expected):
            got = socket.recv(60)
            if frame.error is not None:
                told = json.loads(got)["frame"]
                assert told["index"] == i
                assert told["failure"]["message"] == frame.error.message
                continue
            assert isinstance(got, bytes)
            head, data = parted(got)
            assert (head["index"], head["timestampMs"]) == (i, i * 40.5 if i < 5 else 0)
            assert (head["image"]["widthPx"], head["droppedCount"]) == (96, 0)
            assert data == frame.encoded
        summary = json.loads(socket.recv(60))["summary"]
        assert (summary["receivedCount"], summary["failedCount"]) == (6, 2)
        with pytest.raises(ConnectionClosed):
            socket.recv(60)
        assert socket.close_code == 1000


def test_a_websocket_slows_its_sender(server: Any) -> None:
    """While nothing is painted, and all are to be kept."""
    sent = [0]
    with connect(url(server), max_size=None) as socket:
        socket.send(spec_of(overflow="VIDEO_OVERFLOW_KEEP_ALL"))
        socket.recv(60)

        def send() -> None:
            for i, file in enumerate(padded(moving(100))):
                socket.send(message({"index": i}, file))
                sent.append(i)
            socket.send('{"end": true}')

        with server.held():
            sending = threading.Thread(target=send)
            sending.start()
            settle(lambda: sent[-1], 7)
            assert sent[-1] < MOST_SENT
        *made, last = list(socket)
        sending.join()
    assert [parted(one)[0]["index"] for one in made if isinstance(one, bytes)] == list(range(100))
    assert json.loads(last)["summary"]["stylizedCount"] == 100


def test_a_websocket_keeps_all_or_drops_the_oldest(server: Any) -> None:
    file = file_of(moving(1)[0])
    for overflow in ("VIDEO_OVERFLOW_KEEP_ALL", "VIDEO_OVERFLOW_DROP_OLDEST"):
        with connect(url(server), max_size=None) as socket:
            socket.send(spec_of(overflow=overflow, format="FRAME_FORMAT_RGB"))
            socket.recv(60)

            def send(socket: Any = socket) -> None:
                for i in range(60):
                    socket.send(message({"index": i}, file))
                socket.send('{"end": true}')

            sending = threading.Thread(target=send)
            sending.start()
            *made, last = list(socket)
            sending.join()
        indices = [parted(one)[0]["index"] for one in made if isinstance(one, bytes)]
        assert indices == sorted(set(indices))
        assert len(parted(made[0])[1]) == 64 * 96 * 3
        summary = json.loads(last)["summary"]
        assert summary["receivedCount"] == 60
        assert summary["mostWaitingCount"] <= 4
        assert len(indices) == summary["stylizedCount"] == 60 - summary["droppedCount"]
        assert (summary["droppedCount"] > 0) == (overflow == "VIDEO_OVERFLOW_DROP_OLDEST")


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        ([spec_of(fast={"styles": [{"name": "x"}]})], 404, "is 'x'; styles are: 0, 1"),
        ([spec_of(smoothing=2)], 400, "smoothing: is 2.0; must be 0 to 0.95"),
        ([spec_of(colour=2)], 400, "colour"),
        (["{"], 400, "JSON"),
        ([b"\0\0\0\0"], 400, "the first message must be text"),
        ([spec_of(), "stop"], 400, 'must be {"end": true}'),
        ([spec_of(), b"\1"], 400, "must begin with the length of its head"),
        ([spec_of(), b"\x09\0\0\0{}"], 400, "head has 9 bytes"),
        ([spec_of(), message({"number": 1}, b"")], 400, "number"),
    ],
)
def test_bad_messages(server: Any, messages: list[Any], code: int, words: str) -> None:
    with connect(url(server)) as socket:
        for one in messages:
            socket.send(one)
        *_, last = list(_all(socket))
        error = json.loads(last)["error"]
        assert error["code"] == code
        assert words in error["message"]
        assert socket.close_code == 1008


def _all(socket: Any) -> Iterator[Any]:
    try:
        while True:
            yield socket.recv(60)
    except ConnectionClosed:
        return


def test_without_styles_over_a_websocket(served: Any) -> None:
    with connect(url(served)) as socket:
        socket.send(spec_of())
        error = json.loads(socket.recv(60))["error"]
    assert error["status"] == "FAILED_PRECONDITION"
    assert "`pellucid models pull styles`" in error["message"]


def test_who_may_open_a_websocket(make_server: Any, styles: Path, tmp_path: Path) -> None:
    """Whoever has the token, in a header or as a protocol; and no foreign page."""
    token = "a long word, or two".replace(" ", "_")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"alice {token}\n")
    coded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    settings = {"token_file": tokens, "max_message_bytes": 1 << 14, "buckets": (1,)}
    allowed = {"web_origins": ("https://example.org",), "video_idle_timeout_s": 3.0}
    with make_server(
        models=("efficientnet_lite0",), styles=styles, **settings, **allowed
    ) as running:
        right = {"Authorization": f"Bearer {token}"}
        own = running.http

        def dial(**options: Any) -> Any:
            return connect(url(running), **options)

        for refused in (
            {},
            {"additional_headers": {"Authorization": "Bearer another_long_word"}},
            {"subprotocols": ["pellucid.v1", "bearer.AAAA"]},
            {"subprotocols": ["pellucid.v1", f"bearer.{coded[:-3]}"]},
        ):
            with pytest.raises(InvalidStatus) as caught:
                dial(**refused)
            assert caught.value.response.status_code == 401
            body = json.loads(caught.value.response.body or b"{}")
            assert body["error"]["status"] == "UNAUTHENTICATED"
        for origin in ("https://elsewhere.org", "null", f"{own}.elsewhere.org"):
            with pytest.raises(InvalidStatus) as caught:
                dial(additional_headers=right, origin=origin)
            assert caught.value.response.status_code == 403
        for welcome in (
            {"additional_headers": right},
            {"additional_headers": right, "origin": own},
            {"additional_headers": right, "origin": "https://example.org"},
            {"subprotocols": ["pellucid.v1", f"bearer.{coded}"]},
        ):
            with dial(**welcome) as socket:
                socket.send(spec_of())
                assert "started" in json.loads(socket.recv(60))
        with dial(additional_headers=right) as socket:
            socket.send(spec_of())
            socket.recv(60)
            socket.send(bytes(1 << 15))
            with pytest.raises(ConnectionClosed):
                socket.recv(60)
            assert socket.close_code == 1009
        with dial(additional_headers=right) as socket:
            error = json.loads(socket.recv(60))["error"]
            assert error["message"] == "no spec came for 3 s"


def test_a_websocket_that_is_left_ends_its_stream(server: Any) -> None:
    with connect(url(server)) as socket:
        socket.send(spec_of())
        socket.recv(60)
        assert sample(server, "pellucid_video_streams") == 1
    until_s = time.monotonic() + 30
    while sample(server, "pellucid_video_streams"):
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_websocket_outlasts_the_time_for_heads(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid_server.api.connections.HEAD_TIMEOUT_S", 0.5)
    with connect(url(server)) as socket:
        socket.send(spec_of())
        socket.recv(60)
        time.sleep(1.0)
        socket.send(message({"index": 3}, file_of(moving(1)[0])))
        answer = socket.recv(60)
    assert isinstance(answer, bytes)
    assert parted(answer)[0]["index"] == 3
