"""Between pixels, which attacks move, and what the network gets of them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ...models.registry import Model


@dataclass(frozen=True, eq=False)
class Lens:
    """How a model sees red, green and blue from 0 to 255: (x/255 - mean)/std.

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
    def of(cls, model: Model) -> Self:
        network, steps = model.network, model.preprocessing
        mean, std = (
            torch.tensor(numbers, dtype=torch.float64, device=network.device).view(3, 1, 1)
            for numbers in (steps.mean, steps.std)
        )
        beside = torch.float64 if network.dtype is torch.float64 else torch.float32
        return cls(mean, std, network.dtype, beside)

    def pixels(self, photos: Tensor) -> Tensor:
        """Photos, …×3×H×W, as numbers to compute with, on the device."""
        return photos.to(self.std.device, self.beside)

    def inputs(self, pixels: Tensor) -> Tensor:
        """What the network gets: to the bit what it gets for photos of whole numbers."""
        return ((pixels.double() / 255 - self.mean) / self.std).to(self.dtype)

    def slopes(self, gradient: Tensor) -> Tensor:
        """The gradient by pixels, of the one by the network's inputs."""
        return gradient.to(self.beside) / (255 * self.std).to(self.beside)
