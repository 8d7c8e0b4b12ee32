"""Calls that read an index, in both clients, and the core that they share."""

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from ._connection import AsyncConnection, Connection
from ._wire.arrays import array_of, doubles_of
from ._wire.fields import read, set_fields
from ._wire.photos import image_of
from ._wire.responses import run_of
from .looking import IndexSummary, Match, Patch, SimilarResult, TopPatches
from .types import Box
from .v1 import index_pb2

if TYPE_CHECKING:
    from .types import Photo


class Looking(Connection):
    """The part of Client that reads an index."""

    def top_patches(
        self,
        layer: str,
        channel: int,
        *,
        model: str = "",
        top_k: int | None = None,
        include_photos: bool = False,
        timeout_s: float | None = None,
    ) -> TopPatches:
        """The patches of the server's index that excite a unit most.

        Args:
            layer: The name of a layer that is in the index.
            channel: From 0.
            model: Its name; the server's default model when empty.
            top_k: How many, 1 to what the index keeps; 9 by default.
            include_photos: Whether the whole photos come, too, as the network sees them.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            FailedPrecondition: The server has no index of the model.
        """
        request = patches_request(layer, channel, model, top_k, include_photos=include_photos)
        return patches_result(request, self._call("TopPatches", request, timeout_s))

    def similar(
        self,
        photo: "Photo",
        *,
        model: str = "",
        top_k: int | None = None,
        explain_count: int | None = None,
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> SimilarResult:
        """The photos of the server's index that are most alike, and what makes them so.

        Args:
            photo: See Photo.
            model: Its name; the server's default model when empty.
            top_k: How many, 1 to 100; 5 by default.
            explain_count: How many of them are explained, the best first: 0 to 16; 1 by default.
            bucket_size: The batch size to run at, one of the server's: fixes the result's bits.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            FailedPrecondition: The server has no index of the model.
            PhotoNotFound: There is no such file.
        """
        request = similar_request(photo, model, top_k, explain_count, bucket_size)
        return similar_result(self._call("Similar", request, timeout_s))


class AsyncLooking(AsyncConnection):
    """The part of AsyncClient that reads an index."""

    async def top_patches(
        self,
        layer: str,
        channel: int,
        *,
        model: str = "",
        top_k: int | None = None,
        include_photos: bool = False,
        timeout_s: float | None = None,
    ) -> TopPatches:
        """The patches of the server's index that excite a unit: see Client.top_patches."""
        request = patches_request(layer, channel, model, top_k, include_photos=include_photos)
        return patches_result(request, await self._call("TopPatches", request, timeout_s))

    async def similar(
        self,
        photo: "Photo",
        *,
        model: str = "",
        top_k: int | None = None,
        explain_count: int | None = None,
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> SimilarResult:
        """The photos of the server's index that are most alike: see Client.similar."""
        request = await asyncio.to_thread(
            similar_request, photo, model, top_k, explain_count, bucket_size
        )
        return similar_result(await self._call("Similar", request, timeout_s))


def patches_request(
    layer: str, channel: int, model: str, top_k: int | None, *, include_photos: bool
) -> index_pb2.TopPatchesRequest:
    request = index_pb2.TopPatchesRequest()
    set_fields(
        request,
        layer=layer,
        channel=channel,
        model=model,
        top_k=top_k,
        include_photos=include_photos,
    )
    return request


def patches_result(
    request: index_pb2.TopPatchesRequest, response: index_pb2.TopPatchesResponse
) -> TopPatches:
    counts = np.array(response.histogram.counts, np.int64)
    counts.flags.writeable = False
    return TopPatches(
        layer=request.layer,
        channel=request.channel,
        index=read(IndexSummary, response.index),
        patches=tuple(
            read(
                Patch,
                patch,
                box=read(Box, patch.box),
                encoded=patch.image.data if patch.HasField("image") else None,
                input_encoded=patch.input.data if patch.HasField("input") else None,
            )
            for patch in response.patches
        ),
        edges=doubles_of(response.histogram.edges),
        counts=counts,
    )


def similar_request(
    photo: "Photo",
    model: str,
    top_k: int | None,
    explain_count: int | None,
    bucket_size: int | None,
) -> index_pb2.SimilarRequest:
    request = index_pb2.SimilarRequest(image=image_of(photo))
    set_fields(
        request, model=model, top_k=top_k, explain_count=explain_count, bucket_size=bucket_size
    )
    return request


def similar_result(response: index_pb2.SimilarResponse) -> SimilarResult:
    return SimilarResult(
        index=read(IndexSummary, response.index),
        matches=tuple(_match(match) for match in response.matches),
        run=run_of(response.run),
    )


def _match(match: index_pb2.Match) -> Match:
    explained = match.HasField("query_attribution")
    return read(
        Match,
        match,
        encoded=match.image.data,
        query_attribution=array_of(match.query_attribution) if explained else None,
        match_attribution=array_of(match.match_attribution) if explained else None,
        query_rendering=match.query_rendering.data if explained else None,
        match_rendering=match.match_rendering.data if explained else None,
    )
