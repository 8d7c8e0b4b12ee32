"""Methods with a backward pass of their own, or with a look into attention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target, Want
from ...models.gates import Rule
from ...models.layers import Layout
from ...models.registry import Model
from ..parameters import choice, nested, number
from .baselines import Baseline
from .cams import enlarged
from .explanation import ExplainMethod, Explanation, resolved


@dataclass(frozen=True)
class Lrp(ExplainMethod):
    """The score, handed back layer by layer to what it came from.

    Bach and others 2015, doi:10.1371/journal.pone.0130140.

    Attributes:
        rule: epsilon everywhere, or the composite that is usual for ConvNets: epsilon in dense
            layers, z-plus in convolutions, flat in the first (Kohlbrenner and others 2019,
            arXiv:1910.09840).
        epsilon: What keeps divisors away from 0.
    """

    rule: str = choice("composite")
    epsilon: float = number(1e-6, 1e-12, 10.0)

    name: ClassVar[str] = "lrp"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    logits_only: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.lrp_refusal

    @property
    def reference_count(self) -> int:
        return 0

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.LRP: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        rule = {"epsilon": Rule.LRP_EPSILON, "composite": Rule.LRP_COMPOSITE}[self.rule]
        traces = yield Rows(image[None], target, Want.GRADIENT, rule, epsilon=self.epsilon)
        assert traces.gradient is not None
        return Explanation(traces.gradient[0], resolved(target, traces), float(traces.scores[0]))


@dataclass(frozen=True)
class DeepLift(ExplainMethod):
    """How each value's difference from a baseline contributes to the score's; rescale rule.

    Shrikumar, Greenside and Kundaje 2017, arXiv:1704.02685.

    Attributes:
        baseline: What the image is compared with.
    """

    baseline: Baseline = nested(Baseline, fill="black")

    name: ClassVar[str] = "deep_lift"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"
    logits_only: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.deeplift_refusal

    def references(self, model: Model, image: Tensor, steps: range) -> Tensor:
        return self.baseline.image(model, image)[None]

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.DEEPLIFT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        baseline = self.baseline.image(model, image)
        traces = yield Rows(image[None], target, Want.GRADIENT, references=baseline[None])
        assert traces.gradient is not None
        return Explanation(
            traces.gradient[0] * (image - baseline),
            resolved(target, traces),
            float(traces.scores[0]),
        )


_FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda heads: heads.mean(1),
    "max": lambda heads: heads.amax(1),
    "min": lambda heads: heads.amin(1),
}


@dataclass(frozen=True)
class AttentionRollout(ExplainMethod):
    """How much of each patch reaches the class token, by the weights of all attentions.

    Abnar and Zuidema 2020, arXiv:2005.00928. The same for every target.

    Attributes:
        head_fusion: How heads become one: mean, max or min.
    """

    head_fusion: str = choice("mean")

    name: ClassVar[str] = "attention_rollout"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "absolute"
    class_blind: ClassVar[bool] = True

    @staticmethod
    def refusal(model: Model) -> str | None:
        return model.network.attention_refusal

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target, Want.ATTENTION)
        assert traces.attention is not None
        layers = _FUSIONS[self.head_fusion](traces.attention[0].double())
        skip = torch.eye(layers.shape[-1], dtype=layers.dtype, device=layers.device)
        rollout = skip
        for weights in layers:
            mixed = 0.5 * weights + 0.5 * skip
            rollout = mixed / mixed.sum(-1, keepdim=True) @ rollout
        grid = next(y.grid for y in model.network.layers if y.layout is Layout.TOKENS)
        assert grid is not None
        patches = rollout[0, -grid[0] * grid[1] :].view(1, *grid)
        return Explanation(
            enlarged(patches, image), resolved(target, traces), float(traces.scores[0])
        )
