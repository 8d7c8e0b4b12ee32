"""Tensors as the Open Inference Protocol writes them: raw bytes, or values one by one."""

import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import values as json_values

BYTES = "BYTES"
_LENGTH_BYTES = 4
_ELEMENT_BYTES = {"FP32": 4, "UINT8": 1}

Elements = bytes | list[bytes]
"""Those of a tensor: little-endian and row-major; of BYTES, each by itself."""


class Malformed(ValueError):
    """What a tensor's elements are, and must not be."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of FP32, UINT8 or BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Elements

    @property
    def byte_count(self) -> int:
        """How long it is as raw bytes."""
        if isinstance(self.elements, bytes):
            return len(self.elements)
        return sum(_LENGTH_BYTES + len(element) for element in self.elements)

    @property
    def raw(self) -> bytes:
        """Its elements as raw bytes."""
        if isinstance(self.elements, bytes):
            return self.elements
        return join(self.elements)


def read(datatype: str, shape: Sequence[int], contents: bytes | Sequence[object]) -> Elements:
    """The elements of a tensor.

    Args:
        datatype: FP32, UINT8 or BYTES.
        shape: Its axes, each at least 1 long.
        contents: Raw bytes; or values, flat or in lists as deep as the shape. An element of
            BYTES is then bytes, or a text in base64, since JSON has no bytes.

    Raises:
        Malformed: They do not fit the datatype or the shape.
    """
    if isinstance(contents, bytes):
        return _read_raw(datatype, shape, contents)
    return _read_values(datatype, shape, contents)


def join(elements: Sequence[bytes]) -> bytes:
    """Elements of BYTES as raw bytes: each with its length before it."""
    return b"".join(
        part
        for element in elements
        for part in (len(element).to_bytes(_LENGTH_BYTES, "little"), element)
    )


def times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a single element"


def _read_raw(datatype: str, shape: Sequence[int], data: bytes) -> Elements:
    count = math.prod(shape)
    if datatype == BYTES:
        return _split(data, count)
    needed = count * _ELEMENT_BYTES[datatype]
    if len(data) != needed:
        raise Malformed(f"has {len(data)} bytes; {datatype} of {times(shape)} takes {needed}")
    return data


def _split(data: bytes, count: int) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    for index in range(count):
        start = at + _LENGTH_BYTES
        if start > len(data):
            raise Malformed(f"ends before element {index} of {count}: after {len(data)} bytes")
        length = int.from_bytes(data[at:start], "little")
        at = start + length
        if at > len(data):
            left = len(data) - start
            raise Malformed(f"says that element {index} has {length} bytes; {left} are left")
        elements.append(data[start:at])
    if at < len(data):
        raise Malformed(f"has {len(data) - at} bytes after the last of {count} elements")
    return elements


def _read_values(datatype: str, shape: Sequence[int], given: Sequence[object]) -> Elements:
    flat = _flatten(shape, given)
    if len(flat) != math.prod(shape):
        raise Malformed(f"has {len(flat)} elements; {times(shape)} takes {math.prod(shape)}")
    match datatype:
        case "FP32":
            return _read_numbers(flat)
        case "UINT8":
            if not all(type(value) is int and 0 <= value <= 255 for value in flat):
                raise Malformed("has an element that is not an integer from 0 to 255")
            return bytes(flat)
        case _:
            return [_read_bytes(element) for element in flat]


def _flatten(shape: Sequence[int], given: Sequence[Any]) -> Sequence[Any]:
    if not given or type(given[0]) is not list:
        return given
    level: list[Any] = [given]
    for length in shape:
        if not all(type(inner) is list and len(inner) == length for inner in level):
            raise Malformed(f"is neither flat nor nested as {times(shape)}")
        level = [element for inner in level for element in inner]
    return level


def _read_numbers(flat: Sequence[Any]) -> bytes:
    if not all(type(value) in (int, float) for value in flat):
        raise Malformed("has an element that is not a number")
    try:
        with np.errstate(over="ignore"):  # infinities are found with the tensor's other faults
            return np.array(flat, "<f4").tobytes()
    except OverflowError:
        raise Malformed("has a number that is too large") from None


def _read_bytes(element: object) -> bytes:
    if isinstance(element, bytes):
        return element
    try:
        return json_values.decode_base64(element)
    except binascii.Error:
        raise Malformed(f"has {json_values.shown(element)}, which is not base64") from None
