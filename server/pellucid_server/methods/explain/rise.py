"""RISE: what random masks show of an image, and what its score is then."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Score, Target
from ...models.registry import Model
from .. import draws
from ..parameters import number, seed
from .explanation import (
    LEAST_SAMPLES,
    Estimate,
    ExplainMethod,
    Explanation,
    Moments,
    Partial,
    Sampling,
    drawn_estimate,
    resolved,
)


@dataclass(frozen=True)
class Rise(ExplainMethod):
    """How far the score of masked images is above its mean where a pixel is seen.

    Petsiuk, Das and Saenko 2018, arXiv:1806.07421: the mean of random masks, weighted by the
    score of the image seen through them. Less the mean score, so that 0 says nothing; what
    ranks above what is the same. What a mask hides is of the mean colour.

    Attributes:
        mask_count: Masks.
        cell_count: Cells along each side of the coarse grid that masks are enlarged from.
        keep_probability: The probability that a cell is seen.
        seed: Of the masks.
    """

    mask_count: int = number(1000, 2, 20_000)
    cell_count: int = number(7, 2, 32)
    keep_probability: float = number(0.5, 0.01, 0.99)
    seed: int = seed()

    name: ClassVar[str] = "rise"
    looks_inside: ClassVar[bool] = False
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    score: ClassVar[Score] = Score.PROBABILITY
    anytime: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1 + self.mask_count}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), float(traces.scores[0])
        gains = Moments(image[:1])

        def made() -> Explanation:
            return Explanation(gains.mean, target, score)

        def estimate() -> Estimate:
            return drawn_estimate(made, gains.mean, gains.standard_error)

        sampling = Sampling(self.mask_count)
        for steps in sampling:
            masks = self.masks(model, image, steps)
            traces = yield Rows(image * masks.to(image), target)
            scores = traces.scores.to(image.device)[:, None, None, None]
            gains.add(scores * (masks / self.keep_probability - 1))

            if (yield Partial(estimate, sampling.over)):
                break
        return made()

    def least_rows(self, model: Model) -> int:
        return 1 + min(LEAST_SAMPLES, self.mask_count)

    def within(self, row_count: int) -> Self:
        return replace(self, mask_count=min(self.mask_count, row_count - 1))

    def masks(self, model: Model, image: Tensor, steps: range) -> Tensor:
        """The masks of some steps, n×1×H×W, from 0 (hidden) to 1, float64.

        A grid of cells, each seen or not, is enlarged to one cell more than the image and
        cropped at a random place within a cell.
        """
        height_px, width_px = image.shape[1:]
        cells = self.cell_count
        cell_y, cell_x = math.ceil(height_px / cells), math.ceil(width_px / cells)
        drawn = self._drawn(model, image, steps)
        seen = (drawn[:, 2:] < self.keep_probability).double().view(-1, 1, cells, cells)
        size = ((cells + 1) * cell_y, (cells + 1) * cell_x)
        large = F.interpolate(seen, size, mode="bilinear", align_corners=False)
        top, left = (drawn[:, :1] * cell_y).long(), (drawn[:, 1:2] * cell_x).long()
        ys = top + torch.arange(height_px, device=image.device)
        xs = left + torch.arange(width_px, device=image.device)
        rows = torch.arange(len(large), device=image.device)[:, None, None]
        return large[rows, 0, ys[:, :, None], xs[:, None, :]][:, None]

    def _drawn(self, model: Model, image: Tensor, steps: range) -> Tensor:
        """Random numbers of each step: for the place of the crop, then for every cell."""
        key = ("rise", self.seed, self.cell_count, steps)
        cached = model.network.cache.get(key)
        if cached is not None:
            return cached
        shape = (2 + self.cell_count**2,)
        drawn = torch.stack([draws.uniform(self.seed, step, shape) for step in steps])
        return model.network.cache.put(key, drawn.to(image.device))
