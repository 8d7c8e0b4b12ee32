"""What the network sees in a photo."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import StatusError
from .explanations import ExplainResult
from .receipts import Receipt
from .runs import Run


@dataclass(frozen=True)
class Prediction:
    """A class, and how much the network believes in it.

    Attributes:
        class_index: From 0.
        label: The class's label.
        probability: Softmax, 0 to 1.
        logit: The score before the softmax.
    """

    class_index: int
    label: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class PredictResult:
    """What the network sees in a photo.

    Attributes:
        predictions: The best classes, best first; at least one.
        logits: All logits by class index, float32, read-only; None unless asked for.
        receipt: All that is needed to make it again: see Client.replay.
        run: What it was computed by.
        explanations: What came of each explanation that was asked for: itself, or why not.
    """

    predictions: tuple[Prediction, ...]
    logits: NDArray[np.float32] | None = field(repr=False)
    receipt: "Receipt" = field(repr=False)
    run: Run = field(repr=False)
    explanations: tuple["ExplainResult | StatusError", ...] = field(default=(), repr=False)

    @property
    def top(self) -> Prediction:
        """The best class."""
        return self.predictions[0]
