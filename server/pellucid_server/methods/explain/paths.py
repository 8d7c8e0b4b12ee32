"""Gradients at many images near one, or on the way to it."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...engine.rows import Chore, Lane, Program, Resolved, Rows, Target, Want
from ...models.registry import Model
from .. import draws
from ..parameters import Known, choice, inputs, nested, number, seed
from .baselines import Baseline
from .explanation import (
    LEAST_SAMPLES,
    Estimate,
    ExplainMethod,
    Explanation,
    Moments,
    Partial,
    Sampling,
    chunks,
    drawn_estimate,
    references,
    resolved,
    summed_estimate,
    widening,
)


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes between 0 and 1, and weights that sum to 1; float64."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def trapezoid(count: int) -> tuple[Tensor, Tensor]:
    """Nodes from 0 to 1, both included, and weights that sum to 1; float64."""
    weights = torch.full((count,), 1 / (count - 1), dtype=torch.float64)
    weights[0] = weights[-1] = 0.5 / (count - 1)
    return torch.linspace(0, 1, count, dtype=torch.float64), weights


_QUADRATURES = {"gauss_legendre": gauss_legendre, "trapezoid": trapezoid}


ADAPTIVE = "adaptive"
_FIRST_NODES = 9
_DEFAULT_NODES, _MOST_ADAPTIVE_NODES = 50, 300
_MOST_HALVED = 16
"""Panels halved at once: what fills a batch, and is still chosen by what the last ones showed."""


def _default_nodes(known: Known) -> int:
    return _MOST_ADAPTIVE_NODES if known.values["quadrature"] == ADAPTIVE else _DEFAULT_NODES


@dataclass(frozen=True)
class IntegratedGradients(ExplainMethod):
    """The gradient integrated from a baseline to the image, times their difference.

    Sundararajan, Taly and Yan 2017, arXiv:1703.01365.

    Attributes:
        quadrature: How gradients are placed and weighted: gauss_legendre, trapezoid or adaptive.
        step_count: Gradients on the path; of adaptive, at most so many.
        baseline: Where the path starts.
    """

    quadrature: str = choice("gauss_legendre")
    step_count: int = number(_default_nodes, 2, 1000, without=_DEFAULT_NODES)
    baseline: Baseline = nested(Baseline, fill="black")

    name: ClassVar[str] = "integrated_gradients"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    anytime: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def contradictions(self, model: Model) -> Mapping[str, str]:
        if self.quadrature != ADAPTIVE or self.step_count >= _FIRST_NODES:
            return {}
        least = f"must be at least {_FIRST_NODES} with QUADRATURE_ADAPTIVE"
        return {"step_count": f"is {self.step_count}; {least}"}

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.step_count}

    def byte_count(self, model: Model) -> int:
        if self.quadrature != ADAPTIVE:
            return 0
        network = model.network
        return self.step_count * 3 * network.height_px * network.width_px * network.dtype.itemsize

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        baseline = self.baseline.image(model, image)
        if self.quadrature == ADAPTIVE:
            return (yield from self._adaptive(image, baseline, target, score))
        nodes, weights = (
            numbers.to(image.device)[:, None, None, None]
            for numbers in _QUADRATURES[self.quadrature](self.step_count)
        )
        total = torch.zeros_like(image, dtype=torch.float64)
        for chunk in chunks(self.step_count):
            path = baseline + nodes[chunk].to(image) * (image - baseline)
            traces = yield Rows(path, target, Want.GRADIENT)
            assert traces.gradient is not None
            total += (weights[chunk] * traces.gradient).sum(0)
        return Explanation(total * (image - baseline), target, score)

    def _adaptive(
        self, image: Tensor, baseline: Tensor, target: Resolved, score: float
    ) -> Program[Explanation]:
        """Trapezoids; those that miss the score's change across them most are halved.

        What is reached last is the result: an earlier residual may be smaller, errors of its
        panels having cancelled by chance, but its map is further from the integral.
        """
        path = _Path(image - baseline)
        places = torch.linspace(0, 1, _FIRST_NODES, dtype=torch.float64).tolist()

        def made() -> Explanation:
            return Explanation(path.attribution(), target, score)

        def estimate() -> Estimate:
            return summed_estimate(made, path.residual, path.change)

        while places:
            steps = torch.tensor(places, dtype=torch.float64).to(image)[:, None, None, None]
            traces = yield Rows(baseline + steps * path.difference, target, Want.GRADIENT)
            assert traces.gradient is not None
            path.add(places, traces.scores.tolist(), traces.gradient)

            places = path.next_places(self.step_count - len(path))
            if (yield Partial(estimate, not places)):
                break
        return made()

    @property
    def tolerance(self) -> float | None:
        return 0.01 if self.quadrature == ADAPTIVE else None

    def why_endless(self) -> str | None:
        if self.quadrature == ADAPTIVE:
            return None
        return "with a fixed step_count all its rows are needed; QUADRATURE_ADAPTIVE can be stopped"

    def least_rows(self, model: Model) -> int:
        return 1 + _FIRST_NODES

    def within(self, row_count: int) -> Self:
        return replace(self, step_count=min(self.step_count, row_count - 1))

    def references(self, model: Model, image: Tensor, steps: range) -> Tensor:
        return self.baseline.image(model, image)[None]


@dataclass
class _Node:
    """A place on a path: its score, and its gradient, whole and along the path."""

    score: float
    slope: float
    gradient: Tensor


class _Path:
    """Gradients at some places of a straight path, and the trapezoids between them.

    Args:
        difference: 3×H×W: from its start to its end.
    """

    def __init__(self, difference: Tensor) -> None:
        self.difference = difference
        self._nodes: dict[float, _Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, places: Sequence[float], scores: Sequence[float], gradients: Tensor) -> None:
        along = gradients.double().flatten(1) @ self.difference.double().flatten()
        for place, *node in zip(places, scores, along.tolist(), gradients, strict=True):
            assert place not in self._nodes
            self._nodes[place] = _Node(*node)
        self._nodes = dict(sorted(self._nodes.items()))

    @property
    def change(self) -> float:
        """Of the score, from the start to the end."""
        return self._nodes[1.0].score - self._nodes[0.0].score

    @property
    def residual(self) -> float:
        """By how much the attributions' sum misses the change."""
        return sum(missed for _, missed in self._panels())

    def attribution(self) -> Tensor:
        """3×H×W, float64."""
        places = list(self._nodes)
        total = torch.zeros_like(self.difference, dtype=torch.float64)
        for before, place, after in zip([0.0, *places], places, [*places[1:], 1.0], strict=False):
            total += (after - before) / 2 * self._nodes[place].gradient
        return total * self.difference

    def next_places(self, most: int) -> list[float]:
        """The middles of the panels that together miss half of all that is missed, or more.

        Not of those that miss nothing, or whose ends are neighbours in the network's precision.
        """
        panels = [
            (middle, own) for middle, own in self._panels() if own and middle not in self._nodes
        ]
        panels.sort(key=lambda panel: -abs(panel[1]))
        missed = sum(abs(missed) for _, missed in panels)
        chosen: list[float] = []
        for middle, own in panels[: min(most, _MOST_HALVED)]:
            chosen.append(middle)
            missed -= 2 * abs(own)
            if missed <= 0:
                break
        return chosen

    def _panels(self) -> list[tuple[float, float]]:
        """The middle of each panel, and what its trapezoid misses of the score's change."""
        places = torch.tensor(list(self._nodes), dtype=torch.float64)
        middles = ((places[:-1] + places[1:]) / 2).to(self.difference.dtype).tolist()
        return [
            (middle, (b - a) / 2 * (from_.slope + to.slope) - (to.score - from_.score))
            for middle, ((a, from_), (b, to)) in zip(
                middles, itertools.pairwise(self._nodes.items()), strict=True
            )
        ]


@dataclass(frozen=True)
class SmoothGrad(ExplainMethod):
    """A statistic of the gradients of noisy copies of the image.

    Their mean (Smilkov and others 2017, arXiv:1706.03825), the mean of their squares
    (Hooker and others 2018, arXiv:1806.10758) or their variance (Adebayo and others 2018,
    arXiv:1810.03307).

    Attributes:
        sample_count: Noisy copies.
        noise_level: Standard deviation of the noise, as a share of the input's range.
        statistic: mean, mean_square or variance.
        seed: Of the noise.
    """

    sample_count: int = number(50, 2, 1000)
    noise_level: float = number(0.15, 0.001, 1.0)
    statistic: str = choice("mean")
    seed: int = seed()

    name: ClassVar[str] = "smooth_grad"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "absolute"
    anytime: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.sample_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        deviation = self.noise_level * (image.max() - image.min())
        gradients = Moments(image, order=2 if self.statistic == "mean" else 4)

        def estimate() -> Estimate:
            value, standard_error = _statistic(self.statistic, gradients)
            return drawn_estimate(lambda: Explanation(value, target, score), value, standard_error)

        sampling = Sampling(self.sample_count)
        for steps in sampling:
            noise: Tensor = yield Chore(functools.partial(self._noise, steps))
            noisy = image + deviation * noise.to(image)
            traces = yield Rows(noisy, target, Want.GRADIENT)
            assert traces.gradient is not None
            gradients.add(traces.gradient)

            if (yield Partial(estimate, sampling.over)):
                break
        return estimate().make()

    def _noise(self, steps: range, host: Tensor) -> Tensor:
        return torch.stack([draws.normal(self.seed, step, tuple(host.shape)) for step in steps])

    def least_rows(self, model: Model) -> int:
        return 1 + min(LEAST_SAMPLES, self.sample_count)

    def within(self, row_count: int) -> Self:
        return replace(self, sample_count=min(self.sample_count, row_count - 1))


def _statistic(name: str, of: Moments) -> tuple[Tensor, Tensor]:
    """A statistic of samples, and its standard error.

    Squares are so uneven that they tell about as much as a quarter as many: see the tests. Of
    fewer than four, nothing.
    """
    if name == "mean":
        return of.mean, of.standard_error
    first, second, third, fourth = (of.raw(order) for order in (1, 2, 3, 4))
    if name == "mean_square":
        value, spread = second, fourth - second.square()
    else:
        value = (second - first.square()).clamp_min(0)
        central = fourth - 4 * first * third + 6 * first.square() * second - 3 * first.pow(4)
        spread = central - value.square()
    if of.count < 4:
        return value, torch.full_like(value, math.inf)
    error = (spread.clamp_min(0) / (of.count - 1)).sqrt() * of.count / (of.count - 2)
    return value, error * widening((of.count - 1) / 4)


@dataclass(frozen=True, eq=False)
class Baselines(Baseline):
    """Baselines to draw from: noise anew each time, or one of several tensors."""

    tensor: Tensor | None = inputs(several=True)


@dataclass(frozen=True)
class ExpectedGradients(ExplainMethod):
    """Gradients at random places on the paths from random baselines, times their lengths.

    Expected gradients (Erion and others 2019, arXiv:1906.10670), which GradientSHAP (Lundberg
    and Lee 2017, arXiv:1705.07874) is, but for its noise on the image.

    Attributes:
        sample_count: Random places.
        baseline: Where paths start.
        seed: Of places and of which baseline is drawn.
    """

    sample_count: int = number(50, 2, 1000)
    baseline: Baselines = nested(Baselines, fill="noise")
    seed: int = seed()

    name: ClassVar[str] = "expected_gradients"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    anytime: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.sample_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        gains = Moments(image)

        def made() -> Explanation:
            return Explanation(gains.mean, target, score)

        def estimate() -> Estimate:
            return drawn_estimate(made, gains.mean, gains.standard_error)

        sampling = Sampling(self.sample_count)
        for steps in sampling:
            baselines = yield from references(self, model, image, steps)
            drawn = [float(draws.uniform(self.seed, step, (2,))[0]) for step in steps]
            places = torch.tensor(drawn, dtype=torch.float64).to(image)[:, None, None, None]
            traces = yield Rows(baselines + places * (image - baselines), target, Want.GRADIENT)
            assert traces.gradient is not None
            gains.add((image - baselines) * traces.gradient.double())

            if (yield Partial(estimate, sampling.over)):
                break
        return made()

    def _which(self, step: int) -> int:
        tensor = self.baseline.tensor
        if tensor is None:
            return step
        count = len(tensor) if tensor.dim() == 4 else 1
        return int(draws.uniform(self.seed, step, (2,))[1] * count)

    def least_rows(self, model: Model) -> int:
        return 1 + min(LEAST_SAMPLES, self.sample_count)

    def within(self, row_count: int) -> Self:
        return replace(self, sample_count=min(self.sample_count, row_count - 1))

    @property
    def reference_count(self) -> int:
        return self.sample_count

    def references(self, model: Model, image: Tensor, steps: range) -> Tensor:
        return torch.stack([self.baseline.image(model, image, self._which(step)) for step in steps])
