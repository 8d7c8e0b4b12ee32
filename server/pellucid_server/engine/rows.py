"""Rows, which a method asks for, and traces, which it gets.

A row is one image going once through one network: forward only, or forward and back
to the image.
"""

import enum
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ..models.gates import Rule
from ..models.network import OUTPUT


class Lane(enum.Enum):
    """Which way a row goes; rows of different lanes never share a batch."""

    FORWARD = "forward"
    GRADIENT = "gradient"


@dataclass(frozen=True)
class ClassTarget:
    """The logit of a class."""

    index: int
    tap = OUTPUT


@dataclass(frozen=True)
class TopTarget:
    """The largest logit of the row itself, whichever class that is."""

    tap = OUTPUT


@dataclass(frozen=True)
class NeuronTarget:
    """A neuron of a layer; without y and x the sum over a channel's map."""

    layer: str
    channel: int
    y: int | None = None
    x: int | None = None

    @property
    def tap(self) -> str:
        return self.layer


Target = ClassTarget | TopTarget | NeuronTarget


class Want(enum.Enum):
    """What a method wants of its rows; the target's score always comes."""

    SCORE = "score"
    LOGITS = "logits"
    GRADIENT = "gradient"


@dataclass(frozen=True)
class Rows:
    """Images that a method wants run, all for one target.

    Attributes:
        images: n×3×H×W, on the device, in the network's dtype.
        target: Whose score, and whose gradient.
        want: What to compute besides the score.
        rule: How gradients pass rectifiers.
    """

    images: Tensor
    target: Target
    want: Want = Want.SCORE
    rule: Rule = Rule.GRADIENT

    @property
    def lane(self) -> Lane:
        return Lane.GRADIENT if self.want is Want.GRADIENT else Lane.FORWARD

    @property
    def taps(self) -> frozenset[str]:
        return frozenset({self.target.tap} | ({OUTPUT} if self.want is Want.LOGITS else set()))


@dataclass(frozen=True)
class Traces:
    """What came of rows, in their order.

    Attributes:
        scores: n, float64, on the host: the target's score.
        classes: n, int64, on the host: the target's class; -1 for a neuron.
        logits: n×classes on the host, if they were wanted.
        gradient: n×3×H×W on the device, if it was wanted: of the score by the image.
    """

    scores: Tensor
    classes: Tensor
    logits: Tensor | None
    gradient: Tensor | None


Result = TypeVar("Result")
Program = Generator[Rows, Traces, Result]
"""A method in the middle of its work: it yields rows, gets traces, returns its result."""
