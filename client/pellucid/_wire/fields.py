"""Fields of any message: set from Python values, parsed from texts, read into dataclasses.

What an enum or a parameter may be is read from the contract's descriptors, so that a new method
needs no change here.
"""

from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..errors import BadArgument
from ..v1 import data_pb2, inference_pb2
from .arrays import array_of


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


_T = TypeVar("_T", bound=_Dataclass)


def set_fields(message: Message, **values: Any) -> None:
    """Sets the fields of a message that are not None; enums are lower-case short names."""
    for name, value in values.items():
        if value is None:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        try:
            if field.message_type is not None:
                _set_message(getattr(message, name), name, value)
            elif field.enum_type is None:
                _set_scalar(message, name, value)
            elif isinstance(value, str):
                setattr(message, name, _number(field.enum_type, value))
            else:
                getattr(message, name).extend(_number(field.enum_type, v) for v in value)
        except BadArgument as error:  # of a field of the field
            raise BadArgument(f"{name}.{error}") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise BadArgument(f"{name}: is {value!r}; {error}") from None


def check_names(name: str, message: Message, parameters: Iterable[str]) -> None:
    known = message.DESCRIPTOR.fields_by_name
    unknown = [str(parameter) for parameter in parameters if parameter not in known]
    if unknown:
        raise BadArgument(
            f"{', '.join(unknown)}: not a parameter of {name}, "
            f"which has {', '.join(known) or 'none'}"
        )


def parse(name: str, field: Any, text: str) -> Any:
    """A number or a truth value where the field is one; the text itself elsewhere."""
    if field.message_type is None and field.enum_type is None:
        return _parse_scalar(name, field.cpp_type, text)
    return text


def read(kind: type[_T], message: Message, **given: Any) -> _T:
    """A dataclass of a message's fields of the same names, but for those that are given."""
    names = [name for name in kind.__dataclass_fields__ if name not in given]
    return kind(**{name: getattr(message, name) for name in names}, **given)


def short_name(message: Message, name: str) -> str:
    """The lower-case short name of an enum's value; its number where the contract is newer."""
    enum: Any = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = getattr(message, name)
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enum)).lower()


def parameters_of(method: Message) -> dict[str, Any]:
    return {
        field.name: parameter_of(method, field)
        for field in method.DESCRIPTOR.fields
        if (method.HasField(field.name) if field.has_presence else getattr(method, field.name))
    }


def parameter_of(method: Message, field: Any) -> Any:
    value = getattr(method, field.name)
    if isinstance(value, data_pb2.Tensor):
        return array_of(value)
    if isinstance(value, Message):
        return parameters_of(value)
    return short_name(method, field.name) if field.enum_type else value


def _set_scalar(message: Message, name: str, value: Any) -> None:
    several = getattr(message, name)
    if not isinstance(several, MutableSequence):
        setattr(message, name, value)
    elif isinstance(value, str):
        raise TypeError("must be a sequence of strings")
    else:
        several.extend(value)


def _set_message(message: Message, name: str, value: Any) -> None:
    """Sets a message: from its fields, or a baseline from a fill or an array."""
    message.SetInParent()
    if isinstance(message, inference_pb2.Baseline) and isinstance(value, str):
        value = {"fill": value}
    if isinstance(message, inference_pb2.Baseline) and isinstance(value, np.ndarray):
        value = {"tensor": value}
    if isinstance(message, data_pb2.Tensor):
        array = np.asarray(value, dtype="<f4")
        message.data_type = data_pb2.DATA_TYPE_FLOAT32
        message.shape.extend(array.shape)
        message.data = array.tobytes()
    elif isinstance(value, Mapping):
        check_names(name, message, value)
        set_fields(message, **value)
    else:
        raise TypeError("must be a mapping of its fields")


def _parse_scalar(name: str, kind: int, text: str) -> Any:
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BadArgument(f"{name}: is {text!r}; must be true or false")
    numeric = {
        FieldDescriptor.CPPTYPE_INT32: int,
        FieldDescriptor.CPPTYPE_INT64: int,
        FieldDescriptor.CPPTYPE_DOUBLE: float,
    }
    try:
        return numeric.get(kind, str)(text)
    except ValueError:
        raise BadArgument(f"{name}: is {text!r}; must be a number") from None


def _prefix(enum: Any) -> str:
    return str(enum.values_by_number[0].name.removesuffix("UNSPECIFIED"))


def _number(enum: Any, short: str) -> int:
    names: dict[str, int] = {
        value.name.removeprefix(_prefix(enum)).lower(): value.number
        for value in enum.values
        if value.number
    }
    if short not in names:
        raise ValueError(f"must be {' or '.join(map(repr, names))}")
    return names[short]
