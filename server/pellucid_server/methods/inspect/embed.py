"""The code of an image: what a layer makes of it, as one row of numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...engine.job import Priority
from ...engine.places import pooled
from ...engine.rows import EnergyTarget, Lane, Program, Rows, SumTarget, Target, Want
from ...models.layers import default_spatial_layer
from ...models.network import PENULTIMATE, Network
from ...models.registry import Model

Pooling = Literal["mean", "max", "flatten"]
"""How places become one: of a layer with maps or patches; what class tokens hold is left out."""


@dataclass(frozen=True)
class Embedded:
    """The code of one image: D numbers, in the network's dtype."""

    code: Tensor


@dataclass(frozen=True)
class Embed:
    """What a layer makes of an image: one forward row, ended at the layer.

    Attributes:
        layer: Its name, or PENULTIMATE: what the classifier gets.
        pooling: Of layers with places.
        priority: The class of its rows.
    """

    layer: str
    pooling: Pooling = "mean"
    priority: Priority = Priority.EXPLAIN

    name: ClassVar[str] = "embed"

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: 1}

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return row_ms

    def byte_count(self, model: Model) -> int:
        return 8 * code_length(model.network, self.layer, "flatten")

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Embedded]:
        """Args are those of every method, but that the target does not matter."""
        aim = SumTarget(((EnergyTarget(self.layer), 1.0),))
        traces = yield Rows(image[None], aim, Want.ACTIVATION, layers=(self.layer,))
        activation = traces.activations[self.layer]
        if self.pooling == "flatten":
            return Embedded(activation[0].flatten())
        first = model.network.first_place(self.layer)
        return Embedded(pooled(activation, first, self.pooling)[0])


def default_layer(network: Network) -> str:
    """What the classifier gets; where there is no classifier, the last layer with maps.

    PENULTIMATE, or a layer's name; of a network with neither, the last layer that is told truly.
    """
    if network.classifier is not None:
        return PENULTIMATE
    told = [layer for layer in network.layers if layer.targetable]
    spatial = [layer for layer in told if layer.spatial]
    return default_spatial_layer(spatial).name if spatial else told[-1].name


def code_length(network: Network, name: str, pooling: Pooling) -> int:
    """How many numbers a code has: D."""
    layer = network.layer(name)
    if layer is None:
        assert name == PENULTIMATE
        assert network.classifier is not None
        return network.classifier.weight.shape[1]
    if layer.grid is None or pooling == "flatten":
        return math.prod(layer.shape)
    return layer.channel_count
