"""Every measure of evidence against independent code, in float64."""

import copy
import functools
import math
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from pellucid_server.engine.rows import ClassesTarget, ClassTarget, Score, Target
from pellucid_server.methods import draws
from pellucid_server.methods.evidence.comparisons import (
    Agreement,
    Cascade,
    Randomization,
    Stability,
    top_overlap,
)
from pellucid_server.methods.evidence.completeness import Completeness
from pellucid_server.methods.evidence.curves import Curves
from pellucid_server.methods.evidence.measure import Measure, rank_correlation
from pellucid_server.methods.explain import programs
from pellucid_server.methods.explain.baselines import Baseline
from pellucid_server.methods.explain.cams import GradCam
from pellucid_server.methods.explain.explain import Explain, Until
from pellucid_server.methods.explain.explanation import CHUNK_ROWS, ExplainMethod, Explanation
from pellucid_server.methods.explain.gradients import Gradient, GuidedBackprop, InputXGradient
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.explain.paths import (
    Baselines,
    ExpectedGradients,
    IntegratedGradients,
    SmoothGrad,
)
from pellucid_server.methods.explain.rise import Rise
from pellucid_server.methods.explain.segments import KernelShap
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision
from torch import Tensor, nn

from tests.harness import CPU, Runner, model, photo_input, untouched
from tests.oracle.graph import hooked_gradient

BOUND = 1e-9
NAME, CLASS, OTHER = "resnet18", 285, 967
TARGET = ClassTarget(CLASS)
IMAGE = photo_input("cat", NAME)


def measured(
    runner: Runner,
    method: ExplainMethod,
    measure: Measure,
    target: Target = TARGET,
    on: Model | None = None,
    image: Tensor = IMAGE,
) -> tuple[Explanation, Any]:
    asked = Explain(method, measures=(measure,))
    result = runner.run(on or model(NAME, Precision.FLOAT64), asked, image, target).result
    return result, result.evidence[measure.name]


def black() -> Tensor:
    steps = model(NAME, Precision.FLOAT64).preprocessing
    pixels = [-mean / std for mean, std in zip(steps.mean, steps.std, strict=True)]
    return torch.tensor(pixels, dtype=torch.float64)[:, None, None].expand_as(IMAGE)


def logit(image: Tensor, network: nn.Module | None = None, index: int = CLASS) -> float:
    with torch.no_grad():
        return float((network or untouched(NAME))(image[None])[0, index])


def gradient(network: nn.Module, image: Tensor, index: int = CLASS) -> Tensor:
    x = image[None].clone().requires_grad_()
    (found,) = torch.autograd.grad(network(x)[0, index], x)
    return found[0]


def drawn(method: ExplainMethod, attribution: Tensor) -> NDArray[Any]:
    """One value a pixel: the sum over channels, or the largest magnitude; see ColorScale."""
    values = attribution.double().numpy()
    return values.sum(0) if method.color_scale == "signed" else np.abs(values).max(0)


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic)


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_rank_correlation_with_ties(levels: int) -> None:
    generator = np.random.default_rng(levels)
    a, b = generator.integers(0, levels, (2, 40, 30)).astype(float)
    b = b + a / 3
    expected = spearman(a, b)
    assert abs(expected) < 0.9
    assert rank_correlation(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=BOUND)


def test_rank_correlation_of_a_constant_map_is_0() -> None:
    assert rank_correlation(torch.ones(4, 4), torch.rand(4, 4)) == 0


# Completeness.


@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(step_count=7),
        programs.DeepLift(),
        KernelShap("grid", 4, 14, Baseline(fill="black")),
    ],
    ids=lambda method: method.name,
)
def test_completeness_counts_from_the_baseline(runner: Runner, method: ExplainMethod) -> None:
    result, sums = measured(runner, method, Completeness())
    expected = logit(IMAGE) - logit(black())
    total = float(result.attribution.sum())
    if method.name == "kernel_shap":  # each segment's value stands on all of its pixels
        labels = result.segments.labels
        total = sum(float(result.attribution[0][labels == k][0]) for k in range(4))
    assert sums.expected_sum == pytest.approx(expected, rel=BOUND)
    assert sums.attribution_sum == pytest.approx(total, rel=BOUND)
    assert sums.relative_error == pytest.approx(abs(total - expected) / abs(expected), abs=BOUND)
    if method.name == "integrated_gradients":
        assert sums.relative_error > 1e-3  # seven steps are too few, and it says so
    else:
        assert sums.relative_error < 1e-6


def test_completeness_of_expected_gradients_counts_from_the_mean_baseline(runner: Runner) -> None:
    starts = torch.stack([0.5 * IMAGE, black(), 0.1 * IMAGE.flip(2)])
    method = ExpectedGradients(5, Baselines(tensor=starts), seed=4)
    _, sums = measured(runner, method, Completeness())
    which = [int(draws.uniform(4, step, (2,))[1] * 3) for step in range(5)]
    assert len(set(which)) > 1
    expected = logit(IMAGE) - sum(logit(starts[place]) for place in which) / 5
    assert sums.expected_sum == pytest.approx(expected, rel=BOUND)


@pytest.mark.parametrize("method", [ExpectedGradients(100), SmoothGrad(100)])
def test_noise_is_drawn_off_the_engine_thread_a_chunk_at_a_time(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, method: ExplainMethod
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)).double()
    shape = (3, 6, 6)
    counts: Counter[str] = Counter()

    def watched(draw: Any, seed: int, step: int, of: tuple[int, ...]) -> Tensor:
        if of == shape:
            counts[threading.current_thread().name] += 1
        return draw(seed, step, of)

    for name in ("uniform", "normal"):
        monkeypatch.setattr(draws, name, functools.partial(watched, getattr(draws, name)))
    launched: list[int] = []
    references = ExpectedGradients.references

    def chunked(self: Any, model: Model, image: Tensor, steps: range) -> Tensor:
        launched.append(len(steps))
        return references(self, model, image, steps)

    monkeypatch.setattr(ExpectedGradients, "references", chunked)
    measures = (Completeness(),) if method.additive else ()
    asked, image = Explain(method, measures=measures), torch.rand(shape, dtype=torch.float64)
    runner.run(own_model(network, side_px=6), asked, image, ClassTarget(2))
    assert sum(counts.values()) == (200 if measures else 100)
    assert "engine" not in counts
    assert max(launched, default=0) <= CHUNK_ROWS


def test_completeness_of_lrp_is_the_score(runner: Runner) -> None:
    result, sums = measured(runner, programs.Lrp("epsilon"), Completeness())
    assert sums.expected_sum == pytest.approx(logit(IMAGE), rel=BOUND)
    assert sums.attribution_sum == pytest.approx(float(result.attribution.sum()), rel=BOUND)


# Curves.


def by_hand(order: NDArray[Any], over: Tensor, under: Tensor, steps: int) -> list[float]:
    """The probability after each step, pixel by pixel in that order."""
    count, scores = len(order), []
    for step in range(steps + 1):
        image = under.clone().flatten(1)
        chosen = order[: step * count // steps].copy()
        image[:, chosen] = over.reshape(3, -1)[:, chosen]
        with torch.no_grad():
            logits = untouched(NAME)(image.view_as(under)[None])[0]
        scores.append(float(logits.softmax(0)[CLASS]))
    return scores


def test_curves_are_those_of_the_paper(runner: Runner) -> None:
    steps, seed, side = 7, 3, IMAGE.shape[1]
    method, measure = InputXGradient(), Curves(steps, "black", "mean", seed=seed)
    result, scored = measured(runner, method, measure)
    ys, xs = np.divmod(np.arange(side * side), side)
    middle = (side - 1) / 2
    random = draws.permutation(seed, 0, side * side)
    orders = {
        "map": np.argsort(-drawn(method, result.attribution).ravel(), kind="stable"),
        "random": np.argsort(random.numpy()),
        "center": np.argsort((ys - middle) ** 2 + (xs - middle) ** 2, kind="stable"),
    }
    shares = [step * side * side // steps / side**2 for step in range(steps + 1)]
    assert scored.shares == pytest.approx(shares, rel=BOUND)
    assert [curve.order for curve in scored.curves] == list(orders)
    for curve in scored.curves:
        deletion = by_hand(orders[curve.order], black(), IMAGE, steps)
        insertion = by_hand(orders[curve.order], IMAGE, torch.zeros_like(IMAGE), steps)
        assert curve.deletion == pytest.approx(deletion, rel=BOUND)
        assert curve.insertion == pytest.approx(insertion, rel=BOUND)
        assert curve.deletion_area == pytest.approx(np.trapezoid(deletion, shares), rel=BOUND)
        assert curve.insertion_area == pytest.approx(np.trapezoid(insertion, shares), rel=BOUND)


def test_curves_of_a_contrast_are_of_its_own_score(runner: Runner) -> None:
    target = ClassesTarget(((CLASS, 1.0), (OTHER, -1.0)))
    _, scored = measured(runner, Gradient(), Curves(2), target)
    expected = logit(IMAGE) - logit(IMAGE, index=OTHER)
    for curve in scored.curves:
        assert curve.deletion[0] == curve.insertion[-1] == pytest.approx(expected, rel=BOUND)


# Comparisons.


def test_stability_under_noise(runner: Runner) -> None:
    method = Gradient()
    result, found = measured(runner, method, Stability(3, 0.05, seed=2))
    network, map_ = untouched(NAME), drawn(method, result.attribution)
    deviation = 0.05 * (IMAGE.max() - IMAGE.min())
    expected = []
    for step in range(3):
        noisy = IMAGE + deviation * draws.normal(2, step, tuple(IMAGE.shape))
        expected.append(spearman(map_, drawn(method, gradient(network, noisy))))
    assert all(0 < value < 0.999 for value in expected)
    assert found.values == pytest.approx(expected, abs=BOUND)


def test_stability_cuts_the_noisy_image_into_its_own_segments(runner: Runner) -> None:
    """What a method does on the host is done to the noisy image, too."""
    method = KernelShap("slic", 20, 40)
    result, found = measured(runner, method, Stability(1, 0.02, seed=2))
    deviation = 0.02 * (IMAGE.max() - IMAGE.min())
    noisy = IMAGE + deviation * draws.normal(2, 0, tuple(IMAGE.shape))
    other = runner.run(model(NAME, Precision.FLOAT64), method, noisy, TARGET).result
    assert not torch.equal(other.segments.labels, result.segments.labels)
    maps = [drawn(method, made.attribution) for made in (result, other)]
    assert found.values[0] == pytest.approx(spearman(*maps), abs=1e-6)


def test_a_stopped_map_is_compared_with_maps_of_as_many_rows(runner: Runner) -> None:
    method, measures = (
        Rise(mask_count=200),
        (Stability(1, 0.02, seed=2), Cascade(1), Agreement((Gradient(),))),
    )
    on = model(NAME, Precision.FLOAT64)
    asked = Explain(method, Until(row_count=20), measures)
    done = runner.run(on, asked, IMAGE, ClassTarget(CLASS, Score.PROBABILITY))
    assert sum(ride.own_row_count for ride in done.rides) == 20 + 20 + 20 + 1
    deviation = 0.02 * (IMAGE.max() - IMAGE.min())
    noisy = IMAGE + deviation * draws.normal(2, 0, tuple(IMAGE.shape))
    maps = [
        runner.run(on, Rise(mask_count=19), image, done.result.target).result.attribution[0]
        for image in (IMAGE, noisy)
    ]
    expected = spearman(*(map_.numpy() for map_ in maps))
    assert done.result.evidence["stability"].values[0] == pytest.approx(expected, abs=1e-6)


def permuted(*classes: int, seed: int) -> nn.Module:
    """The untouched network with those rows of its classifier permuted."""
    network = copy.deepcopy(untouched(NAME))
    for index in classes:
        order = draws.permutation(seed, index, network.fc.in_features)
        network.fc.weight.data[index] = network.fc.weight.data[index][order]
    return network


def expect_alike(found: Any, a: NDArray[Any], b: NDArray[Any]) -> None:
    expected, absolute = spearman(a, b), spearman(np.abs(a), np.abs(b))
    assert abs(expected) < 0.999
    assert (found.signed, found.absolute) == pytest.approx((expected, absolute), abs=BOUND)


def test_randomization_of_the_gradient(runner: Runner) -> None:
    method = Gradient()
    result, found = measured(runner, method, Randomization(seed=6))
    other = gradient(permuted(CLASS, seed=6), IMAGE)
    expect_alike(found, drawn(method, result.attribution), drawn(method, other))


def test_randomization_of_guided_backprop(runner: Runner) -> None:
    method = GuidedBackprop()
    result, found = measured(runner, method, Randomization(seed=6))
    other, _ = hooked_gradient(
        permuted(CLASS, seed=6), IMAGE, lambda logits: logits[0, CLASS], "guided_backprop"
    )
    expect_alike(found, drawn(method, result.attribution), drawn(method, other))


def test_randomization_of_a_contrast_permutes_both_rows(runner: Runner) -> None:
    method = InputXGradient()
    target = ClassesTarget(((CLASS, 1.0), (OTHER, -1.0)))
    result, found = measured(runner, method, Randomization(seed=1), target)
    network = permuted(CLASS, OTHER, seed=1)
    other = IMAGE * (gradient(network, IMAGE) - gradient(network, IMAGE, OTHER))
    expect_alike(found, drawn(method, result.attribution), drawn(method, other))


def test_randomization_of_probabilities(runner: Runner) -> None:
    """The other classes' rows stay as they are, and count."""
    method = Occlusion(48, 24, "mean")
    target = ClassTarget(CLASS, Score.PROBABILITY)
    result, found = measured(runner, method, Randomization(seed=6), target)
    network, side = permuted(CLASS, seed=6), IMAGE.shape[1]

    def probability(image: Tensor) -> float:
        with torch.no_grad():
            return float(network(image[None])[0].softmax(0)[CLASS])

    total, count = np.zeros((2, side, side))
    for top in range(0, side - 24, 24):
        for left in range(0, side - 24, 24):
            covered = IMAGE.clone()
            covered[:, top : top + 48, left : left + 48] = 0
            total[top : top + 48, left : left + 48] += probability(IMAGE) - probability(covered)
            count[top : top + 48, left : left + 48] += 1
    expect_alike(found, drawn(method, result.attribution), total / count)


def test_randomization_of_lrp_starts_from_the_permuted_row(runner: Runner) -> None:
    """Relevance enters below the classifier, as the permuted row times what it multiplies."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 20), nn.ReLU())
    network = nn.Sequential(*features, nn.Linear(20, 4)).double()
    on = own_model(network, side_px=6)
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    method = programs.Lrp("epsilon", 1e-9)
    result, found = measured(runner, method, Randomization(seed=5), ClassTarget(2), on, image)
    dense, last = network[1], network[3]
    z = dense.weight @ image.flatten() + dense.bias
    row = last.weight[2][draws.permutation(5, 2, 20)]
    # Epsilon's rule through one layer, by hand: R_i = x_i Σ_j w_ji R_j / z_j, R_j = relu(z_j) w_j.
    other = image.flatten() * (dense.weight.T @ (z.clamp_min(0) * row / z))
    expect_alike(
        found, drawn(method, result.attribution), drawn(method, other.detach().view(3, 6, 6))
    )


def own_model(network: nn.Module, side_px: int) -> Model:
    """A float64 model of a test's own network, which keeps its weights."""
    like = model(NAME, Precision.FLOAT64)
    served = Network(
        copy.deepcopy(network),
        height_px=side_px,
        width_px=side_px,
        dtype=torch.float64,
        device=CPU,
    )
    return Model(
        name="own",
        version="0",
        architecture="own",
        network=served,
        preprocessing=like.preprocessing,
        labels=("a", "b", "c", "d"),
        precision=Precision.FLOAT64,
        weights_sha256="0" * 64,
    )


def test_cascade_redraws_the_last_layers_first(runner: Runner) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 25, 12),
        nn.ReLU(),
        nn.Linear(12, 4),
    ).double()
    on = own_model(network, side_px=10)
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(3, 10, 10, generator=generator, dtype=torch.float64)
    method = Gradient()
    measure = Cascade(stage_count=2, seed=9)
    result, found = measured(runner, method, measure, ClassTarget(1), on, image)
    assert [(stage.layer, stage.layer_count) for stage in found.stages] == [("5", 2), ("0", 4)]
    for stage, redrawn in zip(found.stages, (("5", "7"), ("0", "2", "5", "7")), strict=True):
        twin = copy.deepcopy(network)
        for layer in redrawn:
            for part in ("weight", "bias"):
                parameter = getattr(twin[int(layer)], part).data
                normal = draws.named_normal(9, f"{layer}.{part}", tuple(parameter.shape))
                mean = parameter.mean()
                deviation = math.sqrt(float((parameter - mean).square().mean()))
                parameter.copy_(mean + deviation * normal)
        maps = [drawn(method, made) for made in (result.attribution, gradient(twin, image, 1))]
        expect_alike(stage.correlation, *maps)
    assert torch.equal(on.network.parameters_of("7")["7.weight"], network[7].weight)


def test_twins_are_drawn_off_the_engine_thread_and_laid_out_as_the_network_is(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by, twins = [], []
    like, redrawn = Network.like, Network.redrawn

    def made(network: Network, name: str, numbers: Tensor) -> Tensor:
        made_by.append(threading.current_thread().name)
        return like(network, name, numbers)

    def watched(network: Network, drawn: Any) -> Network:
        twins.append(redrawn(network, drawn))
        return twins[-1]

    monkeypatch.setattr(Network, "like", made)
    monkeypatch.setattr(Network, "redrawn", watched)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).double()
    image = torch.rand(3, 6, 6, dtype=torch.float64)
    measured(runner, Gradient(), Cascade(1), ClassTarget(1), own_model(network, side_px=6), image)
    assert len(made_by) == 4
    assert "engine" not in made_by
    weight = twins[0].parameters_of("0")["0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.requires_grad


def test_agreement_with_other_methods(runner: Runner) -> None:
    others = (GuidedBackprop(), GradCam("layer4.0"))
    method = Gradient()
    result, found = measured(runner, method, Agreement(others))
    map_, network = drawn(method, result.attribution), untouched(NAME)
    guided, _ = hooked_gradient(network, IMAGE, lambda logits: logits[0, CLASS], "guided_backprop")
    other = drawn(others[0], guided)
    count = round(0.05 * map_.size)
    tops = [set(np.argsort(-m.ravel(), kind="stable")[:count]) for m in (map_, other)]
    assert [alike.method for alike in found.methods] == ["guided_backprop", "grad_cam"]
    alike = found.methods[0]
    assert alike.correlation == pytest.approx(spearman(map_, other), abs=BOUND)
    assert alike.top_overlap == pytest.approx(len(tops[0] & tops[1]) / count, abs=BOUND)
    assert 0.05 < alike.top_overlap < 1


def test_overlap_of_random_maps_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 200, 200, generator=generator)
    assert top_overlap(a, a) == 1
    assert top_overlap(a, b) == pytest.approx(0.05, abs=0.02)


def test_evidence_changes_nothing_of_the_explanation(runner: Runner) -> None:
    on, method = model(NAME, Precision.FLOAT64), Rise(mask_count=20)
    measures = (Curves(3), Stability(1), Randomization(), Cascade(1))
    asked = Explain(method, measures=measures)
    plain, proven = (
        runner.run(on, which, IMAGE, TARGET, bucket_size=4).result for which in (method, asked)
    )
    assert torch.equal(plain.attribution, proven.attribution)
    assert set(proven.evidence) == {"curves", "stability", "randomization", "cascade"}
