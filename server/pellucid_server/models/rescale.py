"""DeepLIFT's rescale rule, as a backward program."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .program import MOVES, Program, attached

_TINY = 1e-10
"""Inputs closer than that to their references: the derivative stands in (as Captum has it)."""

_UNIVARIATE = (
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold", "_threshold"),
    *("leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("sigmoid", "hardsigmoid", "logsigmoid", "log_sigmoid", "tanh", "softplus", "softsign"),
)
_SUMS = ("add", "sub", "__rsub__", "neg", "mean", "sum", "avg_pool2d", "adaptive_avg_pool2d")
_LAYERS = ("conv2d", "linear", "batch_norm", "div")
_PRODUCTS = ("mul", "matmul")


class Rescale(Program):
    """A forward pass under it passes multipliers back instead of gradients.

    The batch is 2n images: n, and then the reference of each. Seeded in the first half alone,
    what torch.autograd.grad brings to that half are multipliers m: contributions
    m · (image - reference) sum to score(image) - score(reference). Linear calls pass
    multipliers as they pass gradients, nonlinear ones of one variable by Δout / Δin, and
    maxima by what the input that won and the reference that won each account for
    (Shrikumar and others 2017, arXiv:1704.02685). What comes to the second half is of no use.
    """

    title = "DeepLIFT"

    def _univariate(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        self.expect_constants(func, args, kwargs)
        return self.passed_back(func, args, kwargs, _rescale)

    def _maximum(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        return self.passed_back(func, args, kwargs, _rescale_maximum)

    def _product(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Handles a call that is linear in each of two arguments."""
        if len(list(attached(args, kwargs))) > 1:
            raise self.undefined(func, args, kwargs)
        return func(*args, **kwargs)

    def _layer(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Handles a call that is linear in its first argument."""
        self.expect_constants(func, args, kwargs)
        return func(*args, **kwargs)

    handlers: ClassVar = {
        **dict.fromkeys((*MOVES, *_SUMS), Program.plain),
        **dict.fromkeys(_LAYERS, _layer),
        **dict.fromkeys(_PRODUCTS, _product),
        **dict.fromkeys(_UNIVARIATE, _univariate),
        **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), _maximum),
    }


def _rescale(inputs: Sequence[Tensor], out: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Back through a function of one variable: by Δout / Δin."""
    (gradient,) = torch.autograd.grad(out, inputs, upstream)
    ours, theirs = out.detach().chunk(2)
    contribution = _times(upstream.chunk(2)[0], ours - theirs)
    return _multipliers(inputs[0].detach(), contribution, gradient)


def _rescale_maximum(inputs: Sequence[Tensor], out: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Back through a maximum: Δout = (both - theirs) + (ours - both), both the larger of the two.

    The first term goes to the input that won among ours, the second to where the winner among
    theirs stands. An input that wins several windows collects from all.
    """
    ours, theirs = out.detach().chunk(2)
    both = torch.maximum(ours, theirs)
    multiplier = upstream.chunk(2)[0]
    shares = torch.cat([_times(multiplier, both - theirs), _times(multiplier, ours - both)])
    (collected,) = torch.autograd.grad(out, inputs, shares, retain_graph=True)
    to_ours, to_theirs = collected.chunk(2)
    (gradient,) = torch.autograd.grad(out, inputs, upstream)
    return _multipliers(inputs[0].detach(), to_ours + to_theirs, gradient)


def _multipliers(x: Tensor, contribution: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """From the contribution of each of our inputs; nothing for the references."""
    ours, theirs = x.chunk(2)
    difference = ours - theirs
    multipliers = torch.where(
        difference.abs() < _TINY, gradient.chunk(2)[0], contribution / difference
    )
    return (torch.cat([multipliers, torch.zeros_like(multipliers)]),)


def _times(multiplier: Tensor, difference: Tensor) -> Tensor:
    """Selected, or inf · 0 would be NaN."""
    return torch.where(difference == 0, 0, multiplier * difference)
