"""Sheets of tiles, pixel by pixel."""

import numpy as np
import pytest
from pellucid import tiles

GAP = 48


def pixels(drawn: tiles.Drawn) -> list[list[int]]:
    return np.asarray(drawn.picture).tolist()


def test_each_by_its_own_extremes() -> None:
    numbers = np.array([[[0.0, 10.0]], [[2.0, 1.0]], [[3.0, 3.0]]])
    drawn = tiles.draw(numbers, tile_px=2, signed=False, shared=False)
    assert drawn.lows.tolist() == [0, 1, 3]
    assert drawn.highs.tolist() == [10, 2, 3]
    # Three tiles of 1 × 2 with a pixel between: a column of one tile's width is as high as wide.
    assert drawn.column_count == 1
    assert pixels(drawn) == [[0, 255], [GAP, GAP], [255, 0], [GAP, GAP], [0, 0]]


def test_all_by_one_scale() -> None:
    numbers = np.array([[[0.0, 10.0]], [[2.0, 1.0]]])
    drawn = tiles.draw(numbers, tile_px=2, signed=False, shared=True)
    assert drawn.lows.tolist() == [0, 0]
    assert drawn.highs.tolist() == [10, 10]
    assert pixels(drawn) == [[0, 255], [GAP, GAP], [51, 26]]  # 25.5 is rounded to even


def test_zero_is_in_the_middle_of_what_is_signed() -> None:
    numbers = np.array([[[-4.0, 0.0, 2.0]], [[0.0, 0.0, 0.0]]])
    drawn = tiles.draw(numbers, tile_px=3, signed=True, shared=False)
    assert drawn.lows.tolist() == [-4, 0]
    assert drawn.highs.tolist() == [4, 0]
    assert pixels(drawn) == [[0, 128, 191], [GAP] * 3, [128] * 3]


def test_colors_share_a_tile_and_its_scale() -> None:
    numbers = np.zeros((1, 3, 1, 2))
    numbers[0, :, 0, 0] = 1.0, -0.5, 0.0
    drawn = tiles.draw(numbers, tile_px=2, signed=True, shared=False)
    assert pixels(drawn) == [[[255, 64, 128], [128, 128, 128]]]


def test_tiles_lie_in_rows() -> None:
    numbers = np.arange(5.0).reshape(5, 1, 1)
    drawn = tiles.draw(numbers, tile_px=1, signed=False, shared=True)
    assert drawn.column_count == 2
    zero, one, two, three, four = 0, 64, 128, 191, 255
    assert pixels(drawn) == [
        [zero, GAP, one],
        [GAP] * 3,
        [two, GAP, three],
        [GAP] * 3,
        [four, GAP, GAP],
    ]


def test_nearest_neighbours_and_means() -> None:
    numbers = np.array([[[0.0, 1.0], [1.0, 1.0]]])
    larger = tiles.draw(numbers, tile_px=4, signed=False, shared=False)
    assert pixels(larger)[0] == [0, 0, 255, 255]
    assert pixels(larger)[2] == [255] * 4
    halves = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    smaller = tiles.draw(halves, tile_px=1, signed=False, shared=False)
    assert pixels(smaller) == [[128]]


@pytest.mark.parametrize(
    ("count", "height", "width", "expected"),
    [
        (32, 3, 3, 33),  # 3 × 11
        (64, 7, 7, 35),
        (9, 112, 112, 112),
        (9, 32, 31, 32),
        (5, 1, 1280, 512),
        (256, 512, 512, 255),  # 16 × 16 of 256 with their gaps, less one
    ],
)
def test_usual_sizes(count: int, height: int, width: int, expected: int) -> None:
    assert tiles.usual_tile_px(count, height, width) == expected
    assert tiles.pixel_count(count, height, width, expected) <= tiles.MOST_SHEET_PX


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (256, 14, 14), (10, 1, 40), (3, 9, 2)])
def test_the_count_of_pixels_is_that_of_the_picture(shape: tuple[int, int, int]) -> None:
    drawn = tiles.draw(np.zeros(shape), tile_px=11, signed=False, shared=False)
    assert drawn.picture.width * drawn.picture.height == tiles.pixel_count(*shape, 11)
