"""What numbers are like, in numbers."""

import torch
from torch import Tensor

_AT_ONCE = 1 << 22
"""How many numbers are float64 at a time: 32 MiB of them."""


def statistics_of(numbers: Tensor) -> Tensor:
    """The least, the largest, the mean, the standard deviation over n, and the share that is 0.

    Args:
        numbers: Of any shape but none; float.

    Returns:
        Five, float64, on their device.
    """
    count = numbers.numel()
    parts = numbers.split(max(1, _AT_ONCE * len(numbers) // count))
    low, high = numbers.aminmax()
    mean = torch.stack([part.sum(dtype=torch.float64) for part in parts]).sum() / count
    squares = torch.stack([(part.double() - mean).square().sum() for part in parts]).sum()
    zeros = torch.stack([(part == 0).sum() for part in parts]).sum()
    deviation = (squares / count).sqrt()
    return torch.stack([low.double(), high.double(), mean, deviation, zeros.double() / count])
