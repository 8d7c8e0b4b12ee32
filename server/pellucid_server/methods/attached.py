"""Explanations that are sent along with a prediction, which rides in the first one's first row."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..engine.job import Priority
from ..engine.rows import (
    Event,
    Lane,
    Program,
    Rows,
    Target,
    TopTarget,
    Traces,
    Want,
)
from ..models.registry import Model
from .explain.explain import Explain
from .explain.explanation import of_top
from .predict import PredictResult


@dataclass(frozen=True)
class Attached:
    """Explanations of one image, one after the other, and its prediction unless that is known.

    It shows the prediction as soon as there is one, and then every explanation; it returns nothing.

    Attributes:
        parts: The explanations and their targets, at least one.
        top: The image's best class; None: it is to be predicted.
    """

    parts: tuple[tuple[Explain, Target], ...]
    top: int | None = None

    name: ClassVar[str] = "predict"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        counts: Counter[Lane] = Counter()
        for explain, of in self.parts:
            counts.update(explain.row_counts(model, of))
        if self.top is None and self.predicts_apart(model):
            counts[Lane.FORWARD] += 1
        return counts

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        each_ms = (
            min(
                explain.most_ms(model, row_ms), row_ms * sum(explain.row_counts(model, of).values())
            )
            for explain, of in self.parts
        )
        return row_ms + sum(each_ms)

    def predicts_apart(self, model: Model) -> bool:
        """Whether a prediction takes a row of its own, since the first one's has other bits."""
        explain, of = self.parts[0]
        lanes = explain.row_counts(model, of)
        return _APART in lanes or (model.network.has_runtime and Lane.FORWARD not in lanes)

    def byte_count(self, model: Model) -> int:
        return sum(explain.byte_count(model) for explain, _ in self.parts)

    def program(self, model: Model, image: Tensor, target: Target) -> Program[None]:
        top = self.top
        for explain, of in self.parts:
            program = explain.program(model, image, of if top is None else _known(of, top))
            answer: Any = None
            while True:
                try:
                    wanted = program.send(answer)
                except StopIteration as ended:
                    yield Event(ended.value)
                    break
                if top is None and isinstance(wanted, Rows):
                    answer, top = yield from self._predicted(model, image, wanted)
                else:
                    answer = yield wanted

    def _predicted(self, model: Model, image: Tensor, wanted: Rows) -> Program[tuple[Traces, int]]:
        """Shows the prediction, made by a method's first row; returns its traces, the best class.

        That row is of the image itself: see ExplainMethod.program.
        """
        apart = self.predicts_apart(model)
        alone = Rows(image[None], TopTarget(), Want.LOGITS)
        traces = yield alone if apart else replace(wanted, want=wanted.want | Want.LOGITS)
        assert traces.logits is not None
        yield Event(PredictResult(traces.logits[0]))
        answer = (yield wanted) if apart else traces
        return answer, int(traces.logits[0].argmax())


_APART = Lane.DEEPLIFT
"""The lane whose forward pass is not a prediction's to the bit: its batches are twice as large."""


def _known(target: Target, top: int) -> Target:
    return of_top(target, top) if isinstance(target, TopTarget) else target
