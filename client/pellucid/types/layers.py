"""What is inside a network."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BadArgument, StatusError
from .explanations import Box, ResolvedTarget
from .files import format_of, opened
from .predictions import Prediction
from .runs import Run

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Statistics:
    """Numbers in numbers.

    Attributes:
        min: The least.
        max: The largest.
        mean: The mean.
        standard_deviation: Over n.
        zero_share: The share that is 0, 0 to 1.
    """

    min: float
    max: float
    mean: float
    standard_deviation: float
    zero_share: float


@dataclass(frozen=True, eq=False)
class LayerSheet:
    """The strongest channels of a layer, or its strongest filters, as tiles of a sheet.

    Attributes:
        layer: Its name.
        picture: The sheet: a file in format. See image.
        format: "png" or "jpeg".
        channels: The channel, or filter, of each tile, in rows, the strongest first.
        strengths: Of each: what they are sorted by.
        lows: The value that each tile has black for.
        highs: The value that it has white for.
        column_count: Tiles in a row.
        tile_shape: Height and width of a tile in numbers.
        statistics: Of all numbers of it, those that are not drawn, too.
        tensor: All of it, float32, read-only: weights as the layer has them, otherwise in the
            layer's shape; None unless asked for.
        target: Whose score's gradient it is; None for others.
        run: What it was computed by.
    """

    layer: str
    picture: bytes = field(repr=False)
    format: str
    channels: tuple[int, ...] = field(repr=False)
    strengths: NDArray[np.float64] = field(repr=False)
    lows: NDArray[np.float64] = field(repr=False)
    highs: NDArray[np.float64] = field(repr=False)
    column_count: int
    tile_shape: tuple[int, int]
    statistics: Statistics
    tensor: NDArray[np.float32] | None = field(repr=False)
    target: ResolvedTarget | None
    run: Run = field(repr=False)

    @property
    def image(self) -> "Image":
        """The sheet as a PIL image."""
        return opened(self.picture)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sheet to a file, as it came.

        Raises:
            BadArgument: The name of the file is of another format than the sheet.
            OSError: The file cannot be written.
        """
        if format_of(path) != self.format:
            raise BadArgument(
                f"{os.fspath(path)}: the sheet is a {self.format}; pass format={format_of(path)!r}"
            )
        Path(path).write_bytes(self.picture)


@dataclass(frozen=True)
class ReceptiveField:
    """What a place of a layer sees of the network's input.

    Attributes:
        height_px: Of what a place sees far from the border; more than the image's where it is
            cut off at every border.
        width_px: Likewise.
        stride_y_px: Pixels from one place to the next one below.
        stride_x_px: From one place to the next one on the right.
        whole: Whether every place sees the whole image.
    """

    height_px: int
    width_px: int
    stride_y_px: int
    stride_x_px: int
    whole: bool


@dataclass(frozen=True)
class LayerRow:
    """What one layer makes of a photo.

    Attributes:
        layer: Its name.
        type: Its class, for example "Conv2d".
        shape: Of its output.
        statistics: Of all of its numbers.
        dead_count: Channels that are 0 at every place.
        saturated_count: Channels that are at the upper bound of the layer's activation function
            at every place.
        channel_count: Channels.
        receptive_field: Of its places; None where it has neither maps nor channels.
    """

    layer: str
    type: str
    shape: tuple[int, ...]
    statistics: Statistics
    dead_count: int
    saturated_count: int
    channel_count: int
    receptive_field: ReceptiveField | None


@dataclass(frozen=True)
class LayerWalk:
    """All layers in numbers.

    Attributes:
        rows: In the order of the forward pass.
        predictions: The best classes, best first.
        run: What it was computed by.
    """

    rows: tuple[LayerRow, ...]
    predictions: tuple[Prediction, ...]
    run: Run = field(repr=False)


@dataclass(frozen=True, eq=False)
class LayerPlace:
    """One layer at one place.

    Attributes:
        layer: Its name.
        y: The row of its maps.
        x: The column of its maps.
        box: What that place sees of the network's input.
        activation: One number a channel, float32, read-only.
    """

    layer: str
    y: int
    x: int
    box: Box
    activation: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class LayerColumn:
    """One place of a photo through all layers with maps.

    Attributes:
        places: In the order of the forward pass.
        run: What it was computed by.
    """

    places: tuple[LayerPlace, ...]
    run: Run = field(repr=False)


@dataclass(frozen=True, eq=False)
class Embedding:
    """The codes of photos.

    Attributes:
        layer: The layer that they are of; "(penultimate)": what the classifier gets. Empty where
            no photo has a code.
        codes: Photos × numbers, float32 or float16, read-only: a row for each photo that has one.
        outcomes: For each photo its row in codes, or what is wrong with the photo.
        run: What they were computed by; None where no photo has a code.
    """

    layer: str
    codes: NDArray[np.float32] | NDArray[np.float16] = field(repr=False)
    outcomes: tuple[int | StatusError, ...] = field(repr=False)
    run: Run | None = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the codes to a file of NumPy's format.

        Raises:
            OSError: The file cannot be written.
        """
        with Path(path).open("wb") as file:  # np.save itself would add .npy to any other name
            np.save(file, self.codes)
