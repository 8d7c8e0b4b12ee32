"""Between Python arguments and the messages of stylized images: the core of both clients."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import _wire, optimizing, stylizing, types
from .errors import BadArgument
from .v1 import stylize_pb2

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
) -> stylize_pb2.StylizeSpec:
    """What is asked, but for a checkpoint."""
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        known = ", ".join(PARAMETERS)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of stylize, which has {known}")
    spec = stylize_pb2.StylizeSpec()
    spec.neural.SetInParent()
    if start_image is not None:
        parameters = {"start": "image", **parameters}
    _wire._set(spec, model=model, format=format, include_pixels=include_pixels)
    _wire._set(spec.neural, **parameters)
    for name, layers in zip(_LAYERS, (content_layers, style_layers), strict=True):
        weighted = layers if isinstance(layers, Mapping) else dict.fromkeys(layers or ())
        for layer, weight in weighted.items():
            _wire._set(getattr(spec.neural, name).add(layer=layer), weight=weight)
    for one in styles if isinstance(styles, list | tuple) else [styles]:
        style, weight = one if isinstance(one, tuple) else (one, None)
        made = spec.styles.add()
        made.image.CopyFrom(_wire._image(style))
        _wire._set(made, weight=weight)
    for name, image in (("content", photo), ("mask", mask), ("start", start_image)):
        if image is not None:
            getattr(spec, name).CopyFrom(_wire._image(image))
    return spec


def parameter(text: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS:
        raise BadArgument(
            f"--parameter: is {text!r}; must be NAME=VALUE, where names are {', '.join(PARAMETERS)}"
        )
    return name, _wire._parse(name, _FIELDS[name], value)


def event(response: stylize_pb2.StylizeResponse) -> Any:
    """An event of a stream, or its result; None: of a kind that came later than this client."""
    match response.WhichOneof("event"):
        case "queued":
            return _wire._read(optimizing.Queued, response.queued)
        case "progress":
            return _progress(response.progress)
        case "preview":
            return _wire._read(
                optimizing.Preview, response.preview, jpeg=response.preview.image.data
            )
        case "result":
            return _result(response.result)
    return None


def _result(message: stylize_pb2.StylizeResult) -> stylizing.Stylized:
    asked = message.neural
    return stylizing.Stylized(
        encoded=message.image.data,
        format=_wire._short(message.image, "format"),
        pixels=_wire._array(message.pixels) if message.HasField("pixels") else None,
        parameters={
            name: _wire._parameter(asked, field)
            for name, field in _FIELDS.items()
            if name in PARAMETERS and (asked.HasField(name) if field.has_presence else True)
        },
        content_layers={one.layer: one.weight for one in asked.content_layers},
        style_layers={one.layer: one.weight for one in asked.style_layers},
        progress=_progress(message.progress),
        stop_reason=message.stop_reason,
        clipped_share=message.clipped_share,
        notes=tuple(message.notes),
        run=_wire._run(message.run),
    )


def _progress(message: stylize_pb2.StylizeProgress) -> stylizing.StyleProgress:
    return _wire._read(
        stylizing.StyleProgress,
        message,
        content_losses=tuple(message.content_losses),
        style_losses=tuple(message.style_losses),
    )
