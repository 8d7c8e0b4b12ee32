"""Video files: frames and their times, colours, sides, sound, and what is wrong with them."""

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pellucid
import pytest
from av.stream import Disposition
from pellucid.cli import app
from pellucid.errors import BadArgument
from pellucid.footage import Film, Footage
from typer.testing import CliRunner

RATE = Fraction(24000, 1001)
BASE = Fraction(1, 24000)


def flat(red: int, green: int, blue: int, height_px: int = 48, width_px: int = 64) -> Any:
    return np.tile(np.array([red, green, blue], np.uint8), (height_px, width_px, 1))


COLORS = ((200, 40, 30), (30, 180, 60), (40, 50, 210))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".MOV"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    """Colours, and times that are not of one step."""
    path = tmp_path / f"a{suffix}"
    times_ms = [0.0, 41.708333, 125.125]
    with Film(path, RATE, BASE) as film:
        for color, time_ms in zip(COLORS, times_ms, strict=True):
            film.add(flat(*color), time_ms)
        assert not path.exists()  # not before all of it is there
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    footage = Footage(path)
    assert footage.time_base <= Fraction(1, 1000)
    read = list(footage.frames())
    assert [time_ms for _, time_ms in read] == pytest.approx(times_ms, abs=0.51)
    for (pixels, _), color in zip(read, COLORS, strict=True):
        assert pixels.shape == (48, 64, 3)
        assert np.abs(pixels.astype(int) - np.array(color)).max() <= 4


def test_odd_sides_are_made_even(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with Film(path, Fraction(25), Fraction(1, 25)) as film:
        film.add(flat(9, 9, 9, 49, 65), 0.0)
    assert next(iter(Footage(path).frames()))[0].shape == (48, 64, 3)


def test_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with Film(path, Fraction(25), Fraction(1, 25)) as film:
        for i in range(10):
            film.add(flat(9, 9, 9), i * 40.0)
    footage = Footage(path)
    assert footage.frame_count == 10
    assert footage.rate == 25
    assert len(list(footage.frames(0.2))) == 5


DAYS_S = 864_000


@pytest.mark.parametrize("camera", [False, True])
def test_times_count_from_the_start(tmp_path: Path, camera: bool) -> None:
    """Cameras stamp frames by a clock that runs for days; files may, too."""
    source, out = tmp_path / "a.mkv", tmp_path / "b.mp4"
    with Film(source, Fraction(25), Fraction(1, 25)) as film:
        for i in range(10):
            film.add(flat(9, 9, 9), DAYS_S * 1000 + i * 40.0)
    with av.open(str(source)) as container:
        assert container.start_time == DAYS_S * 10**6
    footage = Footage(source, camera=camera, kind="matroska")
    with Film(out, footage.rate, footage.time_base) as film:
        times_ms = []
        for pixels, time_ms in footage.frames(0.2):
            times_ms.append(time_ms)
            film.add(pixels, time_ms)
    assert times_ms == [0, 40, 80, 120, 160]
    with av.open(str(out)) as container:
        assert container.duration == 200_000  # µs


def write_late(path: Path, count: int, at_s: int) -> None:
    """So many frames at 25 a second and as much sound, on a clock that starts at a time."""
    with av.open(
        str(path), "w", format="mpegts", options={"output_ts_offset": str(at_s)}
    ) as container:
        video: Any = container.add_stream("h264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream("mp2", rate=48000)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(flat(9, 9, i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(48000 * count // 25) * 440 * 2 * np.pi / 48000) * 9999
        for start in range(0, len(tone) - 1151, 1152):
            part = np.repeat(tone[start : start + 1152].astype(np.int16), 2)[None]
            heard = av.AudioFrame.from_ndarray(part, format="s16", layout="stereo")
            heard.sample_rate, heard.pts, heard.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(heard))
        container.mux(sound.encode(None))


def packets_of(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(**{kind: 0})
        return [(float(one.pts * one.time_base), bytes(one)) for one in packets if one.size]


def test_a_part_of_what_starts_late_has_its_sound(tmp_path: Path) -> None:
    """Picture and sound are of one clock, which need not begin at 0."""
    source, out = tmp_path / "a.ts", tmp_path / "b.mkv"
    write_late(source, 75, 10)
    sound = packets_of(source, "audio")
    pictures = packets_of(source, "video")
    start_s = min(sound[0][0], pictures[0][0])
    assert start_s > 9
    footage = Footage(source)
    with Film(out, footage.rate, footage.time_base, source, 2.0) as film:
        count = 0
        for pixels, time_ms in footage.frames(2.0):
            film.add(pixels, time_ms)
            count += 1
    assert count == sum(time_s - start_s < 2 for time_s, _ in pictures) > 45
    kept = packets_of(out, "audio")
    expected = [one for one in sound if one[0] - start_s < 2]
    assert [data for _, data in kept] == [data for _, data in expected]
    assert [time_s for time_s, _ in kept] == pytest.approx(
        [time_s - start_s for time_s, _ in expected], abs=0.001
    )
    first_s = packets_of(out, "video")[0][0]
    assert first_s == pytest.approx(pictures[0][0] - start_s, abs=0.001)


def test_a_turned_picture_is_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As phones make them: the file says how to turn it, counterclockwise."""
    path = tmp_path / "a.mp4"
    pixels = flat(0, 0, 0)
    pixels[:8] = 255  # a bar at the top
    with Film(path, Fraction(25), Fraction(1, 25)) as film:
        film.add(pixels, 0.0)

    class Turned:
        def __init__(self, frame: Any) -> None:
            self._frame = frame

        rotation = -90

        def __getattr__(self, name: str) -> Any:
            return getattr(self._frame, name)

    footage = Footage(path)
    decoded = [Turned(one) for one in footage._container.decode(footage._stream)]

    class Container:
        start_time = 0
        decode = staticmethod(lambda _: iter(decoded))
        close = footage._container.close

    monkeypatch.setattr(footage, "_container", Container)
    [(upright, _)] = footage.frames()
    assert upright.shape == (64, 48, 3)
    assert upright[:, -8:].mean() > 200  # a quarter clockwise: to the right
    assert upright[:, :32].mean() < 50


@pytest.mark.parametrize(
    ("quarters", "shape", "aspect"),
    [(0, (48, 64, 3), Fraction(4, 3)), (1, (64, 48, 3), Fraction(3, 4))],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_pixels_that_are_not_square_stay_so(
    tmp_path: Path, suffix: str, quarters: int, shape: tuple[int, ...], aspect: Fraction
) -> None:
    """What was wide is high, where the picture is turned."""
    source, out = tmp_path / "a.mp4", tmp_path / f"b{suffix}"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        frame = av.VideoFrame.from_ndarray(flat(9, 9, 9), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if quarters:
        # The track's header says how it is turned: as a matrix, of 16.16 (ISO 14496-12, 8.3.2).
        straight, turned = (
            struct.pack(">9i", *(one << 16 for one in (*rows, 0, 0)), 1 << 30)
            for rows in ((1, 0, 0, 0, 1, 0), (0, 1, 0, -1, 0, 0))
        )
        whole = source.read_bytes()
        at = whole.index(straight, whole.index(b"tkhd"))
        source.write_bytes(whole[:at] + turned + whole[at + len(turned) :])
    footage = Footage(source)
    with Film(out, footage.rate, footage.time_base) as film:
        for pixels, time_ms in footage.frames():
            assert pixels.shape == shape
            film.add(pixels, time_ms, footage.pixel_aspect)
    with av.open(str(out)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect


@pytest.mark.parametrize("cover", [False, True])
def test_the_cover_of_an_album_is_no_video(tmp_path: Path, cover: bool) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("mp3", rate=44100)
        sound.layout = "mono"
        if cover:
            picture: Any = container.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "rgb24"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(flat(1, 2, 3), format="rgb24")))
        silence = np.zeros((1, 1152), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == cover
    with pytest.raises(BadArgument, match=r"a\.mp3: has no video track"):
        Footage(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("no video at all")
    with pytest.raises(BadArgument, match=r"a\.mp4: cannot be read as a video: Invalid data"):
        Footage(text)
    with pytest.raises(BadArgument, match=r"b\.mp4: there is no such file"):
        Footage(tmp_path / "b.mp4")
    with pytest.raises(BadArgument, match=r"no camera can be read there.*--device names another"):
        Footage(str(tmp_path / "camera"), camera=True)
    with pytest.raises(BadArgument, match="no camera can be read there"):
        Footage(None, camera=True, kind="no_such_format")


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"must end with \.mp4, \.mov, \.mkv"):
        Film(tmp_path / "a.avi", Fraction(25), Fraction(1, 25))
    with (
        pytest.raises(BadArgument, match="cannot be written: No such file"),
        Film(tmp_path / "nowhere" / "a.mp4", Fraction(25), Fraction(1, 25)) as film,
    ):
        film.add(flat(1, 2, 3), 0.0)
    with (
        pytest.raises(RuntimeError),
        Film(tmp_path / "a.mp4", Fraction(25), Fraction(1, 25)) as film,
    ):
        film.add(flat(1, 2, 3), 0.0)
        raise RuntimeError("half of it is there")
    assert list(tmp_path.iterdir()) == []
    with Film(tmp_path / "a.mp4", Fraction(25), Fraction(1, 25)):
        pass
    assert list(tmp_path.iterdir()) == []  # no frame, no file


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pellucid.footage")
    monkeypatch.delattr(pellucid, "footage")
    monkeypatch.setitem(sys.modules, "av", None)
    ran = CliRunner().invoke(app, ["stylize", "video", "a.mp4", "--style", "1"])
    assert ran.exit_code == 1
    assert "videos need PyAV: pip install 'pellucid[video]'" in ran.output
