"""Video files and cameras: their frames in, frames and sound out.

Needs PyAV: pip install 'pellucid[video]'.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import BadArgument

try:
    import av
    from av.stream import Disposition
    from av.video.reformatter import ColorRange, Colorspace
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "videos need PyAV: pip install 'pellucid[video]'", name="av"
    ) from None

SUFFIXES = (".mp4", ".mov", ".mkv")
"""Of files that are written."""

_USUAL_RATE = Fraction(30)
"""Frames a second where a camera does not say."""
_MICROSECOND = Fraction(1, 1_000_000)
_SQUARE = Fraction(1)

_BT709 = 1
"""Of matrix, primaries and transfer alike, as H.264 numbers them."""

_CAMERAS = {"linux": ("v4l2", "/dev/video0"), "darwin": ("avfoundation", "0")}
_OTHER_CAMERA = ("dshow", "video=Integrated Camera")
"""FFmpeg's input format and the first device, by sys.platform."""

_ENCODER: Mapping[str, str] = {"crf": "18", "preset": "veryfast"}
"""Of libx264: hardly to be told from the frames."""


class Footage:
    """The frames of a video file, or of a camera. Belongs to the thread that takes its frames.

    Args:
        name: Of the file, or of the device; None: the first camera.
        kind: FFmpeg's format of the device; None: as is usual on this system, for a camera.
        camera: Whether it is one.

    Attributes:
        rate: Frames a second, about.
        time_base: What times are multiples of, in seconds.
        pixel_aspect: A pixel's width by its height, where the picture is upright: so from the
            first frame on, which says whether it is turned.

    Raises:
        BadArgument: There is no such file or camera, it cannot be read, or it has no video.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] | None,
        *,
        camera: bool = False,
        kind: str | None = None,
    ) -> None:
        usual_kind, first = _CAMERAS.get(sys.platform, _OTHER_CAMERA)
        self._name = first if name is None else os.fspath(name)
        self._camera = camera
        if camera:
            kind = kind or usual_kind
        try:
            self._container = av.open(self._name, format=kind)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadArgument(self._why(error)) from None
        video = [s for s in self._container.streams.video if not _is_picture(s)]
        if not video:
            self._container.close()
            raise BadArgument(f"{self._name}: has no video track")
        self._stream = video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = Fraction(rate) if rate else _USUAL_RATE
        self.time_base = Fraction(self._stream.time_base or _MICROSECOND)
        self._stored_aspect = self._stream.sample_aspect_ratio or _SQUARE
        self.pixel_aspect = self._stored_aspect

    @property
    def frame_count(self) -> int | None:
        """How many frames there are, about; None: nothing says."""
        if self._stream.frames:
            return self._stream.frames
        if self._container.duration is None or self._camera:
            return None
        return round(self._container.duration * _MICROSECOND * self.rate)

    def frames(self, seconds: float | None = None) -> Iterator[tuple[NDArray[np.uint8], float]]:
        """Its frames, upright, height × width × 3, each with its time in milliseconds.

        Times count from the file's start, of a camera from the first frame. Closes it.

        Args:
            seconds: How many of them, from the start on; all when None.

        Raises:
            BadArgument: It is damaged, or has no frame.
        """
        number = 0
        start_s = None if self._camera else _start_s(self._container)
        try:
            for number, frame in zip(count(1), self._container.decode(self._stream)):
                time_s: Fraction = (number - 1) / self.rate
                if frame.pts is not None:
                    stamp_s = frame.pts * Fraction(frame.time_base or self.time_base)
                    # Of cameras it is the system's clock, which may run for months.
                    start_s = stamp_s if start_s is None else start_s
                    time_s = stamp_s - start_s
                if seconds is not None and float(time_s) >= seconds:
                    break
                # Phones turn the picture when it is shown, counterclockwise.
                quarters = round(frame.rotation / 90)
                stored = self._stored_aspect
                self.pixel_aspect = 1 / stored if quarters % 2 else stored
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), quarters)
                yield np.ascontiguousarray(pixels), float(time_s * 1000)
        except (av.FFmpegError, OSError) as error:
            what = f"is damaged after frame {number}: {error.strerror}"
            raise BadArgument(f"{self._name}: {what}") from None
        finally:
            self._container.close()
        if not number:
            raise BadArgument(f"{self._name}: has no frame that can be decoded")

    def _why(self, error: Exception) -> str:
        words = getattr(error, "strerror", None) or str(error)
        if self._camera:
            return f"{self._name}: no camera can be read there: {words}; --device names another"
        if isinstance(error, FileNotFoundError):
            return f"{self._name}: there is no such file"
        return f"{self._name}: cannot be read as a video: {words}"


def _is_picture(stream: Any) -> bool:
    """Whether it is the cover of an album, say."""
    return bool(stream.disposition & Disposition.attached_pic)


def _start_s(container: Any) -> Fraction | None:
    """On its own clock, the earliest of all its tracks; None: nothing says."""
    start = container.start_time
    return None if start is None else start * _MICROSECOND


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises BadArgument where a film cannot be written to a file of this name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise BadArgument(f"{os.fspath(path)}: must end with {', '.join(SUFFIXES)}")


class Film:
    """Frames as a file, H.264, with the sound of another file, whose packets are copied.

    Its sides are even: an odd last row or column is left out. The file is there when all of it
    is: as long as it is written it has another name.

    Args:
        path: A .mp4, .mov or .mkv file.
        rate: Frames a second, about: each has its own time.
        time_base: What times are multiples of, in seconds.
        sound: Whose sound tracks it has; their times, too, count from that file's start.
        sound_s: Seconds of them; all when None.

    Raises:
        BadArgument: The name ends otherwise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: Fraction,
        time_base: Fraction,
        sound: str | os.PathLike[str] | None = None,
        sound_s: float | None = None,
    ) -> None:
        check_name(path)
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.stem}.part{self._path.suffix}")
        self._rate, self._time_base, self._sound = rate, time_base, sound
        self._sound_s = sound_s
        self._container: Any = None
        self._stream: Any = None
        self._heard: Any = None
        self._packets: Iterator[tuple[Fraction, Any]] = iter(())
        self._next: tuple[Fraction, Any] | None = None

    def add(
        self, pixels: NDArray[np.uint8], time_ms: float, pixel_aspect: Fraction = _SQUARE
    ) -> None:
        """The next frame, height × width × 3.

        Args:
            pixels: Red, green and blue.
            time_ms: When it is shown.
            pixel_aspect: A pixel's width by its height; the first frame's is the film's.

        Raises:
            BadArgument: The file cannot be written.
        """
        height_px, width_px = (side // 2 * 2 for side in pixels.shape[:2])
        pixels = np.ascontiguousarray(pixels[:height_px, :width_px])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        time_s = Fraction(time_ms) / 1000
        frame.pts, frame.time_base = round(time_s / self._time_base), self._time_base
        with self._explained():
            if self._container is None:
                self._open(height_px, width_px, pixel_aspect)
            self._copy_sound(time_s)
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what is left.

        Raises:
            BadArgument: The file cannot be written.
        """
        if self._container is None:
            return
        with self._explained():
            self._copy_sound(None)
            self._container.mux(self._stream.encode(None))
            self._shut()
            self._part.replace(self._path)

    def drop(self) -> None:
        """Leaves no file, unless it is closed already."""
        with suppress(av.FFmpegError, OSError, ValueError):  # of what is thrown away
            self._shut()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.drop()

    def _open(self, height_px: int, width_px: int, pixel_aspect: Fraction) -> None:
        self._container = av.open(str(self._part), "w")
        self._stream = self._container.add_stream("h264", rate=self._rate, options=dict(_ENCODER))
        self._stream.width, self._stream.height = width_px, height_px
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.sample_aspect_ratio = pixel_aspect
        # Said, or players would guess by the size.
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        if self._sound is not None:
            self._heard = av.open(os.fspath(self._sound))
            tracks = self._heard.streams.audio
            copies = {
                track.index: self._container.add_stream_from_template(track) for track in tracks
            }
            if copies:
                self._packets = self._sounds(copies)
        self._next = next(self._packets, None)

    def _sounds(self, copies: Mapping[int, Any]) -> Iterator[tuple[Fraction, Any]]:
        """The packets of the sound, each with its time in seconds."""
        start_s = _start_s(self._heard) or Fraction()
        for packet in self._heard.demux(*self._heard.streams.audio):
            if packet.dts is None:  # the mark of an end
                continue
            start = round(start_s / packet.time_base)
            packet.dts -= start
            if packet.pts is not None:
                packet.pts -= start
            time_s = packet.dts * Fraction(packet.time_base)
            if self._sound_s is not None and float(time_s) >= self._sound_s:
                break
            packet.stream = copies[packet.stream.index]
            yield time_s, packet

    def _copy_sound(self, until_s: Fraction | None) -> None:
        """All that comes before a time; all that is left when None."""
        while self._next is not None and (until_s is None or self._next[0] <= until_s):
            self._container.mux(self._next[1])
            self._next = next(self._packets, None)

    def _shut(self) -> None:
        for container in (self._container, self._heard):
            if container is not None:
                container.close()
        self._container = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise BadArgument(f"{self._path}: cannot be written: {words}") from None
