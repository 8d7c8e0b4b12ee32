"""Looking inside a network: what is asked, and what was seen."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pellucid import render, tiles
from pellucid.v1 import data_pb2, inspect_pb2
from torch import Tensor

from ..engine.job import Done, Source, Spec
from ..engine.rows import Target, TopTarget
from ..inputs import Photos
from ..methods.inspect.layer import (
    Activations,
    Filters,
    Gradients,
    LayerView,
    LookAtLayer,
    has_places,
)
from ..methods.inspect.walk import Column, Seen, Walk, Walked, mapped, walked
from ..models.fields import Field
from ..models.layers import Layer
from ..models.network import Network
from ..models.registry import Model, Registry
from .fields import (
    Fields,
    Violations,
    find_layer,
    most_picture_bytes,
    why_not,
    write_picture,
    write_tensor,
)
from .images import read_image
from .limits import Call, Limits
from .requests import TOP_K, find_model, read_bucket_size
from .responses import write_predictions, write_run, write_target
from .targets import read_target

TILE_COUNT, MOST_TILES = 256, 4096
LEAST_TILE_PX, MOST_TILE_PX = 4, 512

InspectMethod = LookAtLayer | Walk | Column


@dataclass(frozen=True)
class Sheet:
    """How tiles are drawn; see the contract's Sheet.

    Attributes:
        tile_px: The longer side of a tile.
        shared: Whether all tiles have one scale.
        pixel_count: Of the picture.
    """

    tile_px: int
    shared: bool
    format: render.Format
    pixel_count: int


@dataclass(frozen=True)
class AskedInspect:
    """A validated request; sheet: of layers only."""

    spec: Spec
    sheet: Sheet | None = None

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered."""
        pixels = 0 if self.sheet is None else self.sheet.pixel_count
        return self.spec.byte_count + 3 * pixels


def read_inspect(
    request: inspect_pb2.InspectRequest, call: Call, registry: Registry, limits: Limits
) -> AskedInspect:
    """An InspectRequest.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    model = find_model(found, request.model, registry)
    bucket_size = read_bucket_size(found, request, limits)
    name = request.WhichOneof("method") or ""
    source = _read_source(found, request, name, model, limits)
    target: Target | None = TopTarget()
    method: InspectMethod | None = None
    sheet: Sheet | None = None
    if not name:
        found.invalid("method", f"required; one of {', '.join(_METHODS)}")
    elif model is not None and model.network.white_box_refusal is not None:
        found.refused(name, model.network.white_box_refusal)
    else:
        asked, inside = getattr(request, name), found.inside(name)
        if name == "gradients":
            target = read_target(inside, asked.target, model, None)
        method = _METHODS[name](inside, asked, model, target)
        if name in _OF_LAYERS:
            looked = method if isinstance(method, LookAtLayer) else None
            sheet = _read_sheet(inside, asked.sheet, looked, model, limits)
    found.raise_any()
    assert model is not None
    assert method is not None
    assert source is not None
    assert target is not None
    spec = Spec(model, method, source, target, call.deadline_s, call.caller, bucket_size)
    return AskedInspect(spec, sheet)


def _read_source(
    found: Violations,
    request: inspect_pb2.InspectRequest,
    name: str,
    model: Model | None,
    limits: Limits,
) -> Source | None:
    if name != Filters.name:
        return read_image(found, request.image, model, limits, None)
    if request.HasField("image"):
        found.invalid("image", "must be unset: filters are the network's own")
    size = (1, 1) if model is None else (model.network.height_px, model.network.width_px)
    return Photos((), size)


# What is looked at. None where something is wrong with it.


def _read_filters(
    found: Violations, asked: inspect_pb2.InspectFilters, model: Model | None, _: Target | None
) -> Filters | None:
    layer = _read_layer(found, asked.layer, model)
    weights = None
    if model is not None and layer is not None:
        weights = model.network.filters_of(layer.name)
        if weights is None:
            others = [y.name for y in model.network.layers if _has_filters(model.network, y)]
            found.refused(
                "layer",
                f"{layer.name} is a {layer.kind}, which has no filters; convolutions and dense "
                f"layers have, for example {', '.join(others[:3])}",
            )
    input_channel = asked.input_channel if asked.HasField("input_channel") else None
    if weights is not None and input_channel is not None and not has_places(weights):
        found.invalid("input_channel", f"is for filters with places; {asked.layer} has none")
    most = None if weights is None else weights.shape[1] - 1
    Fields(found, "", asked).number("input_channel", 0, 0, most)
    if weights is None:
        return None
    return Filters(asked.layer, *_read_tiles(found, asked.sheet), input_channel)


def _has_filters(network: Network, layer: Layer) -> bool:
    return network.filters_of(layer.name) is not None


def _read_activations(
    found: Violations, asked: inspect_pb2.InspectActivations, model: Model | None, _: Target | None
) -> Activations | None:
    layer = _read_told_layer(found, asked.layer, model)
    return None if layer is None else Activations(layer.name, *_read_tiles(found, asked.sheet))


def _read_gradients(
    found: Violations,
    asked: inspect_pb2.InspectGradients,
    model: Model | None,
    target: Target | None,
) -> Gradients | None:
    layer = _read_told_layer(found, asked.layer, model)
    if model is None or layer is None or target is None:
        return None
    if not model.network.precedes(layer.name, target.tap):
        found.invalid("layer", f"is {layer.name}, which lies behind the target {target.tap}")
    return Gradients(layer.name, *_read_tiles(found, asked.sheet))


def _read_walk(
    found: Violations, asked: inspect_pb2.InspectWalk, model: Model | None, _: Target | None
) -> Walk:
    most = None if model is None else model.network.class_count
    top_k = Fields(found, "", asked).number("top_k", TOP_K, 1, most)
    return Walk(min(top_k, most or top_k))


def _read_column(
    found: Violations, asked: inspect_pb2.InspectColumn, model: Model | None, _: Target | None
) -> Column:
    network = None if model is None else model.network
    if network is not None and not mapped(network):
        found.refused("column", "the network has no layer with maps or patches")
    for name in ("x_px", "y_px"):
        length = None if network is None else _length_of(network, name)
        last = None if length is None else length - 1
        if not asked.HasField(name):
            allowed = "" if last is None else f"; 0 to {last}"
            found.invalid(name, f"required: a pixel of the network's input{allowed}")
        Fields(found, "", asked).number(name, 0, 0, last)
    return Column(asked.y_px, asked.x_px)


def _length_of(network: Network, name: str) -> int:
    return network.width_px if name == "x_px" else network.height_px


_METHODS: Mapping[str, Callable[[Violations, Any, Model | None, Target | None], Any]] = {
    "filters": _read_filters,
    "activations": _read_activations,
    "gradients": _read_gradients,
    "walk": _read_walk,
    "column": _read_column,
}
_OF_LAYERS = ("filters", "activations", "gradients")


def _read_layer(found: Violations, name: str, model: Model | None) -> Layer | None:
    if not name:
        found.invalid("layer", "required; the name of a layer, as GetModel lists it")
    return find_layer(found, "layer", name, model) if name and model is not None else None


def _read_told_layer(found: Violations, name: str, model: Model | None) -> Layer | None:
    """A layer of which the channels can be told."""
    layer = _read_layer(found, name, model)
    if layer is not None and not layer.targetable:
        found.refused("layer", f"{layer.name} cannot be looked at: {why_not(layer)}")
        return None
    return layer


def _read_tiles(found: Violations, asked: inspect_pb2.Sheet) -> tuple[int, bool]:
    """How many tiles at most, and whether all numbers are wanted."""
    return asked.tile_count if asked.HasField("tile_count") else TILE_COUNT, asked.include_tensor


def _read_sheet(
    found: Violations,
    asked: inspect_pb2.Sheet,
    method: LookAtLayer | None,
    model: Model | None,
    limits: Limits,
) -> Sheet | None:
    fields, before = Fields(found, "sheet", asked), len(found)
    fields.number("tile_count", TILE_COUNT, 1, MOST_TILES)
    fields.number("tile_px", 0, LEAST_TILE_PX, MOST_TILE_PX)
    scale, file_format = fields.choice("scale", ""), fields.choice("format", "png")
    if method is None or model is None or len(found) > before:
        return None
    network = model.network
    *colors, height, width = method.tile_shape(network)
    count = method.shown_count(network)
    tile_px = asked.tile_px or tiles.usual_tile_px(count, height, width)
    pixels = tiles.pixel_count(count, height, width, tile_px)
    if pixels > tiles.MOST_SHEET_PX:
        fields.invalid(
            "tile_px",
            f"is {tile_px}: a sheet of {count} such tiles has {pixels} pixels, where "
            f"{tiles.MOST_SHEET_PX} are the most",
        )
    byte_count = most_picture_bytes(pixels) // (1 if colors else _CHANNELS)
    if asked.include_tensor:
        byte_count += 4 * method.number_count(network)
    if byte_count > limits.max_response_bytes:
        fields.invalid(
            "include_tensor" if asked.include_tensor else "tile_px",
            f"the response may take {byte_count} bytes; at most {limits.max_response_bytes} are "
            f"sent{_smaller(asked, method, network)}",
        )
    usual = method.shared or height * width == 1
    shared = scale == "shared" if scale else usual
    return Sheet(tile_px, shared, cast(render.Format, file_format), pixels)


_CHANNELS = 3
"""A grey picture takes a third of what most_picture_bytes says."""


def _smaller(asked: inspect_pb2.Sheet, method: LookAtLayer, network: Network) -> str:
    if not asked.include_tensor:
        return ": ask for fewer tiles or smaller ones"
    return f": {method.layer} has {method.number_count(network)} numbers, of 4 bytes each"


# What was seen.


def write_inspect(asked: AskedInspect, done: Done) -> inspect_pb2.InspectResponse:
    """What was seen, drawn."""
    started_s = time.monotonic()
    response = inspect_pb2.InspectResponse()
    match done.result:
        case LayerView() as view:
            assert asked.sheet is not None
            response.layer.CopyFrom(_write_layer(asked.spec, view, asked.sheet))
        case Walked() as seen:
            response.walk.CopyFrom(_write_walk(asked.spec, seen))
        case Seen() as column:
            response.column.CopyFrom(_write_column(asked.spec.model.network, column))
    response.run.CopyFrom(write_run(asked.spec, done, (time.monotonic() - started_s) * 1e3))
    return response


def _write_layer(spec: Spec, view: LayerView, sheet: Sheet) -> inspect_pb2.LayerSheet:
    method = spec.method
    assert isinstance(method, LookAtLayer)
    numbers = view.tiles.double().numpy()
    drawn = tiles.draw(numbers, tile_px=sheet.tile_px, signed=method.signed, shared=sheet.shared)
    return inspect_pb2.LayerSheet(
        layer=method.layer,
        sheet=inspect_pb2.TileSheet(
            image=write_picture(drawn.picture, sheet.format),
            channels=view.channels.tolist(),
            strengths=view.strengths.tolist(),
            lows=drawn.lows.tolist(),
            highs=drawn.highs.tolist(),
            column_count=drawn.column_count,
            tile_shape=method.tile_shape(spec.model.network)[-2:],
        ),
        statistics=_write_statistics(view.statistics),
        tensor=None if view.tensor is None else write_tensor(view.tensor),
        target=None if view.target is None else write_target(spec, view.target, view.score),
    )


def _write_statistics(numbers: Tensor) -> inspect_pb2.Statistics:
    low, high, mean, deviation, zero_share = numbers.tolist()
    return inspect_pb2.Statistics(
        min=low, max=high, mean=mean, standard_deviation=deviation, zero_share=zero_share
    )


def _write_walk(spec: Spec, seen: Walked) -> inspect_pb2.LayerWalk:
    method, network = spec.method, spec.model.network
    assert isinstance(method, Walk)
    layers, fields = walked(network), network.fields
    numbers = zip(seen.statistics, seen.dead.tolist(), seen.saturated.tolist(), strict=True)
    return inspect_pb2.LayerWalk(
        rows=[
            inspect_pb2.LayerRow(
                layer=layer.name,
                type=layer.kind,
                shape=layer.shape,
                statistics=_write_statistics(statistics),
                dead_count=dead,
                saturated_count=saturated,
                channel_count=layer.channel_count,
                receptive_field=_write_field(fields[layer.name]),
            )
            for layer, (statistics, dead, saturated) in zip(layers, numbers, strict=True)
        ],
        predictions=write_predictions(spec.model, seen.logits, method.top_k),
    )


def _write_field(field: Field) -> inspect_pb2.ReceptiveField:
    return inspect_pb2.ReceptiveField(
        height_px=field.y.size_px,
        width_px=field.x.size_px,
        stride_y_px=field.y.stride_px,
        stride_x_px=field.x.stride_px,
        whole=field.whole,
    )


def _write_column(network: Network, seen: Seen) -> inspect_pb2.LayerColumn:
    places = []
    for place in seen.places:
        top, left, bottom, right = network.fields[place.layer].box(place.y, place.x)
        places.append(
            inspect_pb2.LayerPlace(
                layer=place.layer,
                y=place.y,
                x=place.x,
                box=data_pb2.Box(
                    x_px=left, y_px=top, width_px=right - left, height_px=bottom - top
                ),
                activation=write_tensor(place.activation),
            )
        )
    return inspect_pb2.LayerColumn(places=places)
