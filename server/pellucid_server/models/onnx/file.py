"""An ONNX file as it is read: capped, parsed, and held against what model.yaml says of it.

Nothing of it is run. What cannot be served is refused before ONNX Runtime sees it, and every
fault is named.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from ...errors import quoted
from ..weights import MOST_CLASSES
from .functions import BadFunctions, extent_of, faults_of_functions, put_in_place
from .nodes import DOMAINS, ONNX_DOMAINS, all_nodes, graphs_of, operator_name, some, tensors
from .sizes import BadSizes, check_sizes, first_line

MOST_ONNX_BYTES = 1 << 30
"""A protobuf message holds twice as much; a network takes up to five times its file."""
MOST_NODES = 50_000
MOST_BATCH = 256
OPSETS = range(11, 24)
"""Of ONNX's own operators: from where bounds and pads are inputs to what ONNX Runtime 1.23 runs."""

_LARGE_ELEMENTS = 1024
"""Weights of more are left out where only shapes matter."""
_ENDLESS = ("Loop", "Scan", "SequenceMap")
_OF_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)

Layout = Literal["NCHW", "NHWC"]
DType = Literal["float32"]
"""Of inputs and outputs: ONNX Runtime has no convolution of float64 on the CPU."""

_DTYPES: dict[str, int] = {"float32": TensorProto.FLOAT}


class BadOnnx(ValueError):
    """An ONNX file that cannot be served; the message says why."""


@dataclass(frozen=True)
class Expected:
    """What model.yaml says of a graph.

    Attributes:
        input_name: None: the only one.
        output_name: None: the only one.
    """

    height_px: int
    width_px: int
    layout: Layout = "NCHW"
    dtype: DType = "float32"
    input_name: str | None = None
    output_name: str | None = None


@dataclass(frozen=True)
class OnnxFile:
    """A graph that is served: one input of images, one output of logits.

    Attributes:
        model: The message. Functions stand where they are called, a final softmax is cut off.
        opset: The version of ONNX's own operators.
        batch_size: How many images it takes, no more and no less; None: any number.
        cut: The softmax that was cut off, as it is called in the file; None: there was none.
    """

    model: ModelProto
    opset: int
    expected: Expected
    input_name: str
    output_name: str
    batch_size: int | None
    cut: str | None


def read_onnx(data: bytes, expected: Expected) -> OnnxFile:
    """Reads an ONNX file.

    Args:
        data: The file, at most MOST_ONNX_BYTES.
        expected: What its input and its output must be.

    Raises:
        BadOnnx: With everything that is wrong with it.
    """
    model = _parse(data)
    _refuse(_faults_of_size(model), _faults_of_names(model))
    opset = _opset(model)
    _refuse(
        _faults_of_tensors(model),
        faults_of_functions(model, opset),
        _faults_of_operators(model, opset),
    )
    found, batch_size = _find_input(model.graph, expected)
    output = _find_output(model.graph, expected)
    _refuse(_faults_of_input(found, expected), _faults_of_output(output, expected))
    _check(model, opset, expected, found.name, batch_size or 1)
    cut, logits = _find_logits(model.graph, output)
    output.name = logits
    kept = ValueInfoProto()
    kept.CopyFrom(output)
    del model.graph.output[:]
    model.graph.output.append(kept)
    return OnnxFile(model, opset, expected, found.name, logits, batch_size, cut)


def parse_whole(data: bytes) -> ModelProto:
    """An ONNX file as a message whose tensors are all in it; no more of it is checked.

    Args:
        data: The file, at most MOST_ONNX_BYTES.

    Raises:
        BadOnnx: It is no ONNX file, is cut off, or keeps tensors outside itself.
    """
    model = _parse(data)
    _refuse(_faults_of_names(model))
    _refuse(_faults_of_tensors(model))
    return model


def _refuse(*found: Iterator[str]) -> None:
    faults = [fault for faults in found for fault in faults]
    if faults:
        raise BadOnnx("; ".join(faults))


def _parse(data: bytes) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own, which says nothing of where
        raise BadOnnx("is no ONNX file, or cut off: it cannot be parsed") from None
    if not model.ir_version or not model.HasField("graph") or not model.graph.node:
        raise BadOnnx("is no ONNX file: it has no version or no graph")
    del model.training_info[:]
    return model


# What a file holds.


def _faults_of_size(model: ModelProto) -> Iterator[str]:
    """Of what is there, and of what it is once functions stand where they are called."""
    try:
        extent = extent_of(model)
    except BadFunctions as error:
        yield str(error)
        return
    count = max(extent.nodes, sum(1 for _ in all_nodes(model)))
    if count > MOST_NODES:
        yield f"has {min(count, 10**9)} operators; at most {MOST_NODES} are accepted"
    elif extent.bytes > MOST_ONNX_BYTES:
        yield f"has functions whose calls take more than {MOST_ONNX_BYTES} bytes"


def _faults_of_names(model: ModelProto) -> Iterator[str]:
    """Protobuf gives what is no UTF-8 as bytes."""
    graph = model.graph
    names: list[object] = [v.name for v in (*graph.input, *graph.output, *graph.value_info)]
    names += [tensor.name for tensor in tensors(model)]
    for function in model.functions:
        names += (function.name, function.domain, function.overload)
        names += (*function.input, *function.output, *function.attribute)
        names += [one.domain for one in function.opset_import]
    names += [one.domain for one in model.opset_import]
    for node in all_nodes(model):
        names += (node.op_type, node.domain, node.overload, node.name)
        names += (*node.input, *node.output)
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        yield "has names that are no UTF-8"


def _opset(model: ModelProto) -> int:
    versions = [one.version for one in model.opset_import if one.domain in ONNX_DOMAINS]
    if len(versions) != 1 or versions[0] not in OPSETS:
        stated = ", ".join(map(str, versions)) or "none"
        raise BadOnnx(f"is of opset {stated}; {OPSETS[0]} to {OPSETS[-1]} are supported")
    return versions[0]


def _faults_of_tensors(model: ModelProto) -> Iterator[str]:
    outside, lying = [], []
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            about = {entry.key: entry.value for entry in tensor.external_data}
            outside.append(f"{quoted(tensor.name)} in {quoted(about.get('location', ''))}")
        elif not _is_whole(tensor):
            lying.append(quoted(tensor.name))
    if outside:
        yield f"keeps tensors outside itself, all must be in it: {some(outside)}"
    if lying:
        yield f"is cut off, or lies: of these tensors not all values are there: {some(lying)}"


def _is_whole(tensor: TensorProto) -> bool:
    """Whether it has as many values as its shape says."""
    if any(length < 0 for length in tensor.dims):
        return False
    count = math.prod(tensor.dims)
    try:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:  # of no type that there is
        return False
    bits = 4 if tensor.data_type in _OF_FOUR_BITS else bits
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) == -(-count * bits // 8)
    kept = len(getattr(tensor, field))
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return kept == 2 * count
    return kept == (-(-count // 2) if bits == 4 else count)


def _faults_of_operators(model: ModelProto, opset: int) -> Iterator[str]:
    """Operators that neither ONNX nor ONNX Runtime has, and those that need not end."""
    own = {(function.domain, function.name) for function in model.functions}
    unknown: dict[str, None] = {}
    endless: dict[str, None] = {}
    for node in all_nodes(model):
        name = operator_name(node)
        if node.domain not in DOMAINS:
            if (node.domain, node.op_type) not in own:
                unknown[name] = None
            continue
        if name in _ENDLESS or (name != "If" and any(graphs_of(node))):
            endless[name] = None
        is_onnx = node.domain in ONNX_DOMAINS
        if is_onnx and not onnx.defs.has(node.op_type, max_inclusive_version=opset):
            unknown[name] = None
    if unknown:
        yield (
            f"has operators that are not ONNX's of opset {opset}, nor ONNX Runtime's: "
            f"{some([*unknown])}"
        )
    if endless:
        yield f"has operators that are not accepted, as they need not end: {some([*endless])}"


# Its input and its output.


def _find_input(graph: GraphProto, expected: Expected) -> tuple[ValueInfoProto, int | None]:
    weights = {tensor.name for tensor in graph.initializer}
    found = [value for value in graph.input if value.name not in weights]
    chosen = _chosen("input", found, expected.input_name)
    if len(found) > 1:
        names = ", ".join(quoted(value.name) for value in found)
        raise BadOnnx(f"input: there are {names}; one is fed, with images")
    first = next(iter(_dims(chosen)), None)
    return chosen, first


def _find_output(graph: GraphProto, expected: Expected) -> ValueInfoProto:
    return _chosen("output", list(graph.output), expected.output_name)


def _chosen(kind: str, found: Sequence[ValueInfoProto], name: str | None) -> ValueInfoProto:
    names = [quoted(value.name) for value in found]
    matching = [value for value in found if name in (None, value.name)]
    if len(matching) == 1:
        return matching[0]
    if name is None:
        must = "must be named" if found else "there must be one"
        raise BadOnnx(f"{kind}.name: the graph has {some(names) or 'none'}; {must}")
    raise BadOnnx(f"{kind}.name: is {quoted(name)}; the graph has {some(names) or 'none'}")


def _dims(value: ValueInfoProto) -> list[int | None]:
    """The lengths of its axes; None: any."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _faults_of_input(value: ValueInfoProto, expected: Expected) -> Iterator[str]:
    yield from _faults_of_dtype("input", value, expected)
    dims = _dims(value)
    shape = {"N": None, "C": 3, "H": expected.height_px, "W": expected.width_px}
    wanted = [shape[axis] for axis in expected.layout]
    says = f"{quoted(value.name)} is {_times(dims)}"
    if len(dims) != 4:
        yield f"input: {says}; {expected.layout} has 4 axes"
        return
    other: Layout = "NHWC" if expected.layout == "NCHW" else "NCHW"
    if not _fits(dims, wanted) and _fits(dims, [shape[axis] for axis in other]):
        yield f"input.layout: is {expected.layout}; {says}, which is {other}"
        return
    fields = {
        "C": "it must have 3 channels",
        "H": f"preprocessing.height_px is {expected.height_px}",
        "W": f"preprocessing.width_px is {expected.width_px}",
    }
    for axis, length, stated in zip(expected.layout, dims, wanted, strict=True):
        if axis == "N" and length is not None and not 1 <= length <= MOST_BATCH:
            yield f"input: {says}; it must take 1 to {MOST_BATCH} images"
        if axis in fields and length not in (None, stated):
            yield f"input: {says}, in {expected.layout}; {fields[axis]}"


def _fits(dims: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return all(None in pair or pair[0] == pair[1] for pair in zip(dims, wanted, strict=True))


def _faults_of_output(value: ValueInfoProto, expected: Expected) -> Iterator[str]:
    yield from _faults_of_dtype("output", value, expected)
    dims = _dims(value)
    if value.type.tensor_type.HasField("shape") and len(dims) != 2:
        yield f"output: {quoted(value.name)} is {_times(dims)}; logits are images × classes"
    elif dims and dims[1] is not None and not 1 <= dims[1] <= MOST_CLASSES:
        yield f"output: {quoted(value.name)} has {dims[1]} classes; 1 to {MOST_CLASSES} can be"


def _faults_of_dtype(kind: str, value: ValueInfoProto, expected: Expected) -> Iterator[str]:
    if not value.type.HasField("tensor_type"):
        yield f"{kind}: {quoted(value.name)} is no tensor"
        return
    found = value.type.tensor_type.elem_type
    if found == _DTYPES[expected.dtype]:
        return
    is_known = found in TensorProto.DataType.values()
    name = TensorProto.DataType.Name(found).lower() if is_known else str(found)
    name = {"float": "float32", "double": "float64"}.get(name, name)
    yield (
        f"{kind}: {quoted(value.name)} is {name}, input.dtype is {expected.dtype}; "
        f"{' or '.join(_DTYPES)} can be used"
    )


def _times(dims: Sequence[int | None]) -> str:
    return " × ".join("any" if length is None else str(length) for length in dims) or "of no shape"


# The whole.


def _check(
    model: ModelProto, opset: int, expected: Expected, input_name: str, batch_size: int
) -> None:
    """ONNX's own checks, of a copy without weights, and what is made of images.

    Functions are put in the place of their calls.
    """
    light = _without_weights(model)
    try:
        onnx.checker.check_model(light)
        if model.functions:
            put_in_place(model, light)
        shape = {"N": batch_size, "C": 3, "H": expected.height_px, "W": expected.width_px}
        wanted = [shape[axis] for axis in expected.layout]
        check_sizes(model, opset, input_name, wanted, batch_size)
    except onnx.checker.ValidationError as error:
        raise BadOnnx(f"is no valid graph: {first_line(error)}") from None
    except (BadFunctions, BadSizes) as error:
        raise BadOnnx(str(error)) from None


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which large tensors of the graph are inputs instead."""
    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _LARGE_ELEMENTS:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light


# Logits.


def _find_logits(graph: GraphProto, output: ValueInfoProto) -> tuple[str | None, str]:
    """What logits are called: of a final softmax over classes, what goes into it is, exactly.

    Returns:
        The softmax's operator, if there is one, and the name of the logits.

    Raises:
        BadOnnx: The output is made by something else than logits are, and that is not undone.
    """
    makers = {name: node for node in graph.node for name in node.output}
    maker, name = makers.get(output.name), output.name
    while maker is not None and operator_name(maker) == "Identity":
        name = maker.input[0]
        maker = makers.get(name)
    if maker is None or operator_name(maker) not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return None, output.name
    if maker.op_type == "Sigmoid":
        raise BadOnnx(
            f"output: {quoted(output.name)} is made by Sigmoid; logits are needed, or a softmax of "
            "them, which is cut off"
        )
    axis = next((a.i for a in maker.attribute if a.name == "axis"), -1)
    if axis not in (1, -1):
        raise BadOnnx(f"output: {maker.op_type} is over axis {axis}; classes are axis 1")
    return maker.op_type, maker.input[0]
