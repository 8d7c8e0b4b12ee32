"""ONNX model folders that are refused, each for one fault alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pellucid_server.models import folders
from pellucid_server.models.folders import BadFolder
from pellucid_server.models.onnx import file as onnx_file
from pellucid_server.models.onnx import runtime

from tests.exports import graph, load, preprocessing, tiny, tiny_nodes, tiny_weights, write


def reason(folder: Path) -> str:
    with pytest.raises(BadFolder) as caught:
        load(folder)
    return str(caught.value)


# What model.yaml says.


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"platform": "tensorflow"}, "platform must be torch or onnx, is 'tensorflow'"),
        ({"platform": ["onnx"]}, "platform must be torch or onnx"),
        ({"architecture": "torchvision/vgg11"}, "architecture is unknown; known there are weights"),
        ({"precision": "bfloat16"}, "precision must be 'float32', 'tf32' or 'float64', is 'bfloat"),
        ({"input": {"layout": "HWC"}}, "input.layout must be 'NCHW' or 'NHWC', is 'HWC'"),
        ({"input": {"dtype": "uint8"}}, "input.dtype must be 'float32', is 'uint8'"),
        ({"input": {"shape": [1]}}, "input.shape is unknown; known there are name, layout, dtype"),
        ({"output": {"layout": "NC"}}, "output.layout is unknown; known there are name"),
        ({"output": {"name": ""}}, "output.name must have at least 1 character, is ''"),
        ({"sha256": "0" * 64}, "sha256: of model.onnx is"),
        ({"weights": "../model.onnx"}, "weights: '../model.onnx' leads out of the folder"),
        ({"labels": "none.txt"}, "labels: there is no file 'none.txt' in the folder"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], fragment: str, tmp_path: Path) -> None:
    assert fragment in reason(write(tmp_path / "net", tiny(), **settings))


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", tiny(), sha256="x", weights=None, output={"name": 5})
    found = reason(folder)
    assert "weights is missing" in found
    assert "sha256 must match" in found
    assert "output.name must be a valid string" in found


def test_a_file_that_is_not_the_one_stated_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "net", tiny(), sha256="0" * 64)
    monkeypatch.setattr(folders, "read_onnx", None)
    assert f"{'0' * 64} is stated" in reason(folder)


def test_labels_must_be_as_many_as_classes(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", tiny(), labels="labels.txt")
    (folder / "labels.txt").write_text("a\nb\nc\n")
    assert "labels: there are 3, and its output has 4 classes" in reason(folder)


# Files that are none.


def test_a_file_over_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "net", tiny())
    monkeypatch.setattr(folders, "MOST_ONNX_BYTES", 100)
    assert "model.onnx has more than 100 bytes" in reason(folder)


@pytest.mark.parametrize("data", [b"", b"no protobuf at all", tiny().SerializeToString()[:-40]])
def test_corrupt_files(data: bytes, tmp_path: Path) -> None:
    assert "is no ONNX file" in reason(write(tmp_path / "net", data))


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    data = tiny().SerializeToString()
    for length in range(0, len(data), 97):
        assert reason(write(tmp_path / "net", data[:length]))


def test_bytes_changed_at_random_are_refused_or_served(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = tiny().SerializeToString()
    for _ in range(60):
        bent = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            bent[place] = generator.integers(256)
        folder = write(tmp_path / "net", bytes(bent))
        try:
            assert load(folder).network.class_count == 4
        except BadFolder as error:
            assert str(error)


def bent(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = tiny()
    change(model)
    return model


def external(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")


def hidden_external(model: onnx.ModelProto) -> None:
    """In an attribute of a node in a branch of a node."""
    constant = numpy_helper.from_array(np.zeros(2, np.float32), "inside")
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="/etc/hostname")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=constant)],
        "branch",
        [],
        [helper.make_tensor_value_info("k", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["x"], ["k"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def function(model: onnx.ModelProto) -> None:
    """An external tensor in a function."""
    tensor = TensorProto(name="far", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    node = helper.make_node("Constant", [], ["k"], value=tensor)
    model.functions.append(
        helper.make_function("own", "Far", [], ["k"], [node], [helper.make_opsetid("", 17)])
    )


def lying(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def typed(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[2]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])


def huge(model: onnx.ModelProto) -> None:
    pads = model.graph.node[0].attribute.add(name="pads", type=onnx.AttributeProto.INTS)
    pads.ints.extend([1 << 16] * 4)


def softmax(op_type: str, **attributes: Any) -> onnx.ModelProto:
    nodes = tiny_nodes()
    nodes[-1].output[0] = "z"
    return graph([*nodes, helper.make_node(op_type, ["z"], ["y"], **attributes)], tiny_weights())


def with_input(name: str) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.input.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
    )


def with_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["n", 5]))


def activated(op_type: str, **options: Any) -> onnx.ModelProto:
    return graph(
        tiny_nodes(helper.make_node(op_type, ["a"], ["b"], "odd", **options)),
        tiny_weights(),
        imports=[helper.make_opsetid("acme.vision", 1), helper.make_opsetid("com.microsoft", 1)],
    )


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "an opset that is too old": (tiny(opset=9), "is of opset 9; 11 to 23 are supported"),
    "an opset that is too new": (bent(lambda m: setattr(m.opset_import[0], "version", 99)), "99"),
    "no opset": (bent(lambda m: m.opset_import.pop()), "is of opset none; 11 to 23"),
    "no graph": (bent(lambda m: m.ClearField("graph")), "is no ONNX file"),
    "external data beside it": (
        bent(lambda m: external(m, "weights.bin")),
        "keeps tensors outside itself, all must be in it: 'conv.weight' in 'weights.bin'",
    ),
    "external data elsewhere": (
        bent(lambda m: external(m, "../../secret")),
        "'conv.weight' in '../../secret'",
    ),
    "external data at the root": (bent(lambda m: external(m, "/etc/passwd")), "'/etc/passwd'"),
    "external data that is hidden": (bent(hidden_external), "'inside' in '/etc/hostname'"),
    "external data of a function": (bent(function), "keeps tensors outside itself"),
    "a tensor that lies": (bent(lying), "not all values are there: 'conv.weight'"),
    "a tensor that is cut off": (bent(typed), "not all values are there: 'fc.bias'"),
    "an activation beyond all memory": (bent(huge), "one image may take"),
    "an operator of a stranger": (
        activated("Fancy", domain="acme.vision"),
        "has operators that are not ONNX's of opset 17, nor ONNX Runtime's: acme.vision.Fancy",
    ),
    "an operator that there is not": (activated("Relu7"), "nor ONNX Runtime's: Relu7"),
    "an operator of a later opset": (activated("Gelu"), "nor ONNX Runtime's: Gelu"),
    "an operator that ONNX Runtime lacks": (
        activated("Imaginary", domain="com.microsoft"),
        "is not taken by ONNX Runtime: ",
    ),
    "an operator that need not end": (activated("Loop"), "need not end: Loop"),
    "a graph that does not hang together": (
        bent(lambda m: m.graph.node.pop(1)),
        "is no valid graph: ",
    ),
    "randomness": (
        activated("RandomNormalLike"),
        "gives other logits when it is run again: something in it is random",
    ),
    "one channel": (tiny(shape=("n", 1, 8, 8)), "'x' is any × 1 × 8 × 8, in NCHW; it must have 3"),
    "another height": (tiny(shape=("n", 3, 9, 8)), "preprocessing.height_px is 8"),
    "another width": (tiny(shape=("n", 3, 8, 7)), "preprocessing.width_px is 8"),
    "three axes": (tiny(shape=(3, 8, 8)), "input: 'x' is 3 × 8 × 8; NCHW has 4 axes"),
    "too many images": (tiny(shape=(1000, 3, 8, 8)), "it must take 1 to 256 images"),
    "the other layout": (
        tiny(shape=("n", 8, 8, 3)),
        "input.layout: is NCHW; 'x' is any × 8 × 8 × 3, which is NHWC",
    ),
    "bytes": (tiny(dtype=TensorProto.UINT8), "input: 'x' is uint8, input.dtype is float32"),
    "halves": (tiny(dtype=TensorProto.FLOAT16), "'x' is float16"),
    "doubles": (tiny(dtype=TensorProto.DOUBLE), "'x' is float64, input.dtype is float32"),
    "two inputs": (
        bent(with_input("mask")),
        "input.name: the graph has 'x', 'mask'; must be named",
    ),
    "two outputs": (bent(with_output), "output.name: the graph has 'y', 'd'; must be named"),
    "maps for logits": (
        bent(lambda m: m.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1)),
        "output: 'y' is any × 4 × 1; logits are images × classes",
    ),
    "a sigmoid": (softmax("Sigmoid"), "output: 'y' is made by Sigmoid; logits are needed"),
    "a softmax of images": (softmax("Softmax", axis=0), "Softmax is over axis 0"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_files_that_are_refused(fault: str, tmp_path: Path) -> None:
    model, fragment = REFUSED[fault]
    assert fragment in reason(write(tmp_path / "net", model))


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"input": {"name": "z"}}, "input.name: is 'z'; the graph has 'x'"),
        ({"output": {"name": "z"}}, "output.name: is 'z'; the graph has 'y'"),
        ({"input": {"layout": "NHWC"}}, "input.layout: is NHWC; 'x' is any × 3 × 8 × 8"),
        ({"preprocessing": preprocessing(16)}, "preprocessing.height_px is 16; weights"),
    ],
)
def test_graphs_that_are_not_what_is_stated(
    settings: dict[str, Any], fragment: str, tmp_path: Path
) -> None:
    found = reason(write(tmp_path / "net", tiny(), **settings))
    assert fragment.removesuffix("; weights") in found


def test_an_input_that_is_named_is_fed_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", bent(with_input("mask")), input={"name": "x"})
    assert "input: there are 'x', 'mask'; one is fed, with images" in reason(folder)


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    model = tiny(shape=("n", 4, 9, 7), dtype=TensorProto.DOUBLE)
    found = reason(write(tmp_path / "net", model))
    for fragment in ("'x' is float64", "3 channels", "height_px", "width_px", "'y' is float64"):
        assert fragment in found


def test_too_many_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "net", tiny())
    monkeypatch.setattr(onnx_file, "MOST_NODES", 4)
    assert "has 5 operators; at most 4 are accepted" in reason(folder)


def test_two_distributions_of_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "net", tiny())
    monkeypatch.setattr(runtime, "version", lambda name: "1.2.3")
    assert "onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3 are installed side by side" in reason(
        folder
    )
