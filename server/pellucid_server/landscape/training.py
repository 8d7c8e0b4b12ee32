"""Perceptrons of one shape, trained from many seeds at once in stacked tensors.

A stack is a batched matrix product a layer: no sum goes over its seeds, and every seed draws its
start and its batches by itself, so that none of them sees another.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..methods import draws
from .digits import CLASS_COUNT, PIXEL_COUNT, Digits

_BATCH_SIZE = 128
_MOMENTUM = 0.9
_LEARNING_RATE = 0.1
"""Of the first step; it falls to 0 by half a cosine (Loshchilov and Hutter 2016,
arXiv:1608.03983), so that what is reached at the end is not where noise left it."""


@dataclass(frozen=True)
class Shape:
    """A perceptron with rectifiers on the 64 pixels of a digit.

    Attributes:
        width: Units of each hidden layer.
        depth: Hidden layers.
    """

    width: int
    depth: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the inputs, of what each layer makes, and of the logits."""
        return (PIXEL_COUNT, *[self.width] * self.depth, CLASS_COUNT)


@dataclass(frozen=True)
class Stack:
    """What came of all seeds of a shape.

    Attributes:
        weights: Of each layer, seeds × in × out, float64.
        biases: Of each layer, seeds × out.
        train_losses: Mean cross entropy over the training set, in nats, one a seed.
        test_losses: The same of the held-out digits.
        test_errors: Share of the held-out digits that are taken for another.
        gradient_norms: ‖∂ train loss / ∂ weights and biases‖₂: 0 at a critical point.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    train_losses: Tensor
    test_losses: Tensor
    test_errors: Tensor
    gradient_norms: Tensor


def run_seed(*parts: object) -> int:
    """A seed of a run's own, below 2⁶²: no two runs of any call draw the same."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 2


def start(shape: Shape, seeds: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of variance 2 / in (He and others 2015, arXiv:1502.01852), biases of 0."""
    lengths = shape.lengths
    weights = [
        torch.stack([draws.normal(seed, layer, (into, out)) for seed in seeds])
        * math.sqrt(2 / into)
        for layer, (into, out) in enumerate(pairwise(lengths))
    ]
    biases = [torch.zeros(len(seeds), out, dtype=torch.float64) for out in lengths[1:]]
    return weights, biases


def logits_of(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Seeds × n × classes.

    Args:
        inputs: Seeds × n × 64, or n × 64 that all of them see.
        weights: Of each layer, seeds × in × out.
        biases: Of each layer, seeds × out.
    """
    made = inputs
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        made = torch.matmul(F.relu(made) if layer else made, weight) + bias[:, None]
    return made


def train(
    shape: Shape,
    seeds: Sequence[int],
    digits: Digits,
    epoch_count: int,
    advanced: Callable[[], None] = lambda: None,
) -> Stack:
    """Stochastic gradient descent with momentum, on the cross entropy.

    Args:
        shape: Of all networks.
        seeds: Of each network: its start, and the order of its training set in each epoch.
        digits: What they learn.
        epoch_count: Passes through the training set.
        advanced: Called after each epoch.
    """
    weights, biases = start(shape, seeds)
    parameters = [tensor.requires_grad_() for tensor in (*weights, *biases)]
    count = len(digits.train_inputs)
    batch_count = math.ceil(count / _BATCH_SIZE)
    # The gradient of a sum over seeds is each seed's own, and so is all that the optimizer does.
    optimizer = torch.optim.SGD(parameters, _LEARNING_RATE, momentum=_MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epoch_count * batch_count)
    for epoch in range(epoch_count):
        orders = torch.stack([draws.permutation(seed, epoch, count) for seed in seeds])
        for batch in orders.split(_BATCH_SIZE, dim=1):
            logits = logits_of(digits.train_inputs[batch], weights, biases)
            optimizer.zero_grad()
            _losses(logits, digits.train_classes[batch]).sum().backward()
            optimizer.step()
            schedule.step()
        advanced()
    train_losses = _losses(logits_of(digits.train_inputs, weights, biases), digits.train_classes)
    gradients = torch.autograd.grad(train_losses.sum(), parameters)
    norms = torch.cat([gradient.flatten(1) for gradient in gradients], 1).norm(dim=1)
    with torch.no_grad():
        logits = logits_of(digits.test_inputs, weights, biases)
        wrong = logits.argmax(2) != digits.test_classes
    return Stack(
        tuple(weight.detach() for weight in weights),
        tuple(bias.detach() for bias in biases),
        train_losses.detach(),
        _losses(logits, digits.test_classes),
        wrong.double().mean(1),
        norms,
    )


def _losses(logits: Tensor, classes: Tensor) -> Tensor:
    """The mean cross entropy of each seed: of seeds × n × classes, by n or seeds × n classes."""
    log_probabilities = logits.log_softmax(2)
    chosen = classes.expand(logits.shape[:2])[..., None]
    return -log_probabilities.gather(2, chosen).squeeze(2).mean(1)
