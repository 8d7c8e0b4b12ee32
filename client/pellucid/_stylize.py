"""Between Python arguments and the messages of stylized images: the core of both clients."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _wire, optimizing, stylizing, types
from .errors import BadArgument
from .v1 import stylize_pb2

_METHODS = {"neural": stylize_pb2.Neural.DESCRIPTOR, "fast": stylize_pb2.Fast.DESCRIPTOR}
_LAYERS = ("content_layers", "style_layers")
PARAMETERS = {
    method: tuple(name for name in kind.fields_by_name if name not in (*_LAYERS, "styles"))
    for method, kind in _METHODS.items()
}
"""Everything that a method can be told besides its layers and styles."""

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def stylize_request(
    photo: "types.Photo",
    styles: "stylizing.Styles",
    *,
    method: str,
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
    known_ones = _parameters_of(method)
    unknown = [name for name in parameters if name not in known_ones]
    if unknown:
        known = ", ".join(known_ones)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of {method}, which has {known}")
    spec = stylize_pb2.StylizeSpec()
    settings = getattr(spec, method)
    settings.SetInParent()
    given = (start_image, content_layers, style_layers)
    if method == "fast" and any(one is not None for one in given):
        raise BadArgument("start_image, content_layers and style_layers are for method='neural'")
    if start_image is not None:
        parameters = {"start": "image", **parameters}
    _wire._set(spec, model=model, format=format, include_pixels=include_pixels)
    _wire._set(settings, **parameters)
    for name, layers in zip(_LAYERS, (content_layers, style_layers), strict=True):
        weighted = layers if isinstance(layers, Mapping) else dict.fromkeys(layers or ())
        for layer, weight in weighted.items():
            _wire._set(getattr(spec.neural, name).add(layer=layer), weight=weight)
    for one in styles if isinstance(styles, list | tuple) else [styles]:
        style, weight = one if isinstance(one, tuple) else (one, None)
        if method == "fast" and isinstance(style, str) and _is_name(style):
            _wire._set(spec.fast.styles.add(name=style), weight=weight)
            continue
        made = spec.styles.add()
        made.image.CopyFrom(_wire._image(style))
        _wire._set(made, weight=weight)
    for name, image in (("content", photo), ("mask", mask), ("start", start_image)):
        if image is not None:
            getattr(spec, name).CopyFrom(_wire._image(image))
    return spec


def _parameters_of(method: str) -> Sequence[str]:
    if method not in PARAMETERS:
        raise BadArgument(f"method: is {method!r}; must be {' or '.join(PARAMETERS)}")
    return PARAMETERS[method]


def _is_name(style: str) -> bool:
    """Whether it names a style that a network knows: no file, and nothing that would be one."""
    return not style.lower().endswith(_PICTURES) and not Path(style).is_file()


def parameter(text: str, method: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS[method]:
        known = ", ".join(PARAMETERS[method])
        raise BadArgument(f"--parameter: is {text!r}; must be NAME=VALUE, where names are {known}")
    return name, _wire._parse(name, _METHODS[method].fields_by_name[name], value)


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
    method = message.WhichOneof("asked") or "neural"
    asked, fields = getattr(message, method), _METHODS[method].fields_by_name
    return stylizing.Stylized(
        encoded=message.image.data,
        format=_wire._short(message.image, "format"),
        pixels=_wire._array(message.pixels) if message.HasField("pixels") else None,
        parameters={
            name: _wire._parameter(asked, field)
            for name, field in fields.items()
            if name in PARAMETERS[method] and (asked.HasField(name) if field.has_presence else True)
        },
        content_layers={one.layer: one.weight for one in message.neural.content_layers},
        style_layers={one.layer: one.weight for one in message.neural.style_layers},
        styles={one.name: one.weight for one in message.fast.styles},
        progress=_progress(message.progress) if message.HasField("progress") else None,
        stop_reason=message.stop_reason,
        clipped_share=message.clipped_share,
        notes=tuple(message.notes),
        run=_wire._run(message.run),
    )


def networks(response: stylize_pb2.ListStylesResponse) -> tuple[stylizing.StyleNetwork, ...]:
    """The networks of a server."""
    return tuple(
        _wire._read(stylizing.StyleNetwork, one, styles=tuple(one.styles))
        for one in response.networks
    )


def _progress(message: stylize_pb2.StylizeProgress) -> stylizing.StyleProgress:
    return _wire._read(
        stylizing.StyleProgress,
        message,
        content_losses=tuple(message.content_losses),
        style_losses=tuple(message.style_losses),
    )
