"""Exports of networks against the networks: what ONNX Runtime and the conversion make of them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pellucid_server.engine.rows import ClassTarget
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.registry import Model, Precision
from torch import Tensor

from tests.exports import SIDE_PX, export, load, preprocessing, write
from tests.harness import ARCHITECTURES, NETWORKS, Runner, model, photo_input, relative_error
from tests.oracle.graph import GateRecorder, GateReplayer
from tests.oracle.networks import image_for, seeded, served

VGG_PX = 224
"""At 96 px its adaptive pooling, from 3 cells to 7, cannot be exported."""

EXPORTED = (*NETWORKS, "mobilenet_v3_small", "vit_tiny")


@dataclass(frozen=True)
class Parity:
    """Of an export with the network.

    Attributes:
        parity: Of the conversion with ONNX Runtime, in float32, as GetModel has it.
        error: ‖a-b‖₂/‖b‖₂ of the conversion's gradient, both in float64.
        flip_count: Gates that the two decide in different ways.
    """

    parity: float
    error: float
    flip_count: int


def compare_export(runner: Runner, name: str, *, preserve: bool) -> Parity:
    """The gradient of the network's top class; preserve: exported without folding norms."""
    side_px = VGG_PX if name == "vgg11" else SIDE_PX
    embedded = name in ARCHITECTURES
    network = ARCHITECTURES[name].build(side_px) if embedded else seeded(name).float()
    own = model(name, Precision.FLOAT64, side_px) if embedded else served(name)
    image = photo_input("cat", name, side_px) if embedded else image_for(name)
    data = export(network, side_px=side_px, preserve=preserve)
    if not embedded:
        seeded.cache_clear()  # it was made float32
    with tempfile.TemporaryDirectory() as folder:
        single, double = (
            _loaded(Path(folder) / precision, data, side_px, precision)
            for precision in ("float32", "float64")
        )
    assert single.onnx is not None
    assert single.onnx.parity is not None
    target = int(own.network.forward(image[None])[OUTPUT].argmax())
    gradients = [
        runner.run(on, Gradient(), image, ClassTarget(target)).result.attribution
        for on in (double, own)
    ]
    error = relative_error(*gradients)
    return Parity(single.onnx.parity, error, _flips(own, double, image))


def _loaded(folder: Path, data: bytes, side_px: int, precision: str) -> Model:
    return load(write(folder, data, preprocessing=preprocessing(side_px), precision=precision))


def _flips(own: Model, converted: Model, image: Tensor) -> int:
    if not own.network.gates.site_count:
        return 0
    recorder = GateRecorder()
    with recorder:
        own.network.forward(image[None].requires_grad_())
    replayer = GateReplayer(recorder)
    with replayer:
        converted.network.forward(image[None].clone().requires_grad_())
    return replayer.flip_count


def table(runner: Runner, names: tuple[str, ...] = EXPORTED) -> list[str]:
    """The section of TABLES.md."""
    lines = [
        "## ONNX exports",
        "",
        f"At {SIDE_PX} px (vgg11: {VGG_PX}), photo cat. Parity: the conversion's logits against",
        "ONNX Runtime's, float32, seeded images, bound 1e-4. Error: the top class's gradient of",
        "the conversion against the network's own, float64; bound 1e-9 where normalizations were",
        "not folded at export and no constants were rounded (those of the ViT's attention are).",
        "Flipped: gates that the two decide in different ways.",
        "",
        "| network | exported | parity | error | flipped |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in names:
        for preserve in (True, False):
            found = compare_export(runner, name, preserve=preserve)
            how = "unfolded" if preserve else "as it is"
            lines.append(
                f"| {name} | {how} | {found.parity:.1e} | {found.error:.1e} | {found.flip_count} |"
            )
        model.cache_clear()
        served.cache_clear()
    return lines
