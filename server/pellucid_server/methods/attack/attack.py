"""An attack as it is asked for: a small change of a photo that changes its class.

An algorithm crafts images, whatever their pixels are; they are rounded to 8 bits within its
budget, and what is told is what the network makes of those.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.job import Elsewhere, Priority
from ...engine.lockstep import Pace, Scale
from ...engine.rows import Ask, Chore, Lane, Program, Rows, Target, TopTarget, Want, counted
from ...errors import InvalidArgument, Violation
from ...models.registry import Model
from ..optimize.optimize import Buckets
from ..optimize.snapshot import Declared, Snapshot, held_bytes
from . import linear
from .algorithm import Algorithm, Base, Crafted, Scene, Shows
from .lens import Lens
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
        known: n: whether the network's output is finite at 8 bits; where it is not, the image at 8
            bits is the photo.
        linear: n: of each, for the source, and for the goal or else for what it is taken for.
        transfer: n: of each, what every model that was to look makes of it.
    """

    base: Base
    unrounded: Tensor
    unrounded_logits: Tensor
    pixels: Tensor
    logits: Tensor
    ends: tuple[Crafted, ...]
    known: tuple[bool, ...]
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
        return counted(self._asks(model))

    def _asks(self, model: Model) -> list[Ask]:
        done = sum(state.total for state in self.states)  # need not be paid for
        count = self.image_count
        bucket_size = self.buckets.of((model.network.height_px, model.network.width_px))
        return [
            Ask(Lane.FORWARD, 1),
            *self.algorithm.asks(done, bucket_size),
            Ask(Lane.FORWARD, 2 * count),
            *linear.asks(count, self._class_count, len(self.layers), bucket_size),
        ]

    @property
    def _class_count(self) -> int:
        """Classes of the linear view, at most."""
        return 2 if self.goal is not None else 1 + self.image_count

    @property
    def elsewhere(self) -> tuple[Elsewhere, ...]:
        """The rows that other models run."""
        return rows_elsewhere(self.models, self.buckets, self.image_count)

    def pace(self, model: Model) -> Pace:
        size = model.network.height_px, model.network.width_px
        algorithm, scale = self.algorithm, None
        if algorithm.scale and not self.states:  # a checkpoint is of the settings that it is of
            field, count = algorithm.scale, getattr(algorithm, algorithm.scale)
            scale = Scale(f"attack.{algorithm.name}.{field}", count, self._scaled)
        return Pace(self._asks(model), size, algorithm.kind, scale)

    def _scaled(self, count: int) -> "Attack":
        return replace(self, algorithm=replace(self.algorithm, **{self.algorithm.scale: count}))

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        images = _IMAGES * self.algorithm.image_count * 3 * model.network.pixel_count * 8
        layers = [layer for name in self.layers if (layer := model.network.layer(name))]
        sizes = [math.prod(layer.shape) for layer in layers]
        # Of all layers slopes, the photo's and a batch's activations; of one they are float64, too.
        each = self._class_count + 1 + self.buckets.bucket_size
        looked_at = each * model.precision.dtype.itemsize * sum(sizes)
        looked_at += 8 * (each + 3) * max(sizes, default=0)
        shown = held_bytes(self, model, self.shows)
        return images + looked_at + shown + self.algorithm.byte_count(model)

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Attacked]:
        """Args are those of every method, but that the image is all photos, 1×3×H×W."""
        scene = yield from self._scene(model, image.device)
        crafted = yield from self.algorithm.craft(scene)
        count, base = len(crafted), scene.base
        unrounded = torch.stack([one.pixels for one in crafted])
        nearest = [
            rounded(
                one.pixels if one.farther is None else one.farther,
                base.pixels,
                self.algorithm.budget,
            )
            for one in crafted
        ]
        images, logits, finite = yield from _good(
            scene, torch.cat([unrounded, torch.stack(nearest).to(unrounded)])
        )
        pixels, after = images[count:].byte(), logits[count:]
        host = pixels.cpu()
        ends = tuple(
            replace(one, finite=one.finite and fine)
            for one, fine in zip(crafted, finite[:count].tolist(), strict=True)
        )
        classes = [
            dict.fromkeys((base.source, best if base.goal is None else base.goal))
            for best in after.argmax(1).tolist()
        ]
        views = yield from linear_views(scene, pixels, [[*one] for one in classes], self.layers)
        seen = yield from transfers(scene, self.models, host, self.buckets)
        return Attacked(
            base,
            images[:count],
            logits[:count],
            host,
            after,
            ends,
            tuple(finite[count:].tolist()),
            tuple(views),
            tuple(seen),
        )

    def _scene(self, model: Model, device: torch.device) -> Program[Scene]:
        """The photo, and what the network takes it for.

        Raises:
            InvalidArgument: For the goal already.
        """
        lens = Lens.of(model, torch.device("cpu"))
        host: Tensor = yield Chore(lambda inputs: lens.photo(inputs[0]))
        dtype = torch.float64 if model.network.dtype is torch.float64 else torch.float32
        pixels = host.to(device, dtype)
        bucket_size = self.buckets.of((pixels.shape[1], pixels.shape[2]))
        unknown = Scene(
            model, Base(pixels, torch.empty(0), -1, self.goal), bucket_size, self.shows, self.states
        )
        traces = yield _look(unknown, pixels[None])
        assert traces.logits is not None
        [logits] = traces.logits
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


def _look(scene: Scene, pixels: Tensor, *, may_fail: bool = False) -> Rows:
    """For what the network makes of images, n×3×H×W."""
    inputs = scene.inputs_of(pixels)
    return Rows(inputs, TopTarget(), Want.LOGITS, bucket_size=scene.bucket_size, may_fail=may_fail)


def _good(scene: Scene, pixels: Tensor) -> Program[tuple[Tensor, Tensor, Tensor]]:
    """Images, n×3×H×W, and what the network makes of them.

    Where that is not finite, the last good image is the photo: it is in its place.

    Returns:
        Images; n×classes and whether they were finite, n, on the host.
    """
    traces, base = (yield _look(scene, pixels, may_fail=True)), scene.base
    assert traces.logits is not None
    finite: Tensor = traces.finite
    there = finite.to(pixels.device).view(-1, 1, 1, 1)
    images = torch.where(there, pixels, base.pixels)
    return images, torch.where(finite[:, None], traces.logits, base.logits), finite
