"""The command line of what an index says: pellucid patches, pellucid similar."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected
from .options import AsJson, BucketSize, ModelName, Photo, Server, Timeout
from .show import print_json, print_part, timings

if TYPE_CHECKING:
    from ..looking import IndexSummary

Sheet = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Contact sheet, a .png or .jpg file."),
]


def patches(
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="That is in the index.")],
    channel: Annotated[int, typer.Argument(metavar="CHANNEL", help="From 0.")],
    output: Sheet = None,
    top_k: Annotated[int | None, typer.Option(help="How many; 9 if unset.")] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """The patches of the server's index that excite a unit most."""
    with connected(server) as client:
        from .. import _looking
        from ..types import format_of

        if output is not None:
            format_of(output)
        request = _looking.patches_request(layer, channel, model, top_k, include_photos=False)
        response = client._call("TopPatches", request, timeout_s)
        result = _looking.patches_result(request, response)
        if output is not None:
            result.save(output)
    if as_json:
        print_json(response)
        return
    table = Table("photo", "activation", "y", "x", "box")
    for patch in result.patches:
        box = patch.box
        table.add_row(
            Text(patch.photo),
            f"{patch.activation:.4g}",
            str(patch.y),
            str(patch.x),
            f"{box.width_px:g} × {box.height_px:g} px at {box.x_px:g}, {box.y_px:g}",
        )
    print_part(table)
    _print_end(result.index, output)


def similar(
    photo: Photo,
    output: Sheet = None,
    top_k: Annotated[int | None, typer.Option(help="How many, 1 to 100; 5 if unset.")] = None,
    explain_count: Annotated[
        int | None,
        typer.Option(help="How many are explained, the best first, 0 to 16; 1 if unset."),
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """The photos of the server's index that are most alike, and what makes them so."""
    with connected(server) as client:
        from .. import _looking
        from ..types import format_of

        if output is not None:
            format_of(output)
        request = _looking.similar_request(photo, model, top_k, explain_count, bucket_size)
        response = client._call("Similar", request, timeout_s)
        result = _looking.similar_result(response)
        if output is not None:
            result.save(output)
    if as_json:
        print_json(response)
        return
    table = Table("photo", "similarity", "explained")
    for match in result.matches:
        explained = "yes" if match.query_rendering is not None else ""
        table.add_row(Text(match.photo), f"{match.similarity:.4f}", explained)
    print_part(table)
    print_part(timings(result.run))
    _print_end(result.index, output)


def _print_end(index: "IndexSummary", output: Path | None) -> None:
    print_part(
        Text(
            f"index {index.version} of {index.photo_count} photos, {index.model} "
            f"{index.model_version}"
        )
    )
    if output is not None:
        print_part(Text(f"written  {output}"))
