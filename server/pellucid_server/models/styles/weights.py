"""The tensors of a style network's file, by name, and what each must be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import NodeProto, numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import quoted
from ..onnx.file import BadOnnx, parse_whole
from ..weights import BadWeights, read_header
from .network import BadStyle

_MOST_BYTES = 64 << 20
"""Of a file: the published networks take 7 MB at most."""


@dataclass(frozen=True)
class Tensors:
    """Tensors by name, out of one file.

    Attributes:
        file: Its name, for messages.
    """

    file: str
    by_name: Mapping[str, Tensor]

    def take(self, name: str, *shape: int) -> Tensor:
        """One of them in float64: what is folded is folded there, and cast once.

        Raises:
            BadStyle: It is not there, has another shape, or has values that are not finite.
        """
        found = self.by_name.get(name)
        if found is None:
            raise BadStyle(f"{self.file} lacks {quoted(name)}")
        if found.shape != shape:
            sizes = [" × ".join(map(str, s)) or "a scalar" for s in (found.shape, shape)]
            raise BadStyle(f"{self.file}: {quoted(name)} is {sizes[0]}; it must be {sizes[1]}")
        if not found.isfinite().all():
            raise BadStyle(f"{self.file}: {quoted(name)} has values that are not finite")
        return found.double()


def read_tensors(file: Path) -> Tensors:
    """Of a safetensors file, or an ONNX file, whose quantized weights are multiplied out.

    Of ONNX only tensors are read, no operator is run. A weight in int8 is called what it was
    before its DequantizeLinear, and is the product that this makes.

    Raises:
        BadStyle: It is too large, neither of the two, or damaged.
    """
    if (size := file.stat().st_size) > _MOST_BYTES:
        raise BadStyle(f"{file.name} has {size} bytes; at most {_MOST_BYTES} are accepted")
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    if file.suffix == ".onnx":
        return _of_onnx(file)
    raise BadStyle(f"{file.name} is neither .safetensors nor .onnx")


def _of_safetensors(file: Path) -> Tensors:
    try:
        read_header(file)
        # A copy: what safetensors gives stays a map of the file, which may be changed or cut.
        return Tensors(file.name, {name: t.clone() for name, t in load_file(file).items()})
    except (BadWeights, SafetensorError) as error:
        raise BadStyle(f"{file.name}: {error}") from None


def _of_onnx(file: Path) -> Tensors:
    try:
        model = parse_whole(file.read_bytes())
    except BadOnnx as error:
        raise BadStyle(f"{file.name} {error}") from None
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and all(name in kept for name in node.input):
            kept[node.output[0]] = _multiplied(node, *(kept[name] for name in node.input))
    made = {name.removesuffix("_dequant"): array for name, array in kept.items()}
    # Quantizing left one tensor of zeros for all biases that are none, and more than one name.
    return Tensors(file.name, {name: torch.from_numpy(np.array(a)) for name, a in made.items()})


def _multiplied(
    node: NodeProto, steps: np.ndarray, scale: np.ndarray, zero: np.ndarray
) -> np.ndarray:
    if scale.ndim == 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * steps.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    made: np.ndarray = (steps.astype(np.float64) - zero) * scale
    return made
