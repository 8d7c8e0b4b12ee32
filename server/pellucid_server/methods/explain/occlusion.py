"""Occlusion: what covering each part of an image does to a score."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import Lane, Program, Rows, Target
from ...models.registry import Model
from .explanation import Explanation, resolved

_CHUNK_ROWS = 64
"""Rows asked for at a time, so that memory stays flat."""

Fill = Literal["black", "white", "mean", "blur"]


@dataclass(frozen=True)
class Occlusion:
    """How far the score falls when a window is covered, for every place of the window.

    Zeiler and Fergus 2013, arXiv:1311.2901. The attribution of a pixel is the mean fall
    over the windows that cover it; negative where covering raises the score.

    Attributes:
        window_px: Side of the square window, in pixels of the network's input.
        stride_px: Distance between windows; those that cross the edge are cut off there.
        fill: What covers: black (0), white (255), the preprocessing's mean, or the image
            blurred.
        blur_sigma_px: Standard deviation of the blur's Gaussian.
    """

    window_px: int
    stride_px: int
    fill: Fill
    blur_sigma_px: float

    name: ClassVar[str] = "occlusion"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    @staticmethod
    def refusal(model: Model) -> str | None:
        return None

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
        cover = self._cover(model, image)
        traces = yield Rows(image[None], target)
        target = resolved(target, traces)
        score = traces.scores[0]
        falls = torch.empty(down * across, dtype=torch.float64)
        for start in range(0, len(windows), _CHUNK_ROWS):
            chunk = windows[start : start + _CHUNK_ROWS]
            covered = image.repeat(len(chunk), 1, 1, 1)
            for row, (ys, xs) in zip(covered, chunk, strict=True):
                row[:, ys, xs] = cover[:, ys, xs]
            traces = yield Rows(covered, target)
            falls[start : start + len(chunk)] = score - traces.scores
        total = torch.zeros(height_px, width_px, dtype=torch.float64)
        count = torch.zeros_like(total)
        for fall, (ys, xs) in zip(falls, windows, strict=True):
            total[ys, xs] += fall
            count[ys, xs] += 1
        attribution = (total / count)[None]
        return Explanation(attribution, target, float(score), falls.view(down, across))

    def _grid(self, height_px: int, width_px: int) -> tuple[int, int]:
        """How many windows there are, down and across."""
        down, across = (
            1 + math.ceil(max(side_px - self.window_px, 0) / self.stride_px)
            for side_px in (height_px, width_px)
        )
        return down, across

    def _cover(self, model: Model, image: Tensor) -> Tensor:
        """What shows where a window covers: 3×H×W in the network's input frame."""
        if self.fill == "blur":
            return gaussian_blur(image, self.blur_sigma_px)
        mean, std = (
            torch.tensor(numbers, dtype=torch.float64)
            for numbers in (model.preprocessing.mean, model.preprocessing.std)
        )
        grey = {"black": torch.zeros(3), "white": torch.ones(3), "mean": mean}[self.fill]
        return ((grey - mean) / std).to(image)[:, None, None].expand_as(image)


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """An image C×H×W blurred by a Gaussian cut off at 3 sigma; edges are repeated."""
    radius = math.ceil(3 * sigma_px)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(image)
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    down = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    return F.conv2d(down, kernel.view(1, 1, 1, -1))[:, 0]
