"""Zennit's relevance, on the network as it was built."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import torch
from pellucid_server.models.gates import Rule
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn
from zennit.canonizers import (
    AttributeCanonizer,
    CompositeCanonizer,
    NamedMergeBatchNorm,
    SequentialMergeBatchNorm,
)
from zennit.composites import EpsilonPlusFlat, LayerMapComposite, layer_map_base
from zennit.core import Composite
from zennit.layer import Sum
from zennit.rules import Epsilon
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

from tests.oracle.networks import seeded


class _SkipSums(AttributeCanonizer):
    """Gives timm's blocks, whose skip connections are bare sums, a module for the sum."""

    def __init__(self) -> None:
        super().__init__(self._with_sum)

    @staticmethod
    def _with_sum(_name: str, module: nn.Module) -> dict[str, object] | None:
        if not isinstance(module, (DepthwiseSeparableConv, InvertedResidual)):
            return None
        return {"forward": functools.partial(_block, module), "skip_sum": Sum()}


def _block(block: nn.Module, x: Tensor) -> Tensor:
    out = x
    for name in ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"):
        if isinstance(block, DepthwiseSeparableConv):
            name = {"conv_pw": "conv_dw", "conv_dw": "conv_pw"}.get(name, name)
        out = getattr(block, name)(out) if hasattr(block, name) else out
    return block.skip_sum(torch.stack([x, out], dim=-1)) if block.has_skip else out


def _lite0_canonizer() -> CompositeCanonizer:
    modules = list(seeded("efficientnet_lite0").named_modules())
    convolutions = [name for name, m in modules if isinstance(m, nn.Conv2d)]
    norms = [name for name, m in modules if isinstance(m, nn.BatchNorm2d)]
    pairs = [((c,), n) for c, n in zip(convolutions, norms, strict=True)]
    return CompositeCanonizer((NamedMergeBatchNorm(pairs), _SkipSums()))


CANONIZERS: dict[str, Callable[[], object]] = {
    "vgg16_narrow": SequentialMergeBatchNorm,
    "resnet50": ResNetCanonizer,
    "googlenet": SequentialMergeBatchNorm,
    "efficientnet_lite0": _lite0_canonizer,
}


def _composite(name: str, rule: Rule, epsilon: float) -> Composite:
    canonizers = [CANONIZERS.get(name, SequentialMergeBatchNorm)()]
    if rule is Rule.LRP_COMPOSITE:
        return EpsilonPlusFlat(epsilon=epsilon, stabilizer=epsilon, canonizers=canonizers)
    layers = [*layer_map_base(epsilon), (Linear, Epsilon(epsilon=epsilon))]
    return LayerMapComposite(layer_map=layers, canonizers=canonizers)


def by_zennit(name: str, image: Tensor, target: int, rule: Rule, epsilon: float) -> Tensor:
    """The relevance of an image for a class, 3×H×W."""
    network = seeded(name)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with ExitStack() as ruled:
        ruled.enter_context(_composite(name, rule, epsilon).context(network))
        for norm in norms:  # merged, they are the identity, but for this
            ruled.enter_context(mock.patch.object(norm, "eps", 0.0))
        x = image[None].clone().requires_grad_()
        logits = network(x)
        seed = torch.zeros_like(logits)
        seed[0, target] = logits.detach()[0, target]
        (found,) = torch.autograd.grad(logits, x, seed)
    return found[0]
