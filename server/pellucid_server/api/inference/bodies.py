"""Bodies of the HTTP protocols: V2's JSON, with tensors after it or in it, and V1's."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pellucid.v1 import data_pb2, inference_pb2

from ...engine.admission import Held
from ...errors import InvalidArgument, Violation
from ...wire import MOST_IMAGES
from .. import forms, values
from ..service import check_size
from .bundles import Bundle
from .infer import Inferred
from .requests import (
    MOST_NAMED,
    OUTPUTS,
    TARGET,
    InferInput,
    InferOutput,
    InferRequest,
    Parameter,
    fill,
    in_shared_memory,
)
from .tensors import BYTES, Malformed, Tensor, read

HEADER_LENGTH = "inference-header-content-length"
"""The header of how many bytes of a body are JSON, before tensors as raw bytes."""

BINARY, BINARY_SIZE, BINARY_OUTPUT = "binary_data", "binary_data_size", "binary_data_output"

_MOST_VALUES = 200_000
"""Values in a JSON body: an input of 224 × 224 pixels has 150,528. Raw bytes are for more."""

_MOST_TIMEOUT_MS = 1 << 53
"""A longer one is cut, as the server cuts it again."""

_MOST_AXIS = 1 << 31

_LEAST_VALUE_BYTES = 2
"""A digit and a comma."""


@dataclass(frozen=True)
class InferBody:
    """A body of V2's infer.

    Attributes:
        request: What it asks.
        binary: Which outputs are returned as raw bytes, by name.
        binary_rest: Whether those are that are not in binary.
    """

    request: InferRequest
    binary: Mapping[str, bool]
    binary_rest: bool

    def is_binary(self, output: str) -> bool:
        return self.binary.get(output, self.binary_rest)


# V2.


def read_infer_body(
    body: bytes,
    header_lengths: Sequence[str],
    query: Sequence[str] = (),
    held: Held | None = None,
) -> InferBody:
    """A body of V2's infer.

    Args:
        body: All of it.
        header_lengths: The values of the header HEADER_LENGTH.
        query: Names in the query, none of which is known.
        held: As of values.parse_json.

    Raises:
        InvalidArgument: It cannot be read; what else is wrong with it is found in the request.
    """
    length = _header_length(header_lengths, len(body))
    if length == 0:
        # A raw body is one element of the one input: here, a photo as a file.
        photo = InferInput("image", BYTES, (1,), [body])
        return InferBody(InferRequest(inputs=[photo], found=_unknown(query)), {}, True)
    found = _unknown(query)
    tree = values.parse_json(body if length is None else body[:length], _MOST_VALUES, held)
    top = _members(found, tree, "body", ("id", "parameters", "inputs", "outputs"))
    parameters = _parameters(found, top.get("parameters"), "parameters")
    rest = _take(found, parameters, BINARY_OUTPUT, bool, "parameters")
    raw = _Raw(b"" if length is None else body[length:])
    inputs = [
        _read_input(found, item, f"inputs[{at}]", raw)
        for at, item in enumerate(_items(found, top, "inputs"))
    ]
    raw.end(found)
    outputs: list[InferOutput] = []
    binary: dict[str, bool] = {}
    for at, item in enumerate(_items(found, top, "outputs")):
        where = f"outputs[{at}]"
        members = _members(found, item, where, ("name", "parameters"))
        name = _text(found, members, "name", where)
        of_output = _parameters(found, members.get("parameters"), f"{where}.parameters")
        asked = _take(found, of_output, BINARY, bool, where)
        binary[name] = bool(rest if asked is None else asked)
        if name in OUTPUTS and OUTPUTS[name].datatype == BYTES and not binary[name]:
            found.append(Violation(where, f"{name} is files, not JSON; {BINARY} must be true"))
        outputs.append(InferOutput(name, of_output))
    request = InferRequest(_text(found, top, "id", ""), parameters, inputs, outputs, found)
    return InferBody(request, binary, bool(rest))


def write_infer_body(inferred: Inferred, body: InferBody, most_bytes: int) -> tuple[bytes, int]:
    """An answer as a body, and how many bytes of it are JSON.

    Raises:
        InvalidArgument: It is longer than most_bytes.
    """
    outputs, after = [], []
    for tensor in inferred.outputs:
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if body.is_binary(tensor.name):
            after.append(tensor.raw)
            output["parameters"] = {BINARY_SIZE: len(after[-1])}
        else:
            output["data"] = _write_values(tensor, most_bytes)
        outputs.append(output)
    mapping = {"model_name": inferred.model, "model_version": inferred.version, "outputs": outputs}
    if inferred.id:
        mapping["id"] = inferred.id
    header = json.dumps(mapping, ensure_ascii=False).encode()
    check_size(len(header) + sum(map(len, after)), most_bytes)
    return b"".join((header, *after)), len(header)


def read_index_body(body: bytes, query: Sequence[str] = ()) -> bool:
    """Whether a body of the index asks for models that are ready only; an empty one does not.

    Raises:
        InvalidArgument: With every violation.
    """
    found = _unknown(query)
    tree = values.parse_json(body or b"{}", _MOST_VALUES)
    ready = _members(found, tree, "body", ("ready",)).get("ready", False)
    if type(ready) is not bool:
        found.append(Violation("ready", f"is {values.shown(ready)}; must be true or false"))
    values.raise_any(found)
    return bool(ready)


def _unknown(query: Sequence[str]) -> list[Violation]:
    return [Violation(values.plain(name), "unknown; the query has no parameters") for name in query]


def _header_length(given: Sequence[str], byte_count: int) -> int | None:
    if not given:
        return None
    if len(given) > 1:
        raise _invalid(HEADER_LENGTH, "given more than once")
    text = given[0].strip()
    if not (text.isascii() and text.isdecimal()):
        raise _invalid(HEADER_LENGTH, f"is {values.shown(text)}; must be a number of bytes")
    length = int(text[:20])
    if length > byte_count:
        raise _invalid(HEADER_LENGTH, f"is {length}; the body has {byte_count} bytes")
    return length


class _Raw:
    """The raw bytes after the JSON, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, found: list[Violation], where: str, count: int) -> bytes:
        left = len(self._data) - self._at
        if not 0 <= count <= left:
            found.append(Violation(f"{where}.{BINARY_SIZE}", f"is {count}; {left} bytes are left"))
            count = 0
        self._at += count
        return self._data[self._at - count : self._at]

    def end(self, found: list[Violation]) -> None:
        left = len(self._data) - self._at
        if left and not found:  # else whatever is wrong may be why
            found.append(Violation("body", f"has {left} bytes that no {BINARY_SIZE} counts"))


def _read_input(found: list[Violation], item: object, where: str, raw: _Raw) -> InferInput:
    members = _members(found, item, where, ("name", "datatype", "shape", "parameters", "data"))
    parameters = _parameters(found, members.get("parameters"), f"{where}.parameters")
    shape = members.get("shape")
    if type(shape) is not list or not all(_is_length(length) for length in shape):
        found.append(Violation(f"{where}.shape", "must be a list of integers of 32 bits"))
        shape = []
    contents: bytes | list[object] | None = None
    count = _take(found, parameters, BINARY_SIZE, int, where)
    data = members.get("data")
    if count is not None:
        contents = raw.take(found, where, count)
        if data is not None:
            found.append(Violation(f"{where}.data", f"given beside {BINARY_SIZE}"))
    elif type(data) is list:
        contents = data
    elif not in_shared_memory(parameters):
        either = f"must be a list, or {BINARY_SIZE} say how many bytes after the JSON it has"
        found.append(Violation(f"{where}.data", either))
    return InferInput(
        _text(found, members, "name", where),
        _text(found, members, "datatype", where),
        tuple(shape),
        contents,
        parameters,
    )


def _is_length(length: object) -> bool:
    return type(length) is int and -_MOST_AXIS <= length < _MOST_AXIS


def _write_values(tensor: Tensor, most_bytes: int) -> list[Any]:
    if isinstance(tensor.elements, bytes):
        check_size(len(tensor.elements) // 4 * _LEAST_VALUE_BYTES, most_bytes)
        flat: list[float] = np.frombuffer(tensor.elements, "<f4").tolist()
        return flat
    return [element.decode() for element in tensor.elements]  # classes: files are raw bytes


# V1.


def read_v1_predict(
    body: bytes, model: str, query: Sequence[str] = (), held: Held | None = None
) -> Bundle:
    """A body of V1's predict. The parameters are fields of a prediction's form.

    Raises:
        InvalidArgument: With every violation.
    """
    predict = inference_pb2.PredictRequest()
    images, timeout_s = _read_v1(body, predict, query, held)
    predict.model = model
    return Bundle(images, predict=predict, timeout_s=timeout_s)


def read_v1_explain(
    body: bytes, model: str, query: Sequence[str] = (), held: Held | None = None
) -> Bundle:
    """A body of V1's explain. The parameters are fields of an explanation's form, and target.

    Raises:
        InvalidArgument: With every violation.
    """
    explain = inference_pb2.ExplainRequest()
    images, timeout_s = _read_v1(body, explain, query, held)
    explain.model = model
    return Bundle(images, explain=explain, timeout_s=timeout_s)


def _read_v1(
    body: bytes,
    request: inference_pb2.PredictRequest | inference_pb2.ExplainRequest,
    query: Sequence[str],
    held: Held | None,
) -> tuple[list[data_pb2.Image], float | None]:
    found = _unknown(query)
    tree = values.parse_json(body, _MOST_VALUES, held)
    top = _members(found, tree, "body", ("instances", "parameters"))
    parameters = _parameters(found, top.get("parameters"), "parameters")
    timeout_ms = parameters.pop(forms.TIMEOUT, None)
    timeout_s = None
    if isinstance(timeout_ms, int | float) and timeout_ms > 0 and timeout_ms is not True:
        timeout_s = min(timeout_ms, _MOST_TIMEOUT_MS) / 1e3
    elif timeout_ms is not None:
        found.append(Violation(forms.TIMEOUT, "must be a positive number"))
    explained = isinstance(request, inference_pb2.ExplainRequest)
    fill(found, request, parameters, (*([TARGET] if explained else []), forms.TIMEOUT), ("model",))
    instances = top.get("instances")
    images: list[data_pb2.Image] = []
    if type(instances) is not list or not instances:
        found.append(Violation("instances", "required; a list of at least one image"))
    elif len(instances) > MOST_IMAGES:
        many = f"are {len(instances)}; at most {MOST_IMAGES} in a request"
        found.append(Violation("instances", many))
    else:
        for at, instance in enumerate(instances):
            images.append(_read_instance(found, f"instances[{at}]", instance))
    values.raise_any(found)
    return images, timeout_s


_AXES = 3
_AN_INSTANCE = (
    '{"b64": a photo in base64}, {"image": {"b64": the same}} '
    "or a preprocessed input, 3 × height × width, as nested lists"
)


def _read_instance(found: list[Violation], where: str, instance: object) -> data_pb2.Image:
    """A photo, or a preprocessed input."""
    try:
        match instance:
            case values.Object([(("b64", text) | ("image", values.Object([("b64", text)])))]):
                (encoded,) = read(BYTES, (1,), [text])
                assert isinstance(encoded, bytes)
                return data_pb2.Image(encoded=encoded)
            case list() if not isinstance(instance, values.Object):
                return _read_nested(instance)
            case _:
                raise Malformed(f"is {values.shown(instance)}; must be {_AN_INSTANCE}")
    except Malformed as error:
        found.append(Violation(where, str(error)))
        return data_pb2.Image()


def _read_nested(instance: list[object]) -> data_pb2.Image:
    """A preprocessed input, as deep as its shape."""
    shape: list[int] = []
    level: object = instance
    while type(level) is list and level and len(shape) < _AXES:
        shape.append(len(level))
        level = level[0]
    if len(shape) < _AXES or type(level) is list:
        raise Malformed(f"is not nested {_AXES} deep; must be {_AN_INSTANCE}")
    data = read("FP32", shape, instance)
    assert isinstance(data, bytes)
    data_type = data_pb2.DATA_TYPE_FLOAT32
    return data_pb2.Image(tensor=data_pb2.Tensor(data_type=data_type, shape=shape, data=data))


# JSON.


def _members(
    found: list[Violation], value: object, where: str, known: Collection[str]
) -> dict[str, Any]:
    """The members of an object that are known and not null."""
    if not isinstance(value, values.Object):
        found.append(Violation(where, f"is {values.shown(value)}; must be an object"))
        return {}
    members: dict[str, Any] = {}
    for name, item in value[: 2 * MOST_NAMED]:
        of = "" if where == "body" else f"{where}."
        if name not in known:
            there_are = f"unknown; the fields here are {', '.join(known)}"
            found.append(Violation(f"{of}{values.plain(name)}", there_are))
        elif name in members:
            found.append(Violation(f"{of}{name}", "given more than once"))
        elif item is not None:
            members[name] = item
    return members


def _parameters(found: list[Violation], value: object, where: str) -> dict[str, Parameter]:
    if value is None:
        return {}
    if not isinstance(value, values.Object):
        found.append(Violation(where, f"is {values.shown(value)}; must be an object"))
        return {}
    if len(value) > MOST_NAMED:
        found.append(Violation(where, f"are more than {MOST_NAMED}"))
        return {}
    parameters: dict[str, Parameter] = {}
    for name, item in value:
        of = f"{where}.{values.plain(name)}"
        if name in parameters:
            found.append(Violation(of, "given more than once"))
        elif isinstance(item, bool | int | float | str):
            parameters[name] = item
        else:
            is_other = f"is {values.shown(item)}; must be a text, a number or true or false"
            found.append(Violation(of, is_other))
    return parameters


def _items(found: list[Violation], members: Mapping[str, Any], name: str) -> list[object]:
    items = members.get(name, [])
    if type(items) is not list:
        found.append(Violation(name, f"is {values.shown(items)}; must be a list"))
        return []
    if len(items) > MOST_NAMED:
        found.append(Violation(name, f"are more than {MOST_NAMED}"))
        return []
    return items


def _text(found: list[Violation], members: Mapping[str, Any], name: str, where: str) -> str:
    text = members.get(name, "")
    if not isinstance(text, str) or any(0xD800 <= ord(one) <= 0xDFFF for one in text):
        of = f"{where}.{name}" if where else name
        found.append(Violation(of, f"is {values.shown(text)}; must be a text"))
        return ""
    return text


def _take(
    found: list[Violation], parameters: dict[str, Parameter], name: str, kind: type, where: str
) -> Any:
    """Takes a parameter out; None where it is not, or is not of its kind."""
    value = parameters.pop(name, None)
    if value is None or type(value) is kind:
        return value
    words = {bool: "true or false", int: "an integer"}
    is_other = f"is {values.shown(value)}; must be {words[kind]}"
    found.append(Violation(f"{where}.{name}", is_other))
    return None


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {description}", violations=[Violation(field, description)])
