"""Randomness as a function of (seed, step): the same on every device, in any order."""

import hashlib

import torch
from torch import Tensor


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(_number(f"{seed} {step}"))


def _number(text: str) -> int:
    """Of 63 bits, another one for every text."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def normal(seed: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float64, on the host."""
    return torch.randn(shape, generator=_generator(seed, step), dtype=torch.float64)


def uniform(seed: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers from 0 up to 1, float64, on the host."""
    return torch.rand(shape, generator=_generator(seed, step), dtype=torch.float64)


def permutation(seed: int, step: int, count: int) -> Tensor:
    """0 to count - 1 in random order, int64, on the host."""
    return torch.randperm(count, generator=_generator(seed, step))


def named_normal(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32, on the host; for weights, of which there are many."""
    generator = torch.Generator().manual_seed(_number(f"{seed} {name}"))
    return torch.randn(shape, generator=generator)
