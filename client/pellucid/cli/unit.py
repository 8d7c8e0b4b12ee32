"""The command line of what a unit is after: pellucid unit."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from .connect import connected
from .options import LongTimeout, ModelName, Server
from .show import print_part


def unit(
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="Its name: see models NAME.")],
    channel: Annotated[int, typer.Argument(metavar="CHANNEL", help="From 0.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Write the sheet here.")
    ] = Path("dossier.png"),
    patch_count: Annotated[
        int, typer.Option(help="Patches at most, of those that the server's index keeps.")
    ] = 9,
    step_count: Annotated[
        int | None, typer.Option(help="Steps of the optimization; its preset's if unset.")
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """What a unit is after, on one sheet: patches, what excites it in them, an image made for it.

    Patches, and the histogram of activations, are of the index that the server has mounted;
    without one the sheet says so.
    """
    with connected(server) as client:
        from .. import dossier
        from ..types import format_of

        format_of(output)
        made = dossier.unit(
            client,
            layer,
            channel,
            patch_count=patch_count,
            step_count=step_count,
            model=model,
            timeout_s=timeout_s,
        )
        made.save(output)
    for why in made.missing:
        print_part(Text(f"missing  {why}"))
    print_part(Text(f"written  {output}"))
