"""What an index is asked, and what it answers."""

import time
from dataclasses import dataclass

from pellucid import render
from pellucid.v1 import data_pb2, index_pb2
from PIL import Image
from torch import Tensor

from .. import photos
from ..engine.job import Done, Spec
from ..engine.rows import TopTarget
from ..errors import FailedPrecondition, quoted
from ..index.folder import Index, Patch
from ..index.mounted import Indices
from ..inputs import Loaded
from ..methods.inspect.similar import Similar, SimilarResult
from ..models.registry import Model, Registry
from .fields import Fields, Violations, like, write_picture, write_tensor
from .images import read_image
from .limits import Call, Limits, check_sendable
from .requests import LONGEST_SIDE_PX, PERCENTILE, Asked, find_model, read_bucket_size
from .responses import write_run

PATCH_COUNT = 9
MATCH_COUNT, MOST_MATCHES = 5, 100
EXPLAIN_COUNT, MOST_EXPLAINED = 1, 16


@dataclass(frozen=True)
class AskedPatches:
    """A validated TopPatchesRequest."""

    index: Index
    layer: str
    channel: int
    top_k: int
    include_photos: bool


def read_top_patches(
    request: index_pb2.TopPatchesRequest, registry: Registry, limits: Limits, indices: Indices
) -> AskedPatches:
    """A TopPatchesRequest.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    index = _find_index(found, find_model(found, request.model, registry), indices)
    fields = Fields(found, "", request)
    channel_count = None
    if index is not None:
        known = index.channel_counts
        if request.layer in known:
            channel_count = known[request.layer]
        else:
            names = ", ".join(known)
            close = like(request.layer, list(known))
            found.missing("layer", f"{quoted(request.layer)} is not in the index{close}: {names}")
    elif not request.layer:
        found.invalid("layer", "required; the name of a layer")
    if not request.HasField("channel"):
        found.invalid("channel", "required; from 0")
    last = None if channel_count is None else channel_count - 1
    channel = fields.number("channel", 0, 0, last)
    most = None if index is None else index.top_k
    top_k = fields.number("top_k", min(PATCH_COUNT, most or PATCH_COUNT), 1, most)
    found.raise_any()
    assert index is not None
    asked = AskedPatches(index, request.layer, channel, top_k, request.include_photos)
    _check_patches(found, asked, limits)
    found.raise_any()
    return asked


def _check_patches(found: Violations, asked: AskedPatches, limits: Limits) -> None:
    """By the pixels of patches, which a PNG may all need, and the bytes of whole photos."""
    patches = asked.index.patches(asked.layer, asked.channel, asked.top_k)
    parts = sum(
        3 * (bottom - top) * (right - left)
        for top, left, bottom, right in (patch.box for patch in patches)
    )
    what, fewer = f"{len(patches)} patches", "ask for fewer"
    check_sendable(found, "top_k", what, parts, limits, fewer)
    if asked.include_photos and parts <= limits.max_response_bytes:
        whole = parts + len(patches) * asked.index.most_picture_bytes
        fewer += ", or for none of the photos"
        check_sendable(found, "include_photos", f"{what} and photos", whole, limits, fewer)


def write_top_patches(asked: AskedPatches) -> index_pb2.TopPatchesResponse:
    """Reads the index; in a worker."""
    edges, counts = asked.index.histogram(asked.layer, asked.channel)
    return index_pb2.TopPatchesResponse(
        index=_write_summary(asked.index),
        patches=[
            _write_patch(asked, patch)
            for patch in asked.index.patches(asked.layer, asked.channel, asked.top_k)
        ],
        histogram=index_pb2.ActivationHistogram(edges=edges, counts=counts),
    )


def read_similar(
    request: index_pb2.SimilarRequest,
    call: Call,
    registry: Registry,
    limits: Limits,
    indices: Indices,
) -> Asked:
    """A SimilarRequest.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    model = find_model(found, request.model, registry)
    index = _find_index(found, model, indices)
    fields = Fields(found, "", request)
    top_k = fields.number("top_k", MATCH_COUNT, 1, MOST_MATCHES)
    explain_count = fields.number("explain_count", EXPLAIN_COUNT, 0, MOST_EXPLAINED)
    bucket_size = read_bucket_size(found, request, limits)
    canvas_px = LONGEST_SIDE_PX if explain_count else None
    source = read_image(found, request.image, model, limits, canvas_px)
    found.raise_any()
    assert model is not None
    assert index is not None
    assert source is not None
    top_k = min(top_k, index.photo_count)
    explain_count = min(explain_count, top_k)
    _check_matches(found, model, index, top_k, explain_count, limits)
    found.raise_any()
    normalize = model.preprocessing.normalize
    method = Similar(index, normalize, top_k, explain_count)
    return Asked(
        Spec(model, method, source, TopTarget(), call.deadline_s, call.caller, bucket_size)
    )


def _check_matches(
    found: Violations, model: Model, index: Index, top_k: int, explain_count: int, limits: Limits
) -> None:
    """By the bytes of matches' pictures and the numbers of attributions, two of each explained.

    Renderings are JPEGs of no known size, and not counted.
    """
    pictures = top_k * index.most_picture_bytes
    numbers = explain_count * 2 * 3 * model.network.height_px * model.network.width_px
    check_sendable(found, "top_k", f"{top_k} matches", pictures, limits, "ask for fewer")
    if pictures <= limits.max_response_bytes:
        what = f"{top_k} matches, of which {explain_count} are explained,"
        whole = pictures + 4 * numbers
        check_sendable(found, "explain_count", what, whole, limits, "explain fewer")


def write_similar(spec: Spec, done: Done) -> index_pb2.SimilarResponse:
    """What was found, drawn; in a worker."""
    method, result, loaded = spec.method, done.result, done.loaded
    assert isinstance(method, Similar)
    assert isinstance(method.neighbors, Index)
    assert isinstance(result, SimilarResult)
    assert isinstance(loaded, Loaded)
    index, started_s = method.neighbors, time.monotonic()
    response = index_pb2.SimilarResponse(index=_write_summary(index))
    for place, neighbor in enumerate(result.neighbors):
        match = response.matches.add(
            photo=neighbor.name,
            sha256=neighbor.sha256,
            similarity=neighbor.similarity,
            image=_write_input(index, neighbor.photo),
        )
        if result.query is not None and result.match is not None and place < len(result.query):
            by_query, by_match = result.query[place], result.match[place]
            match.query_attribution.CopyFrom(write_tensor(by_query.float()))
            match.match_attribution.CopyFrom(write_tensor(by_match.float()))
            match.query_rendering.CopyFrom(_draw_on_photo(loaded, by_query))
            match.match_rendering.CopyFrom(_draw_on_match(index, neighbor.photo, by_match))
    response.run.CopyFrom(write_run(spec, done, (time.monotonic() - started_s) * 1e3))
    return response


def _find_index(found: Violations, model: Model | None, indices: Indices) -> Index | None:
    if model is None:
        return None
    try:
        return indices.find(model)
    except FailedPrecondition as error:
        for violation in error.violations:
            found.refused(violation.field, violation.description)
        return None


def _write_summary(index: Index) -> index_pb2.IndexSummary:
    return index_pb2.IndexSummary(
        model=index.model,
        model_version=index.model_version,
        photo_count=index.photo_count,
        version=index.version,
    )


def _write_patch(asked: AskedPatches, patch: Patch) -> index_pb2.Patch:
    top, left, bottom, right = patch.box
    image = None
    if top < bottom and left < right:
        part = Image.fromarray(asked.index.pixels(patch.photo)[top:bottom, left:right])
        image = write_picture(part, "png")
    photo = _write_input(asked.index, patch.photo) if asked.include_photos else None
    return index_pb2.Patch(
        photo=patch.name,
        sha256=patch.sha256,
        activation=patch.activation,
        y=patch.y,
        x=patch.x,
        box=data_pb2.Box(x_px=left, y_px=top, width_px=right - left, height_px=bottom - top),
        image=image,
        input=photo,
    )


def _write_input(index: Index, photo: int) -> data_pb2.EncodedImage:
    """As it is kept, where that is a JPEG; else a PNG of the same pixels."""
    pixels = index.pixels(photo)
    if index.about["picture_format"] != "jpeg":
        return write_picture(Image.fromarray(pixels), "png")
    return data_pb2.EncodedImage(
        format=data_pb2.IMAGE_FORMAT_JPEG,
        data=index.picture(photo),
        width_px=pixels.shape[1],
        height_px=pixels.shape[0],
    )


def _draw_on_photo(loaded: Loaded, attribution: Tensor) -> data_pb2.EncodedImage:
    assert loaded.canvas is not None
    canvas = photos.thumbnail(loaded.canvas, LONGEST_SIDE_PX)
    x_px, y_px, width_px, height_px = loaded.input_box
    across = canvas.shape[1] / loaded.photo_size[0]
    down = canvas.shape[0] / loaded.photo_size[1]
    box = (x_px * across, y_px * down, width_px * across, height_px * down)
    return _draw(canvas, attribution, box)


def _draw_on_match(index: Index, photo: int, attribution: Tensor) -> data_pb2.EncodedImage:
    pixels = index.pixels(photo)
    return _draw(pixels, attribution, (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])))


def _draw(
    canvas: render.Photo, attribution: Tensor, box: tuple[float, float, float, float]
) -> data_pb2.EncodedImage:
    values = render.reduce_channels(attribution.float().numpy(), "absolute")
    picture = render.overlay(
        canvas,
        values,
        box=box,
        limit=render.limit_of(values, PERCENTILE),
        color_scale="absolute",
        percentile=PERCENTILE,
        legend=False,
    )
    return write_picture(picture, "jpeg")
