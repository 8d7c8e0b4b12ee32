"""Between pixels, which attacks move, and what the network gets of them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ...models.registry import Model


@dataclass(frozen=True, eq=False)
class Lens:
    """How a model sees red, green and blue from 0 to 255: (x/255 - mean)/std.

    Its tensors are on one device: the network's, or the host, where a worker uses it.

    Attributes:
        mean: Of its preprocessing, 3×1×1, float64.
        std: Likewise.
        dtype: Of the network's inputs.
        beside: Of the arithmetic beside the network.
    """

    mean: Tensor
    std: Tensor
    dtype: torch.dtype
    beside: torch.dtype

    @classmethod
    def of(cls, model: Model, device: torch.device | None = None) -> Self:
        """On the network's device, or on another."""
        network, steps = model.network, model.preprocessing
        device = network.device if device is None else device
        mean, std = (
            torch.tensor(numbers, dtype=torch.float64, device=device).view(3, 1, 1)
            for numbers in (steps.mean, steps.std)
        )
        beside = torch.float64 if network.dtype is torch.float64 else torch.float32
        return cls(mean, std, network.dtype, beside)

    @property
    def origin(self) -> Tensor:
        """The pixels, 3×1×1, that ascents have as 0: see prelude."""
        return 255 * self.mean.to(self.beside)

    def photo(self, inputs: Tensor) -> Tensor:
        """Of the input, 3×H×W, that a photo became: the whole numbers that it was, float64."""
        return ((inputs.double() * self.std + self.mean) * 255).round().clamp(0, 255)

    def pixels(self, photos: Tensor) -> Tensor:
        """Photos, …×3×H×W, as numbers to compute with, on the device."""
        return photos.to(self.std.device, self.beside)

    def inputs(self, pixels: Tensor) -> Tensor:
        """What the network gets: to the bit what it gets for photos of whole numbers."""
        return ((pixels.double() / 255 - self.mean) / self.std).to(self.dtype)

    def slopes(self, gradient: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The gradient by pixels, of the one by the network's inputs.

        Args:
            gradient: …×3×H×W.
            dtype: That it is computed in; that of the arithmetic beside the network by default.
        """
        dtype = self.beside if dtype is None else dtype
        return gradient.to(dtype) / (255 * self.std).to(dtype)
