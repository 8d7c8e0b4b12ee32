"""ONNX files for tests: exported from the embedded networks, or made node by node."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from pellucid_server.models.registry import Model, load_folder
from torch import nn

from tests.harness import ARCHITECTURES, CPU, cached

SIDE_PX = 96


def export(
    network: nn.Module,
    *,
    side_px: int = SIDE_PX,
    preserve: bool = False,
    batch_size: int | None = None,
    opset: int = 17,
) -> bytes:
    """A network as torch exports it; preserve: without folding batch normalizations."""
    images = torch.randn(batch_size or 1, 3, side_px, side_px)
    axes = {} if batch_size else {"input": {0: "n"}, "logits": {0: "n"}}
    options: dict[str, Any] = {}
    if preserve:
        options = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor and itself
        torch.onnx.export(
            network.eval(),
            (images.to(next(network.parameters()).dtype),),
            made,
            dynamo=False,  # the other one needs onnxscript
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=opset,
            **options,
        )
    return made.getvalue()


@cached
def exported(
    name: str, preserve: bool = False, batch_size: int | None = None, side_px: int = SIDE_PX
) -> bytes:
    """An embedded network."""
    network = ARCHITECTURES[name].build(side_px)
    return export(network, side_px=side_px, preserve=preserve, batch_size=batch_size)


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    shape: Sequence[int | str | None] = ("n", 3, 8, 8),
    classes: int = 4,
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    imports: Sequence[Any] = (),
    **options: Any,
) -> onnx.ModelProto:
    """A graph from "x" to "y"."""
    batch = shape[0]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, (batch, classes))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), *imports]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, **options)


def tiny_weights(seed: int = 0, classes: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "conv.weight": generator.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "fc.weight": generator.standard_normal((classes, 5)).astype(np.float32),
        "fc.bias": generator.standard_normal(classes).astype(np.float32),
    }


def tiny_nodes(activation: onnx.NodeProto | None = None) -> list[onnx.NodeProto]:
    """A convolution, an activation from "a" to "b", the mean of each map, a dense layer."""
    return [
        helper.make_node("Conv", ["x", "conv.weight"], ["a"], kernel_shape=[3, 3]),
        activation or helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]


def tiny(**options: Any) -> onnx.ModelProto:
    return graph(tiny_nodes(), tiny_weights(), **options)


def write(folder: Path, data: bytes | onnx.ModelProto, **settings: Any) -> Path:
    """Writes a model folder; settings that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    data = data if isinstance(data, bytes) else data.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    stated = {
        "platform": "onnx",
        "weights": "model.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocessing": preprocessing(8),
    } | settings
    text = yaml.safe_dump({k: v for k, v in stated.items() if v is not None})
    (folder / "model.yaml").write_text(text)
    return folder


def preprocessing(side_px: int, like: str = "resnet18") -> dict[str, Any]:
    steps = ARCHITECTURES[like].preprocessing(side_px)
    resize = {"resize_shorter_side_px": steps.resize_shorter_side_px}
    return {
        **(resize if steps.resize_shorter_side_px else {"stretch": True}),
        "height_px": side_px,
        "width_px": side_px,
        "interpolation": steps.interpolation,
        "mean": list(steps.mean),
        "std": list(steps.std),
    }


def write_network(
    folder: Path, name: str, data: bytes, side_px: int = SIDE_PX, **settings: Any
) -> Path:
    """A model folder of an embedded network's export."""
    return write(
        folder, data, preprocessing=preprocessing(side_px, name), labels="imagenet", **settings
    )


def load(folder: Path) -> Model:
    return load_folder(folder, device=CPU)
