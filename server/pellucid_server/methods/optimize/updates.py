"""How parameters climb a gradient: each rule for all rows of a batch at once.

All tensors are n×P, but for the numbers of each row, which are n.
"""

import torch
from torch import Tensor

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
    return factor[:, None] * first / (second.sqrt() / root[:, None] + EPSILON), first, second


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
