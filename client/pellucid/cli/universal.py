"""The command line of universal perturbations: pellucid optimize universal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected
from .optimize import Every, Video, save_video, video_options, watched
from .options import LongTimeout, ModelName, Server
from .show import print_part, timings

if TYPE_CHECKING:
    from ..optimizing import OptimizeResult


def universal(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="The photos: up to 1024."
        ),
    ],
    epsilon: Annotated[
        float | None,
        typer.Option(help="The most of the change, of 255; 10, or 2000 by l2, if unset."),
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2; linf if unset.")] = None,
    passes: Annotated[
        int | None, typer.Option(help="Times that all photos are gone through; 10 if unset.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="It ends where so large a share changes class; 0.8 if unset."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the photos' order; 0 if unset.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="Another parameter, such as step_count=20; again for more.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Write its picture.")
    ] = Path("universal.png"),
    video: Video = None,
    frame_every: Every = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """One small change that alters what the network takes most photos of a folder for."""
    with connected(server, waiting=False) as client:
        from .. import _attack, _universal
        from ..folders import photos_in
        from ..types import format_of

        format_of(output)
        photos = photos_in(folder)
        given = {
            "epsilon": epsilon,
            "norm": norm,
            "pass_count": passes,
            "fooling_rate": rate,
            "seed": seed,
        }
        options: dict[str, Any] = {name: one for name, one in given.items() if one is not None}
        options |= dict(_attack.parameter(_universal.METHOD, text) for text in parameter or ())
        options |= video_options(video, frame_every)
        making = client.universal(photos, model=model, timeout_s=timeout_s, **options)
        result, frames = watched(making)
        assert result.universal is not None
        result.universal.save(output)
        written = [output, *save_video(video, frames, result.universal.picture)]
    _print_result(result, written)


def _print_result(result: "OptimizeResult", written: list[Path]) -> None:
    made, table = result.universal, Table.grid(padding=(0, 2))
    assert made is not None
    count = sum(photo.fooled for photo in made.photos)
    table.add_row("fooling rate", f"{made.fooling_rate:.1%}, {count} of {len(made.photos)} photos")
    table.add_row("passes", f"{made.pass_count} of {result.parameters['pass_count']}")
    table.add_row("change", f"{made.linf:g} of 255 at most, L2 {made.l2:.4g}")
    for note in result.notes:
        table.add_row("note", Text(note))
    if made.stop_reason:
        table.add_row("stopped", Text(made.stop_reason))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    print_part(timings(result.run))
