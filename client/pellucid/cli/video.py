"""The command line of stylized video: pellucid stylize video."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected, progress_bar
from .options import Server, refuse
from .show import print_part
from .stylize import weighted

if TYPE_CHECKING:
    from ..errors import StatusError
    from ..video import StylizedFrame, StylizedVideo

Source = Annotated[
    str | None, typer.Argument(metavar="[VIDEO]", help="A video file; not with --webcam.")
]
Style = Annotated[
    list[str],
    typer.Option(
        "--style",
        metavar="NAME[=WEIGHT]",
        help="The name of a style, see styles, or a painting's file, and how much of it, 1 if "
        "unset; again for more.",
    ),
]
Strength = Annotated[float | None, typer.Option(help="From the video, 0, to the style, 1.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="A .mp4, .mov or .mkv file."),
]
Side = Annotated[
    int | None, typer.Option("--side", help="Longer side in pixels; the video's own if unset.")
]
Smoothing = Annotated[
    float | None,
    typer.Option(help="How much of the frame before is kept where nothing moves: 0 to 0.95."),
]
Colors = Annotated[
    str | None, typer.Option("--original-colors", help="Keep the video's: luminance; off if unset.")
]
Jpeg = Annotated[
    int | None,
    typer.Option(
        "--jpeg",
        metavar="QUALITY",
        help="Take frames as JPEG of this quality, 1 to 100; as they are if unset.",
    ),
]
Webcam = Annotated[
    bool,
    typer.Option("--webcam", help="Stylize what a camera sees; frames that come fast are dropped."),
]
Device = Annotated[
    str | None,
    typer.Option(help="With --webcam: which, as FFmpeg names it; the first if unset."),
]
DeviceFormat = Annotated[
    str | None,
    typer.Option(
        help="With --webcam: FFmpeg's format of it; v4l2, avfoundation or dshow by system if unset."
    ),
]
Window = Annotated[bool, typer.Option("--window", help="Show frames in a window as they come.")]
Seconds = Annotated[
    float | None, typer.Option(help="Of the video that are taken; all of it, or until Ctrl-C.")
]


def video(
    style: Style,
    source: Source = None,
    output: Output = None,
    strength: Strength = None,
    side: Side = None,
    smoothing: Smoothing = None,
    original_colors: Colors = None,
    jpeg: Jpeg = None,
    webcam: Webcam = False,
    device: Device = None,
    device_format: DeviceFormat = None,
    window: Window = False,
    seconds: Seconds = None,
    server: Server = None,
) -> None:
    """A video in the style of paintings, with its frame rate and its sound."""
    footage = _footage()
    with connected(server, waiting=False) as client, ExitStack() as stack:
        from ..errors import BadArgument

        if (source is None) != webcam:
            raise BadArgument("VIDEO: give a video file, or --webcam in its place")
        if not webcam:
            refuse("are for --webcam", {"--device": device, "--device-format": device_format})
            output = output or Path(f"{Path(source or '').stem}-stylized.mp4")
        elif output is None and not window:
            raise BadArgument("--webcam: needs --output, --window or both")
        if output is not None:
            footage.check_name(output)
        seen: Any = footage.Footage(device if webcam else source, camera=webcam, kind=device_format)
        given = {
            "strength": strength,
            "side_px": side,
            "original_colors": original_colors,
            "smoothing": smoothing,
            "quality": jpeg,
        }
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        stream = client.stylize_video(
            seen.frames(seconds),
            [weighted(text) for text in style],
            keep_all=not webcam,
            format="rgb" if jpeg is None else "jpeg",
            **options,
        )
        shown = _window() if window else None
        film: Any = None
        if output is not None:
            film = stack.enter_context(
                footage.Film(output, seen.rate, seen.time_base, source, seconds)
            )

        def take(frame: "StylizedFrame") -> bool:
            if film is not None:
                film.add(frame.pixels, frame.timestamp_ms, seen.pixel_aspect)
            return shown is None or shown.show(frame)

        started_s = time.monotonic()
        total = None if seconds is not None else seen.frame_count
        run = _run(stream, take, total, webcam)
        taken_s = time.monotonic() - started_s
    table = Table.grid(padding=(0, 2))
    rate = f"{run.count / taken_s:.1f} a second"
    table.add_row("frames", f"{run.count} in {taken_s:.1f} s, {rate}")
    if run.dropped_count:
        table.add_row("dropped", str(run.dropped_count))
    if run.failed_count:
        table.add_row("failed", str(run.failed_count))
    if output is not None and run.count:
        table.add_row("written", Text(str(output)))
    print_part(table)


_MOST_FAILED = 10
"""Of a camera's frames, as long as none came back."""


@dataclass
class _Run:
    """What became of frames so far."""

    count: int = 0
    failed_count: int = 0
    dropped_count: int = 0


def _run(
    stream: "StylizedVideo",
    take: "Callable[[StylizedFrame], bool]",
    total: int | None,
    webcam: bool,
) -> _Run:
    """Hands frames on until they are not wanted.

    Of a camera frames that failed are left out, unless none is stylized; and Ctrl-C is a way to
    end.
    """
    run = _Run()
    first: StatusError | None = None
    with closing(stream), progress_bar("{task.fields[rate]}") as progress:
        task = progress.add_task("frames", total=total, rate="")
        started_s = time.monotonic()
        with suppress(*((KeyboardInterrupt,) if webcam else ())):
            for frame in stream:
                run.dropped_count = frame.dropped_count
                if webcam and frame.error is not None:
                    run.failed_count += 1
                    if first is None:
                        first = frame.error
                        progress.console.print(Text(_told(first)), soft_wrap=True)
                    if not run.count and run.failed_count == _MOST_FAILED:
                        break
                    continue
                if not take(frame):
                    return run
                run.count += 1
                rate = run.count / (time.monotonic() - started_s)
                dropped = f", {frame.dropped_count} dropped" if frame.dropped_count else ""
                progress.update(task, completed=run.count, rate=f"{rate:.1f} a second{dropped}")
            else:
                run.dropped_count = stream.result().dropped_count
    if first is not None and not run.count:
        raise first
    return run


def _told(error: "StatusError") -> str:
    """A camera's frame failed; and by which option its size is set, if it may be that."""
    sized = any(one.field in ("frame.image", "fast.side_px") for one in error.violations)
    hint = "; --side sets the size of frames" if sized else ""
    return f"pellucid: a frame failed: {error.message}{hint}"


def _footage() -> ModuleType:
    """What reads and writes videos, where what it needs is installed."""
    try:
        from .. import footage
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    return footage


class _Window:
    """Frames as they come."""

    def __init__(self, tkinter: ModuleType) -> None:
        self._root = tkinter.Tk()
        self._root.title("Pellucid")
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._open = True

    def _close(self) -> None:
        self._open = False
        self._root.destroy()

    def show(self, frame: "StylizedFrame") -> bool:
        """Shows the next one; false: the window was closed."""
        from PIL import ImageTk

        if self._open:
            self._shown = ImageTk.PhotoImage(frame.image, master=self._root)
            self._label.configure(image=self._shown)
            self._root.update()
        return self._open


def _window() -> _Window:
    from ..errors import BadArgument

    try:
        import tkinter
    except ModuleNotFoundError:
        raise BadArgument("--window: this Python has no tkinter") from None
    try:
        return _Window(tkinter)
    except tkinter.TclError as error:
        raise BadArgument(f"--window: cannot be opened: {error}") from None
