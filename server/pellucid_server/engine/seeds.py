"""From the tapped activations of a batch to scores, and to the seeds of one backward pass.

A seed is dL/dA of the sum of the batch's scores, for one tapped activation A. Each kind
of target is handled once over all the rows that use it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.network import OUTPUT
from .rows import ClassTarget, NeuronTarget, Target, TopTarget

_TOP = _ALL = -1
_NONE = -2


@dataclass(frozen=True)
class Scores:
    """The scores of a batch's rows, and what their gradients start from.

    Attributes:
        values: n: the score of each row's target.
        classes: n, int64: the class of each row's target; -1 for a neuron.
        seeds: For each tap that targets need, a tensor of the activation's shape.
    """

    values: Tensor
    classes: Tensor
    seeds: dict[str, Tensor]


def score(activations: Mapping[str, Tensor], targets: Sequence[Target | None]) -> Scores:
    """Scores every row; a row without a target (padding) scores 0 and seeds nothing.

    Args:
        activations: For each tap, n×… .
        targets: One for each row.
    """
    some = next(iter(activations.values()))
    values = some.new_zeros(len(targets))
    classes = torch.full((len(targets),), -1, device=some.device)
    seeds: dict[str, Tensor] = {}
    wanted = [_class_index(target) for target in targets]
    if any(index != _NONE for index in wanted):
        logits = activations[OUTPUT].detach()
        index = upload(wanted, some.device)
        classes = torch.where(index == _TOP, logits.argmax(1), index).clamp_min(-1)
        chosen = torch.arange(logits.shape[1], device=some.device) == classes[:, None]
        values = values + torch.where(chosen, logits, 0).sum(1)
        seeds[OUTPUT] = chosen.to(logits.dtype)
    rows_by_layer: dict[str, list[int]] = defaultdict(list)
    for row, target in enumerate(targets):
        if isinstance(target, NeuronTarget):
            rows_by_layer[target.layer].append(row)
    for layer, rows in rows_by_layer.items():
        neurons = [target for row in rows if isinstance(target := targets[row], NeuronTarget)]
        activation = activations[layer].detach()
        chosen = _chosen_neurons(activation, rows, neurons)
        values = values + torch.where(chosen, activation, 0).flatten(1).sum(1)
        seeds[layer] = chosen.to(activation.dtype)
    return Scores(values.double(), classes, seeds)


def _class_index(target: Target | None) -> int:
    match target:
        case ClassTarget(index=index):
            return index
        case TopTarget():
            return _TOP
        case _:
            return _NONE


def _chosen_neurons(
    activation: Tensor, rows: Sequence[int], neurons: Sequence[NeuronTarget]
) -> Tensor:
    """A mask of the activation's shape: true where a row's neuron is."""
    axes = activation.dim() - 1
    wanted = [[_NONE] * axes for _ in range(activation.shape[0])]
    for row, neuron in zip(rows, neurons, strict=True):
        place = (neuron.channel, neuron.y, neuron.x)[:axes]
        wanted[row] = [_ALL if p is None else p for p in place]
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
    host = torch.tensor(numbers)
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
