"""The command line of maps: pellucid map."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .connect import connected, counted, progress_bar
from .options import LongTimeout, ModelName, Server
from .show import print_part, timings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..client import Client
    from ..maps import CodeMap, Projection, SavedMap

_METHODS = {"tsne": "t_sne", "umap": "umap", "pca": "pca"}

Source = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER|CODES",
        exists=True,
        help="A folder of photos, and the folders in it; or codes of your own: .npy or .npz.",
    ),
]
Color = Annotated[
    str | None,
    typer.Option(
        metavar="class|score|folder|FILE",
        help="Colour by the class that the model sees, by its probability, by the folder that a "
        "photo is in, or by a number or word for each point: .npy, or a text file of a line each.",
    ),
]


@dataclass(frozen=True)
class _Given:
    """What is mapped.

    Attributes:
        items: Photos, or codes.
        names: Of each photo, by its path in the folder; None of codes.
    """

    items: Any
    names: tuple[str, ...] | None


def map_photos(
    source: Source,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The map: .png or .jpg.")
    ] = Path("map.png"),
    method: Annotated[
        str | None, typer.Option(help="tsne, umap or pca; tsne if unset, or as --onto's.")
    ] = None,
    perplexity: Annotated[
        float | None, typer.Option(help="Of t-SNE: neighbours that count; 30 if unset.")
    ] = None,
    neighbors: Annotated[int | None, typer.Option(help="Of UMAP; 15 if unset.")] = None,
    layer: Annotated[
        str,
        typer.Option(help="Whose activation is a photo's code; before the classifier if unset."),
    ] = "",
    pooling: Annotated[
        str | None, typer.Option(help="Of a layer with places: mean, max or flatten.")
    ] = None,
    components: Annotated[
        int | None, typer.Option(help="Principal components first, 0 for none; 50 if unset.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="euclidean, cosine or manhattan; euclidean if unset.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same gives the same map; 0 if unset.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            metavar="NAME=VALUE",
            help="Another parameter of the method, such as step_count=1000; again for more.",
        ),
    ] = None,
    color: Color = None,
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the photos themselves, on a grid: .png or .jpg."),
    ] = None,
    tile: Annotated[int, typer.Option(min=8, max=512, help="Side of a photo there, pixels.")] = 64,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE.json", help="Write where each point is.")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Write codes and points, for --onto."),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE.npz",
            help="Place them on this map, of --points.",
        ),
    ] = None,
    server: Server = None,
    model: ModelName = "",
    timeout_s: LongTimeout = 600.0,
) -> None:
    """A map of photos, or of codes: what is alike to the network lies close by."""
    with connected(server, waiting=False) as client:
        from .. import maps
        from ..errors import BadArgument
        from ..types import format_of

        for path in (output, grid):
            if path is not None:
                format_of(path)
        if points is not None:
            maps.check_npz(points)
        if method is not None and method not in _METHODS:
            raise BadArgument(f"--method: is {method!r}; must be {', '.join(_METHODS)}")
        given = _read(source)
        if given.names is None and (grid is not None or color in ("class", "score", "folder")):
            raise BadArgument("--grid and --color class, score or folder: are for photos")
        saved = None if onto is None else _read_saved(client, onto, given, model)
        values, label = _values(client, source, given, color, model, timeout_s)
        options: dict[str, Any] = {
            "method": None if method is None else _METHODS[method],
            "layer": layer or None,
            "pooling": pooling,
            "component_count": components,
            "metric": metric,
            "seed": seed,
            "model": model,
            "perplexity": perplexity,
            "neighbor_count": neighbors,
        }
        options = {name: value for name, value in options.items() if value is not None}
        if saved is not None:
            options |= _of_map(saved, options, of_photos=given.names is not None)
        kind = options.pop("method", "t_sne")
        options |= dict(_parameter(kind, text) for text in parameter or ())
        making = client.project(
            given.items,
            kind,
            onto=saved,
            grid=grid is not None,
            timeout_s=timeout_s,
            **options,
        )
        made = _watched(making, given.names)
        written = _write(made, given, saved, output, as_json, points, values, label, source)
        if grid is not None:
            _write_grid(made, source, given, grid, tile)
            written.append(grid)
    _print_result(made, written)


def _read(source: Path) -> _Given:
    if source.is_dir():
        from ..folders import photos_in

        found = photos_in(source, nested=True)
        return _Given(found, tuple(path.relative_to(source).as_posix() for path in found))
    from ..maps import load_codes

    return _Given(load_codes(source), None)


def _read_saved(client: "Client", path: Path, given: _Given, model: str) -> "SavedMap":
    """A map that was saved; one of another model's codes is refused."""
    from ..errors import BadArgument
    from ..maps import load_map

    saved = load_map(path)
    if given.names is not None:
        if not saved.model_version:
            raise BadArgument(f"{path}: its codes are of no model of the server; photos have none")
        there = client.get_model(model)
        if there.version != saved.model_version:
            raise BadArgument(
                f"{path}: is of {saved.parameters.get('model')} {saved.model_version}; the "
                f"server's {there.name} is {there.version}"
            )
    return saved


def _of_map(saved: "SavedMap", options: dict[str, Any], *, of_photos: bool) -> dict[str, Any]:
    """What new points share with a map, as it was made; an option that differs is refused.

    Points are placed on a map of UMAP's as on one of t-SNE's.
    """
    from ..errors import BadArgument

    names = ["method", "metric", "component_count", *(["layer", "pooling"] if of_photos else [])]
    made = {name: saved.parameters[name] for name in names if saved.parameters.get(name, "") != ""}
    if made.get("method") == "umap":
        made["method"] = "t_sne"
    for name, value in made.items():
        if options.get(name, value) != value:
            option = {"component_count": "components"}.get(name, name)
            raise BadArgument(f"--{option}: is {options[name]!r}; the map of --onto has {value!r}")
    return made


def _parameter(method: str, text: str) -> tuple[str, Any]:
    from .. import _project
    from ..errors import BadArgument

    name, equals, value = text.partition("=")
    known = _project.parameters(method)
    if not equals or name not in known:
        names = ", ".join(known) or "none"
        raise BadArgument(f"--parameter: is {text!r}; must be NAME=VALUE, where names are {names}")
    return name, known[name](value)


_SEEN_AT_ONCE = 64


def _values(
    client: "Client",
    source: Path,
    given: _Given,
    color: str | None,
    model: str,
    timeout_s: float,
) -> "tuple[NDArray[Any] | None, str]":
    """What each point is coloured by, and what that is called."""
    import numpy as np

    from ..errors import PellucidError
    from ..maps import load_numbers

    if color is None:
        return None, ""
    if color == "folder":
        assert given.names is not None
        return np.array([Path(name).parent.name or source.name for name in given.names]), "folder"
    if color not in ("class", "score"):
        return load_numbers(Path(color), len(given.items)), Path(color).stem
    tops = []
    with counted("classes") as tell:
        for start in range(0, len(given.items), _SEEN_AT_ONCE):
            some = given.items[start : start + _SEEN_AT_ONCE]
            for result in client.predict_batch(some, model=model, top_k=1, timeout_s=timeout_s):
                if isinstance(result, PellucidError):
                    raise result
                tops.append(result.top)
            tell(len(tops), len(given.items))
    if color == "score":
        return np.array([top.probability for top in tops]), "probability of the best class"
    return np.array([top.label or str(top.class_index) for top in tops]), "best class"


def _watched(making: "Projection", names: Sequence[str] | None) -> "CodeMap":
    """Runs it under a bar. A photo that is refused is named by its file."""
    from ..errors import InvalidArgument

    with making, progress_bar("{task.fields[divergence]}") as progress:
        task = progress.add_task("photos", total=None, divergence="")
        try:
            for event in making:
                divergence = f"divergence {event.divergence:.4g}" if event.divergence else ""
                total = event.step_count or (len(names or ()) or None)
                progress.update(
                    task,
                    description=event.stage,
                    completed=event.step,
                    total=total if event.stage in ("embed", "optimize") else None,
                    divergence=divergence,
                )
        except InvalidArgument as error:
            for number in sorted(set(re.findall(r"photos\[(\d+)\]", error.message)), key=int):
                if names is not None:
                    print(f"photos[{number}] is {names[int(number)]}", file=sys.stderr)
            raise
        return making.result()


def _write(
    made: "CodeMap",
    given: _Given,
    saved: "SavedMap | None",
    output: Path,
    as_json: Path | None,
    points: Path | None,
    values: "NDArray[Any] | None",
    label: str,
    source: Path,
) -> list[Path]:
    """All but the grid."""
    from ..errors import BadArgument
    from ..mapping import scatter
    from ..types import format_of

    what = "codes" if given.names is None else "photos"
    title = f"{len(made.points)} {what} of {source.resolve().name}"
    old = None if saved is None else saved.points
    picture = scatter(made.points, values=values, title=title, value_label=label, old=old)
    picture.save(output, format_of(output), quality=92)
    written = [output]
    if as_json is not None:
        as_json.write_text(json.dumps(_record(made, given, values), indent=1, ensure_ascii=False))
        written.append(as_json)
    if points is not None:
        codes = given.items if given.names is None else made.codes
        if codes is None:
            raise BadArgument(f"--points: {'; '.join(made.notes)}")
        _saved(made, given, codes).save(points)
        written.append(points)
    return written


def _saved(made: "CodeMap", given: _Given, codes: "NDArray[Any]") -> "SavedMap":
    from ..maps import SavedMap

    names = given.names or ("",) * len(made.points)
    version = "" if made.run is None else made.run.model_version
    return SavedMap(codes, made.points, names, made.parameters, version)


def _record(made: "CodeMap", given: _Given, values: "NDArray[Any] | None") -> dict[str, Any]:
    """A map as JSON has it."""
    points: list[dict[str, Any]] = []
    for number, (x, y) in enumerate(made.points.tolist()):
        one: dict[str, Any] = {} if given.names is None else {"photo": given.names[number]}
        one |= {"x": x, "y": y}
        if made.places is not None:
            one["row"], one["column"] = made.places[number].tolist()
        if values is not None:
            one["value"] = values[number].item()
        points.append(one)
    run = made.run
    return {
        "parameters": dict(made.parameters),
        "model_version": None if run is None else run.model_version,
        "kept_variance": made.kept_variance,
        "divergence": made.divergence,
        "grid_shape": list(made.grid_shape),
        "notes": list(made.notes),
        "points": points,
    }


def _write_grid(made: "CodeMap", source: Path, given: _Given, path: Path, tile_px: int) -> None:
    from ..mapping import picture_grid, tile
    from ..render import upright
    from ..types import format_of

    assert made.places is not None
    tiles = []
    with counted("grid") as tell:
        for photo in given.items:  # small ones are kept, not photos
            tiles.append(tile(upright(photo.read_bytes()), tile_px))
            tell(len(tiles), len(given.items))
    picture = picture_grid(tiles, made.places, made.grid_shape, tile_px=tile_px)
    picture.save(path, format_of(path), quality=90)


def _print_result(made: "CodeMap", written: list[Path]) -> None:
    about, table = made.parameters, Table.grid(padding=(0, 2))
    table.add_row("points", str(len(made.points)))
    if about["method"] == "t_sne":
        table.add_row("perplexity", f"{about['perplexity']:g}")
        if made.divergence:
            table.add_row("divergence", f"{made.divergence:.4g}")
    if about.get("component_count") or about["method"] == "pca":
        count = about.get("component_count", 2)
        table.add_row("components", f"{count}, with {made.kept_variance:.1%} of the variance")
    for note in made.notes:
        table.add_row("note", Text(note))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    if made.run is not None:
        print_part(timings(made.run))
