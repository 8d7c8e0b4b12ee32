"""DeepFool against foolbox, on the network as it is built, and by hand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import foolbox
import pytest
import torch
from pellucid_server.engine.job import Priority
from pellucid_server.engine.rows import Lane, Program, Target
from pellucid_server.methods.attack.deep_fool import Crossing, Steps, deep_fool
from pellucid_server.methods.attack.lens import Lens
from pellucid_server.models.architectures import ARCHITECTURES
from pellucid_server.models.registry import Model, Precision
from torch import Tensor, nn

from tests.harness import model, photo, relative_error, running, tiny_model, untouched

NAMES = ("efficientnet_lite0", "resnet18")
SIDE_PX = 64


@dataclass(frozen=True)
class Alone:
    """DeepFool as a method, of pixels that a test has."""

    pixels: Tensor
    how: Steps
    source: int | None = None

    name = "deep_fool"
    priority = Priority.OPTIMIZE

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def pace(self, model: Model) -> None:
        pass

    def most_ms(self, model: Model, row_ms: float) -> float:
        return math.inf

    def byte_count(self, model: Model) -> int:
        return 0

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Crossing]:
        lens = Lens.of(model)
        return deep_fool(lens, lens.pixels(self.pixels), self.how, self.source)


def cross(on: Model, pixels: Tensor, how: Steps, source: int | None = None) -> Crossing:
    nothing = torch.zeros(3, on.network.height_px, on.network.width_px)
    with running() as runner:
        made = runner.run(on, Alone(pixels, how, source), nothing, bucket_size=4).result
    assert isinstance(made, Crossing)
    return made


def pixels_of(photo_name: str, model_name: str) -> Tensor:
    steps = ARCHITECTURES[model_name].preprocessing(SIDE_PX)
    seen = steps.unnormalize(steps.apply(photo(photo_name)))
    return torch.from_numpy(seen).permute(2, 0, 1).double()


class Normalized(nn.Module):
    """The network as it is built, of pixels from 0 to 255: foolbox's own mean is float32."""

    def __init__(self, model_name: str) -> None:
        super().__init__()
        steps = ARCHITECTURES[model_name].preprocessing(SIDE_PX)
        self.network = untouched(model_name, SIDE_PX)
        self.mean, self.std = (
            255 * torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1)
            for numbers in (steps.mean, steps.std)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("model_name", NAMES)
def test_foolbox_makes_the_same_perturbation(model_name: str, norm: str) -> None:
    oracle = foolbox.PyTorchModel(Normalized(model_name).eval(), bounds=(0, 255), device="cpu")
    kinds: dict[str, Any] = {
        "l2": foolbox.attacks.L2DeepFoolAttack,
        "linf": foolbox.attacks.LinfDeepFoolAttack,
    }
    for name, step_count, candidate_count, overshoot in (
        ("cat", 50, 4, 0.2),
        ("rocket", 2, 10, 0.0),
    ):
        pixels = pixels_of(name, model_name)
        attack = kinds[norm](
            steps=step_count, candidates=candidate_count, overshoot=overshoot, loss="logits"
        )
        label = oracle(pixels[None]).argmax(1)
        expected = attack.run(oracle, pixels[None], foolbox.criteria.Misclassification(label))[0]
        made = cross(
            model(model_name, Precision.FLOAT64, SIDE_PX),
            pixels,
            Steps(norm, step_count, candidate_count, overshoot),
        )
        assert relative_error(made.image - pixels, expected - pixels) < 1e-9
        assert made.crossed == bool(oracle(expected[None]).argmax(1) != label)
        assert 1 <= made.step_count <= step_count


class Linear(nn.Module):
    """Three classes whose borders are known: logits 0, x0 - 1 and x1 - 3, of normalized pixels."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.stack([0 * flat[:, 0], flat[:, 0] - 1.0, flat[:, 1] - 3.0], 1)


def test_a_linear_border_is_crossed_in_one_step() -> None:
    """The start is at 0.4, 0.4: 0.6 from the first border, 2.6 from the second."""
    on = tiny_model(Linear().float())
    lens = Lens.of(on)
    mean, std = on.preprocessing.mean[0], on.preprocessing.std[0]
    pixels = torch.full((3, 2, 2), 255 * (mean + 0.4 * std))
    to_border = 255 * std * 0.6
    for norm in ("l2", "linf"):
        made = cross(on, pixels, Steps(norm, 5, 3, 0.02))
        assert made.crossed
        assert made.step_count == 1
        change = made.image - lens.pixels(pixels)
        assert float(change[0, 0, 0]) == pytest.approx(1.02 * (to_border + 1e-4), rel=1e-5)
        assert int(change.count_nonzero()) == 1
    made = cross(on, pixels, Steps("l2", 5, 3, 0.02), source=2)
    assert made.crossed
    assert made.step_count == 0
    assert torch.equal(made.image, pixels)


def test_it_gives_up_after_its_steps() -> None:
    """No valid pixel is beyond the border: it stays at the edge."""

    class Far(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, 0]
            return torch.stack([0 * first, first - 100.0], 1)

    made = cross(tiny_model(Far().float()), torch.full((3, 2, 2), 100.0), Steps("l2", 3, 2, 0.02))
    assert not made.crossed
    assert made.step_count == 3
    assert float(made.image[0, 0, 0]) == 255
