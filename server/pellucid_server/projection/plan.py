"""What is to be made of codes, and what their number and their length allow."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..methods.parameters import Parameters, number, positive

USUAL_COMPONENTS = 50
USUAL_PERPLEXITY = 30.0
USUAL_PLACING_PERPLEXITY = 5.0
USUAL_NEIGHBORS = 15
LEAST_LEARNING_RATE = 200.0

LEAST_POINTS = 4
"""Three neighbours for a perplexity of 1, as t-SNE counts them; UMAP's start needs as many."""

MOST_NEIGHBORS = 20_000_000
"""Of all points together, three times the perplexity of each: about a gigabyte."""


@dataclass(frozen=True)
class TSne(Parameters):
    """See the contract's TSne; None: by the number of codes."""

    perplexity: float | None = number(lambda _: None, 1, 10_000, without=None)
    early_exaggeration: float = number(12.0, 1, 100)
    early_exaggeration_step_count: int = number(250, 0, 10_000)
    step_count: int = number(500, 1, 10_000)
    learning_rate: float | None = positive(lambda _: None, 1e6, without=None)

    name: ClassVar[str] = "t_sne"
    least_points: ClassVar[int] = LEAST_POINTS

    def filled(self, count: int) -> "TSne":
        """With what follows from the number of codes."""
        perplexity, rate = self.perplexity, self.learning_rate
        if perplexity is None:
            perplexity = min(USUAL_PERPLEXITY, most_perplexity(count))
        if rate is None:
            rate = max(LEAST_LEARNING_RATE, count / self.early_exaggeration)
        return replace(self, perplexity=perplexity, learning_rate=rate)

    def refusals(self, count: int, row_count: int) -> Mapping[str, str]:
        """Parameters that do not fit, and why.

        Args:
            count: Of the codes that a map is made of, or that one was.
            row_count: Codes that get neighbours among those.
        """
        return _too_perplexed(self.perplexity, count, row_count)


@dataclass(frozen=True)
class Placing(Parameters):
    """What of TSne matters where points are placed on a map."""

    perplexity: float | None = number(lambda _: None, 1, 10_000, without=None)

    name: ClassVar[str] = TSne.name
    least_points: ClassVar[int] = LEAST_POINTS

    def filled(self, count: int) -> "Placing":
        perplexity = self.perplexity
        if perplexity is None:
            perplexity = min(USUAL_PLACING_PERPLEXITY, most_perplexity(count))
        return replace(self, perplexity=perplexity)

    def refusals(self, count: int, row_count: int) -> Mapping[str, str]:
        return _too_perplexed(self.perplexity, count, row_count)


@dataclass(frozen=True)
class Umap(Parameters):
    """See the contract's Umap; None: by the number of codes."""

    neighbor_count: int | None = number(lambda _: None, 2, 200, without=None)
    min_distance: float = number(0.1, 0, 1)

    name: ClassVar[str] = "umap"
    least_points: ClassVar[int] = LEAST_POINTS

    def filled(self, count: int) -> "Umap":
        neighbors = self.neighbor_count
        return replace(self, neighbor_count=neighbors or min(USUAL_NEIGHBORS, count - 1))

    def refusals(self, count: int, row_count: int) -> Mapping[str, str]:
        if self.neighbor_count is None or self.neighbor_count < count:
            return {}
        why = f"is {self.neighbor_count}; must be 2 to {count - 1}, less than the points"
        return {"neighbor_count": why}


@dataclass(frozen=True)
class Pca(Parameters):
    """The two first principal components alone."""

    name: ClassVar[str] = "pca"
    least_points: ClassVar[int] = 2

    def filled(self, count: int) -> "Pca":
        return self

    def refusals(self, count: int, row_count: int) -> Mapping[str, str]:
        return {}


Method = TSne | Placing | Umap | Pca


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        component_count: What codes are reduced to first; 0: they are not; None: by what there is.
        metric: "euclidean", "manhattan", or "cosine": the Euclidean one of codes of length 1.
        grid: Whether points are assigned to a grid, too.
    """

    method: Method
    component_count: int | None = None
    metric: str = "euclidean"
    seed: int = 0
    grid: bool = False

    def filled(self, count: int, width: int) -> "Plan":
        """With what follows from so many codes of so many numbers."""
        components = self.component_count
        if components is None:
            components = min(USUAL_COMPONENTS, count, width)
        if isinstance(self.method, Pca):
            components = min(2, count, width)
        return replace(self, method=self.method.filled(count), component_count=components)

    @property
    def distance(self) -> str:
        """What codes are compared by, which are of length 1 already where that matters."""
        return "manhattan" if self.metric == "manhattan" else "euclidean"

    @property
    def random_state(self) -> int:
        """The seed, of 63 bits, as libraries take one, of 32."""
        return int(np.random.SeedSequence(self.seed).generate_state(1)[0])


def most_perplexity(count: int) -> float:
    """A third of the points less one: of so many neighbours the affinities are computed."""
    return (count - 1) / 3


def _too_perplexed(perplexity: float | None, count: int, row_count: int) -> Mapping[str, str]:
    of_points, of_memory = most_perplexity(count), MOST_NEIGHBORS / (3 * row_count)
    if perplexity is None or perplexity <= min(of_points, of_memory):
        return {}
    what = f"is {perplexity:g}; must be 1 to {min(of_points, of_memory):.4g}"
    if of_memory < of_points:
        return {"perplexity": f"{what}: {row_count} points have {MOST_NEIGHBORS} neighbours then"}
    return {"perplexity": f"{what}, a third of the points less one"}


@dataclass(frozen=True)
class Progress:
    """How far it is: see the contract's ProjectProgress."""

    stage: str
    step: int = 0
    step_count: int = 0
    divergence: float = 0.0
