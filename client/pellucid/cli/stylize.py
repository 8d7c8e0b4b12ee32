"""The command line of stylized images: pellucid stylize."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected, progress_bar
from .optimize import Every, Video, save_video, video_options
from .options import LongTimeout, ModelName, Photo, Pictured, Server
from .show import print_part, timings

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..stylizing import Stylization, Stylized

Style = Annotated[
    list[str],
    typer.Option(
        "--style",
        metavar="FILE[=WEIGHT]",
        help="A painting, and how much of it, 1 if unset; again for more. With --fast also the "
        "name of a style, see styles; a file of such a name is then ./NAME.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="A .png or .jpg file.")
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the style is: white there, black elsewhere."),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=WEIGHT]",
        help="What is looked at, and how much it counts, 1 if unset; by architecture if unset; "
        "again for more.",
    ),
]
Start = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What it starts from; the photo if unset.")
]
Fast = Annotated[
    bool, typer.Option("--fast", help="In one pass of a network that was trained for it.")
]
Strength = Annotated[
    float | None, typer.Option(help="With --fast: from the photo, 0, to the style, 1.")
]
Side = Annotated[
    int | None, typer.Option("--side", help="Longer side in pixels; 256, or 512 with --fast.")
]
Steps = Annotated[int | None, typer.Option(help="Steps of each scale; 200 if unset.")]
Scales = Annotated[
    int | None, typer.Option(help="Sizes that it is made at, coarse to fine; 1 if unset.")
]
Colors = Annotated[
    str | None,
    typer.Option(
        "--original-colors", help="Keep the photo's: luminance or histogram; off if unset."
    ),
]
Parameter = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--parameter",
        metavar="NAME=VALUE",
        help="Another parameter, such as style_weight=1e5 or update=lbfgs; again for more.",
    ),
]


stylize = typer.Typer(
    cls=Pictured,
    help="Stylizes a photo (the command photo), or a video, in the style of paintings.",
)


@stylize.command("photo")
def stylize_photo(
    photo: Photo,
    style: Style,
    fast: Fast = False,
    output: Output = None,
    mask: Mask = None,
    video: Video = None,
    frame_every: Every = None,
    strength: Strength = None,
    side: Side = None,
    steps: Steps = None,
    scales: Scales = None,
    original_colors: Colors = None,
    content_layer: Layers = None,
    style_layer: Layers = None,
    start: Start = None,
    parameter: Parameter = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """The photo in the style of paintings."""
    output = output or Path(f"{photo.stem}-stylized.png")
    with connected(server, waiting=False) as client:
        from .. import _stylize
        from ..errors import BadArgument
        from ..types import format_of

        method = "fast" if fast else "neural"
        neural_alone = {
            "--steps": steps,
            "--scales": scales,
            "--video": video,
            "--frame-every": frame_every,
            "--content-layer": content_layer,
            "--style-layer": style_layer,
            "--start": start,
            "--model": model or None,
        }
        for option, value in (neural_alone if fast else {"--strength": strength}).items():
            if value is not None:
                raise BadArgument(f"{option}: {'is not for' if fast else 'needs'} --fast")
        given = {
            "strength": strength,
            "side_px": side,
            "step_count": steps,
            "scale_count": scales,
            "original_colors": original_colors,
        }
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        options |= dict(_stylize.parameter(text, method) for text in parameter or ())
        options |= video_options(video, frame_every)
        result, frames = _watched(
            client.stylize(
                photo,
                [weighted(text) for text in style],
                method=method,
                mask=mask,
                start_image=start,
                content_layers=_layers(content_layer),
                style_layers=_layers(style_layer),
                model=model,
                format=format_of(output),
                timeout_s=timeout_s,
                **options,
            )
        )
        result.save(output)
        written = [output, *save_video(video, frames, result.image)]
    _print_result(result, written)


def weighted(text: str) -> Any:
    """A painting, a style's name or a layer, as the command line has it: NAME or NAME=WEIGHT."""
    name, equals, weight = text.rpartition("=")
    try:
        return (name, float(weight)) if equals else text
    except ValueError:  # the name of a file that has the sign
        return text


def _layers(texts: list[str] | None) -> dict[str, float] | None:
    """Layers as the command line has them, with their weights."""
    if texts is None:
        return None
    each = (weighted(text) for text in texts)
    return dict(one if isinstance(one, tuple) else (one, 1.0) for one in each)


def _watched(stylization: "Stylization") -> "tuple[Stylized, list[Image]]":
    """Runs it under a bar: its result, and its frames."""
    from ..optimizing import Preview
    from ..stylizing import StyleProgress

    frames: list[Any] = []
    with closing(stylization), progress_bar("{task.fields[loss]}") as progress:
        task = progress.add_task("steps", total=None, loss="")
        for event in stylization:
            if isinstance(event, StyleProgress):
                progress.update(
                    task,
                    completed=event.step,
                    total=event.step_count,
                    loss=f"loss {event.loss:.4g}",
                )
            elif isinstance(event, Preview):
                frames.append(event.image)
        return stylization.result(), frames


def _print_result(result: "Stylized", written: list[Path]) -> None:
    progress, table = result.progress, Table.grid(padding=(0, 2))
    if progress is None:
        table.add_row("network", Text(result.run.model))
    else:
        table.add_row("steps", f"{progress.step} of {progress.step_count}")
        table.add_row("loss", f"{progress.loss:.6g}")
        losses = {"content": (result.content_layers, progress.content_losses)}
        losses["style"] = (result.style_layers, progress.style_losses)
        for name, (layers, values) in losses.items():
            each = (f"{layer} {v:.4g}" for layer, v in zip(layers, values, strict=True))
            table.add_row(name, Text(", ".join(each)))
    if result.parameters["original_colors"] == "luminance":
        table.add_row("clipped", f"{result.clipped_share:.2%} of the values")
    for reason in (result.stop_reason, *result.notes):
        if reason:
            table.add_row("note", Text(reason))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    print_part(timings(result.run))
