"""How parameters climb a gradient: each rule for all rows of a batch at once.

All tensors are n×P, but for the numbers of each row, which are n.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY = 10
"""Steps that L-BFGS remembers."""

_FLAT = 1e-10
"""Of L-BFGS: a slope that changes by less than this along a step, relative, is not remembered."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam, as in its paper."""


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, rate: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Kingma and Ba 2014, arXiv:1412.6980.

    Args:
        gradient: To climb.
        first: Its moment.
        second: Its second moment.
        rate: Of learning.
        count: Of steps, this one included.

    Returns:
        What to add, and both moments.
    """
    first = first.lerp(gradient, 1 - BETA_1)
    second = torch.addcmul(BETA_2 * second, gradient, gradient, value=1 - BETA_2)
    # The corrections of both moments, which start from 0, are one number a row.
    factor, root = rate / (1 - BETA_1**count), (1 - BETA_2**count).sqrt()
    change = factor[:, None] * first
    change /= second.sqrt().div_(root[:, None]).add_(EPSILON)
    return change, first, second


def momentum(gradient: Tensor, velocity: Tensor, rate: Tensor, keep: Tensor) -> Tensor:
    """The new velocity, which is what to add: v = μ·v + η·g; a plain step where μ is 0.

    Args:
        gradient: To climb.
        velocity: Of the step before.
        rate: η.
        keep: μ.
    """
    return keep[:, None] * velocity + rate[:, None] * gradient


def normalized(gradient: Tensor, rate: Tensor, count: Tensor) -> Tensor:
    """η·g / mean|g| (Mordvintsev, Olah and Tyka 2015).

    Args:
        gradient: To climb.
        rate: η.
        count: Of parameters; the rest of a row is 0.
    """
    mean = gradient.abs().sum(1) / count
    return torch.where(mean > 0, rate / mean, 0)[:, None] * gradient


def progress(gradient: Tensor, rate: Tensor, wanted: Tensor) -> Tensor:
    """min(η, D/‖g‖²)·g: the score rises by D at most, were it linear (Yosinski and others 2015).

    Args:
        gradient: To climb.
        rate: η.
        wanted: D.
    """
    square = gradient.square().sum(1)
    return torch.where(square > 0, torch.minimum(rate, wanted / square), 0)[:, None] * gradient


@dataclass(frozen=True)
class Memory:
    """What L-BFGS remembers of its steps, the newest first; zeros where it has none.

    Attributes:
        gradient: N×P: that of the step before.
        change: N×P: what the step before added.
        changes: N×HISTORY×P.
        slopes: N×HISTORY×P: what the gradient fell by along each.
        products: N×HISTORY: of each change with its slope; more than 0.
    """

    gradient: Tensor
    change: Tensor
    changes: Tensor
    slopes: Tensor
    products: Tensor


def lbfgs(gradient: Tensor, memory: Memory, rate: Tensor) -> Memory:
    """L-BFGS without a line search (Nocedal 1980, doi:10.2307/2006193).

    The first step goes along the gradient, by η·min(1, 1/Σ|g|), and all others by η times what the
    two loops make of it: as torch.optim.LBFGS steps, where its tolerances are 0.

    Args:
        gradient: To climb.
        memory: Before the step.
        rate: η.

    Returns:
        What is remembered then; its change is what to add.
    """
    slope = memory.gradient - gradient
    product = (slope * memory.change).sum(1)
    long = slope.square().sum(1).sqrt() * memory.change.square().sum(1).sqrt()
    new = product > _FLAT * long
    changes = _pushed(new, memory.change, memory.changes)
    slopes = _pushed(new, slope, memory.slopes)
    products = _pushed(new, product[:, None], memory.products[..., None])[..., 0]
    known = products > 0
    factors = torch.where(known, 1 / torch.where(known, products, 1), 0)
    way, shares = gradient, []
    for k in range(HISTORY):
        shares.append(factors[:, k] * (changes[:, k] * way).sum(1))
        way = way - shares[k][:, None] * slopes[:, k]
    curvature = slopes[:, 0].square().sum(1)
    way = torch.where(known[:, 0], products[:, 0] / curvature, 1)[:, None] * way
    for k in reversed(range(HISTORY)):
        share = shares[k] - factors[:, k] * (slopes[:, k] * way).sum(1)
        way = way + share[:, None] * changes[:, k]
    first = (1 / gradient.abs().sum(1)).clamp_max(1)
    length = torch.where(known[:, 0], rate, rate * first)
    rises = (way * gradient).sum(1) > 0  # rounding may turn it
    change = torch.where(rises[:, None], length[:, None] * way, 0)
    return Memory(gradient, change, changes, slopes, products)


def _pushed(new: Tensor, item: Tensor, kept: Tensor) -> Tensor:
    """With an item before what is kept, N×HISTORY×…, in rows where there is a new one."""
    pushed = torch.cat([item[:, None], kept[:, :-1]], 1)
    return torch.where(new[:, None, None], pushed, kept)


def sign(gradient: Tensor, rate: Tensor) -> Tensor:
    """η·sign(g) (Goodfellow, Shlens and Szegedy 2014, arXiv:1412.6572).

    Args:
        gradient: To climb.
        rate: η.
    """
    return rate[:, None] * gradient.sign()


def unit(gradient: Tensor, rate: Tensor) -> Tensor:
    """η·g / ‖g‖₂.

    Args:
        gradient: To climb.
        rate: η.
    """
    norm = gradient.square().sum(1).sqrt()
    return torch.where(norm > 0, rate / norm, 0)[:, None] * gradient


def within_linf(parameters: Tensor, anchor: Tensor, most: Tensor) -> Tensor:
    """The nearest parameters that differ from the anchor's by at most so much each.

    Args:
        parameters: What is to be near.
        anchor: To what.
        most: How near.
    """
    return torch.minimum(torch.maximum(parameters, anchor - most[:, None]), anchor + most[:, None])


def within_l2(parameters: Tensor, anchor: Tensor, most: Tensor) -> Tensor:
    """The nearest parameters whose L2 distance to the anchor is at most so much.

    Args:
        parameters: What is to be near.
        anchor: To what.
        most: How near.
    """
    change = parameters - anchor
    norm = change.square().sum(1).sqrt()
    near = anchor + torch.where(norm > 0, most / norm, 0)[:, None] * change
    return torch.where((norm > most)[:, None], near, parameters)
