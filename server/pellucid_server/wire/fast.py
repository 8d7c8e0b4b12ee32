"""Photos stylized in one pass: specs from requests, results to responses."""

import time
from math import prod
from typing import Any, cast

from pellucid import render
from pellucid.v1 import stylize_pb2

from ..engine.job import Done, Spec
from ..engine.rows import TopTarget
from ..errors import quoted
from ..inputs import Decodable, PlainPhoto
from ..methods.stylize.fast import (
    Fast,
    FastStylize,
    NamedStyles,
    Painted,
    PictureStyles,
)
from ..models.styles.library import Library, Painter
from ..models.styles.network import SMALLEST_SIDE_PX
from .adversarial import picture_of
from .fields import (
    Fields,
    Violations,
    read_plain,
    times,
    write_parameters,
    write_picture,
    write_tensor,
)
from .limits import Call, Limits
from .requests import read_bucket_size
from .responses import write_run
from .stylize import (
    AskedStylize,
    check_answer,
    check_pixels,
    read_mask,
    read_photo,
    read_styles,
    read_weight,
    size_of,
)

MOST_NAMES = 16

_INSTALL = "`pellucid models pull styles` fetches them, and PELLUCID_STYLES says where they are"
_NEURAL_ALONE = ("model", "start", "checkpoint", "checkpoint_bytes")


def read_fast(
    request: stylize_pb2.StylizeSpec, call: Call, library: Library, limits: Limits
) -> AskedStylize:
    """A StylizeSpec whose method is Fast.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    picture = Fields(found, "", request).choice("format", "png")
    fast = read_plain(found, "fast", request.fast, Fast)
    if fast is not None and fast.original_colors == "histogram":
        allowed = "ORIGINAL_COLORS_OFF or ORIGINAL_COLORS_LUMINANCE"
        found.invalid("fast.original_colors", f"is ORIGINAL_COLORS_HISTOGRAM; must be {allowed}")
    for field, _ in request.ListFields():
        if field.name in _NEURAL_ALONE:
            found.invalid(field.name, "is for neural")
    content = read_photo(found, "content", request.content, limits)
    mask = read_mask(found, request, content, limits)
    painter, styles = _read_which(found, request, content, library, limits)
    bucket_size, size = read_bucket_size(found.inside("fast"), request.fast, limits), None
    if fast is not None and content is not None:
        size = _read_size(found, fast, size_of(content), limits)
        _check_bucket(found, bucket_size, size, limits)
        check_answer(found, "fast", request, size, limits)
    found.raise_any()
    assert fast is not None
    assert content is not None
    assert painter is not None
    assert styles is not None
    assert size is not None
    spec = Spec(
        painter,
        FastStylize(fast, styles, size, bucket_size),
        PlainPhoto(content, mask, size),
        TopTarget(),
        call.deadline_s,
        call.caller,
        bucket_size,
        styles.elsewhere,
    )
    settings = stylize_pb2.StylizeSpec()
    settings.fast.CopyFrom(request.fast)
    write_parameters(fast, settings.fast, tensors=False)
    for style in settings.fast.styles:
        style.weight = style.weight if style.HasField("weight") else 1.0
    return AskedStylize(spec, request, settings, cast(render.Format, picture))


def _read_which(
    found: Violations,
    request: stylize_pb2.StylizeSpec,
    content: Decodable | None,
    library: Library,
    limits: Limits,
) -> tuple[Painter | None, NamedStyles | PictureStyles | None]:
    """The network, and what it is to paint."""
    if not library:
        found.refused("fast", f"no styles are installed: {_INSTALL}")
    named = len(request.fast.styles) > 0
    if named == (len(request.styles) > 0):
        both = "both came" if named else "neither did"
        found.invalid(
            "fast.styles", f"either names here or pictures in styles are required; {both}"
        )
        return None, None
    if named:
        return _read_named(found, request, library)
    pictures = list(read_styles(found, request, limits))
    pair = library.arbitrary
    if pair is None:
        if library:
            found.refused("styles", f"the network for any picture is not there: {_INSTALL}")
        return None, None
    painter, predictor = pair
    if content is None:
        return painter, None
    return painter, PictureStyles(predictor, content, pictures)


def _read_named(
    found: Violations, request: stylize_pb2.StylizeSpec, library: Library
) -> tuple[Painter | None, NamedStyles | None]:
    if len(request.fast.styles) > MOST_NAMES:
        found.invalid(
            "fast.styles", f"has {len(request.fast.styles)}; must have at most {MOST_NAMES}"
        )
        return None, None
    first: tuple[str, Painter] | None = None
    weights: dict[int, float] = {}
    for place, style in enumerate(request.fast.styles):
        where = f"fast.styles[{place}]"
        weight = read_weight(found, where, style)
        known = library.find(style.name)
        if known is None:
            if library:
                names = ", ".join(library.names) or "none"
                found.missing(f"{where}.name", f"is {quoted(style.name)}; styles are: {names}")
            continue
        painter, index = known
        first = first or (where, painter)
        if painter is not first[1]:
            found.invalid(
                f"{where}.name",
                f"is a style of {painter.name}, and {first[0]} one of {first[1].name}; only styles "
                "of one network are blended",
            )
        elif index in weights:
            found.invalid(f"{where}.name", f"is {quoted(style.name)}, which is there already")
        weights[index] = weight
    if first is None:
        return None, None
    return first[1], NamedStyles(first[1].network, weights)


def _read_size(
    found: Violations, fast: Fast, content: tuple[int, int], limits: Limits
) -> tuple[int, int]:
    """Height and width of the result."""
    size = fast.size(*content)
    check_pixels(found, "fast", size, limits)
    if min(size) < SMALLEST_SIDE_PX:
        found.invalid(
            "content",
            f"is too narrow: the image would be {times(size)}; at least {SMALLEST_SIDE_PX} pixels "
            "are needed",
        )
    return size


def _check_bucket(
    found: Violations, bucket_size: int | None, size: tuple[int, int], limits: Limits
) -> None:
    """Notes a batch that would keep everybody waiting; one image alone may be as large."""
    most = limits.optimize_buckets.most_pixels
    fit = [b for b in limits.buckets if b == limits.buckets[0] or b * prod(size) <= most]
    if bucket_size in limits.buckets and bucket_size not in fit:
        allowed = ", ".join(map(str, fit))
        found.invalid(
            "fast.bucket_size",
            f"is {bucket_size}; must be one of {allowed} at {times(size)}: a batch has at most "
            f"{most} pixels",
        )


def write_fast(asked: AskedStylize, done: Done) -> stylize_pb2.StylizeResponse:
    """What came of it."""
    started_s, result = time.monotonic(), done.result
    assert isinstance(result, Painted)
    made = stylize_pb2.StylizeResult(
        image=write_picture(picture_of(result.picture * 255), asked.format),
        pixels=write_tensor(result.picture) if asked.request.include_pixels else None,
        fast=asked.settings.fast,
        clipped_share=result.clipped_share,
    )
    made.run.CopyFrom(write_run(asked.spec, done, (time.monotonic() - started_s) * 1e3))
    return stylize_pb2.StylizeResponse(result=made)


def write_styles(library: Library) -> stylize_pb2.ListStylesResponse:
    """All networks, those that failed to load included."""
    pair = library.arbitrary
    networks: list[dict[str, Any]] = [
        {
            "name": painter.name,
            "version": painter.version,
            "ready": True,
            "styles": painter.network.styles,
            "takes_pictures": pair is not None and painter is pair[0],
            "licence": painter.network.licence,
        }
        for painter in library.painters
    ]
    networks += [{"name": one.name, "reason": one.reason} for one in library.failed]
    return stylize_pb2.ListStylesResponse(
        networks=[stylize_pb2.StyleNetwork(**one) for one in networks]
    )
