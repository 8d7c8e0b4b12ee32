"""The command line of optimizations: pellucid optimize class, neuron, invert and dream.

And what all of its commands share: the bar, and the frames of a video.
"""

import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected, progress_bar
from .options import LongTimeout, ModelName, Photo, Server, class_of
from .show import print_part, timings

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..optimizing import Objectives, Optimization, OptimizeResult

optimize = typer.Typer(
    no_args_is_help=True,
    help="Makes images for what the network is after: a class, a neuron, a code, a dream.",
)

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write the best image, as .png or .jpg."),
]
Video = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write what it looked like on its way here, as .gif or .mp4.",
    ),
]
Every = Annotated[int | None, typer.Option(help="Steps from one frame to the next; 10 if unset.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="olah, simonyan, yosinski_1 to yosinski_4, mahendran or mordvintsev; by what is "
        "optimized for if unset."
    ),
]
Steps = Annotated[int | None, typer.Option(help="Steps of each octave; by preset if unset.")]
Size = Annotated[
    str | None, typer.Option(metavar="WIDTHxHEIGHT", help="In pixels; the network's if unset.")
]
Seed = Annotated[int | None, typer.Option(help="Of noise and transformations; 0 if unset.")]
Restarts = Annotated[int | None, typer.Option(help="Images from as many seeds; 1 if unset.")]
Parameter = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--parameter",
        metavar="NAME=VALUE",
        help="Another parameter, such as tv_penalty=20 or update=adam; again for more.",
    ),
]
Layer = Annotated[str, typer.Option(help="The name of a layer: see models NAME.")]


@optimize.command("class")
def class_(
    target: Annotated[
        list[str],
        typer.Argument(metavar="CLASS...", help="Class, by index or label; several are added."),
    ],
    score: Annotated[
        str | None, typer.Option(help="logit, log_probability or probability; logit if unset.")
    ] = None,
    output: Output = None,
    video: Video = None,
    frame_every: Every = None,
    preset: Preset = None,
    steps: Steps = None,
    size: Size = None,
    seed: Seed = None,
    restarts: Restarts = None,
    parameter: Parameter = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """An image of a class, as the network sees it."""
    classes: Any = [class_of(one) for one in target]
    _optimize(
        classes,
        output or Path("class.png"),
        video,
        frame_every,
        _options(preset, steps, size, seed, restarts),
        parameter,
        server,
        score=score,
        model=model,
        timeout_s=timeout_s,
    )


@optimize.command()
def neuron(
    layer: Layer,
    channel: Annotated[int | None, typer.Option(help="Its channel; all if unset.")] = None,
    y: Annotated[int | None, typer.Option(help="Its row; the whole map if unset.")] = None,
    x: Annotated[int | None, typer.Option(help="Its column; the whole map if unset.")] = None,
    output: Output = None,
    video: Video = None,
    frame_every: Every = None,
    preset: Preset = None,
    steps: Steps = None,
    size: Size = None,
    seed: Seed = None,
    restarts: Restarts = None,
    parameter: Parameter = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """An image that a neuron, a channel or a layer responds to."""
    from ..types import Neuron

    _optimize(
        Neuron(layer, channel, y, x),
        output or Path("neuron.png"),
        video,
        frame_every,
        _options(preset, steps, size, seed, restarts),
        parameter,
        server,
        model=model,
        timeout_s=timeout_s,
    )


@optimize.command()
def invert(
    photo: Photo,
    layer: Layer,
    output: Output = None,
    video: Video = None,
    frame_every: Every = None,
    preset: Preset = None,
    steps: Steps = None,
    size: Size = None,
    seed: Seed = None,
    restarts: Restarts = None,
    parameter: Parameter = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """A photo, made again from what a layer holds of it."""
    from ..optimizing import Code

    _optimize(
        Code(layer),
        output or Path(f"{photo.stem}-invert.png"),
        video,
        frame_every,
        _options(preset, steps, size, seed, restarts),
        parameter,
        server,
        photo=photo,
        model=model,
        timeout_s=timeout_s,
    )


@optimize.command()
def dream(
    photo: Photo,
    layer: Layer,
    guide: Annotated[
        Path | None, typer.Option(metavar="PHOTO", help="Dream of what is in this one.")
    ] = None,
    output: Output = None,
    video: Video = None,
    frame_every: Every = None,
    preset: Preset = None,
    steps: Steps = None,
    size: Size = None,
    seed: Seed = None,
    restarts: Restarts = None,
    parameter: Parameter = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """A photo, with more of what a layer sees in it."""
    from ..optimizing import Energy, Guide

    _optimize(
        Energy(layer) if guide is None else Guide(layer),
        output or Path(f"{photo.stem}-dream.png"),
        video,
        frame_every,
        _options(preset, steps, size, seed, restarts),
        parameter,
        server,
        photo=photo,
        guide=guide,
        model=model,
        timeout_s=timeout_s,
    )


def _options(
    preset: str | None,
    steps: int | None,
    size: str | None,
    seed: int | None,
    restarts: int | None,
) -> dict[str, Any]:
    width, _, height = (size or "").partition("x")
    given = {
        "preset": preset,
        "step_count": steps,
        "seed": seed,
        "restart_count": restarts,
        "width_px": width or None,
        "height_px": height or (width or None),
    }
    return {name: value for name, value in given.items() if value is not None}


def _optimize(
    objectives: "Objectives",
    output: Path,
    video: Path | None,
    frame_every: int | None,
    options: dict[str, Any],
    parameters: list[str] | None,
    server: str | None,
    **rest: Any,
) -> None:
    """Runs it under a bar, and writes what comes of it."""
    with connected(server, waiting=False) as client:
        from .. import _optimize
        from ..errors import BadArgument
        from ..types import format_of

        options |= dict(_optimize.parameter(text) for text in parameters or ())
        for name in ("width_px", "height_px"):
            side = str(options.get(name, "0"))
            if not side.isdecimal():
                raise BadArgument(f"--size: has {side!r}; must be WIDTHxHEIGHT or one number")
            if name in options:
                options[name] = int(side)
        options |= video_options(video, frame_every)
        rest["format"] = format_of(output)
        result, frames = watched(client.optimize(objectives, **options, **rest))
        result.save(output)
        written = [output, *save_video(video, frames, result.images[0].image)]
    _print_result(result, written)


def _film() -> ModuleType:
    """What writes videos, where what it needs is installed."""
    try:
        from .. import film
    except ModuleNotFoundError as error:
        if error.name != "imageio":
            raise
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    return film


def video_options(video: Path | None, frame_every: int | None) -> dict[str, Any]:
    """The parameters that bring frames, where a video is wanted."""
    from ..errors import BadArgument

    if video is None and frame_every is not None:
        raise BadArgument("--frame-every: needs --video")
    if video is None:
        return {}
    _film().check_name(video)
    return {"preview_every": frame_every or 10}


def watched(optimization: "Optimization") -> "tuple[OptimizeResult, list[Image]]":
    """Runs it under a bar: its result, and the frames of its first image."""
    from ..optimizing import Preview, Progress

    frames: list[Any] = []
    with closing(optimization), progress_bar("{task.fields[score]}") as progress:
        task = progress.add_task("steps", total=None, score="")
        steps: dict[int, int] = {}
        for event in optimization:
            if isinstance(event, Progress):
                steps[event.restart] = event.step
                progress.update(
                    task,
                    completed=min(steps.values()),
                    total=event.step_count,
                    score=f"score {event.score:.4g}",
                )
            elif isinstance(event, Preview) and event.restart == 0:
                frames.append(event.image)
        return optimization.result(), frames


def save_video(video: Path | None, frames: "list[Image]", last: "Image") -> list[Path]:
    """Writes the frames, the last image behind them; returns what was written."""
    if video is None:
        return []
    _film().write_film(video, [*frames, last])
    return [video]


def _print_result(result: "OptimizeResult", written: list[Path]) -> None:
    best, table = result.best, Table.grid(padding=(0, 2))
    table.add_row("preset", str(result.parameters["preset"]))
    table.add_row("steps", f"{best.progress.step} of {best.progress.step_count}")
    table.add_row("score", f"{best.score:.6g}")
    if len(best.progress.terms) > 1:
        table.add_row("terms", ", ".join(f"{term:.4g}" for term in best.progress.terms))
    if result.spread is not None:
        spread = result.spread
        table.add_row(
            "spread",
            f"{spread.least:.4g} to {spread.largest:.4g}, mean {spread.mean:.4g}, standard "
            f"deviation {spread.standard_deviation:.3g}, of {len(result.images)}",
        )
    if best.stop_reason:
        table.add_row("stopped", Text(best.stop_reason))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    print_part(timings(result.run))
