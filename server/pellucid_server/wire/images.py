"""Images of requests: as they are sent, or preprocessed already."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pellucid.v1 import data_pb2

from .. import photos
from ..inputs import ArrayPhoto, EncodedPhoto, PhotoSource, PreparedInput
from ..models.registry import Model
from .fields import (
    DTYPES,
    Violations,
    check_finite,
    read_tensor,
    times,
)
from .limits import Limits


def read_image(
    found: Violations,
    image: data_pb2.Image,
    model: Model | None,
    limits: Limits,
    canvas_px: int | None,
    field: str = "image",
) -> PhotoSource | None:
    """An image; None where something is wrong with it."""
    kind = image.WhichOneof("kind")
    if kind is None:
        found.invalid(field, "required; either encoded or tensor")
        return None
    if kind == "encoded":
        try:
            header = photos.read_header(image.encoded, max_pixels=limits.max_photo_pixels)
        except photos.BadPhoto as error:
            found.invalid(f"{field}.encoded", str(error))
            return None
        return EncodedPhoto(image.encoded, limits.max_photo_pixels, canvas_px, header, field)
    field = f"{field}.tensor"
    array = read_tensor(found, field, image.tensor)
    if array is None:
        return None
    if array.dtype == np.uint8:
        return _read_photo_tensor(found, field, array, limits, canvas_px)
    if array.dtype == np.float32:
        return _read_prepared_tensor(found, field, array, model, canvas_px)
    found.invalid(
        f"{field}.data_type", f"is {DTYPES[image.tensor.data_type].name}; {_IMAGE_TENSORS}"
    )
    return None


_IMAGE_TENSORS = "must be uint8 height × width × 3 (a photo) or float32 3 × height × width"


def _read_photo_tensor(
    found: Violations, field: str, array: NDArray[Any], limits: Limits, canvas_px: int | None
) -> PhotoSource | None:
    if array.ndim != 3 or array.shape[2] != 3:
        found.invalid(f"{field}.shape", f"is {times(array.shape)}; {_IMAGE_TENSORS}")
    elif array.shape[0] * array.shape[1] > limits.max_photo_pixels:
        found.invalid(
            f"{field}.shape",
            f"has {array.shape[0] * array.shape[1]} pixels; at most {limits.max_photo_pixels}",
        )
    else:
        return ArrayPhoto(array, canvas_px)
    return None


def _read_prepared_tensor(
    found: Violations,
    field: str,
    array: NDArray[Any],
    model: Model | None,
    canvas_px: int | None,
) -> PhotoSource | None:
    if model is None:
        return None
    expected = (3, model.network.height_px, model.network.width_px)
    if array.shape != expected:
        found.invalid(
            f"{field}.shape",
            f"is {times(array.shape)}; an input already preprocessed (float32) for "
            f"{model.name} is {times(expected)}, a photo is uint8 height × width × 3",
        )
        return None
    before = len(found)
    check_finite(found, field, array)
    if len(found) > before:
        return None
    return PreparedInput(array, canvas_px)
