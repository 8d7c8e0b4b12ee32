"""Between Python arguments and the messages of universal perturbations."""

from collections.abc import Mapping
from typing import Any

from . import _attack, types
from ._wire.arrays import array_of
from ._wire.fields import read, set_fields
from .universal import PhotoOutcome, Universal
from .v1 import attack_pb2, optimize_pb2

METHOD = "universal"


def universal_request(
    *,
    model: str,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> optimize_pb2.OptimizeSpec:
    """What is asked, but for the photos and a checkpoint."""
    spec = optimize_pb2.OptimizeSpec()
    set_fields(spec, model=model, include_pixels=include_pixels)
    _attack.set_method(spec.attack, METHOD, parameters)
    return spec


def universal(message: attack_pb2.UniversalResult) -> Universal:
    """What came of a set of photos."""
    return read(
        Universal,
        message,
        perturbation=array_of(message.perturbation),
        encoded=message.picture.data,
        photos=tuple(
            PhotoOutcome(
                read(types.Prediction, photo.before),
                read(types.Prediction, photo.after),
            )
            for photo in message.photos
        ),
    )
