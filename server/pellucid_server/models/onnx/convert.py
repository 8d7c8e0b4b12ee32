"""An ONNX graph as a network of torch, with modules of torch that taps and rules know.

The graph is run once for two numbers of images: what depends on neither the images nor their
number is a constant, and what differs by their number tells which axes hold them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor, nn

from . import layers
from .constants import NotWorkedOut, most_constant_bytes, worked_out
from .file import OnnxFile
from .names import named
from .nodes import operator_name
from .operators import BATCH, OPERATORS, Array, Call, Unconvertible
from .patterns import fused

_COUNTS = (2, 3)
"""Numbers of images that the graph is run for: 1 would be told from nothing."""

_MOST_CONVERTED = 10_000
"""Operators on images; each becomes a module, which takes some milliseconds in all."""


@dataclass(frozen=True)
class Step:
    """One call of one module: where it stands, what it takes, what it makes."""

    owner: nn.Module
    child: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...]


class Converted(nn.Module):
    """A network that runs the steps of a graph, one after the other."""

    def __init__(self, input_name: str, output_name: str, *, channels_last: bool) -> None:
        super().__init__()
        self._ends = input_name, output_name
        self._channels_last = channels_last
        self._steps: tuple[Step, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        start, end = self._ends
        values = {start: images.permute(0, 2, 3, 1) if self._channels_last else images}
        for step in self._steps:
            module = step.owner._modules[step.child]
            assert module is not None
            made = module(*(values[name] for name in step.inputs))
            for name in step.dead:
                del values[name]
            several = made if isinstance(made, tuple) else (made,)
            values.update(zip(step.outputs, several, strict=True))
        return values[end]


@dataclass(frozen=True)
class _Constant:
    """What does not depend on the images, for each number of them."""

    arrays: tuple[Array, ...]

    @property
    def fixed(self) -> bool:
        first, second = self.arrays
        return first is second or (first.shape == second.shape and np.array_equal(first, second))


_Value = _Constant | tuple[Tensor, ...]


def convert(file: OnnxFile) -> nn.Module:
    """A graph as a network: N×3×H×W to N×classes, in the precision of the file's weights.

    Raises:
        Unconvertible: An operator has no module of torch, or does not fit; it is named.
    """
    with torch.no_grad():
        return _Conversion(file).network()


class _Conversion:
    def __init__(self, file: OnnxFile) -> None:
        self._file = file
        graph = file.model.graph
        self._values: dict[str, _Value] = {"": _Constant((np.empty(0),) * 2)}
        self._bytes_left = most_constant_bytes(file.model)
        self._folded_bytes: dict[str, int] = {}
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            self._values[tensor.name] = _Constant((array, array))
        needed = _needed(graph.node, file.output_name)
        last_use = _last_uses(needed)
        nodes = []
        for place, node in enumerate(needed):
            inputs = [self._values.get(name) for name in node.input]
            known = [value for value in inputs if isinstance(value, _Constant)]
            if len(known) == len(inputs):
                self._fold(node, known)
                self._drop(node, place, last_use)
            else:
                nodes.append(node)
        if len(nodes) > _MOST_CONVERTED:
            raise Unconvertible(
                f"it has {len(nodes)} operators on images; at most {_MOST_CONVERTED} are converted"
            )
        self._nodes = fused(nodes, self._constant_of)
        self._values[file.input_name] = tuple(_images(file, count) for count in _COUNTS)
        self._made: list[tuple[NodeProto, nn.Module, list[str]]] = []

    def network(self) -> nn.Module:
        last_use = _last_uses(self._nodes)
        for place, node in enumerate(self._nodes):
            inputs = [self._value(node, name) for name in node.input]
            if all(isinstance(value, _Constant) for value in inputs):
                self._fold(node, [value for value in inputs if isinstance(value, _Constant)])
            elif operator_name(node) in ("Shape", "Size"):
                self._measure(node, inputs[0])
            else:
                self._convert(node, inputs)
            self._drop(node, place, last_use)
        if not isinstance(self._values.get(self._file.output_name), tuple):
            raise Unconvertible("the output does not depend on the images")
        return self._assembled()

    def _constant_of(self, name: str) -> Array | None:
        """A constant that is known before anything is run."""
        value = self._values.get(name)
        return value.arrays[0] if isinstance(value, _Constant) else None

    def _value(self, node: NodeProto, name: str) -> _Value:
        if name not in self._values:
            raise Unconvertible(f"{_title(node)} is not converted: its input {name!r} is missing")
        return self._values[name]

    def _fold(self, node: NodeProto, inputs: list[_Constant]) -> None:
        fixed = all(value.fixed for value in inputs)
        made = []
        for which in range(1 if fixed else len(_COUNTS)):
            arrays = [value.arrays[which] for value in inputs]
            try:
                made.append(worked_out(node, arrays, self._file.opset, self._bytes_left))
            except NotWorkedOut as error:
                raise Unconvertible(f"{_title(node)} is not converted{error}") from error
            self._bytes_left -= sum(array.nbytes for array in made[-1])
        for name, pair in zip(node.output, zip(*made, strict=True), strict=True):
            self._values[name] = _Constant(pair * 2 if fixed else pair)
            self._folded_bytes[name] = sum(array.nbytes for array in pair)

    def _drop(self, node: NodeProto, place: int, last_use: Mapping[str, int]) -> None:
        """Lets go of what no later node takes."""
        for name in set(node.input) - {""}:
            if last_use[name] == place:
                del self._values[name]
                self._bytes_left += self._folded_bytes.pop(name, 0)

    def _measure(self, node: NodeProto, value: _Value) -> None:
        """The shape of an activation, or its size."""
        assert isinstance(value, tuple)
        attributes = _attributes(node)
        part = slice(attributes.get("start", 0), attributes.get("end"))
        self._values[node.output[0]] = _Constant(
            tuple(
                np.array(x.shape[part] if node.op_type == "Shape" else x.numel(), np.int64)
                for x in value
            )
        )

    def _convert(self, node: NodeProto, inputs: list[_Value]) -> None:
        build = OPERATORS.get(operator_name(node))
        if build is None:
            raise Unconvertible(f"{_title(node)} is not converted")
        names = [
            self._spread(node, name, value) for name, value in zip(node.input, inputs, strict=True)
        ]
        values = [self._values[name] for name in names]
        call = Call(
            name=node.name or node.output[0],
            op_type=node.op_type,
            opset=self._file.opset,
            attributes=_attributes(node),
            constants=[_known(*named_value) for named_value in zip(names, values, strict=True)],
            shapes=[_shape(value) if isinstance(value, tuple) else None for value in values],
            varying=frozenset(
                place
                for place, value in enumerate(values)
                if isinstance(value, _Constant) and not value.fixed
            ),
            output_count=sum(1 for name in node.output if name),
            batch_size=self._file.batch_size,
        )
        taken = [name for name in names if isinstance(self._values[name], tuple)]
        activations = [value for value in values if isinstance(value, tuple)]
        try:
            module = build(call).eval()
            outputs = [module(*tensors) for tensors in zip(*activations, strict=True)]
        except Unconvertible:
            raise
        except Exception as error:  # whatever torch raises where something does not fit
            raise Unconvertible(f"{_title(node)} is not converted: {error}") from error
        self._keep(node, module, taken, outputs)

    def _keep(
        self, node: NodeProto, module: nn.Module, names: list[str], outputs: list[Any]
    ) -> None:
        self._made.append((node, module, names))
        made = [out if isinstance(out, tuple) else (out,) for out in outputs]
        for name, *pair in zip(node.output, *made, strict=False):
            self._values[name] = tuple(pair)

    def _spread(self, node: NodeProto, name: str, value: _Value) -> str:
        """Of a constant with a row for each image, the name of an activation that grows."""
        if isinstance(value, tuple) or node.op_type not in ("Concat", "Add", "Mul"):
            return name
        row = _row_of(value, self._file.batch_size if node.op_type == "Concat" else None)
        if row is None:
            return name
        spread = f"{name}/rows"
        if spread not in self._values:
            module = layers.Rows(torch.from_numpy(np.array(row)))
            images = self._file.input_name
            maker = onnx.helper.make_node("Rows", [images], [spread], f"{node.name}_rows")
            outputs = [module(torch.empty(count)) for count in _COUNTS]
            self._keep(maker, module, [images], outputs)
        return spread

    def _assembled(self) -> nn.Module:
        file = self._file
        network = Converted(
            file.input_name, file.output_name, channels_last=file.expected.layout == "NHWC"
        )
        last_use = {name: n for n, (_, _, names) in enumerate(self._made) for name in names}
        last_use[file.output_name] = len(self._made)
        steps = []
        titles = named([node for node, _, _ in self._made])
        for place, ((node, module, names), title) in enumerate(
            zip(self._made, titles, strict=True)
        ):
            *parents, child = title.split(".")
            owner: nn.Module = network
            for parent in parents:
                if parent not in owner._modules:
                    owner.add_module(parent, nn.Module())
                owner = owner.get_submodule(parent)
            owner.add_module(child, module)
            dead = tuple({name for name in names if last_use[name] == place})
            outputs = tuple(name or f"{title}/{n}" for n, name in enumerate(node.output))
            steps.append(Step(owner, child, tuple(names), outputs, dead))
        network._steps = tuple(steps)
        return network


def _needed(nodes: Sequence[NodeProto], output: str) -> list[NodeProto]:
    """The nodes that an output comes from, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _last_uses(nodes: Sequence[NodeProto]) -> dict[str, int]:
    return {name: place for place, node in enumerate(nodes) for name in node.input}


def _images(file: OnnxFile, count: int) -> Tensor:
    expected = file.expected
    generator = torch.Generator().manual_seed(count)
    shape = (count, 3, expected.height_px, expected.width_px)
    images = torch.randn(shape, generator=generator, dtype=torch.float32)
    return images.permute(0, 2, 3, 1) if expected.layout == "NHWC" else images


def _title(node: NodeProto) -> str:
    name = node.name or next(iter(node.output), "")
    return f"operator {operator_name(node)} ({name[:128]})"


def _attributes(node: NodeProto) -> Mapping[str, Any]:
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {
        n: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for n, v in found.items()
    }


def _shape(pair: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple(a if a == b else BATCH for a, b in zip(pair[0].shape, pair[1].shape, strict=True))


def _known(name: str, value: _Value) -> Array | None:
    """A constant, with BATCH where it differs by the number of images."""
    if isinstance(value, tuple) or not name:
        return None
    first, second = value.arrays
    if value.fixed or first.shape != second.shape or first.dtype.kind != "i":
        return first
    return np.where(first == second, first, BATCH)


def _row_of(value: _Constant, batch_size: int | None) -> Array | None:
    """The row that a constant repeats for every image, if it does."""
    first, second = value.arrays
    if value.fixed:
        counts: tuple[int, ...] = (batch_size or 0,) * 2
    else:
        counts = _COUNTS
    for array, count in zip((first, second), counts, strict=True):
        if (
            array.ndim < 2
            or len(array) != count
            or not np.array_equal(array, array[:1].repeat(count, 0))
        ):
            return None
    return first[0] if np.array_equal(first[0], second[0]) else None
