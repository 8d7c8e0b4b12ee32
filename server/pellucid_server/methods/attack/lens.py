"""Between pixels, which attacks move, and what the network gets of them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ...models.registry import Model


@dataclass(frozen=True, eq=False)
class Lens:
    """How a model sees pixels from 0 to 255: (x/255 - mean)/std.

    Attributes:
        mean: Of its preprocessing, 3×1×1, in the dtype of the arithmetic beside the network.
        std: Likewise.
        dtype: Of the network's inputs.
    """

    mean: Tensor
    std: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, model: Model) -> Self:
        network, steps = model.network, model.preprocessing
        beside = torch.float64 if network.dtype is torch.float64 else torch.float32
        mean, std = (
            torch.tensor(numbers, dtype=beside, device=network.device).view(3, 1, 1)
            for numbers in (steps.mean, steps.std)
        )
        return cls(mean, std, network.dtype)

    def pixels(self, photo: Tensor) -> Tensor:
        """A photo, or several, as pixels to compute with, on the device."""
        return photo.to(self.std.device, self.std.dtype)

    def inputs(self, pixels: Tensor) -> Tensor:
        """What the network gets, of …×3×H×W."""
        return ((pixels / 255 - self.mean) / self.std).to(self.dtype)

    def slopes(self, gradient: Tensor) -> Tensor:
        """The gradient by the pixels, of that by the inputs."""
        return gradient.to(self.std) / (255 * self.std)
