"""What a graph makes of images, worked out operator by operator before anything is run.

Shapes are ONNX's own inference, of one operator at a time, so that none goes on from a shape that
is too large. Values are followed where they are few, as those of shapes are.
"""

import math
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper, numpy_helper

from ...errors import quoted
from .constants import NotWorkedOut, most_constant_bytes, worked_out
from .nodes import ONNX_DOMAINS, attribute_of, graphs_of, operator_name
from .operators import Array

MOST_VALUE_BYTES = 1 << 30
"""Of one tensor between two operators, for one image, at 8 bytes an element."""
MOST_LIVE_BYTES = 2 << 30
"""Of all tensors that are needed at one time, for one image."""

_FEW = 1024
"""Elements of a constant whose values are followed."""
_MOST_AXES = 32

_GROWING = frozenset(
    [
        "AffineGrid",
        "BlackmanWindow",
        "CenterCropPad",
        "Col2Im",
        "ConstantOfShape",
        "ConvTranspose",
        "DFT",
        "Expand",
        "HammingWindow",
        "HannWindow",
        "MaxUnpool",
        "MelWeightMatrix",
        "OneHot",
        "Pad",
        "Range",
        "Resize",
        "STFT",
        "Tile",
        "Upsample",
        "ai.onnx.ml.OneHotEncoder",
        "com.microsoft.ConvTransposeWithDynamicPads",
        "com.microsoft.CropAndResize",
        "com.microsoft.Pad",
        "com.microsoft.Range",
    ]
)
"""Operators that may make much of little: not accepted where their inputs are unknown."""


class BadSizes(ValueError):
    """A graph that makes too much, or what cannot be told; the message says of what."""


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor.

    Attributes:
        kind: Its type and shape; None: unknown, as ONNX Runtime's own operators are not inferred.
        array: Its values, where they are few and depend on no image.
        is_constant: Whether it depends on no image.
    """

    kind: TypeProto | None
    array: Array | None = None
    is_constant: bool = False


_UNKNOWN = _Value(None)
_Scope = ChainMap[str, _Value]


def check_sizes(
    model: ModelProto, opset: int, input_name: str, shape: Sequence[int], batch_size: int
) -> None:
    """Works out what a graph makes of images.

    Args:
        model: A graph without functions.
        opset: The version of ONNX's own operators.
        input_name: What images are called.
        shape: Of images.
        batch_size: How many images that are.

    Raises:
        BadSizes: It makes too much, or its shapes do not fit or depend on more than the images'.
    """
    sizes = _Sizes(model, opset, batch_size)
    images = next(value for value in model.graph.input if value.name == input_name)
    kind = _kind(images.type.tensor_type.elem_type, shape)
    sizes.walk(model.graph, ChainMap({input_name: _Value(kind)}), is_run=True)


class _Sizes:
    def __init__(self, model: ModelProto, opset: int, batch_size: int) -> None:
        self._opsets = list(model.opset_import)
        self._versions = {one.domain: one.version for one in self._opsets} | {"": opset}
        self._batch_size = batch_size
        self._constant_bytes_left = most_constant_bytes(model)
        self._live_bytes = 0

    def walk(self, graph: GraphProto, scope: _Scope, *, is_run: bool) -> None:
        """Adds what a graph makes to what is known; is_run: it is no branch that is passed by."""
        for tensor in graph.initializer:
            few = math.prod(tensor.dims) <= _FEW
            array = numpy_helper.to_array(tensor) if few else None
            scope[tensor.name] = _Value(_kind(tensor.data_type, tensor.dims), array, True)
        for sparse in graph.sparse_initializer:
            made = _Value(_kind(sparse.values.data_type, sparse.dims), None, True)
            scope[sparse.values.name] = made
            self._count(sparse.values.name, made)
        last_use = {name: place for place, node in enumerate(graph.node) for name in _uses(node)}
        last_use |= {value.name: len(graph.node) for value in graph.output}
        live: dict[str, int] = {}
        for place, node in enumerate(graph.node):
            for name, made in zip(node.output, self._made(node, scope, is_run), strict=True):
                if name:
                    scope[name] = made
                    live[name] = self._count(name, made)
            for name in {*_uses(node), *node.output}:
                if last_use.get(name, place) <= place:
                    self._live_bytes -= live.pop(name, 0)
        self._live_bytes -= sum(live.values())

    def _made(self, node: NodeProto, scope: _Scope, is_run: bool) -> list[_Value]:
        if operator_name(node) == "If":
            return self._of_branches(node, scope, is_run)
        inputs = [scope.get(name, _UNKNOWN) for name in node.input if name]
        is_constant = all(value.is_constant for value in inputs)
        found = self._followed(node, scope)
        if found is None:
            kinds = self._inferred(node, scope, is_run)
            found = [_Value(kind, is_constant=is_constant) for kind in kinds]
        return found

    def _followed(self, node: NodeProto, scope: _Scope) -> list[_Value] | None:
        """What an operator makes of few values; None: they are not followed."""
        first = scope.get(node.input[0]) if node.input else None
        if operator_name(node) in ("Shape", "Size") and first is not None and first.kind:
            return [_followed(_measured(node, _dims(first.kind)))]
        arrays = []
        for name in node.input:
            array = scope.get(name, _UNKNOWN).array if name else np.empty(0)
            if array is None:
                return None
            arrays.append(array)
        try:
            made = worked_out(node, arrays, self._versions[""], _FEW * 8)
        except NotWorkedOut:
            return None
        return [_followed(array) for array in made]

    def _inferred(self, node: NodeProto, scope: _Scope, is_run: bool) -> list[TypeProto | None]:
        """By ONNX, which knows its own operators only."""
        domain = "" if node.domain in ONNX_DOMAINS else node.domain
        version = self._versions.get(domain, 1)
        inputs = {name: scope.get(name, _UNKNOWN) for name in node.input if name}
        kinds = {name: value.kind for name, value in inputs.items() if value.kind is not None}
        made: list[TypeProto | None] = [None] * len(node.output)
        is_known = len(kinds) == len(inputs)
        if is_known and onnx.defs.has(node.op_type, version, domain):
            schema = onnx.defs.get_schema(node.op_type, version, domain)
            data = {
                name: numpy_helper.from_array(value.array, name)
                for name, value in inputs.items()
                if value.array is not None
            }
            try:
                found = onnx.shape_inference.infer_node_outputs(
                    schema, node, kinds, data, opset_imports=self._opsets
                )
            except onnx.shape_inference.InferenceError as error:
                if is_run:
                    raise BadSizes(f"has shapes that do not fit: {first_line(error)}") from None
                return made
            made = [_whole(found.get(name)) for name in node.output]
        is_whole = all(kind for name, kind in zip(node.output, made, strict=True) if name)
        if not is_whole and ((is_known and not domain) or operator_name(node) in _GROWING):
            raise BadSizes(_untold(node))
        return made

    def _of_branches(self, node: NodeProto, scope: _Scope, is_run: bool) -> list[_Value]:
        """Of both, as both may be worked out; of one, where it is known which is run."""
        condition = scope.get(node.input[0], _UNKNOWN)
        is_then = None if condition.array is None else bool(condition.array.any())
        outputs = []
        for name in ("then_branch", "else_branch"):
            branch = attribute_of(node, name)
            if branch is None or len(branch.g.output) != len(node.output):
                raise BadSizes(f"has If {_title(node)}, whose branches do not fit")
            inside = scope.new_child()
            is_taken = is_then in (None, name == "then_branch")
            self.walk(branch.g, inside, is_run=is_run and is_taken)
            made = [inside.get(value.name, _UNKNOWN) for value in branch.g.output]
            outputs += [made] if is_taken else []
        found = []
        for values in zip(*outputs, strict=True):
            kinds = [value.kind for value in values]
            if any(kind != kinds[0] for kind in kinds):
                raise BadSizes(_untold(node))
            is_constant = condition.is_constant and all(value.is_constant for value in values)
            array = values[0].array if len(values) == 1 else None
            found.append(_Value(kinds[0], array, is_constant))
        return found

    def _count(self, name: str, value: _Value) -> int:
        """The bytes of what must be held until its last use; a constant may be for ever."""
        if value.kind is None:
            return 0
        dims = _dims(value.kind)
        elements = math.prod(dims)
        size = elements * _item_bytes(value.kind)
        title = f"makes {quoted(name)} of {' × '.join(map(str, dims[:_MOST_AXES])) or 'no axes'}"
        if len(dims) > _MOST_AXES:
            raise BadSizes(f"{title} …; at most {_MOST_AXES} axes are accepted")
        if elements * 8 > MOST_VALUE_BYTES * self._batch_size:
            raise BadSizes(f"{title}; one image may take {MOST_VALUE_BYTES} bytes of one tensor")
        if value.is_constant:
            self._constant_bytes_left -= size
            if self._constant_bytes_left < 0:
                raise BadSizes(f"{title}, with which its constants take more than is accepted")
            return 0
        self._live_bytes += size
        if self._live_bytes > MOST_LIVE_BYTES * self._batch_size:
            raise BadSizes(
                f"{title}, with which one image takes more than {MOST_LIVE_BYTES} bytes at one time"
            )
        return size


def _uses(node: NodeProto) -> Iterator[str]:
    """What a node takes, in the graphs within it, too."""
    yield from node.input
    for graph in graphs_of(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _uses(inner)


def _measured(node: NodeProto, dims: Sequence[int]) -> Array:
    """A shape, or a part of it, or a size."""
    if node.op_type == "Size":
        return np.array(math.prod(dims))
    start, end = attribute_of(node, "start"), attribute_of(node, "end")
    return np.array(dims[start.i if start else 0 : end.i if end else None], np.int64)


def _followed(array: Array) -> _Value:
    elem_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    return _Value(_kind(elem_type, array.shape), array if array.size <= _FEW else None, True)


def _kind(elem_type: int, dims: Sequence[int]) -> TypeProto:
    return helper.make_tensor_type_proto(elem_type, dims)


def _whole(kind: TypeProto | None) -> TypeProto | None:
    """A type with a shape of which all is known, or None."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return kind if all(dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim) else None


def _dims(kind: TypeProto) -> list[int]:
    return [dim.dim_value for dim in kind.tensor_type.shape.dim]


def _item_bytes(kind: TypeProto) -> int:
    try:
        return helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).itemsize
    except KeyError:
        raise BadSizes("has tensors of no type that there is") from None


def _title(node: NodeProto) -> str:
    return quoted(node.name or next(iter(node.output), ""))


def _untold(node: NodeProto) -> str:
    return f"has {operator_name(node)} {_title(node)}, of whose size the images' size does not tell"


def first_line(error: Exception) -> str:
    """What ONNX says is wrong, in short."""
    return next(iter(str(error).strip().splitlines()), "no reason is given")[:300]
