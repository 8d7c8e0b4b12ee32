"""The command line of fast style's networks: pellucid styles."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected
from .options import LongTimeout, Server, Shown
from .show import print_part

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..client import Client
    from ..stylizing import StyleNetwork

_COLUMNS = 6
_CELL_PX = 240
_AT_ONCE = 4
_NONE = "the server has no styles: `pellucid models pull styles` fetches some"

styles = typer.Typer(cls=Shown, help="Shows the server's styles (the command show), or trains one.")


@styles.command()
def show(
    photo: Annotated[
        Path | None,
        typer.Argument(metavar="[PHOTO]", help="A photo to draw in every style: needs --output."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Contact sheet, a .png or .jpg file."),
    ] = None,
    server: Server = None,
    timeout_s: LongTimeout = 600.0,
) -> None:
    """The styles that can be named, and their networks; or all of them on a photo."""
    with connected(server) as client:
        from ..errors import BadArgument

        if (photo is None) != (output is None):
            raise BadArgument("--output: goes with a photo, which all styles are drawn on")
        networks = client.list_styles()
        if photo is not None and output is not None:
            from ..types import format_of

            kind = format_of(output)
            _sheet(client, photo, networks, timeout_s).save(output, kind)
    _print(networks)
    if output is not None:
        print_part(Text(f"written  {output}"))


def _sheet(
    client: "Client", photo: Path, networks: "Sequence[StyleNetwork]", timeout_s: float
) -> "Image":
    """The photo in every style that has a name, below each its name."""
    from .. import render
    from ..errors import BadArgument

    names = [name for network in networks for name in network.styles]
    if not names:
        raise BadArgument(_NONE)

    def one(name: str) -> Any:
        options: dict[str, Any] = {"method": "fast", "side_px": _CELL_PX, "timeout_s": timeout_s}
        return client.stylize(photo, name, **options).result().image

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        pictures = [render.upright(photo.read_bytes()), *threads.map(one, names)]
    captions = ["the photo", *names]
    starts = range(0, len(pictures), _COLUMNS)
    return render.contact_sheet(
        [pictures[start : start + _COLUMNS] for start in starts],
        captions=[captions[start : start + _COLUMNS] for start in starts],
        cell_px=_CELL_PX,
    )


def _print(networks: "Sequence[StyleNetwork]") -> None:
    if not networks:
        print_part(Text(_NONE))
        return
    table = Table("network", "styles", "licence", box=None)
    for network in networks:
        known = ", ".join(network.styles)
        if network.takes_pictures:
            known = "any picture"
        if not network.ready:
            known = f"cannot be used: {network.reason}"
        table.add_row(Text(network.name), Text(known), Text(network.licence))
    print_part(table)
