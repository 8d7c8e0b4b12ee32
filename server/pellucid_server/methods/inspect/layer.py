"""One layer, channel by channel: its weights, its activations, its gradients."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import EnergyTarget, Lane, Program, Resolved, Rows, SumTarget, Target, Want
from ...models.layers import Layer
from ...models.network import Network
from ...models.registry import Model
from ..explain.explanation import resolved
from .statistics import statistics_of


@dataclass(frozen=True)
class LayerView:
    """The strongest channels of a layer, or its strongest filters, and numbers of all of it.

    Attributes:
        tiles: n×h×w, or n×3×h×w in colour; the strongest first, of equal ones the first.
        channels: n, int64: which they are.
        strengths: n, float64: what they are sorted by.
        statistics: See statistics_of.
        tensor: All of it; None where it is not asked for.
        target: Whose gradient it is; None where it is none.
        score: Of the target.
    """

    tiles: Tensor
    channels: Tensor
    strengths: Tensor
    statistics: Tensor
    tensor: Tensor | None
    target: Resolved | None = None
    score: float = 0.0


@dataclass(frozen=True)
class LookAtLayer(ABC):
    """What is seen of a layer.

    Attributes:
        layer: Its name.
        tile_count: Tiles at most.
        include_tensor: Whether all of it is wanted, too.
    """

    layer: str
    tile_count: int
    include_tensor: bool

    name: ClassVar[str]
    signed: ClassVar[bool]
    """Whether zero is in the middle of what is seen."""
    shared: ClassVar[bool] = False
    """Whether tiles have one scale unless it is asked for otherwise."""
    priority: ClassVar[Priority] = Priority.EXPLAIN

    @abstractmethod
    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]: ...

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""
        return

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, model: Model) -> int:
        of_tiles = self.shown_count(model.network) * math.prod(self.tile_shape(model.network))
        return 8 * (self.number_count(model.network) + of_tiles)

    @abstractmethod
    def program(self, model: Model, image: Tensor, target: Target) -> Program[LayerView]:
        """Args are those of every method."""

    def tile_shape(self, network: Network) -> tuple[int, ...]:
        """Height and width of a tile; before them 3 where it is in colour."""
        return self._layer(network).grid or (1, 1)

    def channel_count(self, network: Network) -> int:
        """Tiles that there are to choose from."""
        return self._layer(network).channel_count

    def number_count(self, network: Network) -> int:
        """How many numbers all of it is."""
        return math.prod(self._layer(network).shape)

    def shown_count(self, network: Network) -> int:
        """Tiles that are shown."""
        return min(self.tile_count, self.channel_count(network))

    def _layer(self, network: Network) -> Layer:
        layer = network.layer(self.layer)
        assert layer is not None
        return layer

    def _maps(self, network: Network, activation: Tensor) -> Tensor:
        """Channels×h×w of 1×…, 1×1 where there are no places."""
        layer = self._layer(network)
        maps = activation[..., None, None] if layer.grid is None else layer.maps(activation)
        return maps[0]

    def _view(
        self,
        tiles: Tensor,
        strengths: Tensor,
        whole: Tensor,
        target: Resolved | None = None,
        score: float = 0.0,
    ) -> LayerView:
        """The strongest of all tiles."""
        chosen = strengths.argsort(descending=True, stable=True)[: self.tile_count]
        tensor = whole if self.include_tensor else None
        numbers = statistics_of(whole)
        return LayerView(tiles[chosen], chosen, strengths[chosen], numbers, tensor, target, score)


@dataclass(frozen=True)
class Filters(LookAtLayer):
    """The weights of a convolution, or of a dense layer, as they are served.

    They are read where they lie, on the thread whose device it is: a job that asks for no rows.

    Attributes:
        input_channel: Which is drawn; None: all three of a colour, or the first.
    """

    input_channel: int | None = None

    name: ClassVar[str] = "filters"
    signed: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {}

    def byte_count(self, model: Model) -> int:
        network = model.network
        of_tiles = self.shown_count(network) * math.prod(self.tile_shape(network))
        return 8 * (of_tiles + self.include_tensor * self.number_count(network))

    def program(self, model: Model, image: Tensor, target: Target) -> Program[LayerView]:
        """Args are those of every method, but that neither image nor target matters."""
        yield from ()
        weights = weights_of(model.network, self.layer)
        tiles = weights.flatten(1)[:, None]
        if self._in_color(model.network):
            tiles = weights
        elif has_places(weights):
            tiles = weights[:, self.input_channel or 0]
        strengths = torch.linalg.vector_norm(weights.flatten(1), dim=1, dtype=torch.float64)
        return self._view(tiles, strengths, weights)

    def tile_shape(self, network: Network) -> tuple[int, ...]:
        weights = weights_of(network, self.layer)
        if self._in_color(network):
            return tuple(weights.shape[1:])
        return tuple(weights.shape[2:]) if has_places(weights) else (1, weights[0].numel())

    def channel_count(self, network: Network) -> int:
        return len(weights_of(network, self.layer))

    def number_count(self, network: Network) -> int:
        return weights_of(network, self.layer).numel()

    def _in_color(self, network: Network) -> bool:
        shape = weights_of(network, self.layer).shape
        first = network.weighted_layers[0] == self.layer.partition("#")[0]
        return first and self.input_channel is None and len(shape) == 4 and shape[1] == 3


def weights_of(network: Network, layer: str) -> Tensor:
    """Of a layer that has filters."""
    weights = network.filters_of(layer)
    assert weights is not None
    return weights


def has_places(weights: Tensor) -> bool:
    """Whether a filter has more than a number for each of its input channels."""
    return weights.dim() == 4 and math.prod(weights.shape[2:]) > 1


class Activations(LookAtLayer):
    """What a layer makes of an image: one forward row, ended at the layer."""

    name: ClassVar[str] = "activations"
    signed: ClassVar[bool] = False

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[LayerView]:
        """Args are those of every method, but that the target does not matter."""
        aim = SumTarget(((EnergyTarget(self.layer), 1.0),))
        traces = yield Rows(image[None], aim, Want.ACTIVATION, layers=(self.layer,))
        activation = traces.activations[self.layer]
        maps = self._maps(model.network, activation)
        return self._view(maps, maps.mean((1, 2), dtype=torch.float64), activation[0])


class Gradients(LookAtLayer):
    """How a score changes with a layer's activation: one row, forward and back."""

    name: ClassVar[str] = "gradients"
    signed: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[LayerView]:
        """Args are those of every method."""
        traces = yield Rows(image[None], target, Want.LAYER_GRADIENT, layers=(self.layer,))
        gradient = traces.layer_gradients[self.layer]
        maps = self._maps(model.network, gradient)
        strengths = maps.abs().mean((1, 2), dtype=torch.float64)
        whose, score = resolved(target, traces), float(traces.scores[0])
        return self._view(maps, strengths, gradient[0], whose, score)
