"""Photos stylized in one pass: specs from requests, results to responses."""

import time
from math import prod
from typing import Any, cast

from pellucid import render
from pellucid.v1 import stylize_pb2, video_pb2

from ..engine.job import Done, Spec
from ..engine.rows import TopTarget
from ..errors import quoted
from ..inputs import ArrayPhoto, EncodedPhoto, PlainPhoto
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
from .stylize import AskedStylize, read_mask, read_photo, read_styles, read_weight, size_of

MOST_NAMES = 16

_INSTALL = "`pellucid models pull styles` fetches them, and PELLUCID_STYLES says where they are"
_NEURAL_ALONE = ("model", "start", "checkpoint")


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
    for name in _NEURAL_ALONE:
        if getattr(request, name) != getattr(stylize_pb2.StylizeSpec(), name):
            found.invalid(name, "is for neural")
    bucket_size = read_bucket_size(found.inside("fast"), request.fast, limits)
    content = read_photo(found, "content", request.content, limits)
    mask = read_mask(found, request, content, limits)
    photo = None if content is None else plain(content)
    painter, styles = read_which(found, request, photo, library, limits)
    size = None
    if fast is not None and content is not None:
        size = fast.size(*size_of(content))
        check_size(found, size, "fast.side_px", "content", limits)
    found.raise_any()
    assert fast is not None
    assert painter is not None
    assert styles is not None
    assert size is not None
    assert photo is not None
    spec = Spec(
        painter,
        FastStylize(fast, styles, size),
        PlainPhoto(photo, None if mask is None else plain(mask), size),
        TopTarget(),
        call.deadline_s,
        call.caller,
        bucket_size,
        styles.elsewhere,
    )
    settings = stylize_pb2.StylizeSpec()
    write_settings(fast, request.fast, settings.fast)
    return AskedStylize(spec, request, settings, cast(render.Format, picture))


def plain(source: object) -> EncodedPhoto | ArrayPhoto:
    """A photo, as read_photo has made sure."""
    assert isinstance(source, EncodedPhoto | ArrayPhoto)
    return source


def write_settings(fast: Fast, asked: stylize_pb2.Fast, settings: stylize_pb2.Fast) -> None:
    """What is asked of Fast, every parameter filled in."""
    settings.CopyFrom(asked)
    write_parameters(fast, settings, tensors=False)
    for style in settings.styles:
        style.weight = style.weight if style.HasField("weight") else 1.0


def read_which(
    found: Violations,
    request: stylize_pb2.StylizeSpec | video_pb2.StylizeVideoSpec,
    content: EncodedPhoto | ArrayPhoto | None,
    library: Library,
    limits: Limits,
) -> tuple[Painter | None, NamedStyles | PictureStyles | None]:
    """The network, and what it is to paint; content, where its own style has a part in it."""
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
    pictures = [(plain(source), weight) for source, weight in read_styles(found, request, limits)]
    pair = library.arbitrary
    if pair is None:
        if library:
            found.refused("styles", f"the network for any picture is not there: {_INSTALL}")
        return None, None
    painter, predictor = pair
    return painter, PictureStyles(predictor, content, pictures)


def _read_named(
    found: Violations,
    request: stylize_pb2.StylizeSpec | video_pb2.StylizeVideoSpec,
    library: Library,
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


def check_size(
    found: Violations, size: tuple[int, int], large_field: str, narrow_field: str, limits: Limits
) -> None:
    """Notes a size of a result that is too large, or too narrow, as the field that makes it so."""
    most = limits.max_optimize_pixels
    if prod(size) > most:
        found.invalid(
            large_field,
            f"makes an image of {times(size)}, {prod(size)} pixels; at most {most} fit",
        )
    if min(size) < SMALLEST_SIDE_PX:
        found.invalid(
            narrow_field,
            f"is too narrow: the image would be {times(size)}; at least {SMALLEST_SIDE_PX} pixels "
            "are needed",
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
