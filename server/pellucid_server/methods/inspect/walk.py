"""All layers at once: each in numbers, and one place through all of them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import Chore, EnergyTarget, Lane, Program, Rows, SumTarget, Target, Want
from ...models.layers import Layer
from ...models.network import Network
from ...models.registry import Model
from .statistics import statistics_of


@dataclass(frozen=True)
class Walked:
    """What every layer makes of an image, in numbers.

    Attributes:
        statistics: layers×5, float64: see statistics_of.
        dead: layers, int64: how many channels are 0 at every place.
        saturated: Likewise, at the upper bound of the layer's activation function.
        logits: One a class.
    """

    statistics: Tensor
    dead: Tensor
    saturated: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Walk:
    """What every layer makes of an image: one forward row, through all of them.

    Attributes:
        top_k: How many classes to return, at least 1.
    """

    top_k: int

    name: ClassVar[str] = "walk"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, model: Model) -> int:
        return _byte_count(model.network, walked(model.network))

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Walked]:
        """Args are those of every method."""
        network, statistics, dead, saturated = model.network, [], [], []
        layers = walked(network)
        names = tuple(layer.name for layer in layers)
        traces = yield Rows(image[None], target, Want.LOGITS | Want.ACTIVATION, layers=names)
        assert traces.logits is not None
        for layer in layers:
            activation = traces.activations[layer.name][0]
            channels, bound = layer.by_channel(activation), network.upper_bound_of(layer.name)
            least, most = channels.amin(1), channels.amax(1)
            statistics.append(statistics_of(activation))
            dead.append(((least == 0) & (most == 0)).sum())
            full = torch.zeros_like(dead[-1])
            saturated.append(full if bound is None else (least >= bound).sum())
        return Walked(
            torch.stack(statistics), torch.stack(dead), torch.stack(saturated), traces.logits[0]
        )


_IDLE = ("Identity", "Dropout", "StochasticDepth", "DropPath")
"""Kinds of layers that do nothing, once a network is trained."""


def walked(network: Network) -> tuple[Layer, ...]:
    """The layers that are told truly and do something, in the order of the forward pass."""
    told = (layer for layer in network.layers if layer.targetable)
    return tuple(layer for layer in told if layer.kind not in _IDLE)


@dataclass(frozen=True)
class Place:
    """One layer at one place.

    Attributes:
        layer: Its name.
        y: The row in its maps.
        x: The column.
        activation: One number a channel.
    """

    layer: str
    y: int
    x: int
    activation: Tensor


@dataclass(frozen=True)
class Seen:
    """One place of the image through all layers with maps, in the order of the forward pass."""

    places: tuple[Place, ...]


@dataclass(frozen=True)
class Column:
    """What the layers with maps hold where they look at a pixel: one forward row.

    Attributes:
        y_px: The row of the pixel in the network's input.
        x_px: The column.
    """

    y_px: int
    x_px: int

    name: ClassVar[str] = "column"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, model: Model) -> int:
        return _byte_count(model.network, mapped(model.network))

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Seen]:
        """Args are those of every method, but that the target does not matter."""
        network = model.network
        layers = mapped(network)
        places = yield Chore(lambda _: [self._place(network, layer) for layer in layers])
        names = tuple(layer.name for layer in layers)
        aim = SumTarget(((EnergyTarget(names[-1]), 1.0),))
        traces = yield Rows(image[None], aim, Want.ACTIVATION, layers=names)
        return Seen(
            tuple(
                Place(layer.name, y, x, layer.maps(traces.activations[layer.name])[0, :, y, x])
                for layer, (y, x) in zip(layers, places, strict=True)
            )
        )

    def _place(self, network: Network, layer: Layer) -> tuple[int, int]:
        """Which of its places sees the pixel in the middle, or nearly so."""
        assert layer.grid is not None
        field = network.fields[layer.name]
        y = field.y.nearest(self.y_px, layer.grid[0], network.height_px)
        return y, field.x.nearest(self.x_px, layer.grid[1], network.width_px)


def mapped(network: Network) -> tuple[Layer, ...]:
    """The layers with maps or patches that are told truly."""
    return tuple(layer for layer in walked(network) if layer.grid is not None)


def _byte_count(network: Network, layers: Iterable[Layer]) -> int:
    """What is kept of a row until all of it has been looked at."""
    numbers = sum(math.prod(layer.shape) for layer in layers)
    return numbers * torch.finfo(network.dtype).bits // 8
