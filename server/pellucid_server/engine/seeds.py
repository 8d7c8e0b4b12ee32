"""From the tapped activations of a batch to scores, and to the seeds of one backward pass.

A seed is dL/dA of the sum of the batch's scores, for one tapped activation A. Each kind
of target is handled once over all the rows that use it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.network import OUTPUT, PENULTIMATE, Classifier
from .rows import (
    ClassesTarget,
    ClassTarget,
    NeuronTarget,
    PermutedTarget,
    Score,
    Target,
    TopTarget,
)

_ALL, _NONE = -1, -2

Place = tuple[int | None, ...]
"""Where along each axis of an activation a neuron is; None: everywhere."""


@dataclass(frozen=True)
class Scores:
    """The scores of a batch's rows, and what their gradients start from.

    Attributes:
        values: n, float64: the score of each row's target.
        classes: n, int64: the class of each row's target; -1 for a neuron or a sum.
        seeds: For each tap that targets need, a tensor of the activation's shape.
    """

    values: Tensor
    classes: Tensor
    seeds: dict[str, Tensor]


def channels_first(neuron: NeuronTarget) -> Place:
    """A neuron's place in an activation of channels, or of channels × height × width."""
    return (neuron.channel, neuron.y, neuron.x)


def score(
    activations: Mapping[str, Tensor],
    targets: Sequence[Target | None],
    place_of: Callable[[NeuronTarget], Place] = channels_first,
    classifier: Classifier | None = None,
) -> Scores:
    """Scores every row; a row without a target (padding) scores 0 and seeds nothing.

    Args:
        activations: For each tap, n×… .
        targets: One for each row.
        place_of: Where a neuron is in its layer's activation.
        classifier: The network's last layer, for targets of which rows are permuted.
    """
    some = next(iter(activations.values()))
    values = some.new_zeros(len(targets), dtype=torch.float64)
    classes = torch.full((len(targets),), -1, device=some.device)
    seeds: dict[str, Tensor] = {}
    if any(target is not None and target.tap == OUTPUT for target in targets):
        logits = activations[OUTPUT].detach()
        weights, classes = _class_weights(logits, targets)
        values, seed = _class_scores(logits.double(), weights, targets)
        seeds[OUTPUT] = seed.to(logits.dtype)
    permuted = [(row, t) for row, t in enumerate(targets) if isinstance(t, PermutedTarget)]
    if permuted:
        assert classifier is not None
        features = activations[PENULTIMATE].detach()
        seeds[PENULTIMATE] = torch.zeros_like(features)
        values, weight = values.clone(), classifier.weight.double()
        for row, scrambled in permuted:
            values[row], seed = _permuted_score(
                features[row].double(), scrambled, weight, classifier.bias
            )
            seeds[PENULTIMATE][row] = seed.to(features.dtype)
    rows_by_layer: dict[str, list[int]] = defaultdict(list)
    for row, target in enumerate(targets):
        if isinstance(target, NeuronTarget):
            rows_by_layer[target.layer].append(row)
    for layer, rows in rows_by_layer.items():
        places = [place_of(t) for row in rows if isinstance(t := targets[row], NeuronTarget)]
        activation = activations[layer].detach()
        chosen = _chosen_neurons(activation, rows, places)
        values = values + torch.where(chosen, activation, 0).double().flatten(1).sum(1)
        seeds[layer] = chosen.to(activation.dtype)
    return Scores(values, classes, seeds)


def _class_weights(logits: Tensor, targets: Sequence[Target | None]) -> tuple[Tensor, Tensor]:
    """How much of each class's score is in each row's, n×classes; and the class of each row."""
    weights = torch.zeros(logits.shape, dtype=torch.float64)
    single = [-1] * len(targets)
    is_top = [isinstance(target, TopTarget) for target in targets]
    for row, target in enumerate(targets):
        match target:
            case TopTarget(against=int(against)):
                weights[row, against] -= 1
            case ClassTarget() | ClassesTarget():
                for index, weight in target.weights:
                    weights[row, index] += weight
        if isinstance(target, ClassTarget):
            single[row] = target.index
    weights = upload_tensor(weights, logits.device)
    top_rows, best = upload(is_top, logits.device), logits.argmax(1)
    positions = torch.arange(logits.shape[1], device=logits.device)
    best_weights = (top_rows[:, None] & (positions == best[:, None])).double()
    classes = torch.where(top_rows, best, upload(single, logits.device))
    return weights + best_weights, classes


def _class_scores(
    logits: Tensor, weights: Tensor, targets: Sequence[Target | None]
) -> tuple[Tensor, Tensor]:
    """The weighted scores of classes and their gradient by the logits; all float64."""
    kinds = [Score.LOGIT if isinstance(t, NeuronTarget) or t is None else t.score for t in targets]
    scores, seed = logits, weights
    if any(kind is not Score.LOGIT for kind in kinds):
        kind = upload([int(k) for k in kinds], logits.device)[:, None]
        logarithms = logits.log_softmax(1)
        probabilities = logarithms.exp()
        logarithmic = weights - weights.sum(1, keepdim=True) * probabilities
        mean = torch.where(weights != 0, weights * probabilities, 0).sum(1, keepdim=True)
        probable = probabilities * (weights - mean)
        for which, of_score, of_seed in (
            (Score.LOG_PROBABILITY, logarithms, logarithmic),
            (Score.PROBABILITY, probabilities, probable),
        ):
            scores = torch.where(kind == which, of_score, scores)
            seed = torch.where(kind == which, of_seed, seed)
    return torch.where(weights != 0, weights * scores, 0).sum(1), seed


def _permuted_score(
    features: Tensor, target: PermutedTarget, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The score of one row's target, and its gradient by what the classifier gets; float64."""
    orders = {
        index: upload(list(order), weight.device)
        for (index, _), order in zip(target.weights, target.orders, strict=True)
    }
    moved = {index: weight[index, order] - weight[index] for index, order in orders.items()}
    logits = torch.mv(weight, features)
    if bias is not None:
        logits = logits + bias.double()
    for index, change in moved.items():
        logits[index] += change.dot(features)
    plain = ClassesTarget(target.weights, target.score)
    weights, _ = _class_weights(logits[None], [plain])
    values, seed = _class_scores(logits[None], weights, [plain])
    by_features = torch.mv(weight.T, seed[0])
    for index, change in moved.items():
        by_features = by_features + seed[0, index] * change
    return values[0], by_features


def _chosen_neurons(activation: Tensor, rows: Sequence[int], places: Sequence[Place]) -> Tensor:
    """A mask of the activation's shape: true where a row's neuron is."""
    axes = activation.dim() - 1
    wanted = [[_NONE] * axes for _ in range(activation.shape[0])]
    for row, place in zip(rows, places, strict=True):
        wanted[row] = [_ALL if p is None else p for p in place[:axes]]
    index = upload(wanted, activation.device)
    chosen = torch.ones_like(activation, dtype=torch.bool)
    for axis in range(axes):
        shape = [1] * (axes + 1)
        shape[axis + 1] = activation.shape[axis + 1]
        positions = torch.arange(activation.shape[axis + 1], device=activation.device).view(shape)
        wanted_at = index[:, axis].view([-1] + [1] * axes)
        chosen &= (positions == wanted_at) | (wanted_at == _ALL)
    return chosen


def upload(numbers: list[int] | list[bool] | list[list[int]], device: torch.device) -> Tensor:
    """Small numbers from the host, without waiting for the device."""
    return upload_tensor(torch.tensor(numbers), device)


def upload_tensor(host: Tensor, device: torch.device) -> Tensor:
    """A tensor from the host, without waiting for the device."""
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
