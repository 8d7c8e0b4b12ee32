"""What is in an image: one forward row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..engine.job import Priority
from ..engine.rows import Lane, Program, Rows, Target, Want
from ..models.registry import Model


@dataclass(frozen=True)
class PredictResult:
    """The logits of one image: float, one a class."""

    logits: Tensor


@dataclass(frozen=True)
class Predict:
    """What is in an image.

    Attributes:
        top_k: How many classes to return, at least 1.
        include_logits: Whether to return all logits.
    """

    top_k: int
    include_logits: bool

    name: ClassVar[str] = "predict"
    priority: ClassVar[Priority] = Priority.PREDICT

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, model: Model) -> int:
        return 0

    def program(self, model: Model, image: Tensor, target: Target) -> Program[PredictResult]:
        traces = yield Rows(image[None], target, Want.LOGITS)
        assert traces.logits is not None
        return PredictResult(traces.logits[0])
