"""Messages from a tree of values: the proto JSON mapping, read strictly."""

import binascii
import re

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ..errors import Violation
from . import values


def fill(found: list[Violation], message: Message, value: object, path: str) -> None:
    """Sets a message's fields from an object, noting all that is wrong with it."""
    if not isinstance(value, values.Object):
        found.append(Violation(path or "body", f"is {values.shown(value)}; must be an object"))
        return
    fields = descriptor_of(message).fields
    by_name = {name: field for field in fields for name in (field.name, field.json_name)}
    given: dict[str, str] = {}
    for name, item in value:
        field = by_name.get(name)
        where = _join(path, values.plain(name) if field is None else field.name)
        if field is None:
            known = ", ".join(f.json_name for f in fields) or "none"
            found.append(Violation(where, f"unknown; the fields here are: {known}"))
            continue
        if item is None:
            continue
        group = field.name if field.containing_oneof is None else field.containing_oneof.name
        if group in given:
            once = given[group] == where
            also = (
                "given more than once" if once else f"given beside {given[group]}; only one may be"
            )
            found.append(Violation(where, also))
            continue
        given[group] = where
        if not field.is_repeated:
            _fill_one(found, message, field, item, where)
        elif not isinstance(item, list) or isinstance(item, values.Object):
            found.append(Violation(where, f"is {values.shown(item)}; must be a list"))
        else:
            for place, element in enumerate(item):
                inside = where if field.message_type is None else f"{where}[{place}]"
                _fill_one(found, message, field, element, inside)


def descriptor_of(message: Message) -> Descriptor:
    descriptor = message.DESCRIPTOR
    assert isinstance(descriptor, Descriptor)  # whichever of its implementations runs
    return descriptor


def _fill_one(
    found: list[Violation], message: Message, field: FieldDescriptor, value: object, where: str
) -> None:
    if field.message_type is not None:
        own = getattr(message, field.name)
        inner: Message = own.add() if field.is_repeated else own
        inner.SetInParent()
        fill(found, inner, value, where)
        return
    one = type(message)()
    try:
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(one, field.name, values.decode_base64(value))
        else:
            wanted = [_checked(field, value)] if field.is_repeated else _checked(field, value)
            json_format.ParseDict({field.name: wanted}, one)
    except (json_format.ParseError, binascii.Error):
        found.append(Violation(where, f"is {values.shown(value)}; must be {_wanted(field)}"))
    else:
        message.MergeFrom(one)


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_NUMBER_TYPES = (int, float, str)
_TYPES: dict[int, tuple[type, ...]] = {
    FieldDescriptor.CPPTYPE_BOOL: (bool,),
    FieldDescriptor.CPPTYPE_ENUM: (str, int),
    FieldDescriptor.CPPTYPE_STRING: (str,),
}


def _checked(field: FieldDescriptor, value: object) -> object:
    """The value, if it is of a JSON type that the field's type has: json_format asks less."""
    types = _TYPES.get(field.cpp_type, _NUMBER_TYPES)
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if fits and types is _NUMBER_TYPES and isinstance(value, str):
        fits = value in _NOT_FINITE or NUMBER.fullmatch(value) is not None
    if not fits:
        raise json_format.ParseError
    return value


_WANTED: dict[int, str] = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_INT32: "an integer of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "an integer of 64 bits",
    FieldDescriptor.CPPTYPE_UINT32: "an integer of 32 bits, at least 0",
    FieldDescriptor.CPPTYPE_UINT64: "an integer of 64 bits, at least 0",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_STRING: "a text",
}


def _wanted(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return f"one of {', '.join(v.name for v in field.enum_type.values if v.number)}"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "base64"
    return _WANTED[field.cpp_type]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
