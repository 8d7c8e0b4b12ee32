"""Occlusion: what covering each part of an image does to a score."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target
from ...models.registry import Model
from ..parameters import Known, choice, number, seed
from .baselines import blur_sigma_px, filled, irrelevant_to_fill
from .explanation import ExplainMethod, Explanation, Falls, chunks, resolved

_WINDOWS_A_SIDE = 7


def _shorter_px(known: Known) -> int | None:
    if known.model is None:
        return None
    return min(known.model.network.height_px, known.model.network.width_px)


def _window_px(known: Known) -> int | None:
    shorter_px = _shorter_px(known)
    return None if shorter_px is None else max(1, shorter_px // _WINDOWS_A_SIDE)


def _stride_px(known: Known) -> int | None:
    window_px = known.values["window_px"]
    return None if window_px is None else max(1, window_px // 2)


def _most_stride_px(known: Known) -> int | None:
    window_px = known.values["window_px"]
    return None if window_px is None else max(1, window_px)


@dataclass(frozen=True)
class Occlusion(ExplainMethod):
    """How far the score falls when a window is covered, for every place of the window.

    Zeiler and Fergus 2013, arXiv:1311.2901. The attribution of a pixel is the mean fall
    over the windows that cover it; negative where covering raises the score.

    Attributes:
        window_px: Side of the square window, in pixels of the network's input; by default a
            seventh of its shorter side.
        stride_px: Distance between windows; those that cross the edge are cut off there.
        fill: What covers: black, white, mean, blur or noise, see Baseline.
        blur_sigma_px: Standard deviation of the blur's Gaussian.
        seed: Of the noise.
    """

    window_px: int = number(_window_px, 1, _shorter_px)
    stride_px: int = number(_stride_px, 1, _most_stride_px)
    fill: str = choice("mean")
    blur_sigma_px: float = blur_sigma_px()
    seed: int = seed()

    name: ClassVar[str] = "occlusion"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    def irrelevant(self) -> Mapping[str, str]:
        return irrelevant_to_fill(self.fill)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        down, across = self._grid(model.network.height_px, model.network.width_px)
        return {Lane.FORWARD: 1 + down * across}

    def window(self, index: int, height_px: int, width_px: int) -> tuple[slice, slice]:
        """The rows and columns of pixels that window number index covers."""
        _, across = self._grid(height_px, width_px)
        top, left = (place * self.stride_px for place in divmod(index, across))
        return (
            slice(top, min(top + self.window_px, height_px)),
            slice(left, min(left + self.window_px, width_px)),
        )

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        height_px, width_px = image.shape[1:]
        down, across = self._grid(height_px, width_px)
        windows = [self.window(i, height_px, width_px) for i in range(down * across)]
        cover = filled(self.fill, model, image, self.blur_sigma_px, self.seed)
        traces = yield Rows(image[None], target)
        target = resolved(target, traces)
        score = traces.scores[0]
        falls = torch.empty(down * across, dtype=torch.float64)
        for chunk in chunks(len(windows)):
            covered = image.repeat(len(windows[chunk]), 1, 1, 1)
            for row, (ys, xs) in zip(covered, windows[chunk], strict=True):
                row[:, ys, xs] = cover[:, ys, xs]
            traces = yield Rows(covered, target)
            falls[chunk] = score - traces.scores
        grid = falls.view(down, across)
        down_cover, across_cover = (
            self._covering(side_px, places)
            for side_px, places in ((height_px, down), (width_px, across))
        )
        total = down_cover.T @ grid @ across_cover
        count = down_cover.sum(0)[:, None] * across_cover.sum(0)
        attribution = (total / count)[None]
        largest_rise = windows[int(falls.argmin())] if float(falls.min()) < 0 else None
        found = Falls(grid, windows[int(falls.argmax())], largest_rise)
        return Explanation(attribution, target, float(score), found)

    def _grid(self, height_px: int, width_px: int) -> tuple[int, int]:
        """How many windows there are, down and across."""
        down, across = (
            1 + math.ceil(max(side_px - self.window_px, 0) / self.stride_px)
            for side_px in (height_px, width_px)
        )
        return down, across

    def _covering(self, side_px: int, places: int) -> Tensor:
        """Whether a window at each place covers each pixel of a line: places × pixels, 0 or 1."""
        start = self.stride_px * torch.arange(places)[:, None]
        pixels = torch.arange(side_px)
        return ((pixels >= start) & (pixels < start + self.window_px)).double()
