"""Messages' fields as values, and back: every violation is noted, none hides another."""

import copy
import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from pellucid import render
from pellucid.v1 import data_pb2
from torch import Tensor

from ..errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PellucidError,
    Violation,
    quoted,
)
from ..methods.parameters import (
    Choice,
    Flag,
    Inputs,
    Known,
    LayerName,
    Nested,
    Number,
    Parameters,
)
from ..models.layers import Layer, default_spatial_layer
from ..models.registry import Model

_P = TypeVar("_P", bound=Parameters)


class Violations:
    """Collects all that is wrong with a request, to say it at once."""

    def __init__(self) -> None:
        self._path = ""
        self._found: list[Violation] = []
        self._missing: list[Violation] = []
        self._refused: list[Violation] = []

    def __len__(self) -> int:
        return len(self._found) + len(self._missing) + len(self._refused)

    def inside(self, path: str) -> "Violations":
        """The same collection, for a message inside the request: its fields get its path."""
        inner = copy.copy(self)
        inner._path = f"{self._path}{path}."
        return inner

    def invalid(self, field: str, description: str) -> None:
        self._found.append(Violation(self._path + field, description))

    def missing(self, field: str, description: str) -> None:
        """What a field names does not exist."""
        self._missing.append(Violation(self._path + field, description))

    def refused(self, field: str, description: str) -> None:
        """The model cannot do it."""
        self._refused.append(Violation(self._path + field, description))

    def error(self) -> PellucidError | None:
        """The gravest kind of what was found, with everything that was; None: nothing was."""
        everything = [*self._found, *self._missing, *self._refused]
        message = "; ".join(f"{v.field}: {v.description}" for v in everything)
        if self._found:
            return InvalidArgument(message, violations=everything)
        if self._missing:
            return NotFound(message, violations=everything)
        if self._refused:
            return FailedPrecondition(message, violations=everything)
        return None

    def raise_any(self) -> None:
        error = self.error()
        if error is not None:
            raise error


class Fields:
    """Reads the scalars of one message, and notes those that are out of range."""

    def __init__(self, found: Violations, path: str, message: Message) -> None:
        self.found, self.path, self.message = found, path, message

    def invalid(self, field: str, description: str) -> None:
        self.found.invalid(f"{self.path}.{field}" if self.path else field, description)

    def has(self, field: str) -> bool:
        """Whether it was set; an enum is, where it is not unspecified."""
        descriptor = self.message.DESCRIPTOR.fields_by_name[field]
        if descriptor.has_presence:
            return self.message.HasField(field)
        return bool(getattr(self.message, field))

    def number(
        self,
        field: str,
        default: Any,
        least: float,
        most: float | None,
        *,
        above: bool = False,
        because: str = "",
    ) -> Any:
        """A number from least to most; without most, what bounds it is not known.

        Args:
            field: Its name.
            default: Where it is not set.
            least: Included, unless above.
            most: Included.
            above: Whether it is to be more than least.
            because: Why it is to be so, where that is not plain.
        """
        if not self.has(field):
            return default
        value = getattr(self.message, field)
        enough = value > least if above else value >= least  # NaN is neither
        if not (enough and (most is None or value <= most)):
            why = f": {because}" if because else ""
            self.invalid(field, outside(value, least, most, above=above) + why)
        return value

    def choice(self, field: str, default: str) -> str:
        """An enum's value, by its short lower-case name."""
        enum = self.message.DESCRIPTOR.fields_by_name[field].enum_type
        assert enum is not None
        number = getattr(self.message, field)
        if not number:
            return default
        names = short_names(enum)
        if number not in names:
            allowed = [value.name for value in enum.values if value.number]
            self.invalid(field, f"is {number}; must be {one_of(allowed)}")
        return names.get(number, default)


def one_of(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def short_names(enum: Any) -> Mapping[int, str]:
    """The values of an enum by number, without its prefix and its unspecified one."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {v.number: v.name.removeprefix(prefix).lower() for v in enum.values if v.number}


def number_of(enum: Any, short_name: str) -> int:
    """The number of an enum's value, from its short lower-case name."""
    return next(number for number, name in short_names(enum).items() if name == short_name)


# Methods: their parameters say themselves what they may be.


def read_parameters(
    found: Violations,
    path: str,
    message: Message,
    kind: type[_P],
    model: Model | None,
    tap: str | None,
    defaults: Mapping[str, Any] | None = None,
) -> _P | None:
    """A message as the dataclass of its parameters; None where something is wrong with it.

    Args:
        found: Where all that is wrong is noted.
        path: Of the message in the request.
        message: What is read.
        kind: Its fields are named as the message's are.
        model: None where the request names one that is not there.
        tap: Where the target is in the network, if that is known.
        defaults: Of parameters that have others here.
    """
    fields = Fields(found, path, message)
    before = len(found)
    values = _read_values(fields, kind, model, tap, defaults or {})
    if model is None or any(values[f.name] is None for f in _required(kind)):
        return None
    made = kind(**values)
    for name, why in made.irrelevant().items():
        if fields.has(name):
            fields.invalid(name, why)
    if len(found) == before:
        for name, why in made.contradictions(model).items():
            fields.invalid(name, why)
    return made if len(found) == before else None


def read_plain(found: Violations, path: str, message: Message, kind: type[_P]) -> _P | None:
    """The same of parameters that no model has a say in."""
    before = len(found)
    values = _read_values(Fields(found, path, message), kind, None, None, {})
    return kind(**values) if len(found) == before else None


def _read_values(
    fields: Fields,
    kind: type[Parameters],
    model: Model | None,
    tap: str | None,
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """Parameters by name; None where one is missing or cannot be told."""
    found, path, message = fields.found, fields.path, fields.message
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name, parameter = field.name, field.metadata["parameter"]
        known = Known(model, values)
        match parameter:
            case Number(default, least, most, above, because):
                values[name] = fields.number(
                    name,
                    _value(defaults.get(name, default), known),
                    least,
                    _value(most, known),
                    above=above,
                    because=because,
                )
            case Choice(default):
                values[name] = fields.choice(name, _value(defaults.get(name, default), known))
            case Flag(default):
                default = _value(default, known)
                values[name] = getattr(message, name) if fields.has(name) else default
            case LayerName():
                values[name] = _read_layer(fields, name, model, tap)
            case Nested(inner, inner_defaults):
                values[name] = read_parameters(
                    found,
                    f"{path}.{name}",
                    getattr(message, name),
                    inner,
                    model,
                    tap,
                    dict(inner_defaults),
                )
            case Inputs(several):
                values[name] = (
                    _read_inputs(fields, name, model, several) if fields.has(name) else None
                )
    return values


def _required(kind: type[Parameters]) -> Iterator[dataclasses.Field[Any]]:
    """The parameters that cannot be left out, or that have defaults."""
    for field in dataclasses.fields(kind):
        if not isinstance(field.metadata["parameter"], Inputs) and field.default is not None:
            yield field


def write_parameters(made: Parameters, message: Message, *, tensors: bool) -> None:
    """Fills in a message from the dataclass of its parameters; what does not matter is left."""
    message.SetInParent()
    irrelevant = made.irrelevant()
    for field in dataclasses.fields(made):
        name, value = field.name, getattr(made, field.name)
        if name in irrelevant or value is None:
            continue
        match field.metadata["parameter"]:
            case Choice():
                enum = message.DESCRIPTOR.fields_by_name[name].enum_type
                assert enum is not None
                setattr(message, name, number_of(enum, value))
            case Nested():
                write_parameters(value, getattr(message, name), tensors=tensors)
            case Inputs():
                if tensors:
                    getattr(message, name).CopyFrom(write_tensor(value))
            case _:
                setattr(message, name, value)


def _value(bound: Any, known: Known) -> Any:
    """A bound or a default that may follow from what is known."""
    return bound(known) if callable(bound) else bound


def _read_layer(fields: Fields, field: str, model: Model | None, tap: str | None) -> str | None:
    name: str = getattr(fields.message, field)
    if model is None or tap is None:
        return name or None
    fitting = model.network.spatial_layers(tap)
    where = f"{fields.path}.{field}"
    if not fields.has(field):
        if not fitting:
            fields.found.refused(where, "no layer with maps or patches comes before the target")
            return None
        return default_spatial_layer(fitting).name
    layer = find_layer(fields.found, where, name, model)
    if layer is None or any(layer.name == other.name for other in fitting):
        return name
    if not layer.spatial:
        why = why_not(layer) if not layer.targetable else f"its output is {times(layer.shape)}"
        fields.found.refused(where, f"{name} has no maps or patches that reach the output: {why}")
    else:
        fields.invalid(field, f"is {name}, which does not come before the target; must")
    return name


def find_layer(found: Violations, where: str, name: str, model: Model) -> Layer | None:
    """The layer of that name; noted as missing where there is none."""
    layer = model.network.layer(name)
    opaque = model.network.white_box_refusal
    if opaque is not None:
        found.refused(where, opaque)
    elif layer is None:
        names = [known.name for known in model.network.layers]
        found.missing(
            where,
            f"{quoted(name)} is not a layer of {model.name}{like(name, names)}; "
            "GetModel lists them",
        )
    return layer


def why_not(layer: Layer) -> str:
    """Why a layer cannot be a target."""
    return layer.note or f"its output of {times(layer.shape)} is neither channels nor maps"


def _read_inputs(fields: Fields, field: str, model: Model | None, several: bool) -> Tensor | None:
    where = f"{fields.path}.{field}"
    array = read_tensor(fields.found, where, getattr(fields.message, field))
    if array is None or model is None:
        return None
    expected = (3, model.network.height_px, model.network.width_px)
    if array.dtype != np.float32:
        fields.invalid(f"{field}.data_type", f"is {array.dtype.name}; must be float32")
    elif array.shape[-3:] != expected or array.ndim > 3 + several:
        many = " or n × " + times(expected) if several else ""
        fields.invalid(
            f"{field}.shape", f"is {times(array.shape)}; must be {times(expected)}{many}"
        )
    else:
        check_finite(fields.found, where, array)
        return torch.tensor(array)
    return None


# Tensors.

DTYPES: Mapping[int, np.dtype[Any]] = {
    data_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    data_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    data_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    data_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    data_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
}

_MOST_AXES = 4
"""Of a tensor in a request."""


def read_tensor(found: Violations, field: str, tensor: data_pb2.Tensor) -> NDArray[Any] | None:
    """A tensor as an array that shares its bytes; None where something is wrong with it."""
    dtype = DTYPES.get(tensor.data_type)
    shape = tuple(tensor.shape[: _MOST_AXES + 1])
    if dtype is None:
        allowed = one_of([data_pb2.DataType.Name(number) for number in DTYPES])
        found.invalid(f"{field}.data_type", f"is {tensor.data_type}; must be {allowed}")
    elif len(tensor.shape) > _MOST_AXES:
        found.invalid(f"{field}.shape", f"has {len(tensor.shape)} axes; at most {_MOST_AXES}")
    elif not shape or min(shape) < 1:
        found.invalid(f"{field}.shape", f"is {times(shape)}; every length must be at least 1")
    elif (expected := math.prod(shape) * dtype.itemsize) != len(tensor.data):
        found.invalid(
            f"{field}.data",
            f"has {len(tensor.data)} bytes; {times(shape)} of {dtype.name} takes {expected}",
        )
    else:
        return np.frombuffer(tensor.data, dtype).reshape(shape)
    return None


def check_finite(found: Violations, field: str, array: NDArray[Any]) -> None:
    """Notes a tensor that has elements that are not finite, and where the first is."""
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        found.invalid(
            f"{field}.data",
            f"has {int((~finite).sum())} elements that are not finite, the first at {first}; "
            "all must be finite",
        )


def write_tensor(tensor: Tensor) -> data_pb2.Tensor:
    """A tensor on the host as a message: float32, or what it is of half floats and integers."""
    data_type, dtype = data_pb2.DATA_TYPE_FLOAT32, torch.float32
    if not tensor.is_floating_point():
        data_type, dtype = data_pb2.DATA_TYPE_INT64, torch.int64
    elif tensor.dtype is torch.float16:
        data_type, dtype = data_pb2.DATA_TYPE_FLOAT16, torch.float16
    array = np.ascontiguousarray(tensor.to(dtype).numpy(), dtype=DTYPES[data_type])
    return data_pb2.Tensor(data_type=data_type, shape=array.shape, data=array.tobytes())


def write_picture(picture: Any, file_format: render.Format) -> data_pb2.EncodedImage:
    """A PIL image as a file."""
    number = number_of(data_pb2.ImageFormat.DESCRIPTOR, file_format)
    return data_pb2.EncodedImage(
        format=cast(data_pb2.ImageFormat, number),
        data=render.encode(picture, file_format),
        width_px=picture.width,
        height_px=picture.height,
    )


_PICTURE_BYTES = 3.05
"""Of a pixel of noise in a PNG, by measurement; in a JPEG it has 2.5."""
_BESIDE_BYTES = 2 << 10
"""Of a picture's file besides, and of what is told of an image."""


def most_picture_bytes(pixel_count: int) -> int:
    """Of a picture's file, whatever is on it."""
    return math.ceil(_PICTURE_BYTES * pixel_count) + _BESIDE_BYTES


def check_sendable(
    found: Violations,
    method: str,
    include_pixels: bool,
    count: int,
    pixel_count: int,
    byte_count: int,
    most_bytes: int,
) -> None:
    """So many images of so many pixels each may take so many bytes; the most are what is sent.

    Args:
        found: Where violations are noted.
        method: The field of what asks for them.
        include_pixels: Whether they come as numbers, too.
        count: Of images.
        pixel_count: Of each.
        byte_count: Of all of them.
        most_bytes: What is sent.
    """
    if byte_count > most_bytes:
        pixels = ", as numbers too" if include_pixels else ""
        found.invalid(
            "include_pixels" if include_pixels else method,
            f"{count} images of {pixel_count} pixels{pixels} may take {byte_count} bytes; at most "
            f"{most_bytes} are sent: ask for fewer or smaller ones"
            + (", or none as numbers" if include_pixels else ""),
        )


# Words.


def times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"


def outside(value: float, least: float, most: float | None, *, above: bool = False) -> str:
    if above:
        allowed = f"more than {least:g}" + ("" if most is None else f", at most {_plain(most)}")
    else:
        allowed = f"at least {least:g}" if most is None else f"{least:g} to {_plain(most)}"
    return f"is {value}; must be {allowed}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def like(name: str, known: Sequence[str]) -> str:
    """The names that are closest, for the end of a sentence."""
    lowered = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name[:100].casefold(), lowered, n=3)
    return f"; close to it: {', '.join(lowered[c] for c in close)}" if close else ""
