"""Calls that look inside a network, for asyncio: the twin of _inspecting.py."""

import asyncio
from collections.abc import Sequence

from . import _inspect, types
from ._connection import AsyncConnection


class AsyncInspecting(AsyncConnection):
    """The part of AsyncClient that looks inside networks."""

    async def filters(
        self,
        layer: str,
        *,
        input_channel: int | None = None,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """A layer's weights, as they are served: see Client.filters."""
        request = _inspect.inspect_request(
            "filters",
            model=model,
            layer=layer,
            input_channel=input_channel,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(await self._call("Inspect", request, timeout_s))

    async def activations(
        self,
        photo: types.Photo,
        layer: str,
        *,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """What a layer makes of a photo: see Client.activations."""
        request = await asyncio.to_thread(
            _inspect.inspect_request,
            "activations",
            photo,
            model=model,
            bucket_size=bucket_size,
            layer=layer,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(await self._call("Inspect", request, timeout_s))

    async def gradients(
        self,
        photo: types.Photo,
        layer: str,
        *,
        target: "types.Target | None" = None,
        against: int | str | None = None,
        score: str | None = None,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """How a score changes with a layer's activation: see Client.gradients."""
        request = await asyncio.to_thread(
            _inspect.inspect_request,
            "gradients",
            photo,
            model=model,
            bucket_size=bucket_size,
            target=target,
            against=against,
            score=score,
            layer=layer,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(await self._call("Inspect", request, timeout_s))

    async def walk(
        self,
        photo: types.Photo,
        *,
        top_k: int | None = None,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerWalk:
        """What every layer makes of a photo, in numbers: see Client.walk."""
        request = await asyncio.to_thread(
            _inspect.inspect_request,
            "walk",
            photo,
            model=model,
            bucket_size=bucket_size,
            top_k=top_k,
        )
        return _inspect.layer_walk(await self._call("Inspect", request, timeout_s))

    async def column(
        self,
        photo: types.Photo,
        x_px: int,
        y_px: int,
        *,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerColumn:
        """What all layers with maps hold where they look at a pixel: see Client.column."""
        request = await asyncio.to_thread(
            _inspect.inspect_request,
            "column",
            photo,
            model=model,
            bucket_size=bucket_size,
            x_px=x_px,
            y_px=y_px,
        )
        return _inspect.layer_column(await self._call("Inspect", request, timeout_s))

    async def embed(
        self,
        photos: Sequence[types.Photo],
        *,
        layer: str = "",
        pooling: str | None = None,
        data_type: str | None = None,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.Embedding:
        """The codes of photos: see Client.embed."""
        request = await asyncio.to_thread(
            _inspect.embed_request,
            photos,
            layer=layer,
            pooling=pooling,
            data_type=data_type,
            model=model,
            bucket_size=bucket_size,
        )
        return _inspect.embedding(await self._call("Embed", request, timeout_s))
