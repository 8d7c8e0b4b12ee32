"""An attack as it is asked for: a small change of a photo that changes its class.

An algorithm crafts images, whatever their pixels are; they are rounded to 8 bits within its
budget, and what is told is what the network makes of those.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.job import Elsewhere, Priority
from ...engine.lockstep import Pace
from ...engine.rows import Chore, Lane, Program, Rows, Target, TopTarget, Want
from ...errors import InvalidArgument, Violation
from ...models.registry import Model
from ..optimize.optimize import Buckets
from ..optimize.snapshot import Declared, Snapshot, held_bytes
from . import linear
from .algorithm import Algorithm, Base, Crafted, Scene, Shows
from .linear import LinearView, linear_views
from .rounding import rounded
from .transfer import Transferred, rows_elsewhere, transfers


@dataclass(frozen=True)
class Attacked:
    """What came of an attack: n images, in the order of their seeds.

    Tensors are stacked, so that all are on the host when the result is handed over.

    Attributes:
        base: The photo.
        unrounded: n×3×H×W, from 0 to 255, as they were crafted.
        unrounded_logits: n×classes.
        pixels: n×3×H×W, uint8: the images at 8 bits.
        logits: n×classes: theirs.
        ends: n: how far each of them came.
        linear: n: of each, for the source, and for the goal or else for what it is taken for.
        transfer: n: of each, what every model that was to look makes of it.
    """

    base: Base
    unrounded: Tensor
    unrounded_logits: Tensor
    pixels: Tensor
    logits: Tensor
    ends: tuple[Crafted, ...]
    linear: tuple[tuple[LinearView, ...], ...]
    transfer: tuple[tuple[Transferred, ...], ...]

    def succeeded(self, logits: Tensor) -> list[bool]:
        """Whether images of these logits, n×classes, are taken for what they are to be."""
        classes, base = logits.argmax(1), self.base
        wanted = classes != base.source if base.goal is None else classes == base.goal
        made: list[bool] = wanted.tolist()
        return made


@dataclass(frozen=True)
class Attack:
    """A photo that is changed by an algorithm.

    Attributes:
        algorithm: Which, and its parameters.
        source: The class that the photo is to be taken for no longer; None: its best one.
        goal: The class that it is to be taken for; None: any other.
        shows: How often there is something to see.
        buckets: Of its batches.
        layers: At which the change's effect is predicted, besides the image itself.
        models: That look at what comes of it.
        states: Where its images go on from, in the order of their seeds.
        goal_field: What the request calls the goal.
    """

    algorithm: Algorithm
    source: int | None
    goal: int | None
    shows: Shows
    buckets: Buckets
    layers: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    states: tuple[Snapshot, ...] = ()
    goal_field: str = "attack.goal_class_index"

    name: ClassVar[str] = "optimize"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    @property
    def image_count(self) -> int:
        return self.algorithm.image_count

    @property
    def step_total(self) -> int:
        """Steps of one image."""
        return self.algorithm.step_total

    def declared(self, model: Model) -> Sequence[Declared]:
        return self.algorithm.declared(model)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        done = sum(state.total for state in self.states)  # need not be paid for
        count, layer_count = self.image_count, len(self.layers)
        class_count = 2 if self.goal is not None else 1 + count
        forward, gradient = linear.row_counts(count, class_count, layer_count)
        return {
            Lane.FORWARD: 1 + 2 * count + forward,
            Lane.GRADIENT: max(1, self.algorithm.gradient_row_count - done) + gradient,
        }

    @property
    def elsewhere(self) -> tuple[Elsewhere, ...]:
        """The rows that other models run."""
        return rows_elsewhere(self.models, self.buckets, self.image_count)

    def pace(self, model: Model) -> Pace | None:
        network, kind = model.network, self.algorithm.stepper
        if kind is None:
            return None
        return Pace(self.image_count, (network.height_px, network.width_px), kind=kind)

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        images = _IMAGES * self.algorithm.image_count * 3 * model.network.pixel_count * 8
        layers = [layer for name in self.layers if (layer := model.network.layer(name))]
        largest = max((math.prod(layer.shape) for layer in layers), default=0)
        each = self.buckets.bucket_size + 3 + self.image_count
        shown = held_bytes(self, model, self.shows.checkpoint_every)
        return images + 8 * each * largest + shown + self.algorithm.byte_count(model)

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Attacked]:
        """Args are those of every method, but that the image is all photos, 1×3×H×W."""
        scene = yield from self._scene(model, image.device)
        crafted = yield from self.algorithm.craft(scene)
        unrounded = torch.stack([one.pixels for one in crafted])
        pixels = torch.stack(
            [
                rounded(
                    one.pixels if one.farther is None else one.farther,
                    scene.base.pixels,
                    self.algorithm.budget,
                )
                for one in crafted
            ]
        )
        logits = yield from logits_of(scene, torch.cat([unrounded, pixels.to(unrounded)]))
        before, after = logits[: len(crafted)], logits[len(crafted) :]
        base, host = scene.base, pixels.cpu()
        classes = [
            dict.fromkeys((base.source, best if base.goal is None else base.goal))
            for best in after.argmax(1).tolist()
        ]
        views = yield from linear_views(scene, pixels, [[*one] for one in classes], self.layers)
        seen = yield from transfers(scene, self.models, host, self.buckets)
        return Attacked(
            base, unrounded, before, host, after, tuple(crafted), tuple(views), tuple(seen)
        )

    def _scene(self, model: Model, device: torch.device) -> Program[Scene]:
        """The photo, and what the network takes it for.

        Raises:
            InvalidArgument: For the goal already.
        """
        host: Tensor = yield Chore(lambda inputs: photo_of(model, inputs[0]))
        dtype = torch.float64 if model.network.dtype is torch.float64 else torch.float32
        pixels = host.to(device, dtype)
        bucket_size = self.buckets.of((pixels.shape[1], pixels.shape[2]))
        unknown = Scene(
            model, Base(pixels, torch.empty(0), -1, self.goal), bucket_size, self.shows, self.states
        )
        [logits] = yield from logits_of(unknown, pixels[None])
        source = int(logits.argmax()) if self.source is None else self.source
        if source == self.goal:
            found = Violation(
                self.goal_field,
                f"is class {source}, {model.labels[source]}, which the photo is taken for already",
            )
            raise InvalidArgument(f"{found.field}: {found.description}", violations=[found])
        base = Base(pixels, logits, source, self.goal)
        return Scene(model, base, bucket_size, self.shows, self.states)


_IMAGES = 4
"""Tensors of an image's size that each result holds: crafted, rounded, and both as inputs."""


def logits_of(scene: Scene, pixels: Tensor) -> Program[Tensor]:
    """What the network makes of images, n×3×H×W: n×classes, on the host."""
    traces = yield Rows(
        scene.inputs_of(pixels), TopTarget(), Want.LOGITS, bucket_size=scene.bucket_size
    )
    assert traces.logits is not None
    logits: Tensor = traces.logits
    return logits


def photo_of(model: Model, normalized: Tensor) -> Tensor:
    """A preprocessed photo, 3×H×W, as the whole numbers from 0 to 255 that it was."""
    steps = model.preprocessing
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64).view(3, 1, 1)
        for numbers in (steps.mean, steps.std)
    )
    return ((normalized.double() * std + mean) * 255).round().clamp(0, 255)
