"""What an algorithm that attacks a photo gets, and what it makes.

Images are red, green and blue from 0 to 255, 3×H×W, of the network's own size, before any
normalization.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...engine.lockstep import in_step
from ...engine.rows import Ask, Program
from ...models.registry import Model
from ..optimize.ascent import MOST_STEPS
from ..optimize.snapshot import Declared, Snapshot
from ..optimize.stepper import AscentStepper, Progress
from ..parameters import Parameters, choice, number
from .lens import Lens

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Budget:
    """The most that a change may be.

    Attributes:
        norm: Of the change.
        epsilon: At least 1.
    """

    norm: Norm
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Shows(Parameters):
    """How often there is something to see of an attack: see the contract's Attack."""

    progress_every: int = number(10, 1, MOST_STEPS)
    preview_every: int = number(0, 0, MOST_STEPS)
    checkpoint_every: int = number(0, 0, MOST_STEPS)
    checkpoint_precision: str = choice("full")

    def irrelevant(self) -> Mapping[str, str]:
        return {} if self.checkpoint_every else {"checkpoint_precision": "needs checkpoint_every"}


@dataclass(frozen=True)
class Base:
    """The photo that is attacked, as the network sees it.

    Attributes:
        pixels: 3×H×W, whole numbers, in the dtype that is computed in beside the network.
        logits: One a class, on the host.
        source: The class that it is to be taken for no longer.
        goal: The class that it is to be taken for; None: any other than the source.
    """

    pixels: Tensor
    logits: Tensor
    source: int
    goal: int | None


@dataclass(frozen=True)
class Scene:
    """Everything that an algorithm needs besides its own parameters.

    Attributes:
        model: What is attacked.
        base: Its photo.
        bucket_size: What its batches are padded to.
        shows: Of its events.
        states: Where its images go on from, in the order of their seeds; empty: from the start.
    """

    model: Model
    base: Base
    bucket_size: int
    shows: Shows
    states: tuple[Snapshot, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        return self.model.network.height_px, self.model.network.width_px

    def inputs_of(self, pixels: Tensor) -> Tensor:
        """The network's inputs for images, n×3×H×W: to the bit what they are for photos."""
        return Lens.of(self.model).inputs(pixels)


@dataclass(frozen=True)
class Crafted:
    """An image that an algorithm made.

    Attributes:
        pixels: 3×H×W, not rounded to 8 bits.
        progress: How far it came.
        finite: False: it could not go on, and this is the last good image.
        farther: What is rounded to 8 bits in its place, where little would be left of its change.
    """

    pixels: Tensor
    progress: Progress
    finite: bool = True
    farther: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Algorithm(Parameters):
    """How a photo is attacked: parameters, and what is made of them."""

    name: ClassVar[str]
    """Of its message in the contract's Attack."""
    takes_goal: ClassVar[bool] = True
    scale: ClassVar[str] = ""
    """Its parameter that its rows grow with; empty: there is none."""
    kind: ClassVar[type] = AscentStepper
    """Of stepper, which its images step in with those of other jobs; Rows: they are in none."""

    @property
    def image_count(self) -> int:
        """Images that it makes."""
        return 1

    @property
    def first_seed(self) -> int:
        """Of its first image; the others' follow."""
        return 0

    @property
    @abstractmethod
    def step_total(self) -> int:
        """Steps of one image, at most."""

    def asks(self, done: int, bucket_size: int) -> Sequence[Ask]:
        """Its rows, as far as one knows before.

        Args:
            done: Steps of all images that were made already.
            bucket_size: Of its batches.
        """
        rows = self.step_total * self.image_count - done
        return [in_step(max(1, rows), self.image_count, bucket_size)]

    @property
    def budget(self) -> Budget | None:
        """The most that a change may be; None: it looks for the least."""
        return None

    @abstractmethod
    def byte_count(self, model: Model) -> int:
        """Bytes that it holds besides a few images."""

    def declared(self, model: Model) -> Sequence[Declared]:
        """What the states of its images hold, see Resumable; empty: it has none."""
        return []

    @abstractmethod
    def craft(self, scene: Scene) -> Program[Sequence[Crafted]]:
        """Its work: one image a seed."""
