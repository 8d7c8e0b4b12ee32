"""The command line of what is inside a network: pellucid inspect, and pellucid embed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected
from .options import (
    Against,
    AsJson,
    BucketSize,
    ModelName,
    Photo,
    Server,
    TargetClass,
    Timeout,
    class_of,
    target_of,
)
from .show import print_json, print_part, timings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..types import Embedding, LayerColumn, LayerRow, LayerSheet, LayerWalk

inspect = typer.Typer(
    no_args_is_help=True,
    help="What is inside a network: filters, activations, gradients, every layer in numbers.",
)

Layer = Annotated[str, typer.Argument(metavar="LAYER", help="Its name: see models NAME.")]

TileCount = Annotated[
    int | None, typer.Option(help="Tiles at most, the strongest first, 1 to 4096; 256 if unset.")
]
TilePx = Annotated[
    int | None,
    typer.Option(help="Longer side of a tile, 4 to 512; as it is, and at least 32, if unset."),
]
Scale = Annotated[
    str | None, typer.Option(help="each tile's own, or shared; by what is shown if unset.")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write the sheet here, as .png or .jpg."),
]
Raw = Annotated[
    Path | None, typer.Option(metavar="FILE.npy", help="Write the numbers here, as float32.")
]


@inspect.command()
def filters(
    layer: Layer,
    input_channel: Annotated[
        int | None, typer.Option(help="Draw this one of a filter's input channels, from 0.")
    ] = None,
    tile_count: TileCount = None,
    tile_px: TilePx = None,
    scale: Scale = None,
    output: Output = None,
    raw: Raw = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """A layer's weights, as a sheet of its filters."""
    _show_sheet(
        "filters",
        None,
        layer,
        {"tile_count": tile_count, "tile_px": tile_px, "scale": scale},
        output,
        raw,
        server,
        timeout_s,
        as_json=as_json,
        model=model,
        input_channel=input_channel,
    )


@inspect.command()
def activations(
    photo: Photo,
    layer: Layer,
    tile_count: TileCount = None,
    tile_px: TilePx = None,
    scale: Scale = None,
    output: Output = None,
    raw: Raw = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """What a layer makes of a photo, as a sheet of its channels."""
    _show_sheet(
        "activations",
        photo,
        layer,
        {"tile_count": tile_count, "tile_px": tile_px, "scale": scale},
        output,
        raw,
        server,
        timeout_s,
        as_json=as_json,
        model=model,
        bucket_size=bucket_size,
    )


@inspect.command()
def gradients(
    photo: Photo,
    layer: Layer,
    target: TargetClass = None,
    against: Against = None,
    score: Annotated[
        str | None, typer.Option(help="logit, log_probability or probability; logit if unset.")
    ] = None,
    neuron_layer: Annotated[str | None, typer.Option(help="Target a neuron of this layer.")] = None,
    channel: Annotated[int | None, typer.Option(help="Its channel, from 0; all if unset.")] = None,
    y: Annotated[int | None, typer.Option(help="Its row; the whole map if unset.")] = None,
    x: Annotated[int | None, typer.Option(help="Its column; the whole map if unset.")] = None,
    tile_count: TileCount = None,
    tile_px: TilePx = None,
    scale: Scale = None,
    output: Output = None,
    raw: Raw = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """How a score changes with a layer's activation, as a sheet of its channels."""
    _show_sheet(
        "gradients",
        photo,
        layer,
        {"tile_count": tile_count, "tile_px": tile_px, "scale": scale},
        output,
        raw,
        server,
        timeout_s,
        as_json=as_json,
        model=model,
        bucket_size=bucket_size,
        neuron=(target, neuron_layer, channel, y, x),
        against=None if against is None else class_of(against),
        score=score,
    )


@inspect.command()
def walk(
    photo: Photo,
    top_k: Annotated[int | None, typer.Option(help="How many classes; 5 if unset.")] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """What every layer makes of a photo, in numbers, with the best classes beside it."""
    with connected(server) as client:
        from .. import _inspect

        request = _inspect.inspect_request(
            "walk", photo, model=model, bucket_size=bucket_size, top_k=top_k
        )
        response = client._call("Inspect", request, timeout_s)
        result = _inspect.layer_walk(response)
    if as_json:
        print_json(response)
    else:
        _print_walk(result)


@inspect.command()
def column(
    photo: Photo,
    x_px: Annotated[int, typer.Argument(help="Column of a pixel of the network's input.")],
    y_px: Annotated[int, typer.Argument(help="Its row.")],
    raw: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Write the activations here, by layer."),
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """What all layers with maps hold where they look at a pixel."""
    with connected(server) as client:
        import numpy as np

        from .. import _inspect

        request = _inspect.inspect_request(
            "column", photo, model=model, bucket_size=bucket_size, x_px=x_px, y_px=y_px
        )
        response = client._call("Inspect", request, timeout_s)
        result = _inspect.layer_column(response)
        if raw is not None:
            arrays: dict[str, Any] = {one.layer: one.activation for one in result.places}
            with raw.open("wb") as file:
                np.savez(file, **arrays)
    if as_json:
        print_json(response)
    else:
        _print_column(result, raw)


def embed(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="JPEG, PNG or WebP files, 64 at most."),
    ],
    layer: Annotated[str, typer.Option(help="Its name; what the classifier gets if unset.")] = "",
    pooling: Annotated[
        str | None, typer.Option(help="mean, max or flatten; mean if unset.")
    ] = None,
    data_type: Annotated[str | None, typer.Option(help="float32 or float16.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.npy", help="Write the codes here.")
    ] = Path("codes.npy"),
    server: Server = None,
    model: ModelName = "",
    timeout_s: Timeout = None,
    bucket_size: BucketSize = None,
    as_json: AsJson = False,
) -> None:
    """The codes of photos: what a layer makes of each, a row of numbers."""
    with connected(server) as client:
        from .. import _inspect

        request = _inspect.embed_request(
            photos,
            layer=layer,
            pooling=pooling,
            data_type=data_type,
            model=model,
            bucket_size=bucket_size,
        )
        response = client._call("Embed", request, timeout_s)
        result = _inspect.embedding(response)
        if len(result.codes):
            result.save(output)
    if as_json:
        print_json(response)
    else:
        _print_embedding(result, photos, output)
    failed = any(not isinstance(outcome, int) for outcome in result.outcomes)
    raise typer.Exit(1 if failed else 0)


def _show_sheet(
    method: str,
    photo: Path | None,
    layer: str,
    sheet: dict[str, Any],
    output: Path | None,
    raw: Path | None,
    server: str | None,
    timeout_s: float | None,
    *,
    as_json: bool,
    neuron: tuple[Any, ...] = (None, None, None, None, None),
    **options: Any,
) -> None:
    """Asks for a sheet, writes it and tells of it."""
    if (output, raw) == (None, None) and not as_json:
        stem = "" if photo is None else f"{photo.stem}-"
        output = Path(f"{stem}{layer.replace('/', '-')}-{method}.png")
    with connected(server) as client:
        from .. import _inspect
        from ..types import format_of

        sheet["format"] = None if output is None else format_of(output)
        sheet["include_tensor"] = raw is not None
        request = _inspect.inspect_request(
            method, photo, layer=layer, sheet=sheet, target=target_of(*neuron), **options
        )
        response = client._call("Inspect", request, timeout_s)
        result = _inspect.layer_sheet(response)
        if output is not None:
            result.save(output)
        if raw is not None:
            assert result.tensor is not None
            _save_array(raw, result.tensor)
    if as_json:
        print_json(response)
    else:
        _print_sheet(result, [path for path in (output, raw) if path is not None])


def _save_array(path: Path, array: "NDArray[Any]") -> None:
    import numpy as np

    with path.open("wb") as file:  # np.save itself would add .npy to any other name
        np.save(file, array)


def _print_sheet(result: "LayerSheet", written: list[Path]) -> None:
    table, numbers = Table.grid(padding=(0, 2)), result.statistics
    height, width = result.tile_shape
    table.add_row("layer", Text(result.layer))
    table.add_row("tiles", f"{len(result.channels)} of {height} × {width}, the strongest first")
    strongest = ", ".join(map(str, result.channels[:8]))
    table.add_row("strongest", f"{strongest}{', ...' if len(result.channels) > 8 else ''}")
    table.add_row("numbers", f"{numbers.min:.4g} to {numbers.max:.4g}")
    spread = f"mean {numbers.mean:.4g}, deviation {numbers.standard_deviation:.4g}"
    table.add_row("", f"{spread}, {numbers.zero_share:.1%} are 0")
    if result.target is not None:
        from ..compare import resolved_words

        table.add_row("target", Text(f"{resolved_words(result.target)}: {result.target.score:.4f}"))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    print_part(timings(result.run))


_WALK_COLUMNS = (
    *("layer", "type", "shape", "min", "max", "mean", "std", "zero"),
    *("dead", "saturated", "sees", "stride"),
)


def _print_walk(result: "LayerWalk") -> None:
    layers = Table(*_WALK_COLUMNS)
    for heading in layers.columns[3:]:
        heading.justify = "right"
    for row in result.rows:
        layers.add_row(*map(Text, _walk_line(row)))
    classes = Table("label", "probability")
    for p in result.predictions:
        classes.add_row(Text(p.label), f"{p.probability:.2%}")
    beside = Table.grid(padding=(0, 2))
    beside.add_row(layers, classes)
    print_part(beside)
    print_part(timings(result.run))


def _walk_line(row: "LayerRow") -> tuple[str, ...]:
    numbers, seen = row.statistics, row.receptive_field
    sees = stride = ""
    if seen is not None:
        sees = "all" if seen.whole else _by(seen.height_px, seen.width_px)
        stride = "" if seen.whole else _by(seen.stride_y_px, seen.stride_x_px)
    of = f" of {row.channel_count}"
    return (
        row.layer,
        row.type,
        " × ".join(map(str, row.shape)),
        *(f"{one:.3g}" for one in (numbers.min, numbers.max, numbers.mean)),
        f"{numbers.standard_deviation:.3g}",
        f"{numbers.zero_share:.0%}",
        f"{row.dead_count}{of}" if row.dead_count else "",
        f"{row.saturated_count}{of}" if row.saturated_count else "",
        sees,
        stride,
    )


def _by(height_px: int, width_px: int) -> str:
    return str(height_px) if height_px == width_px else f"{height_px} × {width_px}"


def _print_column(result: "LayerColumn", written: Path | None) -> None:
    table = Table("layer", "y", "x", "sees", "strongest channels")
    for place in result.places:
        box, best = place.box, (-place.activation).argsort(kind="stable")[:3]
        sees = f"{box.width_px:g} × {box.height_px:g} at {box.x_px:g}, {box.y_px:g}"
        strongest = ", ".join(f"{channel}: {place.activation[channel]:.3g}" for channel in best)
        table.add_row(Text(place.layer), str(place.y), str(place.x), sees, strongest)
    print_part(table)
    if written is not None:
        print_part(Text(f"written  {written}"))
    print_part(timings(result.run))


def _print_embedding(result: "Embedding", photos: list[Path], output: Path) -> None:
    for photo, outcome in zip(photos, result.outcomes, strict=True):
        if not isinstance(outcome, int):
            print_part(Text(f"{photo}: {outcome}"))
    if result.run is not None:
        rows, length = result.codes.shape
        kind = result.codes.dtype.name
        print_part(Text(f"written  {output}: {rows} codes of {length} {kind}, {result.layer}"))
        print_part(timings(result.run))
