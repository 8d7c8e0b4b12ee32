"""DeepFool: step by step over the nearest of the linearized borders between classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.rows import ClassesTarget, Program, Rows, TopTarget, Want
from .lens import Lens

_STABLE_DISTANCE = 1e-4
"""Added to a step's length, 0 to 255: a point on the border itself would never leave it."""

_STABLE_NORM = 1e-8
"""Added to what is divided by."""


@dataclass(frozen=True)
class Steps:
    """How borders are crossed; see the contract's DeepFool."""

    norm: str
    step_count: int
    candidate_count: int
    overshoot: float


@dataclass(frozen=True)
class Crossing:
    """Where the steps from an image led.

    Attributes:
        image: 3×H×W, pixels from 0 to 255, not rounded.
        crossed: Whether it is taken for another class than the source.
        step_count: Steps that were made.
    """

    image: Tensor
    crossed: bool
    step_count: int


def deep_fool(
    lens: Lens, image: Tensor, how: Steps, source: int | None = None
) -> Program[Crossing]:
    """Moosavi-Dezfooli, Fawzi and Frossard 2015, arXiv:1511.04599, as foolbox has it.

    Args:
        lens: How the network sees it.
        image: 3×H×W, pixels from 0 to 255.
        how: The steps.
        source: The class to leave; None: the one that the image is taken for.
    """
    start, total = image, torch.zeros_like(image)
    rivals: list[int] = []
    for step in range(how.step_count + 1):
        looked = yield Rows(lens.inputs(image)[None], TopTarget(), Want.LOGITS)
        assert looked.logits is not None
        best = int(looked.classes[0])
        if step == 0:
            source = best if source is None else source
            order = looked.logits[0].argsort(descending=True, stable=True)
            rivals = [k for k in order[: how.candidate_count].tolist() if k != source]
        assert source is not None
        if best != source or step == how.step_count:
            break
        traces = yield Rows(
            lens.inputs(image)[None].expand(len(rivals), -1, -1, -1),
            tuple(ClassesTarget(((rival, 1.0), (source, -1.0))) for rival in rivals),
            Want.GRADIENT,
        )
        assert traces.gradient is not None
        total = total + _to_border(traces.scores, lens.slopes(traces.gradient), how.norm)
        image = (start + (1 + how.overshoot) * total).clamp(0, 255)
    return Crossing(image, best != source, step)


def _to_border(scores: Tensor, slopes: Tensor, norm: str) -> Tensor:
    """The shortest step to where the first of the linearized scores is 0.

    Args:
        scores: n, each the logit of a rival less that of the source.
        slopes: n×3×H×W, their gradients.
        norm: Which lengths are compared by; slopes are, by its dual.
    """
    flat = slopes.flatten(1)
    steepness = (flat.norm(dim=1) if norm == "l2" else flat.abs().sum(1)) + _STABLE_NORM
    distances = scores.to(slopes).abs() / steepness
    nearest = int(distances.argmin())
    length, slope = distances[nearest] + _STABLE_DISTANCE, slopes[nearest]
    return length * (slope / steepness[nearest] if norm == "l2" else slope.sign())
