"""Images of one size that climb their objectives together.

Every slot is a row of stacked tensors: parameters, moments, step counts, strengths. A step takes
the rows of a batch out, padded to the bucket, moves all of them by the same arithmetic, and puts
those back that moved: so a row's bits do not depend on which other rows there are.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.lockstep import Moved
from ...engine.places import upload, upload_tensor
from ...engine.rows import SumTarget
from .. import draws
from . import prelude, regularizers, updates
from .ascent import MOST_BLUR_PX, Ascent
from .snapshot import Snapshot

_NUMBERS = tuple(f.name for f in fields(Ascent) if f.type in (int, float, "int", "float"))
"""The parameters that every row has a number of."""

_OPERATORS = (
    *("l2_decay", "blur_sigma_px"),
    *("small_norm_percentile", "small_contribution_percentile"),
)

_RULES = ("adam", "momentum", "normalized", "progress", "sign", "unit", "lbfgs")
_FLAGS = ("spectral", "clip_pixels", *(f"{rule}_rule" for rule in _RULES))

_MEMORY = ("changes", "slopes", "products")
"""What L-BFGS remembers besides; its gradient and its change are the first and second moment."""


_ARRAYS = (
    *("_scored", "_scores", "_terms", "_before", "_steps", "_stopped"),
    *("_seeds", "_moment_steps", "_numbers", "_flags"),
)
"""What is kept of every slot on the host."""

_ANCHOR = "anchor"
"""The stacked tensor that is there only once a slot needs it."""


STATE = ("good", "parameters", "first", "second")
"""What a slot's state is, P numbers each, see prelude: the last that was scored, and those to score
next; the first moment, or the velocity; the second moment."""


def numbers_of(term_count: int) -> tuple[str, ...]:
    """And numbers: its last score, NaN where there is none yet, and what that is made of."""
    terms = (f"term {place}" for place in range(term_count))
    return ("score", "lp_penalty", "tv_penalty", *terms)


@dataclass(frozen=True)
class Start:
    """An image that is to be optimized.

    Attributes:
        ascent: How.
        target: For what.
        image: Where it starts, 3×H×W in the prelude's frame; None: from the ascent's start.
        restart: Which of the job's images it is, from 0: its seed is that many above the job's.
        octave: Which size it is at, from 0.
        last: Whether the image as it ends is scored.
        state: What it goes on from, in place of a start.
        moments: Adam's, P each, that it starts with; None: zeros.
        moment_steps: Steps that these moments are of.
        anchor: 3×H×W in the prelude's frame: what it stays near to, where the ascent bounds it.
        shown: What previews show of an image, 3×H×W in the prelude's frame, as red, green and blue
            from 0 to 1; None: the image itself.
    """

    ascent: Ascent
    target: SumTarget
    image: Tensor | None
    restart: int
    octave: int
    last: bool
    state: Snapshot | None = None
    moments: tuple[Tensor, Tensor] | None = None
    moment_steps: int = 0
    anchor: Tensor | None = None
    shown: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Progress:
    """How far an image is.

    Attributes:
        restart: Which one.
        step: Steps it has made, over all octaves.
        score: The weighted sum of its terms, less the penalties.
        terms: The score of each term, not weighted.
        lp_penalty: What is subtracted for it; 0 where it is off.
        tv_penalty: Likewise.
    """

    restart: int
    step: int
    score: float
    terms: tuple[float, ...]
    lp_penalty: float
    tv_penalty: float


@dataclass(frozen=True)
class Preview:
    """What an image looks like after a step: 3×H×W, red, green and blue from 0 to 1."""

    restart: int
    step: int
    picture: Tensor


@dataclass(frozen=True)
class End:
    """What came of an image.

    Attributes:
        image: 3×H×W in the prelude's frame.
        picture: The same as red, green and blue from 0 to 1.
        progress: Its last score: of the image itself where it is an end of the job.
        finite: False: the step after could not be scored, and this is the last good image.
        moments: First and second, P each, where it is no end of the job.
    """

    image: Tensor
    picture: Tensor
    progress: Progress
    finite: bool
    moments: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class _Looked:
    slots: list[int]
    padded: list[int]
    rows: Tensor
    parameters: Tensor
    images: Tensor
    inputs: Tensor
    penalties: Tensor
    final: NDArray[np.bool_]


class AscentStepper:
    """The slots of one model, size and bucket.

    Args:
        size: Height and width.
        mean: Of the model's preprocessing, 0 to 1.
        std: Likewise.
        bucket_size: Rows of a step, padding included.
        dtype: Of the arithmetic beside the network.
        network_dtype: Of its inputs.
        device: Where it computes.
    """

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
        self._size, self._bucket_size = size, bucket_size
        self._dtype, self._network_dtype, self._device = dtype, network_dtype, device
        self._mean = torch.tensor(mean, dtype=dtype, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=dtype, device=device).view(3, 1, 1)
        self._starts: list[Start | None] = []
        self._scored = np.zeros(0, bool)
        self._scores = np.zeros((0, 3))  # the last one, penalties subtracted; and these
        self._terms = np.zeros((0, 1))
        self._before = np.zeros(0, np.int64)  # steps of smaller octaves
        self._steps = np.zeros(0, np.int64)
        self._stopped = np.zeros(0, bool)
        self._seeds = np.zeros(0, np.int64)
        self._moment_steps = np.zeros(0, np.int64)  # before this octave
        self._numbers = np.zeros((0, len(_NUMBERS)))
        self._flags = np.zeros((0, len(_FLAGS)), bool)
        length = prelude.parameter_count(*size)
        empty = torch.zeros(0, length, dtype=dtype, device=device)
        self._stacked = {name: empty.clone() for name in STATE}

    # Slots.

    def join(self, start: Any) -> int:
        assert isinstance(start, Start)
        ascent = start.ascent
        if None not in self._starts:
            self._grow()
        slot = self._starts.index(None)
        if ascent.bounded and _ANCHOR not in self._stacked:
            self._stacked[_ANCHOR] = torch.zeros_like(self._stacked["parameters"])
        seed = ascent.seed + start.restart
        state = start.state
        if state is None:
            fresh = self._parameters_of(start, seed)
            kept = {"parameters": fresh, "good": fresh}
            if start.moments is not None:
                kept |= dict(zip(("first", "second"), start.moments, strict=True))
        else:
            kept = dict(state.tensors)
            for goal in start.target.kept_apart:
                goal.siblings.restore(start.restart, state.total + state.ended, state.tensors)
        if ascent.update == "lbfgs":  # whose history starts anew
            kept = {name: kept[name] for name in ("parameters", "good")}
            self._remember()
        if ascent.bounded:
            assert start.anchor is not None
            anchor = start.anchor.to(self._device, self._dtype)[None]
            kept[_ANCHOR] = prelude.from_pixels(anchor, self._size)[0]
        for name, tensor in self._stacked.items():
            tensor[slot] = kept[name].to(tensor) if name in kept else 0
        self._before[slot] = start.octave * ascent.step_count
        self._steps[slot] = 0 if state is None else state.step
        self._seeds[slot] = seed
        self._moment_steps[slot] = start.moment_steps
        self._numbers[slot] = [getattr(ascent, name) for name in _NUMBERS]
        rules = [ascent.update == rule for rule in _RULES]
        self._flags[slot] = [ascent.spectral, ascent.clip_pixels, *rules]
        if state is None or state.rounded:  # another is as a step has left it
            for name in ("parameters", "good"):
                rows = self._stacked[name][slot : slot + 1]
                rows.copy_(self._valid(rows, [slot]))
        self._scored[slot] = self._stopped[slot] = False
        self._starts[slot] = start
        if state is not None and math.isfinite(state.numbers["score"]):
            names = numbers_of(len(start.target.terms))
            total, lp, tv, *terms = ([state.numbers[name]] for name in names)
            scores = np.array(total), np.array([[*lp, *tv]]), np.array(terms).T
            self._note(np.array([slot]), *scores)
        return slot

    def leave(self, slot: int) -> None:
        self._starts[slot] = None

    def _grow(self) -> None:
        """Twice the slots, at least a bucket of them."""
        more = max(len(self._starts), self._bucket_size)
        for name, tensor in self._stacked.items():
            self._stacked[name] = torch.cat([tensor, tensor.new_zeros(more, tensor.shape[1])])
        for name in _ARRAYS:
            array = getattr(self, name)
            grown = np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
            setattr(self, name, grown)
        self._starts += [None] * more

    def _remember(self) -> None:
        """Has room for what L-BFGS remembers: much more than others do, so made for it alone."""
        if _MEMORY[0] in self._stacked:
            return
        parameters, count = self._stacked["parameters"], updates.HISTORY
        for name, length in zip(_MEMORY, (parameters.shape[1],) * 2 + (1,), strict=True):
            self._stacked[name] = parameters.new_zeros(len(parameters), count * length)

    def _parameters_of(self, start: Start, seed: int) -> Tensor:
        ascent, image = start.ascent, start.image
        shape: tuple[int, ...] = (3, *self._size)
        if image is not None:
            image = image.to(self._device, self._dtype)[None]
            flat = prelude.to_spectrum(image, self._mean) if ascent.spectral else None
            return (prelude.from_pixels(image, self._size) if flat is None else flat)[0]
        if ascent.spectral:
            shape = (prelude.parameter_count(*self._size),)
        noise = ascent.noise_std if ascent.start == "noise" else 0.0
        drawn = draws.normal(seed, 0, shape).to(self._dtype)
        flat = noise * upload_tensor(drawn, self._device)[None]
        return (flat if ascent.spectral else prelude.from_pixels(flat, self._size))[0]

    # Steps.

    def target(self, slot: int) -> SumTarget:
        start = self._start(slot)
        return start.target.at(start.restart, self._step_of(slot))

    def look(self, slots: Sequence[int]) -> tuple[Tensor, Any]:
        padded = [*slots, *[slots[0]] * (self._bucket_size - len(slots))]
        rows = upload(padded, self._device)
        with torch.enable_grad():
            parameters = self._stacked["parameters"][rows].requires_grad_()
            images = self._images(parameters, padded)
            final = self._steps[padded] >= self._of("step_count", padded)
            inputs = self._transformed(images, padded, final) / (255 * self._std)
            penalties = self._penalties(images, padded)
        looked = _Looked(list(slots), padded, rows, parameters, images, inputs, penalties, final)
        return inputs.detach()[: len(slots)].to(self._network_dtype), looked

    def step(
        self, looked: Any, gradient: Tensor, scores: Sequence[float], terms: Tensor, moved: set[int]
    ) -> Mapping[int, Moved]:
        assert isinstance(looked, _Looked)
        count, padded = len(looked.slots), looked.padded
        outputs, slopes = [looked.inputs], [gradient.to(looked.inputs)]
        if looked.penalties.requires_grad:
            outputs.append(looked.penalties)
            slopes.append(-torch.ones_like(looked.penalties))
        [slope] = torch.autograd.grad(outputs, looked.parameters, slopes)
        remembering = self._which("lbfgs_rule", padded).any()
        names = ("first", "second", *(_MEMORY if remembering else ()))
        state = {name: self._stacked[name][looked.rows] for name in names}
        change, state = self._change(slope, state, padded)
        after = self._regularized(looked.parameters.detach() + change, slope, padded)
        after = self._valid(after, padded)
        finite = after.abs().amax(1).isfinite()
        penalties = looked.penalties.detach().double()
        # The one time that the host waits for the device.
        told = torch.cat([penalties, finite[:, None]], 1)[:count].cpu().numpy()
        slots, final, fine = np.array(looked.slots), looked.final[:count], told[:, 2] > 0
        totals = np.array(scores) - told[:, 0] - told[:, 1]
        live = np.isin(np.arange(count), list(moved))
        scored = live & np.isfinite(totals)
        going = scored & fine & ~final
        self._put_back(looked, {"parameters": after, **state}, going, scored)
        self._steps[slots[going]] += 1
        self._note(slots[scored], totals[scored], told[scored, :2], terms.numpy()[scored])
        stopped = live & ~going & ~(scored & final)
        due = live & (~going | self._due(looked.slots))
        return {
            int(place): self._told(
                looked.slots[place], stopped=bool(stopped[place]), final=bool(final[place])
            )
            for place in np.flatnonzero(due)
        }

    def stop(self, slot: int) -> Moved:
        self._stopped[slot] = True
        image, snapshot = self._image(slot, "good"), self.snapshot(slot)
        end = End(image, self._picture(image), self._progress(slot), finite=False)
        return Moved([] if snapshot is None else [snapshot], end)

    def arrive(self, slot: int) -> End:
        """What came of a slot that has made its last step."""
        image, moments = self._image(slot, "parameters"), None
        if not self._start(slot).last:
            first, second = (self._stacked[name][slot].clone() for name in ("first", "second"))
            moments = first, second
        return End(image, self._picture(image), self._progress(slot), finite=True, moments=moments)

    def _note(
        self,
        slots: NDArray[np.int64],
        totals: NDArray[np.float64],
        penalties: NDArray[np.float64],
        terms: NDArray[np.float64],
    ) -> None:
        """Keeps the scores of slots, one row each."""
        more = terms.shape[1] - self._terms.shape[1]
        if more > 0:
            self._terms = np.pad(self._terms, ((0, 0), (0, more)))
        self._scored[slots] = True
        self._scores[slots] = np.column_stack([totals, penalties])
        self._terms[slots, : terms.shape[1]] = terms

    def _progress(self, slot: int) -> Progress:
        """How far it is, by its last score; of no number where it has none."""
        start = self._start(slot)
        count, step = len(start.target.terms), self._step_of(slot)
        if not self._scored[slot]:
            nothing = float("nan")
            return Progress(start.restart, step, nothing, (nothing,) * count, 0.0, 0.0)
        total, lp, tv = self._scores[slot].tolist()
        terms = tuple(self._terms[slot, :count].tolist())
        return Progress(start.restart, step, total, terms, lp, tv)

    def _due(self, slots: list[int]) -> NDArray[np.bool_]:
        """Of which slots, as they have moved, there is something to tell."""
        steps = self._steps[slots]
        due: NDArray[np.bool_] = steps == self._of("step_count", slots)
        for name in ("progress_every", "preview_every", "checkpoint_every"):
            every = self._of(name, slots)
            due = due | ((every > 0) & (steps % np.maximum(every, 1) == 0))
        return due

    def _told(self, slot: int, *, stopped: bool, final: bool) -> Moved:
        if stopped:
            return self.stop(slot)
        start, step, progress = self._start(slot), int(self._steps[slot]), self._progress(slot)
        ascent = start.ascent
        if final:
            return Moved((progress,), self.arrive(slot))
        shown: list[Any] = []
        if step % ascent.progress_every == 0 and step < ascent.step_count:
            shown.append(progress)
        if ascent.preview_every and step % ascent.preview_every == 0:
            image = self._image(slot, "parameters")
            picture = (start.shown or self._picture)(image)
            shown.append(Preview(start.restart, progress.step, picture))
        if ascent.checkpoint_every and step % ascent.checkpoint_every == 0:
            shown.append(self.snapshot(slot))
        if step == ascent.step_count and not start.last:
            return Moved(shown, self.arrive(slot))
        return Moved(shown)

    def snapshot(self, slot: int) -> Any:
        start = self._start(slot)
        if not start.ascent.checkpoint_every:
            return None
        step, total, ended = int(self._steps[slot]), self._step_of(slot), bool(self._stopped[slot])
        tensors = {name: self._stacked[name][slot].clone() for name in STATE}
        for goal in start.target.kept_apart:  # others look at what it was like as it ended, too
            tensors |= goal.siblings.state(start.restart, total + ended)
        last = self._progress(slot)
        scores = (last.score, last.lp_penalty, last.tv_penalty, *last.terms)
        return Snapshot(
            start.restart,
            start.octave,
            step,
            total,
            tensors,
            dict(zip(numbers_of(len(last.terms)), scores, strict=True)),
            together=bool(start.target.kept_apart),
            ended=ended,
        )

    def _start(self, slot: int) -> Start:
        start = self._starts[slot]
        assert start is not None
        return start

    def _step_of(self, slot: int) -> int:
        """Steps that it has made over all octaves."""
        return int(self._before[slot] + self._steps[slot])

    def _put_back(
        self,
        looked: _Looked,
        state: Mapping[str, Tensor],
        going: NDArray[np.bool_],
        scored: NDArray[np.bool_],
    ) -> None:
        good = {"good": looked.parameters.detach()}
        for tensors, which in ((good, scored), (state, going)):
            if len(which) == self._bucket_size and which.all():
                for name, tensor in tensors.items():
                    self._stacked[name].index_copy_(0, looked.rows, tensor)
                continue
            places = upload_tensor(torch.from_numpy(np.flatnonzero(which)), self._device)
            for name, tensor in tensors.items():
                self._stacked[name].index_copy_(0, looked.rows[places], tensor[places])

    # What rows have numbers of.

    def _of(self, name: str, slots: list[int]) -> NDArray[np.float64]:
        numbers: NDArray[np.float64] = self._numbers[slots, _NUMBERS.index(name)]
        return numbers

    def _rate(self, name: str, slots: list[int]) -> Tensor:
        return self._upload(self._of(name, slots))

    def _upload(self, numbers: NDArray[Any]) -> Tensor:
        return upload_tensor(torch.from_numpy(numbers).to(self._dtype), self._device)

    def _which(self, name: str, slots: list[int]) -> NDArray[np.bool_]:
        flags: NDArray[np.bool_] = self._flags[slots, _FLAGS.index(name)]
        return flags

    def _chosen(self, which: NDArray[np.bool_], yes: Tensor, no: Tensor) -> Tensor:
        """Rows of the one where they are meant, and of the other elsewhere."""
        if which.all():
            return yes
        mask = upload_tensor(torch.from_numpy(which), self._device)
        return torch.where(mask.view([-1] + [1] * (yes.dim() - 1)), yes, no)

    def _where_any(
        self, which: NDArray[np.bool_], make: Callable[[], Tensor], otherwise: Tensor
    ) -> Tensor:
        """As _chosen; nothing is made where no row is meant."""
        return self._chosen(which, make(), otherwise) if which.any() else otherwise

    def _only(self, which: NDArray[np.bool_], rows: Tensor) -> Tensor:
        """Rows as they are where they are meant, and zeros elsewhere.

        What is computed of rows that are not meant is not used, but its slope is passed back: as 0
        times what may be infinite in an image that diverges.
        """
        return self._chosen(which, rows, torch.zeros_like(rows))

    # The prelude.

    def _images(self, parameters: Tensor, slots: list[int]) -> Tensor:
        spectral = self._which("spectral", slots)
        return self._where_any(
            spectral,
            lambda: prelude.from_spectrum(self._only(spectral, parameters), self._size, self._mean),
            prelude.pixels_of(parameters, self._size),
        )

    def _valid(self, parameters: Tensor, slots: list[int]) -> Tensor:
        """Near to the photo, and with pixels from 0 to 255, where they are to be."""
        for name, within in (("max_linf", updates.within_linf), ("max_l2", updates.within_l2)):
            parameters = self._where_any(
                self._of(name, slots) > 0,
                functools.partial(self._near, within, parameters, name, slots),
                parameters,
            )

        def clipped() -> Tensor:
            pixels = prelude.pixels_of(parameters, self._size)
            low, high = -255 * self._mean, 255 * (1 - self._mean)
            return prelude.from_pixels(pixels.clamp(low, high), self._size)

        return self._where_any(self._which("clip_pixels", slots), clipped, parameters)

    def _near(
        self,
        within: Callable[[Tensor, Tensor, Tensor], Tensor],
        parameters: Tensor,
        name: str,
        slots: list[int],
    ) -> Tensor:
        rows = upload(slots, self._device)
        return within(parameters, self._stacked[_ANCHOR][rows], self._rate(name, slots))

    def _transformed(self, images: Tensor, slots: list[int], final: NDArray[np.bool_]) -> Tensor:
        """Moved, turned and scaled at random; as they are where they are final."""
        draw = draws.uniforms(self._seeds[slots], self._clock(slots), 4)
        jitter = np.where(final, 0, self._of("jitter_px", slots))

        def rolled() -> Tensor:
            shifts = np.floor(draw[:, :2] * (2 * jitter + 1)[:, None]) - jitter[:, None]
            whole = torch.from_numpy(shifts.astype(np.int64))
            down, right = upload_tensor(whole, self._device).unbind(1)
            return prelude.roll(images, down, right)

        images = rolled() if jitter.any() else images
        rotation = np.where(final, 0, self._of("rotation_degrees", slots))
        scaling = np.where(final, 0, self._of("scaling", slots))

        def warped() -> Tensor:
            degrees = self._upload((2 * draw[:, 2] - 1) * rotation)
            factors = self._upload(1 + (2 * draw[:, 3] - 1) * scaling)
            return prelude.warp(images, degrees, factors)

        return self._where_any((rotation > 0) | (scaling > 0), warped, images)

    def _clock(self, slots: list[int]) -> NDArray[np.int64]:
        return self._before[slots] + self._steps[slots]

    def _penalties(self, images: Tensor, slots: list[int]) -> Tensor:
        """What is subtracted, n×2: for Lp and for total variation."""
        lp, tv = self._of("lp_penalty", slots), self._of("tv_penalty", slots)
        nothing = images.new_zeros(len(images))
        of_lp = self._where_any(
            lp > 0,
            lambda: regularizers.lp_penalty(
                self._only(lp > 0, images), self._upload(lp), self._rate("lp_order", slots)
            ),
            nothing,
        )
        of_tv = self._where_any(
            tv > 0,
            lambda: regularizers.tv_penalty(
                self._only(tv > 0, images), self._upload(tv), self._rate("tv_beta", slots)
            ),
            nothing,
        )
        return torch.stack([of_lp, of_tv], 1)

    # Updates, and what follows them.

    def _change(
        self, slope: Tensor, state: dict[str, Tensor], slots: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate = self._rate("learning_rate", slots)
        first, second = state["first"], state["second"]
        change = torch.zeros_like(slope)
        if (adam := self._which("adam_rule", slots)).any():
            count = self._upload(self._steps[slots] + self._moment_steps[slots] + 1.0)
            moved, mean, square = updates.adam(slope, first, second, rate, count)
            change = self._chosen(adam, moved, change)
            first, second = self._chosen(adam, mean, first), self._chosen(adam, square, second)
        if (momentum := self._which("momentum_rule", slots)).any():
            keep = self._rate("momentum", slots)
            velocity = updates.momentum(slope, first, rate, keep)
            change, first = (self._chosen(momentum, velocity, old) for old in (change, first))
        state = state | {"first": first, "second": second}
        sizes = np.where(self._which("spectral", slots), slope.shape[1], 3 * np.prod(self._size))
        change = self._where_any(
            self._which("normalized_rule", slots),
            lambda: updates.normalized(slope, rate, self._upload(sizes)),
            change,
        )
        change = self._where_any(
            self._which("progress_rule", slots),
            lambda: updates.progress(slope, rate, self._rate("progress", slots)),
            change,
        )
        for rule, moves in (("sign_rule", updates.sign), ("unit_rule", updates.unit)):
            change = self._where_any(
                self._which(rule, slots), functools.partial(moves, slope, rate), change
            )
        if (lbfgs := self._which("lbfgs_rule", slots)).any():
            remembered = {n: state[n].unflatten(1, (updates.HISTORY, -1)) for n in _MEMORY}
            remembered["products"] = remembered["products"][..., 0]
            before = updates.Memory(first, second, **remembered)
            memory = updates.lbfgs(slope, before, rate)
            made = {"first": memory.gradient, "second": memory.change}
            made |= {name: getattr(memory, name).flatten(1) for name in _MEMORY}
            state = {name: self._chosen(lbfgs, made[name], old) for name, old in state.items()}
            change = self._chosen(lbfgs, memory.change, change)
        return change, state

    def _regularized(self, parameters: Tensor, slope: Tensor, slots: list[int]) -> Tensor:
        """After a step, in Yosinski's order: decay, blur, small norms, small contributions."""
        strengths = {name: self._of(name, slots) for name in _OPERATORS}
        due = self._steps[slots] % self._of("blur_every", slots) == 0
        strengths["blur_sigma_px"] = strengths["blur_sigma_px"] * due
        if not any(strength.any() for strength in strengths.values()):
            return parameters
        pixels = prelude.pixels_of(parameters, self._size)
        gradient = prelude.pixels_of(slope, self._size)
        made: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "l2_decay": regularizers.decay,
            "blur_sigma_px": lambda x, s: regularizers.blur(x, s, MOST_BLUR_PX),
            "small_norm_percentile": regularizers.clip_small_norms,
            "small_contribution_percentile": lambda x, s: regularizers.clip_small_contributions(
                x, gradient, s
            ),
        }
        for name, strength in strengths.items():
            if strength.any():
                pixels = self._chosen(
                    strength > 0, made[name](pixels, self._upload(strength)), pixels
                )
        changed = prelude.from_pixels(pixels, self._size)
        operated = np.any([strength > 0 for strength in strengths.values()], axis=0)
        return self._chosen(operated, changed, parameters)

    # Images.

    def _image(self, slot: int, name: str) -> Tensor:
        with torch.no_grad():
            return self._images(self._stacked[name][slot][None], [slot])[0].clone()

    def _picture(self, image: Tensor) -> Tensor:
        return (image / 255 + self._mean).clamp(0, 1)


def end_of(stepper: AscentStepper, start: Start) -> End:
    """What an image ended with that its state says has ended, or has made its last step."""
    assert start.state is not None
    slot = stepper.join(start)
    end: End = stepper.stop(slot).end if start.state.ended else stepper.arrive(slot)
    stepper.leave(slot)
    return end
