"""Attacked images at 8 bits, within their budgets."""

import math

import torch
from torch import Tensor

from .algorithm import Budget


def rounded(image: Tensor, base: Tensor, budget: Budget | None) -> Tensor:
    """To the nearest whole numbers, or nearer to the photo where the budget asks for that.

    Args:
        image: 3×H×W, from 0 to 255, within the budget but for the last digits.
        base: 3×H×W, whole numbers from 0 to 255.
        budget: The most that the change may be; None: nothing bounds it.

    Returns:
        uint8 3×H×W.
    """
    change = image.double() - base.double()
    steps = (image.double().round() - base.double()).clamp(-base.double(), 255 - base.double())
    if budget is not None:
        steps = _within(budget, steps, change)
    return (base.double() + steps).to(torch.uint8)


def whole(change: Tensor, budget: Budget) -> Tensor:
    """A change as whole numbers within its budget, whatever photo it is of."""
    return _within(budget, change.double().round(), change.double()).to(change)


def _within(budget: Budget, steps: Tensor, change: Tensor) -> Tensor:
    if budget.norm == "linf":
        most = math.floor(budget.epsilon)
        return steps.clamp(-most, most)
    return _shortened(steps, change, budget.epsilon)


def _shortened(steps: Tensor, change: Tensor, epsilon: float) -> Tensor:
    """Whole numbers of an L2 norm of at most epsilon, one less where that changes least.

    Those that were rounded up come first: without them the norm is the change's own at most, and
    each is one of the two whole numbers beside it. Others do for a change's last digits.

    Args:
        steps: A change, in whole numbers.
        change: The one that they stand for.
        epsilon: The most of their norm.
    """
    most = epsilon**2
    while float(square := steps.square().sum()) > most:  # whole numbers: the sum is exact
        sizes = steps.abs().flatten()
        off = sizes - change.abs().flatten()  # how much too large each is
        gain = 2 * sizes - 1  # what the square loses where it is one smaller
        price = torch.where(sizes > 0, (1 - 2 * off) / gain + (off <= 0), math.inf)
        order = price.argsort(stable=True)
        left = square - gain[order].cumsum(0)
        fewest = int((left > most).logical_and(sizes[order] > 0).sum()) + 1
        less = torch.zeros_like(sizes)
        less[order[:fewest]] = 1
        steps = steps.sign() * (sizes - less).clamp_min(0).view(steps.shape)
    return steps
