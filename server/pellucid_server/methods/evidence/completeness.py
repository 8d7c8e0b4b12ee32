"""Whether attributions sum to what they should."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target
from ...models.registry import Model
from ..explain.explanation import ExplainMethod, chunks, references
from .measure import Measure, Subject


@dataclass(frozen=True)
class Sums:
    """What attributions sum to, and what they should; see the contract's CompletenessResult."""

    attribution_sum: float
    expected_sum: float
    relative_error: float


@dataclass(frozen=True)
class Completeness(Measure):
    """By how much the sum misses the score's change from the baseline.

    Sundararajan, Taly and Yan 2017, arXiv:1703.01365. LRP's should be the score itself.
    """

    name: ClassVar[str] = "completeness"

    @staticmethod
    def method_refusal(method: type[ExplainMethod]) -> str | None:
        if method.additive:
            return None
        return f"attributions of {method.name} do not sum to anything known"

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        count = method.reference_count
        return {Lane.FORWARD: count} if count else {}

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Sums]:
        method, explanation = subject.method, subject.explanation
        total, count = 0.0, method.reference_count
        for chunk in chunks(count):
            steps = range(chunk.start, chunk.stop)
            images = yield from references(method, model, image, steps)
            traces = yield Rows(images, explanation.target)
            total += float(traces.scores.sum())
        expected = explanation.score - total / max(1, count)
        values = explanation.attribution
        if explanation.segments is not None:
            values = explanation.segments.values
        found = float(values.double().sum())
        error = abs(found - expected)
        return Sums(found, expected, error / abs(expected) if expected else error)
