"""Where neurons are in a batch's activations, and small tensors on their way to the device."""

from collections.abc import Callable, Sequence
from typing import Literal

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


def by_place(activation: Tensor, first: Place) -> Tensor:
    """A view of an activation, n×…, as n×channels×places, these in one dimension or two, or none.

    What is of no place, as a class token is, is left out.

    Args:
        activation: Of any layer.
        first: Where its first place is, and -1 where its channels are.
    """
    for dim, start in enumerate(first[: activation.dim() - 1], 1):
        if start is not None and start > 0:
            activation = activation.narrow(dim, start, activation.shape[dim] - start)
    return activation.movedim(first.index(-1) + 1, 1)


def pooled(activation: Tensor, first: Place, pooling: Literal["mean", "max"] = "mean") -> Tensor:
    """The code of an activation, n×channels: one number of all places; what has none as it is.

    Args are those of by_place.
    """
    places = by_place(activation, first)
    if places.dim() == 2:
        return places
    flat = places.flatten(2)
    return flat.mean(2) if pooling == "mean" else flat.amax(2)


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
