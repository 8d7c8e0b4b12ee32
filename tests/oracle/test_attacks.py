"""Attacks against foolbox, in float64, on the networks as they are built."""

from dataclasses import replace
from typing import Any

import foolbox
import pytest
import torch
from pellucid_server.inputs import ArrayPhoto, Photos
from pellucid_server.methods.attack.algorithm import Algorithm, Shows
from pellucid_server.methods.attack.attack import Attack, Attacked
from pellucid_server.methods.attack.carlini_wagner import CarliniWagner
from pellucid_server.methods.attack.gradient import Bim, Fgsm, GradientAttack, Pgd, within
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.architectures import ARCHITECTURES
from pellucid_server.models.registry import Precision
from torch import Tensor, nn

from tests.harness import model, photo, relative_error, running, spec, untouched
from tests.oracle.graph import GateRecorder

NAMES = ("efficientnet_lite0", "resnet18")
SIDE = 64


def attacked(
    name: str,
    photo_name: str,
    algorithm: Algorithm,
    goal: int | None = None,
    precision: Precision = Precision.FLOAT64,
) -> Attacked:
    made = spec(
        model(name, precision, SIDE),
        Attack(algorithm, None, goal, Shows(), Buckets(4)),
        torch.zeros(3, 2, 2),
        bucket_size=4,
    )
    source = Photos((ArrayPhoto(photo(photo_name), None),), (SIDE, SIDE))
    with running() as runner:
        result = runner.engine.submit(replace(made, source=source)).future.result(300).result
    assert isinstance(result, Attacked)
    return result


class Pixels(nn.Module):
    """A network of pixels up to a number: foolbox's own mean and deviation are float32."""

    def __init__(self, name: str, most: float) -> None:
        super().__init__()
        steps = ARCHITECTURES[name].preprocessing(SIDE)
        self.network = untouched(name, SIDE)
        self.mean, self.std = (
            most * torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1)
            for numbers in (steps.mean, steps.std)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


def oracle(name: str, most: float = 255.0) -> Any:
    network = Pixels(name, most).eval()
    return foolbox.PyTorchModel(network, bounds=(0, most), device="cpu")


def base_of(name: str, photo_name: str) -> Tensor:
    steps = ARCHITECTURES[name].preprocessing(SIDE)
    seen = steps.unnormalize(steps.apply(photo(photo_name)))
    return torch.from_numpy(seen).permute(2, 0, 1).double()


def expected(
    name: str, pixels: Tensor, attack: Any, epsilon: float, goal: int | None = None
) -> Tensor:
    on = oracle(name)
    label = on(pixels[None]).argmax(1) if goal is None else torch.tensor([goal])
    criteria = foolbox.criteria
    kind = criteria.Misclassification if goal is None else criteria.TargetedMisclassification
    return attack.run(on, pixels[None], kind(label), epsilon=epsilon)[0]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8.0), ("l2", 300.0)])
@pytest.mark.parametrize("photo_name", ["cat", "coffee"])
@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_foolboxs(name: str, photo_name: str, norm: str, epsilon: float) -> None:
    kinds = {
        "linf": foolbox.attacks.LinfFastGradientAttack,
        "l2": foolbox.attacks.L2FastGradientAttack,
    }
    pixels = base_of(name, photo_name)
    there = expected(name, pixels, kinds[norm](), epsilon)
    made = attacked(name, photo_name, Fgsm(norm=norm, epsilon=epsilon))
    assert torch.equal(made.base.pixels, pixels)
    assert relative_error(made.unrounded[0] - pixels, there - pixels) < 1e-9


@pytest.mark.parametrize(
    ("name", "norm", "epsilon", "goal"),
    [
        ("efficientnet_lite0", "linf", 4.0, None),
        ("efficientnet_lite0", "l2", 200.0, 1),
        ("resnet18", "linf", 4.0, 1),
        ("resnet18", "l2", 200.0, None),
    ],
)
def test_several_steps_are_foolboxs(name: str, norm: str, epsilon: float, goal: int | None) -> None:
    kinds = {
        "linf": foolbox.attacks.LinfBasicIterativeAttack,
        "l2": foolbox.attacks.L2BasicIterativeAttack,
    }
    pixels = base_of(name, "cat")
    attack = kinds[norm](rel_stepsize=0.2, steps=6)
    there = expected(name, pixels, attack, epsilon, goal)
    how = Bim(norm=norm, epsilon=epsilon, step_size=epsilon / 5, step_count=6)
    made = attacked(name, "cat", how, goal)
    assert relative_error(made.unrounded[0] - pixels, there - pixels) < 1e-9
    expected_class = int(oracle(name)(there[None]).argmax())
    assert int(made.unrounded_logits[0].argmax()) == expected_class


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 4.0), ("l2", 200.0)])
def test_from_the_same_random_start_it_is_foolboxs(norm: str, epsilon: float) -> None:
    name, pixels = NAMES[0], base_of(NAMES[0], "cat")
    kind: Any = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm]
    how = Pgd(norm=norm, epsilon=epsilon, step_size=epsilon / 10, step_count=5, seed=3)

    class Started(kind):
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            start = x0.raw + within(how.budget, 3, tuple(pixels.shape))
            return type(x0)(start)

    there = expected(name, pixels, Started(rel_stepsize=0.1, steps=5), epsilon)
    made = attacked(name, "cat", how)
    assert relative_error(made.unrounded[0] - pixels, there - pixels) < 1e-9


def test_random_starts_succeed_as_often_as_foolboxs() -> None:
    """Untargeted, at a budget that is enough for one of the photos."""
    name, epsilon = NAMES[0], 0.055
    ours, theirs = 0, 0
    for photo_name in ("cat", "coffee"):
        pixels = base_of(name, photo_name)
        attack = foolbox.attacks.LinfPGD(rel_stepsize=0.2, steps=5)
        on = oracle(name)
        label = on(pixels[None]).argmax(1)
        for seed in range(2):
            torch.manual_seed(seed)
            there = expected(name, pixels, attack, epsilon)
            theirs += int(on(there[None]).argmax() != label)
        how = Pgd(epsilon=epsilon, step_size=epsilon / 5, step_count=5, restart_count=2)
        made = attacked(name, photo_name, how)
        ours += sum(made.succeeded(made.unrounded_logits))
    print(f"PGD at epsilon {epsilon}: {ours} of 4 succeed, {theirs} of 4 of foolbox's")
    assert 0 < theirs < 4
    assert ours >= theirs


@pytest.mark.parametrize("goal", [None, 1])
def test_carlini_and_wagners_change_is_as_small_as_foolboxs(goal: int | None) -> None:
    name, pixels = NAMES[0], base_of(NAMES[0], "cat") / 255
    how = {"search_count": 3, "step_count": 12, "initial_weight": 0.1}
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=3, steps=12, initial_const=0.1, stepsize=0.01
    )
    on = oracle(name, 1.0)
    label = on(pixels[None]).argmax(1) if goal is None else torch.tensor([goal])
    criteria = foolbox.criteria
    kind = criteria.Misclassification if goal is None else criteria.TargetedMisclassification
    there = attack.run(on, pixels[None], kind(label))[0]
    made = attacked(name, "cat", CarliniWagner(**how), goal)
    assert made.succeeded(made.unrounded_logits) == [True]
    norm = float((made.unrounded[0] / 255 - pixels).norm())
    print(f"L2 {norm:.6f}, foolbox's {float((there - pixels).norm()):.6f}")
    assert norm <= 1.01 * float((there - pixels).norm())


@pytest.mark.parametrize("how", [Fgsm(epsilon=8.0), Bim(epsilon=8.0, step_size=1.6)], ids=repr)
def test_single_precision_differs_where_gates_flip(how: GradientAttack) -> None:
    """Printed, not bounded: one flipped gate changes the sign of many slopes."""
    name = NAMES[0]
    double = attacked(name, "cat", how)
    single = attacked(name, "cat", how, precision=Precision.FLOAT32)
    decisions = []
    for made, precision in ((double, Precision.FLOAT64), (single, Precision.FLOAT32)):
        network = model(name, precision, SIDE).network
        steps = ARCHITECTURES[name].preprocessing(SIDE)
        mean, std = (
            torch.tensor(n, dtype=torch.float64).view(3, 1, 1) for n in (steps.mean, steps.std)
        )
        recorder = GateRecorder()
        with recorder:
            network.forward(((made.unrounded.double() / 255 - mean) / std).to(network.dtype))
        decisions.append(recorder.decisions)
    flips = sum(
        int((a != b).sum())
        for one, other in zip(*decisions, strict=True)
        for a, b in zip(one[:1], other[:1], strict=True)
    )
    share = float((double.pixels != single.pixels).double().mean())
    print(f"{type(how).__name__}: {share:.2%} of values differ at 8 bits, {flips} gates")
    assert single.succeeded(single.logits) == double.succeeded(double.logits) == [True]


def test_a_chosen_class_within_eight_grey_levels() -> None:
    """Targeted, ten steps: the cat is a goldfish, at 8 bits and within the budget."""
    how = Pgd(epsilon=8.0, step_size=2.0, step_count=10)
    made = attacked(NAMES[0], "cat", how, goal=1, precision=Precision.FLOAT32)
    assert made.succeeded(made.logits) == [True]
    assert float(made.logits[0].double().softmax(0)[1]) >= 0.9
    assert int((made.pixels.int() - made.base.pixels.int()).abs().max()) <= 8
