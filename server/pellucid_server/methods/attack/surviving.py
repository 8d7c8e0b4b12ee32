"""The smallest changes, where they are to outlive the rounding to 8 bits."""

import torch
from torch import Tensor

from ...engine.rows import Ask, Lane, Program, Rows, TopTarget
from .algorithm import Scene


def made_larger(scene: Scene, image: Tensor) -> Program[Tensor | None]:
    """The change, as many times as large as it must be to do at 8 bits what it does without.

    It is often below half a grey level everywhere: nothing of it is left when it is rounded.

    Args:
        scene: What is attacked.
        image: 3×H×W, from 0 to 255, of the class that is wanted.

    Returns:
        3×H×W, not rounded; None: no multiple of it is.
    """
    base = scene.base
    for factors in _FACTORS:
        longer = torch.stack([base.pixels + k * (image - base.pixels) for k in factors])
        longer = longer.clamp(0, 255)
        looked = yield Rows(
            scene.inputs_of(longer.round()),
            TopTarget(),
            bucket_size=scene.bucket_size,
            may_fail=True,
        )
        for place, index in enumerate(looked.classes.tolist()):
            if not looked.finite[place]:
                continue
            if index != base.source if base.goal is None else index == base.goal:
                return longer[place]
    return None


def asks() -> list[Ask]:
    """Its rows, as far as one knows before."""
    return [Ask(Lane.FORWARD, len(_FACTORS[0]), _USUAL_LOOKS)]


_USUAL_LOOKS = 2
"""Measured: changes survive at 2.4 to 4 times their size."""

_FACTORS = [[2 ** (k / 4) for k in range(start, start + 8)] for start in range(0, 40, 8)]
"""What it is tried times, from 1 to 860, a few at a time."""
