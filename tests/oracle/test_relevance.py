"""Layer-wise relevance propagation against Zennit, and against arithmetic by hand."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from pellucid_server.models.gates import Rule, Undefined
from pellucid_server.models.network import OUTPUT, Network
from pellucid_server.models.registry import Precision
from pellucid_server.models.relevance import Relevance
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

from tests.harness import CPU, model, photo_input, relative_error
from tests.oracle.networks import image_for, seeded, served

BOUND = 1e-9
TARGET = 285
RULES = (Rule.LRP_EPSILON, Rule.LRP_COMPOSITE)


def relevance(
    network: Network,
    images: Tensor,
    rules: list[Rule],
    epsilons: list[float],
    targets: list[int],
) -> Tensor:
    """Of each image, by its own rule, for its own target."""
    images = images.to(network.dtype).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    mode = Relevance(rules, torch.tensor(epsilons, dtype=network.dtype))
    logits = network.forward(images, mode=mode)[OUTPUT]
    chosen = F.one_hot(torch.tensor(targets), network.class_count).bool()
    (found,) = torch.autograd.grad(logits, images, logits.detach().where(chosen, 0))
    return found


# Zennit, on the network as it was built.


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
    "vgg16": SequentialMergeBatchNorm,
    "resnet50": ResNetCanonizer,
    "googlenet": SequentialMergeBatchNorm,
    "efficientnet_lite0": _lite0_canonizer,
}


def _composite(name: str, rule: Rule, epsilon: float) -> Composite:
    canonizers = [CANONIZERS[name]()]
    if rule is Rule.LRP_COMPOSITE:
        return EpsilonPlusFlat(epsilon=epsilon, stabilizer=epsilon, canonizers=canonizers)
    layers = [*layer_map_base(epsilon), (Linear, Epsilon(epsilon=epsilon))]
    return LayerMapComposite(layer_map=layers, canonizers=canonizers)


def by_zennit(name: str, image: Tensor, rule: Rule, epsilon: float) -> Tensor:
    network = seeded(name)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with ExitStack() as ruled:
        ruled.enter_context(_composite(name, rule, epsilon).context(network))
        for norm in norms:  # merged, they are the identity, but for this
            ruled.enter_context(mock.patch.object(norm, "eps", 0.0))
        x = image[None].clone().requires_grad_()
        logits = network(x)
        seed = torch.zeros_like(logits)
        seed[0, TARGET] = logits.detach()[0, TARGET]
        (found,) = torch.autograd.grad(logits, x, seed)
    return found[0]


@pytest.mark.parametrize("name", CANONIZERS)
def test_rules_equal_zennit(name: str) -> None:
    network, image = served(name).network, image_for(name)
    assert network.lrp_refusal is None
    cases = [(Rule.LRP_EPSILON, 1e-2), (Rule.LRP_COMPOSITE, 1e-6)]
    rules, epsilons = map(list, zip(*cases, strict=True))
    found = relevance(network, torch.stack([image] * 2), rules, epsilons, [TARGET] * 2)
    for actual, (rule, epsilon) in zip(found, cases, strict=True):
        expected = by_zennit(name, image, rule, epsilon)
        assert relative_error(actual, expected) <= BOUND, (rule, epsilon)


# By hand: the stabilizer is 1 throughout, so that z = 3 divides by 4 and z = -3 by -4.


def passed_back(
    body: Callable[[Tensor], Tensor], x: list[object], rule: Rule, arriving: list[object]
) -> list[object]:
    """The relevance of one row."""
    row = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    with Relevance([rule], torch.ones(1, dtype=torch.float64)):
        out = body(row)
    (found,) = torch.autograd.grad(out, row, torch.tensor([arriving], dtype=torch.float64))
    return found[0].tolist()


def float64(values: list[object]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


WEIGHT, BIAS = float64([[3, 2], [-1, 1], [1, -1]]), float64([-1, 0, 0])


def dense(x: Tensor) -> Tensor:
    return F.linear(x, WEIGHT, BIAS)


def after_the_first(x: Tensor) -> Tensor:
    """A 1×1 convolution that is not the network's first, which copies two channels."""
    copied = F.conv2d(x, torch.eye(2, dtype=torch.float64)[:, :, None, None])
    return F.conv2d(copied, WEIGHT[:, :, None, None], BIAS)


@pytest.mark.parametrize("rule", RULES)
def test_epsilon_on_paper(rule: Rule) -> None:
    """x = 2, -1: z = 6-2-1 = 3, -2-1 = -3 and 2+1 = 3; shares z_i / (z ± 1)."""
    found = passed_back(lambda x: dense(x), [2, -1], Rule.LRP_EPSILON, [4, 8, 0])
    assert found == [4 * 6 / 4 + 8 * -2 / -4, 4 * -2 / 4 + 8 * -1 / -4]
    # At z = 0 the stabilizer adds: -2 of 0 + 1.
    assert passed_back(dense, [1, -1], Rule.LRP_EPSILON, [0, 0, 3]) == [3 * 1 / 3, 3 * 1 / 3]
    assert passed_back(dense, [1, 1], Rule.LRP_EPSILON, [0, 5, 0]) == [-5, 5]
    # A linear layer that is not the first has the epsilon rule in the composite, too.
    relu_first = passed_back(
        lambda x: dense(F.linear(x, torch.eye(2, dtype=torch.float64))), [2, -1], rule, [4, 8, 0]
    )
    if rule is Rule.LRP_EPSILON:  # copied: 2 / (2 + 1) and -1 / (-1 - 1)
        assert relu_first == pytest.approx([10 * 2 / 3, 0])
    else:  # flat: both copies are shared by both inputs, n / (n + 1) of them
        assert relu_first == pytest.approx([10 / 3, 10 / 3])
