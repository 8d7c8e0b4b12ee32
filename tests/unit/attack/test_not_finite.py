"""Where a network has no finite numbers: attacks end with what they have, and say why."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pellucid.v1 import attack_pb2, data_pb2, optimize_pb2
from pellucid_server import wire
from pellucid_server.errors import InvalidArgument
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.optimize.stepper import Progress
from pellucid_server.models.registry import Model, Registry
from torch import Tensor, nn

from tests.harness import Runner, running, tiny_model

BORDER = 100.5


class Curve(nn.Module):
    """Two classes by the first pixel's red: over the border it is the second.

    The second's logit, 1 - e^((border - red)/20), is such that a step along its slope falls short.
    """

    def __init__(self, spoil: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.spoil = spoil

    def forward(self, x: Tensor) -> Tensor:
        red = (x[:, 0, 0, 0] * 0.229 + 0.485) * 255
        logit = 1 - ((BORDER - red) / 20).exp()
        if self.spoil is not None:
            logit = self.spoil(red, logit)
        return torch.stack([0 * red, logit], 1)


def after_one_step(red: float) -> float:
    """By hand: Newton's step for the logit, and DeepFool's overshoot."""
    return red + 1.02 * 20 * (1 - math.exp((red - BORDER) / 20))


def nan_within(low: float, high: float) -> Callable[[Tensor, Tensor], Tensor]:
    def spoil(red: Tensor, logit: Tensor) -> Tensor:
        return logit.where((red <= low) | (red >= high), math.nan)

    return spoil


def no_slope_above(most: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The logit is as it was, and the slope of a root at 0 is infinite, times 0."""

    def spoil(red: Tensor, logit: Tensor) -> Tensor:
        root: Tensor = (0 * red).where(red > most, 1.0).sqrt()
        return logit + root - (red <= most).to(red)

    return spoil


def of_red(*values: float) -> list[data_pb2.Image]:
    images = []
    for value in values:
        array = np.full((2, 2, 3), 77, np.uint8)
        array[0, 0, 0] = value
        tensor = data_pb2.Tensor(data_type=1, shape=array.shape, data=array.tobytes())
        images.append(data_pb2.Image(tensor=tensor))
    return images


def read(request: optimize_pb2.OptimizeSpec, *models: Model) -> wire.AskedOptimize:
    call = wire.Call("", time.monotonic() + 60)
    limits = wire.Limits(10**6, (1,), 10**6, Buckets(4), b"0123456789abcdef")
    request.model = models[0].name
    return wire.read_optimize(request, call, Registry([*models]), limits)


def attack(red: float, *models: Model, **fields: Any) -> wire.AskedOptimize:
    [image] = of_red(red)
    request = optimize_pb2.OptimizeSpec(
        attack=attack_pb2.Attack(**fields), image=image, include_pixels=True
    )
    return read(request, *models)


def run(
    runner: Runner, asked: wire.AskedOptimize, outlet: Callable[[Any], None] | None = None
) -> optimize_pb2.OptimizeResult:
    done = runner.engine.submit(asked.spec, outlet=outlet).future.result(60)
    return wire.write_optimize(asked, done).result


def red_of(image: optimize_pb2.OptimizedImage) -> float:
    """Of the first pixel, before it was rounded."""
    return 255 * float(np.frombuffer(image.pixels.data, np.float32)[0])


DEEP_FOOL: dict[str, Any] = {"deep_fool": attack_pb2.DeepFool()}


@pytest.fixture
def runner() -> Any:
    with running(buckets=(1, 2, 4)) as made:
        yield made


@pytest.mark.parametrize(
    "spoil", [nan_within(85, 99), no_slope_above(70)], ids=["no score", "no slope"]
)
def test_deep_fool_ends_with_the_last_good_image(runner: Runner, spoil: Any) -> None:
    [image] = run(runner, attack(60, tiny_model(Curve(spoil)), **DEEP_FOOL)).images
    assert red_of(image) == pytest.approx(after_one_step(60), abs=1e-3)
    assert image.progress.step == 1
    assert image.stop_reason == "its score or gradient was not finite after step 1"
    assert not image.adversarial.success
    [whole] = run(runner, attack(60, tiny_model(Curve()), **DEEP_FOOL)).images
    assert whole.progress.step > 2
    assert whole.adversarial.success
    assert not whole.stop_reason


def test_its_neighbours_go_on(runner: Runner) -> None:
    """In the same batches: to the bits that they have alone."""
    on = tiny_model(Curve(nan_within(85, 95)))
    alone = run(runner, attack(96, on, **DEEP_FOOL))
    asked = [attack(red, on, **DEEP_FOOL) for red in (60, 96, 62)]
    with runner.held():
        jobs = [runner.engine.submit(one.spec) for one in asked]
        runner.submitted += jobs
    done = [job.future.result(60) for job in jobs]
    assert any(ride.row_count > ride.own_row_count for ride in done[1].rides)
    first, beside, last = (
        wire.write_optimize(one, of).result for one, of in zip(asked, done, strict=True)
    )
    assert beside.images == alone.images
    assert not beside.images[0].stop_reason
    for spoiled in (first, last):
        assert spoiled.images[0].stop_reason


def test_a_photo_that_nothing_is_known_of_is_refused(runner: Runner) -> None:
    with pytest.raises(InvalidArgument, match="output for it is not finite"):
        run(runner, attack(60, tiny_model(Curve(nan_within(59, 61))), **DEEP_FOOL))


def test_what_8_bits_make_unknown_is_the_photo_again(runner: Runner) -> None:
    """98 and 3.4 are a finite 101.4, over the border, and 101 is none."""
    on = tiny_model(Curve(nan_within(100.9, 101.1)))
    result = run(runner, attack(98, on, fgsm=attack_pb2.Fgsm(epsilon=3.4)))
    [image] = result.images
    assert red_of(image) == pytest.approx(101.4, abs=1e-3)
    assert image.adversarial.success_unrounded
    assert not image.adversarial.success
    assert image.adversarial.linf == 0
    assert image.adversarial.prediction == result.attack.prediction
    assert image.image.data == result.attack.original.data
    assert image.progress.step == 1
    assert image.stop_reason == "at 8 bits its output was not finite: this is the photo"


def test_a_multiple_that_nothing_is_known_of_does_not_survive(runner: Runner) -> None:
    """The change must be made larger until 8 bits show it: over 101, which is no number."""
    steep = attack(100, tiny_model(Curve(nan_within(100.9, 101.1))), **DEEP_FOOL)
    [image] = run(runner, steep).images
    assert image.adversarial.success
    assert image.adversarial.linf == 2
    assert not image.stop_reason


class Beside(nn.Module):
    """A layer that has infinite numbers which nothing looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.curve = Infinite(), Curve()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.curve(self.first(x)[:, :3])
        return logits


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.full_like(x, math.inf)], 1)


def test_a_layer_of_the_linear_view(runner: Runner) -> None:
    """It is not known there, and of the image it is what it would be."""
    asked = attack(
        98, tiny_model(Beside()), fgsm=attack_pb2.Fgsm(epsilon=4), linear_layers=["first"]
    )
    plain = attack(98, tiny_model(Curve()), fgsm=attack_pb2.Fgsm(epsilon=4))
    [image], [expected] = run(runner, asked).images, run(runner, plain).images
    assert image.adversarial.success
    assert len(image.adversarial.linear) == 2
    for view, like in zip(image.adversarial.linear, expected.adversarial.linear, strict=True):
        of_image, of_layer = view.effects
        assert view.happened == like.happened
        assert of_image == like.effects[0]
        assert math.isnan(of_layer.predicted)
        assert math.isnan(of_layer.relative_change)


def test_a_slope_of_the_linear_view(runner: Runner) -> None:
    """Where there is none, no step is made, and what it would predict is not known."""
    on = tiny_model(Curve(no_slope_above(50)))
    [image] = run(runner, attack(60, on, **DEEP_FOOL)).images
    assert image.stop_reason.endswith("after step 0")
    [view] = image.adversarial.linear
    assert (view.class_index, view.happened) == (0, 0)
    assert math.isnan(view.effects[0].predicted)


def test_a_model_that_an_image_is_transferred_to(runner: Runner) -> None:
    on = replace(tiny_model(Curve()), name="on")
    never = replace(tiny_model(Curve(nan_within(97, 103))), name="never")
    once = replace(tiny_model(Curve(nan_within(101.5, 102.5))), name="once")
    asked = attack(98, on, never, once, fgsm=attack_pb2.Fgsm(epsilon=4), transfer=True)
    [image] = run(runner, asked).images
    assert image.adversarial.success
    by_name = {score.model: score for score in image.adversarial.transfer}
    told = {
        name: [score.HasField(f) for f in ("before", "after", "source_before", "source_after")]
        for name, score in by_name.items()
    }
    assert told == {"on": [True] * 4, "never": [False] * 4, "once": [True, False] * 2}
    assert {name for name, score in by_name.items() if score.fooled} == {"on"}


# Universal perturbations.


def universal(reds: Sequence[float], on: Model, **options: Any) -> wire.AskedOptimize:
    asked = attack_pb2.Attack(universal=attack_pb2.Universal(**options))
    return read(optimize_pb2.OptimizeSpec(attack=asked, photos=of_red(*reds)), on)


def change_of(result: optimize_pb2.OptimizeResult) -> list[float]:
    made: list[float] = np.frombuffer(
        result.attack.universal.perturbation.data, np.float32
    ).tolist()
    return made


def test_photos_that_nothing_is_known_of_are_named(runner: Runner) -> None:
    asked = universal([60, 50, 90, 51], tiny_model(Curve(nan_within(49, 52))))
    with pytest.raises(InvalidArgument) as caught:
        run(runner, asked)
    assert [found.field for found in caught.value.violations] == ["photos[1]", "photos[3]"]


def test_a_photo_that_becomes_unknown_ends_a_universal_perturbation(runner: Runner) -> None:
    """After the first pass, which 5 and a photo of three came of: the way from others is not."""
    broken: list[bool] = []

    def spoil(red: Tensor, logit: Tensor) -> Tensor:
        between = (red - red.round()).abs() > 1e-3
        return logit.where(~between, math.nan) if broken else logit

    def outlet(done: Any) -> None:
        broken.append(isinstance(done.result, Progress))

    asked = universal([90, 96, 60], tiny_model(Curve(spoil)), epsilon=5.9, pass_count=4)
    result = run(runner, asked, outlet)
    made = result.attack.universal
    assert change_of(result) == [5.0] + [0.0] * 11
    assert made.fooling_rate == pytest.approx(1 / 3)
    assert made.pass_count == 2
    assert made.stop_reason in {
        f"a score or gradient of photos[{place}] was not finite in pass 2" for place in (0, 2)
    }
    broken.clear()
    whole = run(runner, asked)
    assert change_of(whole) == change_of(result)
    assert whole.attack.universal.pass_count == 4
    assert not whole.attack.universal.stop_reason


def test_a_perturbation_that_cannot_be_scored_is_none(runner: Runner) -> None:
    """20, which the third photo asks for, takes the second where nothing is known."""
    shown: list[Any] = []
    asked = universal([60, 96], tiny_model(Curve(nan_within(115, 117))), epsilon=20.0, pass_count=3)
    result = run(runner, asked, lambda done: shown.append(done.result))
    made = result.attack.universal
    assert not any(change_of(result))
    assert (made.fooling_rate, made.pass_count) == (0, 1)
    assert made.stop_reason == "a score or gradient of photos[1] was not finite in pass 1"
    assert [one.score for one in shown] == [0.0]
    assert [photo.before == photo.after for photo in made.photos] == [True, True]
