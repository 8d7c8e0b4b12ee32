"""One perturbation that changes what a network takes most photos of a set for."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor

from ...engine.job import Priority
from ...engine.lockstep import Pace, Scale
from ...engine.rows import (
    Ask,
    Chore,
    Event,
    Lane,
    Program,
    Rows,
    State,
    Target,
    TopTarget,
    Want,
    counted,
)
from ...errors import InvalidArgument, Violation
from ...models.registry import Model
from .. import draws
from ..optimize.optimize import Buckets
from ..optimize.snapshot import Declared, Snapshot, held_bytes
from ..optimize.stepper import Preview, Progress
from ..parameters import Parameters, choice, number, positive, seed
from .algorithm import Budget, Norm, Shows
from .deep_fool import Steps, candidates, class_count, deep_fool
from .gradient import epsilon_of
from .lens import Lens
from .rounding import whole

CHUNK_PHOTOS = 16
"""Photos that are decoded, and looked at, at once."""

SHOWN_PHOTOS = 16
"""The first ones, which are shown with the perturbation."""

_GREY = 128.0


class PhotoSet(Protocol):
    """Photos, decoded when they are needed."""

    @property
    def photo_count(self) -> int: ...

    def decode(self, model: Model, start: int, stop: int) -> Tensor:
        """Photos as the network sees them, uint8 n×3×H×W. Called in a worker."""
        ...


@dataclass(frozen=True, kw_only=True)
class Universal(Parameters):
    """See the contract's Universal."""

    norm: str = choice("linf")
    epsilon: float = epsilon_of(10.0, 2000.0)
    pass_count: int = number(10, 1, 100)
    fooling_rate: float = positive(0.8, 1)
    step_count: int = number(10, 1, 1000)
    candidate_count: int = number(candidates, 2, class_count)
    overshoot: float = number(0.02, 0, 1)
    seed: int = seed()

    name: ClassVar[str] = "universal"

    @property
    def budget(self) -> Budget:
        return Budget(cast(Norm, self.norm), self.epsilon)

    @property
    def steps(self) -> Steps:
        """The shortest by L2, whatever the budget is of: as the authors have it."""
        return Steps("l2", self.step_count, self.candidate_count, self.overshoot)


@dataclass(frozen=True)
class Universalized:
    """What came of a set of photos.

    Attributes:
        perturbation: 3×H×W, whole numbers, within the budget.
        before: N×classes: logits of the photos, in their order.
        after: N×classes: of the photos with the perturbation, at 8 bits.
        pass_count: Times that all photos were gone through.
        photos: n×3×H×W, uint8: the first ones.
        perturbed: n×3×H×W, uint8: the same with the perturbation.
        failed: The photo, from 0, at which it could not go on: a score or a slope was not finite;
            None: there was none.
    """

    perturbation: Tensor
    before: Tensor
    after: Tensor
    pass_count: int
    photos: Tensor
    perturbed: Tensor
    failed: int | None = None

    @property
    def fooled(self) -> Tensor:
        """Of each photo, whether it changes class."""
        return fooled(self.before, self.after)


def fooled(before: Tensor, after: Tensor) -> Tensor:
    """Of each of n×classes logits, whether the best class is another one."""
    return before.argmax(1) != after.argmax(1)


@dataclass(frozen=True)
class _Course:
    """How far it is: all that it needs to go on, besides the photos.

    Attributes:
        passed: Times that all photos were gone through, and the perturbation was scored.
        place: Photos gone through in this pass.
        arrived: How many of these changed class already, when they were come to.
        perturbation: 3×H×W, not rounded.
        best: 3×H×W: that of the best score, rounded.
        score: Its fooling rate; less than 0 before the first pass is over.
        failed: As of Universalized.
    """

    passed: int
    place: int
    arrived: int
    perturbation: Tensor
    best: Tensor
    score: float
    failed: int | None = None


@dataclass(frozen=True)
class UniversalAttack:
    """Moosavi-Dezfooli and others 2016, arXiv:1610.08401.

    The photos are gone through again and again, in another order each time. Where one does not
    change class yet, the perturbation is moved as DeepFool moves the photo with it, and projected
    to the budget. After each pass it is rounded, and scored on all photos at 8 bits; the best one
    is the result. Where the network gives a photo no finite score or slope any more, the pass ends,
    and it is the last.

    Attributes:
        universal: Its parameters.
        shows: How often there is something to see; steps are photos.
        photos: The set.
        buckets: Of its batches.
        states: Where it goes on from: one, or none.
    """

    universal: Universal
    shows: Shows
    photos: PhotoSet
    buckets: Buckets
    states: tuple[Snapshot, ...] = ()

    name: ClassVar[str] = "optimize"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    @property
    def image_count(self) -> int:
        """Of what is optimized: it is one."""
        return 1

    @property
    def step_total(self) -> int:
        return self.universal.pass_count * self.photos.photo_count

    def declared(self, model: Model) -> Sequence[Declared]:
        """The same in every pass."""
        shape = (3, model.network.height_px, model.network.width_px)
        kept = (shape, Lens.of(model).beside)
        one = Declared({"perturbation": kept, "best": kept}, frozenset({"arrived", "score"}))
        return [one] * self.universal.pass_count

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        """What is usual: see _USUAL_CROSSINGS."""
        return counted(self._asks())

    def _asks(self) -> list[Ask]:
        count, steps = self.photos.photo_count, self.universal.steps
        done = sum(state.total for state in self.states)
        left, first = self.step_total - done, max(0, count - done)
        crossings = first + _USUAL_CROSSINGS * (left - first)
        full, rest = divmod(count, CHUNK_PHOTOS)
        all_photos = 2 + left / count  # before, after each pass, and at the end
        return [
            Ask(Lane.FORWARD, CHUNK_PHOTOS, all_photos * full),
            Ask(Lane.FORWARD, rest, all_photos),
            Ask(Lane.FORWARD, 1, left),
            *steps.asks(crossings),
        ]

    def pace(self, model: Model) -> Pace:
        size = model.network.height_px, model.network.width_px
        scale = Scale("attack.universal.pass_count", self.universal.pass_count, self._of_passes)
        # A checkpoint is of the settings that it is of.
        return Pace(self._asks(), size, Rows, None if self.states else scale)

    def _of_passes(self, pass_count: int) -> "UniversalAttack":
        return replace(self, universal=replace(self.universal, pass_count=pass_count))

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        """Logits of all photos, twice; the perturbations, and the gradients of a step."""
        network, count = model.network, self.photos.photo_count
        images = 4 + 2 * self.universal.candidate_count + 2 * CHUNK_PHOTOS
        logits = 2 * 4 * count * network.class_count
        shown = held_bytes(self, model, self.shows)
        return logits + shown + images * 3 * network.pixel_count * 8

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Universalized]:
        """Args are those of every method, but that there is no image.

        Raises:
            InvalidArgument: The network's output for photos is not finite.
        """
        universal, lens, count = self.universal, Lens.of(model), self.photos.photo_count
        course = self._start(model, lens)
        yield from self._state(course)
        photos = yield from self._decoded(model)
        before, finite = yield from _logits(lens, photos, None)
        _refuse(model, finite)
        sources = before.argmax(1).tolist()
        while (
            course.passed < universal.pass_count
            and course.score < universal.fooling_rate
            and course.failed is None
        ):
            order = draws.permutation(universal.seed, course.passed, count).tolist()
            for index in order[course.place :]:
                course = yield from self._visit(lens, course, index, photos[index], sources[index])
                if course.failed is not None:
                    break
                yield from self._state(course)
                yield from self._events(course)
            course = yield from self._scored(lens, course, photos, before)
            yield Event(self._progress(course))
        after, _ = yield from _logits(lens, photos, course.best)
        few = photos[:SHOWN_PHOTOS]
        perturbed = (lens.pixels(few) + course.best).clamp(0, 255).byte()
        return Universalized(
            course.best, before, after, course.passed, few, perturbed, course.failed
        )

    def _start(self, model: Model, lens: Lens) -> _Course:
        if self.states:
            [state] = self.states
            perturbation, best = (lens.pixels(state.tensors[n]) for n in ("perturbation", "best"))
            best = whole(best, self.universal.budget)  # as it was: half precision is close by
            arrived, score = int(state.numbers["arrived"]), state.numbers["score"]
            return _Course(state.octave, state.step, arrived, perturbation, best, score)
        shape = (3, model.network.height_px, model.network.width_px)
        return _Course(
            0, 0, 0, lens.pixels(torch.zeros(shape)), lens.pixels(torch.zeros(shape)), -1.0
        )

    def _decoded(self, model: Model) -> Program[Tensor]:
        """All photos, uint8 N×3×H×W, on the host: a few at a time, so that others get a turn."""
        parts: list[Tensor] = []
        for start in range(0, self.photos.photo_count, CHUNK_PHOTOS):
            stop = min(start + CHUNK_PHOTOS, self.photos.photo_count)
            part: Tensor = yield Chore(_decoding(self.photos, model, start, stop))
            parts.append(part)
        return torch.cat(parts)

    def _visit(
        self, lens: Lens, course: _Course, index: int, photo: Tensor, source: int
    ) -> Program[_Course]:
        """Moves the perturbation for a photo, if that does not change class yet at 8 bits."""
        rounded = whole(course.perturbation, self.universal.budget)
        start = (lens.pixels(photo) + rounded).clamp(0, 255)
        made = yield from deep_fool(lens, start, self.universal.steps, source)
        if not made.finite:
            return replace(course, failed=index)
        perturbation = course.perturbation
        if made.crossed and made.step_count:
            perturbation = projected(perturbation + made.image - start, self.universal.budget)
        return replace(
            course,
            place=course.place + 1,
            arrived=course.arrived + (made.step_count == 0),
            perturbation=perturbation,
        )

    def _scored(
        self, lens: Lens, course: _Course, photos: Tensor, before: Tensor
    ) -> Program[_Course]:
        """The end of a pass, or of what was made of it."""
        rounded = whole(course.perturbation, self.universal.budget)
        after, finite = yield from _logits(lens, photos, rounded)
        failed, score = course.failed, -1.0
        if finite.all():
            score = float(fooled(before, after).double().mean())
        elif failed is None:
            failed = int(finite.int().argmin())
        better = score > course.score
        return replace(
            course,
            passed=course.passed + 1,
            place=0,
            arrived=0,
            best=rounded if better else course.best,
            score=max(score, course.score, 0.0),  # which no change has
            failed=failed,
        )

    # What is shown.

    def _state(self, course: _Course) -> Iterator[State]:
        if self.shows.checkpoint_every:
            yield State(self._snapshot(course))

    def _events(self, course: _Course) -> Iterator[Event]:
        total, shows = self._total(course), self.shows
        if total % shows.progress_every == 0:
            yield Event(self._progress(course))
        if shows.preview_every and total % shows.preview_every == 0:
            yield Event(Preview(0, total, as_picture(course.perturbation)))
        if shows.checkpoint_every and total % shows.checkpoint_every == 0:
            yield Event(self._snapshot(course))

    def _total(self, course: _Course) -> int:
        return course.passed * self.photos.photo_count + course.place

    def _progress(self, course: _Course) -> Progress:
        """Scored by the share of a pass's photos that had changed class when they were come to.

        At the end of a pass, the best so far of all photos at 8 bits.
        """
        score = course.arrived / course.place if course.place else course.score
        return Progress(0, self._total(course), score, (), 0.0, 0.0)

    def _snapshot(self, course: _Course) -> Snapshot:
        tensors = {"perturbation": course.perturbation, "best": course.best}
        numbers = {"arrived": float(course.arrived), "score": course.score}
        return Snapshot(0, course.passed, course.place, self._total(course), tensors, numbers)


_USUAL_CROSSINGS = 0.3
"""Share of the photos that are worked on after the first pass; in that, hardly any is spared."""


def _decoding(photos: PhotoSet, model: Model, start: int, stop: int) -> Callable[[Tensor], Tensor]:
    return lambda _: photos.decode(model, start, stop)


def _refuse(model: Model, finite: Tensor) -> None:
    """Names the photos, of N, that a network has no finite output for."""
    why = f"{model.name}'s output for it is not finite"
    violations = [
        Violation(f"photos[{place}]", why) for place, fine in enumerate(finite.tolist()) if not fine
    ]
    if violations:
        words = "; ".join(f"{found.field}: {found.description}" for found in violations)
        raise InvalidArgument(words, violations=violations)


def _logits(
    lens: Lens, photos: Tensor, perturbation: Tensor | None
) -> Program[tuple[Tensor, Tensor]]:
    """What the network makes of photos, uint8 N×3×H×W, at 8 bits.

    Returns:
        N×classes and whether they are finite, N, on the host.
    """
    parts: list[Tensor] = []
    finite: list[Tensor] = []
    for start in range(0, len(photos), CHUNK_PHOTOS):
        pixels = lens.pixels(photos[start : start + CHUNK_PHOTOS])
        if perturbation is not None:
            pixels = (pixels + perturbation).clamp(0, 255)
        traces = yield Rows(lens.inputs(pixels), TopTarget(), Want.LOGITS, may_fail=True)
        assert traces.logits is not None
        parts.append(traces.logits)
        finite.append(traces.finite)
    return torch.cat(parts), torch.cat(finite)


def projected(perturbation: Tensor, budget: Budget) -> Tensor:
    """The nearest that is within the budget."""
    if budget.norm == "linf":
        return perturbation.clamp(-budget.epsilon, budget.epsilon)
    return perturbation * min(1.0, budget.epsilon / max(float(perturbation.norm()), 1e-30))


def picture_gain(perturbation: Tensor) -> float:
    """What a perturbation is scaled by to be seen: its largest value to white or black."""
    largest = float(perturbation.abs().max())
    return (_GREY - 1) / largest if largest > 0 else 1.0


def as_picture(perturbation: Tensor) -> Tensor:
    """It, scaled by its gain about grey: 3×H×W, from 0 to 1."""
    return ((perturbation * picture_gain(perturbation) + _GREY) / 255).clamp(0, 1)
