"""What keeps optimized images natural: each for all rows of a batch, of a strength of its own.

Penalties are subtracted from the objective, and are 0 where their strength is. Operators change
the image after a step, and leave rows alone that they are off for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NATURAL_STD = 57.4
"""Standard deviation of photos' pixels on a scale of 0 to 255: 0.225·255, ImageNet's."""

_FLAT = 1e-10
"""Squared steps between neighbours below this count as this: the root of 0 has no slope."""

BLUR_REACH = 4.0
"""Standard deviations that a blur's kernel reaches to either side."""


def energy(images: Tensor) -> float:
    """What penalties are divided by: the expected ‖x‖² of a photo of that size.

    As Mahendran and Vedaldi's published code divides: their strengths fit every size.
    """
    return images[0].numel() * NATURAL_STD**2


def lp_penalty(images: Tensor, strength: Tensor, order: Tensor) -> Tensor:
    """λ/2·Σ|x|^p / E: keeps pixels in range.

    Order 2 is the L2 penalty of Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034; order 6
    that of Mahendran and Vedaldi 2014, arXiv:1412.0035.

    Args:
        images: n×3×H×W.
        strength: n: λ.
        order: n: p.

    Returns:
        n.
    """
    powers = images.abs().flatten(1) ** order[:, None]
    return strength / 2 * powers.sum(1) / energy(images)


def tv_penalty(images: Tensor, strength: Tensor, beta: Tensor) -> Tensor:
    """Total variation, λ/2·Σ((x[i,j+1]-x[i,j])² + (x[i+1,j]-x[i,j])²)^(β/2) / E.

    Beyond the last row and column there is no step. Mahendran and Vedaldi 2014,
    arXiv:1412.0035.

    Args:
        images: n×3×H×W.
        strength: n: λ.
        beta: n: β.

    Returns:
        n.
    """
    down = torch.diff(images, dim=2, append=images[:, :, -1:])
    right = torch.diff(images, dim=3, append=images[..., -1:])
    steps = (down.square() + right.square()).clamp_min(_FLAT).flatten(1)
    return strength / 2 * (steps ** (beta[:, None] / 2)).sum(1) / energy(images)


def decay(images: Tensor, strength: Tensor) -> Tensor:
    """L2 decay, x·(1 - θ) (Yosinski and others 2015, arXiv:1506.06579).

    Args:
        images: n×3×H×W.
        strength: n: θ, 0 to 1.
    """
    return images * (1 - strength).view(-1, 1, 1, 1)


def blur(images: Tensor, sigma_px: Tensor, most_px: float) -> Tensor:
    """Each image blurred by a Gaussian of its own (Yosinski and others 2015, arXiv:1506.06579).

    Beyond the edges the image is mirrored, the edge pixels first.

    Args:
        images: n×3×H×W.
        sigma_px: n; 0 leaves an image alone.
        most_px: The most that a sigma may be.
    """
    for axis in (2, 3):
        mixed = _blur_matrices(images.shape[axis], sigma_px, most_px)[:, None]
        images = mixed @ images if axis == 2 else images @ mixed.mT
    return images


def _blur_matrices(length: int, sigma_px: Tensor, most_px: float) -> Tensor:
    """n×length×length: what of each pixel goes into each."""
    reach = int(BLUR_REACH * most_px + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=sigma_px.device)
    scaled = offsets / sigma_px.clamp_min(1e-3)[:, None]
    weights = (-scaled.square() / 2).exp()
    within = offsets.abs() <= (BLUR_REACH * sigma_px + 0.5).floor()[:, None]
    weights = torch.where(within, weights, 0)
    period_px, last = 2 * length, length - 1
    weights = F.pad(weights / weights.sum(1, keepdim=True), (period_px, period_px))
    matrices = weights.new_zeros(len(sigma_px), length, length)

    def windows(first: int) -> Tensor:
        """N×length×length: the weight of offset first + i + j."""
        start = first + reach + period_px
        return weights[:, start : start + length + last].unfold(1, length, 1)

    # Mirrored, the line repeats every two lengths: at each a pixel is there once more, and its
    # image before it. They are read off: what is scattered adds up in no fixed order on a GPU.
    farthest = reach // period_px + 1
    for away in range(-farthest * period_px, (farthest + 1) * period_px, period_px):
        if -reach <= away - 1 and away - 1 - 2 * last <= reach:
            matrices += windows(1 - away)
        if -reach <= away + last and away - last <= reach:
            matrices += windows(away - last).flip(1)
    return matrices


def clip_small_norms(images: Tensor, percentile: Tensor) -> Tensor:
    """Pixels of a norm below the percentile become 0 (Yosinski and others 2015).

    Args:
        images: n×3×H×W.
        percentile: n, 0 to 100; 0 leaves an image alone.
    """
    return _clipped(images, images.square().sum(1).sqrt(), percentile)


def clip_small_contributions(images: Tensor, gradient: Tensor, percentile: Tensor) -> Tensor:
    """Pixels that the score would hardly miss become 0 (Yosinski and others 2015).

    A pixel's contribution is |Σ x·g| over its colours.

    Args:
        images: n×3×H×W.
        gradient: As images: g.
        percentile: n, 0 to 100; 0 leaves an image alone.
    """
    return _clipped(images, (images * gradient).sum(1).abs(), percentile)


def _clipped(images: Tensor, sizes: Tensor, percentile: Tensor) -> Tensor:
    """Without pixels whose sizes, n×H×W, are below a percentile, interpolated linearly."""
    ordered = sizes.flatten(1).sort(1).values
    place = percentile[:, None] / 100 * (ordered.shape[1] - 1)
    below = place.floor()
    low = ordered.gather(1, below.long())
    high = ordered.gather(1, place.ceil().long())
    threshold = low + (place - below) * (high - low)
    return torch.where(sizes[:, None] < threshold[:, :, None, None], 0, images)
