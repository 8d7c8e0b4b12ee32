"""Looking inside a network: from arguments to requests, from responses to results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import types
from ._wire.arrays import array_of, doubles_of
from ._wire.fields import read, set_fields, short_name
from ._wire.photos import image_of, images_of
from ._wire.requests import set_target
from ._wire.responses import failure_in, resolved_target, run_of
from .v1 import codes_pb2, inspect_pb2


def inspect_request(
    method: str,
    photo: "types.Photo | None" = None,
    *,
    model: str = "",
    bucket_size: int | None = None,
    target: "types.Target | None" = None,
    against: int | str | None = None,
    score: str | None = None,
    sheet: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> inspect_pb2.InspectRequest:
    """A request of one of the contract's methods, with its parameters."""
    request = inspect_pb2.InspectRequest()
    message = getattr(request, method)
    message.SetInParent()
    set_fields(message, **parameters)
    if sheet is not None:
        set_fields(message.sheet, **sheet)
    if (target, against, score) != (None, None, None):
        set_target(message.target, target, against, score)
    set_fields(request, model=model, bucket_size=bucket_size)
    if photo is not None:
        request.image.CopyFrom(image_of(photo))
    return request


def sheet(
    tile_count: int | None,
    tile_px: int | None,
    scale: str | None,
    format: str | None,
    include_tensor: bool,
) -> dict[str, Any]:
    """What is wanted of tiles."""
    return {
        "tile_count": tile_count,
        "tile_px": tile_px,
        "scale": scale,
        "format": format,
        "include_tensor": include_tensor,
    }


def embed_request(
    photos: Sequence[types.Photo],
    *,
    layer: str,
    pooling: str | None,
    data_type: str | None,
    model: str,
    bucket_size: int | None,
) -> codes_pb2.EmbedRequest:
    request = codes_pb2.EmbedRequest(images=images_of(photos))
    set_fields(
        request,
        layer=layer,
        pooling=pooling,
        data_type=data_type,
        model=model,
        bucket_size=bucket_size,
    )
    return request


def layer_sheet(response: inspect_pb2.InspectResponse) -> types.LayerSheet:
    found, sheet = response.layer, response.layer.sheet
    height, width = sheet.tile_shape
    return types.LayerSheet(
        layer=found.layer,
        picture=sheet.image.data,
        format=short_name(sheet.image, "format"),
        channels=tuple(sheet.channels),
        strengths=doubles_of(sheet.strengths),
        lows=doubles_of(sheet.lows),
        highs=doubles_of(sheet.highs),
        column_count=sheet.column_count,
        tile_shape=(height, width),
        statistics=read(types.Statistics, found.statistics),
        tensor=array_of(found.tensor) if found.HasField("tensor") else None,
        target=resolved_target(found.target) if found.HasField("target") else None,
        run=run_of(response.run),
    )


def layer_walk(response: inspect_pb2.InspectResponse) -> types.LayerWalk:
    return types.LayerWalk(
        rows=tuple(_row(row) for row in response.walk.rows),
        predictions=tuple(read(types.Prediction, p) for p in response.walk.predictions),
        run=run_of(response.run),
    )


def _row(row: inspect_pb2.LayerRow) -> types.LayerRow:
    has_field = row.HasField("receptive_field")
    return read(
        types.LayerRow,
        row,
        shape=tuple(row.shape),
        statistics=read(types.Statistics, row.statistics),
        receptive_field=read(types.ReceptiveField, row.receptive_field) if has_field else None,
    )


def layer_column(response: inspect_pb2.InspectResponse) -> types.LayerColumn:
    places = (
        read(
            types.LayerPlace,
            place,
            box=read(types.Box, place.box),
            activation=array_of(place.activation),
        )
        for place in response.column.places
    )
    return types.LayerColumn(tuple(places), run_of(response.run))


def embedding(response: codes_pb2.EmbedResponse) -> types.Embedding:
    codes = np.zeros((0, 0), np.float32)
    return types.Embedding(
        layer=response.layer,
        codes=array_of(response.codes) if response.HasField("codes") else codes,
        outcomes=tuple(
            failure_in(result.failure) if result.HasField("failure") else result.row
            for result in response.results
        ),
        run=run_of(response.run) if response.HasField("run") else None,
    )
