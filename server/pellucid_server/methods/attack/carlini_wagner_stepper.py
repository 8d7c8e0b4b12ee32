"""Images that search for the smallest change by L2 together: Carlini and Wagner's attack.

Images are moved as w, whose tanh is their colours from -1 to 1: so they are always valid. As in
the ascent's stepper every slot is a row of stacked tensors, and all rows of a batch move by the
same arithmetic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...engine.lockstep import Moved
from ...engine.places import upload, upload_tensor
from ...engine.rows import MarginTarget, SumTarget
from ..optimize import updates
from ..optimize.snapshot import Snapshot
from ..optimize.stepper import Preview, Progress
from .algorithm import Shows

STATE = ("parameters", "first", "second", "best")
"""What a slot's state is, 3·H·W numbers each: w; Adam's moments; the colours of the best image."""

NUMBERS = ("weight", "lower", "upper", "best_norm", "succeeded", "checked_loss")
"""And numbers: the weight of f and the bounds of its search; the norm of the best image's change;
whether this weight has led to one, as 0 or 1; the loss when it was last looked at."""

_EDGE = 0.999999
"""Colours of photos are multiplied by it: those of black and white have no finite w."""

_CHECKS = 10
"""Times that a search is looked at, and ends where its loss no longer falls,"""
_FALL = 0.9999
"""to this share of what it was."""


@dataclass(frozen=True)
class Search:
    """An image for one weight.

    Attributes:
        target: What its f is of.
        photo: 3×H×W, from 0 to 255.
        learning_rate: Of Adam.
        step_count: At most.
        shows: Of events.
        search: Which weight it is, from 0.
        weight: Of f.
        lower: The largest weight that was too small.
        upper: The smallest that was large enough; infinite: there is none yet.
        best: 3·H·W, the best image so far, as colours from -1 to 1; None: there is none.
        best_norm: L2 of its change, of colours from 0 to 1; infinite where there is none.
        state: What it goes on from, in place of a start.
    """

    target: MarginTarget
    photo: Tensor
    learning_rate: float
    step_count: int
    shows: Shows
    search: int
    weight: float
    lower: float
    upper: float
    best: Tensor | None
    best_norm: float
    state: Snapshot | None = None


@dataclass(frozen=True)
class Found:
    """What came of a search.

    Attributes:
        succeeded: Whether its weight led to an image of the class that is wanted.
        best: 3·H·W, the best image of all searches so far, as colours from -1 to 1.
        norm: L2 of its change, of colours from 0 to 1; infinite: there is none.
        pixels: 3×H×W, the same from 0 to 255.
        progress: The last score.
        finite: False: it could not go on.
    """

    succeeded: bool
    best: Tensor
    norm: float
    pixels: Tensor
    progress: Progress
    finite: bool


@dataclass(frozen=True)
class _Looked:
    slots: list[int]
    padded: list[int]
    rows: Tensor
    colors: Tensor


class CarliniWagnerStepper:
    """The slots of one model and bucket. Args are those of AscentStepper."""

    def __init__(
        self,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        bucket_size: int,
        dtype: torch.dtype,
        network_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._shape, self._bucket_size = (3, *size), bucket_size
        self._dtype, self._network_dtype, self._device = dtype, network_dtype, device
        self._mean = torch.tensor(mean, dtype=dtype, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=dtype, device=device).view(3, 1, 1)
        self._starts: list[Search | None] = []
        self._lasts: list[Progress | None] = []
        self._steps = np.zeros(0, np.int64)
        self._numbers = {name: np.zeros(0) for name in (*NUMBERS, "learning_rate")}
        empty = torch.zeros(0, math.prod(self._shape), dtype=dtype, device=device)
        self._stacked = {name: empty.clone() for name in (*STATE, "photo")}

    def join(self, start: Any) -> int:
        assert isinstance(start, Search)
        if None not in self._starts:
            self._grow()
        slot, state = self._starts.index(None), start.state
        scaled = start.photo.to(self._device, self._dtype).flatten() / 127.5 - 1
        parameters = (scaled * _EDGE).atanh()
        photo = parameters.tanh()
        best = photo if start.best is None else start.best
        fresh = {"parameters": parameters, "best": best}
        kept: Mapping[str, Tensor] = fresh if state is None else state.tensors
        for name in STATE:
            self._stacked[name][slot] = kept[name].to(photo) if name in kept else 0
        self._stacked["photo"][slot] = photo
        numbers = {
            "weight": start.weight,
            "lower": start.lower,
            "upper": start.upper,
            "best_norm": start.best_norm,
            "succeeded": 0.0,
            "checked_loss": math.inf,
            **({} if state is None else state.numbers),
            "learning_rate": start.learning_rate,
        }
        if state is not None and math.isfinite(numbers["best_norm"]):
            # Of the image as it is now, which half precision has changed; in a bucket's bits.
            change = (self._stacked["best"][slot] - photo) / 2
            norms = _norms(change.repeat(self._bucket_size, 1))
            numbers["best_norm"] = float(norms[0])
        for name, value in numbers.items():
            self._numbers[name][slot] = value
        self._steps[slot] = 0 if state is None else state.step
        self._lasts[slot] = None
        self._starts[slot] = start
        return slot

    def leave(self, slot: int) -> None:
        self._starts[slot] = None

    def _grow(self) -> None:
        """Twice the slots, at least a bucket of them."""
        more = max(len(self._starts), self._bucket_size)
        for name, tensor in self._stacked.items():
            self._stacked[name] = torch.cat([tensor, tensor.new_zeros(more, tensor.shape[1])])
        for name, array in self._numbers.items():
            self._numbers[name] = np.concatenate([array, np.zeros(more)])
        self._steps = np.concatenate([self._steps, np.zeros(more, np.int64)])
        self._starts += [None] * more
        self._lasts += [None] * more

    def target(self, slot: int) -> SumTarget:
        return SumTarget(((self._start(slot).target, float(self._numbers["weight"][slot])),))

    def look(self, slots: Sequence[int]) -> tuple[Tensor, Any]:
        padded = [*slots, *[slots[0]] * (self._bucket_size - len(slots))]
        rows = upload(padded, self._device)
        colors = self._stacked["parameters"][rows].tanh()
        images = (colors.view(-1, *self._shape) + 1) / 2
        inputs = (images - self._mean) / self._std
        return inputs[: len(slots)].to(self._network_dtype), _Looked(
            list(slots), padded, rows, colors
        )

    def step(
        self, looked: Any, gradient: Tensor, scores: Sequence[float], terms: Tensor, moved: set[int]
    ) -> Mapping[int, Moved]:
        assert isinstance(looked, _Looked)
        rows, colors, padded = looked.rows, looked.colors, looked.padded
        state = {name: self._stacked[name][rows] for name in STATE}
        change = (colors - self._stacked["photo"][rows]) / 2
        by_colors = (gradient.to(self._dtype) / (2 * self._std)).flatten(1) - change
        slope = by_colors * (1 - colors.square())
        rate, count = self._numbers["learning_rate"][padded], self._steps[padded] + 1.0
        added, first, second = updates.adam(
            slope,
            state["first"],
            state["second"],
            *(
                upload_tensor(torch.from_numpy(n).to(self._dtype), self._device)
                for n in (rate, count)
            ),
        )
        after = state["parameters"] + added
        # The one time that the host waits for the device.
        kept = torch.stack([_norms(change), after.abs().amax(1).isfinite()], 1)
        norms, finite = kept.cpu().numpy().T
        going = [place for place in sorted(moved) if finite[place]]
        self._note_best(looked, norms, terms[:, 0].numpy() >= 0, sorted(moved))
        self._put_back(rows, going, {"parameters": after, "first": first, "second": second})
        told: dict[int, Moved] = {}
        for place in sorted(moved):
            slot = looked.slots[place]
            self._steps[slot] += place in going
            term, square = float(terms[place, 0]), float(norms[place]) ** 2
            progress = Progress(0, self._step_of(slot), scores[place] - square, (term,), 0.0, 0.0)
            self._lasts[slot] = progress
            told[place] = self._told(slot, progress) if finite[place] else self.stop(slot)
        return told

    def _note_best(self, looked: _Looked, norms: Any, reached: Any, moved: Sequence[int]) -> None:
        """Keeps the images that are of the wanted class by a smaller change than any before."""
        places = np.array([place for place in moved if reached[place]], np.int64)
        slots = np.array(looked.slots)[places]
        self._numbers["succeeded"][slots] = 1.0
        better = norms[places] < self._numbers["best_norm"][slots]
        places, slots = places[better], slots[better]
        self._numbers["best_norm"][slots] = norms[places]
        self._put_back(looked.rows, places.tolist(), {"best": looked.colors})

    def _put_back(self, rows: Tensor, places: list[int], state: Mapping[str, Tensor]) -> None:
        chosen = upload_tensor(torch.tensor(places, dtype=torch.int64), self._device)
        for name, tensor in state.items():
            self._stacked[name].index_copy_(0, rows[chosen], tensor[chosen])

    def _told(self, slot: int, progress: Progress) -> Moved:
        start, step = self._start(slot), int(self._steps[slot])
        shows = start.shows
        if step == start.step_count or self._stalls(slot, step, start.step_count, -progress.score):
            return Moved((progress,), self._found(slot, progress, finite=True))
        shown: list[Any] = []
        if progress.step % shows.progress_every == 0:
            shown.append(progress)
        if shows.preview_every and progress.step % shows.preview_every == 0:
            colors = self._stacked["parameters"][slot].tanh()
            shown.append(Preview(0, progress.step, self._pixels(colors) / 255))
        if shows.checkpoint_every and progress.step % shows.checkpoint_every == 0:
            shown.append(self.snapshot(slot))
        return Moved(shown)

    def _stalls(self, slot: int, step: int, step_count: int, loss: float) -> bool:
        """Whether the loss has hardly fallen since it was last looked at."""
        if (step - 1) % math.ceil(step_count / _CHECKS):
            return False
        before = self._numbers["checked_loss"][slot]
        self._numbers["checked_loss"][slot] = loss
        return not loss <= _FALL * before

    def snapshot(self, slot: int) -> Any:
        start = self._start(slot)
        if not start.shows.checkpoint_every:
            return None
        return Snapshot(
            0,
            start.search,
            int(self._steps[slot]),
            self._step_of(slot),
            {name: self._stacked[name][slot].clone() for name in STATE},
            {name: float(self._numbers[name][slot]) for name in NUMBERS},
        )

    def stop(self, slot: int) -> Moved:
        nothing = float("nan")
        last = self._lasts[slot]
        last = last or Progress(0, self._step_of(slot), nothing, (nothing,), 0.0, 0.0)
        return Moved(end=self._found(slot, last, finite=False))

    def _found(self, slot: int, progress: Progress, *, finite: bool) -> Found:
        best = self._stacked["best"][slot].clone()
        return Found(
            bool(self._numbers["succeeded"][slot]),
            best,
            float(self._numbers["best_norm"][slot]),
            self._pixels(best),
            progress,
            finite,
        )

    def _pixels(self, colors: Tensor) -> Tensor:
        return ((colors + 1) * 127.5).view(self._shape)

    def _start(self, slot: int) -> Search:
        start = self._starts[slot]
        assert start is not None
        return start

    def _step_of(self, slot: int) -> int:
        """Steps that it has made, over all searches; those that one was spared count."""
        start = self._start(slot)
        return start.search * start.step_count + int(self._steps[slot])


def _norms(changes: Tensor) -> Tensor:
    """L2 of each of n×(3·H·W), in float64."""
    return changes.square().sum(1).sqrt().double()
