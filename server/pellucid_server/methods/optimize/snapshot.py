"""What an optimization under way is, so that it goes on elsewhere: tensors and numbers by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...models.registry import Model


@dataclass(frozen=True)
class Snapshot:
    """The whole state of an image under way.

    Attributes:
        restart: Which of the job's images it is, from 0.
        octave: Which size it is at, from 0.
        step: Steps it has made in this octave.
        total: Steps it has made over all octaves.
        tensors: By name, as the method declares them.
        numbers: Likewise: finite or not, of float64.
        together: Whether it is worth something only beside those of images that have made as
            many steps, or one more or less.
        ended: Whether it goes no further, since its score or its gradient was not finite. It is
            then worth something beside all that have come as far.
        rounded: Whether its tensors were of half precision, and may lie beside what bounds them.
    """

    restart: int
    octave: int
    step: int
    total: int
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float] = field(default_factory=dict)
    together: bool = False
    ended: bool = False
    rounded: bool = False

    def fits(self, other: "Snapshot") -> bool:
        """Whether a job can go on from both."""
        if self.ended and other.ended:
            return True
        if self.ended or other.ended:
            ended, going = (self, other) if self.ended else (other, self)
            as_far = going.total >= ended.total or not ended.together
            return going.octave >= ended.octave and as_far
        apart = abs(self.total - other.total)
        return self.octave == other.octave and not (self.together and apart > 1)


@dataclass(frozen=True)
class Declared:
    """What every snapshot of a method holds at one size, and nothing else.

    Attributes:
        tensors: Shape and dtype of each, by name.
        numbers: Their names.
    """

    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    numbers: frozenset[str] = frozenset()


class Resumable(Protocol):
    """A method whose images go on from snapshots."""

    @property
    def image_count(self) -> int:
        """How many images a job has, each with a state of its own."""
        ...

    @property
    def states(self) -> tuple[Snapshot, ...]:
        """Where its images go on from, in their order; empty: from the start."""
        ...

    def declared(self, model: Model) -> Sequence[Declared]:
        """What their states hold, for each octave."""
        ...


_SHOWN = 3
"""Sets of snapshots that there can be at once: the one that waits to be taken, the one that is
being completed, and the one that is being sent."""


class Paced(Protocol):
    """Which checkpoints are made: see the contract's Ascend, Attack and Neural."""

    @property
    def checkpoint_every(self) -> int: ...
    @property
    def checkpoint_precision(self) -> str: ...


def snapshot_bytes(method: Resumable, model: Model) -> int:
    """Of the largest set of all images' snapshots; 0: the method makes none."""
    each = (
        sum(math.prod(shape) * dtype.itemsize for shape, dtype in one.tensors.values())
        for one in method.declared(model)
    )
    return method.image_count * max(each, default=0)


def held_bytes(method: Resumable, model: Model, paced: Paced) -> int:
    """Of all snapshots that a job holds on the host: those it makes, and those it came from."""
    each, byte_count = snapshot_bytes(method, model), 0
    if paced.checkpoint_every:
        byte_count += _SHOWN * each
        if paced.checkpoint_precision == "half":
            byte_count += each // 2  # made of the set that is being sent
    return byte_count + (each if method.states else 0)
