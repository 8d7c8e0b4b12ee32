"""What every measure of an explanation is."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...engine.rows import Chore, Lane, Program, Rows, Target
from ...models.registry import Model
from ..explain.explanation import ExplainMethod, Explanation, Partial
from ..parameters import Parameters


@dataclass(frozen=True)
class Subject:
    """What is measured: an explanation, and the method that made it, with the rows that it ran."""

    method: ExplainMethod
    explanation: Explanation

    @property
    def importance(self) -> Tensor:
        return importance(self.method, self.explanation)


@dataclass(frozen=True)
class Measure(Parameters):
    """A measure with its parameters. Its name is that of Evidence's member.

    Attributes:
        looks_inside: Whether it needs more of a network than its logits.
    """

    name: ClassVar[str]
    looks_inside: ClassVar[bool] = False

    @staticmethod
    def refusal(model: Model) -> str | None:
        """Why explanations of the model's network cannot have it, if so."""
        return None

    @classmethod
    def why_not(cls, model: Model) -> str | None:
        """Why explanations of the model cannot have it, if so."""
        opaque = model.network.white_box_refusal if cls.looks_inside else None
        return opaque or cls.refusal(model)

    @staticmethod
    def method_refusal(method: type[ExplainMethod]) -> str | None:
        """Why explanations by that method cannot have it, if so."""
        return None

    @staticmethod
    def target_refusal(target: Target) -> str | None:
        """Why explanations of that target cannot have it, if so."""
        return None

    @abstractmethod
    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        """How many rows it will ask for, by lane."""

    def byte_count(self, model: Model) -> int:
        """Bytes that it holds besides a few images."""
        return 0

    @abstractmethod
    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Any]:
        """Its work on an explanation of one image, 3×H×W, on the device."""


def importance(method: ExplainMethod, explanation: Explanation) -> Tensor:
    """One value a pixel, H×W, float64, as it is drawn: see ColorScale."""
    attribution = explanation.attribution.double()
    if method.color_scale == "signed":
        return attribution.sum(0)
    return attribution.abs().amax(0)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, -1 to 1: Pearson's of the ranks, equal values sharing the mean of theirs.

    0 where one of them is constant.
    """
    first, second = (_ranks(values.flatten()) for values in (a, b))
    first, second = first - first.mean(), second - second.mean()
    scale = float(first.norm() * second.norm())
    return float(first @ second) / scale if scale > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends: Tensor = counts.cumsum(0).double() - (counts - 1) / 2
    return ends[place]


def elsewhere(
    program: Program[Explanation], *, other: Model | None = None, host: Tensor | None = None
) -> Program[Explanation]:
    """A method's work with another model, or with another input on the host; never stopped.

    Args:
        program: What the method does.
        other: The model that its rows go through.
        host: 3×H×W: what its chores get instead of the request's input.
    """
    answer = None
    while True:
        try:
            wanted = program.send(answer)
        except StopIteration as ended:
            explanation: Explanation = ended.value
            return explanation
        match wanted:
            case Partial():
                answer = None
            case Rows():
                answer = yield replace(wanted, model=other)
            case Chore() if host is not None:
                answer = yield Chore(_given(wanted.do, host))
            case _:
                answer = yield wanted


def _given(do: Callable[[Tensor], Any], host: Tensor) -> Callable[[Tensor], Any]:
    return lambda _: do(host)
