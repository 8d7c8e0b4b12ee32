"""pellucid stylize video, with a real server: files with their sound, and a camera."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from typer.testing import CliRunner

from tests.harness import moving

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


RATE = 25
PIXEL_ASPECT = Fraction(4, 3)


def write_video(path: Path, count: int, *, sound: bool = True, picture: bool = True) -> None:
    """So many frames at 25 a second, of pixels that are not square, and a tone as long."""
    with av.open(str(path), "w") as container:
        if picture:
            video: Any = container.add_stream("h264", rate=RATE)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            video.codec_context.sample_aspect_ratio = PIXEL_ASPECT
        if sound:
            audio: Any = container.add_stream("aac", rate=44100)
            audio.layout = "mono"
        for i, pixels in enumerate(moving(count) if picture else []):
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


def picture_of(path: Path) -> tuple[list[Any], list[Any], tuple[Any, Any]]:
    """Times in seconds, pixels, and the rate and the aspect of a pixel."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        times = [one.pts * one.time_base for one in decoded]
        pixels = [one.to_ndarray(format="rgb24").astype(int) for one in decoded]
        stream = container.streams.video[0]
        return times, pixels, (stream.average_rate, stream.sample_aspect_ratio)


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
    times, pixels, shown = picture_of(source)
    new_times, new_pixels, new_shown = picture_of(out)
    assert shown == new_shown == (RATE, PIXEL_ASPECT)
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
