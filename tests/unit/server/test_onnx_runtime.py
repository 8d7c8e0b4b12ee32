"""ONNX Runtime as it is held: rows, layouts, fixed numbers of images, softmax."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from pellucid_server.engine.device import TorchDevice
from pellucid_server.engine.rows import ClassTarget, NeuronTarget, Rows, TopTarget, Want
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.onnx.file import Expected, read_onnx
from pellucid_server.models.onnx.runtime import Runtime
from pellucid_server.versions import VERSIONS
from torch import Tensor

from tests.exports import SIDE_PX, exported, graph, load, tiny, tiny_nodes, tiny_weights, write
from tests.harness import CPU, cached, relative_error

BUCKETS = (1, 2, 4, 8, 16)


def images(count: int, side_px: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, side_px, side_px, generator=generator)


def runtime(model: Any, **expected: Any) -> Runtime:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Runtime(read_onnx(data, Expected(**({"height_px": 8, "width_px": 8} | expected))), CPU)


@cached
def lite0() -> Runtime:
    return runtime(exported("efficientnet_lite0"), height_px=SIDE_PX, width_px=SIDE_PX)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(BUCKETS), st.data())
def test_bits_of_a_row_depend_neither_on_its_neighbours_nor_on_its_place(
    bucket: int, data: st.DataObject
) -> None:
    """On the CPU, at one bucket size."""
    first, second = (data.draw(st.integers(0, bucket - 1)) for _ in range(2))
    seed = data.draw(st.integers(1, 1000))
    batch, other = images(bucket, SIDE_PX), images(bucket, SIDE_PX, seed)
    other[second] = batch[first]
    run = lite0()
    assert torch.equal(run(batch)[first], run(other)[second])


def test_a_fixed_number_of_images_is_run_in_parts(tmp_path: Path) -> None:
    any_number, three = runtime(tiny()), runtime(tiny(shape=(3, 3, 8, 8)))
    assert (any_number.batch_size, three.batch_size) == (None, 3)
    for count in (1, 2, 3, 4, 7, 9):
        assert relative_error(three(images(count)), any_number(images(count))) < 1e-6
    on = load(write(tmp_path / "net", tiny(shape=(3, 3, 8, 8))))
    assert on.onnx is not None
    assert on.onnx.batch_size == 3
    assert on.onnx.parity is not None


def test_a_number_that_is_written_into_shapes_is_told_from_others(tmp_path: Path) -> None:
    nodes = tiny_nodes()
    nodes[3] = helper.make_node("Reshape", ["c", "flat"], ["d"])
    weights = tiny_weights() | {"flat": np.array([2, 5], np.int64)}
    on = load(write(tmp_path / "net", graph(nodes, weights, shape=(2, 3, 8, 8))))
    assert on.network.white_box_refusal is None
    made = on.network.forward(images(5).requires_grad_())[OUTPUT].detach()
    assert relative_error(made, on.network.forward(images(5))[OUTPUT]) < 1e-5


def test_channels_may_come_last(tmp_path: Path) -> None:
    turn = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    nodes = tiny_nodes()
    nodes[0].input[0] = "t"
    model = graph([turn, *nodes], tiny_weights(), shape=("n", 8, 8, 3))
    last = runtime(model, layout="NHWC")
    assert torch.equal(last(images(2)), runtime(tiny())(images(2)))
    on = load(write(tmp_path / "net", model, input={"layout": "NHWC"}))
    assert on.network.white_box_refusal is None


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_a_final_softmax_is_cut_off(op_type: str, tmp_path: Path) -> None:
    nodes = tiny_nodes()
    nodes[-1].output[0] = "z"
    nodes += [
        helper.make_node(op_type, ["z"], ["p"], axis=1),
        helper.make_node("Identity", ["p"], ["y"]),
    ]
    model = graph(nodes, tiny_weights())
    assert torch.equal(runtime(model)(images(3)), runtime(tiny())(images(3)))
    on = load(write(tmp_path / "net", model))
    assert on.onnx is not None
    assert on.onnx.notes == (
        f"the file's final {op_type} is cut off: logits are what goes into it",
    )
    assert on.onnx.parity is not None


def test_probabilities_that_no_softmax_makes_are_refused(tmp_path: Path) -> None:
    nodes = tiny_nodes()
    nodes[-1].output[0] = "z"
    nodes += [
        helper.make_node("Exp", ["z"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["s"]),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    model = graph(nodes, tiny_weights() | {"axes": np.array([1])})
    with pytest.raises(ValueError, match="gives probabilities; logits are needed"):
        load(write(tmp_path / "net", model))


def test_rows_that_touch_each_other_are_refused(tmp_path: Path) -> None:
    nodes = tiny_nodes()
    nodes[-1].output[0] = "z"
    nodes += [
        helper.make_node("ReduceMean", ["z"], ["m"], axes=[0]),
        helper.make_node("Sub", ["z", "m"], ["y"]),
    ]
    with pytest.raises(ValueError, match="lets rows of a batch touch each other"):
        load(write(tmp_path / "net", graph(nodes, tiny_weights())))


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = tiny_weights() | {"fc.bias": np.full(4, np.inf, np.float32)}
    with pytest.raises(ValueError, match="gives logits that are not finite"):
        load(write(tmp_path / "net", graph(tiny_nodes(), weights)))


def test_a_row_has_the_same_logits_whatever_rides_beside_it(tmp_path: Path) -> None:
    """Its neighbour looks at a layer, which the converted network makes."""
    on = load(write(tmp_path / "net", tiny()))
    device = TorchDevice(CPU)
    plain = Rows(images(1), ClassTarget(2))
    layer = on.network.layers[0].name
    looking = Rows(images(1, seed=3), TopTarget(), Want.ACTIVATION, layers=(layer,))
    neuron = Rows(images(1, seed=3), NeuronTarget(layer, 1))
    scores = [
        device.launch(on.network, [(plain, 0), (other, 0)], 2).scores[0]
        for other in (plain, looking, neuron)
    ]
    assert scores[0] == scores[1] == scores[2]
    flight = device.launch(on.network, [(looking, 0)], 1)
    assert flight.activations[layer].shape == (1, 5, 6, 6)


def test_in_float64_the_conversion_computes_everything(tmp_path: Path) -> None:
    on = load(write(tmp_path / "net", tiny(), precision="float64"))
    assert on.onnx is not None
    assert on.onnx.provider is None
    double = images(2).double()
    backward = on.network.forward(double.clone().requires_grad_())[OUTPUT]
    assert torch.equal(on.network.forward(double)[OUTPUT], backward.detach())
    nodes = tiny_nodes(helper.make_node("Shrink", ["a"], ["b"]))
    with pytest.raises(ValueError, match=r"in float64 by conversion only, but: operator Shrink"):
        load(write(tmp_path / "odd", graph(nodes, tiny_weights()), precision="float64"))


def test_receipts_name_the_version_of_onnx_runtime() -> None:
    assert VERSIONS["onnxruntime"] == version("onnxruntime-gpu")


def test_a_twin_with_weights_drawn_anew_is_torchs_alone(tmp_path: Path) -> None:
    on = load(write(tmp_path / "net", tiny()))
    (name,) = on.network.parameters_of("fc").keys() - {"fc.bias"}
    twin = on.network.redrawn({name: torch.randn(4, 5)})
    assert not torch.equal(twin.forward(images(1))[OUTPUT], on.network.forward(images(1))[OUTPUT])
