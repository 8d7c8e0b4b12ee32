"""What every explanation is, and what it results in."""

import enum
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import (
    Chore,
    ClassesTarget,
    ClassTarget,
    Event,
    Lane,
    Program,
    Resolved,
    Score,
    Target,
    TopTarget,
    Traces,
)
from ...models.registry import Model
from ..parameters import Parameters

CHUNK_ROWS = 64
"""Rows that a wide method asks for at a time, so that memory stays flat."""


LEAST_SAMPLES = 8
"""What the first estimate is made of."""


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


class Stop(enum.Enum):
    """Why no more rows were run; see the contract's StopReason."""

    COMPLETE = "complete"
    TOLERANCE = "tolerance"
    ROW_COUNT = "row_count"
    TIME = "time"
    RUNNING = "running"


@dataclass(frozen=True)
class Convergence:
    """How far an explanation came; see the contract's Convergence."""

    stop: Stop
    row_count: int
    error: float
    standard_error: Tensor | None
    residual: float | None


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
        convergence: How far it came, of methods that are made of many rows, if it was asked for.
        evidence: What was measured of it, by the measure's name.
        row_count: Rows that were run for it, those of evidence not counted; 0 where nobody counted.
    """

    attribution: Tensor
    target: Resolved
    score: float
    falls: Falls | None = None
    segments: Segments | None = None
    convergence: Convergence | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    row_count: int = 0


@dataclass(frozen=True)
class ExplainMethod(Parameters):
    """A method with its parameters. Its name is that of ExplainRequest's member.

    Attributes:
        color_scale: How it is drawn by default: signed where the sign tells for from against.
        score: What of a class it explains by default.
        logits_only: Whether it is defined for logits, and for no other score of a class.
        class_blind: Whether its map is the same for every target.
        looks_inside: Whether it needs more of a network than its logits.
        anytime: Whether it is made of many rows, coarse to fine, and can be stopped.
        additive: Whether its attributions sum to something known: see expected_sum.
    """

    name: ClassVar[str]
    color_scale: ClassVar[Literal["signed", "absolute"]]
    priority: ClassVar[Priority] = Priority.EXPLAIN
    score: ClassVar[Score] = Score.LOGIT
    logits_only: ClassVar[bool] = False
    class_blind: ClassVar[bool] = False
    looks_inside: ClassVar[bool] = True
    anytime: ClassVar[bool] = False
    additive: ClassVar[bool] = False

    @staticmethod
    def refusal(model: Model) -> str | None:
        """Why the method does not apply to the model's network, if so."""
        return None

    @classmethod
    def why_not(cls, model: Model) -> str | None:
        """Why the method does not apply to the model, if so."""
        opaque = model.network.white_box_refusal if cls.looks_inside else None
        return opaque or cls.refusal(model)

    @abstractmethod
    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        """How many rows it will ask for, by lane."""

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return math.inf

    def byte_count(self, model: Model) -> int:
        """Bytes that it holds besides a few images."""
        return 0

    @abstractmethod
    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        """Its work on one image, 3×H×W, on the device.

        The first row that it asks for is the image itself, for the target: that resolves the top
        prediction, and a prediction that the explanation is attached to rides in it.
        """

    # Of those that can be stopped.

    @property
    def tolerance(self) -> float | None:
        """The error that it stops at where a request names none; None: it does not."""
        return None

    def why_endless(self) -> str | None:
        """Why it cannot be stopped as its parameters are, if so."""
        return None if self.anytime else "all its rows are needed"

    def least_rows(self, model: Model) -> int:
        """Rows that its first estimate takes at least."""
        raise NotImplementedError

    def first_rows(self, model: Model) -> int:
        """Rows that its first estimate takes at most, whatever the image."""
        return self.least_rows(model)

    def within(self, row_count: int) -> Self:
        """The same method with no more rows than that, at least least_rows."""
        raise NotImplementedError

    # Of those that sum to something known.

    @property
    def reference_count(self) -> int:
        """How many references there are; where there are none, attributions are counted from 0."""
        return 1

    def references(self, model: Model, image: Tensor, steps: range) -> Tensor:
        """Some of the images, n×3×H×W, whose mean score is what attributions are counted from."""
        raise NotImplementedError


def references(method: ExplainMethod, model: Model, image: Tensor, steps: range) -> Program[Tensor]:
    """Some of a method's references, n×3×H×W, made on the host: noise takes its time."""
    made: Tensor = yield Chore(lambda host: method.references(model, host.to(image.dtype), steps))
    return made.to(image)


def resolved(target: Target, traces: Traces) -> Resolved:
    """The target itself, or the class that the first row's top prediction is."""
    return of_top(target, int(traces.classes[0])) if isinstance(target, TopTarget) else target


def of_top(target: TopTarget, top: int) -> ClassTarget | ClassesTarget:
    """The target where the top prediction is known."""
    if target.against is None:
        return ClassTarget(top, target.score)
    return ClassesTarget(((top, 1.0), (target.against, -1.0)), target.score)


def chunks(count: int) -> Iterator[slice]:
    """0 to count, a chunk at a time."""
    for start in range(0, count, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, count))


# Explanations that are made coarse to fine.


@dataclass(frozen=True)
class Estimate:
    """An explanation as far as it is made.

    Attributes:
        make: Makes the explanation; before the method goes on.
        standard_error: Of each element of the attribution, or of each segment's value; None
            where nothing is drawn.
        residual: By how much the attributions' sum misses the score's change, where it is known.
        error: See the contract's Until.tolerance.
    """

    make: Callable[[], Explanation]
    standard_error: Tensor | None
    residual: float | None
    error: float


@dataclass(frozen=True)
class Partial(Event):
    """What a method yields after every part of its rows; it gets whether to stop.

    Attributes:
        value: Makes the estimate, if somebody looks.
        last: Whether there is nothing left to stop.
        on_host: Whether it takes long, and touches the host only.
    """

    value: Callable[[], Estimate]
    last: bool
    on_host: bool = False


def drawn_estimate(
    make: Callable[[], Explanation], values: Tensor, standard_error: Tensor
) -> Estimate:
    """An estimate by draws; values are what the standard errors are of."""
    error = _ratio(float(standard_error.norm()), float(values.double().norm()))
    return Estimate(make, standard_error, None, error)


def summed_estimate(make: Callable[[], Explanation], residual: float, change: float) -> Estimate:
    """An estimate whose sum is known to miss the score's change by the residual."""
    return Estimate(make, None, residual, _ratio(abs(residual), abs(change)))


def _ratio(part: float, whole: float) -> float:
    if whole > 0:
        return part / whole
    return math.inf if part > 0 else 0.0


class Sampling:
    """0 to count in parts that grow to CHUNK_ROWS, or end where they are told to.

    Where parts end does not depend on the count: what is summed part by part has the same bits
    when it is stopped.

    Args:
        count: Of all samples.
        first: The least number of samples that an estimate is made of.
        ends: Where else parts end.
        growth: The share of what is done that parts grow to if it is more, where an estimate
            costs as much as all that is done.
    """

    def __init__(
        self,
        count: int,
        first: int = LEAST_SAMPLES,
        ends: Sequence[int] = (),
        growth: float = 0.0,
    ) -> None:
        self.count = count
        self._ends = ends or _growing(first, growth)
        self.done = 0

    def __iter__(self) -> Iterator[range]:
        for end in itertools.chain(self._ends, [self.count]):
            steps = range(self.done, min(end, self.count))
            self.done = steps.stop
            yield steps
            if self.over:
                return

    @property
    def over(self) -> bool:
        """Whether no part is left."""
        return self.done == self.count


def _growing(first: int, growth: float) -> Iterator[int]:
    end = first
    while True:
        yield end
        end += min(end, max(CHUNK_ROWS, int(growth * end)))


class Moments:
    """The mean of equally distributed tensors, and what is known of its error.

    Args:
        like: Of the shape of one of them.
        order: The highest power that is summed, 2 or 4.
    """

    def __init__(self, like: Tensor, order: int = 2) -> None:
        self.count = 0
        self._sums = [torch.zeros_like(like, dtype=torch.float64) for _ in range(order)]

    def add(self, samples: Tensor) -> None:
        """Takes n of them, n×…."""
        self.count += len(samples)
        samples = samples.double()
        power = samples
        for total in self._sums:
            total += power.sum(0)
            power = power * samples

    def raw(self, order: int) -> Tensor:
        """The mean of a power of them."""
        return self._sums[order - 1] / self.count

    @property
    def mean(self) -> Tensor:
        return self.raw(1)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean."""
        variance = (self.raw(2) - self.mean.square()).clamp_min(0)
        return (variance / (self.count - 1)).sqrt() * widening(self.count - 1)


def widening(freedom: Tensor | float) -> Tensor:
    """What standard errors of few degrees of freedom are multiplied by.

    Student's quantile over the normal's, at 97.5%, so that 1.96 of them are a 95% interval, too.
    Less than one degree counts as one.
    """
    freedom = torch.as_tensor(freedom, dtype=torch.float64).clamp_min(1)
    return torch.from_numpy(np.asarray(stdtrit(freedom.numpy(), 0.975) / stdtrit(np.inf, 0.975)))
