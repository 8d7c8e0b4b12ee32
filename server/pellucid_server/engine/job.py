"""A job: a validated request in flight."""

import enum
import functools
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar

from ..models.registry import Model
from ..models.styles.library import StyleModel
from .lockstep import Climbing, Pace
from .rows import Brought, Lane, Program, Rows, StyleRows, Target, Traces

Served = Model | StyleModel
"""What jobs run on."""

_M = TypeVar("_M", bound=Served, default=Model)
_M_contra = TypeVar("_M_contra", bound=Served, default=Model, contravariant=True)


class Priority(enum.IntEnum):
    """The classes of jobs, most urgent first."""

    PREDICT = 0
    EXPLAIN = 1
    OPTIMIZE = 2


class Method(Protocol[_M_contra]):
    """What the engine knows of a method: what it costs, and how it asks for rows."""

    @property
    def name(self) -> str: ...

    @property
    def priority(self) -> Priority: ...

    def row_counts(self, model: _M_contra, target: Target) -> Mapping[Lane, int]:
        """How many rows it will ask for, by lane."""
        ...

    def pace(self, model: _M_contra) -> Pace | None:
        """How its rows come, where some wait for others; None: all can come at once."""
        ...

    def most_ms(self, model: _M_contra, row_ms: float) -> float:
        """Milliseconds that it takes at most, however many rows it might ask for.

        Args:
            model: Whose rows they are.
            row_ms: What one of them takes.
        """
        ...

    def byte_count(self, model: _M_contra) -> int:
        """Bytes that it holds besides a few images."""
        ...

    def program(self, model: _M_contra, image: Tensor, target: Target) -> Program[Any]:
        """Its work on one image, 3×H×W, on the device."""
        ...


class Source(Protocol[_M_contra]):
    """Where a request's image comes from."""

    @property
    def byte_count(self) -> int:
        """Bytes that it holds, as it came and decoded; the network's input not counted."""
        ...

    @property
    def sha256(self) -> str:
        """Of the image's bytes as they came, in hexadecimal."""
        ...

    def load(self, model: _M_contra) -> Any:
        """Decodes and preprocesses; called in a worker thread. Has an input of 3×H×W."""
        ...


@dataclass(frozen=True)
class Elsewhere:
    """Rows that a method asks for of another model than the request's.

    Attributes:
        bucket_size: What their batches are padded to.
    """

    model: Served
    lane: Lane
    row_count: int
    bucket_size: int


@dataclass(frozen=True)
class Spec(Generic[_M]):
    """A validated request.

    Attributes:
        deadline_s: By time.monotonic().
        caller: Whom the device is shared fairly between.
        bucket_size: The bucket that its rows are padded to, if it is fixed.
        elsewhere: Rows that its method asks for of other models, besides those that it counts.
    """

    model: _M
    method: Method[_M]
    source: Source[_M]
    target: Target
    deadline_s: float
    caller: str = ""
    bucket_size: int | None = None
    elsewhere: tuple[Elsewhere, ...] = ()

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered: its image, its input as float64, and more."""
        network = self.model.network
        input_bytes = 3 * network.height_px * network.width_px * 8
        return self.source.byte_count + input_bytes + self.method.byte_count(self.model)


@dataclass(frozen=True)
class Ride:
    """A batch that rows of a job rode in."""

    bucket_size: int
    row_count: int
    own_row_count: int


@dataclass
class Timing:
    """When things happened to a job, by time.monotonic(); 0 when they have not yet."""

    submitted_s: float
    decode_started_s: float = 0.0
    ready_s: float = 0.0
    launched_s: float = 0.0
    finished_s: float = 0.0
    render_started_s: float = 0.0

    @property
    def queue_ms(self) -> float:
        """How long a job that is rendered waited: for a worker, for the device, for a worker."""
        return 1e3 * (
            (self.decode_started_s - self.submitted_s)
            + (self.launched_s - self.ready_s)
            + (self.render_started_s - self.finished_s)
        )


@dataclass(frozen=True)
class Done:
    """A job's result, and how it came about."""

    result: Any
    loaded: Any
    rides: tuple[Ride, ...]
    timing: Timing


class Work:
    """Rows that a job waits for, as they are taken, run and settled."""

    group = None
    turn = 0

    def __init__(self, rows: Rows | StyleRows) -> None:
        self.rows = rows
        self.model, self.lane, self.bucket_size = rows.model, rows.lane, rows.bucket_size
        self.size: tuple[int, int] = (rows.images.shape[2], rows.images.shape[3])
        count = rows.images.shape[0]
        assert count > 0
        self._untaken = list(range(count - 1, -1, -1))
        self.unsettled = count
        self.suspects: list[int] = []  # rows that were not finite and are run again, alone
        self._scores = torch.zeros(count, dtype=torch.float64)
        self._classes = torch.full((count,), -1)
        self._finite = torch.ones(count, dtype=torch.bool)
        self._kept: Brought = {}

    @property
    def waiting(self) -> int:
        return len(self._untaken)

    def take(self) -> int:
        return self._untaken.pop()

    def settle(
        self, index: int, score: Tensor, class_index: Tensor, kept: Brought, *, finite: bool
    ) -> None:
        """Keeps what came of one row."""
        self._scores[index] = score
        self._classes[index] = class_index
        self._finite[index] = finite
        for name, tensor in kept.items():
            if name not in self._kept:
                self._kept[name] = tensor.new_empty((len(self._scores), *tensor.shape))
            self._kept[name][index] = tensor
        self.unsettled -= 1

    def traces(self) -> Traces:
        assert self.unsettled == 0
        return Traces(
            self._scores,
            self._classes,
            self._finite,
            terms=self._kept.get(("terms", "")),
            logits=self._kept.get(("logits", "")),
            activations=self._by_layer("activations"),
            gradient=self._kept.get(("gradient", "")),
            layer_gradients=self._by_layer("layer_gradients"),
            attention=self._kept.get(("attention", "")),
            made=self._kept.get(("made", "")),
            peaks=self._by_layer("peaks"),
            peak_places=self._by_layer("peak_places"),
        )

    def _by_layer(self, name: str) -> dict[str, Tensor]:
        return {layer: kept for (field, layer), kept in self._kept.items() if field == name}

    def close(self) -> None:
        """Nothing of it is kept elsewhere."""


@dataclass(eq=False)
class Job:
    """A spec in flight. Its future ends with Done or with a PellucidError.

    Attributes:
        cost_ms: Milliseconds of device time that it was predicted to take alone, padding included.
        queued_ms: The same where its rows share batches with others', as in a queue they do.
        sequence: Its number, in the order of arrival.
        row_count: Rows that its cost was predicted for.
        outlet: Gets what the method shows before it is done; called as the future is resolved.
        chore: What a worker does for it.
        state: What it can be handed over by, see rows.State.
    """

    spec: Spec[Any]
    cost_ms: float
    queued_ms: float
    timing: Timing
    sequence: int
    row_count: int = 1
    outlet: Callable[[Done], None] | None = None
    future: "Future[Done]" = field(default_factory=Future)
    cancelled: bool = False
    chore: "Future[Any] | None" = None
    # From here on, only the engine thread looks.
    loaded: Any = None
    program: Program[Any] | None = None
    state: Any = None
    work: Work | Climbing | None = None
    rides: list[Ride] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        # Whoever waits for the future cannot cancel it: cancelling is the engine's.
        self.future.set_running_or_notify_cancel()

    @functools.cached_property
    def steps_with(self) -> Hashable:
        """The same for all jobs that fill each other's batches, step by step; None for others."""
        spec = self.spec
        pace = spec.method.pace(spec.model)
        return None if pace is None else (spec.model.name, pace.size, spec.bucket_size, pace.kind)

    @property
    def row_ms(self) -> float:
        """What a row of it counts for in the queue."""
        return self.queued_ms / self.row_count

    def cancel(self) -> None:
        """Its caller went away: no row of it is launched any more."""
        self.cancelled = True
