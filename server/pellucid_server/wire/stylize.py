"""Stylized images: specs from requests, events to responses."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pellucid import render
from pellucid.v1 import data_pb2, optimize_pb2, stylize_pb2, video_pb2
from PIL import Image

from ..engine.job import Done, Spec
from ..engine.rows import TopTarget
from ..inputs import Decodable, EncodedPhoto, Pictures, PreparedInput
from ..methods.optimize.snapshot import Snapshot
from ..methods.optimize.stepper import Preview, Progress
from ..methods.stylize.neural import Layers, Neural, default_layers
from ..methods.stylize.stylize import Picture, Stylize, Stylized
from ..models.layers import Layout
from ..models.registry import Model, Registry
from ..models.sizes import Shapes, UnfitSize
from .adversarial import picture_of
from .checkpoints import check_checkpoint, check_checkpoints, join_checkpoint, read_checkpoint
from .fields import (
    Fields,
    Violations,
    check_sendable,
    find_layer,
    most_picture_bytes,
    read_parameters,
    times,
    why_not,
    write_parameters,
    write_picture,
    write_tensor,
)
from .images import read_image
from .limits import Call, Limits
from .requests import find_model
from .responses import write_run

MOST_STYLES = 8
MOST_LAYER_WEIGHT = 1e6
_MOST_LAYERS = {"content_layers": 8, "style_layers": 16}
_PREVIEW_PX = 512

_LEAST_PLACES = 4
"""Of a style layer: a Gram matrix of fewer says little but which maps are on."""


@dataclass(frozen=True)
class AskedStylize:
    """A validated request.

    Attributes:
        spec: What is run.
        request: What was asked.
        settings: Of it, all but the pictures, every parameter filled in.
        format: Of the image.
        notes: Why bits may differ from those of a run that was not interrupted.
    """

    spec: Spec[Any]
    request: stylize_pb2.StylizeSpec
    settings: stylize_pb2.StylizeSpec
    format: render.Format
    notes: tuple[str, ...] = ()

    image_count = 1

    @property
    def states(self) -> tuple[Snapshot, ...]:
        """Where it goes on from."""
        method = self.spec.method
        assert isinstance(method, Stylize)
        return method.states

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered."""
        return self.spec.byte_count


def read_stylize(
    request: stylize_pb2.StylizeSpec,
    call: Call,
    registry: Registry,
    limits: Limits,
    rest: bytes | bytearray = b"",
    *,
    follows: bool = False,
) -> AskedStylize:
    """A StylizeSpec whose method is Neural; args as of read_optimize.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    model = find_model(found, request.model, registry)
    opaque = None if model is None else model.network.white_box_refusal
    if opaque is not None:
        found.refused("neural", f"does not apply: {opaque}")
        model = None  # nothing of its inside can be asked for
    picture = Fields(found, "", request).choice("format", "png")
    neural = None
    if not request.HasField("neural"):
        found.invalid("method", "required; one of neural or fast")
    else:
        neural = read_parameters(found, "neural", request.neural, Neural, model, None)
    content = read_photo(found, "content", request.content, limits)
    weighted = list(read_styles(found, request, limits))
    others = list(read_others(found, request, content, neural, limits))
    layers = {name: _read_layers(found, request, name, model) for name in _MOST_LAYERS}
    found.raise_any()
    assert model is not None
    assert neural is not None
    assert content is not None
    method = Stylize(
        neural,
        layers["content_layers"],
        layers["style_layers"],
        _picture(content),
        tuple(_picture(style, weight) for style, weight in weighted),
        request.HasField("mask"),
        limits.optimize_buckets,
    )
    _check_sizes(found, method, model, limits)
    found.raise_any()
    sources = (content, *(style for style, _ in weighted), *others)
    start = len(sources) - 1 if neural.start == "image" else None
    spec = Spec(
        model,
        method,
        Pictures(sources, tuple(method.sizes), start),
        TopTarget(),
        call.deadline_s,
        call.caller,
        limits.optimize_buckets.of(method.size),
    )
    settings = _write_settings(method)
    check_checkpoints(found, spec, settings, limits.max_checkpoint_bytes)
    check_answer(found, "neural", request, method.size, limits)
    most = limits.max_checkpoint_bytes
    given = check_checkpoint(found, request, spec, rest, most, follows=follows)
    found.raise_any()
    notes: tuple[str, ...] = ()
    if given and not follows:
        data = join_checkpoint(request, rest)
        states, notes = read_checkpoint(found, spec, settings, data, limits.checkpoint_key)
        found.raise_any()
        spec = replace(spec, method=replace(method, states=states))
        if neural.update == "lbfgs":
            notes += ("bits differ: the history of L-BFGS starts anew after a checkpoint",)
    return AskedStylize(spec, request, settings, cast(render.Format, picture), notes)


# Pictures.


def read_photo(
    found: Violations, field: str, image: data_pb2.Image, limits: Limits
) -> Decodable | None:
    """A photo that is not preprocessed already."""
    if image.tensor.data_type == data_pb2.DATA_TYPE_FLOAT32:
        found.invalid(f"{field}.tensor", "is float32; send a photo, uint8 height × width × 3")
        return None
    source = read_image(found, image, None, limits, None, field)
    assert not isinstance(source, PreparedInput)
    return source


def read_styles(
    found: Violations,
    request: stylize_pb2.StylizeSpec | video_pb2.StylizeVideoSpec,
    limits: Limits,
) -> Iterator[tuple[Decodable, float]]:
    """Pictures of styles, with their weights."""
    if not 1 <= len(request.styles) <= MOST_STYLES:
        found.invalid("styles", f"has {len(request.styles)}; must have 1 to {MOST_STYLES}")
    for place, style in enumerate(request.styles[:MOST_STYLES]):
        source = read_photo(found, f"styles[{place}].image", style.image, limits)
        weight = read_weight(found, f"styles[{place}]", style)
        if source is not None:
            yield source, weight


def read_weight(
    found: Violations,
    path: str,
    message: stylize_pb2.StylePicture | stylize_pb2.WeightedLayer | stylize_pb2.NamedStyle,
) -> float:
    """More than 0, 1 where it is not set."""
    weight = message.weight if message.HasField("weight") else 1.0
    if not 0 < weight <= MOST_LAYER_WEIGHT:
        found.invalid(
            f"{path}.weight", f"is {weight:g}; must be more than 0, at most {MOST_LAYER_WEIGHT:g}"
        )
    return weight


def read_others(
    found: Violations,
    request: stylize_pb2.StylizeSpec,
    content: Decodable | None,
    neural: Neural | None,
    limits: Limits,
) -> Iterator[Decodable]:
    """The mask and the start, where there are any."""
    mask = read_mask(found, request, content, limits)
    if mask is not None:
        yield mask
    if neural is None:
        return
    wanted = neural.start == "image"
    if wanted != request.HasField("start"):
        why = "required for" if wanted else "is for"
        found.invalid("start", f"{why} STYLE_START_IMAGE")
    elif wanted:
        start = read_photo(found, "start", request.start, limits)
        if start is not None:
            yield start


def read_mask(
    found: Violations,
    request: stylize_pb2.StylizeSpec,
    content: Decodable | None,
    limits: Limits,
) -> Decodable | None:
    """Where the style is to be; as large as the content."""
    if not request.HasField("mask"):
        return None
    mask = read_photo(found, "mask", request.mask, limits)
    if mask is not None and content is not None and size_of(mask) != size_of(content):
        sizes = " and ".join(times(size_of(one)) for one in (mask, content))
        found.invalid("mask", f"must be as large as the content: they are {sizes}")
        return None
    return mask


def check_pixels(found: Violations, field: str, size: tuple[int, int], limits: Limits) -> bool:
    """Whether an image is small enough to be made; noted where it is not."""
    pixel_count, most = math.prod(size), limits.max_optimize_pixels
    if pixel_count > most:
        found.invalid(
            field,
            f"makes an image of {times(size)}, {pixel_count} pixels; at most {most} fit",
        )
    return pixel_count <= most


def check_answer(
    found: Violations,
    method: str,
    request: stylize_pb2.StylizeSpec,
    size: tuple[int, int],
    limits: Limits,
) -> None:
    """Notes an image that may be too large to send."""
    pixel_count, pixels = math.prod(size), request.include_pixels
    byte_count = most_picture_bytes(pixel_count) + pixels * 3 * 4 * pixel_count
    check_sendable(found, method, pixels, 1, pixel_count, byte_count, limits.max_response_bytes)


def size_of(source: Decodable) -> tuple[int, int]:
    """Height and width, upright."""
    if isinstance(source, EncodedPhoto):
        return source.header.height_px, source.header.width_px
    return source.photo.shape[0], source.photo.shape[1]


def _picture(source: Decodable, weight: float = 1.0) -> Picture:
    return Picture(source.sha256, *size_of(source), weight)


# Layers.


def _read_layers(
    found: Violations, request: stylize_pb2.StylizeSpec, name: str, model: Model | None
) -> Layers:
    """Those that are named, or those that are known to do."""
    asked: Sequence[stylize_pb2.WeightedLayer] = getattr(request.neural, name)
    if len(asked) > _MOST_LAYERS[name]:
        found.invalid(f"neural.{name}", f"has {len(asked)}; at most {_MOST_LAYERS[name]}")
        return ()
    if model is None:
        return ()
    if not asked:
        content, style = default_layers(model)
        known = content if name == "content_layers" else style
        if not known:
            found.refused(f"neural.{name}", f"{model.name} has no layers of maps")
        return known
    made: dict[str, float] = {}
    for place, one in enumerate(asked):
        where = f"neural.{name}[{place}]"
        weight = read_weight(found, where, one)
        layer = find_layer(found, f"{where}.layer", one.layer, model)
        if layer is None:
            continue
        if not layer.targetable:
            found.refused(f"{where}.layer", f"{layer.name} cannot be looked at: {why_not(layer)}")
        elif layer.layout is not Layout.MAPS:
            shape = times(layer.shape)
            found.refused(f"{where}.layer", f"{layer.name} has no maps: its output is {shape}")
        elif layer.name in made:
            found.invalid(f"{where}.layer", f"is {layer.name}, which is there already")
        made[one.layer] = weight
    return tuple(made.items())


def _check_sizes(found: Violations, method: Stylize, model: Model, limits: Limits) -> None:
    """Notes an image that is too large, and pictures that are too small for the layers."""
    if not check_pixels(found, "neural.side_px", method.size, limits):
        return
    smallest = method.scales[0]
    pictures = {"content": smallest}
    for place, style in enumerate(method.styles):
        pictures[f"styles[{place}].image"] = method.style_size(style, smallest)
    for field, size in pictures.items():
        shapes = _shapes(model, size)
        if shapes is None:
            found.invalid(field, f"is too small at {times(size)} pixels for {model.name}")
            continue
        for layer, _ in method.style_layers:
            grid = shapes[layer][1:]
            if math.prod(grid) < _LEAST_PLACES:
                found.invalid(
                    field,
                    f"is too small at {times(size)} pixels: {layer} has maps of {times(grid)}; at "
                    f"least {_LEAST_PLACES} places are needed",
                )


def _shapes(model: Model, size: tuple[int, int]) -> Shapes | None:
    try:
        return model.network.shapes_at(*size)
    except UnfitSize:
        return None


def _write_settings(method: Stylize) -> stylize_pb2.StylizeSpec:
    """All that is asked but the pictures, every parameter filled in."""
    made = stylize_pb2.StylizeSpec()
    write_parameters(method.neural, made.neural, tensors=False)
    for name in _MOST_LAYERS:
        for layer, weight in getattr(method, name):
            getattr(made.neural, name).add(layer=layer, weight=weight)
    for style in method.styles:
        made.styles.add(weight=style.weight)
    return made


# Events.


def write_stylize_queued(
    spec: Spec, cost_ms: float, others_ms: float
) -> stylize_pb2.StylizeResponse:
    """The job was admitted."""
    return stylize_pb2.StylizeResponse(
        queued=optimize_pb2.OptimizeQueued(
            cost_ms=cost_ms, others_ms=others_ms, bucket_size=spec.bucket_size
        )
    )


def write_stylize(asked: AskedStylize, done: Done) -> stylize_pb2.StylizeResponse:
    """What a job shows, or what came of it."""
    method = asked.spec.method
    assert isinstance(method, Stylize)
    match done.result:
        case Progress() as progress:
            return stylize_pb2.StylizeResponse(progress=_write_progress(method, progress))
        case Preview() as preview:
            picture: Image.Image = picture_of(preview.picture * 255)
            picture.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
            return stylize_pb2.StylizeResponse(
                preview=optimize_pb2.OptimizePreview(
                    step=preview.step, image=write_picture(picture, "jpeg")
                )
            )
        case result:
            assert isinstance(result, Stylized)
            made = _write_result(asked, method, done, result)
            return stylize_pb2.StylizeResponse(result=made)


def _write_progress(method: Stylize, progress: Progress) -> stylize_pb2.StylizeProgress:
    count = len(method.content_layers)
    losses = [-term for term in progress.terms]
    return stylize_pb2.StylizeProgress(
        step=progress.step,
        step_count=method.neural.step_total,
        loss=-progress.score,
        content_losses=losses[:count],
        style_losses=losses[count:],
        tv_loss=progress.tv_penalty,
    )


def _write_result(
    asked: AskedStylize, method: Stylize, done: Done, result: Stylized
) -> stylize_pb2.StylizeResult:
    started_s, end = time.monotonic(), result.end
    made = stylize_pb2.StylizeResult(
        image=write_picture(picture_of(result.picture * 255), asked.format),
        pixels=write_tensor(result.picture) if asked.request.include_pixels else None,
        neural=asked.settings.neural,
        progress=_write_progress(method, end.progress),
        clipped_share=result.clipped_share,
        notes=asked.notes,
    )
    if not end.finite:
        made.stop_reason = f"its loss or gradient was not finite after step {end.progress.step}"
    made.run.CopyFrom(write_run(asked.spec, done, (time.monotonic() - started_s) * 1e3))
    return made
