"""Graphs as networks of torch: each operator against ONNX Runtime, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from pellucid_server.models.onnx.convert import convert
from pellucid_server.models.onnx.file import BadOnnx, Expected, read_onnx
from pellucid_server.models.onnx.operators import Unconvertible
from pellucid_server.models.onnx.runtime import Runtime
from torch import Tensor, nn

from tests.exports import SIDE_PX, export, exported, graph, load, tiny_nodes, tiny_weights, write
from tests.harness import CPU, relative_error, untouched
from tests.oracle import networks


def images(count: int, side_px: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, side_px, side_px, generator=generator)


Weights = dict[str, Any]


def both(
    nodes: list[NodeProto], weights: Weights, side_px: int = 8, **options: Any
) -> tuple[nn.Module, Runtime]:
    made = graph(nodes, weights, **options).SerializeToString()
    file = read_onnx(made, Expected(side_px, side_px))
    return convert(file), Runtime(file, CPU)


def check(nodes: list[NodeProto], weights: Weights, **options: Any) -> nn.Module:
    """Converts a graph and holds it against ONNX Runtime, of other numbers of images."""
    network, runtime = both(nodes, weights, **options)
    for count in (1, 2, 5):
        expected = runtime(images(count))
        assert relative_error(network(images(count)), expected) < 1e-5
    return network


def node(op_type: str, *inputs: str, **attributes: Any) -> NodeProto:
    """From "a", 5 maps of 6 × 6, to "b"."""
    return helper.make_node(op_type, ["a", *inputs], ["b"], f"/place/{op_type}", **attributes)


def floats(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


FIVE = {"scale": floats(5), "shift": floats(5, seed=2), "mean": floats(5, seed=3)}
NORM = FIVE | {"variance": np.abs(floats(5, seed=4)) + 0.1}
KERNEL = {"kernel_shape": [2, 2]}

OPERATORS: dict[str, tuple[NodeProto, Weights, type[nn.Module] | str]] = {
    "relu": (node("Relu"), {}, nn.ReLU),
    "clip to 6": (
        node("Clip", "low", "high"),
        {"low": np.float32(0), "high": np.float32(6)},
        nn.ReLU6,
    ),
    "clip from 0": (node("Clip", "low"), {"low": np.float32(0)}, nn.ReLU),
    "clip to 1": (
        node("Clip", "low", "high"),
        {"low": np.float32(0), "high": np.float32(1)},
        nn.Hardtanh,
    ),
    "clip below": (node("Clip", "", "high"), {"high": np.float32(0.5)}, "Clip"),
    "leaky": (node("LeakyRelu", alpha=0.2), {}, nn.LeakyReLU),
    "prelu": (node("PRelu", "slope"), {"slope": floats(5, 1, 1)}, nn.PReLU),
    "elu": (node("Elu", alpha=0.7), {}, nn.ELU),
    "celu": (node("Celu", alpha=0.7), {}, nn.CELU),
    "selu": (node("Selu"), {}, nn.SELU),
    "hardswish": (node("HardSwish"), {}, nn.Hardswish),
    "hardsigmoid": (node("HardSigmoid", alpha=1 / 6), {}, nn.Hardsigmoid),
    "sigmoid": (node("Sigmoid"), {}, nn.Sigmoid),
    "tanh": (node("Tanh"), {}, nn.Tanh),
    "softplus": (node("Softplus"), {}, nn.Softplus),
    "softsign": (node("Softsign"), {}, nn.Softsign),
    "erf": (node("Erf"), {}, "Erf"),
    "exp": (node("Exp"), {}, "Exp"),
    "neg": (node("Neg"), {}, "Negative"),
    "softmax": (node("Softmax", axis=1), {}, nn.Softmax),
    "norm": (node("BatchNormalization", *NORM), NORM, nn.BatchNorm2d),
    "instance norm": (node("InstanceNormalization", "scale", "shift"), FIVE, nn.InstanceNorm2d),
    "layer norm": (
        node("LayerNormalization", "g", "h"),
        {"g": floats(6), "h": floats(6)},
        nn.LayerNorm,
    ),
    "response norm": (node("LRN", size=3, alpha=0.3, bias=2.0), {}, nn.LocalResponseNorm),
    "max pool": (node("MaxPool", **KERNEL, strides=[2, 2], pads=[1, 0, 1, 0]), {}, nn.MaxPool2d),
    "uneven max pool": (node("MaxPool", **KERNEL, pads=[0, 0, 1, 1]), {}, nn.Sequential),
    "same max pool": (
        node("MaxPool", **KERNEL, strides=[2, 2], auto_pad="SAME_UPPER"),
        {},
        nn.MaxPool2d,
    ),
    "mean pool": (node("AveragePool", **KERNEL, pads=[1, 1, 1, 1]), {}, nn.AvgPool2d),
    "counted mean pool": (
        node("AveragePool", **KERNEL, pads=[0, 1, 1, 1], count_include_pad=1),
        {},
        nn.Sequential,
    ),
    "largest": (node("GlobalMaxPool"), {}, nn.AdaptiveMaxPool2d),
    "mean": (node("ReduceMean", axes=[-1], keepdims=1), {}, "Mean"),
    "sum": (node("ReduceSum", "axes"), {"axes": whole(3)}, "Sum"),
    "add": (node("Add", "k"), {"k": floats(5, 1, 1)}, "Add"),
    "mul": (node("Mul", "k"), {"k": floats(1)}, "Multiply"),
    "sub": (helper.make_node("Sub", ["k", "a"], ["b"]), {"k": floats(1)}, "Subtract"),
    "div": (node("Div", "k"), {"k": floats(5, 6, 6)}, "Divide"),
    "pow": (node("Pow", "k"), {"k": np.float32(2)}, "Power"),
    "product": (node("MatMul", "k"), {"k": floats(6, 4)}, nn.Linear),
    "products": (node("MatMul", "k"), {"k": floats(5, 6, 4)}, "MatMul"),
    "itself": (node("Mul", "a"), {}, "Multiply"),
    "concat": (node("Concat", "a", axis=1), {}, "Concat"),
    "pad": (
        node("Pad", "w", "v"),
        {"w": whole(0, 0, 1, 0, 0, 0, 2, 3), "v": np.float32(0.5)},
        "Pad",
    ),
    "edges": (node("Pad", "w", mode="edge"), {"w": whole(0, 0, 1, 0, 0, 0, 2, 3)}, "Pad"),
    "slice": (
        node("Slice", "s", "e", "axes", "steps"),
        {"s": whole(1), "e": whole(-1), "axes": whole(2), "steps": whole(2)},
        "Slice",
    ),
    "gather": (node("Gather", "i", axis=3), {"i": whole(0, -1, 2)}, "Gather"),
    "transpose": (node("Transpose", perm=[0, 1, 3, 2]), {}, "Transpose"),
    "dropout": (node("Dropout"), {}, nn.Identity),
}
"""By name: the operator, its constants, what it becomes."""


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_what_onnx_runtime_makes_of_it(name: str) -> None:
    made, weights, kind = OPERATORS[name]
    nodes = tiny_nodes(made)
    sized = tiny_weights()
    if name == "concat":
        sized["fc.weight"] = floats(4, 10)
    network = check(nodes, sized | weights)
    if isinstance(kind, str):
        assert any(type(module).__name__ == kind for module in network.modules())
    else:
        assert any(type(module) is kind for module in network.modules())


def gelu() -> list[NodeProto]:
    made = helper.make_node
    return [
        made("Div", ["a", "root"], ["g1"], "/act/Div"),
        made("Erf", ["g1"], ["g2"], "/act/Erf"),
        made("Add", ["g2", "one"], ["g3"], "/act/Add"),
        made("Mul", ["a", "g3"], ["g4"], "/act/Mul"),
        made("Mul", ["g4", "half"], ["b"], "/act/Mul_1"),
    ]


NUMBERS = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}


@pytest.mark.parametrize(
    ("parts", "weights", "kind"),
    [
        (gelu(), NUMBERS, nn.GELU),
        (
            [
                helper.make_node("Sigmoid", ["a"], ["g"], "/act/Sigmoid"),
                helper.make_node("Mul", ["a", "g"], ["b"], "/act/Mul"),
            ],
            {},
            nn.SiLU,
        ),
        (
            [
                helper.make_node("HardSigmoid", ["a"], ["g"], "/act/HardSigmoid", alpha=1 / 6),
                helper.make_node("Mul", ["g", "a"], ["b"], "/act/Mul"),
            ],
            {},
            nn.Hardswish,
        ),
    ],
)
def test_patterns_are_one_layer(
    parts: list[NodeProto], weights: Weights, kind: type[nn.Module]
) -> None:
    first, _, *rest = tiny_nodes()
    network = check([first, *parts, *rest], tiny_weights() | weights)
    assert type(network.get_submodule("act")) is kind


def test_what_only_looks_like_a_pattern_is_not_one() -> None:
    first, _, *rest = tiny_nodes()
    network = check([first, *gelu(), *rest], tiny_weights() | NUMBERS | {"half": np.float32(0.4)})
    assert not any(isinstance(module, nn.GELU) for module in network.modules())


def test_what_a_pattern_shares_with_others_is_kept() -> None:
    """GELU, and beside it the quotient within it."""
    first, _, *rest = tiny_nodes()
    *parts, last = gelu()
    last.output[0] = "whole"
    nodes = [
        first,
        *parts,
        last,
        helper.make_node("Add", ["whole", "g1"], ["b"], "/end/Add"),
        *rest,
    ]
    network = check(nodes, tiny_weights() | NUMBERS)
    assert any(isinstance(module, nn.GELU) for module in network.modules())


def test_a_function_is_converted_as_what_it_does() -> None:
    """Called as ONNX's operators are, in a domain of its own."""
    made, opsets = helper.make_node, [helper.make_opsetid("", 17)]
    functions = [
        helper.make_function("own", "Relu", ["p"], ["q"], [made("Tanh", ["p"], ["q"])], opsets),
        helper.make_function("own", "Softmax", ["p"], ["q"], [made("Neg", ["p"], ["q"])], opsets),
    ]
    nodes = tiny_nodes(made("Relu", ["a"], ["b"], domain="own"))
    nodes[-1].output[0] = "z"
    nodes.append(made("Softmax", ["z"], ["y"], domain="own"))
    imports = [helper.make_opsetid("own", 1)]
    network = check(nodes, tiny_weights(), functions=functions, imports=imports)
    kinds = {type(module).__name__ for module in network.modules()}
    assert {"Tanh", "Negative"} <= kinds
    assert not {"ReLU", "Softmax"} & kinds


def test_a_dense_layer_of_a_product_and_a_sum() -> None:
    nodes = tiny_nodes()
    nodes[-1:] = [
        helper.make_node("Transpose", ["fc.weight"], ["t"]),
        helper.make_node("MatMul", ["d", "t"], ["e"], "/head/MatMul"),
        helper.make_node("Add", ["fc.bias", "e"], ["y"], "/head/Add"),
    ]
    head = check(nodes, tiny_weights()).get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert head.bias is not None


def test_shapes_that_are_worked_out_from_the_image() -> None:
    """As exporters write x.view(x.size(0), -1), and a token for every image."""
    made = helper.make_node
    nodes = [
        made("Conv", ["x", "conv.weight"], ["a"], kernel_shape=[3, 3]),
        made("Shape", ["a"], ["shape"]),
        made("Gather", ["shape", "first"], ["count"]),
        made("Unsqueeze", ["count", "axis"], ["counts"]),
        made("Concat", ["counts", "rest"], ["wanted"], axis=0),
        made("Reshape", ["a", "wanted"], ["flat"]),
        made("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        made("Concat", ["counts", "ones"], ["token shape"], axis=0),
        made("Expand", ["token", "token shape"], ["token rows"]),
        made("Concat", ["token rows", "tokens"], ["all"], axis=1),
        made("ReduceMean", ["all"], ["d"], axes=[1], keepdims=0),
        made("Gemm", ["d", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    constants = {
        "first": np.array(0),
        "axis": whole(0),
        "rest": whole(5, -1),
        "ones": whole(1, 1),
        "token": floats(1, 1, 5),
    }
    network = check(nodes, tiny_weights() | constants)
    kinds = [type(module).__name__ for module in network.modules()]
    assert {"Rows", "Reshape", "Concat"} <= set(kinds)
    assert "Gather" not in kinds


def bomb(factor: int) -> bytes:
    """Zeros, by so much larger than an activation along every axis."""
    made = helper.make_node
    first, _, *rest = tiny_nodes()
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    nodes = [
        first,
        made("Shape", ["a"], ["shape"]),
        made("Mul", ["shape", "many"], ["longer"]),
        made("ConstantOfShape", ["longer"], ["zeros"], "/bomb/ConstantOfShape", value=zero),
        made("ReduceSum", ["zeros"], ["sum"]),
        made("Add", ["a", "sum"], ["b"]),
        *rest,
    ]
    weights = tiny_weights() | {"many": whole(factor)}
    return graph(nodes, weights).SerializeToString()


def test_a_constant_that_is_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadOnnx, match="makes 'zeros' of 1000 × 5000 × 6000 × 6000; one image may"):
        read_onnx(bomb(1000), Expected(8, 8))
    file = read_onnx(bomb(1), Expected(8, 8))
    name = "pellucid_server.models.onnx.convert.most_constant_bytes"
    monkeypatch.setattr(name, lambda _: 200)
    with pytest.raises(Unconvertible, match=r"ConstantOfShape .*makes too large a constant"):
        convert(file)


def chained(count: int) -> bytes:
    """A constant of 4,096 bytes that is changed again and again."""
    made = helper.make_node
    first, _, *rest = tiny_nodes()
    nodes = [
        first,
        made("Expand", ["one", "length"], ["c0"]),
        *(made("Neg", [f"c{n}"], [f"c{n + 1}"], f"/c/Neg_{n}") for n in range(count)),
        made("ReduceSum", [f"c{count}"], ["sum"]),
        made("Add", ["a", "sum"], ["b"]),
        *rest,
    ]
    weights = tiny_weights() | {"one": np.ones(1, np.float32), "length": whole(1024)}
    return graph(nodes, weights).SerializeToString()


def test_constants_are_let_go_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they take is bounded in all; made one after the other, two are held at a time."""
    file = read_onnx(chained(40), Expected(8, 8))
    name = "pellucid_server.models.onnx.convert.most_constant_bytes"
    monkeypatch.setattr(name, lambda _: 4096 + 8192)
    assert convert(file)(images(1)).shape == (1, 4)
    monkeypatch.setattr(name, lambda _: 4096 + 4096)
    with pytest.raises(Unconvertible, match=r"Neg .*makes too large a constant"):
        convert(file)


def test_a_graph_of_very_many_operators_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid_server.models.onnx.convert._MOST_CONVERTED", 4)
    file = read_onnx(graph(tiny_nodes(), tiny_weights()).SerializeToString(), Expected(8, 8))
    with pytest.raises(Unconvertible, match="it has 5 operators on images; at most 4 are"):
        convert(file)


REFUSED: dict[str, tuple[NodeProto, Weights, str]] = {
    "an operator without a module": (node("Shrink", lambd=0.1), {}, "operator Shrink (/place/Shr"),
    "of ONNX Runtime's own": (
        node("QuickGelu", domain="com.microsoft"),
        {},
        "operator com.microsoft.QuickGelu (",
    ),
    "a softmax of images": (node("Softmax", axis=0), {}, "operator Softmax (/place/Softmax), over"),
    "a mean of images": (node("ReduceMean", axes=[0]), {}, "over images, is not converted"),
    "a slice of images": (node("Slice", "s", "e"), {"s": whole(0), "e": whole(9)}, "of images"),
    "backwards": (
        node("Slice", "s", "e", "x2", "st"),
        {"s": whole(-1), "e": whole(-9), "x2": whole(3), "st": whole(-1)},
        "backwards",
    ),
    "a slope for each place": (node("PRelu", "k"), {"k": floats(5, 6, 6)}, "differ by place"),
    "another hard sigmoid": (node("HardSigmoid"), {}, "with alpha 0.2 and beta 0.5"),
    "a weight of the image": (
        helper.make_node("PRelu", ["a", "a"], ["b"], "/odd/PRelu"),
        {},
        "operator PRelu (/odd/PRelu), whose parameters depend on the image, is not",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_converted_is_named(name: str) -> None:
    made, weights, fragment = REFUSED[name]
    model = graph(
        tiny_nodes(made),
        tiny_weights() | weights,
        imports=[helper.make_opsetid("com.microsoft", 1)],
    )
    file = read_onnx(model.SerializeToString(), Expected(8, 8))
    with pytest.raises(Unconvertible) as caught:
        convert(file)
    assert fragment in str(caught.value)


def test_layers_have_the_names_that_they_had() -> None:
    file = read_onnx(exported("resnet18", preserve=True), Expected(SIDE_PX, SIDE_PX))
    made = dict(convert(file).named_modules())
    own = dict(untouched("resnet18").named_modules())
    for name in ("conv1", "bn1", "layer1.0.conv2", "layer3.0.downsample.1", "fc", "maxpool"):
        assert type(made[name]) is type(own[name])
    assert {"layer1.0.relu", "layer1.0.relu_1", "layer1.0.Add"} <= made.keys()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/_steps/Relu", "steps"),
        ("/forward/Relu", "forward_"),
        ("/a/a.b/../Relu", "a.b"),
        ("/Größe/Relu", "Gr__e"),
        ("node_relu_1", "node_relu_1"),
        ("", "Relu"),
    ],
)
def test_any_name_becomes_one_that_a_module_can_have(name: str, layer: str) -> None:
    network = check(tiny_nodes(helper.make_node("Relu", ["a"], ["b"], name)), tiny_weights())
    assert type(network.get_submodule(layer)) is nn.ReLU


def test_a_transformer_is_converted() -> None:
    network = networks.seeded("vit_tiny").float()
    made = dict(convert(read_onnx(export(network), Expected(SIDE_PX, SIDE_PX))).named_modules())
    networks.seeded.cache_clear()
    kinds = {name: type(module) for name, module in made.items()}
    assert kinds["blocks.0.attn.qkv"] is nn.Linear
    assert kinds["blocks.11.mlp.act"] is nn.GELU
    assert kinds["norm"] is nn.LayerNorm


def test_a_conversion_that_disagrees_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pellucid_server.models.onnx import network

    folder = write(tmp_path / "net", graph(tiny_nodes(), tiny_weights()))
    monkeypatch.setattr(network, "PARITY", 1e-12)
    on = load(folder)
    assert on.onnx is not None
    assert on.onnx.parity is None
    assert "its logits differ by" in (on.network.white_box_refusal or "")


def test_logits_that_do_not_depend_on_the_image_prove_nothing(tmp_path: Path) -> None:
    weights = tiny_weights() | {"fc.weight": np.zeros((4, 5), np.float32)}
    on = load(write(tmp_path / "net", graph(tiny_nodes(), weights)))
    assert "nothing is proven" in (on.network.white_box_refusal or "")


def test_types_of_tensors() -> None:
    """Constants of halves are not the file's precision: the operator that casts is named."""
    first, _, *rest = tiny_nodes()
    made = helper.make_node
    nodes = [
        first,
        made("Cast", ["a"], ["h"], "/half/Cast", to=TensorProto.FLOAT16),
        made("Cast", ["h"], ["b"], "/half/Cast_1", to=TensorProto.FLOAT),
        *rest,
    ]
    file = read_onnx(graph(nodes, tiny_weights()).SerializeToString(), Expected(8, 8))
    with pytest.raises(Unconvertible, match=r"operator Cast \(/half/Cast\) is not converted"):
        convert(file)
