"""Sheets of small pictures: filters, maps of channels, gradients, side by side.

Needs NumPy and Pillow only. The server draws its sheets with it; a client can draw the same ones
from the numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_SHEET_PX = 1 << 24
"""Pixels of a sheet."""

_USUAL_LEAST_PX, _USUAL_MOST_PX = 32, 512
_GAP = 48
"""The grey between tiles: neither a tile's black nor the grey of its zero."""

Tiles = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sheet.

    Attributes:
        picture: Grey, or RGB; tiles are a pixel apart.
        lows: For each tile the value that is drawn as black.
        highs: The one that is drawn as white.
        column_count: Tiles in a row.
    """

    picture: Image.Image
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    column_count: int


def draw(tiles: Tiles, *, tile_px: int, signed: bool, shared: bool) -> Drawn:
    """Tiles as a sheet that is about as high as wide.

    Args:
        tiles: n × height × width, or n × 3 × height × width in colour: red, green, blue.
        tile_px: The longer side of a tile in the sheet. Tiles are enlarged by nearest neighbours
            and reduced by means.
        signed: Whether zero is the middle of the scale, from minus the largest magnitude to it;
            otherwise it goes from the least to the largest value.
        shared: Whether all tiles have one scale.
    """
    values = np.asarray(tiles, np.float64)
    lows, highs = _limits(values, signed=signed, shared=shared)
    shape = (-1,) + (1,) * (values.ndim - 1)
    spans = (highs - lows).reshape(shape)
    levels = (values - lows.reshape(shape)) / np.where(spans > 0, spans, 1)
    levels = np.where(spans > 0, levels, 0.5 if signed else 0.0)
    grey = np.rint(255 * levels).astype(np.uint8)
    if grey.ndim == 4:
        grey = grey.transpose(0, 2, 3, 1)
    grey = _scaled(grey, tile_px)
    count, height, width = grey.shape[:3]
    columns = _column_count(count, height, width)
    size = _sheet_size(count, height, width, columns)
    sheet = np.full((*size, *grey.shape[3:]), _GAP, np.uint8)
    for number, tile in enumerate(grey):
        top, left = (number // columns) * (height + 1), (number % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    return Drawn(Image.fromarray(sheet), lows, highs, columns)


def pixel_count(count: int, height: int, width: int, tile_px: int) -> int:
    """Pixels of a sheet.

    Args:
        count: Of tiles.
        height: Of a tile, in numbers.
        width: Likewise.
        tile_px: The longer side of a tile in the sheet.
    """
    scaled = _scaled_size(height, width, tile_px)
    return math.prod(_sheet_size(count, *scaled, _column_count(count, *scaled)))


def usual_tile_px(count: int, height: int, width: int) -> int:
    """The longer side of tiles where none is asked for; arguments are those of pixel_count."""
    own_px = max(height, width)
    tile_px = min(own_px * math.ceil(_USUAL_LEAST_PX / own_px), _USUAL_MOST_PX)
    while pixel_count(count, height, width, tile_px) > MOST_SHEET_PX:
        tile_px -= 1
    return tile_px


def _limits(
    values: NDArray[np.float64], *, signed: bool, shared: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is drawn as black and as white, of each tile."""
    flat = values.reshape(len(values), -1)
    lows, highs = flat.min(1), flat.max(1)
    if signed:
        highs = np.maximum(np.abs(lows), np.abs(highs))
        lows = -highs
    if shared:
        lows, highs = np.full_like(lows, lows.min()), np.full_like(highs, highs.max())
    return lows, highs


def _scaled(grey: NDArray[np.uint8], tile_px: int) -> NDArray[np.uint8]:
    """N×h×w or n×h×w×3 at another size."""
    own = grey.shape[1], grey.shape[2]
    height, width = _scaled_size(*own, tile_px)
    if (height, width) == own:
        return grey
    if tile_px > max(own):
        rows = (2 * np.arange(height) + 1) * own[0] // (2 * height)
        columns = (2 * np.arange(width) + 1) * own[1] // (2 * width)
        return grey[:, rows][:, :, columns]
    size, box = (width, height), Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(tile).resize(size, box)) for tile in grey])


def _scaled_size(height: int, width: int, tile_px: int) -> tuple[int, int]:
    scale = tile_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _column_count(count: int, height: int, width: int) -> int:
    """Of tiles of that size, so that the sheet is about as high as wide."""
    return min(max(1, round(math.sqrt(count * (height + 1) / (width + 1)))), count)


def _sheet_size(count: int, height: int, width: int, columns: int) -> tuple[int, int]:
    rows = math.ceil(count / columns)
    return rows * (height + 1) - 1, columns * (width + 1) - 1
