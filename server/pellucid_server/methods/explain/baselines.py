"""The image without what is to be explained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.registry import Model
from .. import draws
from ..parameters import Parameters, choice, inputs, number, seed


def blur_sigma_px() -> Any:
    """Fong and Vedaldi 2017, arXiv:1704.03296, blur with a Gaussian of 10 pixels."""
    return number(10.0, 0.1, 100.0)


@dataclass(frozen=True, eq=False)
class Baseline(Parameters):
    """What an image is compared with.

    Attributes:
        fill: black (0), white (255), mean (of the preprocessing: 0 after normalization), blur
            (the image itself, blurred) or noise (uniform from 0 to 255).
        blur_sigma_px: Standard deviation of the blur's Gaussian.
        seed: Of the noise.
        tensor: The baseline itself, 3×H×W, or n×3×H×W, instead of fill.
    """

    tensor: Tensor | None = inputs()
    fill: str = choice("black")
    blur_sigma_px: float = blur_sigma_px()
    seed: int = seed()

    def irrelevant(self) -> Mapping[str, str]:
        if self.tensor is not None:
            return dict.fromkeys(("fill", "blur_sigma_px", "seed"), "not beside tensor")
        return irrelevant_to_fill(self.fill)

    def image(self, model: Model, image: Tensor, step: int = 0) -> Tensor:
        """The baseline of an image, 3×H×W in the network's input frame.

        Args:
            model: Whose preprocessing says what black and white are.
            image: 3×H×W in the network's input frame.
            step: Which of the tensors, or of the draws of noise.
        """
        if self.tensor is not None:
            tensors = self.tensor if self.tensor.dim() == 4 else self.tensor[None]
            return tensors[step % len(tensors)].to(image)
        return filled(self.fill, model, image, self.blur_sigma_px, self.seed, step)


def irrelevant_to_fill(fill: str) -> Mapping[str, str]:
    irrelevant = {}
    if fill != "blur":
        irrelevant["blur_sigma_px"] = "allowed with FILL_BLUR only"
    if fill != "noise":
        irrelevant["seed"] = "allowed with FILL_NOISE only"
    return irrelevant


def filled(
    fill: str, model: Model, image: Tensor, sigma_px: float, seed: int, step: int = 0
) -> Tensor:
    """An image that is nothing but fill, 3×H×W in the network's input frame."""
    if fill == "blur":
        return gaussian_blur(image, sigma_px)
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64)[:, None, None]
        for numbers in (model.preprocessing.mean, model.preprocessing.std)
    )
    pixels = {
        "black": lambda: torch.zeros(3, 1, 1),
        "white": lambda: torch.ones(3, 1, 1),
        "mean": lambda: mean,
        "noise": lambda: draws.uniform(seed, step, tuple(image.shape)),
    }[fill]()
    return ((pixels - mean) / std).to(image).expand_as(image)


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """An image C×H×W blurred by a Gaussian cut off at 3 sigma; edges are repeated."""
    down, across = (_blur_matrix(side, sigma_px) for side in image.shape[1:])
    blurred = down.to(image.device) @ image.double() @ across.to(image.device).T
    return blurred.to(image.dtype)


def _blur_matrix(side_px: int, sigma_px: float) -> Tensor:
    """What each pixel of a blurred line takes from each of the sharp one; float64."""
    radius = math.ceil(3 * sigma_px)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma_px) ** 2)
    places = (torch.arange(side_px)[:, None] + offsets).clamp(0, side_px - 1)
    matrix = torch.zeros(side_px, side_px, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (kernel / kernel.sum()).expand(side_px, -1))
