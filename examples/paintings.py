"""Paintings that a program makes: free pictures of a style each, for examples and measurements."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE_PX = 512

_INK = (15, 15, 15)
_PAPER = (240, 236, 225)
_NIGHT = ((20, 40, 120), (40, 80, 170), (90, 140, 210), (200, 210, 220), (15, 25, 70))
_LIGHTS = ((240, 210, 90), (235, 160, 40))
_LEAST_CELL_PX = 60


def strokes(seed: int = 1) -> NDArray[np.uint8]:
    """Short strokes of blue along five whirls, with lights in their middles."""
    random = np.random.default_rng(seed)
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), (20, 40, 110))
    pen = ImageDraw.Draw(canvas)
    middles = random.uniform(0, SIDE_PX, (5, 2))
    turns = random.choice([-1, 1], 5)
    for _ in range(9000):
        at = random.uniform(-10, SIDE_PX + 10, 2)
        away = at - middles
        far = np.hypot(*away.T)
        pull = turns / (1 + (far / 60) ** 2)
        along = np.array([-(away[:, 1] * pull).sum() + 12, (away[:, 0] * pull).sum()])
        half = along / np.hypot(*along) * random.uniform(4, 10)
        if far.min() < 28:
            color = _LIGHTS[random.integers(2)]
        else:
            color = _NIGHT[random.choice(5, p=[0.25, 0.3, 0.25, 0.1, 0.1])]
        ends = [tuple(at - half), tuple(at + half)]
        pen.line(ends, fill=_varied(color, 12, random), width=int(random.integers(3, 6)))
    return np.array(canvas)


def grid(seed: int = 3) -> NDArray[np.uint8]:
    """Rectangles of white, red, blue and yellow between black lines."""
    random = np.random.default_rng(seed)
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), _PAPER)
    pen = ImageDraw.Draw(canvas)
    colors = [_PAPER] * 4 + [(205, 30, 25), (25, 60, 150), (240, 200, 30), (20, 20, 20)]

    def cut(left: float, top: float, right: float, bottom: float, more: int) -> None:
        width, height = right - left, bottom - top
        if more == 0 or min(width, height) < _LEAST_CELL_PX:
            fill = colors[random.integers(len(colors))]
            pen.rectangle((left, top, right, bottom), fill=fill, outline=_INK, width=5)
        elif random.random() < width / (width + height):
            middle = left + width * random.uniform(0.3, 0.7)
            cut(left, top, middle, bottom, more - 1)
            cut(middle, top, right, bottom, more - 1)
        else:
            middle = top + height * random.uniform(0.3, 0.7)
            cut(left, top, right, middle, more - 1)
            cut(left, middle, right, bottom, more - 1)

    cut(0, 0, SIDE_PX, SIDE_PX, 7)
    return np.array(canvas)


def dabs(seed: int = 5) -> NDArray[np.uint8]:
    """Round dabs: light above, violet in the middle, green below."""
    random = np.random.default_rng(seed)
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), (190, 200, 150))
    pen = ImageDraw.Draw(canvas)
    for _ in range(9000):
        x, y = random.uniform(0, SIDE_PX, 2)
        color = (120, 110, 170)
        if y > 0.55 * SIDE_PX:
            color = (80, 140, 90)
        elif y < 0.3 * SIDE_PX:
            color = (230, 170, 120)
        wide = random.uniform(3, 8)
        box = (x - wide, y - 0.7 * wide, x + wide, y + 0.7 * wide)
        pen.ellipse(box, fill=_varied(color, 45, random))
    return np.array(canvas)


def _varied(
    color: tuple[int, int, int], deviation: float, random: np.random.Generator
) -> tuple[int, int, int]:
    red, green, blue = np.clip(color + random.normal(0, deviation, 3), 0, 255).astype(int).tolist()
    return red, green, blue


PAINTINGS: Mapping[str, Callable[[], NDArray[np.uint8]]] = {
    "strokes": strokes,
    "grid": grid,
    "dabs": dabs,
}
"""512 × 512 × 3 each, by name."""
