"""Frames of a video in the style of paintings, each in one pass, and what steadies them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...engine.job import Priority
from ...engine.rows import Lane, Program, Target
from ...models.styles.library import CodeModel, StyleModel
from ..parameters import Parameters, choice, number
from .fast import Fast, Painted, Painting, PictureStyles, paint

STILL = 0.1
"""The change of a pixel, of 0 to 1, from which on it is not held back: 25 of 255, more than the
noise of cameras and of JPEG."""


@dataclass(frozen=True, kw_only=True)
class Video(Parameters):
    """See the contract's StylizeVideoSpec."""

    overflow: str = choice("drop_oldest")
    smoothing: float = number(0.0, 0, 0.95)
    format: str = choice("jpeg")
    quality: int = number(90, 1, 100)
    frame_timeout_ms: float = number(30_000.0, 1, 600_000)

    def irrelevant(self) -> Mapping[str, str]:
        return {} if self.format == "jpeg" else {"quality": "of FRAME_FORMAT_JPEG"}


@dataclass(frozen=True)
class StyleCode:
    """The code of pictures, which all frames of a stream have. Its source is a Nothing."""

    styles: PictureStyles

    name: ClassVar[str] = "style_code"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: CodeModel, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: len(self.styles.pictures)}

    def pace(self, model: CodeModel) -> None:
        """All can come at once."""

    def most_ms(self, model: CodeModel, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: CodeModel) -> int:
        pixel_count = model.network.pixel_count
        return len(self.styles.pictures) * 3 * pixel_count * model.network.dtype.itemsize

    def program(self, model: CodeModel, image: Tensor, target: Target) -> Program[Tensor]:
        """The code, on the host."""
        return (yield from self.styles.code(1.0))


@dataclass(frozen=True)
class FrameStylize(Painting):
    """A frame that a network paints by a code. Its source is a PlainPhoto without a mask.

    Attributes:
        fast: How.
        code: code_length numbers, on the host.
        size: Height and width of the result.
        bucket_size: What its batches are padded to, if that is fixed.
    """

    fast: Fast
    code: Tensor
    size: tuple[int, int]
    bucket_size: int | None = None

    name: ClassVar[str] = "video_frame"

    def program(self, model: StyleModel, image: Tensor, target: Target) -> Program[Painted]:
        return (yield from paint(model, image, self.code, self.fast))


@dataclass(frozen=True)
class Smoother:
    """Blends what came of a frame with what came of the one before, where the frames are alike.

    Of frames i and results o, red, green and blue from 0 to 1, at each pixel

        o'ₙ = oₙ + w·(o'ₙ₋₁ - oₙ),    w = s·max(0, 1 - d/STILL),    d = max over colours |iₙ - iₙ₋₁|

    so that what stands still is an exponential mean, and what moves is not smeared.

    Attributes:
        strength: s, 0 to less than 1; 0: results stay what they are.
        before: The frame before, and what came of it; None before the first.
    """

    strength: float
    before: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def smooth(
        self, frame: NDArray[np.float32], made: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], "Smoother"]:
        """The next result, and what smooths the one after it.

        Args:
            frame: 3×H×W, 0-1.
            made: What came of it, likewise.
        """
        if not self.strength:
            return made, self
        if self.before is not None:
            frame_before, made_before = self.before
            change = np.abs(frame - frame_before).max(0)
            weight = np.float32(self.strength) * np.maximum(0, 1 - change / np.float32(STILL))
            made = made + weight * (made_before - made)
        return made, replace(self, before=(frame, made))
