"""Constants that a graph makes of constants: bounded, then worked out by ONNX's reference."""

import math
from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator

from .nodes import attribute_of, operator_name, tensors
from .operators import Array

MOST_CONSTANT_BYTES = 256 << 20
"""Of what is worked out of constants, beside _TIMES what the file's own take.

Masks and tables of positions take some MiB.
"""
_TIMES = 8
"""Weights of int8 that are made float32, then transposed."""

_ITEM_BYTES = 8
_MOST_AXES = 64
"""That an array of numpy can have."""


class NotWorkedOut(ValueError):
    """An operator on constants that is not worked out; the message says why."""


def most_constant_bytes(model: ModelProto) -> int:
    """What constants that are made of constants may take in all."""
    return MOST_CONSTANT_BYTES + _TIMES * sum(tensor.ByteSize() for tensor in tensors(model))


def worked_out(
    node: NodeProto, arrays: Sequence[Array], opset: int, most_bytes: int
) -> list[Array]:
    """What an operator makes of constants, one array an output.

    Args:
        node: The operator, without graphs in it.
        arrays: Its inputs, in their order; what is left out is empty.
        opset: The version of ONNX's own operators.
        most_bytes: What it may make, which is told before anything is made.

    Raises:
        NotWorkedOut: It is none that is worked out, makes more, or does not fit its inputs.
    """
    try:
        most = _most_elements(node, arrays)
    except (ValueError, ArithmeticError, LookupError) as error:  # what does not fit
        raise NotWorkedOut(f", of constants: {error}") from error
    if most is None:
        raise NotWorkedOut(", of constants")
    if most * _ITEM_BYTES > most_bytes:
        raise NotWorkedOut(": it makes too large a constant")
    feeds = {name: array for name, array in zip(node.input, arrays, strict=True) if name}
    try:
        made = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    except Exception as error:  # of whatever type the reference raises
        raise NotWorkedOut(f", of constants: {error}") from error
    if len(made) != len(node.output):
        raise NotWorkedOut(", of constants: it has other outputs")
    return [np.asarray(one) for one in made]


_MOVES = frozenset(
    [
        "Cast",
        "Concat",
        "Flatten",
        "Identity",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators whose results have at most as many elements as all their inputs."""

_ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Ceil",
        "Clip",
        "Div",
        "Equal",
        "Exp",
        "Floor",
        "Greater",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
        "Round",
        "Sqrt",
        "Sub",
        "Where",
    ]
)
"""Operators whose results have the shape that their inputs broadcast to."""


def _most_elements(node: NodeProto, arrays: Sequence[Array]) -> int | None:
    """A bound of what an operator makes of constants; None: it is not worked out."""
    sizes = [max(1, array.size) for array in arrays]
    match name := operator_name(node):
        case "Constant":
            sparse = attribute_of(node, "sparse_value")
            return math.prod(sparse.sparse_tensor.dims) if sparse else 1  # or as the file has it
        case "ConstantOfShape":
            return math.prod(max(0, int(length)) for length in arrays[0].ravel())
        case "Expand":
            return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(map(int, arrays[1]))))
        case "Tile":
            return sizes[0] * math.prod(max(1, int(times)) for times in arrays[1].ravel())
        case "Range":
            start, limit, delta = (float(array.item()) for array in arrays)
            return max(0, math.ceil((limit - start) / delta))
        case "Gather":
            axis = attribute_of(node, "axis")
            length = int(arrays[0].shape[axis.i if axis else 0])
            return sizes[0] // max(1, length) * sizes[1]
        case "NonZero":
            return max(1, arrays[0].ndim) * sizes[0]
        case "Cast" if _is_to_text(attribute_of(node, "to")):
            return None
        case "Unsqueeze" if _axes_after(node, arrays) > _MOST_AXES:
            return None
    if name in _MOVES:
        return sum(sizes)
    if name in _ELEMENTWISE:
        given = zip(node.input, arrays, strict=True)
        return math.prod(np.broadcast_shapes(*(array.shape for one, array in given if one)))
    return None


def _is_to_text(to: AttributeProto | None) -> bool:
    return to is not None and to.i == TensorProto.STRING


def _axes_after(node: NodeProto, arrays: Sequence[Array]) -> int:
    axes = attribute_of(node, "axes")
    return arrays[0].ndim + (len(axes.ints) if axes else arrays[1].size)
