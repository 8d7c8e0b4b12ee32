"""What an optimization under way is, so that it goes on elsewhere: tensors and numbers by name."""

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
    """

    restart: int
    octave: int
    step: int
    total: int
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float] = field(default_factory=dict)
    together: bool = False

    def fits(self, other: "Snapshot") -> bool:
        """Whether a job can go on from both."""
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

    def declared(self, model: Model) -> Sequence[Declared]:
        """What their states hold, for each octave."""
        ...
