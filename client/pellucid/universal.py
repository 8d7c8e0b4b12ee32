"""Universal perturbations: one change, and what it does to every photo of a set."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .types import Prediction, format_of, opened

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PhotoOutcome:
    """What a photo of a set was taken for.

    Attributes:
        before: By itself.
        after: With the perturbation, at 8 bits.
    """

    before: Prediction
    after: Prediction

    @property
    def fooled(self) -> bool:
        """Whether its class has changed."""
        return self.before.class_index != self.after.class_index


@dataclass(frozen=True, eq=False)
class Universal:
    """A perturbation of many photos.

    Attributes:
        perturbation: It, as it is added to photos: whole numbers, float32 3 × height × width, of
            pixels from 0 to 255.
        encoded: A PNG file of it, scaled to be seen.
        picture_gain: What it is scaled by there.
        fooling_rate: Share of the photos whose class it changes, at 8 bits: 0 to 1.
        pass_count: Times that all photos were gone through.
        linf: The largest of its values.
        l2: The root of the sum of their squares.
        photos: Of each photo, in their order.
        stop_reason: Why it ended before its last pass; empty where it did not.
    """

    perturbation: NDArray[np.float32] = field(repr=False)
    encoded: bytes = field(repr=False)
    picture_gain: float
    fooling_rate: float
    pass_count: int
    linf: float
    l2: float
    photos: tuple[PhotoOutcome, ...] = field(repr=False)
    stop_reason: str

    @cached_property
    def picture(self) -> "Image":
        """It, grey where nothing is changed, as a PIL image."""
        return opened(self.encoded)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes its picture to a .png or .jpg file.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        if format_of(path) == "png":
            Path(path).write_bytes(self.encoded)
        else:
            self.picture.save(path, format_of(path), quality=95)
