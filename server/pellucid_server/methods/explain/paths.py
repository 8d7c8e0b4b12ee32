"""Gradients at many images near one, or on the way to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target, Want
from ...models.registry import Model
from .. import draws
from ..parameters import choice, inputs, nested, number, seed
from .baselines import Baseline
from .explanation import ExplainMethod, Explanation, chunks, resolved


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


@dataclass(frozen=True)
class IntegratedGradients(ExplainMethod):
    """The gradient integrated from a baseline to the image, times their difference.

    Sundararajan, Taly and Yan 2017, arXiv:1703.01365.

    Attributes:
        step_count: Gradients on the path.
        quadrature: How they are placed and weighted: gauss_legendre or trapezoid.
        baseline: Where the path starts.
    """

    step_count: int = number(50, 2, 1000)
    quadrature: str = choice("gauss_legendre")
    baseline: Baseline = nested(Baseline, fill="black")

    name: ClassVar[str] = "integrated_gradients"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.step_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        baseline = self.baseline.image(model, image)
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

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.sample_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        deviation = self.noise_level * (image.max() - image.min())
        total, squares = (torch.zeros_like(image, dtype=torch.float64) for _ in range(2))
        for chunk in chunks(self.sample_count):
            steps = range(self.sample_count)[chunk]
            noise = torch.stack([draws.normal(self.seed, s, tuple(image.shape)) for s in steps])
            noisy = image + deviation * noise.to(image)
            traces = yield Rows(noisy, target, Want.GRADIENT)
            assert traces.gradient is not None
            gradients = traces.gradient.double()
            total += gradients.sum(0)
            squares += gradients.square().sum(0)
        mean, mean_square = total / self.sample_count, squares / self.sample_count
        variance = (mean_square - mean.square()).clamp_min(0)
        statistic = {"mean": mean, "mean_square": mean_square, "variance": variance}
        return Explanation(statistic[self.statistic], target, score)


@dataclass(frozen=True, eq=False)
class Baselines(Baseline):
    """Baselines to draw from: noise anew each time, or one of several tensors."""

    tensor: Tensor | None = inputs(several=True)


@dataclass(frozen=True)
class ExpectedGradients(ExplainMethod):
    """Gradients at random places on the paths from random baselines, times their lengths.

    Expected gradients (Erion and others 2019, arXiv:1906.10670), which GradientSHAP (Lundberg
    and Lee 2017, arXiv:1705.07874) is without its extra noise. Places are stratified: one in
    each of sample_count equal parts of the path.

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

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1, Lane.GRADIENT: self.sample_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        count = self.sample_count
        jitter = draws.uniform(self.seed, 0, (count,))
        places = ((torch.arange(count) + jitter) / count).to(image)[:, None, None, None]
        drawn = draws.permutation(self.seed, 1, count).tolist()
        total = torch.zeros_like(image, dtype=torch.float64)
        for chunk in chunks(count):
            baselines = torch.stack(
                [self.baseline.image(model, image, step) for step in drawn[chunk]]
            )
            traces = yield Rows(
                baselines + places[chunk] * (image - baselines), target, Want.GRADIENT
            )
            assert traces.gradient is not None
            total += ((image - baselines) * traces.gradient.double()).sum(0)
        return Explanation(total / count, target, score)
