"""Where neurons are in a batch's activations, and small tensors on their way to the device."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .rows import NeuronTarget

Place = tuple[int | None, ...]
"""Where along each axis of an activation a neuron is; None: everywhere."""

PlaceOf = Callable[[NeuronTarget], Place]

_ALL, _NONE = -1, -2


def channels_first(neuron: NeuronTarget) -> Place:
    """A neuron's place in an activation of channels, or of channels × height × width."""
    return (neuron.channel, neuron.y, neuron.x)


def chosen_neurons(activation: Tensor, rows: Sequence[int], places: Sequence[Place]) -> Tensor:
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


def pooled(activation: Tensor, channel_dim: int) -> Tensor:
    """The mean over all places, n×channels, of an activation of n×…; what has none as it is.

    Args:
        activation: Of any layer.
        channel_dim: The dimension of its channels.
    """
    places = [dim for dim in range(1, activation.dim()) if dim != channel_dim]
    return activation.mean(places) if places else activation


def upload(
    numbers: list[int] | list[bool] | list[float] | list[list[int]], device: torch.device
) -> Tensor:
    """Small numbers from the host, without waiting for the device."""
    return upload_tensor(torch.tensor(numbers), device)


def upload_tensor(host: Tensor, device: torch.device) -> Tensor:
    """A tensor from the host, without waiting for the device."""
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)
