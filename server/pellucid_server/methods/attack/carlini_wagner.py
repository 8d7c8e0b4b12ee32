"""Carlini and Wagner's attack: the smallest change by L2 that changes the class.

What is climbed is -(‖δ‖² + c·f): the change δ of colours from 0 to 1, and f, which is 0 where the
image is of another class, or of the goal, by the wanted margin. A search by halves finds the
smallest weight c that leads there.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...engine.lockstep import Climb, in_step
from ...engine.rows import Ask, MarginTarget, Program
from ...models.registry import Model
from ..optimize.ascent import MOST_STEPS
from ..optimize.optimize import dtype_of
from ..optimize.snapshot import Declared
from ..parameters import number
from . import surviving
from .algorithm import Algorithm, Crafted, Scene
from .carlini_wagner_stepper import NUMBERS, STATE, CarliniWagnerStepper, Found, Search

_GROWTH = 10.0
"""Of the weight, as long as none was large enough."""

_MANY_SEARCHES = 10
"""From so many weights on, the last one is the best so far once more."""

_MOST_WEIGHT = 1e10

_LEAST_STEPS = 2
"""Of a search that is spared the rest: its loss is to be looked at twice."""

_USUAL_SHARE = 0.2
"""Of its steps, the rest of which a search is spared once its loss no longer falls: measured, 0.1
to 0.3 on Lite0. A cost is predicted by it, as DeepFool's is by its usual steps."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Algorithm):
    """Carlini and Wagner 2016, arXiv:1608.04644; its search for the weight as foolbox has it."""

    step_count: int = number(1000, 1, MOST_STEPS)
    search_count: int = number(9, 1, 20)
    learning_rate: float = number(0.01, 1e-6, 1)
    confidence: float = number(0.0, 0, 100)
    initial_weight: float = number(0.001, 1e-6, 1e6)

    name: ClassVar[str] = "carlini_wagner"
    scale: ClassVar[str] = "step_count"
    kind: ClassVar[type] = CarliniWagnerStepper

    @property
    def step_total(self) -> int:
        return self.step_count * self.search_count

    def asks(self, done: int, bucket_size: int) -> Sequence[Ask]:
        usual = max(_LEAST_STEPS, math.ceil(_USUAL_SHARE * self.step_count))
        steps = self.search_count * min(self.step_count, usual)
        steps -= math.ceil(done * steps / self.step_total)
        return [in_step(max(1, steps), 1, bucket_size), *surviving.asks()]

    def byte_count(self, model: Model) -> int:
        slot = (1 + len(STATE)) * 3 * model.network.pixel_count * dtype_of(model).itemsize
        return 2 * slot

    def declared(self, model: Model) -> Sequence[Declared]:
        shape = (3 * model.network.pixel_count,)
        tensors = {name: (shape, dtype_of(model)) for name in STATE}
        return [Declared(tensors, frozenset(NUMBERS))] * self.search_count

    def craft(self, scene: Scene) -> Program[Sequence[Crafted]]:
        model, base = scene.model, scene.base
        sought = base.goal is not None
        target = MarginTarget(
            base.goal if base.goal is not None else base.source, sought, self.confidence
        )
        make = functools.partial(
            CarliniWagnerStepper,
            scene.size,
            model.preprocessing.mean,
            model.preprocessing.std,
            scene.bucket_size,
            dtype_of(model),
            model.network.dtype,
            model.network.device,
        )
        weight, lower, upper = self.initial_weight, 0.0, math.inf
        best, best_norm = None, math.inf
        state = scene.states[0] if scene.states else None
        if state is not None:
            weight, lower, upper = (state.numbers[name] for name in ("weight", "lower", "upper"))
        found: Found | None = None
        for search in range(0 if state is None else state.octave, self.search_count):
            start = Search(
                target,
                base.pixels,
                self.learning_rate,
                self.step_count,
                scene.shows,
                search,
                weight,
                lower,
                upper,
                best,
                best_norm,
                state,
            )
            [found] = yield Climb(
                scene.size, scene.bucket_size, CarliniWagnerStepper, make, [start]
            )
            assert found is not None
            best, best_norm, state = found.best, found.norm, None
            if not found.finite:
                break
            lower, upper = (lower, weight) if found.succeeded else (weight, upper)
            weight = weight * _GROWTH if math.isinf(upper) else (lower + upper) / 2
            if search + 2 == self.search_count >= _MANY_SEARCHES:
                weight = min(upper, _MOST_WEIGHT)
        assert found is not None
        if math.isinf(found.norm):
            return [Crafted(base.pixels, found.progress, found.finite)]
        farther = yield from surviving.made_larger(scene, found.pixels)
        return [Crafted(found.pixels, found.progress, found.finite, farther)]
