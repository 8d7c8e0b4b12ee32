"""A request of the Open Inference Protocol as requests of PellucidService.

Whichever way it came, it is an InferRequest first. What is wrong with it is found here, all at
once; what takes the network or the photo to know is found as of any other request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message
from pellucid.v1 import data_pb2, inference_pb2

from ...errors import NotFound, Violation, quoted
from ...models.registry import Model
from ...wire import MOST_IMAGES
from .. import forms, values
from .bundles import Bundle
from .tensors import BYTES, Elements, Malformed, read, times

MOST_NAMED = 32
"""Inputs, outputs or parameters in a request: more than there are."""

TARGET = "target"
TIMEOUT = "timeout"
PRIORITY = "priority"
DEFAULT_METHOD = "gradient"
_SHARED_MEMORY = "shared_memory"
_MOST_TIMEOUT_US = 1 << 53
"""A longer one is cut, as the server cuts it again."""

Parameter = bool | int | float | str


@dataclass(frozen=True)
class Port:
    """A tensor that goes in or comes out; -1 and words are axes of any length."""

    datatype: str
    axes: tuple[int | str, ...]


INPUTS: Mapping[str, Port] = {
    "input": Port("FP32", ("n", 3, "height", "width")),
    "image": Port(BYTES, ("n",)),
    "photo": Port("UINT8", ("n", "height", "width", 3)),
}
"""What an image may come as: preprocessed, as a file, or as pixels."""

OUTPUTS: Mapping[str, Port] = {
    "logits": Port("FP32", ("n", "classes")),
    "probabilities": Port("FP32", ("n", "classes")),
    "explanation": Port("FP32", ("n", "channels", "height", "width")),
    "heatmap": Port(BYTES, ("n",)),
    "rendering": Port(BYTES, ("n",)),
}
SCORES = ("logits", "probabilities")
"""The outputs that are a prediction's, and that the classification extension is for."""

EXPLAINED = {
    "explanation": inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION,
    "heatmap": inference_pb2.EXPLAIN_OUTPUT_HEATMAP,
    "rendering": inference_pb2.EXPLAIN_OUTPUT_RENDERING,
}
"""The outputs that are an explanation's."""

_NOT_PARAMETERS = ("model", "outputs", "evidence")
"""Fields that the protocol has another place for, or no output."""


@dataclass(frozen=True)
class InferInput:
    """A tensor that was sent.

    Attributes:
        contents: Raw bytes, or values, see tensors.read; None where it is known to be wrong.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    contents: bytes | Sequence[object] | None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True)
class InferOutput:
    """A tensor that was asked for."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass
class InferRequest:
    """A request, of whichever protocol.

    Attributes:
        found: What was already seen to be wrong with it.
    """

    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    inputs: Sequence[InferInput] = ()
    outputs: Sequence[InferOutput] = ()
    found: list[Violation] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """An output to return.

    Attributes:
        class_count: Classes to return as text in place of the tensor; 0: the tensor.
    """

    name: str
    class_count: int = 0


def check_version(model: Model, version: str) -> None:
    """Refuses a version that is not served; an empty one is whichever is.

    Raises:
        NotFound: It is another one.
    """
    if version not in ("", model.version):
        raise NotFound(
            f"version {quoted(version)} of {model.name} is not served; {model.version} is"
        )


def read_infer(
    request: InferRequest, model: str, class_count: int
) -> tuple[Bundle, Sequence[Wanted]]:
    """What a request asks of a model, and the outputs to return in their order.

    Args:
        request: What is asked.
        model: The name of the model.
        class_count: Classes that it knows.

    Raises:
        InvalidArgument: With every violation.
    """
    found = list(request.found)
    too_many = [
        Violation(name, f"are more than {MOST_NAMED}")
        for name in ("parameters", "inputs", "outputs")
        if len(getattr(request, name)) > MOST_NAMED
    ]
    values.raise_any(too_many)
    images = _read_images(found, request.inputs)
    wanted = _read_outputs(found, request.outputs, class_count)
    parameters = dict(request.parameters)
    timeout_s = _read_timeout(found, parameters)
    explain = inference_pb2.ExplainRequest(model=model)
    explain.outputs.extend(EXPLAINED[out.name] for out in wanted if out.name in EXPLAINED)
    if not explain.outputs:
        _refuse_explaining(found, parameters)
    fill(found, explain, parameters, (TARGET, TIMEOUT, PRIORITY), _NOT_PARAMETERS)
    values.raise_any(found)
    predict = None
    if any(out.name in SCORES for out in wanted):
        predict = inference_pb2.PredictRequest(
            model=model,
            include_logits=True,
            top_k=max(1, *(out.class_count for out in wanted)),
        )
        if explain.HasField("bucket_size"):
            predict.bucket_size = explain.bucket_size
    return Bundle(images, predict, explain if explain.outputs else None, timeout_s), wanted


def fill(
    found: list[Violation],
    request: Message,
    parameters: Mapping[str, Parameter],
    beside: Sequence[str] = (),
    without: Sequence[str] = (),
) -> None:
    """Fills in a request from parameters, which have the names of a form's fields.

    A target is a class, by its index or its label. The method is the gradient unless it is named.
    beside and without are as in forms.read_texts.
    """
    texts: dict[str, list[str]] = {}
    for name, value in parameters.items():
        if name == TARGET and isinstance(value, bool | float):
            if isinstance(value, bool) or not value.is_integer():
                other = f"is {values.shown(value)}; must be the index of a class, or its label"
                found.append(Violation(TARGET, other))
                continue
            value = int(value)  # some write every number as 285.0
        text = _text(value)
        if len(text) > forms.MOST_TEXT_BYTES:
            at_most = f"has {len(text)} characters; at most {forms.MOST_TEXT_BYTES}"
            found.append(Violation(values.plain(name), at_most))
            continue
        texts.setdefault(_field_of(name, text), []).append(text)
    if forms.METHOD in request.DESCRIPTOR.oneofs_by_name:
        texts.setdefault(forms.METHOD, [DEFAULT_METHOD])
    forms.read_texts(found, request, texts, beside, without)


def _refuse_explaining(found: list[Violation], parameters: dict[str, Parameter]) -> None:
    """Takes out parameters of explanations, where none is asked for."""
    explaining = inference_pb2.ExplainRequest()
    here = ("bucket_size", *_NOT_PARAMETERS)
    for name in [*parameters]:
        if name == TARGET or (name not in here and forms.has_field(explaining, name)):
            del parameters[name]
            outputs = ", ".join(EXPLAINED)
            found.append(Violation(name, f"is of explanations, and none is asked for: {outputs}"))


def _field_of(name: str, text: str) -> str:
    if name != TARGET:
        return name
    return "target.class_index" if text.removeprefix("-").isdecimal() else "target.label"


def _text(value: Parameter) -> str:
    """A parameter as a form would have it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return value
        case _:
            return repr(value)


def _read_timeout(found: list[Violation], parameters: dict[str, Parameter]) -> float | None:
    """Takes out the parameters of the protocol itself; returns its deadline in seconds."""
    priority = parameters.pop(PRIORITY, 0)  # a request's class says how urgent it is
    if type(priority) is not int or priority < 0:
        found.append(Violation(PRIORITY, "must be an integer, at least 0"))
    timeout_us = parameters.pop(TIMEOUT, 0)
    if type(timeout_us) is not int or timeout_us < 0:
        found.append(Violation(TIMEOUT, "must be an integer of microseconds, at least 0"))
        return None
    return min(timeout_us, _MOST_TIMEOUT_US) / 1e6 if timeout_us else None


# Inputs.


def _read_images(found: list[Violation], inputs: Sequence[InferInput]) -> list[data_pb2.Image]:
    names = [given.name for given in inputs]
    known = [name for name in names if name in INPUTS]
    if len(known) != 1 and not any(v.field.startswith("inputs") for v in found):
        many = f"{', '.join(map(repr, known))} are given" if known else "required"
        found.append(Violation("inputs", f"{many}; exactly one of {', '.join(INPUTS)}"))
    images: list[data_pb2.Image] = []
    for given in inputs:
        where = f"inputs.{values.plain(given.name)}"
        if given.name not in INPUTS:
            there_are = f"unknown; the inputs are {', '.join(INPUTS)}"
            found.append(Violation(where, there_are))
            continue
        _refuse_parameters(found, where, given.parameters)
        contents = None if in_shared_memory(given.parameters) else given.contents
        if _fits(found, where, given) and contents is not None:
            try:
                elements = read(given.datatype, given.shape, contents)
            except Malformed as error:
                found.append(Violation(f"{where}.contents", str(error)))
            else:
                images = _split(given, elements)
    return images


def _fits(found: list[Violation], where: str, given: InferInput) -> bool:
    """Whether a tensor is of the datatype and the shape of its port."""
    port, before = INPUTS[given.name], len(found)
    if given.datatype != port.datatype:
        is_other = f"is {quoted(given.datatype)}; must be {port.datatype}"
        found.append(Violation(f"{where}.datatype", is_other))
    shape = given.shape
    if given.name == "image" and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]  # as clients write a batch of single elements
    axes = " × ".join(map(str, port.axes))
    if len(shape) != len(port.axes) or any(
        length < 1 or (isinstance(axis, int) and length != axis)
        for length, axis in zip(shape, port.axes, strict=False)
    ):
        found.append(Violation(f"{where}.shape", f"is {times(shape[:8])}; must be {axes}"))
    elif shape[0] > MOST_IMAGES:
        many = f"has {shape[0]} images; at most {MOST_IMAGES} in a request"
        found.append(Violation(f"{where}.shape", many))
    return len(found) == before


def _split(given: InferInput, elements: Elements) -> list[data_pb2.Image]:
    if not isinstance(elements, bytes):
        return [data_pb2.Image(encoded=element) for element in elements]
    count, *shape = given.shape
    size = len(elements) // count
    data_type = data_pb2.DATA_TYPE_FLOAT32 if given.datatype == "FP32" else data_pb2.DATA_TYPE_UINT8
    return [
        data_pb2.Image(
            tensor=data_pb2.Tensor(
                data_type=data_type, shape=shape, data=elements[at * size : (at + 1) * size]
            )
        )
        for at in range(count)
    ]


# Outputs.


def _read_outputs(
    found: list[Violation], outputs: Sequence[InferOutput], class_count: int
) -> list[Wanted]:
    if not outputs:
        return [Wanted("logits")]
    wanted: dict[str, Wanted] = {}
    for asked in outputs:
        where = f"outputs.{values.plain(asked.name)}"
        if asked.name not in OUTPUTS:
            found.append(Violation(where, f"unknown; the outputs are {', '.join(OUTPUTS)}"))
        elif asked.name in wanted:
            found.append(Violation(where, "asked for more than once"))
        else:
            parameters = dict(asked.parameters)
            classes = parameters.pop("classification", 0)
            if type(classes) is not int or classes < 0:
                whole = Violation(f"{where}.classification", "must be an integer, at least 0")
                found.append(whole)
                classes = 0
            elif classes and asked.name not in SCORES:
                of_scores = f"is for {' and '.join(SCORES)}"
                found.append(Violation(f"{where}.classification", of_scores))
            wanted[asked.name] = Wanted(asked.name, min(classes, class_count))
            _refuse_parameters(found, where, parameters)
    return list(wanted.values())


def in_shared_memory(parameters: Mapping[str, Parameter]) -> bool:
    """Whether a tensor is said to be in shared memory, which is refused."""
    return any(name.startswith(_SHARED_MEMORY) for name in parameters)


def _refuse_parameters(
    found: list[Violation], where: str, parameters: Mapping[str, Parameter]
) -> None:
    for name in parameters:
        why = "unknown"
        if name.startswith(_SHARED_MEMORY):
            why = "shared memory is not read or written; send the tensor itself"
        found.append(Violation(f"{where}.{values.plain(name)}", why))
