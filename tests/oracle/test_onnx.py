"""Converted exports against the networks that they were exported from, in float64."""

from pathlib import Path

import pytest
import torch
from pellucid_server.engine.rows import ClassTarget, TopTarget
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.models.registry import Model, Precision
from pellucid_server.wire.requests import METHODS, default_method

from tests.exports import exported, load, write_network
from tests.harness import Runner, model, photo_input, relative_error

LITE0 = "efficientnet_lite0"
TARGET = ClassTarget(285)
SIDE_PX = 64
WHITE = ("gradient", "guided_backprop", "grad_cam", "lrp", "deep_lift")


def on(folder: Path, name: str, *, preserve: bool, precision: str = "float64") -> Model:
    data = exported(name, preserve=preserve, side_px=SIDE_PX)
    return load(write_network(folder / name, name, data, SIDE_PX, precision=precision))


@pytest.mark.parametrize("name", [LITE0, "resnet18"])
def test_white_box_maps_of_an_export_without_folding(
    name: str, runner: Runner, tmp_path: Path
) -> None:
    converted, own = on(tmp_path, name, preserve=True), model(name, Precision.FLOAT64, SIDE_PX)
    image = photo_input("cat", name, SIDE_PX)
    assert converted.network.gates == own.network.gates
    for kind in WHITE:
        made = default_method(METHODS[kind], own)
        assert not isinstance(made, str)
        theirs = runner.run(own, made, image, TARGET)
        if hasattr(made, "layer"):  # what has another name in the export
            made = default_method(METHODS[kind], converted)
        ours = runner.run(converted, made, image, TARGET)
        assert relative_error(ours.result.attribution, theirs.result.attribution) < 1e-9


def test_black_box_maps_are_onnx_runtimes_and_the_same(runner: Runner, tmp_path: Path) -> None:
    converted = on(tmp_path, LITE0, preserve=False, precision="float32")
    method = Occlusion(window_px=32, stride_px=32, fill="mean", blur_sigma_px=1.0)
    image = photo_input("cat", LITE0, SIDE_PX).float()
    ours, theirs = (
        runner.run(one, method, image, TopTarget()).result.attribution
        for one in (converted, model(LITE0, side_px=SIDE_PX))
    )
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_an_export_as_it_is_differs_by_its_rounding_alone(runner: Runner, tmp_path: Path) -> None:
    """Folded in float32 by the exporter: guided backpropagation, which gates hardly change."""
    converted = on(tmp_path, LITE0, preserve=False)
    own = model(LITE0, Precision.FLOAT64, SIDE_PX)
    made = default_method(METHODS["guided_backprop"], own)
    assert not isinstance(made, str)
    image = photo_input("cat", LITE0, SIDE_PX)
    ours, theirs = (
        runner.run(one, made, image, TARGET).result.attribution for one in (converted, own)
    )
    assert 0 < relative_error(ours, theirs) < 1e-3
    assert torch.isfinite(ours).all()
