"""Layer-wise relevance propagation, as a backward program."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .gates import Rule, spans_of
from .program import MOVES, Program

_ACTIVATIONS = (
    *("relu", "hardtanh", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu"),
    *("tanh", "softsign"),
)
"""Univariate, rising, and 0 at 0: relevance passes them as it is."""


class Relevance(Program):
    """A forward pass under it passes relevance back instead of gradients.

    Seeded with the activation of a target, what torch.autograd.grad brings to the images is
    their relevance. All rules share z = Σ zᵢ out among the zᵢ, as R · zᵢ / (z + ε · sign z)
    with sign 0 = 1, and differ in what z is. A layer's own z, bias included, is the epsilon
    rule (Bach and others 2015, doi:10.1371/journal.pone.0130140); it holds for average
    pooling and for sums as well. A composite takes other rules by kind of layer (Montavon and
    others 2019, doi:10.1007/978-3-030-28954-6_10; Kohlbrenner and others 2020,
    arXiv:1910.09840): of convolutions, only what raises z (z-plus), and of the first layer as
    much from each input (flat; Lapuschkin and others 2019, arXiv:1902.10178). Activations
    pass relevance as it is, and maxima to the input that won.

    Linear kernels run on the whole batch for each rule that occurs in it: on slices, bits
    would depend on how many neighbours share a row's rule.

    Args:
        rules: LRP_EPSILON or LRP_COMPOSITE for each row, sorted.
        epsilons: n, more than 0, in the network's dtype, on its device.
    """

    title = "layer-wise relevance propagation"

    def __init__(self, rules: Sequence[Rule], epsilons: Tensor) -> None:
        super().__init__()
        self._spans = spans_of(rules)
        self._epsilons = epsilons
        self._first = True
        self._padded: tuple[Tensor, Tensor] | None = None  # before the first layer, and its ones

    def _layer(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Handles a convolution or a linear layer."""
        self.expect_constants(func, args, kwargs)
        x, *parameters = args
        z_of = _flat if self._first else _OF_COMPOSITE.get(func.__name__)
        start = self._ones(x) if self._first else x.detach()
        self._first, self._padded = False, None
        if z_of is None:
            return self._sum(func, args, kwargs)

        def back(inputs: Sequence[Tensor], out: Tensor, relevance: Tensor) -> tuple[Tensor, ...]:
            passed: Tensor | None = None
            for span in self._spans:
                if span.rule is Rule.LRP_COMPOSITE:
                    with torch.enable_grad():
                        leaf = start.requires_grad_()
                        z = z_of(func, leaf, *parameters, **kwargs)
                    (share,) = self._share([leaf], z, relevance)
                else:
                    (share,) = self._share(inputs, out, relevance)
                if passed is None:
                    passed = share
                else:
                    passed[span.start : span.stop] = share[span.start : span.stop]
            assert passed is not None
            return (passed,)

        return self.passed_back(func, args, kwargs, back)

    def _ones(self, x: Tensor) -> Tensor:
        """1 for each input of the first layer that is of the image, 0 on its border."""
        if self._padded is not None and self._padded[0] is x:
            return self._padded[1]
        return torch.ones_like(x)

    def _sum(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """Handles a call that adds inputs up, weighted or not."""
        return self.passed_back(func, args, kwargs, self._share)

    def _activation(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        return self.passed_back(func, args, kwargs, lambda _inputs, _out, relevance: (relevance,))

    def _pad(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        if not _pads_with_zeros(*args[2:], **kwargs):
            raise self.undefined(func, args, kwargs)
        padded = func(*args, **kwargs)
        if self._first:
            self._padded = padded, func(self._ones(args[0]), *args[1:], **kwargs)
        return padded

    def _share(
        self, inputs: Sequence[Tensor], out: Tensor, relevance: Tensor
    ) -> tuple[Tensor, ...]:
        """Each input's share, where the output is linear in the inputs or nearly."""
        epsilons = self._epsilons.view(-1, *[1] * (out.dim() - 1))
        z = out.detach()
        quotient = relevance / torch.where(z < 0, z - epsilons, z + epsilons)
        slopes = torch.autograd.grad(out, inputs, quotient)
        return tuple(
            torch.where(x == 0, 0, x * slope)
            for x, slope in zip((x.detach() for x in inputs), slopes, strict=True)
        )

    handlers: ClassVar = {
        **dict.fromkeys(MOVES, Program.plain),
        **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), Program.plain),
        **dict.fromkeys(("add", "mean", "avg_pool2d", "adaptive_avg_pool2d"), _sum),
        **dict.fromkeys(("conv2d", "linear"), _layer),
        **dict.fromkeys(_ACTIVATIONS, _activation),
        "pad": _pad,
    }


def _z_plus(
    func: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,
    **options: Any,
) -> Tensor:
    """What raises the output: positive inputs by positive weights, negative by negative."""
    raised = None if bias is None else bias.clamp(min=0)
    positive = func(x.clamp(min=0), weight.clamp(min=0), raised, *rest, **options)
    return positive + func(x.clamp(max=0), weight.clamp(max=0), None, *rest, **options)


def _flat(
    func: Callable[..., Tensor],
    ones: Tensor,
    weight: Tensor,
    _bias: Tensor | None = None,
    *rest: Any,
    **options: Any,
) -> Tensor:
    """How many inputs there are, the borders left out."""
    return func(ones, torch.ones_like(weight), None, *rest, **options)


_OF_COMPOSITE = {"conv2d": _z_plus}
"""The z of a composite by kind of layer, where it is not the layer's own."""


def _pads_with_zeros(mode: str = "constant", value: float | None = None, **_widths: Any) -> bool:
    return mode == "constant" and not value
