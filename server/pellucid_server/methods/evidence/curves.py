"""How a score changes as pixels are taken away, or brought in, by the map's ranks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.rows import ClassTarget, Lane, Program, Rows, Score, Target
from ...models.registry import Model
from .. import draws
from ..explain.baselines import blur_sigma_px, filled
from ..explain.explanation import ExplainMethod, chunks
from ..parameters import Known, choice, number, seed
from .measure import Measure, Subject


def _pixels(known: Known) -> int | None:
    return None if known.model is None else known.model.network.pixel_count


@dataclass(frozen=True)
class Curve:
    """The scores of one order of pixels, after each step.

    Attributes:
        order: map, random or center.
    """

    order: str
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_area: float
    insertion_area: float


@dataclass(frozen=True)
class Scored:
    """The share of pixels after each step, and what the scores were then."""

    shares: tuple[float, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Curves(Measure):
    """Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv:1806.07421).

    With the same by a random order and from the centre outwards, as yardsticks.

    Attributes:
        step_count: Steps of as many pixels each.
        deletion_fill: What deleted pixels become.
        insertion_fill: What inserted pixels are put onto.
        blur_sigma_px: Standard deviation of the blur's Gaussian.
        seed: Of the random order, and of noise.
    """

    step_count: int = number(20, 2, _pixels)
    deletion_fill: str = choice("mean")
    insertion_fill: str = choice("blur")
    blur_sigma_px: float = blur_sigma_px()
    seed: int = seed()

    name: ClassVar[str] = "curves"

    def irrelevant(self) -> Mapping[str, str]:
        if "blur" in (self.deletion_fill, self.insertion_fill):
            return {}
        return {"blur_sigma_px": "allowed with FILL_BLUR only"}

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 3 + 3 * 2 * (self.step_count - 1)}

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Scored]:
        target = subject.explanation.target
        if isinstance(target, ClassTarget):
            target = replace(target, score=Score.PROBABILITY)
        deleted, empty = (
            filled(fill, model, image, self.blur_sigma_px, self.seed)
            for fill in (self.deletion_fill, self.insertion_fill)
        )
        traces = yield Rows(torch.stack([image, deleted, empty]), target)
        whole, none_left, none_there = traces.scores.tolist()
        pixel_count = image[0].numel()
        ends = [step * pixel_count // self.step_count for step in range(self.step_count + 1)]
        shares = tuple(end / pixel_count for end in ends)
        curves = []
        for order, ranks in self._orders(subject.importance):
            scores = []
            for chunk in chunks(2 * len(ends[1:-1])):
                images = []
                for place in range(chunk.start, chunk.stop):
                    which, step = divmod(place, len(ends[1:-1]))
                    reached = (ranks < ends[1 + step]).to(image.device)
                    over, under = ((deleted, image), (image, empty))[which]
                    images.append(torch.where(reached, over, under))
                traces = yield Rows(torch.stack(images), target)
                scores += traces.scores.tolist()
            half = len(ends[1:-1])
            deletion = (whole, *scores[:half], none_left)
            insertion = (none_there, *scores[half:], whole)
            areas = [area(scored, shares) for scored in (deletion, insertion)]
            curves.append(Curve(order, deletion, insertion, *areas))
        return Scored(shares, tuple(curves))

    def _orders(self, importance: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each order as the rank of every pixel, H×W, from 0."""
        height_px, width_px = importance.shape
        count = importance.numel()
        yield "map", _ranked(-importance)
        yield "random", draws.permutation(self.seed, 0, count).view(height_px, width_px)
        ys = torch.arange(height_px, dtype=torch.float64)[:, None] - (height_px - 1) / 2
        xs = torch.arange(width_px, dtype=torch.float64) - (width_px - 1) / 2
        yield "center", _ranked(ys.square() + xs.square())


def _ranked(values: Tensor) -> Tensor:
    """The rank of every value, lowest first; of equal ones, in their order."""
    order = values.flatten().argsort(stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks.view(values.shape)


def area(scores: tuple[float, ...], shares: tuple[float, ...]) -> float:
    """Under the scores over the shares, by trapezoids."""
    heights, places = (torch.tensor(n, dtype=torch.float64) for n in (scores, shares))
    return float(torch.trapezoid(heights, places))
