"""DeepFool: step by step over the nearest of the linearized borders between classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from ...engine.rows import (
    Ask,
    ClassesTarget,
    Event,
    Lane,
    Program,
    Rows,
    TopTarget,
    Want,
)
from ...models.registry import Model
from ..optimize.stepper import Preview, Progress
from ..parameters import Known, choice, number
from . import surviving
from .algorithm import Algorithm, Crafted, Norm, Scene, Shows
from .lens import Lens

_STABLE_DISTANCE = 1e-4
"""Added to a step's length, 0 to 255: a point on the border itself would never leave it."""

_STABLE_NORM = 1e-8
"""Added to what is divided by."""

USUAL_STEPS = 4
"""What a border takes: measured, 2 to 4 on Lite0 and ResNet-18. A cost is predicted by it: the
most that may be asked for is rarely taken, and would be refused where the time is enough."""

_DEFAULT_CANDIDATES = 10


def class_count(known: Known) -> int | None:
    """Of the model."""
    return None if known.model is None else known.model.network.class_count


def candidates(known: Known) -> int:
    """How many classes are looked at, if that many there are."""
    return min(_DEFAULT_CANDIDATES, class_count(known) or _DEFAULT_CANDIDATES)


@dataclass(frozen=True)
class Steps:
    """How borders are crossed; see the contract's DeepFool."""

    norm: Norm
    step_count: int
    candidate_count: int
    overshoot: float

    def asks(self, crossings: float = 1.0) -> list[Ask]:
        """The rows of crossings, as far as one knows before, but for the look at their starts."""
        steps = crossings * min(self.step_count, USUAL_STEPS)
        slopes = Ask(Lane.GRADIENT, self.candidate_count - 1, steps)
        return [slopes, Ask(Lane.FORWARD, 1, steps)]


@dataclass(frozen=True)
class Crossing:
    """Where the steps from an image led.

    Attributes:
        image: 3×H×W, pixels from 0 to 255, not rounded.
        crossed: Whether it is taken for another class than the source.
        progress: How far that is; its score is less the log-probability of the source.
        finite: False: it went no further since a score or a slope was not finite. The image is the
            last one whose score was, or that which it started from.
    """

    image: Tensor
    crossed: bool
    progress: Progress
    finite: bool = True

    @property
    def step_count(self) -> int:
        return self.progress.step


def deep_fool(
    lens: Lens, image: Tensor, how: Steps, source: int | None = None, shows: Shows | None = None
) -> Program[Crossing]:
    """Moosavi-Dezfooli, Fawzi and Frossard 2015, arXiv:1511.04599, as foolbox has it.

    Args:
        lens: How the network sees it.
        image: 3×H×W, pixels from 0 to 255.
        how: The steps.
        source: The class to leave; None: the one that the image is taken for.
        shows: Of its events; None: there are none.
    """
    start, total = image, torch.zeros_like(image)
    rivals: list[int] = []
    nothing = float("nan")
    made = Crossing(image, False, Progress(0, 0, nothing, (nothing,), 0.0, 0.0))
    for step in range(how.step_count + 1):
        looked = yield Rows(lens.inputs(image)[None], TopTarget(), Want.LOGITS, may_fail=True)
        if not looked.finite[0]:
            return replace(made, finite=False)
        assert looked.logits is not None
        best = int(looked.classes[0])
        if step == 0:
            source = best if source is None else source
            order = looked.logits[0].argsort(descending=True, stable=True)
            rivals = [k for k in order[: how.candidate_count].tolist() if k != source]
        assert source is not None
        score = -float(looked.logits[0].double().log_softmax(0)[source])
        made = Crossing(image, best != source, Progress(0, step, score, (score,), 0.0, 0.0))
        if made.crossed or step == how.step_count:
            break
        yield from _events(shows, made.progress, image)
        traces = yield Rows(
            lens.inputs(image)[None].expand(len(rivals), -1, -1, -1),
            tuple(ClassesTarget(((rival, 1.0), (source, -1.0))) for rival in rivals),
            Want.GRADIENT,
            may_fail=True,
        )
        if not traces.finite.all():
            return replace(made, finite=False)
        assert traces.gradient is not None
        total = total + _to_border(traces.scores, lens.slopes(traces.gradient), how.norm)
        image = (start + (1 + how.overshoot) * total).clamp(0, 255)
    return made


def _events(shows: Shows | None, progress: Progress, image: Tensor) -> Iterator[Event]:
    if shows is None or progress.step == 0:
        return
    if progress.step % shows.progress_every == 0:
        yield Event(progress)
    if shows.preview_every and progress.step % shows.preview_every == 0:
        yield Event(Preview(progress.restart, progress.step, image / 255))


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


@dataclass(frozen=True, kw_only=True)
class DeepFool(Algorithm):
    """See the contract's DeepFool."""

    norm: str = choice("l2")
    step_count: int = number(50, 1, 1000)
    candidate_count: int = number(candidates, 2, class_count)
    overshoot: float = number(0.02, 0, 1)

    name: ClassVar[str] = "deep_fool"
    takes_goal: ClassVar[bool] = False
    kind: ClassVar[type] = Rows

    @property
    def steps(self) -> Steps:
        norm = cast(Norm, self.norm)
        return Steps(norm, self.step_count, self.candidate_count, self.overshoot)

    @property
    def step_total(self) -> int:
        return self.step_count

    def asks(self, done: int, bucket_size: int) -> Sequence[Ask]:
        return [Ask(Lane.FORWARD, 1), *self.steps.asks(), *surviving.asks()]

    def byte_count(self, model: Model) -> int:
        """The gradients of a step."""
        network = model.network
        return 2 * self.candidate_count * 3 * network.pixel_count * network.dtype.itemsize

    def craft(self, scene: Scene) -> Program[Sequence[Crafted]]:
        lens, base = Lens.of(scene.model), scene.base
        made = yield from deep_fool(lens, base.pixels, self.steps, base.source, scene.shows)
        farther = None
        if made.crossed:
            farther = yield from surviving.made_larger(scene, made.image)
        return [Crafted(made.image, made.progress, made.finite, farther)]
