"""Attacks along the gradient of the log-probability: one step, several, and from random starts.

They climb as every other optimization does, in the same batches: untargeted, less the
log-probability of the source; targeted, that of the goal.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor

from ...engine.lockstep import Climb, in_step
from ...engine.rows import Ask, ClassTarget, Program, Score, SumTarget
from ...models.registry import Model
from .. import draws
from ..optimize.ascent import MOST_RESTARTS, MOST_STEPS, PLAIN, Ascent
from ..optimize.optimize import STACKED, dtype_of, stepper_of
from ..optimize.prelude import parameter_count
from ..optimize.snapshot import Declared
from ..optimize.stepper import STATE, AscentStepper, End, Start, end_of, numbers_of
from ..parameters import MOST_SEED, Known, choice, number, positive
from .algorithm import Algorithm, Budget, Crafted, Norm, Scene
from .lens import Lens


def budget_of(linf: float, l2: float) -> Callable[[Known], float]:
    """A number that follows from the norm."""

    def of(known: Known) -> float:
        return l2 if known.values["norm"] == "l2" else linf

    return of


def epsilon_of(linf: float, l2: float) -> Any:
    """A field for the most that a change may be, with its defaults by norm.

    A change at 8 bits is of whole numbers: the smallest, of one number by one, is 1 by either norm.
    """
    return number(
        budget_of(linf, l2), 1, budget_of(255.0, 1e6), "at 8 bits nothing less is a change"
    )


def _share(divisor: float) -> Callable[[Known], float]:
    def of(known: Known) -> float:
        epsilon: float = known.values["epsilon"]
        return epsilon / divisor

    return of


def _epsilon(known: Known) -> float:
    epsilon: float = known.values["epsilon"]
    return epsilon


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Algorithm):
    """Steps along the sign of the gradient, or along it, that stay within a budget."""

    norm: str = choice("linf")
    epsilon: float = epsilon_of(8.0, 765.0)

    @property
    def budget(self) -> Budget:
        return Budget(cast(Norm, self.norm), self.epsilon)

    def asks(self, done: int, bucket_size: int) -> Sequence[Ask]:
        rows = (self.step_total + 1) * self.image_count - done  # an image is scored as it ends
        return [in_step(max(1, rows), self.image_count, bucket_size)]

    @property
    @abstractmethod
    def step_length(self) -> float:
        """Of each step, by the norm."""

    def byte_count(self, model: Model) -> int:
        count = parameter_count(*_size_of(model))
        slot = (STACKED + 1) * count * dtype_of(model).itemsize
        return 2 * slot * self.image_count

    def declared(self, model: Model) -> Sequence[Declared]:
        shape = (parameter_count(*_size_of(model)),)
        tensors = {name: (shape, dtype_of(model)) for name in STATE}
        return [Declared(tensors, frozenset(numbers_of(1)))]

    def craft(self, scene: Scene) -> Program[Sequence[Crafted]]:
        size, base = scene.size, scene.base
        goal = base.source if base.goal is None else base.goal
        weight = -1.0 if base.goal is None else 1.0
        target = SumTarget(((ClassTarget(goal, Score.LOG_PROBABILITY), weight),))
        origin = Lens.of(scene.model).origin
        ascent = self._ascent(scene)
        starts = [
            Start(
                ascent,
                target,
                self._start(base.pixels, self.first_seed + restart) - origin,
                restart,
                octave=0,
                last=True,
                state=scene.states[restart] if scene.states else None,
                anchor=base.pixels - origin,
            )
            for restart in range(self.image_count)
        ]
        make = functools.partial(stepper_of, scene.model, size, scene.bucket_size)
        ended = [start.state is not None and start.state.ended for start in starts]
        going = [start for start, over in zip(starts, ended, strict=True) if not over]
        climb = Climb(size, scene.bucket_size, AscentStepper, make, going)
        made = iter((yield climb) if going else ())
        ends: list[End] = [
            end_of(make(), start) if over else next(made)
            for start, over in zip(starts, ended, strict=True)
        ]
        return [
            Crafted((end.image + origin).clamp(0, 255), end.progress, end.finite) for end in ends
        ]

    def _ascent(self, scene: Scene) -> Ascent:
        height_px, width_px = scene.size
        by_sign = self.norm == "linf"
        settings = PLAIN | {
            "step_count": self.step_total,
            "update": "sign" if by_sign else "unit",
            "learning_rate": self.step_length,
            "start": "photo",
            "clip_pixels": True,
            "max_linf" if by_sign else "max_l2": self.epsilon,
            "seed": self.first_seed,
            "restart_count": self.image_count,
            "height_px": height_px,
            "width_px": width_px,
        }
        return Ascent(**settings, **vars(scene.shows))

    def _start(self, pixels: Tensor, seed: int) -> Tensor:
        """The image that the first step is made from."""
        return pixels


def _size_of(model: Model) -> tuple[int, int]:
    return model.network.height_px, model.network.width_px


@dataclass(frozen=True, kw_only=True)
class Fgsm(GradientAttack):
    """One step (Goodfellow, Shlens and Szegedy 2014, arXiv:1412.6572)."""

    name: ClassVar[str] = "fgsm"

    @property
    def step_total(self) -> int:
        return 1

    @property
    def step_length(self) -> float:
        return self.epsilon


@dataclass(frozen=True, kw_only=True)
class Bim(GradientAttack):
    """Several steps (Kurakin, Goodfellow and Bengio 2016, arXiv:1607.02533)."""

    step_count: int = number(10, 1, MOST_STEPS)
    step_size: float = positive(_share(5), _epsilon)

    name: ClassVar[str] = "bim"
    scale: ClassVar[str] = "step_count"

    @property
    def step_total(self) -> int:
        return self.step_count

    @property
    def step_length(self) -> float:
        return self.step_size


@dataclass(frozen=True, kw_only=True)
class Pgd(GradientAttack):
    """Several steps from random starts (Madry and others 2017, arXiv:1706.06083)."""

    step_count: int = number(40, 1, MOST_STEPS)
    step_size: float = positive(_share(30), _epsilon)
    seed: int = number(0, 0, MOST_SEED - MOST_RESTARTS)
    restart_count: int = number(1, 1, MOST_RESTARTS)

    name: ClassVar[str] = "pgd"
    scale: ClassVar[str] = "step_count"

    @property
    def step_total(self) -> int:
        return self.step_count

    @property
    def step_length(self) -> float:
        return self.step_size

    @property
    def image_count(self) -> int:
        return self.restart_count

    @property
    def first_seed(self) -> int:
        return self.seed

    def _start(self, pixels: Tensor, seed: int) -> Tensor:
        """A point of the budget about the photo, all of them equally likely."""
        change = within(self.budget, seed, tuple(pixels.shape))
        return (pixels + change.to(pixels)).clamp(0, 255)


def within(budget: Budget, seed: int, shape: tuple[int, ...]) -> Tensor:
    """A change of at most the budget, all of them equally likely; float64, on the host."""
    if budget.norm == "linf":
        return budget.epsilon * (2 * draws.uniform(seed, 0, shape) - 1)
    direction = draws.normal(seed, 0, shape)
    share = math.exp(math.log1p(-float(draws.uniform(seed, 1, ()))) / direction.numel())
    return direction * (budget.epsilon * share / float(direction.norm()))
