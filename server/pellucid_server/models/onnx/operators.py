"""Operators of ONNX as modules of torch: those that image classifiers are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import layers

Array = NDArray[Any]

BATCH = -2
"""Stands for a length that grows with the number of images."""


class Unconvertible(ValueError):
    """An operator that has no module of torch here; the message names it."""


@dataclass(frozen=True)
class Call:
    """One operator of a graph, with what is known of its inputs.

    Attributes:
        constants: Of its inputs; None where an activation stands, or nothing.
        shapes: Of the activations among its inputs, with BATCH for an axis that is longer for
            more images; None where a constant stands, or nothing.
        varying: Places of the constants that hold BATCH where numbers grow with the images.
        batch_size: The number of images that the file fixes; None: any.
    """

    name: str
    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    constants: Sequence[Array | None]
    shapes: Sequence[tuple[int, ...] | None]
    varying: frozenset[int]
    output_count: int
    batch_size: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input, which must be an activation."""
        return self.shape_at(0)

    def shape_at(self, place: int) -> tuple[int, ...]:
        shape = self.shapes[place] if place < len(self.shapes) else None
        if shape is None:
            raise self.refused("of a constant")
        return shape

    def constant(self, place: int) -> Array | None:
        """An input that must be a constant, or None where it is left out."""
        if place in self.varying:
            raise self.refused("whose parameters depend on the number of images")
        return self.constant_or_varying(place)

    def constant_or_varying(self, place: int) -> Array | None:
        """The same, where BATCH is understood."""
        if place < len(self.shapes) and self.shapes[place] is not None:
            raise self.refused("whose parameters depend on the image")
        return self.constants[place] if place < len(self.constants) else None

    def needed(self, place: int) -> Array:
        constant = self.constant(place)
        if constant is None:
            raise self.refused("without its parameters")
        return constant

    def scalar(self, place: int, default: float) -> float:
        constant = self.constant(place)
        return default if constant is None else number(constant.item())

    def axes(self, place: int) -> tuple[int, ...] | None:
        """Axes of the first input, counted from 0: an attribute, later an input."""
        given = self.attributes.get("axes")
        if given is None and (constant := self.constant(place)) is not None:
            given = constant.ravel().tolist()
        return None if given is None else tuple(a % len(self.shape) for a in given)

    def refused(self, what: str) -> Unconvertible:
        return Unconvertible(f"operator {self.op_type} ({self.name}), {what}, is not converted")


def number(value: float) -> float:
    """A float32 as the shortest decimal that rounds to it: 1e-5 is what was meant."""
    return float(str(np.float32(value)))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array))


def _given(module: nn.Module, **tensors: Array | None) -> nn.Module:
    """A module with these weights."""
    for name, array in tensors.items():
        if array is None:
            setattr(module, name, None)
        elif name in module._parameters:
            setattr(module, name, nn.Parameter(_tensor(array), requires_grad=False))
        else:
            setattr(module, name, _tensor(array))
    return module


# Layers with weights.


def _conv(call: Call) -> nn.Module:
    if len(call.shape) != 4:
        raise call.refused("not of two dimensions")
    weight, bias = call.needed(1), call.constant(2)
    groups, kernel = call.attributes.get("group", 1), weight.shape[2:]
    strides, dilations = _window(call)
    before, after = _pads(call, kernel, strides, dilations)
    with torch.device("meta"):
        conv = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            kernel,
            strides,
            before if before == after else 0,
            dilations,
            groups,
            bias is not None,
        )
    _given(conv, weight=weight, bias=bias)
    return conv if before == after else _padded(conv, before, after)


_Pair = tuple[int, int]


def _window(call: Call) -> tuple[_Pair, _Pair]:
    """Strides and dilations."""
    strides, dilations = (call.attributes.get(n, (1, 1)) for n in ("strides", "dilations"))
    return (strides[0], strides[1]), (dilations[0], dilations[1])


def _pads(
    call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[_Pair, _Pair]:
    """Above and to the left; below and to the right."""
    auto = call.attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        top, left, bottom, right = call.attributes.get("pads", (0,) * 4)
        return ((top, left), (bottom, right)) if auto == "NOTSET" else ((0, 0), (0, 0))
    before, after = [], []
    for length, size, stride, dilation in zip(
        call.shape[2:], kernel, strides, dilations, strict=True
    ):
        steps = -(-length // stride)
        total = max(0, (steps - 1) * stride + (size - 1) * dilation + 1 - length)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return (before[0], before[1]), (after[0], after[1])


def _padded(module: nn.Module, before: _Pair, after: _Pair, value: float = 0.0) -> nn.Module:
    widths = (before[1], after[1], before[0], after[0])
    padded = nn.Sequential()
    padded.add_module("pad", layers.Pad(widths, value=value))
    padded.add_module("window", module)
    return padded


def _linear(weight: Array, bias: Array | None) -> nn.Module:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _given(linear, weight=weight, bias=bias)


def _gemm(call: Call) -> nn.Module:
    weight, bias = call.needed(1), call.constant(2)
    alpha, beta = (call.attributes.get(name, 1.0) for name in ("alpha", "beta"))
    if call.attributes.get("transA", 0):
        raise call.refused("of a transposed activation")
    weight = weight if call.attributes.get("transB", 0) else weight.T
    weight = weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)
    if bias is not None:
        if bias.size not in (1, len(weight)):
            raise call.refused("with a bias that differs by image")
        bias = np.broadcast_to(bias.ravel(), (len(weight),))
        bias = bias if beta == 1 else bias * np.asarray(beta, bias.dtype)
    return _linear(weight, bias)


def _mat_mul(call: Call) -> nn.Module:
    constant = call.constants[1]
    if call.shapes[0] is not None and constant is not None and constant.ndim == 2:
        bias = call.constants[2] if len(call.constants) > 2 else None  # of the sum behind it
        return _linear(constant.T, bias)
    return layers.MatMul(_operands(call))


def _batch_norm(call: Call) -> nn.Module:
    if call.output_count > 1 or call.attributes.get("training_mode", 0):
        raise call.refused("in training mode")
    scale, shift, mean, variance = (call.needed(place) for place in range(1, 5))
    kind = nn.BatchNorm2d if len(call.shape) == 4 else nn.BatchNorm1d
    norm = kind(len(scale), number(call.attributes.get("epsilon", 1e-5)))
    return _given(norm, weight=scale, bias=shift, running_mean=mean, running_var=variance)


def _layer_norm(call: Call) -> nn.Module:
    if call.output_count > 1:
        raise call.refused("with more than one output")
    axis = call.attributes.get("axis", -1)
    scale, shift = call.needed(1), call.constant(2)
    shape = call.shape[axis:]
    if BATCH in shape or scale.shape != shape:
        raise call.refused("whose scale has another shape")
    norm = nn.LayerNorm(shape, number(call.attributes.get("epsilon", 1e-5)))
    return _given(norm, weight=scale, bias=shift)


def _instance_norm(call: Call) -> nn.Module:
    scale, shift = call.needed(1), call.needed(2)
    eps = number(call.attributes.get("epsilon", 1e-5))
    norm = nn.InstanceNorm2d(len(scale), eps, affine=True)
    return _given(norm, weight=scale, bias=shift)


def _local_response(call: Call) -> nn.Module:
    defaults = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    alpha, beta, k = (number(call.attributes.get(n, d)) for n, d in defaults.items())
    return nn.LocalResponseNorm(call.attributes["size"], alpha, beta, k)


# Pooling.


def _pooled(call: Call) -> tuple[_Pair, _Pair, _Pair, _Pair, _Pair]:
    """Kernel, strides, dilations, and pads before and after."""
    if len(call.shape) != 4:
        raise call.refused("not of two dimensions")
    height, width = call.attributes["kernel_shape"]
    strides, dilations = _window(call)
    return (height, width), strides, dilations, *_pads(call, (height, width), strides, dilations)


def _max_pool(call: Call) -> nn.Module:
    if call.output_count > 1:
        raise call.refused("with indices")
    kernel, strides, dilations, before, after = _pooled(call)
    ceil = bool(call.attributes.get("ceil_mode", 0))
    padding = before if before == after else 0
    pool = nn.MaxPool2d(kernel, strides, padding, dilations, ceil_mode=ceil)
    return pool if before == after else _padded(pool, before, after, -math.inf)


def _average_pool(call: Call) -> nn.Module:
    kernel, strides, dilations, before, after = _pooled(call)
    counted = bool(call.attributes.get("count_include_pad", 0))
    ceil = bool(call.attributes.get("ceil_mode", 0))
    if dilations != (1, 1) or (before != after and (not counted or ceil)):
        raise call.refused("with such padding or dilation")
    if before == after:
        return nn.AvgPool2d(kernel, strides, before, ceil, counted)
    return _padded(nn.AvgPool2d(kernel, strides), before, after)


def _one_cell(call: Call) -> int:
    if len(call.shape) != 4:
        raise call.refused("not of two dimensions")
    return 1


def _reduce(call: Call) -> nn.Module:
    axes = call.axes(1) or tuple(range(len(call.shape)))
    if any(call.shape[axis] == BATCH for axis in axes):
        raise call.refused("over images")
    kind = {"ReduceMean": layers.Mean, "ReduceSum": layers.Sum}[call.op_type]
    return kind(axes, bool(call.attributes.get("keepdims", 1)))


# Activations.


def _clip(call: Call) -> nn.Module:
    lower = call.scalar(1, -math.inf)
    upper = call.scalar(2, math.inf)
    if lower == 0 and upper > 0:
        if upper in (6.0, math.inf):
            return nn.ReLU() if upper == math.inf else nn.ReLU6()
        return nn.Hardtanh(0.0, upper)
    return layers.Clip(*(None if math.isinf(bound) else bound for bound in (lower, upper)))


def _hard_sigmoid(call: Call) -> nn.Module:
    alpha, beta = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    if not math.isclose(alpha, 1 / 6, rel_tol=1e-6) or beta != 0.5:
        raise call.refused(f"with alpha {alpha:.6g} and beta {beta:.6g}")
    return nn.Hardsigmoid()


def _softmax(call: Call) -> nn.Module:
    rank = len(call.shape)
    axis = call.attributes.get("axis", -1 if call.opset >= 13 else 1) % rank
    if call.shape[axis] == BATCH or (call.opset < 13 and axis != rank - 1):
        raise call.refused(f"over axis {axis}")
    return nn.LogSoftmax(axis) if call.op_type == "LogSoftmax" else nn.Softmax(axis)


def _prelu(call: Call) -> nn.Module:
    slope = call.needed(1)
    channels = call.shape[1]
    if slope.size not in (1, channels) or (slope.ndim > 2 and slope.shape[-3] != slope.size):
        raise call.refused("whose slopes differ by place")
    return _given(nn.PReLU(slope.size), weight=slope.reshape(-1))


def _gelu(call: Call) -> nn.Module:
    return nn.GELU(call.attributes.get("approximate", "none"))


def _dropout(call: Call) -> nn.Module:
    training = call.constant(2)
    if call.output_count > 1 or (training is not None and training.any()):
        raise call.refused("in training mode")
    return nn.Identity()


# Sums and products.


def _operands(call: Call) -> list[Tensor | None]:
    return [None if array is None else _tensor(array) for array in call.constants]


def _joining(kind: Callable[[Sequence[Tensor | None]], nn.Module]) -> Callable[[Call], nn.Module]:
    return lambda call: kind(_operands(call))


def _concat(call: Call) -> nn.Module:
    shape = next(shape for shape in call.shapes if shape is not None)
    axis = call.attributes["axis"] % len(shape)
    if shape[axis] == BATCH:
        raise call.refused("of images")
    return layers.Concat(_operands(call), axis)


# Moves.


def _reshape(call: Call) -> nn.Module:
    given = call.constant_or_varying(1)
    if given is None:
        raise call.refused("without a shape")
    wanted = [int(length) for length in given.ravel()]
    if call.batch_size is not None and wanted[:1] == [call.batch_size]:
        wanted[0] = BATCH  # what is written for that many images holds for any number
    if not call.attributes.get("allowzero", 0):
        wanted = [_same(call, a) if length == 0 else length for a, length in enumerate(wanted)]
    return _reshaped(call, wanted)


def _same(call: Call, axis: int) -> int:
    if axis >= len(call.shape):
        raise call.refused("to a shape that does not fit")
    return call.shape[axis]


def _reshaped(call: Call, wanted: list[int]) -> nn.Module:
    """To a shape that may hold one -1, for what is left, and one axis of images."""
    image = math.prod(length for length in call.shape if length != BATCH)
    rest = math.prod(length for length in wanted if length not in (BATCH, -1))
    if BATCH in wanted and -1 in wanted:
        if not rest or image % rest:
            raise call.refused("to a shape that does not fit")
        wanted = [image // rest if length == -1 else length for length in wanted]
    if wanted.count(BATCH) > 1:
        raise call.refused("to a shape that mixes images")
    return layers.Reshape([-1 if length == BATCH else length for length in wanted])


def _flatten(call: Call) -> nn.Module:
    if call.attributes.get("axis", 1) != 1:
        raise call.refused("from another axis than 1")
    return nn.Flatten(1)


def _squeeze(call: Call) -> nn.Module:
    shape = call.shape
    axes = call.axes(1)
    if axes is None:
        axes = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return _reshaped(call, [length for axis, length in enumerate(shape) if axis not in axes])


def _unsqueeze(call: Call) -> nn.Module:
    given = call.attributes.get("axes")
    given = call.needed(1).ravel().tolist() if given is None else given
    lengths = list(call.shape)
    for axis in sorted(a % (len(call.shape) + len(given)) for a in given):
        lengths.insert(axis, 1)
    return _reshaped(call, lengths)


def _transpose(call: Call) -> nn.Module:
    return layers.Transpose(call.attributes.get("perm", range(len(call.shape))[::-1]))


def _pad(call: Call) -> nn.Module:
    mode = call.attributes.get("mode", "constant")
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    widths = call.needed(1).ravel().tolist()
    axes = call.axes(3)
    rank = len(call.shape)
    axes = tuple(range(rank)) if axes is None else axes
    before, after = dict.fromkeys(range(rank), 0), dict.fromkeys(range(rank), 0)
    for place, axis in enumerate(axes):
        before[axis], after[axis] = widths[place], widths[place + len(axes)]
    if mode not in modes or before[0] or after[0]:
        raise call.refused(f"in mode {mode}")
    pairs = [(before[axis], after[axis]) for axis in reversed(range(1, rank))]
    while pairs and mode == "constant" and pairs[-1] == (0, 0):
        pairs.pop()
    if mode != "constant":
        pairs = pairs[:2]
    return layers.Pad([w for pair in pairs for w in pair], modes[mode], call.scalar(2, 0.0))


def _slice(call: Call) -> nn.Module:
    starts, ends = (call.needed(place).ravel().tolist() for place in (1, 2))
    given = call.constant(3)
    axes = range(len(starts)) if given is None else given.ravel().tolist()
    given = call.constant(4)
    steps = [1] * len(starts) if given is None else given.ravel().tolist()
    places: list[slice | int] = [slice(None)] * len(call.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1 or call.shape[axis] == BATCH:
            raise call.refused("backwards, or of images")
        places[axis] = slice(start, end, step)
    return layers.Slice(places)


def _gather(call: Call) -> nn.Module:
    axis = call.attributes.get("axis", 0) % len(call.shape)
    indices = call.needed(1)
    length = call.shape[axis]
    if length == BATCH or indices.ndim > 1:
        raise call.refused("of images, or by a table")
    if indices.ndim == 0:
        return layers.Slice([*[slice(None)] * axis, int(indices)])
    return layers.Gather(axis, _tensor(indices % length))


def _split(call: Call) -> nn.Module:
    axis = call.attributes.get("axis", 0) % len(call.shape)
    if call.shape[axis] == BATCH:
        raise call.refused("of images")
    given = call.attributes.get("split")
    if given is None and (constant := call.constant(1)) is not None:
        given = constant.ravel().tolist()
    if given is None:
        part = -(-call.shape[axis] // call.output_count)
        last = call.shape[axis] - part * (call.output_count - 1)
        given = [*[part] * (call.output_count - 1), last]
    return layers.Split(given, axis)


OPERATORS: Mapping[str, Callable[[Call], nn.Module]] = {
    "Add": _joining(layers.Add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Celu": lambda call: nn.CELU(number(call.attributes.get("alpha", 1.0))),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _joining(layers.Divide),
    "Dropout": _dropout,
    "Elu": lambda call: nn.ELU(number(call.attributes.get("alpha", 1.0))),
    "Erf": lambda _: layers.Erf(),
    "Exp": lambda _: layers.Exp(),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call: nn.AdaptiveAvgPool2d(_one_cell(call)),
    "GlobalMaxPool": lambda call: nn.AdaptiveMaxPool2d(_one_cell(call)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda _: nn.Hardswish(),
    "Identity": lambda _: nn.Identity(),
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: nn.LeakyReLU(number(call.attributes.get("alpha", 0.01))),
    "LogSoftmax": _softmax,
    "MatMul": _mat_mul,
    "MaxPool": _max_pool,
    "Mish": lambda _: nn.Mish(),
    "Mul": _joining(layers.Multiply),
    "Neg": lambda _: layers.Negative(),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _joining(layers.Power),
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Relu": lambda _: nn.ReLU(),
    "Reshape": _reshape,
    "Selu": lambda _: nn.SELU(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Silu": lambda _: nn.SiLU(),  # of a pattern
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": lambda _: nn.Softplus(),
    "Softsign": lambda _: nn.Softsign(),
    "Split": _split,
    "Sqrt": lambda _: layers.Sqrt(),
    "Squeeze": _squeeze,
    "Sub": _joining(layers.Subtract),
    "Sum": _joining(layers.Add),
    "Tanh": lambda _: nn.Tanh(),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
