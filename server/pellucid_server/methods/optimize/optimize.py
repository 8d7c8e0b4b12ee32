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
from ...engine.lockstep import Climb, Pace
from ...engine.rows import (
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
)
from ...engine.siblings import Siblings, state_names
from ...models.registry import Model
from .ascent import Ascent
from .prelude import parameter_count
from .snapshot import Declared, Snapshot
from .stepper import STATE, AscentStepper, End, Start

_SMALL_PIXELS = 512 * 512

STACKED = 1 + len(STATE)
"""Tensors of an image's size that a slot holds: its state, and the last good image."""


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


@dataclass(frozen=True)
class Optimized:
    """What came of all images of a job, in the order of their seeds.

    Attributes:
        pictures: 3×H×W each, red, green and blue from 0 to 1.
        ends: Their scores, and whether they could be made to the end.
    """

    pictures: Tensor
    ends: tuple[End, ...]


@dataclass(frozen=True)
class Optimize:
    """An image that climbs a weighted sum of objectives.

    Attributes:
        objectives: Goals, or what they are made of, with their weights.
        ascent: How.
        buckets: Of its batches.
        states: Where its images go on from, in the order of their seeds; all of one octave.
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
        own, ascent = model.network.pixel_count, self.ascent
        octaves = [height * width for height, width in ascent.octave_sizes]
        pixels = sum(octaves)
        seen = ascent.step_count * pixels + octaves[-1]  # an image is scored as it ends
        steps = seen * ascent.restart_count / own
        for state in self.states:  # what is done need not be paid for
            done = ascent.step_count * sum(octaves[: state.octave])
            steps -= (done + state.step * octaves[state.octave]) / own
        photos = [goal for goal, _ in self.objectives if isinstance(goal, FromPhoto)]
        codes = len(photos) * pixels / own
        counts = {Lane.GRADIENT: max(1, math.ceil(steps))}
        return counts | ({Lane.FORWARD: math.ceil(codes)} if photos else {})

    def pace(self, model: Model) -> Pace:
        ascent = self.ascent
        size = (ascent.height_px, ascent.width_px)
        return Pace(ascent.restart_count, size, in_rounds=bool(self._layers_apart))

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        ascent = self.ascent
        slot = (STACKED + ascent.bounded) * parameter_count(ascent.height_px, ascent.width_px)
        slot *= 2  # slots come in twos of what there was
        for layer, channel_count in self._layers_apart.items():
            slot += len(state_names(layer)) * channel_count**2
        return slot * dtype_of(model).itemsize * ascent.restart_count

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
        return [
            Declared(grams | {name: ((parameter_count(*size),), dtype) for name in STATE})
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
        bases: list[Tensor | None] = [None] * len(sizes)
        if ascent.start == "photo":
            bases = [resized(photos[:1], size)[0] for size in sizes]
        siblings = {
            layer: Siblings(ascent.restart_count, layer, channel_count, dtype, network.device)
            for layer, channel_count in self._layers_apart.items()
        }
        details: Sequence[Tensor] | None = None
        ends: list[End] = []
        for octave, (size, base) in enumerate(zip(sizes, bases, strict=True)):
            states: Sequence[Snapshot | None] = [None] * ascent.restart_count
            if self.states:
                if octave < self.states[0].octave:
                    continue
                states = self.states if octave == self.states[0].octave else states
            bucket_size = self.buckets.of(size)
            target_there = yield from self._target(
                photos, size, bucket_size, std, network.dtype, siblings
            )
            starts = [base] * ascent.restart_count
            if details is not None:
                starts = [
                    detail if base is None else base + detail
                    for detail in (resized(one[None], size)[0] for one in details)
                ]
            make = functools.partial(stepper_of, model, size, bucket_size)
            last = octave == len(sizes) - 1
            images = [
                Start(ascent, target_there, start, restart, octave, last, state, anchor=base)
                for restart, (start, state) in enumerate(zip(starts, states, strict=True))
            ]
            steps_made = [0 if state is None else state.total for state in states]
            rounds = steps_made if siblings else None
            ends = yield Climb(size, bucket_size, AscentStepper, make, images, rounds)
            if not all(end.finite for end in ends):
                break
            details = [end.image if base is None else end.image - base for end in ends]
        return Optimized(torch.stack([end.picture for end in ends]), tuple(ends))

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
                    layer=goal.layer,
                    bucket_size=bucket_size,
                )
                assert traces.activation is not None
                terms.append((_goal_of(goal, traces.activation[0]), weight))
            elif isinstance(goal, Apart):
                terms.append((DiversityTarget(goal.layer, siblings[goal.layer]), weight))
            elif isinstance(goal, DirectionTarget):
                vector = goal.vector.to(photos.device, dtype)
                terms.append((replace(goal, vector=vector), weight))
            else:
                terms.append((goal, weight))
        return SumTarget(tuple(terms))


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


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """N×C×H×W at another height and width, bilinearly; small ones are averages."""
    if images.shape[2:] == size:
        return images
    smaller = size[0] < images.shape[2]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)
