"""Jobs that advance in lock step: they hold slots in stacked tensors that one update moves.

A job joins by taking slots and leaves by freeing them, at any step. Slots are rows of the
schedule like any other: what is special is that their images are made, and their gradients
used, by a stepper, for all slots of a batch at once.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..models.network import Network
from ..models.registry import Model
from .rows import Ask, Lane, Rows, SumTarget, Want


class Stepper(Protocol):
    """The slots of one size, and how they move. Used on the engine thread alone."""

    def join(self, start: Any) -> int:
        """Takes a slot for an image; returns its number."""
        ...

    def leave(self, slot: int) -> None:
        """Frees a slot."""
        ...

    def look(self, slots: Sequence[int]) -> tuple[Tensor, Any]:
        """The network's inputs for these slots, n×3×H×W, and what step needs of them again."""
        ...

    def target(self, slot: int) -> SumTarget: ...

    def step(
        self, looked: Any, gradient: Tensor, scores: Sequence[float], terms: Tensor, moved: set[int]
    ) -> Mapping[int, "Moved"]:
        """Moves those that were looked at by the gradient of their scores.

        Args:
            looked: What look returned.
            gradient: N×3×H×W, of the scores by the inputs; the looked at come first.
            scores: One for each that was looked at.
            terms: Their terms' scores, n×terms, float64, on the host.
            moved: The places, among those looked at, that move.

        Returns:
            For places where there is something to tell: what.
        """
        ...

    def snapshot(self, slot: int) -> Any:
        """The slot's whole state, for the job's outlet; None where nobody asked for it."""
        ...

    def stop(self, slot: int) -> "Moved":
        """Ends a slot that cannot go on: its score or its gradient is not finite."""
        ...


@dataclass(frozen=True)
class Moved:
    """What there is to tell of a slot after a step.

    Attributes:
        shown: What its job's outlet is handed.
        end: What the slot ends with, where it has made its last step.
    """

    shown: Sequence[Any] = ()
    end: Any = None


@dataclass(frozen=True)
class Scale:
    """A field of a request that its rows grow with.

    Attributes:
        field: Which.
        count: What it is.
        at: The method, were it so many.
    """

    field: str
    count: int
    at: Callable[[int], Any]


@dataclass(frozen=True)
class Pace:
    """How a job asks for rows that wait for each other: for some, and then for the next.

    Attributes:
        asks: All of its rows.
        size: Of its images, height and width; of the last ones where there are several.
        kind: Only rows of jobs of one kind fill each other's batches, and of one model, size and
            bucket: a kind of stepper, or Rows of those that are in none.
        scale: What less may be asked for of; None: there is nothing.
    """

    asks: Sequence[Ask]
    size: tuple[int, int]
    kind: Hashable
    scale: Scale | None = None


def in_step(
    row_count: float, image_count: int, bucket_size: int, *, in_rounds: bool = False
) -> Ask:
    """The rows with gradients of images that a job has step: one of each, and then the next.

    Args:
        row_count: Of all images.
        image_count: How many there are.
        bucket_size: Of their batches, which more images fill up, whichever they are.
        in_rounds: Whether no image makes a step before all have made the step before.
    """
    at_once = image_count if in_rounds else min(image_count, bucket_size)
    return Ask(Lane.GRADIENT, at_once, row_count / at_once)


@dataclass(frozen=True)
class Climb:
    """What a method yields to have images optimized; it gets what each of them ends with.

    Attributes:
        size: Of the images, height and width.
        bucket_size: What their batches are padded to, whoever else is in them: a function of
            settings, device and size, so that bits are the same on every replica.
        kind: What, with model, size and bucket, tells steppers apart.
        make: A stepper, where there is none of that kind yet.
        starts: One for each image.
        rounds: None: each image makes its next step when there is room in a batch. Otherwise how
            many steps each has made: no image makes a step before all others have made those
            before it, but for those that have ended.
        model: Whose network they go through, where it is not the job's: the job's with a twin of
            its network.
    """

    size: tuple[int, int]
    bucket_size: int
    kind: Hashable
    make: Callable[[], Stepper]
    starts: Sequence[Any]
    rounds: Sequence[int] | None = None
    model: Model | None = None


class Group:
    """The jobs of one stepper.

    Args:
        stepper: Their slots.
    """

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.slot_count = 0


class Climbing:
    """Slots that a job waits for, as they are taken, run and moved."""

    lane = Lane.GRADIENT
    turn = 0
    """The batch that a slot of it was last taken into."""

    def __init__(self, group: Group, climb: Climb) -> None:
        self.group, self.model = group, climb.model
        self.size, self.bucket_size = climb.size, climb.bucket_size
        self._slots: list[int] = []
        self.suspects: list[int] = []  # places that were not finite and are run again, alone
        self._ends: dict[int, Any] = {}
        try:
            for start in climb.starts:
                self._slots.append(group.stepper.join(start))
                group.slot_count += 1
        except BaseException:
            self.close()
            raise
        self._untaken = list(range(len(self._slots) - 1, -1, -1))
        self._rounds = None if climb.rounds is None else list(climb.rounds)
        self._early: list[int] = []  # places that wait for the others of their round
        if self._rounds is not None:
            self._early, self._untaken = self._untaken, []
            self._begin_round(self._rounds)

    @property
    def waiting(self) -> int:
        return len(self._untaken)

    @property
    def ended(self) -> bool:
        return len(self._ends) == len(self._slots)

    def take(self) -> int:
        return self._untaken.pop()

    def slot(self, place: int) -> int:
        return self._slots[place]

    def settle(self, place: int, end: Any) -> None:
        """It has moved: it ends so, or waits for its next step behind the job's others."""
        if end is not None:
            self._ends[place] = end
        elif self._rounds is None:
            self._untaken.insert(0, place)
        else:
            self._rounds[place] += 1
            self._early.append(place)
        if self._rounds is not None:
            self._begin_round(self._rounds)

    def _begin_round(self, rounds: Sequence[int]) -> None:
        """Those that have made fewest steps go on, once nobody is on the way there."""
        least = min((n for place, n in enumerate(rounds) if place not in self._ends), default=0)
        self._untaken += [place for place in self._early if rounds[place] == least]
        self._early = [place for place in self._early if rounds[place] > least]

    def snapshots(self) -> list[Any]:
        """The whole state of every image, as it ended too; empty where nobody asked for it."""
        made = [self.group.stepper.snapshot(slot) for slot in self._slots]
        return [one for one in made if one is not None]

    @property
    def ends(self) -> list[Any]:
        """What each image ended with, in their order."""
        return [self._ends[place] for place in range(len(self._slots))]

    def scale(self, network: Network) -> float:
        """What a row of it costs, relative to one of the network's own size."""
        return self.size[0] * self.size[1] / network.pixel_count

    def close(self) -> None:
        """Frees the slots."""
        for slot in self._slots:
            self.group.stepper.leave(slot)
            self.group.slot_count -= 1
        self._slots = []


def rows_of(stepper: Stepper, slots: Sequence[int]) -> tuple[list[tuple[Rows, int]], Any]:
    """What the device is to run for these slots, and what step needs of it."""
    images, looked = stepper.look(slots)
    picks = [
        (Rows(images, stepper.target(slot), Want.GRADIENT), place)
        for place, slot in enumerate(slots)
    ]
    return picks, looked
