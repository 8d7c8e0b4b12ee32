"""Explanations by segments of an image that are seen or hidden: LIME and Kernel SHAP."""

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...engine.rows import Chore, Lane, Program, Rows, Score, Target
from ...models.registry import Model
from .. import draws
from ..parameters import Known, choice, nested, number, seed
from .baselines import Baseline
from .explanation import ExplainMethod, Explanation, Segments, chunks, resolved

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

    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    def contradictions(self, model: Model) -> Mapping[str, str]:
        samples: int = vars(self)["sample_count"]
        if samples >= self.segment_count:
            return {}
        return {
            "sample_count": f"is {samples}; must be at least segment_count, {self.segment_count}"
        }

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 2 + vars(self)["sample_count"]}

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

    def scores(
        self,
        image: Tensor,
        baseline: Tensor,
        labels: Tensor,
        seen: Tensor,
        target: Target,
    ) -> Program[Tensor]:
        """The score with some segments seen and the others as the baseline has them.

        Args:
            image: 3×H×W.
            baseline: 3×H×W: what hides.
            labels: H×W: the segment of each pixel.
            seen: n×segments, bool, on the host.
            target: Whose score.

        Returns:
            n, float64, on the host.
        """
        scores = torch.empty(len(seen), dtype=torch.float64)
        for chunk in chunks(len(seen)):
            masks = seen[chunk].to(image.device)[:, labels][:, None]
            traces = yield Rows(torch.where(masks, image, baseline), target)
            scores[chunk] = traces.scores
        return scores


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
    baseline: Baseline = nested(Baseline, fill="mean")
    seed: int = seed()

    name: ClassVar[str] = "lime"
    score: ClassVar[Score] = Score.PROBABILITY

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        labels = yield from self.labels(model, image)
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        baseline = self.baseline.image(model, image)
        traces = yield Rows(baseline[None], target)
        baseline_score = float(traces.scores[0])
        count = int(labels.max()) + 1
        seen = draws.uniform(self.seed, 0, (self.sample_count, count)) < 0.5
        seen[0] = True
        scores = yield from self.scores(image, baseline, labels, seen, target)
        values = yield Chore(lambda _: self._fit(seen.double(), scores))
        attribution = values.to(labels.device)[labels][None]
        segments = Segments(labels, values, baseline_score)
        return Explanation(attribution, target, score, segments=segments)

    def _fit(self, seen: Tensor, scores: Tensor) -> Tensor:
        cosine = seen.mean(1).sqrt()
        weights = torch.exp(-(((1 - cosine) / self.kernel_width) ** 2))
        share = (weights / weights.sum())[:, None]
        rows = weights.sqrt()[:, None] * (seen - (share * seen).sum(0))
        values = weights.sqrt() * (scores - (share[:, 0] * scores).sum())
        penalty = math.sqrt(self.ridge) * torch.eye(seen.shape[1], dtype=torch.float64)
        system = torch.cat([rows, penalty])
        sought = torch.cat([values, torch.zeros(seen.shape[1], dtype=torch.float64)])
        return _least_squares(system, sought)


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

    sample_count: int = number(1000, 2, 20_000)
    baseline: Baseline = nested(Baseline, fill="mean")
    seed: int = seed()

    name: ClassVar[str] = "kernel_shap"

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        labels = yield from self.labels(model, image)
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        baseline = self.baseline.image(model, image)
        traces = yield Rows(baseline[None], target)
        baseline_score = float(traces.scores[0])
        seen, weights = yield Chore(lambda _: self._coalitions(int(labels.max()) + 1))
        scores = yield from self.scores(image, baseline, labels, seen, target)
        values = yield Chore(
            lambda _: _shapley(
                seen.double(), weights, scores - baseline_score, score - baseline_score
            )
        )
        attribution = values.to(labels.device)[labels][None]
        segments = Segments(labels, values, baseline_score)
        return Explanation(attribution, target, score, segments=segments)

    def _coalitions(self, count: int) -> tuple[Tensor, Tensor]:
        """Which segments are seen, n×count, bool; and the weight of each coalition."""
        if 2**count - 2 <= self.sample_count:
            every = list(itertools.product((False, True), repeat=count))[1:-1]
            seen = torch.tensor(every, dtype=torch.bool).view(-1, count)
            weights = [_kernel(count, sum(coalition)) for coalition in every]
            return seen, torch.tensor(weights, dtype=torch.float64)
        sizes = torch.arange(1, count, dtype=torch.float64)
        reach = ((count - 1) / (sizes * (count - sizes))).cumsum(0)
        seen = torch.zeros(self.sample_count, count, dtype=torch.bool)
        drawn = draws.uniform(self.seed, 0, (self.sample_count,)) * reach[-1]
        for row in range(0, self.sample_count, 2):
            size = 1 + int(torch.searchsorted(reach, drawn[row], right=True))
            seen[row, draws.permutation(self.seed, 1 + row, count)[:size]] = True
            if row + 1 < self.sample_count:
                seen[row + 1] = ~seen[row]
        return seen, torch.ones(self.sample_count, dtype=torch.float64)


def _kernel(count: int, size: int) -> float:
    """How much one coalition of that size weighs."""
    return (count - 1) / (math.comb(count, size) * size * (count - size))


def _shapley(seen: Tensor, weights: Tensor, gains: Tensor, total: float) -> Tensor:
    """Values that fit the gains of coalitions best, among those that sum to the total."""
    last = seen[:, -1]
    root = weights.sqrt()
    values = _least_squares(
        root[:, None] * (seen[:, :-1] - last[:, None]), root * (gains - last * total)
    )
    return torch.cat([values, (total - values.sum())[None]])


def _least_squares(system: Tensor, sought: Tensor) -> Tensor:
    """The shortest of the best solutions."""
    return torch.from_numpy(np.linalg.lstsq(system.numpy(), sought.numpy(), rcond=None)[0])


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
