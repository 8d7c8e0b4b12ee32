"""Explanations that are sent along with a prediction, which rides in the first one's first row."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..engine.job import Priority
from ..engine.rows import (
    Event,
    Lane,
    Program,
    Result,
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

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms + sum(explain.most_ms(model, row_ms) for explain, _ in self.parts)

    def predicts_apart(self, model: Model) -> bool:
        """Whether a prediction takes a row of its own."""
        explain, of = self.parts[0]
        return _APART in explain.row_counts(model, of)

    def byte_count(self, model: Model) -> int:
        return sum(explain.byte_count(model) for explain, _ in self.parts)

    def program(self, model: Model, image: Tensor, target: Target) -> Program[None]:
        top = self.top
        for explain, of in self.parts:
            program = explain.program(model, image, of if top is None else _known(of, top))
            wanted = next(program)
            if top is None:
                assert isinstance(wanted, Rows)  # of the image itself: see ExplainMethod.program
                if self.predicts_apart(model):
                    traces = yield Rows(image[None], TopTarget(), Want.LOGITS)
                    top = yield from _predicted(traces)
                    answer = yield wanted
                else:
                    answer = yield replace(wanted, want=wanted.want | Want.LOGITS)
                    top = yield from _predicted(answer)
            else:
                answer = yield wanted
            explanation = yield from _resumed(program, answer)
            yield Event(explanation)


_APART = Lane.DEEPLIFT
"""The lane whose forward pass is not a prediction's to the bit: its batches are twice as large."""


def _known(target: Target, top: int) -> Target:
    return of_top(target, top) if isinstance(target, TopTarget) else target


def _predicted(traces: Traces) -> Program[int]:
    """Shows a prediction; returns its best class."""
    assert traces.logits is not None
    yield Event(PredictResult(traces.logits[0]))
    return int(traces.logits[0].argmax())


def _resumed(program: Program[Result], answer: object) -> Program[Result]:
    """The rest of a program that has been started, from what it gets next."""
    while True:
        try:
            wanted = program.send(answer)
        except StopIteration as ended:
            result: Result = ended.value
            return result
        answer = yield wanted
