"""Randomness as a function of (seed, step): the same on every device, in any order."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
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


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def uniforms(seeds: NDArray[np.int64], steps: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Numbers from 0 up to 1, n×count, for n seeds and steps at once.

    SplitMix64 of the seed, of the step and of the place, one after the other (Steele, Lea and
    Flood 2014, doi:10.1145/2714064.2660195).
    """
    mixed = _mix(_mix(seeds.astype(np.uint64)) ^ steps.astype(np.uint64))
    places = _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
    return (_mix(mixed[:, None] + places) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = numbers + _GOLDEN
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * factor
    return numbers ^ (numbers >> np.uint64(31))
