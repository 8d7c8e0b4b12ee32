"""Between Python arguments and the messages of stylized images: the core of both clients."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import optimizing, stylizing, types
from ._wire.arrays import array_of
from ._wire.fields import parameter_of, parse, read, set_fields, short_name
from ._wire.responses import run_of
from .errors import BadArgument
from .v1 import data_pb2, stylize_pb2

_FIELDS = stylize_pb2.Neural.DESCRIPTOR.fields_by_name
_LAYERS = ("content_layers", "style_layers")
PARAMETERS = tuple(name for name in _FIELDS if name not in _LAYERS)
"""Everything that an optimized style can be told besides its layers."""


def stylize_request(
    photo: "types.Photo",
    styles: "stylizing.Styles",
    *,
    mask: "types.Photo | None",
    start_image: "types.Photo | None",
    content_layers: Mapping[str, float] | Sequence[str] | None,
    style_layers: Mapping[str, float] | Sequence[str] | None,
    model: str,
    format: str | None,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> "tuple[stylize_pb2.StylizeSpec, list[tuple[data_pb2.Image, types.Photo]]]":
    """What is asked, but for a checkpoint; and the photos, each with the field that it goes to."""
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        known = ", ".join(PARAMETERS)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of stylize, which has {known}")
    spec = stylize_pb2.StylizeSpec()
    spec.neural.SetInParent()
    if start_image is not None:
        parameters = {"start": "image", **parameters}
    set_fields(spec, model=model, format=format, include_pixels=include_pixels)
    set_fields(spec.neural, **parameters)
    for name, layers in zip(_LAYERS, (content_layers, style_layers), strict=True):
        weighted = layers if isinstance(layers, Mapping) else dict.fromkeys(layers or ())
        for layer, weight in weighted.items():
            set_fields(getattr(spec.neural, name).add(layer=layer), weight=weight)
    photos = [(spec.content, photo)]
    for one in styles if isinstance(styles, list | tuple) else [styles]:
        style, weight = one if isinstance(one, tuple) else (one, None)
        made = spec.styles.add()
        set_fields(made, weight=weight)
        photos.append((made.image, style))
    for image, other in ((spec.mask, mask), (spec.start, start_image)):
        if other is not None:
            photos.append((image, other))
    return spec, photos


def parameter(text: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS:
        raise BadArgument(
            f"--parameter: is {text!r}; must be NAME=VALUE, where names are {', '.join(PARAMETERS)}"
        )
    return name, parse(name, _FIELDS[name], value)


def event(response: stylize_pb2.StylizeResponse) -> Any:
    """An event of a stream, or its result; None: of a kind that came later than this client."""
    match response.WhichOneof("event"):
        case "queued":
            return read(optimizing.Queued, response.queued)
        case "progress":
            return _progress(response.progress)
        case "preview":
            return read(optimizing.Preview, response.preview, jpeg=response.preview.image.data)
        case "result":
            return _result(response.result)
    return None


def _result(message: stylize_pb2.StylizeResult) -> stylizing.Stylized:
    asked = message.neural
    return stylizing.Stylized(
        encoded=message.image.data,
        format=short_name(message.image, "format"),
        pixels=array_of(message.pixels) if message.HasField("pixels") else None,
        parameters={
            name: parameter_of(asked, field)
            for name, field in _FIELDS.items()
            if name in PARAMETERS and (asked.HasField(name) if field.has_presence else True)
        },
        content_layers={one.layer: one.weight for one in asked.content_layers},
        style_layers={one.layer: one.weight for one in asked.style_layers},
        progress=_progress(message.progress),
        stop_reason=message.stop_reason,
        clipped_share=message.clipped_share,
        notes=tuple(message.notes),
        run=run_of(message.run),
    )


def _progress(message: stylize_pb2.StylizeProgress) -> stylizing.StyleProgress:
    return read(
        stylizing.StyleProgress,
        message,
        content_losses=tuple(message.content_losses),
        style_losses=tuple(message.style_losses),
    )
