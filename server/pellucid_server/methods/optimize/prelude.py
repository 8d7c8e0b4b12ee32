"""From parameters to the network's input: differentiable, and for all rows of a batch at once.

The frame of images is that of photos less their mean: x = 255·rgb - 255·mean, where rgb is from
0 to 1. The network's input is x / (255·std).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""The square root of the correlations of red, green and blue in ImageNet's photos, by Olah,
Mordvintsev and Schubert 2017 (doi:10.23915/distill.00007); rows are red, green and blue."""

_LARGEST = max(math.hypot(*column) for column in zip(*COLORS, strict=True))
_DAMPING = 4.0
"""Of the spectrum, likewise: it keeps the start near grey."""


def parameter_count(height_px: int, width_px: int) -> int:
    """Numbers of a spectrum: 3 colours × height × half the width and one × real and imaginary.

    Pixels are fewer: theirs come first, and zeros after them.
    """
    return 3 * height_px * (width_px // 2 + 1) * 2


def pixels_of(parameters: Tensor, size: tuple[int, int]) -> Tensor:
    """Parameters that are pixels, n×P, as n×3×H×W."""
    height_px, width_px = size
    return parameters[:, : 3 * height_px * width_px].view(-1, 3, height_px, width_px)


def from_pixels(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The way back of pixels_of."""
    flat = pixels.flatten(1)
    return F.pad(flat, (0, parameter_count(*size) - flat.shape[1]))


def frequency_scale(size: tuple[int, int], like: Tensor) -> Tensor:
    """1/f of each frequency, H×(W/2+1): what a natural spectrum falls off by."""
    height_px, width_px = size
    down = torch.fft.fftfreq(height_px, dtype=like.dtype, device=like.device)
    across = torch.fft.rfftfreq(width_px, dtype=like.dtype, device=like.device)
    frequency: Tensor = (down[:, None].square() + across.square()).sqrt()
    return frequency.clamp_min(1 / max(size)).reciprocal()


def from_spectrum(parameters: Tensor, size: tuple[int, int], mean: Tensor) -> Tensor:
    """Spectra of decorrelated colours, n×P, as images, n×3×H×W.

    Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007.
    """
    height_px, width_px = size
    spectrum = parameters.view(-1, 3, height_px, width_px // 2 + 1, 2)
    scaled = torch.view_as_complex(spectrum) * frequency_scale(size, parameters)
    colors = torch.fft.irfft2(scaled, s=size, norm="ortho") / _DAMPING
    mixed = [sum(c / _LARGEST * colors[:, k] for k, c in enumerate(row)) for row in COLORS]
    logits: list[Any] = mixed
    return 255 * (torch.stack(logits, 1).sigmoid() - mean)


def to_spectrum(images: Tensor, mean: Tensor) -> Tensor:
    """The way back of from_spectrum; what is black or white becomes almost so."""
    size = (images.shape[2], images.shape[3])
    logits = (images / 255 + mean).clamp(0.01, 0.99).logit()
    matrix = torch.tensor(COLORS, dtype=torch.float64).div(_LARGEST).inverse().to(logits)
    colors = _DAMPING * torch.einsum("ck,nkhw->nchw", matrix, logits)
    spectrum = torch.fft.rfft2(colors, norm="ortho") / frequency_scale(size, images)
    return torch.view_as_real(spectrum).flatten(1)


class _Roll(torch.autograd.Function):
    """Shifts every image in a circle by a distance of its own, and gradients back."""

    @staticmethod
    def forward(context: Any, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        context.save_for_backward(down, right)
        return _rolled(images, down, right)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        down, right = context.saved_tensors
        return _rolled(gradients[0], -down, -right), None, None


def _rolled(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    height_px, width_px = images.shape[2:]
    ys = (torch.arange(height_px, device=images.device) - down[:, None]) % height_px
    xs = (torch.arange(width_px, device=images.device) - right[:, None]) % width_px
    images = images.gather(2, ys[:, None, :, None].expand_as(images))
    return images.gather(3, xs[:, None, None, :].expand_as(images))


def roll(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Jitter: each image shifted in a circle (Mordvintsev, Olah and Tyka 2015).

    Args:
        images: n×3×H×W.
        down: n, int64: pixels.
        right: n, int64: pixels.
    """
    rolled: Tensor = _Roll.apply(images, down, right)
    return rolled


class _Sample(torch.autograd.Function):
    """F.grid_sample, mirrored beyond the edges, with a way back that adds up in a fixed order.

    Torch's own has none on CUDA: there its slopes differ from run to run.
    """

    @staticmethod
    def forward(context: Any, images: Tensor, grid: Tensor) -> Tensor:
        context.save_for_backward(images, grid)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        images, grid = context.saved_tensors
        if images.is_cuda:
            return spread(gradients[0], grid), None
        bilinear, reflection = 0, 2
        slope, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradients[0], images, grid, bilinear, reflection, False, (True, False)
        )
        return slope, None


def spread(gradients: Tensor, grid: Tensor) -> Tensor:
    """The slope by the images of F.grid_sample, bilinear and mirrored beyond the edges.

    Args:
        gradients: n×3×H×W: by what was sampled.
        grid: n×H×W×2: where, from -1 to 1: across and down.
    """
    count, colors, height_px, width_px = gradients.shape
    across, down = (
        _mirrored(((grid[..., axis] + 1) * length - 1) / 2, length)
        for axis, length in enumerate((width_px, height_px))
    )
    left, top = across.floor(), down.floor()
    flat = gradients.new_zeros(count * height_px * width_px, colors)
    first = torch.arange(count, device=grid.device).view(-1, 1, 1) * height_px * width_px
    each = gradients.permute(0, 2, 3, 1).reshape(-1, colors)
    for y in (top, top + 1):
        for x in (left, left + 1):
            share = (1 - (down - y).abs()) * (1 - (across - x).abs())
            inside = (y < height_px) & (x < width_px)
            at = first + torch.where(inside, y * width_px + x, 0).long()
            weighted = torch.where(inside, share, 0).reshape(-1, 1) * each
            flat = flat.index_add(0, at.flatten(), weighted)
    return flat.view(count, height_px, width_px, colors).permute(0, 3, 1, 2)


def _mirrored(places: Tensor, length: int) -> Tensor:
    """Places on a line of pixels, mirrored at its edges, half a pixel beyond the outer ones."""
    far = (places + 0.5).remainder(2 * length)
    return (torch.minimum(far, 2 * length - far) - 0.5).clamp(0, length - 1)


def warp(images: Tensor, degrees: Tensor, factors: Tensor) -> Tensor:
    """Each image turned and scaled about its centre, bilinearly; mirrored beyond its edges.

    Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007.

    Args:
        images: n×3×H×W.
        degrees: n: counter-clockwise.
        factors: n: more than 1 enlarges.
    """
    aspect = images.shape[3] / images.shape[2]
    radians = degrees * (math.pi / 180)
    cosine, sine = radians.cos() / factors, radians.sin() / factors
    nothing = torch.zeros_like(cosine)
    rows = [cosine, -sine / aspect, nothing, sine * aspect, cosine, nothing]
    matrices = torch.stack(rows, 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    warped: Tensor = _Sample.apply(images, grid)
    return warped
