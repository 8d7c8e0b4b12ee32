"""Explanations that stop when they are good enough: their errors are honest, their rows counted."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from pellucid_server.engine.job import Done
from pellucid_server.engine.rows import ClassTarget, Score
from pellucid_server.methods import draws
from pellucid_server.methods.explain.baselines import Baseline
from pellucid_server.methods.explain.explain import Explain, Until
from pellucid_server.methods.explain.explanation import Explanation, Stop
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.explain.paths import (
    Baselines,
    ExpectedGradients,
    IntegratedGradients,
    SmoothGrad,
    _Path,
)
from pellucid_server.methods.explain.rise import Rise
from pellucid_server.methods.explain.segments import KernelShap, Lime
from pellucid_server.models.registry import Model, Precision
from torch import Tensor, nn

from tests.harness import TOP, Runner, model, photo_input, running, spec, tiny_model, untouched

SIDE_PX = 12
SEEDS = range(50)
TO_THE_END = Until(time_ms=600_000.0)
LITE, CLASS = "resnet18", 285


@functools.lru_cache
def small() -> Model:
    """A ConvNet that is anything but linear."""
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )
    for layer in network:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.weight.data *= 2
    return tiny_model(network, SIDE_PX)


def image() -> Tensor:
    return torch.randn(3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(4))


def explained(runner: Runner, method: Any, until: Until = TO_THE_END) -> Explanation:
    target = ClassTarget(1, method.score)
    result: Explanation = runner.run(
        small(), Explain(method, until), image(), target, bucket_size=64
    ).result
    return result


def values(made: Explanation) -> Tensor:
    return made.attribution if made.segments is None else made.segments.values


GRID = {"segmentation": "grid", "segment_count": 9}
STARTS = torch.randn(6, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(8))
CASES: dict[str, tuple[Callable[[int], Any], Any]] = {
    "rise": (
        lambda seed: Rise(mask_count=200, cell_count=4, seed=seed),
        Rise(mask_count=8000, cell_count=4, seed=999),
    ),
    "smooth_grad mean": (
        lambda seed: SmoothGrad(50, 0.2, "mean", seed),
        SmoothGrad(4000, 0.2, "mean", 999),
    ),
    "smooth_grad mean_square": (
        lambda seed: SmoothGrad(50, 0.2, "mean_square", seed),
        SmoothGrad(4000, 0.2, "mean_square", 999),
    ),
    "smooth_grad variance": (
        lambda seed: SmoothGrad(50, 0.2, "variance", seed),
        SmoothGrad(4000, 0.2, "variance", 999),
    ),
    "expected_gradients": (
        lambda seed: ExpectedGradients(50, Baselines(tensor=STARTS), seed),
        ExpectedGradients(8000, Baselines(tensor=STARTS), 999),
    ),
    "lime": (
        lambda seed: Lime(**GRID, sample_count=200, seed=seed),
        Lime(**GRID, sample_count=10_000, ridge=0.0, seed=999),
    ),
    "lime without a ridge": (
        lambda seed: Lime(**GRID, sample_count=100, ridge=0.0, seed=seed),
        Lime(**GRID, sample_count=10_000, ridge=0.0, seed=999),
    ),
    "kernel_shap": (
        lambda seed: KernelShap(**GRID, sample_count=200, seed=seed),
        KernelShap(**GRID, sample_count=510),  # all coalitions: Shapley's values themselves
    ),
    "occlusion": (
        lambda seed: Occlusion(6, 1, "mean", seed=seed, window_count=30),
        Occlusion(6, 1, "mean"),
    ),
}


@functools.lru_cache
def converged(name: str) -> Tensor:
    with running(buckets=(64,)) as runner:
        return values(explained(runner, CASES[name][1])).double()


def coverage(runner: Runner, name: str, which: Callable[[Any], Any]) -> float:
    """The share of places, over 50 seeds, whose converged value the 95% interval covers."""
    covered = []
    for seed in SEEDS:
        made = explained(runner, which(CASES[name][0](seed)))
        assert made.convergence is not None
        error = made.convergence.standard_error
        assert error is not None
        assert (error > 0).any()
        assert error.isfinite().all()
        within = (values(made) - converged(name)).abs() <= 1.96 * error
        covered.append(within.double().mean())
    return float(torch.stack(covered).mean())


@pytest.mark.parametrize("name", CASES)
def test_standard_errors_are_honest(runner: Runner, name: str) -> None:
    assert 0.90 <= coverage(runner, name, lambda method: method) <= 0.98


@pytest.mark.parametrize("name", CASES)
def test_those_of_first_estimates_are_honest(runner: Runner, name: str) -> None:
    share = coverage(runner, name, lambda method: method.within(method.least_rows(small())))
    assert 0.90 <= share <= 0.98


def test_standard_errors_by_hand(runner: Runner) -> None:
    """Those of SmoothGrad, from the gradients at every noisy image."""
    network, picture = untouched(LITE, 64), photo_input("cat", LITE, 64)
    deviation = 0.3 * (picture.max() - picture.min())
    gradients = []
    for step in range(5):
        noisy = picture + deviation * draws.normal(7, step, tuple(picture.shape))
        x = noisy[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[0, CLASS], x)
        gradients.append(gradient[0].numpy())
    asked = Explain(SmoothGrad(5, 0.3, "mean", 7), TO_THE_END)
    on = model(LITE, Precision.FLOAT64, 64)
    made = runner.run(on, asked, picture, ClassTarget(CLASS)).result.convergence
    student = scipy.stats.t.ppf(0.975, 4) / scipy.stats.norm.ppf(0.975)
    expected = student * np.std(gradients, axis=0, ddof=1) / np.sqrt(5)
    assert np.abs(made.standard_error.numpy() - expected).max() <= 1e-9 * np.abs(expected).max()
    mean = np.mean(gradients, axis=0)
    ratio = np.linalg.norm(expected) / np.linalg.norm(mean)
    assert made.error == pytest.approx(ratio, rel=1e-9)


def test_all_windows_leave_nothing_to_chance(runner: Runner) -> None:
    made = explained(runner, Occlusion(4, 2, "mean")).convergence
    assert made is not None
    assert (made.stop, made.error) == (Stop.COMPLETE, 0.0)
    assert not made.standard_error.any()


def test_of_one_window_nothing_is_known(runner: Runner) -> None:
    made = explained(runner, Occlusion(6, 1, "mean", window_count=1)).convergence
    assert made is not None
    assert (made.standard_error == math.inf).all()
    assert made.error == math.inf


def test_of_samples_that_hardly_count_nothing_is_known(runner: Runner) -> None:
    """So narrow a kernel leaves all weight to a few samples in which nearly everything is seen."""
    made = explained(runner, Lime(**GRID, sample_count=54, kernel_width=0.05)).convergence
    assert made is not None
    assert (made.standard_error == math.inf).all()


def test_windows_come_coarse_to_fine(runner: Runner) -> None:
    """The first ones cover the whole image once."""
    made = explained(runner, Occlusion(4, 2, "mean", window_count=9))
    assert made.falls is not None
    tried = made.falls.values.isfinite()
    count = torch.zeros(SIDE_PX, SIDE_PX)
    for y, x in tried.nonzero().tolist():
        count[2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += 1
    assert int(tried.sum()) == 9
    assert count.max() <= 2
    assert (count > 0).double().mean() > 0.6


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [29, 30])
def test_a_budget_is_met_to_the_row(runner: Runner, name: str, rows: int) -> None:
    make, _ = CASES[name]
    method = make(3)
    made = explained(runner, method, Until(row_count=rows))
    assert made.convergence is not None
    assert (made.convergence.stop, made.convergence.row_count) == (Stop.ROW_COUNT, rows)
    # The same rows, named by the method's own parameters: the same bits.
    again = explained(runner, method.within(rows))
    assert torch.equal(made.attribution, again.attribution)


def test_estimates_grow_into_the_result(runner: Runner) -> None:
    shown: list[Done] = []
    asked = Explain(Rise(mask_count=100, cell_count=4), watched=True)
    request = spec(small(), asked, image(), ClassTarget(1, Score.PROBABILITY), bucket_size=4)
    last = runner.engine.submit(request, outlet=shown.append).future.result(60).result
    rows = [done.result.convergence.row_count for done in shown]
    assert rows == [9, 17, 33, 65, 101]
    for done in shown:
        made = done.result.convergence
        assert made.stop is Stop.RUNNING
        alone = explained(runner, Rise(mask_count=made.row_count - 1, cell_count=4))
        assert torch.allclose(done.result.attribution, alone.attribution, rtol=0, atol=1e-6)
    assert last.convergence.stop is Stop.COMPLETE
    assert torch.equal(shown[-1].result.attribution, last.attribution)


def test_estimates_of_segments_cost_little_more_than_their_samples(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sample is drawn twice, and what is solved again and again grows by a quarter each time."""
    drawn, solved, uniform, fit = [], [], draws.uniform, Lime.fit

    def counted(seed: int, step: int, shape: tuple[int, ...]) -> Tensor:
        drawn.append(step)
        return uniform(seed, step, shape)

    def watched(method: Lime, seen: Tensor, *scores: Any) -> Any:
        solved.append(len(seen))
        return fit(method, seen, *scores)

    monkeypatch.setattr(draws, "uniform", counted)
    monkeypatch.setattr(Lime, "fit", watched)
    asked = Explain(Lime(**GRID, sample_count=3000), watched=True)
    runner.run(small(), asked, image(), ClassTarget(1, Score.PROBABILITY), bucket_size=64)
    assert drawn == list(range(1, 3000))
    assert sum(solved) < 6 * 3000
    assert len(solved) > 10


FEW = {"segmentation": "grid", "segment_count": 6}


@pytest.mark.parametrize("until", [Until(row_count=64), Until(row_count=500), Until(time_ms=0.001)])
def test_what_is_exhausted_is_complete(runner: Runner, until: Until) -> None:
    """All 62 coalitions were run: neither rows nor time ended it."""
    made = explained(runner, KernelShap(**FEW), until).convergence
    assert made is not None
    assert (made.stop, made.row_count, made.error) == (Stop.COMPLETE, 64, 0.0)


@pytest.mark.parametrize(
    "method",
    [
        KernelShap("grid", 3),  # 6 coalitions
        KernelShap("slic", 20, 40),
        Lime("slic", 20, 40),
        IntegratedGradients("adaptive", 300),
    ],
)
@pytest.mark.parametrize("until", [Until(tolerance=1.0), Until(row_count=500), TO_THE_END])
def test_what_was_used_may_be_asked_for_again(runner: Runner, method: Any, until: Until) -> None:
    """Also where there is little to see: of one colour, there is one segment."""
    for picture in (image(), torch.zeros(3, SIDE_PX, SIDE_PX)):
        asked = Explain(method, until)
        target = ClassTarget(1, method.score)
        made = runner.run(small(), asked, picture, target, bucket_size=64).result
        used = asked.used(made)
        assert not used.contradictions(small())
        again = runner.run(small(), used, picture, target, bucket_size=64).result
        assert torch.equal(again.attribution, made.attribution)


def test_time_that_passes_in_the_last_part_ended_nothing(runner: Runner) -> None:
    until = Until(time_ms=0.001)
    assert explained(runner, Rise(mask_count=8), until).convergence.stop is Stop.COMPLETE
    assert explained(runner, Rise(mask_count=9), until).convergence.stop is Stop.TIME


@pytest.mark.parametrize(
    ("method", "row_count"),
    [
        (Rise(mask_count=20_000), 1 + 8),
        (Lime(segment_count=100, sample_count=20_000), 2 + 600),
        (KernelShap("slic", 12, 20_000), 4096),
        (KernelShap("slic", 50, 20_000), 16_384),  # there may be 14 segments only
        (IntegratedGradients("adaptive", 300), 1 + 9),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_time_admits_no_more_than_it_ends(runner: Runner, method: Any, row_count: int) -> None:
    """The first part is always run, and is paid for."""
    asked = Explain(method, Until(time_ms=1.0))
    assert asked.most_ms(small(), 2.0) == 2.0 * row_count
    with runner.held():
        job = runner.submit(small(), asked, image(), ClassTarget(1, method.score))
        costs = runner.engine.costs_of(small())
        rows = method.row_counts(small(), TOP)
        all_ms = sum(costs.predict_ms(lane, count, None) for lane, count in rows.items())
        assert job.cost_ms == pytest.approx(max(1.0, all_ms * row_count / sum(rows.values())))
        runner.engine.cancel(job)


def test_two_estimates_must_meet_the_tolerance(runner: Runner) -> None:
    shown: list[Done] = []
    asked = Explain(SmoothGrad(1000, 0.2, "mean_square"), Until(tolerance=0.3), watched=True)
    request = spec(small(), asked, image(), ClassTarget(1))
    last = runner.engine.submit(request, outlet=shown.append).future.result(60).result
    errors = [done.result.convergence.error for done in shown]
    assert last.convergence.stop is Stop.TOLERANCE
    assert last.convergence.error <= 0.3
    assert errors[-1] <= 0.3
    assert all(error > 0.3 for error in errors[:-1])


# Adaptive integrated gradients.


def test_adaptive_nodes_are_trapezoids_and_the_residual_is_what_is_missed(runner: Runner) -> None:
    network, picture = untouched(LITE, 64), photo_input("cat", LITE, 64)
    on = model(LITE, Precision.FLOAT64, 64)
    # Not black: in what is of one colour, which maximum is pooled is a tie.
    baseline = Baseline(fill="noise", seed=3)
    start = baseline.image(on, picture)
    places: set[float] = set()
    make = IntegratedGradients("adaptive", 24, baseline)
    asked = Explain(make, Until(tolerance=0.0001))
    launch = runner.engine._device.launch

    def watched(served: Any, picks: Any, bucket_size: int) -> Any:
        for rows, index in picks:
            step = (rows.images[index] - start) / (picture - start)
            places.add(round(float(step.median()), 9))
        return launch(served, picks, bucket_size)

    runner.engine._device.launch = watched  # type: ignore[method-assign]
    try:
        result = runner.run(on, asked, picture, ClassTarget(CLASS)).result
    finally:
        runner.engine._device.launch = launch  # type: ignore[method-assign]
    nodes = sorted(places)
    assert len(nodes) == 24  # none of them twice: every gradient is used again
    assert {place / 8 for place in range(9)} <= set(nodes)
    gradients, scores = [], []
    for node in nodes:
        x = (start + node * (picture - start))[None].clone().requires_grad_()
        score = network(x)[0, CLASS]
        gradients.append(torch.autograd.grad(score, x)[0][0].numpy())
        scores.append(float(score.detach()))
    total = np.trapezoid(gradients, nodes, axis=0) * (picture - start).numpy()
    error = np.linalg.norm(result.attribution.numpy() - total) / np.linalg.norm(total)
    assert error <= 1e-9
    residual = total.sum() - (scores[-1] - scores[0])
    assert result.convergence.residual == pytest.approx(residual, rel=1e-6)
    assert result.convergence.error == pytest.approx(
        abs(residual) / abs(scores[-1] - scores[0]), rel=1e-6
    )
    assert (result.convergence.stop, result.convergence.row_count) == (Stop.COMPLETE, 25)


def test_adaptive_stops_when_two_refinements_meet_the_tolerance(runner: Runner) -> None:
    shown: list[Done] = []
    method = IntegratedGradients("adaptive", 300)
    asked = Explain(method, Until(tolerance=0.02), watched=True)
    request = spec(small(), asked, image(), ClassTarget(1), bucket_size=4)
    last = runner.engine.submit(request, outlet=shown.append).future.result(60).result
    errors = [done.result.convergence.error for done in shown]
    assert last.convergence.stop is Stop.TOLERANCE
    assert last.convergence.error <= 0.02
    assert errors[-1] <= 0.02
    assert not any(max(pair) <= 0.02 for pair in itertools.pairwise(errors))
    used = asked.used(last)
    assert used == replace(method, step_count=last.convergence.row_count - 1)


def test_a_map_is_made_when_it_is_shown(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    made, attribution = [], _Path.attribution

    def watched(path: _Path) -> Tensor:
        made.append(len(path))
        return attribution(path)

    monkeypatch.setattr(_Path, "attribution", watched)
    method = IntegratedGradients("adaptive", 60)
    result = explained(runner, method, Until(tolerance=0.0001))
    assert made == [result.row_count - 1]
    made.clear()
    asked = Explain(method, watched=True)
    runner.run(small(), asked, image(), ClassTarget(1), bucket_size=64)
    assert made.count(60) == 2  # in the last estimate that was shown, and in the result


@pytest.mark.parametrize("limit", [20, 40, 60])
def test_the_last_is_better_than_that_of_the_least_residual(runner: Runner, limit: int) -> None:
    """Where the tolerance is out of reach: by the distance from the integral itself."""
    integral = explained(runner, IntegratedGradients(step_count=1000)).attribution
    shown: list[Done] = []
    asked = Explain(IntegratedGradients("adaptive", limit), watched=True)
    request = spec(small(), asked, image(), ClassTarget(1), bucket_size=64)
    last = runner.engine.submit(request, outlet=shown.append).future.result(60).result
    estimates = [done.result for done in shown]
    least = min(estimates, key=lambda made: abs(made.convergence.residual))
    assert least.row_count != last.row_count
    distances = [
        float((made.attribution - integral).norm()) for made in (last, least, estimates[0])
    ]
    assert distances == sorted(distances)


def test_a_linear_network_needs_the_first_nodes_alone(runner: Runner) -> None:
    torch.manual_seed(0)
    on = tiny_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE_PX**2, 4)), SIDE_PX)
    asked = Explain(IntegratedGradients("adaptive", 300), Until(tolerance=0.01))
    result = runner.run(on, asked, image(), ClassTarget(1)).result
    assert result.convergence.stop is Stop.TOLERANCE
    assert result.convergence.row_count <= 1 + 9 + 16
    assert result.convergence.error < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_path_across_a_step_comes_to_an_end(dtype: torch.dtype) -> None:
    """A panel is halved until its ends are neighbours in the network's precision."""
    path = _Path(torch.ones(1, 1, 1, dtype=dtype))
    places = torch.linspace(0, 1, 9).tolist()
    for _ in range(100):
        scores = [float(place > 0.7) for place in places]
        path.add(places, scores, torch.zeros(len(places), 1, 1, 1, dtype=dtype))
        assert torch.tensor(places, dtype=torch.float64).to(dtype).tolist() == places
        places = path.next_places(300 - len(path))
        if not places:
            break
    assert not places
    assert len(path) < 9 + 60
    assert path.residual == -1
