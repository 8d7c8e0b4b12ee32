"""ONNX model folders that are refused, each for one fault alone."""

import itertools
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


# Small files that would take all memory, or never end.

ENDLESS = 1 << 62
WHOLE = {"s0": np.array([0]), "s4": np.array([4]), "one shape": np.array([1])}
WHOLE |= {"many": np.array([1 << 26])}


def beside(*nodes: onnx.NodeProto, sparse: int = 0, **options: Any) -> onnx.ModelProto:
    """A graph that adds "k", which nodes make, to the logits."""
    made = tiny_nodes()
    made[-1].output[0] = "z"
    weights = tiny_weights() | WHOLE | {"one": np.ones(1, np.float32)}
    imports = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    last = helper.make_node("Add", ["z", "k"], ["y"])
    model = graph([*made, *nodes, last], weights, imports=imports, **options)
    if sparse:
        value = helper.make_tensor("wide", TensorProto.FLOAT, [1], [1.0])
        place = helper.make_tensor("place", TensorProto.INT64, [1], [5])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(value, place, [sparse]))
    return model


def own(name: str, *nodes: onnx.NodeProto, domain: str = "own") -> onnx.FunctionProto:
    """A function from "p" to "q"."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function(domain, name, ["p"], ["q"], nodes, opsets)


def call(name: str, start: str = "p", end: str = "q", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, [start], [end], domain="own", **attributes)


def loop_beside_a_function(domain: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", [n], [f"{n}2"]) for n in ("c", "v")],
        "body",
        [value("n", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v", 1, None)],
        [value("c2", TensorProto.BOOL, []), value("v2", 1, None)],
    )
    times = numpy_helper.from_array(np.array(ENDLESS))
    return beside(
        helper.make_node("Constant", [], ["times"], value=times),
        helper.make_node("Loop", ["times", "", "z"], ["k"], body=body),
        functions=[own("Loop", helper.make_node("Relu", ["p"], ["q"]), domain=domain)],
    )


def doubled(count: int) -> list[onnx.FunctionProto]:
    """Each calls the one before it twice."""
    calls = [own(f"F{n + 1}", call(f"F{n}", "p", "m"), call(f"F{n}", "m")) for n in range(count)]
    return [own("F0", helper.make_node("Relu", ["p"], ["q"])), *calls]


def doubled_branches(count: int) -> onnx.ModelProto:
    """A branch, which functions hand on to where it is used twice."""

    def handed(name: str, *attributes: str) -> onnx.NodeProto:
        node = helper.make_node(name, ["p"], ["q"], domain="own" if name != "If" else "")
        for one in attributes:
            node.attribute.add(name=one, type=onnx.AttributeProto.GRAPH, ref_attr_name="branch")
        return node

    def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
        made = own(name, *nodes)
        made.attribute.append("branch")
        return made

    functions = [function("F0", handed("If", "then_branch", "else_branch"))]
    for n in range(count):
        first, second = handed(f"F{n}", "branch"), handed(f"F{n}", "branch")
        first.output[0] = "unused"
        functions.append(function(f"F{n + 1}", first, second))
    made = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Identity", ["z"], ["o"])]
    branch = helper.make_graph(nodes, "branch", [], [made])
    return beside(call(f"F{count}", "z", "k", branch=branch), functions=functions)


def repeated_constant() -> onnx.ModelProto:
    """A function with a constant of 2 MB, called 600 times."""
    wide = numpy_helper.from_array(np.ones(500_000, np.float32))
    body = own(
        "F0",
        helper.make_node("Constant", [], ["wide"], value=wide),
        helper.make_node("ReduceMax", ["wide"], ["m"], keepdims=0),
        helper.make_node("Add", ["p", "m"], ["q"]),
    )
    names = ["z", *(f"n{n}" for n in range(599)), "k"]
    calls = [call("F0", *pair) for pair in itertools.pairwise(names)]
    return beside(*calls, functions=[body])


def sliced(*nodes: onnx.NodeProto, **options: Any) -> onnx.ModelProto:
    """What makes much, "wide", of which four values are taken."""
    return beside(*nodes, helper.make_node("Slice", ["wide", "s0", "s4"], ["k"]), **options)


def filled(count: int) -> onnx.ModelProto:
    """As many constants, each of 256 MiB."""
    nodes = []
    for n in range(count):
        nodes.append(helper.make_node("ConstantOfShape", ["many"], [f"c{n}"]))
        nodes.append(helper.make_node("Slice", [f"c{n}", "s0", "s4"], [f"d{n}"]))
    return beside(*nodes, helper.make_node("Sum", [f"d{n}" for n in range(count)], ["k"]))


def measured(op_type: str) -> onnx.ModelProto:
    """As large as what the images show."""
    return sliced(
        helper.make_node("ReduceMax", ["z"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["i", "one shape"], ["length"]),
        helper.make_node(op_type, ["one", "length"][op_type == "ConstantOfShape" :], ["wide"]),
    )


def concatenated() -> onnx.ModelProto:
    """Twice as long, forty times."""
    made = helper.make_node
    longer = [made("Concat", [f"w{n}"] * 2, [f"w{n + 1}"], axis=0) for n in range(40)]
    return sliced(made("Identity", ["one"], ["w0"]), *longer, made("Neg", ["w40"], ["wide"]))


def deep_axes() -> onnx.ModelProto:
    axes = helper.make_node("Constant", [], ["axes"], value_ints=list(range(1000)))
    more = [helper.make_node("Unsqueeze", [f"u{n}", "axes"], [f"u{n + 1}"]) for n in range(1000)]
    first = helper.make_node("Identity", ["z"], ["u0"])
    return beside(axes, first, *more, helper.make_node("ReduceSum", ["u1000"], ["k"], keepdims=0))


def held() -> onnx.ModelProto:
    """Thirty tensors of 375 MB at a time."""
    times = helper.make_node("Constant", [], ["times"], value_ints=[1, 1, 1000, 500])
    tiled = [helper.make_node("Tile", ["x", "times"], [f"t{n}"]) for n in range(30)]
    whole = helper.make_node("Sum", [f"t{n}" for n in range(30)], ["sum"])
    return beside(times, *tiled, whole, helper.make_node("ReduceMax", ["sum"], ["k"], keepdims=0))


def of_onnx_runtime() -> onnx.ModelProto:
    ends = [
        helper.make_node("Constant", [], [n], value_float=v) for n, v in (("top", 1e9), ("by", 1.0))
    ]
    start = helper.make_node("Constant", [], ["from"], value_float=0.0)
    return sliced(
        start,
        *ends,
        helper.make_node("Range", ["from", "top", "by"], ["wide"], domain="com.microsoft"),
    )


def sparse_constant() -> onnx.NodeProto:
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    place = helper.make_tensor("p", TensorProto.INT64, [1], [5])
    sparse = helper.make_sparse_tensor(value, place, [1 << 31])
    return helper.make_node("Constant", [], ["wide"], sparse_value=sparse)


TOO_DEEP = "calls functions more than 24 deep, or in a circle"
CONSTANTS = "with which its constants take more than is accepted"
LARGE: dict[str, tuple[onnx.ModelProto, str]] = {
    "a loop beside a function of its name": (
        loop_beside_a_function(""),
        "has functions in domains of ONNX or ONNX Runtime: 'Loop'; has operators that are not "
        "accepted, as they need not end: Loop",
    ),
    "under its other domain": (loop_beside_a_function("ai.onnx"), "need not end: Loop"),
    "functions that double": (
        beside(call("F17", "z", "k"), functions=doubled(17)),
        "has 393221 operators; at most 50000 are accepted",
    ),
    "that nobody calls": (
        beside(helper.make_node("Neg", ["z"], ["k"]), functions=doubled(20)),
        "operators; at most 50000 are accepted",
    ),
    "deep functions": (beside(call("F40", "z", "k"), functions=doubled(40)), TOO_DEEP),
    "functions in a circle": (
        beside(call("A", "z", "k"), functions=[own("A", call("B")), own("B", call("A"))]),
        TOO_DEEP,
    ),
    "branches that double": (doubled_branches(16), "operators; at most 50000 are accepted"),
    "constants that are repeated": (repeated_constant(), "whose calls take more than 1073741824"),
    "functions of another opset": (
        beside(
            call("F", "z", "k"),
            functions=[
                helper.make_function(
                    "own",
                    "F",
                    ["p"],
                    ["q"],
                    [helper.make_node("Relu", ["p"], ["q"])],
                    [helper.make_opsetid("", 12)],
                )
            ],
        ),
        "has functions of another opset than 17: 'own.F'",
    ),
    "many constants": (filled(3), CONSTANTS),
    "one that is doubled": (concatenated(), CONSTANTS),
    "sparse weights": (sliced(sparse=1 << 31), "makes 'wide' of 2147483648; one image may take"),
    "a sparse constant": (sliced(sparse_constant()), "makes 'wide' of 2147483648; one image may"),
    "what images tell to make": (measured("ConstantOfShape"), "has ConstantOfShape 'wide', of who"),
    "what images tell to expand": (measured("Expand"), "has Expand 'wide', of whose size"),
    "a range of ONNX Runtime's": (of_onnx_runtime(), "has com.microsoft.Range 'wide', of whose"),
    "very many axes": (deep_axes(), "at most 32 axes are accepted"),
    "much at one time": (held(), "one image takes more than 2147483648 bytes at one time"),
}


@pytest.mark.parametrize("fault", LARGE)
def test_small_files_that_would_take_all(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before ONNX's inference, or ONNX Runtime, sees any of it."""
    model, fragment = LARGE[fault]
    monkeypatch.setattr("pellucid_server.models.onnx.network.Runtime", None)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", None)
    assert fragment in reason(write(tmp_path / "net", model))


def no_branch() -> onnx.ModelProto:
    """A function that hands on what it was not given."""
    model = doubled_branches(1)
    model.graph.node[-2].ClearField("attribute")
    return model


def parts(count: int) -> onnx.ModelProto:
    """Four values in parts of three and one, and a part more than there is."""
    split = helper.make_node("Constant", [], ["lengths"], value_ints=[3, 1])
    names = ["k", *(f"part{n}" for n in range(count - 1))]
    return beside(split, helper.make_node("Split", ["fc.bias", "lengths"], names))


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "a branch that is missing": (no_branch(), "whose branches do not fit"),
    "more outputs than there are": (parts(3), "has shapes that do not fit: "),
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
