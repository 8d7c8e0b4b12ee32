"""How far float32 gradients are from float64 ones, and how much of that is flipped gates."""

from dataclasses import dataclass

import torch
from pellucid_server.engine.rows import ClassTarget
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.models.registry import Precision
from torch import Tensor

from tests.harness import Runner, model, photo_input, relative_error
from tests.oracle.graph import GateRecorder, GateReplayer


@dataclass(frozen=True)
class Comparison:
    """Relative errors ‖a-b‖₂/‖b‖₂ of the float32 gradient of the top class."""

    replayed_error: float
    free_error: float
    flip_count: int


def compare_precisions(runner: Runner, name: str, photo_name: str, side_px: int = 96) -> Comparison:
    image = photo_input(photo_name, name, side_px).float()
    single = model(name, Precision.FLOAT32, side_px)
    double = model(name, Precision.FLOAT64, side_px)
    recorder = GateRecorder()
    with recorder:
        recorded, target = _gradient(single, image)
    # What the engine serves, and not the recorder's run of the network, is what is compared.
    done = runner.run(single, Gradient(), image, ClassTarget(target), bucket_size=1)
    assert relative_error(done.result.attribution, recorded) == 0
    served = done.result.attribution
    replayer = GateReplayer(recorder)
    with replayer:
        replayed, _ = _gradient(double, image.double(), target)
    free, _ = _gradient(double, image.double(), target)
    return Comparison(
        relative_error(served, replayed), relative_error(served, free), replayer.flip_count
    )


def _gradient(on: object, image: Tensor, target: int | None = None) -> tuple[Tensor, int]:
    x = image[None].contiguous(memory_format=torch.channels_last).requires_grad_()
    logits = on.network.forward(x)[""][0]
    target = int(logits.argmax()) if target is None else target
    (gradient,) = torch.autograd.grad(logits[target], x)
    return gradient[0], target
