"""The colours of photos and of styles. Gatys and others 2016, arXiv:1606.05897.

Images are 3×H×W, red, green and blue, on any scale.
"""

import torch
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""

_FLAT = 1e-8
"""Variances below this share of the largest one are 0."""


def luminance(image: Tensor) -> Tensor:
    """1×H×W."""
    weights = torch.tensor(LUMINANCE, dtype=image.dtype, device=image.device)
    return (image * weights.view(3, 1, 1)).sum(0, keepdim=True)


def with_luminance(photo: Tensor, image: Tensor) -> Tensor:
    """The luminance of an image with the colours, Cb and Cr, of a photo; it may leave the gamut.

    Cb and Cr are differences of blue and red from luminance: they stay where all of red, green and
    blue rise by the same.
    """
    return photo + luminance(image) - luminance(photo)


def matched_grey(style: Tensor, photo: Tensor) -> Tensor:
    """The luminance of a style, with the mean and the deviation of the photo's, as a grey image."""
    own, wanted = luminance(style).double(), luminance(photo).double()
    deviation = own.std(correction=0)
    factor = wanted.std(correction=0) / deviation if deviation > 0 else 1.0
    matched = (own - own.mean()) * factor + wanted.mean()
    return matched.to(style.dtype).expand_as(style)


def matched(style: Tensor, photo: Tensor) -> Tensor:
    """The style with the mean and the covariance of the photo's colours."""
    mean, covariance = _statistics(style)
    wanted_mean, wanted = _statistics(photo)
    turned = _power(wanted, 0.5) @ _power(covariance, -0.5)
    flat = turned @ (style.double().flatten(1) - mean) + wanted_mean
    return flat.view(style.shape).to(style.dtype)


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, 3×1, and covariance, 3×3."""
    flat = image.double().flatten(1)
    return flat.mean(1, keepdim=True), torch.cov(flat, correction=0)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a symmetric matrix; what it has nothing of stays nothing."""
    values, vectors = torch.linalg.eigh(matrix)
    some = values > _FLAT * values.max()
    powers = torch.where(some, torch.where(some, values, 1) ** exponent, 0)
    made: Tensor = vectors * powers @ vectors.mT
    return made
