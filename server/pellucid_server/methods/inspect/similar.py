"""Which photos of an index are like one, and what in both makes them so."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.job import Priority
from ...engine.places import pooled, upload_tensor
from ...engine.rows import (
    Chore,
    CosineTarget,
    EnergyTarget,
    Lane,
    Program,
    Rows,
    SumTarget,
    Target,
    Want,
)
from ...models.registry import Model


class Neighbor(Protocol):
    """A photo of an index."""

    @property
    def photo(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def similarity(self) -> float: ...


class Neighbors(Protocol):
    """What finds photos by their codes, in a worker thread."""

    @property
    def code_layer(self) -> str: ...
    def nearest(self, code: NDArray[np.float32], count: int) -> Sequence[Neighbor]: ...
    def code(self, photo: int) -> NDArray[np.float32]: ...
    def pixels(self, photo: int) -> NDArray[np.uint8]:
        """The network's input of a photo, un-normalized, height × width × 3."""
        ...


@dataclass(frozen=True)
class SimilarResult:
    """The photos that are most alike.

    Attributes:
        neighbors: The nearest first.
        query: m×3×H×W: how each of the first m similarities changes with the image; None: m is 0.
        match: How it changes with the photo.
    """

    neighbors: tuple[Any, ...]
    query: Tensor | None = None
    match: Tensor | None = None


@dataclass(frozen=True)
class _LookedUp:
    neighbors: tuple[Neighbor, ...]
    codes: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Similar:
    """The cosine of codes, and its gradient by both images.

    Attributes:
        neighbors: The index.
        normalize: What makes a network's input, 3×H×W, of its pixels, uint8 H×W×3.
        top_k: How many are returned.
        explain_count: How many of them are explained.
    """

    neighbors: Neighbors
    normalize: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
    top_k: int
    explain_count: int

    name: ClassVar[str] = "similar"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        counts = {Lane.FORWARD: 1}
        return counts | {Lane.GRADIENT: 2 * self.explain_count} if self.explain_count else counts

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return math.inf

    def byte_count(self, model: Model) -> int:
        """Every match's picture; of those that are explained inputs, gradients and renderings."""
        picture = 3 * model.network.height_px * model.network.width_px
        return (self.top_k + self.explain_count * (4 * 4 + 2)) * picture

    def program(self, model: Model, image: Tensor, target: Target) -> Program[SimilarResult]:
        layer = self.neighbors.code_layer
        # A score is always computed: this one asks for nothing behind the code.
        score = SumTarget(((EnergyTarget(layer), 1.0),))
        traces = yield Rows(image[None], score, Want.ACTIVATION, layers=(layer,))
        code = pooled(traces.activations[layer], model.network.first_place(layer))[0]
        on_host = code.float().cpu()
        found: _LookedUp = yield Chore(lambda _: self._look_up(on_host.numpy()))
        if not len(found.inputs):
            return SimilarResult(found.neighbors)
        codes, inputs = (
            upload_tensor(one.to(image.dtype), image.device) for one in (found.codes, found.inputs)
        )
        count = len(inputs)
        towards = [CosineTarget(layer, one) for one in codes]
        back = [CosineTarget(layer, code)] * count
        traces = yield Rows(
            torch.cat([image[None].expand(count, -1, -1, -1), inputs]),
            (*towards, *back),
            Want.GRADIENT,
        )
        assert traces.gradient is not None
        return SimilarResult(found.neighbors, traces.gradient[:count], traces.gradient[count:])

    def _look_up(self, code: NDArray[np.float32]) -> _LookedUp:
        """In a worker: the neighbours, and the codes and inputs of those that are explained."""
        neighbors = tuple(self.neighbors.nearest(code, self.top_k))
        explained = [one.photo for one in neighbors[: self.explain_count]]
        if not explained:
            return _LookedUp(neighbors, torch.zeros(0), torch.zeros(0))
        codes = np.stack([self.neighbors.code(photo) for photo in explained])
        inputs = np.stack([self.normalize(self.neighbors.pixels(photo)) for photo in explained])
        return _LookedUp(neighbors, torch.from_numpy(codes), torch.from_numpy(inputs))
