"""Rows of different callers, methods, targets and photos ride together and part again."""

import itertools
from concurrent.futures import wait
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pellucid_server.engine.rows import ClassTarget, NeuronTarget, Target, TopTarget
from pellucid_server.errors import InvalidArgument
from pellucid_server.methods.explain.cams import GradCam
from pellucid_server.methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.predict import Predict
from pellucid_server.models.registry import Precision
from torch import nn

from tests.harness import (
    PHOTOS,
    Runner,
    model,
    photo_input,
    relative_error,
    running,
    tiny_model,
)

NAME = "efficientnet_lite0"
SIDE_PX = 48
COARSE = Occlusion(window_px=32, stride_px=32, fill="mean", blur_sigma_px=1.0)  # 5 rows
GRADIENTS = (Gradient(), Deconvnet(), GuidedBackprop())
TARGETS: tuple[Target, ...] = (
    TopTarget(),
    ClassTarget(285),
    ClassTarget(967),
    NeuronTarget("blocks.2.0", 3),
    NeuronTarget("blocks.3.1", 2, y=1, x=2),
)


def mixed_calls() -> list[tuple[Any, torch.Tensor, Target]]:
    """34 calls of four methods; 2 × 5 of their 42 rows are occlusion's."""
    methods = list(itertools.islice(itertools.cycle(GRADIENTS), 32)) + [COARSE] * 2
    photos, targets = itertools.cycle(PHOTOS), itertools.cycle(TARGETS)
    return [
        (method, photo_input(next(photos), NAME, SIDE_PX).float(), next(targets))
        for method in methods
    ]


def run_together(runner: Runner, on: Any, calls: list[Any]) -> list[Any]:
    """All calls at once: they wait behind a held engine until the last one is in."""
    with runner.held():
        jobs = [
            runner.submit(on, method, image, target, caller=str(place % 8))
            for place, (method, image, target) in enumerate(calls)
        ]
    wait([job.future for job in jobs], timeout=300)
    return [job.future.result() for job in jobs]


def test_bits_do_not_depend_on_neighbours() -> None:
    on, calls = model(NAME, side_px=SIDE_PX), mixed_calls()
    occlusion_rows = sum(5 for method, _, _ in calls if method is COARSE)
    assert occlusion_rows <= (len(calls) - 2 + occlusion_rows) / 4
    with running(buckets=(16,)) as runner:
        together = run_together(runner, on, calls)
        for done, (method, image, target) in zip(together, calls, strict=True):
            alone = runner.run(on, method, image, target)
            assert {ride.bucket_size for ride in (*done.rides, *alone.rides)} == {16}
            assert all(ride.row_count == ride.own_row_count for ride in alone.rides)
            assert torch.equal(done.result.attribution, alone.result.attribution)
            assert done.result.attribution.abs().max() > 0
            assert done.result.target == alone.result.target
    rides = [ride for done in together for ride in done.rides]
    # Each batch is told of once for every row in it: weigh it by one over its rows.
    batch_count = sum(ride.own_row_count / ride.row_count for ride in rides)
    row_count = sum(ride.own_row_count for ride in rides)
    assert row_count / batch_count > 4


def test_default_buckets_agree_in_float64() -> None:
    """Across bucket sizes float32 may flip a gate; float64 does not."""
    on = model(NAME, Precision.FLOAT64, SIDE_PX)
    # Every method with every target, and one occlusion: in float64, Lite0 takes a second a row.
    calls = [(method, image.double(), target) for method, image, target in mixed_calls()[-17:-1]]
    assert {(type(method), target) for method, _, target in calls[:-1]} == {
        (type(method), target) for method in GRADIENTS for target in TARGETS
    }
    with running(buckets=(1,)) as fixed, running() as default:
        together = run_together(default, on, calls)
        assert max(ride.row_count for done in together for ride in done.rides) > 4
        for done, (method, image, target) in zip(together, calls, strict=True):
            alone = fixed.run(on, method, image, target)
            error = relative_error(done.result.attribution, alone.result.attribution)
            assert error <= 1e-9


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_has_the_same_bits_anywhere(data: st.DataObject) -> None:
    """Whoever its neighbours are, wherever in the batch it comes to lie."""
    on = model("resnet18", side_px=SIDE_PX)
    method = data.draw(st.sampled_from((*GRADIENTS, Predict(5, False))), label="method")
    target = (
        TopTarget()
        if isinstance(method, Predict)
        else data.draw(st.sampled_from([TopTarget(), ClassTarget(7), NeuronTarget("layer1", 1)]))
    )
    image = photo_input(data.draw(st.sampled_from(PHOTOS)), "resnet18", SIDE_PX).float()
    neighbours = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from((*GRADIENTS, COARSE)),
                st.sampled_from(PHOTOS),
                st.sampled_from([TopTarget(), ClassTarget(11), NeuronTarget("layer3", 2)]),
            ),
            max_size=15,
        ),
        label="neighbours",
    )
    place = data.draw(st.integers(0, len(neighbours)), label="place")
    calls: list[Any] = [
        (other, photo_input(photo, "resnet18", SIDE_PX).float(), aim)
        for other, photo, aim in neighbours
    ]
    calls.insert(place, (method, image, target))
    with running(buckets=(16,)) as runner:
        alone = runner.run(on, method, image, target).result
        among = run_together(runner, on, calls)[place].result
    if isinstance(method, Predict):
        assert torch.equal(alone.logits, among.logits)
    else:
        assert torch.equal(alone.attribution, among.attribution)


def test_a_request_may_fix_its_bucket(runner: Runner) -> None:
    image = photo_input("cat", NAME).float()
    with running(buckets=(16,)) as fixed:
        expected = fixed.run(model(NAME), Gradient(), image).result.attribution
    done = runner.run(model(NAME), Gradient(), image, bucket_size=16)
    assert [ride.bucket_size for ride in done.rides] == [16]
    assert torch.equal(done.result.attribution, expected)


class Squaring(nn.Module):
    """A layer to aim at, and after it a product, whose backward pass makes 0 · inf."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(3, 4, 1)
        nn.init.constant_(self.shallow.weight, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activation = self.shallow(x)
        return (activation * activation * activation * 1e30).mean((2, 3))


def test_a_shallow_target_survives_what_overflows_deeper() -> None:
    """Its own pass stops before the overflow; a neighbour's goes on and overflows for both."""
    on = tiny_model(Squaring())
    image = torch.full((3, 2, 2), 1.0)
    huge = image * 1e20
    shallow = NeuronTarget("shallow", 2)
    with running(buckets=(4,)) as runner:
        alone = runner.run(on, Gradient(), huge, shallow).result
        with runner.held():
            deep = runner.submit(on, Gradient(), huge, ClassTarget(1))
            fine = runner.submit(on, Gradient(), image, ClassTarget(1))
            among = runner.submit(on, Gradient(), huge, shallow)
        assert torch.equal(among.future.result(60).result.attribution, alone.attribution)
        # It rode twice: among the others, where it overflowed, and alone.
        assert [ride.row_count for ride in among.future.result().rides] == [3, 1]
        assert fine.future.result(60).result.attribution.isfinite().all()
        with pytest.raises(InvalidArgument, match="not finite"):
            deep.future.result(60)


class Branches(nn.Module):
    """Two convolutions of the image, the left one first; the logits are of their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.left(x) + self.right(x)).mean((2, 3))


def test_a_layer_beside_the_way_to_the_target_has_no_part_in_it() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        on = tiny_model(Branches())
        image = torch.rand(3, 2, 2)
    method, beside = GradCam("left", relu=False), NeuronTarget("right", 1)
    with running(buckets=(2,)) as runner:
        alone = [runner.run(on, method, image, aim).result for aim in (beside, ClassTarget(1))]
        together = run_together(runner, on, [(method, image, t) for t in (beside, ClassTarget(1))])
    assert [result.attribution.any().item() for result in alone] == [False, True]
    for result, done in zip(alone, together, strict=True):
        assert {ride.row_count for ride in done.rides} == {2}
        assert torch.equal(done.result.attribution, result.attribution)
