"""The gradient of a target, and its kin: one backward pass each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target, Want
from ...models.gates import Rule
from ...models.registry import Model
from .explanation import ExplainMethod, Explanation, resolved


@dataclass(frozen=True)
class Gradient(ExplainMethod):
    """d score / d input (Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034)."""

    name: ClassVar[str] = "gradient"
    rule: ClassVar[Rule] = Rule.GRADIENT
    color_scale: ClassVar[Literal["signed", "absolute"]] = "absolute"

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target, Want.GRADIENT, self.rule)
        assert traces.gradient is not None
        return Explanation(
            traces.gradient[0], resolved(target, traces), score=float(traces.scores[0])
        )


@dataclass(frozen=True)
class Deconvnet(Gradient):
    """Rectifiers pass back what is positive (Zeiler and Fergus 2013, arXiv:1311.2901)."""

    name: ClassVar[str] = "deconvnet"
    rule: ClassVar[Rule] = Rule.DECONVNET

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.gates.refusal


@dataclass(frozen=True)
class GuidedBackprop(Gradient):
    """Rectifiers pass back what is positive, where their input was positive.

    Springenberg and others 2014, arXiv:1412.6806.
    """

    name: ClassVar[str] = "guided_backprop"
    rule: ClassVar[Rule] = Rule.GUIDED

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.gates.refusal


@dataclass(frozen=True)
class InputXGradient(ExplainMethod):
    """input ⊙ d score / d input (Shrikumar and others 2016, arXiv:1605.01713)."""

    name: ClassVar[str] = "input_x_gradient"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target, Want.GRADIENT)
        assert traces.gradient is not None
        return Explanation(
            image * traces.gradient[0], resolved(target, traces), score=float(traces.scores[0])
        )
