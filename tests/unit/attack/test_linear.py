"""The linear view of a change against autograd and arithmetic of the tests' own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pellucid_server.engine.job import Priority
from pellucid_server.engine.rows import Lane, Program
from pellucid_server.methods.attack.algorithm import Base, Scene, Shows
from pellucid_server.methods.attack.linear import LinearView, asks, linear_views
from pellucid_server.models.registry import Model, Precision
from torch import Tensor, nn

from tests.harness import (
    ARCHITECTURES,
    Runner,
    model,
    photo,
    running,
    tiny_model,
    untouched,
)

NAME = "efficientnet_lite0"
SIDE_PX = 64
LAYERS = ("conv_stem", "blocks.2.1", "blocks.5.1", "global_pool", "classifier")


@dataclass(frozen=True)
class Views:
    """A method that does nothing but look."""

    original: Tensor
    changed: Tensor
    classes: Sequence[Sequence[int]]
    layers: Sequence[str]
    bucket_size: int = 4

    name: ClassVar[str] = "views"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    def row_counts(self, on: Model, target: Any) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def pace(self, on: Model) -> None:
        pass

    def most_ms(self, on: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, on: Model) -> int:
        return 0

    def program(
        self, on: Model, image: Tensor, target: Any
    ) -> Program[list[tuple[LinearView, ...]]]:
        return (
            yield from linear_views(
                Scene(on, Base(self.original, torch.empty(0), 0, None), self.bucket_size, Shows()),
                self.changed,
                self.classes,
                self.layers,
            )
        )


def pixels_of(name: str, side_px: int = SIDE_PX) -> Tensor:
    """A photo's corner as it is, 3×H×W, 0 to 255."""
    return torch.from_numpy(photo(name)[:side_px, :side_px].copy()).permute(2, 0, 1).double()


def changed_by(pixels: Tensor, most: int, seed: int) -> Tensor:
    steps = np.random.default_rng(seed).integers(-most, most + 1, pixels.shape)
    return (pixels + torch.from_numpy(steps)).clamp(0, 255)


def views(runner: Runner, on: Model, method: Views) -> list[tuple[LinearView, ...]]:
    height_px, width_px = on.preprocessing.height_px, on.preprocessing.width_px
    made: list[tuple[LinearView, ...]] = runner.run(
        on, method, torch.zeros(3, height_px, width_px)
    ).result
    return made


def autograd(
    pixels: Tensor, changed: Tensor, index: int, layers: Sequence[str]
) -> tuple[float, list[tuple[float, float]]]:
    """What happened; of the image and of layers, wᵀη and ‖η‖/‖a‖: on the untouched network."""
    network, steps = untouched(NAME), ARCHITECTURES[NAME].preprocessing(SIDE_PX)
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (steps.mean, steps.std)
    )
    kept: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: kept.__setitem__(layer, output)
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            [after] = network(((changed / 255 - mean) / std)[None])
            activations_after = {layer: activation.clone() for layer, activation in kept.items()}
        here = pixels.clone().requires_grad_()
        [before] = network(((here / 255 - mean) / std)[None])
        slopes = torch.autograd.grad(before[index], [here, *(kept[layer] for layer in layers)])
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [(pixels, changed), *((kept[y].detach(), activations_after[y]) for y in layers)]
    effects = [
        (float((slope * (b - a)).sum()), float((b - a).norm() / a.norm()))
        for slope, (a, b) in zip(slopes, pairs, strict=True)
    ]
    return float((after - before)[index].detach()), effects


def test_of_a_trained_network(runner: Runner) -> None:
    """In float64, for two images with classes of their own."""
    original = pixels_of("cat")
    changed = torch.stack([changed_by(original, 6, seed) for seed in (0, 1)])
    layers = ("blocks.2.1", "global_pool", "classifier")
    classes = ((285, 281), (285, 967))
    on = model(NAME, Precision.FLOAT64, SIDE_PX)
    made = views(runner, on, Views(original, changed, classes, layers))
    assert [[view.class_index for view in of_one] for of_one in made] == [[285, 281], [285, 967]]
    for image, of_one in zip(changed, made, strict=True):
        for view in of_one:
            happened, effects = autograd(original, image, view.class_index, layers)
            assert abs(happened) > 1e-3
            assert view.happened == pytest.approx(happened, rel=1e-7)
            assert [effect.layer for effect in view.effects] == ["", *layers]
            for effect, (predicted, relative) in zip(view.effects, effects, strict=True):
                assert effect.predicted == pytest.approx(predicted, rel=1e-7, abs=1e-9)
                assert effect.relative_change == pytest.approx(relative, rel=1e-7)
    first, second = (of_one[0] for of_one in made)
    assert first.effects[0].predicted != second.effects[0].predicted


def test_a_small_change_is_a_slope(runner: Runner) -> None:
    """The difference quotient of a step of 1e-4 grey levels, in float64."""
    original = pixels_of("coffee").clamp(1, 254)
    direction = torch.from_numpy(np.random.default_rng(2).normal(size=original.shape))
    on = model(NAME, Precision.FLOAT64, SIDE_PX)
    changed = (original + 1e-4 * direction)[None]
    [[view]] = views(runner, on, Views(original, changed, ((967,),), LAYERS))
    for effect in view.effects:
        assert effect.predicted == pytest.approx(view.happened, rel=1e-3)


def test_below_the_logits_everything_is_linear(runner: Runner) -> None:
    """As served, in float32: what the classifier gets, and what it makes."""
    original = pixels_of("cat")
    changed = changed_by(original, 16, 3)[None]
    on = model(NAME, side_px=SIDE_PX)
    [of_one] = views(runner, on, Views(original, changed, ((285, 7),), LAYERS))
    for view in of_one:
        image, *_, pooled, logits = view.effects
        assert abs(view.happened) > 0.1
        assert pooled.predicted == pytest.approx(view.happened, rel=1e-4)
        assert logits.predicted == pytest.approx(view.happened, rel=1e-5)
        assert abs(image.predicted - view.happened) > 0.05 * abs(view.happened)


class Linear(nn.Module):
    """No rectifier anywhere."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Linear(16, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(images).flatten(1))
        return logits


def test_a_linear_network_is_its_own_linear_view(runner: Runner) -> None:
    original = torch.arange(12.0).view(3, 2, 2).double() * 20
    changed = torch.stack([(original + step).clamp(0, 255) for step in range(1, 10)])
    on = tiny_model(Linear())
    made = views(
        runner,
        on,
        Views(original, changed, [(step % 4,) for step in range(9)], ("first", "second")),
    )
    assert len(made) == 9
    for [view] in made:
        for effect in view.effects:
            assert effect.predicted == pytest.approx(view.happened, rel=1e-4)
            assert effect.relative_change > 0
    # By hand: every pixel and channel is a step larger; ‖x‖² of 20·(0, 1, …, 11) is 400·506.
    for step, [view] in enumerate(made, 1):
        expected = step * np.sqrt(12) / np.sqrt(400 * 506)
        assert view.effects[0].relative_change == pytest.approx(expected, rel=1e-12)


def test_no_change_and_black(runner: Runner) -> None:
    """Where nothing was, any change is infinitely large."""
    black = torch.zeros(3, 2, 2, dtype=torch.float64)
    changed = torch.stack([black, black + 8])
    still, moved = views(runner, tiny_model(Linear()), Views(black, changed, ((1,), (1,)), ()))
    assert still == (LinearView(1, 0.0, (still[0].effects[0],)),)
    assert (still[0].effects[0].predicted, still[0].effects[0].relative_change) == (0, 0)
    assert moved[0].effects[0].relative_change == float("inf")


def test_bits_do_not_depend_on_neighbours() -> None:
    def of(name: str) -> Views:
        original = pixels_of(name)
        return Views(original, changed_by(original, 8, 4)[None], ((285, 9),), LAYERS[1:3])

    on, blank = model(NAME, side_px=SIDE_PX), torch.zeros(3, SIDE_PX, SIDE_PX)
    with running(buckets=(1, 2, 4)) as runner:
        alone = views(runner, on, of("rocket"))
        with runner.held():
            other, among = (runner.submit(on, of(name), blank) for name in ("cat", "rocket"))
        done = among.future.result(timeout=300)
        assert other.future.result(timeout=300).result != done.result
    assert done.result == alone
    assert any(ride.row_count > ride.own_row_count for ride in done.rides)
    assert {ride.bucket_size for ride in done.rides} == {4}


def test_rows_are_counted(runner: Runner) -> None:
    original = pixels_of("cat", 2)
    changed = torch.stack([changed_by(original, 9, seed) for seed in range(5)])
    on = tiny_model(Linear())
    method = Views(original, changed, [(0, k % 4) for k in range(5)], ("first", "second"))
    rides = runner.run(on, method, torch.zeros(3, 2, 2), bucket_size=4).rides
    counted_on = asks(image_count=5, class_count=4, layer_count=2, bucket_size=4)
    rows = sum(ask.times * ask.row_count for ask in counted_on)
    assert sum(ride.own_row_count for ride in rides) == rows == 12 + 4
    batches = sum(ask.times * math.ceil(ask.row_count / 4) for ask in counted_on)
    assert len(rides) == batches == 2 + 1 + 2
