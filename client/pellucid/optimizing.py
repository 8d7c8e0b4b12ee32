"""Optimizations: what an image is to be good for, what comes of it, and the way there."""

import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .adversarial import Adversarial, Attacked
from .errors import Cancelled
from .types import Neuron, Run, format_of, opened
from .universal import Universal

if TYPE_CHECKING:
    from PIL.Image import Image


# What goes in.


@dataclass(frozen=True)
class Direction:
    """A direction in the space of a layer's channels.

    Attributes:
        layer: The name of a layer, as get_model lists it.
        vector: One number a channel.
        y: The row in the layer's maps, from 0; all places are added up when None.
        x: The column, with y.
    """

    layer: str
    vector: Sequence[float]
    y: int | None = None
    x: int | None = None


@dataclass(frozen=True)
class Code:
    """A layer's activation, near to that of the photo: 0 less the normalized error."""

    layer: str


@dataclass(frozen=True)
class Energy:
    """The strength of a layer: DeepDream."""

    layer: str


@dataclass(frozen=True)
class Guide:
    """The features of a guide photo, at every place of a layer the one that fits best."""

    layer: str


@dataclass(frozen=True)
class Diversity:
    """Unlike the job's other images, by the Gram matrices of a layer of at most 512 channels.

    The score is minus the mean cosine similarity with what the others were a step before, from -1
    to 0. Needs restart_count of at least 2.
    """

    layer: str


Objective: TypeAlias = "int | str | Neuron | Direction | Code | Energy | Guide | Diversity"
"""What an image is to be good for: a class by index or label, a neuron, or one of the above."""

Objectives: TypeAlias = (
    "Objective | tuple[Objective, float] | Sequence[Objective | tuple[Objective, float]]"
)
"""One of them, or a sequence of several that are added.

A tuple of an objective and a number is that objective and its weight, which is 1 where none is
given: ("goldfish", 2) is one objective, ["goldfish", 2] is two. (1, 2), on its own, may be meant
either way and is refused; [(1, 2)] is class 1 with a weight of 2.
"""


# What comes out.


@dataclass(frozen=True)
class Queued:
    """The job was admitted.

    Attributes:
        cost_ms: Milliseconds of device time that it is predicted to cost.
        others_ms: Milliseconds that other jobs are predicted to cost yet.
        bucket_size: Images in a batch, padding included, which fixes the result's bits.
    """

    cost_ms: float
    others_ms: float
    bucket_size: int


@dataclass(frozen=True)
class Progress:
    """How far an image is.

    Attributes:
        restart: Which image of the job, from 0.
        step: Steps that it has made.
        step_count: Steps that it will make.
        score: The weighted sum of its terms, less the penalties.
        terms: The score of each objective, not weighted.
        lp_penalty: What is subtracted for it.
        tv_penalty: Likewise.
    """

    restart: int
    step: int
    step_count: int
    score: float
    terms: tuple[float, ...]
    lp_penalty: float
    tv_penalty: float


@dataclass(frozen=True)
class Preview:
    """What an image looks like on its way.

    Attributes:
        restart: Which image of the job, from 0.
        step: Steps that it has made.
        jpeg: A JPEG file.
    """

    restart: int
    step: int
    jpeg: bytes = field(repr=False)

    @cached_property
    def image(self) -> "Image":
        """As a PIL image."""
        return opened(self.jpeg)


@dataclass(frozen=True, eq=False)
class OptimizedImage:
    """An image as it ended.

    Attributes:
        encoded: The file.
        format: "png" or "jpeg".
        pixels: Red, green and blue from 0 to 1, float32 3 × height × width; None where they
            were not asked for. Of an attack: before they were rounded to 8 bits.
        seed: Its seed.
        progress: Its score, as it is.
        stop_reason: Why it ended before its last step, or why an attack shows the photo; empty
            where neither is so.
        adversarial: How it fares as an attack; None where it is none.
    """

    encoded: bytes = field(repr=False)
    format: str
    pixels: NDArray[np.float32] | None = field(repr=False)
    seed: int
    progress: Progress
    stop_reason: str
    adversarial: Adversarial | None = None

    @property
    def score(self) -> float:
        return self.progress.score

    @cached_property
    def image(self) -> "Image":
        """As a PIL image."""
        return opened(self.encoded)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a .png or .jpg file: as it came, where it is of that format.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        if format_of(path) == self.format:
            Path(path).write_bytes(self.encoded)
        else:
            self.image.save(path, format_of(path), quality=95)


@dataclass(frozen=True)
class ScoreSpread:
    """How far the scores of several images lie apart.

    Attributes:
        least: The least.
        mean: The mean.
        largest: The largest.
        standard_deviation: Over n - 1.
    """

    least: float
    mean: float
    largest: float
    standard_deviation: float


@dataclass(frozen=True)
class OptimizeResult:
    """What came of an optimization.

    Attributes:
        images: All images, in the order of their seeds.
        best: The one of the best score.
        spread: Of their scores; None of one image.
        parameters: Every parameter, filled in.
        notes: Where it went on from a checkpoint: why its bits may differ from those of a run that
            was not interrupted; and whether it had to be started over. Empty where neither is so.
        run: What it was computed by.
        attack: Of an attack: the photo. images are the attacked ones then.
        universal: Of a universal perturbation: it. images are the first 16 photos with it then.
    """

    images: tuple[OptimizedImage, ...]
    best: OptimizedImage
    spread: ScoreSpread | None
    parameters: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...]
    run: Run = field(repr=False)
    attack: Attacked | None = None
    universal: Universal | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the best image: see OptimizedImage.save."""
        self.best.save(path)


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on, on any server of the same model and key.

    Attributes:
        step: Steps that the image that came least far has made.
        data: It, as resume_from takes it.
    """

    step: int
    data: bytes = field(repr=False)


Event: TypeAlias = Queued | Progress | Preview | Checkpoint

_CLOSED = "the job was closed before its result came"


_Event = TypeVar("_Event")
_Result = TypeVar("_Result")


class Course(Generic[_Event, _Result]):
    """A long job under way: iterate over its events, or ask for its result.

    Leaving it early cancels it: by closing it, or the block of its with statement, or by
    dropping it.

    Attributes:
        checkpoint: The last one that came, whatever it ended with; None before the first.
        last: The result as it came, whatever it ended with thereafter: the summary of a video
            that the server ends with an error, which result raises; None before.
    """

    def __init__(self, events: "Generator[Any, None, None]", kind: type[_Result]) -> None:
        self._events, self._kind = events, kind
        self.checkpoint: Checkpoint | None = None
        self.last: _Result | None = None
        self._ended: _Result | Exception = Cancelled(_CLOSED)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Event:
        """The next event; it ends before the result."""
        try:
            for event in self._events:
                if isinstance(event, self._kind):
                    self._ended = self.last = event
                    continue
                if isinstance(event, Checkpoint):
                    self.checkpoint = event
                shown: _Event = event
                return shown
        except Exception as error:
            self._ended = error
            raise
        raise StopIteration

    def result(self) -> _Result:
        """Waits for the end; events that were not taken are passed over.

        Raises:
            StatusError: What the call ended with; Cancelled, where it was closed.
        """
        for _ in self:
            pass
        if isinstance(self._ended, Exception):
            raise self._ended
        return self._ended

    def close(self) -> None:
        """Cancels it, unless it has ended."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncCourse(Generic[_Event, _Result]):
    """The twin of Course for asyncio."""

    def __init__(self, events: "AsyncGenerator[Any, None]", kind: type[_Result]) -> None:
        self._events, self._kind = events, kind
        self.checkpoint: Checkpoint | None = None
        self.last: _Result | None = None
        self._ended: _Result | Exception = Cancelled(_CLOSED)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Event:
        """The next event; it ends before the result."""
        try:
            async for event in self._events:
                if isinstance(event, self._kind):
                    self._ended = self.last = event
                    continue
                if isinstance(event, Checkpoint):
                    self.checkpoint = event
                shown: _Event = event
                return shown
        except Exception as error:
            self._ended = error
            raise
        raise StopAsyncIteration

    async def result(self) -> _Result:
        """Waits for the end: see Course.result."""
        async for _ in self:
            pass
        if isinstance(self._ended, Exception):
            raise self._ended
        return self._ended

    async def close(self) -> None:
        """Cancels it, unless it has ended."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


Optimization: TypeAlias = Course[Event, OptimizeResult]
AsyncOptimization: TypeAlias = AsyncCourse[Event, OptimizeResult]
