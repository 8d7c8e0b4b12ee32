"""What every explanation is, and what it results in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import ClassTarget, Lane, NeuronTarget, Program, Target, Traces
from ...models.registry import Model


@dataclass(frozen=True)
class Explanation:
    """Why a target's score is what it is.

    Attributes:
        attribution: C×H×W in the network's input frame; C is 3, or 1 where a method does
            not tell channels apart.
        target: What was explained; never the top prediction, which is resolved.
        score: Its score for the image.
        falls: Occlusion's fall of the score for every window, down × across; None for others.
    """

    attribution: Tensor
    target: ClassTarget | NeuronTarget
    score: float
    falls: Tensor | None = None


class ExplainMethod(Protocol):
    """A method with its parameters. Its name is that of ExplainRequest's member."""

    name: ClassVar[str]
    color_scale: ClassVar[Literal["signed", "absolute"]]
    priority: ClassVar[Priority]

    @staticmethod
    def refusal(model: Model) -> str | None:
        """Why the method does not apply to the model, if so."""
        ...

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]: ...

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]: ...


def resolved(target: Target, traces: Traces) -> ClassTarget | NeuronTarget:
    """The target itself, or the class that the first row's top prediction is."""
    if isinstance(target, (ClassTarget, NeuronTarget)):
        return target
    return ClassTarget(int(traces.classes[0]))
