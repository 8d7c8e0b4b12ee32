"""`pellucid optimize landscape`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from . import report
from .measure import Landscape, Settings, measure

_WIDTHS = (4, 8, 16, 32, 64, 128)
_WIDTH_BY_LAYER = 32

_RANGES = {
    "widths": (1, 512),
    "seeds": (3, 64),
    "epochs": (1, 1000),
    "layers": (1, 8),
    "seed": (0, 2**62),
}


class _Refused(Exception):
    """An option that is out of range."""


def landscape(
    by: Annotated[
        str, typer.Option(metavar="width|layer", help="What the spread is measured against.")
    ] = "width",
    widths: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Hidden units, 1 to 512; 4,8,16,32,64,128 if unset. One number by layer; 32.",
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Hidden layers by layer, 1 to 8; 4 if unset.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Networks of each shape, and starts of images, 3 to 64.")
    ] = 24,
    epochs: Annotated[int, typer.Option(help="Passes through the training set, 1 to 1000.")] = 100,
    seed: Annotated[int, typer.Option(help="Of everything: the same one, the same numbers.")] = 0,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.png", help="Write the plots here.")
    ] = Path("landscape.png"),
    numbers: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers here.")
    ] = None,
) -> None:
    """Whether larger networks end up alike: trains small ones on digits, and plots the spread.

    Choromanska and others 2014 (arXiv:1412.0233) say that the test losses of larger networks are
    nearer to each other. Here it is measured, and of images optimized for a unit, too.
    """
    try:
        settings = _settings(by, widths, layers, seeds, epochs, seed)
        for option, path in (("--output", output), ("--json", numbers)):
            if path is not None and not path.absolute().parent.is_dir():
                raise _Refused(f"{option}: there is no folder {path.parent}")
        if output.suffix.lower() != ".png":
            raise _Refused(f"--output: {output} must end with .png")
    except _Refused as refusal:
        print(f"pellucid: {refusal}", file=sys.stderr)
        raise typer.Exit(2) from None
    found = _measured(settings)
    try:
        report.chart(found).save(output, optimize=True)
        if numbers is not None:
            numbers.write_text(json.dumps(report.as_json(found), indent=1) + "\n")
    except OSError as error:
        print(f"pellucid: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    _print(found, [path for path in (output, numbers) if path is not None])


def _settings(
    by: str, widths: str | None, layers: int | None, seeds: int, epochs: int, seed: int
) -> Settings:
    """Them, if they are all in range.

    Raises:
        _Refused: One is not.
    """
    if by not in ("width", "layer"):
        raise _Refused(f"--by: is {by!r}; must be width or layer")
    chosen: tuple[int, ...] = _WIDTHS if by == "width" else (_WIDTH_BY_LAYER,)
    if widths is not None:
        if not all(part.strip().isdecimal() for part in widths.split(",")):
            raise _Refused(f"--widths: has {widths!r}; must be numbers such as 4,8,16")
        chosen = tuple(int(part) for part in widths.split(","))
    if by == "layer" and len(chosen) > 1:
        raise _Refused(f"--widths: has {len(chosen)} numbers; --by layer is of one width")
    if list(chosen) != sorted(set(chosen)):
        raise _Refused(f"--widths: has {widths!r}; must rise, each number once")
    if by == "width" and layers is not None:
        raise _Refused("--layers: is for --by layer")
    layer_count = 4 if layers is None else layers
    given = [("seeds", seeds), ("epochs", epochs), ("seed", seed), ("layers", layer_count)]
    for name, value in [*(("widths", width) for width in chosen), *given]:
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise _Refused(f"--{name}: is {value}; must be {least} to {most}")
    return Settings("width" if by == "width" else "layer", chosen, layer_count, seeds, epochs, seed)


def _measured(settings: Settings) -> Landscape:
    """Under a bar, on a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        "{task.description}",
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)
        return measure(
            settings,
            lambda what, done, count: progress.update(
                task, description=what, completed=done, total=count
            ),
        )


def _print(found: Landscape, written: list[Path]) -> None:
    heads, *lines = report.table(found)
    table = Table(*heads)
    for line in lines:
        table.add_row(*line)
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
    for sentence in report.sentences(found):
        print(sentence)
    for path in written:
        print(f"written  {path}")
