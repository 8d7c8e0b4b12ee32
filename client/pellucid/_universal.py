"""Between Python arguments and the messages of universal perturbations."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import _attack, _wire, types
from .universal import PhotoOutcome, Universal
from .v1 import attack_pb2, optimize_pb2

METHOD = "universal"


def universal_request(
    photos: "Sequence[types.Photo]",
    *,
    model: str,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> optimize_pb2.OptimizeSpec:
    """What is asked, but for a checkpoint."""
    spec = optimize_pb2.OptimizeSpec(photos=_wire._images(photos))
    _wire._set(spec, model=model, include_pixels=include_pixels)
    _attack.set_method(spec.attack, METHOD, parameters)
    return spec


def universal(message: attack_pb2.UniversalResult) -> Universal:
    """What came of a set of photos."""
    return _wire._read(
        Universal,
        message,
        perturbation=_wire._array(message.perturbation),
        encoded=message.picture.data,
        photos=tuple(
            PhotoOutcome(
                _wire._read(types.Prediction, photo.before),
                _wire._read(types.Prediction, photo.after),
            )
            for photo in message.photos
        ),
    )
