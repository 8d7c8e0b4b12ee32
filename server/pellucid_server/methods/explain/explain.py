"""An explanation as it is asked for: when it may stop, whether it is watched, what is measured."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import Chore, Event, Lane, Program, Rows, Target
from ...models.registry import Model
from ..evidence.measure import Measure, Subject
from .explanation import Convergence, Estimate, ExplainMethod, Explanation, Partial, Stop


@dataclass(frozen=True)
class Until:
    """When an explanation is good enough; see the contract's Until. None: not by that."""

    tolerance: float | None = None
    row_count: int | None = None
    time_ms: float | None = None

    @property
    def ever(self) -> bool:
        return self != Until()


@dataclass(frozen=True)
class Explain:
    """A method, and all that is asked of its explanation besides.

    Attributes:
        method: How to explain.
        until: When to stop before all rows are run.
        measures: The evidence that is measured of it, in order.
        watched: Whether estimates are shown as they are made.
    """

    method: ExplainMethod
    until: Until = Until()
    measures: tuple[Measure, ...] = ()
    watched: bool = False

    priority: ClassVar[Priority] = Priority.EXPLAIN

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def limited(self) -> ExplainMethod:
        """The method with no more rows than it may have."""
        row_count = self.until.row_count
        return self.method if row_count is None else self.method.within(row_count)

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        if self.measures or self.until.time_ms is None:
            return math.inf
        return max(self.until.time_ms, row_ms * self.limited.first_rows(model))

    def byte_count(self, model: Model) -> int:
        parts = [self.method.byte_count(model), *(m.byte_count(model) for m in self.measures)]
        return sum(parts)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        counts = Counter(self.limited.row_counts(model, target))
        for measure in self.measures:
            counts.update(measure.row_counts(model, self.limited, target))
        return counts

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        explanation = yield from self._explained(model, image, target)
        found: dict[str, Any] = {}
        subject = Subject(self.used(explanation), explanation)
        for measure in self.measures:
            found[measure.name] = yield from measure.program(model, image, subject)
        return replace(explanation, evidence=found)

    def used(self, explanation: Explanation) -> ExplainMethod:
        """The method whose own parameters name the rows that were run, and no more."""
        made = explanation.convergence
        if made is None or made.stop is Stop.COMPLETE:
            return self.method
        return self.method.within(made.row_count)

    def _explained(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        """Runs the method until it is done, or good enough."""
        course = _Course(self.until)
        program, answer = self.limited.program(model, image, target), None
        while True:
            try:
                wanted = program.send(answer)
            except StopIteration as ended:
                explanation: Explanation = ended.value
                break
            if isinstance(wanted, Partial):
                course.last = wanted
                answer = course.is_over(wanted.last)
                if self.watched or course.looks:
                    estimate = yield from _estimate(wanted)
                    answer = course.is_good(estimate) or answer
                    if self.watched and not answer:
                        yield Event(_with(estimate.make(), course.at(estimate, Stop.RUNNING)))
            else:
                answer = yield wanted
                if isinstance(wanted, Rows):
                    course.ran(len(wanted.images))
        explanation = replace(explanation, row_count=course.row_count)
        if course.last is None or not (self.until.ever or self.watched):
            return explanation
        estimate = yield from _estimate(course.last)
        named, most = (
            sum(of.row_counts(model, target).values()) for of in (self.method, self.limited)
        )
        return _with(explanation, course.at(estimate, course.stop(named, most)))


class _Course:
    """How far an explanation has come, and whether that will do."""

    def __init__(self, until: Until) -> None:
        self._until = until
        self._good_before = False
        self._stop: Stop | None = None
        self._started_s: float | None = None
        self.row_count = 0
        self.last: Partial | None = None

    @property
    def looks(self) -> bool:
        """Whether estimates decide."""
        return self._until.tolerance is not None

    def ran(self, row_count: int) -> None:
        if self._started_s is None:
            self._started_s = time.monotonic()
        self.row_count += row_count

    def is_over(self, last: bool) -> bool:
        """Whether time has passed that more would have been made in."""
        assert self._started_s is not None
        passed_ms = (time.monotonic() - self._started_s) * 1e3
        most_ms = self._until.time_ms
        if most_ms is not None and passed_ms >= most_ms and not last:
            self._stop = self._stop or Stop.TIME
        return self._stop is not None

    def is_good(self, estimate: Estimate) -> bool:
        """Whether this estimate and the one before meet the tolerance."""
        tolerance = self._until.tolerance
        good = tolerance is not None and estimate.error <= tolerance
        if good and self._good_before:
            self._stop = Stop.TOLERANCE
        self._good_before = good
        return self._stop is not None

    def stop(self, named: int, most: int) -> Stop:
        """Why it ended, of so many rows that the method names, and so many that it might run."""
        limited = self.row_count == most < named
        return self._stop or (Stop.ROW_COUNT if limited else Stop.COMPLETE)

    def at(self, estimate: Estimate, stop: Stop) -> Convergence:
        return Convergence(
            stop, self.row_count, estimate.error, estimate.standard_error, estimate.residual
        )


def _with(explanation: Explanation, convergence: Convergence) -> Explanation:
    return replace(explanation, convergence=convergence)


def _estimate(partial: Partial) -> Program[Estimate]:
    if not partial.on_host:
        return partial.value()
    estimate: Estimate = yield Chore(lambda _: partial.value())
    return estimate
