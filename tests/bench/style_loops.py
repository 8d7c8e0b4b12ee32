"""Gatys' optimization of an image, written with torch alone: what the service is held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pellucid_server.models.registry import Model
from torch import Tensor

Look = Callable[[Tensor], Mapping[str, Tensor]]
"""From n × 3 × H × W, red, green and blue from 0 to 255, to layers' maps by name."""


def size_of(picture: NDArray[np.uint8], side_px: int) -> tuple[int, int]:
    """Height and width where the longer side is side_px."""
    height, width = picture.shape[:2]
    factor = side_px / max(height, width)
    return round(height * factor), round(width * factor)


def rows_of(on: Model, picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """1 × 3 × H × W, 0-255, by the model's way to resize."""
    steps = replace(on.preprocessing, height_px=size[0], width_px=size[1], resize_shorter_side_px=0)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (steps.mean, steps.std))
    pixels = 255 * (steps.apply(picture) * std + mean)
    return torch.from_numpy(pixels)[None].to(on.network.device, torch.float32)


def gram_matrices(maps: Tensor) -> Tensor:
    """N × C × C of n × C × H × W: F·Fᵀ/M."""
    flat = maps.flatten(2)
    return flat @ flat.mT / flat.shape[2]


@dataclass
class PlainStyle:
    """Content and style losses of a photo and a painting.

    Args:
        look: At images.
        content: The photo, 1 × 3 × H × W, 0-255.
        style: The painting, likewise, of any size.
        content_layers: By name.
        style_layers: By name.
        style_weight: That of content is 1.
    """

    look: Look
    content: Tensor
    style: Tensor
    content_layers: Sequence[str]
    style_layers: Sequence[str]
    style_weight: float

    def __post_init__(self) -> None:
        with torch.no_grad():
            photo, painting = self.look(self.content), self.look(self.style)
        self._codes = {name: photo[name] for name in self.content_layers}
        self._grams = {name: gram_matrices(painting[name]) for name in self.style_layers}

    def loss(self, images: Tensor) -> Tensor:
        """Summed over images."""
        seen, total = self.look(images), images.new_zeros(())
        for name, code in self._codes.items():
            total = total + (seen[name] - code).float().square().sum() / 2
        for name, gram in self._grams.items():
            off = (gram_matrices(seen[name]) - gram).float().square().sum()
            total = total + self.style_weight * off / (4 * gram.shape[-1] ** 2)
        return total

    def descend(self, image_count: int, step_count: int, learning_rate: float) -> float:
        """Moves images from the photo; returns the mean of their losses as they end."""
        images = self.content.repeat(image_count, 1, 1, 1).requires_grad_()
        optimizer = torch.optim.Adam([images], learning_rate)
        for _ in range(step_count):
            optimizer.zero_grad()
            self.loss(images).backward()
            optimizer.step()
            with torch.no_grad():
                images.clamp_(0, 255)
        with torch.no_grad():
            return float(self.loss(images)) / image_count
