"""Occlusion: what covering each part of an image does to a score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target
from ...models.registry import Model
from .. import draws
from ..parameters import Known, choice, number, seed
from .baselines import blur_sigma_px, filled, irrelevant_to_fill
from .explanation import (
    CHUNK_ROWS,
    LEAST_SAMPLES,
    Estimate,
    ExplainMethod,
    Explanation,
    Falls,
    Partial,
    Sampling,
    Window,
    drawn_estimate,
    resolved,
    widening,
)

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


def _places(side_px: int, window_px: int, stride_px: int) -> int:
    """How many places a window has along a side."""
    return 1 + math.ceil(max(side_px - window_px, 0) / stride_px)


def _all_windows(known: Known) -> int | None:
    window_px, stride_px = known.values["window_px"], known.values["stride_px"]
    if known.model is None or not window_px or not stride_px:
        return None
    network = known.model.network
    sides = (network.height_px, network.width_px)
    return math.prod(_places(side_px, window_px, stride_px) for side_px in sides)


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
        seed: Of the noise, and of the windows' order.
        window_count: Windows that are tried, coarse to fine; by default all.
    """

    window_px: int = number(_window_px, 1, _shorter_px)
    stride_px: int = number(_stride_px, 1, _most_stride_px)
    fill: str = choice("mean")
    blur_sigma_px: float = blur_sigma_px()
    seed: int = seed()
    window_count: int | None = number(_all_windows, 1, _all_windows, without=None)

    name: ClassVar[str] = "occlusion"
    looks_inside: ClassVar[bool] = False
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    anytime: ClassVar[bool] = True

    def irrelevant(self) -> Mapping[str, str]:
        return irrelevant_to_fill(self.fill)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        down, across = self._grid(model.network.height_px, model.network.width_px)
        return {Lane.FORWARD: 1 + self._count(down, across)}

    def window(self, index: int, height_px: int, width_px: int) -> tuple[slice, slice]:
        """The rows and columns of pixels that window number index covers."""
        across = _places(width_px, self.window_px, self.stride_px)
        top, left = (place * self.stride_px for place in divmod(index, across))
        return (
            slice(top, min(top + self.window_px, height_px)),
            slice(left, min(left + self.window_px, width_px)),
        )

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        height_px, width_px = image.shape[1:]
        down, across = self._grid(height_px, width_px)
        windows = [self.window(i, height_px, width_px) for i in range(down * across)]
        order, ends = self._order(down, across)
        cover = filled(self.fill, model, image, self.blur_sigma_px, self.seed)
        traces = yield Rows(image[None], target)
        target, score = resolved(target, traces), traces.scores[0]
        falls = torch.zeros(down * across, dtype=torch.float64)
        tried = torch.zeros_like(falls)

        def estimate() -> Estimate:
            grid, known = (of.view(down, across).clone() for of in (falls, tried))
            attribution, standard_error = self._spread(grid, known, height_px, width_px)

            def made() -> Explanation:
                found = self._found(grid, known, windows)
                return Explanation(attribution, target, float(score), found)

            return drawn_estimate(made, attribution, standard_error)

        sampling = Sampling(self._count(down, across), ends=ends)
        for steps in sampling:
            chosen = [order[step] for step in steps]
            covered = image.repeat(len(chosen), 1, 1, 1)
            for row, place in zip(covered, chosen, strict=True):
                ys, xs = windows[place]
                row[:, ys, xs] = cover[:, ys, xs]
            traces = yield Rows(covered, target)
            falls[chosen] = score - traces.scores
            tried[chosen] = 1
            if (yield Partial(estimate, sampling.over)):
                break
        return estimate().make()

    def least_rows(self, model: Model) -> int:
        down, across = self._grid(model.network.height_px, model.network.width_px)
        return 1 + min([*self._order(down, across)[1], self._count(down, across)])

    def within(self, row_count: int) -> Self:
        most = row_count - 1
        return replace(self, window_count=min(self.window_count or most, most))

    def _grid(self, height_px: int, width_px: int) -> tuple[int, int]:
        """How many windows there are, down and across."""
        down, across = (
            _places(side_px, self.window_px, self.stride_px) for side_px in (height_px, width_px)
        )
        return down, across

    def _count(self, down: int, across: int) -> int:
        """How many windows are tried."""
        return min(down * across, self.window_count or down * across)

    def _order(self, down: int, across: int) -> tuple[list[int], list[int]]:
        """The windows coarse to fine, and where parts of them end.

        Windows that lie next to each other without overlapping much form a phase: it covers the
        image about once. Phases come at random, so the windows that a pixel has been covered by
        are a random sample of all that cover it.
        """
        apart = math.ceil(self.window_px / self.stride_px)
        order: list[int] = []
        ends: list[int] = []
        for step, phase in enumerate(draws.permutation(self.seed, 1, apart**2).tolist()):
            top, left = divmod(phase, apart)
            places = [
                y * across + x for y in range(top, down, apart) for x in range(left, across, apart)
            ]
            mixed = draws.permutation(self.seed, 2 + step, len(places)).tolist()
            ends += [*range(len(order) + CHUNK_ROWS, len(order) + len(places), CHUNK_ROWS)]
            order += [places[place] for place in mixed]
            ends.append(len(order))
        return order, [end for end in sorted(set(ends)) if end >= LEAST_SAMPLES]

    def _spread(
        self, falls: Tensor, tried: Tensor, height_px: int, width_px: int
    ) -> tuple[Tensor, Tensor]:
        """The mean fall over the windows that cover each pixel, and its standard error; 1×H×W.

        Errors of few windows are widened, so that 1.96 of them are a 95% interval, too.

        Args:
            falls: Down × across; 0 where a window has not been tried.
            tried: Down × across, 0 or 1.
            height_px: Of the image.
            width_px: Of the image.
        """
        down, across = (
            self._covering(side_px, places)
            for side_px, places in zip((height_px, width_px), falls.shape, strict=True)
        )

        def total(of: Tensor) -> Tensor:
            return down.T @ of @ across

        count, every = total(tried), total(torch.ones_like(tried))
        mean_of_all = falls.sum() / tried.sum()
        mean = torch.where(count > 0, total(falls) / count, mean_of_all)
        if bool((count == every).all()):
            return mean[None], torch.zeros_like(mean)[None]
        squares = (total(falls.square()) - count * mean.square()).clamp_min(0)
        # Of one window nothing is known but how much windows differ everywhere, and of none not
        # even where it would be among them.
        others = ((falls - mean_of_all).square() * tried).sum()
        freedom = torch.where(count > 1, count, tried.sum()) - 1
        variance = torch.where(count > 1, squares, others) / freedom
        variance = torch.where(freedom > 0, variance, math.inf)
        left = torch.where(count > 0, (1 - count / every) / count, 1 + 1 / tried.sum())
        error = torch.where(left > 0, (left * variance).sqrt() * widening(freedom), 0.0)
        return mean[None], error[None]

    def _found(self, falls: Tensor, tried: Tensor, windows: Sequence[Window]) -> Falls:
        """The falls, and the windows of the largest and of the smallest; untried ones are NaN."""
        known = tried.bool()
        highest = falls.masked_fill(~known, -math.inf).flatten()
        lowest = falls.masked_fill(~known, math.inf).flatten()
        rise = windows[int(lowest.argmin())] if float(lowest.min()) < 0 else None
        return Falls(falls.masked_fill(~known, math.nan), windows[int(highest.argmax())], rise)

    def _covering(self, side_px: int, places: int) -> Tensor:
        """Whether a window at each place covers each pixel of a line: places × pixels, 0 or 1."""
        start = self.stride_px * torch.arange(places)[:, None]
        pixels = torch.arange(side_px)
        return ((pixels >= start) & (pixels < start + self.window_px)).double()
