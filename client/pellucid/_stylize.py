"""Between Python arguments and the messages of stylized images: the core of both clients."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import optimizing, stylizing, types
from ._wire.arrays import array_of
from ._wire.fields import parameter_of, parse, read, set_fields, short_name
from ._wire.responses import run_of
from .errors import BadArgument, PhotoNotFound
from .v1 import data_pb2, stylize_pb2, video_pb2

_METHODS = {"neural": stylize_pb2.Neural.DESCRIPTOR, "fast": stylize_pb2.Fast.DESCRIPTOR}
_LAYERS = ("content_layers", "style_layers")
PARAMETERS = {
    method: tuple(name for name in kind.fields_by_name if name not in (*_LAYERS, "styles"))
    for method, kind in _METHODS.items()
}
"""Everything that a method can be told besides its layers and styles."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]*")
"""Of a style: so spelled that no path with a suffix or a folder is one."""


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
    resume_from: "optimizing.Checkpoint | bytes | None",
    parameters: Mapping[str, Any],
) -> "tuple[stylize_pb2.StylizeSpec, list[tuple[data_pb2.Image, types.Photo]]]":
    """What is asked, but for a checkpoint; and the photos, each with the field that it goes to."""
    known_ones = _parameters_of(method)
    unknown = [name for name in parameters if name not in known_ones]
    if unknown:
        known = ", ".join(known_ones)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of {method}, which has {known}")
    spec = stylize_pb2.StylizeSpec()
    settings = getattr(spec, method)
    settings.SetInParent()
    for name, given in {
        "start_image": start_image,
        "content_layers": content_layers,
        "style_layers": style_layers,
        "resume_from": resume_from,
    }.items():
        if method == "fast" and given is not None:
            raise BadArgument(f"{name}: is for method='neural'")
    if start_image is not None:
        parameters = {"start": "image", **parameters}
    set_fields(spec, model=model, format=format, include_pixels=include_pixels)
    set_fields(settings, **parameters)
    for name, layers in zip(_LAYERS, (content_layers, style_layers), strict=True):
        weighted = layers if isinstance(layers, Mapping) else dict.fromkeys(layers or ())
        for layer, weight in weighted.items():
            set_fields(getattr(spec.neural, name).add(layer=layer), weight=weight)
    photos = [(spec.content, photo), *add_styles(spec, styles, names=method == "fast")]
    for image, other in ((spec.mask, mask), (spec.start, start_image)):
        if other is not None:
            photos.append((image, other))
    return spec, photos


def add_styles(
    spec: "stylize_pb2.StylizeSpec | video_pb2.StylizeVideoSpec",
    styles: "stylizing.Styles",
    *,
    names: bool,
) -> "Iterator[tuple[data_pb2.Image, types.Photo]]":
    """Adds styles to what is asked: names, where those can be, and pictures, each returned."""
    for place, one in enumerate(_listed(styles)):
        style, weight = one if isinstance(one, tuple) else (one, None)
        if isinstance(style, str) and _NAME.fullmatch(style):
            if names:
                set_fields(spec.fast.styles.add(name=style), weight=weight)
                continue
            if not Path(style).is_file():
                raise PhotoNotFound(
                    f"styles[{place}]: there is no file {style}; if it is the name of a style, "
                    "that is for method='fast' (--fast)"
                )
        made = spec.styles.add()
        set_fields(made, weight=weight)
        yield made.image, style


def _parameters_of(method: str) -> Sequence[str]:
    if method not in PARAMETERS:
        raise BadArgument(f"method: is {method!r}; must be {' or '.join(PARAMETERS)}")
    return PARAMETERS[method]


def _listed(styles: Any) -> Sequence[Any]:
    """Several, or one, alone or with its weight."""
    if isinstance(styles, tuple) and len(styles) == 2 and isinstance(styles[1], int | float):
        return [styles]
    return styles if isinstance(styles, list | tuple) else [styles]


def parameter(text: str, method: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS[method]:
        known = ", ".join(PARAMETERS[method])
        raise BadArgument(f"--parameter: is {text!r}; must be NAME=VALUE, where names are {known}")
    return name, parse(name, _METHODS[method].fields_by_name[name], value)


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
    method = message.WhichOneof("asked") or "neural"
    asked, fields = getattr(message, method), _METHODS[method].fields_by_name
    return stylizing.Stylized(
        encoded=message.image.data,
        format=short_name(message.image, "format"),
        pixels=array_of(message.pixels) if message.HasField("pixels") else None,
        parameters={
            name: parameter_of(asked, field)
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
        run=run_of(message.run),
    )


def networks(response: stylize_pb2.ListStylesResponse) -> tuple[stylizing.StyleNetwork, ...]:
    """The networks of a server."""
    return tuple(
        read(stylizing.StyleNetwork, one, styles=tuple(one.styles)) for one in response.networks
    )


def _progress(message: stylize_pb2.StylizeProgress) -> stylizing.StyleProgress:
    return read(
        stylizing.StyleProgress,
        message,
        content_losses=tuple(message.content_losses),
        style_losses=tuple(message.style_losses),
    )
