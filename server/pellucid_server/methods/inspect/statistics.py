"""What numbers are like, in numbers."""

import torch
from torch import Tensor

_AT_ONCE = 1 << 22
"""How many numbers are float64 at a time: 32 MiB of them."""


def statistics_of(numbers: Tensor) -> Tensor:
    """The least, the largest, the mean, the standard deviation over n, and the share that is 0.

    Parts are merged by Chan, Golub and LeVeque 1983, doi:10.2307/2683386.

    Args:
        numbers: Of any shape but none; float.

    Returns:
        Five, float64, on their device.
    """
    count = numbers.numel()
    shares, means, squares, zeros = [], [], [], []
    for part in numbers.split(max(1, _AT_ONCE * len(numbers) // count)):
        zeros.append((part == 0).view(torch.int8).sum())  # many times as fast as of bool
        doubles = part.to(torch.float64, copy=True)
        shares.append(part.numel() / count)
        means.append(doubles.mean())
        squares.append(doubles.sub_(means[-1]).square_().sum())
    mean = sum((w * m for w, m in zip(shares, means, strict=True)), start=numbers.new_zeros(()))
    between = sum(w * (m - mean).square() for w, m in zip(shares, means, strict=True))
    variance = torch.stack(squares).sum() / count + between
    low, high = numbers.aminmax()
    share = torch.stack(zeros).sum().double() / count
    return torch.stack([low.double(), high.double(), mean, variance.sqrt(), share])
