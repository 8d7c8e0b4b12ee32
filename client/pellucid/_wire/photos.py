"""Whatever a photo is given as, as it is sent."""

import hashlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import types
from ..errors import BadArgument, PhotoNotFound
from ..v1 import data_pb2
from .arrays import DTYPES


def loaded(photo: types.Photo) -> bytes | NDArray[np.uint8] | NDArray[np.float32]:
    """A photo as it is sent, read or encoded once for many requests."""
    image = image_of(photo)
    return photo if isinstance(photo, np.ndarray) else image.encoded


def listed(photos: Sequence[types.Photo]) -> list[types.Photo]:
    """Several photos, each checked.

    Raises:
        BadArgument: It is one, or has what is none.
    """
    if isinstance(photos, str | bytes | os.PathLike | np.ndarray):
        raise BadArgument("photos: is one photo; must be a sequence of them")
    return [checked(photo) for photo in photos]


def checked(photo: types.Photo) -> types.Photo:
    """It, where it is of a kind that a photo can be; no file is read.

    Raises:
        BadArgument: It is none.
    """
    if isinstance(photo, np.ndarray):
        _element_type(photo)
    elif not (isinstance(photo, bytes | str | os.PathLike) or _is_pil(photo)):
        raise BadArgument(
            f"photo: is {type(photo).__name__}; must be a path, the bytes of an image file, a PIL "
            "image or a NumPy array"
        )
    return photo


def image_of(photo: types.Photo) -> data_pb2.Image:
    photo = checked(photo)
    if isinstance(photo, bytes):
        return data_pb2.Image(encoded=photo)
    if isinstance(photo, str | os.PathLike):
        return data_pb2.Image(encoded=_read_file(photo))
    if isinstance(photo, np.ndarray):
        return data_pb2.Image(tensor=_image_tensor(photo))
    return data_pb2.Image(encoded=_png(photo))


def images_of(photos: Sequence[types.Photo]) -> list[data_pb2.Image]:
    return [image_of(photo) for photo in listed(photos)]


def sha256_of(image: data_pb2.Image) -> str:
    """Of a file; of a tensor, with its type and shape before its bytes: see Receipt."""
    sent = image.encoded
    if image.HasField("tensor"):
        tensor = image.tensor
        line = " ".join(map(str, (np.dtype(DTYPES[tensor.data_type]).name, *tensor.shape)))
        sent = f"{line}\n".encode() + tensor.data
    return hashlib.sha256(sent).hexdigest()


def _is_pil(photo: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # whoever has a PIL image has imported it
    return pil is not None and isinstance(photo, pil.Image)


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise PhotoNotFound(f"photo: there is no file {os.fspath(path)}") from None
    except (OSError, ValueError) as error:
        raise BadArgument(f"photo: {os.fspath(path)!r} cannot be read: {error}") from error


def _element_type(array: NDArray[Any]) -> data_pb2.DataType:
    dtype, shape = array.dtype.name, array.shape
    if dtype == "uint8" and array.ndim == 3 and shape[2] == 3:
        return data_pb2.DATA_TYPE_UINT8
    if dtype == "float32" and array.ndim == 3 and shape[0] == 3:
        return data_pb2.DATA_TYPE_FLOAT32
    raise BadArgument(
        f"photo: is an array of {dtype} {' × '.join(map(str, shape)) or 'without axes'}; must "
        "be uint8 height × width × 3 (a photo) or float32 3 × height × width (an input "
        "already preprocessed)"
    )


def _image_tensor(array: NDArray[Any]) -> data_pb2.Tensor:
    data_type = _element_type(array)
    data = array.astype(DTYPES[data_type], copy=False).tobytes()
    return data_pb2.Tensor(data_type=data_type, shape=array.shape, data=data)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, "PNG", compress_level=1)  # as lossless as the slow levels
    except OSError as error:
        raise BadArgument(f"photo: is a PIL image that PNG cannot hold: {error}") from error
    return file.getvalue()
