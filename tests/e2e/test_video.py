"""Stylized video on a real server: gRPC, WebSocket, both clients, the command line."""

import asyncio
import base64
import io
import itertools
import json
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from pellucid.v1 import service_pb2_grpc, video_pb2
from PIL import Image
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.harness import photo

BASE = photo("cat")
STYLE = photo("coffee")[::4, ::4].copy()
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


def frames(count: int, height_px: int = 64, width_px: int = 96) -> list[Any]:
    return [BASE[i : i + height_px, i : i + width_px].copy() for i in range(count)]


def file_of(pixels: Any, kind: str = "JPEG") -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


def sample(server: Any, name: str) -> float:
    lines = httpx.get(server.metrics).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


# The stream.


def test_a_sender_at_twice_the_capacity(client: pellucid.Client) -> None:
    """100 frames: in order, never more than 4 waiting, all accounted for."""
    started_s = time.monotonic()
    assert len(list(client.stylize_video(frames(20), "19", keep_all=True))) == 20
    frame_s = (time.monotonic() - started_s) / 20

    def paced() -> Iterator[tuple[Any, float]]:
        begun_s = time.monotonic()
        for i, frame in enumerate(frames(100)):
            time.sleep(max(0.0, begun_s + i * frame_s / 2 - time.monotonic()))
            yield frame, i * 40.0

    with closing(client.stylize_video(paced(), "19")) as stream:
        made = list(stream)
        summary = stream.result()
    indices = [frame.index for frame in made]
    assert indices == sorted(set(indices))
    assert indices[-1] == 99  # the newest is never dropped
    assert [frame.timestamp_ms for frame in made] == [i * 40.0 for i in indices]
    assert summary.received_count == 100
    assert summary.most_waiting_count <= 4
    assert summary.failed_count == 0
    assert summary.dropped_count > 0
    assert summary.stylized_count == len(made) == 100 - summary.dropped_count
    dropped = [frame.dropped_count for frame in made]
    assert dropped == sorted(dropped)
    # Whatever was skipped before a frame had been dropped by then.
    assert all(frame.dropped_count >= frame.index - i for i, frame in enumerate(made))
    assert dropped[-1] == summary.dropped_count


def test_with_flow_control_none_is_lost(client: pellucid.Client) -> None:
    stream = client.stylize_video(frames(100), "19", keep_all=True)
    assert [frame.index for frame in stream] == list(range(100))
    summary = stream.result()
    assert summary.stylized_count == summary.received_count == 100
    assert summary.dropped_count == summary.failed_count == 0
    assert summary.most_waiting_count <= 4


def test_as_photos_are_painted(client: pellucid.Client) -> None:
    """The same pixels as of Stylize, whatever the frames come as."""
    options: dict[str, Any] = {"strength": 0.7, "original_colors": "luminance"}
    pixels = frames(3)
    for which in ("19", ["3", ("12", 3.0)]):
        photos = [
            client.stylize(one, which, method="fast", side_px=96, **options).result().image
            for one in pixels
        ]
        files = [pixels[0], file_of(pixels[1], "PNG"), Image.fromarray(pixels[2])]
        shown = client.stylize_video(files, which, keep_all=True, format="rgb", **options)
        for frame, expected in zip(shown, photos, strict=True):
            assert np.array_equal(frame.pixels, np.asarray(expected))
    small = client.stylize_video(pixels, "19", side_px=64, quality=30, keep_all=True)
    for frame in small:
        assert frame.encoded is not None
        assert frame.encoded.startswith(b"\xff\xd8")
        assert frame.pixels.shape == (43, 64, 3)


def test_streams_of_several_styles_ride_together(server: Any, client: pellucid.Client) -> None:
    """To the bit as each alone, at one bucket."""
    options: dict[str, Any] = {"keep_all": True, "format": "rgb", "bucket_size": FEW}

    def run(style: Any) -> list[Any]:
        return [frame.pixels for frame in client.stylize_video(frames(12), style, **options)]

    names = ("19", "6", "3")
    alone = [run(name) for name in names]
    rows, batches = "pellucid_batch_rows_sum", "pellucid_batch_rows_count"
    before = sample(server, rows), sample(server, batches)
    with ThreadPoolExecutor(3) as threads:
        with server.held():
            together = [threads.submit(run, name) for name in names]
            time.sleep(0.3)
        made = [one.result() for one in together]
    assert sample(server, rows) - before[0] > sample(server, batches) - before[1]
    for one, other in zip(alone, made, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(alone[0][0], alone[1][0])


def test_a_bad_frame_is_its_own_error(client: pellucid.Client) -> None:
    whole = [file_of(one) for one in frames(6)]
    whole[1] = whole[1][:-300]
    whole[3] = file_of(frames(1, 96, 64)[0])
    stream = client.stylize_video(whole, STYLE, keep_all=True)
    made = list(stream)
    assert [frame.index for frame in made] == list(range(6))
    errors = {frame.index: frame.error for frame in made if frame.error is not None}
    assert errors.keys() == {1, 3}
    assert isinstance(errors[1], pellucid.InvalidArgument)
    assert "truncated or corrupt" in str(errors[1])
    assert "of 96 × 64 pixels, and the stream of 64 × 96" in str(errors[3])
    with pytest.raises(pellucid.InvalidArgument, match="truncated"):
        _ = made[1].pixels
    summary = stream.result()
    assert (summary.failed_count, summary.stylized_count) == (2, 4)


def test_what_is_asked_wrongly(client: pellucid.Client, served: Any) -> None:
    with pytest.raises(pellucid.NotFound, match="is 'mosaic'; styles are: 0, 1"):
        client.stylize_video(frames(1), "mosaic").result()
    with pytest.raises(pellucid.InvalidArgument, match=r"smoothing: is 1\.0; must be 0 to 0\.95"):
        client.stylize_video(frames(1), "1", smoothing=1.0).result()
    with pytest.raises(pellucid.BadArgument, match="step_count: not a parameter of a video"):
        client.stylize_video(frames(1), "1", step_count=3)
    with pytest.raises(pellucid.PhotoNotFound):
        client.stylize_video(frames(1), "mosaic.jpg")
    with (
        pellucid.Client(served.grpc) as other,
        pytest.raises(pellucid.FailedPrecondition, match="`pellucid models pull styles`"),
    ):
        other.stylize_video(frames(1), "1").result()


def test_what_goes_wrong_with_the_callers_frames(client: pellucid.Client) -> None:
    """Frames before it come back; then it is raised where frames are taken."""

    def broken() -> Iterator[Any]:
        yield from frames(3)
        raise RuntimeError("the camera fell down")

    taken = []
    with pytest.raises(RuntimeError, match="the camera fell down"):
        for frame in client.stylize_video(broken(), "19", keep_all=True):
            taken.append(frame.index)  # noqa: PERF401
    assert taken == [0, 1, 2]
    with pytest.raises(pellucid.BadArgument, match="photo: is int"):
        client.stylize_video([1], "19").result()  # type: ignore[list-item]


def test_leaving_early_cancels(server: Any, client: pellucid.Client) -> None:
    go_on = threading.Event()

    def endless() -> Iterator[Any]:
        for i in itertools.count():
            yield frames(1)[0]
            if i > 5:
                go_on.wait(30)

    with client.stylize_video(endless(), "19") as stream:
        assert next(stream).index == 0
        assert sample(server, "pellucid_video_streams") == 1
    go_on.set()
    with pytest.raises(pellucid.Cancelled):
        stream.result()
    until_s = time.monotonic() + 30
    while sample(server, "pellucid_video_streams") or server.server.engine.admission.byte_count:
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_on_asyncio(server: Any, client: pellucid.Client) -> None:
    expected = [one.encoded for one in client.stylize_video(frames(5), "19", keep_all=True)]

    async def coming() -> Any:
        for frame in frames(5):
            yield frame, 7.0

    async def go() -> None:
        async with pellucid.AsyncClient(server.grpc) as asynchronous:
            for which in (coming(), frames(5)):
                stream = asynchronous.stylize_video(which, "19", keep_all=True)
                assert [frame.encoded async for frame in stream] == expected
                assert (await stream.result()).stylized_count == 5
            left = asynchronous.stylize_video(frames(50), "19", keep_all=True)
            async with left:
                assert (await anext(left)).index == 0
            with pytest.raises(pellucid.NotFound):
                await asynchronous.stylize_video(frames(1), "mosaic").result()

    asyncio.run(go())


def test_smoothing_steadies_what_stands_still(client: pellucid.Client) -> None:
    """A still picture with a camera's noise: results differ less from frame to frame."""
    noise = np.random.default_rng(0).integers(-4, 5, (12, 64, 96, 3))
    still = [np.clip(frames(1)[0] + one, 0, 255).astype(np.uint8) for one in noise]

    def flicker(smoothing: float) -> float:
        options: dict[str, Any] = {"keep_all": True, "format": "rgb", "smoothing": smoothing}
        made = [f.pixels.astype(int) for f in client.stylize_video(still, "19", **options)]
        return float(np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(made[4:])]))

    assert flicker(0.8) < 0.5 * flicker(0.0)


# How streams end on a server of their own.


def test_bounds_idleness_and_drain(make_server: Any, styles: Path) -> None:
    settings = {"buckets": (1,), "max_video_streams": 1, "video_idle_timeout_s": 1.0}
    with make_server(models=("efficientnet_lite0",), styles=styles, **settings) as running:
        go_on = threading.Event()

        def slow() -> Iterator[Any]:
            yield from frames(2)
            go_on.wait(60)

        with pellucid.Client(running.grpc, max_retries=0) as client:
            with client.stylize_video(slow(), "19", keep_all=True) as first:
                assert next(first).index == 0
                with pytest.raises(pellucid.ResourceExhausted, match="1 streams of video"):
                    client.stylize_video(frames(1), "19").result()
                assert next(first).index == 1
                with pytest.raises(pellucid.DeadlineExceeded, match="no frame came for 1 s"):
                    next(first)
            go_on.set()
            go_on.clear()
            spec = video_pb2.StylizeVideoSpec(fast={"styles": [{"name": "19"}]})

            def messages() -> Iterator[video_pb2.StylizeVideoRequest]:
                yield video_pb2.StylizeVideoRequest(spec=spec)
                encoded = {"encoded": file_of(frames(1)[0])}
                yield video_pb2.StylizeVideoRequest(frame={"image": encoded})
                go_on.wait(60)

            stub = service_pb2_grpc.PellucidServiceStub(client._channel)
            events = stub.StylizeVideo(messages(), timeout=60)
            kinds = [next(events).WhichOneof("event") for _ in range(2)]
            draining = threading.Thread(target=running.do, args=(running.server.service.drain(30),))
            draining.start()
            kinds.append(next(events).WhichOneof("event"))
            assert kinds == ["started", "frame", "summary"]
            with pytest.raises(Exception, match="another replica will answer"):
                next(events)
            draining.join()
            go_on.set()


# The WebSocket.


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
    pixels = frames(6)
    files = [file_of(one) for one in pixels]
    damaged, other = files[1][:-300], file_of(frames(1, 96, 64)[0])
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


def test_a_websocket_keeps_all_or_drops_the_oldest(server: Any) -> None:
    file = file_of(frames(1)[0])
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
    allowed = {"web_origins": ("https://example.org",), "video_idle_timeout_s": 1.0}
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
            assert error["message"] == "no spec came for 1 s"


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
        socket.send(message({"index": 3}, file_of(frames(1)[0])))
        answer = socket.recv(60)
    assert isinstance(answer, bytes)
    assert parted(answer)[0]["index"] == 3


# The command line.


RATE = 25


def write_video(path: Path, count: int, *, sound: bool = True, picture: bool = True) -> None:
    """So many frames at 25 a second, and a tone that lasts as long."""
    with av.open(str(path), "w") as container:
        if picture:
            video: Any = container.add_stream("h264", rate=RATE)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        if sound:
            audio: Any = container.add_stream("aac", rate=44100)
            audio.layout = "mono"
        for i, pixels in enumerate(frames(count) if picture else []):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(video.encode(frame))
        if picture:
            container.mux(video.encode(None))
        tone = np.sin(np.arange(44100 * count // RATE) * 440 * 2 * np.pi / 44100)
        for start in range(0, len(tone) - 1023 if sound else 0, 1024):
            part = tone[None, start : start + 1024].astype(np.float32)
            heard = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 44100, start, Fraction(1, 44100)
            container.mux(audio.encode(heard))
        if sound:
            container.mux(audio.encode(None))


def sound_of(path: Path) -> list[tuple[Any, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio)
        return [(one.pts * one.time_base, bytes(one)) for one in packets if one.dts is not None]


def picture_of(path: Path) -> tuple[list[Any], list[Any], Any]:
    """Times in seconds, pixels, and the rate."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        times = [one.pts * one.time_base for one in decoded]
        pixels = [one.to_ndarray(format="rgb24").astype(int) for one in decoded]
        return times, pixels, container.streams.video[0].average_rate


@pytest.fixture
def runner(server: Any) -> CliRunner:
    return CliRunner(env={"PELLUCID_SERVER": server.grpc})


def test_a_file_keeps_its_frames_and_its_sound(
    runner: CliRunner, client: pellucid.Client, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source, 40)
    command = ["stylize", "video", str(source), "-o", str(out), "--style", "19"]
    made = runner.invoke(app, command)
    assert made.exit_code == 0, made.output
    assert "40 in" in made.output
    times, pixels, rate = picture_of(source)
    new_times, new_pixels, new_rate = picture_of(out)
    assert rate == new_rate == RATE
    assert times == new_times
    assert len(sound_of(source)) > 50
    assert sound_of(source) == sound_of(out)
    raw = [one.astype(np.uint8) for one in pixels]
    painted = client.stylize_video(raw, "19", keep_all=True, format="rgb")
    for frame, new in zip(painted, new_pixels, strict=True):
        light, new_light = (one @ np.array([0.2126, 0.7152, 0.0722]) for one in (frame.pixels, new))
        assert np.abs(light - new_light).mean() < 6  # colours have half of the pixels
    assert np.abs(pixels[0] - new_pixels[0]).mean() > 25
    assert sorted(tmp_path.iterdir()) == [source, out]


def test_a_part_of_a_file_without_sound(runner: CliRunner, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mov"
    write_video(source, 20, sound=False)
    options = ["--seconds=0.4", "--side=65", "--jpeg=80", "--smoothing=0.5", "--strength=0.9"]
    made = runner.invoke(
        app, ["stylize", "video", str(source), "-o", str(out), "--style=3", *options]
    )
    assert made.exit_code == 0, made.output
    times, pixels, _ = picture_of(out)
    assert len(times) == 10
    assert pixels[0].shape == (42, 64, 3)  # of 43 × 65, made even
    write_video(source, 20)
    made = runner.invoke(
        app, ["stylize", "video", str(source), "-o", str(out), "--style=3", "--seconds=0.4"]
    )
    assert made.exit_code == 0, made.output
    sound = sound_of(source)
    kept = sound_of(out)
    assert [data for _, data in kept] == [data for time_s, data in sound if time_s < 0.4]


def test_a_camera(runner: CliRunner, tmp_path: Path) -> None:
    """FFmpeg's test picture in place of one: frames that come too fast are dropped."""
    out = tmp_path / "out.mp4"
    device = ["--device", "testsrc=size=96x64:rate=10:duration=4", "--device-format", "lavfi"]
    made = runner.invoke(
        app, ["stylize", "video", "--webcam", *device, "-o", str(out), "--style=19"]
    )
    assert made.exit_code == 0, made.output
    assert "dropped" in made.output
    times, _, _ = picture_of(out)
    assert 7 <= len(times) < 40
    assert times == sorted(set(times))


def test_files_that_are_no_videos(runner: CliRunner, tmp_path: Path) -> None:
    text, sound, damaged = (tmp_path / name for name in ("a.txt", "b.mp4", "c.mp4"))
    text.write_text("no video")
    write_video(sound, 20, picture=False)
    write_video(damaged, 20)
    damaged.write_bytes(damaged.read_bytes()[:900])
    out = tmp_path / "out.mp4"

    def run(*arguments: Any) -> str:
        made = runner.invoke(app, ["stylize", "video", "--style=19", *map(str, arguments)])
        assert made.exit_code == 2, made.output
        return str(made.output)

    assert "there is no such file" in run(tmp_path / "none.mp4", "-o", out)
    assert "cannot be read as a video" in run(text, "-o", out)
    assert "has no video track" in run(sound, "-o", out)
    assert "cannot be read as a video" in run(damaged, "-o", out)
    assert "must end with .mp4, .mov, .mkv" in run(sound, "-o", tmp_path / "out.gif")
    assert "give a video file, or --webcam" in run("-o", out)
    assert "are for --webcam" in run(sound, "-o", out, "--device", "x")
    assert "needs --output, --window or both" in run("--webcam")
    nowhere = ["--device", tmp_path / "camera"]
    assert "no camera can be read there" in run("--webcam", *nowhere, "-o", out)
    assert not out.exists()


def test_what_the_server_refuses_leaves_no_file(runner: CliRunner, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_video(source, 5)
    command = ["stylize", "video", str(source), "-o", str(out), "--style"]
    made = runner.invoke(app, [*command, "mosaic"])
    assert made.exit_code == 1
    assert "styles are: 0, 1" in made.output
    assert list(tmp_path.iterdir()) == [source]
    made = runner.invoke(app, ["stylize", "video", str(source), "-o", str(source), "--style=1"])
    assert made.exit_code == 0, made.output
    assert len(picture_of(source)[0]) == 5
