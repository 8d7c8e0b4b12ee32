"""Explanations by segments of an image that are seen or hidden: LIME and Kernel SHAP."""

import functools
import hashlib
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...engine.rows import Chore, Lane, Program, Rows, Score, Target
from ...models.registry import Model
from .. import draws
from ..parameters import Known, choice, nested, number, seed
from .baselines import Baseline
from .explanation import (
    LEAST_SAMPLES,
    Estimate,
    ExplainMethod,
    Explanation,
    Partial,
    Sampling,
    Segments,
    chunks,
    drawn_estimate,
    resolved,
    widening,
)

_SLIC_COMPACTNESS = 10.0


def _pixel_count(known: Known) -> int | None:
    if known.model is None:
        return None
    return min(1000, known.model.network.height_px * known.model.network.width_px)


@dataclass(frozen=True)
class _Segmented(ExplainMethod):
    """What methods over segments have in common."""

    segmentation: str = choice("slic")
    segment_count: int = number(50, 2, _pixel_count)
    sample_count: int = number(1000, 2, 20_000)
    baseline: Baseline = nested(Baseline, fill="mean")
    seed: int = seed()

    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    anytime: ClassVar[bool] = True

    def contradictions(self, model: Model) -> Mapping[str, str]:
        if self.sample_count >= self.segment_count:
            return {}
        least = f"must be at least segment_count, {self.segment_count}"
        return {"sample_count": f"is {self.sample_count}; {least}"}

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 2 + self.sample_count}

    def byte_count(self, model: Model) -> int:
        """What is solved and three of its size, float64."""
        return 4 * 8 * self.sample_count * self.segment_count

    def labels(self, model: Model, image: Tensor) -> Program[Tensor]:
        """The segment of each pixel, H×W, int64, from 0 without gaps, on the device."""
        digest = yield Chore(lambda host: hashlib.sha256(host.numpy().tobytes()).hexdigest())
        key = ("segments", self.segmentation, self.segment_count, digest)
        cached = model.network.cache.get(key)
        if cached is not None:
            return cached
        cut = {"grid": _cut_grid, "slic": _cut_slic}[self.segmentation]
        labels = yield Chore(lambda host: cut(model, host, self.segment_count))
        return model.network.cache.put(key, labels.to(image.device))

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        labels = yield from self.labels(model, image)
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        baseline = self.baseline.image(model, image)
        traces = yield Rows(baseline[None], target)
        baseline_score = float(traces.scores[0])
        on_host, count = labels.cpu(), int(labels.max()) + 1
        sampling, draw = self.coalitions(count)
        seen = torch.empty(sampling.count, count, dtype=torch.bool)
        scores = torch.empty(sampling.count, dtype=torch.float64)

        def draw_all(steps: range, _host: Tensor) -> None:
            for step in steps:
                seen[step] = draw(step)

        @functools.lru_cache(1)
        def estimate(done: int) -> Estimate:
            values, standard_error = self.fit(seen[:done], scores[:done], score, baseline_score)

            def made() -> Explanation:
                segments = Segments(on_host, values, baseline_score)
                return Explanation(values[on_host][None], target, score, segments=segments)

            return drawn_estimate(made, values, standard_error)

        for steps in sampling:
            yield Chore(functools.partial(draw_all, steps))
            for chunk in chunks(len(steps)):
                rows = slice(steps.start + chunk.start, steps.start + chunk.stop)
                masks = seen[rows].to(image.device)[:, labels][:, None]
                traces = yield Rows(torch.where(masks, image, baseline), target)
                scores[rows] = traces.scores
            value = functools.partial(estimate, steps.stop)
            if (yield Partial(value, sampling.over, on_host=True)):
                break
        final: Estimate = yield Chore(lambda _: estimate(sampling.done))
        return final.make()

    @abstractmethod
    def coalitions(self, count: int) -> tuple[Sampling, Callable[[int], Tensor]]:
        """The samples, and which of so many segments each of them sees: bool, on the host."""

    @abstractmethod
    def fit(
        self, seen: Tensor, scores: Tensor, score: float, baseline_score: float
    ) -> tuple[Tensor, Tensor]:
        """The value of each segment, and its standard error; float64.

        Args:
            seen: n×segments, bool.
            scores: n, float64.
            score: With all segments seen.
            baseline_score: With none.
        """

    def least_rows(self, model: Model) -> int:
        return 2 + min(_first(self.segment_count), self.sample_count)

    def within(self, row_count: int) -> Self:
        return replace(self, sample_count=min(self.sample_count, row_count - 2))


def _first(segment_count: int) -> int:
    """Samples of the first estimate: six, or three pairs, for each segment.

    Of fewer, what is drawn is too uneven for errors that can be believed: see the tests.
    """
    return max(LEAST_SAMPLES, 6 * segment_count)


@dataclass(frozen=True)
class Lime(_Segmented):
    """The weights of a linear model of the score by which segments are seen.

    Ribeiro, Singh and Guestrin 2016, arXiv:1602.04938: ridge regression with an intercept,
    samples weighted by exp(-d² / kernel_width²), d being the cosine distance from the whole
    image.

    Attributes:
        segmentation: grid or slic.
        segment_count: Segments; there may be fewer.
        sample_count: Images with segments hidden, each segment with probability 1/2.
        kernel_width: Of the kernel.
        ridge: The penalty on squared weights.
        baseline: What hides segments.
        seed: Of the samples.
    """

    sample_count: int = number(500, 2, 20_000)
    kernel_width: float = number(0.25, 0.01, 100.0)
    ridge: float = number(1.0, 0.0, 1000.0)

    name: ClassVar[str] = "lime"
    looks_inside: ClassVar[bool] = False
    score: ClassVar[Score] = Score.PROBABILITY

    def coalitions(self, count: int) -> tuple[Sampling, Callable[[int], Tensor]]:
        def draw(step: int) -> Tensor:
            if step == 0:
                return torch.ones(count, dtype=torch.bool)
            return draws.uniform(self.seed, step, (count,)) < 0.5

        return Sampling(self.sample_count, _first(self.segment_count), growth=0.25), draw

    def fit(
        self, seen: Tensor, scores: Tensor, score: float, baseline_score: float
    ) -> tuple[Tensor, Tensor]:
        known = seen.double()
        weights = torch.exp(-(((1 - known.mean(1).sqrt()) / self.kernel_width) ** 2))
        root = weights.sqrt()
        centred = known - weights @ known / weights.sum()
        system = root[:, None] * torch.cat([torch.ones_like(centred[:, :1]), centred], 1)
        penalty = torch.full((system.shape[1],), self.ridge, dtype=torch.float64)
        penalty[0] = 0.0
        count = float(weights.sum().square() / weights.square().sum())
        values, covariance = _least_squares(system, root * scores, penalty, count)
        return values[1:], covariance.diagonal()[1:].sqrt()


@dataclass(frozen=True)
class KernelShap(_Segmented):
    """The Shapley values of segments, by weighted least squares over coalitions.

    Lundberg and Lee 2017, arXiv:1705.07874; coalitions in pairs with their complements
    (Covert and Lee 2021, arXiv:2012.01536). Exact where all coalitions fit into the samples.

    Attributes:
        segmentation: grid or slic.
        segment_count: Segments; there may be fewer.
        sample_count: Coalitions.
        baseline: What hides segments.
        seed: Of the samples.
    """

    name: ClassVar[str] = "kernel_shap"
    looks_inside: ClassVar[bool] = False
    additive: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 2 + min(self.sample_count, (1 << self.segment_count) - 2)}

    def first_rows(self, model: Model) -> int:
        """Of as many segments as have coalitions that all fit, all of them are the first part."""
        fitting = max(n for n in range(2, self.segment_count + 1) if _all_fit(n, self.sample_count))
        return max(self.least_rows(model), 1 << fitting)

    def coalitions(self, count: int) -> tuple[Sampling, Callable[[int], Tensor]]:
        if _all_fit(count, self.sample_count):
            every = list(itertools.product((False, True), repeat=count))[1:-1]
            return Sampling(len(every), len(every)), lambda step: torch.tensor(every[step])
        sizes = torch.arange(1, count, dtype=torch.float64)
        reach = ((count - 1) / (sizes * (count - sizes))).cumsum(0)

        def draw(step: int) -> Tensor:
            pair = step - step % 2
            drawn = float(draws.uniform(self.seed, pair, (1,))) * reach[-1]
            size = 1 + int(torch.searchsorted(reach, drawn, right=True))
            seen = torch.zeros(count, dtype=torch.bool)
            seen[draws.permutation(self.seed, 1 + pair, count)[:size]] = True
            return seen if step == pair else ~seen

        return Sampling(self.sample_count, _first(self.segment_count), growth=0.25), draw

    def references(self, model: Model, image: Tensor, steps: range) -> Tensor:
        return self.baseline.image(model, image)[None]

    def fit(
        self, seen: Tensor, scores: Tensor, score: float, baseline_score: float
    ) -> tuple[Tensor, Tensor]:
        """Values that fit the gains of coalitions best, among those that sum to the total."""
        count, total = seen.shape[1], score - baseline_score
        known, last = seen[:, :-1].double(), seen[:, -1].double()
        system, gains = known - last[:, None], scores - baseline_score - last * total
        exact = _all_fit(count, self.sample_count)
        if exact:
            weights = [_kernel(count, size) for size in seen.sum(1).tolist()]
            root = torch.tensor(weights, dtype=torch.float64).sqrt()
            system, gains = root[:, None] * system, root * gains
        else:
            system, gains = _paired(system), _paired(gains)
        penalty = torch.zeros(count - 1, dtype=torch.float64)
        values, covariance = _least_squares(system, gains, penalty, len(system))
        values = torch.cat([values, (total - values.sum())[None]])
        variances = torch.cat([covariance.diagonal(), covariance.sum()[None]])
        return values, torch.zeros_like(values) if exact else variances.clamp_min(0).sqrt()


def _paired(samples: Tensor) -> Tensor:
    """One for each pair, whose second is the opposite of its first but for what does not fit.

    A pair is one draw: its own two samples do not tell how much draws differ. A first one without
    its second stays.
    """
    whole = len(samples) // 2 * 2
    pairs = (samples[:whole:2] - samples[1:whole:2]) / math.sqrt(2)
    return torch.cat([pairs, samples[whole:]])


def _all_fit(count: int, samples: int) -> bool:
    """Whether all coalitions of so many segments fit into the samples."""
    return (1 << count) - 2 <= samples


def _kernel(count: int, size: int) -> float:
    """How much one coalition of that size weighs."""
    return (count - 1) / (math.comb(count, size) * size * (count - size))


def _least_squares(
    system: Tensor, sought: Tensor, penalty: Tensor, count: float
) -> tuple[Tensor, Tensor]:
    """The shortest of the best solutions, and the covariance of its errors.

    It is that of the sandwich that needs no equal variances, residuals being divided by one less
    their leverage (HC3: MacKinnon and White 1985, doi:10.1016/0304-4076(85)90158-7), widened for
    few samples, with what the penalty still holds back; infinite where there are fewer than two
    samples for each value, or they tell no more than there are values.

    Args:
        system: n×values.
        sought: n.
        penalty: On each squared value.
        count: How many equally heavy samples tell as much.
    """
    gram, moved = system.T @ system, system.T @ sought
    inverse = torch.linalg.pinv(gram + penalty.diag(), hermitian=True)
    values = inverse @ moved
    if len(system) < 2 * len(values) or count <= len(values):
        return values, torch.full_like(gram, math.inf)
    leverage = ((system @ inverse) * system).sum(1)
    left = (sought - system @ values) / (1 - leverage).clamp_min(1e-6)
    spread = left[:, None] * system @ inverse * widening(count - len(values))
    held = values - torch.linalg.pinv(gram, hermitian=True) @ moved
    return values, spread.T @ spread + held.outer(held)


def _cut_grid(_model: Model, image: Tensor, count: int) -> Tensor:
    """Rectangles, about as many down as across, at most count and close to it."""
    height_px, width_px = image.shape[1:]
    down = max(1, min(height_px, round(math.sqrt(count * height_px / width_px))))
    across = max(1, min(width_px, count // down))
    ys = torch.arange(height_px) * down // height_px
    xs = torch.arange(width_px) * across // width_px
    return ys[:, None] * across + xs


def _cut_slic(model: Model, image: Tensor, count: int) -> Tensor:
    """SLIC superpixels, in CIELAB (Achanta and others 2012, doi:10.1109/TPAMI.2012.120)."""
    from skimage.segmentation import slic

    photo = model.preprocessing.unnormalize(image.numpy())
    labels = slic(photo, n_segments=count, compactness=_SLIC_COMPACTNESS, start_label=0)
    _, without_gaps = np.unique(labels, return_inverse=True)
    return torch.from_numpy(without_gaps.reshape(labels.shape).astype(np.int64))
