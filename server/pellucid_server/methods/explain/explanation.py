"""What every explanation is, and what it results in."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import (
    ClassesTarget,
    ClassTarget,
    Lane,
    NeuronTarget,
    Program,
    Resolved,
    Score,
    Target,
    Traces,
)
from ...models.registry import Model
from ..parameters import Parameters

CHUNK_ROWS = 64
"""Rows that a wide method asks for at a time, so that memory stays flat."""


@dataclass(frozen=True)
class Segments:
    """Of methods that cut the image into segments.

    Attributes:
        labels: H×W, int64: the segment of each pixel, from 0.
        values: One for each segment.
        baseline_score: The score with all of them hidden.
    """

    labels: Tensor
    values: Tensor
    baseline_score: float


Window = tuple[slice, slice]
"""Rows and columns of pixels."""


@dataclass(frozen=True)
class Falls:
    """Of occlusion.

    Attributes:
        values: Down × across, float64: the fall of the score for every window.
        largest_fall: The window whose covering lowers the score most.
        largest_rise: The window whose covering raises the score most; None where none does.
    """

    values: Tensor
    largest_fall: Window
    largest_rise: Window | None


@dataclass(frozen=True)
class Explanation:
    """Why a target's score is what it is.

    Attributes:
        attribution: C×H×W in the network's input frame; C is 3, or 1 where a method does
            not tell channels apart.
        target: What was explained; never the top prediction, which is resolved.
        score: Its score for the image.
        falls: Of occlusion; None for others.
        segments: Of methods that cut the image into segments; None for others.
    """

    attribution: Tensor
    target: Resolved
    score: float
    falls: Falls | None = None
    segments: Segments | None = None


@dataclass(frozen=True)
class ExplainMethod(Parameters):
    """A method with its parameters. Its name is that of ExplainRequest's member.

    Attributes:
        color_scale: How it is drawn by default: signed where the sign tells for from against.
        score: What of a class it explains by default.
        logits_only: Whether it is defined for logits, and for no other score of a class.
        class_blind: Whether its map is the same for every target.
    """

    name: ClassVar[str]
    color_scale: ClassVar[Literal["signed", "absolute"]]
    priority: ClassVar[Priority] = Priority.EXPLAIN
    score: ClassVar[Score] = Score.LOGIT
    logits_only: ClassVar[bool] = False
    class_blind: ClassVar[bool] = False

    @staticmethod
    def refusal(model: Model) -> str | None:
        """Why the method does not apply to the model, if so."""
        return None

    @abstractmethod
    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        """How many rows it will ask for, by lane."""

    @abstractmethod
    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        """Its work on one image, 3×H×W, on the device."""


def resolved(target: Target, traces: Traces) -> Resolved:
    """The target itself, or the class that the first row's top prediction is."""
    if isinstance(target, (ClassTarget, ClassesTarget, NeuronTarget)):
        return target
    top = int(traces.classes[0])
    if target.against is None:
        return ClassTarget(top, target.score)
    return ClassesTarget(((top, 1.0), (target.against, -1.0)), target.score)


def chunks(count: int) -> Iterator[slice]:
    """0 to count, a chunk at a time."""
    for start in range(0, count, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, count))
