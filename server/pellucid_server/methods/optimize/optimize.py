"""Optimization as it is asked for: what an image is to be good for, and how it becomes so."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.job import Priority
from ...engine.lockstep import Climb, Pace, Scale, in_step
from ...engine.rows import (
    Ask,
    Chore,
    CodeTarget,
    DirectionTarget,
    DiversityTarget,
    EnergyTarget,
    Goal,
    GuideTarget,
    Lane,
    Program,
    Rows,
    SumTarget,
    Target,
    Want,
    counted,
)
from ...engine.siblings import Siblings, state_names
from ...errors import FailedPrecondition, Violation
from ...models.network import OUTPUT
from ...models.registry import Model
from ...models.sizes import UnfitSize
from .ascent import Ascent
from .prelude import parameter_count
from .snapshot import Declared, Snapshot, held_bytes
from .stepper import STATE, AscentStepper, End, Start, end_of, numbers_of

_SMALL_PIXELS = 512 * 512

STACKED = len(STATE)
"""Tensors of an image's size that a slot holds."""


_SCORING = 16
"""Activations' worth of memory that scoring takes, one layer after the other: measured."""


@dataclass(frozen=True)
class FromPhoto:
    """A goal that is made of a photo's activation.

    Attributes:
        kind: Of goal.
        layer: Whose activation.
        photo: Which of the source's photos, from 0.
    """

    kind: type[CodeTarget] | type[GuideTarget]
    layer: str
    photo: int


@dataclass(frozen=True)
class Apart:
    """A goal that is made of the job's other images: to be unlike them.

    Attributes:
        layer: Of channels × height × width.
        channel_count: Of the layer.
    """

    layer: str
    channel_count: int


Objective = Goal | FromPhoto | Apart
"""A goal, or what it is made of."""


@dataclass(frozen=True)
class Buckets:
    """What batches of optimizations are padded to: of settings, device and size alone.

    Attributes:
        bucket_size: Of images of at most 512 × 512 pixels; of larger ones it is 1.
    """

    bucket_size: int

    def of(self, size: tuple[int, int]) -> int:
        return self.bucket_size if math.prod(size) <= _SMALL_PIXELS else 1

    @property
    def most_pixels(self) -> int:
        """Of a batch of more than one image."""
        return self.bucket_size * _SMALL_PIXELS


@dataclass(frozen=True)
class Optimized:
    """What came of all images of a job, in the order of their seeds.

    Attributes:
        ends: Each with its scores, and whether it could be made to the end. One that could not is
            of the octave that it came to.
    """

    ends: tuple[End, ...]

    @property
    def pictures(self) -> list[Tensor]:
        """3×H×W each, red, green and blue from 0 to 1."""
        return [end.picture for end in self.ends]


@dataclass(frozen=True)
class Optimize:
    """An image that climbs a weighted sum of objectives.

    Attributes:
        objectives: Goals, or what they are made of, with their weights.
        ascent: How.
        buckets: Of its batches.
        states: Where its images go on from, in the order of their seeds; all of one octave, but
            for those that have ended.
    """

    objectives: tuple[tuple[Objective, float], ...]
    ascent: Ascent
    buckets: Buckets
    states: tuple[Snapshot, ...] = ()

    name: ClassVar[str] = "optimize"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    @property
    def image_count(self) -> int:
        return self.ascent.restart_count

    @property
    def step_total(self) -> int:
        """Steps of one image, over all octaves."""
        return self.ascent.step_total

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        """In rows of the network's own size that cost as much."""
        return counted(self._asks(model))

    def _asks(self, model: Model) -> list[Ask]:
        own, ascent = model.network.pixel_count, self.ascent
        octaves = [height * width for height, width in ascent.octave_sizes]
        pixels = sum(octaves)
        seen = ascent.step_count * pixels + octaves[-1]  # an image is scored as it ends
        steps = seen * ascent.restart_count / own
        for state in self.states:  # what is done need not be paid for
            done = ascent.step_count * sum(octaves[: state.octave])
            steps -= (seen if state.ended else done + state.step * octaves[state.octave]) / own
        photos = [goal for goal, _ in self.objectives if isinstance(goal, FromPhoto)]
        codes = len(photos) * pixels / own
        climb = in_step(
            max(1, math.ceil(steps)),
            ascent.restart_count,
            self.buckets.of((ascent.height_px, ascent.width_px)),
            in_rounds=bool(self._layers_apart),
        )
        return [climb, *([Ask(Lane.FORWARD, math.ceil(codes))] if photos else [])]

    def pace(self, model: Model) -> Pace:
        ascent = self.ascent
        scale = Scale("ascend.step_count", ascent.step_count, self._of_steps)
        return Pace(
            self._asks(model),
            (ascent.height_px, ascent.width_px),
            AscentStepper,
            None if self.states else scale,  # a checkpoint is of the settings that it is of
        )

    def _of_steps(self, step_count: int) -> "Optimize":
        return replace(self, ascent=replace(self.ascent, step_count=step_count))

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        ascent = self.ascent
        slot = (STACKED + ascent.bounded) * parameter_count(ascent.height_px, ascent.width_px)
        slot *= 2  # slots come in twos of what there was
        for layer, channel_count in self._layers_apart.items():
            slot += len(state_names(layer)) * channel_count**2
        slots = slot * dtype_of(model).itemsize * ascent.restart_count
        shown = held_bytes(self, model, ascent)
        return slots + shown + self._goal_bytes(model)

    def _goal_bytes(self, model: Model) -> int:
        """What a batch of its images keeps of the layers that goals are of, and the codes."""
        ascent, network = self.ascent, model.network
        size = (ascent.height_px, ascent.width_px)
        shapes = network.shapes_at(*size)
        made = FromPhoto | Apart
        taps = [goal.layer if isinstance(goal, made) else goal.tap for goal, _ in self.objectives]
        photos = [goal.layer for goal, _ in self.objectives if isinstance(goal, FromPhoto)]
        codes = sum(math.prod(shapes[layer]) for layer in photos) * network.dtype.itemsize
        rows = min(ascent.restart_count, self.buckets.of(size))
        return rows * scoring_bytes(model, size, taps) + codes

    @property
    def _layers_apart(self) -> Mapping[str, int]:
        """The layers in which images are unlike each other, and their channels."""
        goals = [goal for goal, _ in self.objectives if isinstance(goal, Apart)]
        return {goal.layer: goal.channel_count for goal in goals}

    def declared(self, model: Model) -> Sequence[Declared]:
        dtype = dtype_of(model)
        grams: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            name: ((channel_count, channel_count), dtype)
            for layer, channel_count in self._layers_apart.items()
            for name in state_names(layer)
        }
        numbers = frozenset(numbers_of(len(self.objectives)))
        return [
            Declared(grams | {name: ((parameter_count(*size),), dtype) for name in STATE}, numbers)
            for size in self.ascent.octave_sizes
        ]

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Optimized]:
        """Args are those of every method, but that the image is all photos, n×3×H×W."""
        ascent, steps = self.ascent, model.preprocessing
        network = model.network
        dtype = dtype_of(model)
        std = torch.tensor(steps.std, dtype=dtype, device=image.device).view(3, 1, 1)
        photos = image.to(dtype) * (255 * std)
        sizes = ascent.octave_sizes
        if len(sizes) > 2:
            yield Chore(lambda _: _check_sizes(model, sizes[1:-1]))
        bases: list[Tensor | None] = [None] * len(sizes)
        if ascent.start == "photo":
            bases = [resized(photos[:1], size)[0] for size in sizes]
        siblings = {
            layer: Siblings(ascent.restart_count, layer, channel_count, dtype, network.device)
            for layer, channel_count in self._layers_apart.items()
        }
        ends: list[End | None] = [None] * ascent.restart_count
        first = max((state.octave for state in self.states), default=0)
        for octave, (size, base) in enumerate(zip(sizes, bases, strict=True)):
            if octave < first:
                continue
            if all(end is not None and not end.finite for end in ends):
                break
            states: Sequence[Snapshot | None] = [None] * ascent.restart_count
            if self.states and octave == first:
                states = self.states
            bucket_size = self.buckets.of(size)
            target_there = yield from self._target(
                photos, size, bucket_size, std, network.dtype, siblings
            )
            last = octave == len(sizes) - 1
            over: dict[int, End] = {}
            for k, state in enumerate(states):
                if state is not None and (
                    state.ended or (state.step == ascent.step_count and not last)
                ):
                    at, anchor = sizes[state.octave], bases[state.octave]
                    start = Start(
                        ascent, target_there, None, k, state.octave, last, state, anchor=anchor
                    )
                    over[k] = end_of(stepper_of(model, at, self.buckets.of(at)), start)
            climbing = [
                k for k, end in enumerate(ends) if k not in over and (end is None or end.finite)
            ]
            make = functools.partial(stepper_of, model, size, bucket_size)
            starts = [grown(ends[k], bases[octave - 1], base, size) for k in climbing]
            images = [
                Start(ascent, target_there, start, k, octave, last, states[k], anchor=base)
                for k, start in zip(climbing, starts, strict=True)
            ]
            before = octave * ascent.step_count
            steps_made = [before if (state := states[k]) is None else state.total for k in climbing]
            rounds = steps_made if siblings else None
            climb = Climb(size, bucket_size, AscentStepper, make, images, rounds)
            made = (yield climb) if climbing else ()
            for k, end in (*over.items(), *zip(climbing, made, strict=True)):
                ends[k] = end
        return Optimized(tuple(end for end in ends if end is not None))

    def _target(
        self,
        photos: Tensor,
        size: tuple[int, int],
        bucket_size: int,
        std: Tensor,
        dtype: torch.dtype,
        siblings: Mapping[str, Siblings],
    ) -> Program[SumTarget]:
        """The sum of all objectives, those of photos as they are at a size."""
        terms: list[tuple[Goal, float]] = []
        for goal, weight in self.objectives:
            if isinstance(goal, FromPhoto):
                photo = resized(photos[goal.photo][None], size) / (255 * std)
                traces = yield Rows(
                    photo.to(dtype),
                    SumTarget(((EnergyTarget(goal.layer), 1.0),)),
                    Want.ACTIVATION,
                    layers=(goal.layer,),
                    bucket_size=bucket_size,
                )
                activation = traces.activations[goal.layer][0]
                terms.append((_goal_of(goal, activation), weight))
            elif isinstance(goal, Apart):
                terms.append((DiversityTarget(goal.layer, siblings[goal.layer]), weight))
            elif isinstance(goal, DirectionTarget):
                vector = goal.vector.to(photos.device, dtype)
                terms.append((replace(goal, vector=vector), weight))
            else:
                terms.append((goal, weight))
        return SumTarget(tuple(terms))


def scoring_bytes(model: Model, size: tuple[int, int], taps: Sequence[str]) -> int:
    """What a row keeps of the layers that its goals are of, and what scoring them takes."""
    shapes = model.network.shapes_at(*size)
    lengths = {tap: math.prod(shapes[tap]) for tap in taps if tap != OUTPUT}
    row = 2 * sum(lengths.values()) + _SCORING * max(lengths.values(), default=0)
    return row * model.network.dtype.itemsize


def _check_sizes(model: Model, sizes: Sequence[tuple[int, int]]) -> None:
    """Tries sizes of octaves between two that fit: hardly any network takes only those.

    Raises:
        FailedPrecondition: The network does not take one.
    """
    for size in sizes:
        try:
            model.network.shapes_at(*size)
        except UnfitSize as unfit:
            where = "" if unfit.layer is None else f": it gets no further than {unfit.layer}"
            found = Violation(
                "ascend.octave_scale",
                f"{model.name} does not run on the octave of {size[0]} × {size[1]}{where}",
            )
            words = f"{found.field}: {found.description}"
            raise FailedPrecondition(words, violations=[found]) from None


def dtype_of(model: Model) -> torch.dtype:
    """Of the arithmetic beside the network."""
    return torch.float64 if model.network.dtype is torch.float64 else torch.float32


def stepper_of(model: Model, size: tuple[int, int], bucket_size: int) -> AscentStepper:
    """The slots of images of a size."""
    steps, network = model.preprocessing, model.network
    return AscentStepper(
        size,
        steps.mean,
        steps.std,
        bucket_size,
        dtype_of(model),
        network.dtype,
        network.device,
    )


def _goal_of(goal: FromPhoto, activation: Tensor) -> Goal:
    if goal.kind is GuideTarget:
        return GuideTarget(goal.layer, activation.flatten(1))
    energy = float(activation.double().square().sum())
    return CodeTarget(goal.layer, activation, max(energy, 1e-30))


def grown(
    end: End | None, base_before: Tensor | None, base: Tensor | None, size: tuple[int, int]
) -> Tensor | None:
    """Where an image starts, 3×H×W: from the base, with what the octave before added to its own."""
    if end is None or base is None or base_before is None:
        return base if end is None else resized(end.image[None], size)[0]
    return base + resized((end.image - base_before)[None], size)[0]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """N×C×H×W at another height and width, bilinearly; small ones are averages."""
    if images.shape[2:] == size:
        return images
    smaller = size[0] < images.shape[2]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)
