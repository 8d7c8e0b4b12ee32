"""scikit-learn's digits: 1797 grey pictures of 8 × 8 pixels, part of them held out."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ..methods import draws

PIXEL_COUNT, CLASS_COUNT = 64, 10

_HELD_OUT = 599
"""A third."""

_WHITE = 16.0


@dataclass(frozen=True)
class Digits:
    """Pictures as networks see them, n×64 float64 from -1 (black) to 1, and their classes."""

    train_inputs: Tensor
    train_classes: Tensor
    test_inputs: Tensor
    test_classes: Tensor


def load(seed: int) -> Digits:
    """All of them, of which a seeded third is for tests."""
    pictures, classes = load_digits(return_X_y=True)
    order = draws.permutation(seed, 0, len(pictures))
    inputs = torch.from_numpy(pictures)[order] / (_WHITE / 2) - 1
    labels = torch.from_numpy(classes)[order]
    return Digits(inputs[_HELD_OUT:], labels[_HELD_OUT:], inputs[:_HELD_OUT], labels[:_HELD_OUT])
