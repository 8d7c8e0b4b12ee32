"""Stylized images: what comes of them, and the way there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .optimizing import AsyncCourse, Checkpoint, Course, Preview, Queued
from .types import Photo, Run, format_of, opened

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class StyleProgress:
    """How far an image is.

    Attributes:
        step: Steps that it has made, over all scales.
        step_count: Steps that it will make.
        loss: Content, style and total variation, weighted.
        content_losses: Of each content layer, not weighted.
        style_losses: Of each style layer, not weighted.
        tv_loss: The weighted total variation.
    """

    step: int
    step_count: int
    loss: float
    content_losses: tuple[float, ...]
    style_losses: tuple[float, ...]
    tv_loss: float


@dataclass(frozen=True, eq=False)
class Stylized:
    """A photo in the style of paintings.

    Attributes:
        encoded: The file.
        format: "png" or "jpeg".
        pixels: Red, green and blue from 0 to 1, float32 3 × height × width; None where they
            were not asked for.
        parameters: Every parameter, filled in.
        content_layers: Names of layers, with their weights.
        style_layers: Likewise.
        styles: Names of a network's own styles, with their weights.
        progress: The losses of the image as it is, before what a mask spares and the photo's
            colours are put back; None where nothing was optimized.
        stop_reason: Why it ended before its last step; empty where it did not.
        clipped_share: Of the values that the photo's colours had put out of range.
        notes: Where it went on from a checkpoint: why its bits may differ.
        run: What it was computed by.
    """

    encoded: bytes = field(repr=False)
    format: str
    pixels: NDArray[np.float32] | None = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)
    content_layers: Mapping[str, float]
    style_layers: Mapping[str, float]
    styles: Mapping[str, float]
    progress: StyleProgress | None
    stop_reason: str
    clipped_share: float
    notes: tuple[str, ...]
    run: Run = field(repr=False)

    @cached_property
    def image(self) -> "Image":
        """As a PIL image."""
        return opened(self.encoded)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a .png or .jpg file: as it came, where it is of that format.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        if format_of(path) == self.format:
            Path(path).write_bytes(self.encoded)
        else:
            self.image.save(path, format_of(path), quality=95)


@dataclass(frozen=True)
class StyleNetwork:
    """A network of a server that stylizes in one pass.

    Attributes:
        name: Its name.
        version: Of its weights.
        ready: Whether it answers.
        reason: Why it does not.
        styles: Names of those that it knows.
        takes_pictures: Whether it takes the style of any picture.
        licence: SPDX identifier of its weights' licence; empty where nothing says.
    """

    name: str
    version: str
    ready: bool
    reason: str
    styles: tuple[str, ...]
    takes_pictures: bool
    licence: str


Styles: TypeAlias = "Photo | tuple[Photo, float] | list[Photo | tuple[Photo, float]]"
"""A painting, or several: (painting, weight) where the weight is not 1. For fast style also names
of styles: a str of letters, digits, blanks, - and _ alone is one. The file of such a name is a
Path, or "./name"."""

StyleEvent: TypeAlias = Queued | StyleProgress | Preview | Checkpoint
Stylization: TypeAlias = Course[StyleEvent, Stylized]
AsyncStylization: TypeAlias = AsyncCourse[StyleEvent, Stylized]
