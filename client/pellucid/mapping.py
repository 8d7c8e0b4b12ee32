"""Pictures of maps: points in colour, and photos on a grid. Needs NumPy and Pillow only."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from .charts import _INK, _SCALE, _WEAK
from .render import Photo, _font, _gradient, _height, _number, _plain, _shortened

_Color = tuple[int, int, int]

# After matplotlib's plasma, without its lightest tenth: it grows lighter all the way, and stays
# apart from white.
_NUMBERS: list[_Color] = [
    (13, 8, 135),
    (84, 2, 163),
    (139, 10, 165),
    (185, 50, 137),
    (219, 92, 104),
    (244, 136, 73),
    (254, 188, 43),
]
# After Tableau's ten; neighbours differ in shape as well.
_CLASSES: list[_Color] = [
    (64, 110, 175),
    (240, 130, 30),
    (205, 55, 65),
    (60, 165, 160),
    (75, 150, 60),
    (220, 175, 30),
    (165, 100, 155),
    (250, 130, 155),
    (135, 95, 75),
    (60, 190, 230),
]
_MOST_WORDS = 20
"""In the second round each colour has another shape."""
_OTHERS: _Color = (175, 180, 186)
_PLAIN: _Color = (64, 110, 175)
_OLD: _Color = (214, 217, 222)

_SIZE_PX = (1120, 800)
_MARGIN_PX = 24
_TITLE_PX = 44
_SIDE_PX = 196
"""Of the legend's column."""
_BAR_PX = (14, 260)
_INSET_GAP_PX = 10
_PICTURE_SIDE_PX = 4096
"""The longer side of a grid at most."""


@dataclass(frozen=True)
class _Plot:
    """Where points are: in a box, up is up, and both axes are of one scale."""

    left: float
    top: float
    width: float
    height: float
    low: NDArray[np.float64]
    span: NDArray[np.float64]

    def places(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """In pixels, n × 2."""
        scale = min(self.width / self.span[0], self.height / self.span[1])
        middle = np.array([self.left + self.width / 2, self.top + self.height / 2])
        centred = (points - self.low - self.span / 2) * scale
        made: NDArray[np.float64] = middle + centred * np.array([1, -1])
        return made


def scatter(
    points: NDArray[Any],
    *,
    values: NDArray[Any] | Sequence[Any] | None = None,
    title: str = "",
    value_label: str = "",
    old: NDArray[Any] | None = None,
    insets: Mapping[int, Image.Image] | None = None,
) -> Image.Image:
    """A map: each point a dot, coloured by a number or by a word.

    Args:
        points: n × 2: across, then up.
        values: Of each point: numbers, which a colour bar explains, or words, of which the 20
            most frequent have a colour and a shape; all dots are alike when None. A number that
            is not finite is grey.
        title: Above it.
        value_label: What the numbers or words are.
        old: m × 2: points of the map that these were placed on, grey behind them.
        insets: Pictures of some points by their numbers, above and below with a line to each.

    Returns:
        An RGB image of 1120 × 800 pixels, on white; with insets higher by two rows of them.
    """
    pictures = dict(insets or {})
    row_px = max((picture.height for picture in pictures.values()), default=0)
    row_px += _INSET_GAP_PX * 2 if pictures else 0
    width, height = _SIZE_PX[0], _SIZE_PX[1] + 2 * row_px
    column_px = 0 if values is None else _SIDE_PX
    everything = np.asarray(points, np.float64)
    if old is not None:
        everything = np.concatenate([everything, np.asarray(old, np.float64)])
    low, span = everything.min(0), np.ptp(everything, 0)
    span = np.where(span > 0, span, max(1.0, float(span.max())))
    plot = _Plot(
        _MARGIN_PX,
        _TITLE_PX + row_px,
        width - 2 * _MARGIN_PX - column_px,
        height - _TITLE_PX - _MARGIN_PX - 2 * row_px,
        low,
        span,
    )
    places = plot.places(np.asarray(points, np.float64))
    large = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
    pen = ImageDraw.Draw(large)
    radius = _radius(len(everything))
    for x, y in () if old is None else plot.places(np.asarray(old, np.float64)):
        _dot(pen, x, y, radius, _OLD, 0)
    colors, shapes, legend = _styles(values, len(points))
    lines = _inset_places(pictures, places, plot, height, row_px)
    for number, (x, y) in lines.items():
        picture = pictures[number]
        below = y > height / 2
        start = (x + picture.width / 2, y if below else y + picture.height)
        ends = [start, tuple(places[number])]
        pen.line([(a * _SCALE, b * _SCALE) for a, b in ends], _OTHERS, _SCALE)
    for (x, y), color, shape in zip(places, colors, shapes, strict=True):
        _dot(pen, x, y, radius, color, shape)
    for number in lines:
        _ring(pen, (places[number][0], places[number][1]), radius)
    made = large.resize((width, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(made)
    for number, (x, y) in lines.items():
        picture = pictures[number]
        made.paste(picture, (round(x), round(y)))
        draw.rectangle(
            (round(x) - 1, round(y) - 1, round(x) + picture.width, round(y) + picture.height),
            outline=_OTHERS,
        )
    font = _font(18)
    text = _shortened(_plain(title), font, width - 2 * _MARGIN_PX)
    draw.text((_MARGIN_PX, _TITLE_PX / 2), text, _INK, font, anchor="lm")
    left, top = width - _SIDE_PX, plot.top + 8
    if isinstance(legend, _Bar):
        _draw_bar(made, legend, value_label, left, top)
    elif legend is not None:
        _draw_words(made, legend, value_label, left, top)
    return made


def picture_grid(
    pictures: Sequence[Image.Image | Photo],
    places: NDArray[Any],
    shape: tuple[int, int],
    *,
    tile_px: int = 64,
) -> Image.Image:
    """Photos side by side, each at its place: their middles, as squares.

    Args:
        pictures: n of them.
        places: n × 2: the row and the column of each.
        shape: Rows and columns.
        tile_px: Side of a photo; less where the picture would be longer than 4096 pixels.

    Returns:
        An RGB image, white where no photo is.
    """
    rows, columns = shape
    tile_px = max(8, min(tile_px, _PICTURE_SIDE_PX // max(rows, columns)))
    made = Image.new("RGB", (columns * tile_px, rows * tile_px), "white")
    for picture, (row, column) in zip(pictures, np.asarray(places).tolist(), strict=True):
        made.paste(tile(picture, tile_px), (column * tile_px, row * tile_px))
    return made


def tile(picture: Image.Image | Photo, side_px: int) -> Image.Image:
    """The middle of a photo as a square."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    size = (side_px, side_px)
    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def spread(points: NDArray[Any], count: int) -> list[int]:
    """Numbers of so many points that lie far apart: each the farthest of those before."""
    places = np.asarray(points, np.float64)
    chosen = [int(np.square(places - places.mean(0)).sum(1).argmax())]
    nearest = np.full(len(places), np.inf)
    while len(chosen) < min(count, len(places)):
        np.minimum(nearest, np.square(places - places[chosen[-1]]).sum(1), out=nearest)
        chosen.append(int(nearest.argmax()))
    return chosen


# Colours.


@dataclass(frozen=True)
class _Bar:
    """A colour bar: its ends, and whether a point has no number."""

    low: float
    high: float
    missing: bool


@dataclass(frozen=True)
class _Word:
    text: str
    count: int
    color: _Color
    shape: int


def _styles(values: Any, count: int) -> tuple[list[_Color], list[int], "_Bar | list[_Word] | None"]:
    """The colour and the shape of each point, and what explains them."""
    if values is None:
        return [_PLAIN] * count, [0] * count, None
    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        numbers = array.astype(np.float64)
        there = np.isfinite(numbers)
        low, high = (0.0, 0.0) if not there.any() else (numbers[there].min(), numbers[there].max())
        strength = np.clip((np.where(there, numbers, low) - low) / ((high - low) or 1.0), 0, 1)
        table = np.rint(_gradient(_NUMBERS, strength)).astype(int)
        colors = [
            (int(r), int(g), int(b)) if ok else _OTHERS
            for (r, g, b), ok in zip(table, there, strict=True)
        ]
        return colors, [0] * count, _Bar(float(low), float(high), not there.all())
    words = [str(word) for word in array.tolist()]
    order = Counter(words).most_common()
    styles = {
        word: _Word(word, number, _CLASSES[place % len(_CLASSES)], place % len(_SIDES))
        for place, (word, number) in enumerate(order[:_MOST_WORDS])
    }
    legend = list(styles.values())
    if len(order) > _MOST_WORDS:
        rest = sum(number for _, number in order[_MOST_WORDS:])
        legend.append(_Word(f"{len(order) - _MOST_WORDS} others", rest, _OTHERS, 0))
    other = _Word("", 0, _OTHERS, 0)
    chosen = [styles.get(word, other) for word in words]
    return [one.color for one in chosen], [one.shape for one in chosen], legend


_SIDES = (0, 4, 3, -4)
"""Of shapes: 0 is round, 4 a square, 3 a triangle, -4 a square on its corner."""


def _radius(count: int) -> float:
    """Of a dot, in pixels: smaller where there are more."""
    return float(np.clip(90 / math.sqrt(count), 2.0, 5.5))


def _dot(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: _Color, shape: int
) -> None:
    x, y, radius = x * _SCALE, y * _SCALE, radius * _SCALE
    edge: _Color = (round(0.7 * color[0]), round(0.7 * color[1]), round(0.7 * color[2]))
    sides = _SIDES[shape]
    if color is _OLD:
        edge = color
    if not sides:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), color, edge, 1)
        return
    turn = {4: math.pi / 4, 3: math.pi / 2, -4: 0.0}[sides]
    reach = radius * (1.4 if sides == 3 else 1.25)
    corners = [
        (
            x + reach * math.cos(turn + 2 * math.pi * k / abs(sides)),
            y - reach * math.sin(turn + 2 * math.pi * k / abs(sides)),
        )
        for k in range(abs(sides))
    ]
    pen.polygon(corners, color, edge)


def _ring(pen: ImageDraw.ImageDraw, place: tuple[float, float], radius: float) -> None:
    x, y, radius = place[0] * _SCALE, place[1] * _SCALE, (radius + 2.5) * _SCALE
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), None, _INK, round(1.5 * _SCALE))


# Around the plot.


def _inset_places(
    pictures: Mapping[int, Image.Image],
    places: NDArray[np.float64],
    plot: _Plot,
    height: int,
    row_px: int,
) -> dict[int, tuple[float, float]]:
    """Where pictures go: above those of the upper half, below the others, from left to right."""
    by_height = sorted(pictures, key=lambda number: places[number][1])
    half = (len(by_height) + 1) // 2
    found = {}
    for row, y in (
        (by_height[:half], float(_TITLE_PX)),
        (by_height[half:], float(height - row_px)),
    ):
        for place, number in enumerate(sorted(row, key=lambda number: places[number][0])):
            room = plot.width / len(row)
            x = plot.left + (place + 0.5) * room - pictures[number].width / 2
            found[number] = (x, y + (0 if y == _TITLE_PX else _INSET_GAP_PX))
    return found


def _draw_bar(made: Image.Image, bar: _Bar, label: str, left: float, top: float) -> None:
    draw, small = ImageDraw.Draw(made), _font(13)
    y = _draw_label(draw, label, left, top)
    width, length = _BAR_PX
    ramp = np.rint(_gradient(_NUMBERS, np.linspace(1, 0, length))).astype(np.uint8)
    strip = np.broadcast_to(ramp[:, None], (length, width, 3))
    made.paste(Image.fromarray(np.ascontiguousarray(strip)), (round(left), round(y)))
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        number = _number(bar.low + part * (bar.high - bar.low))
        draw.text((left + width + 8, y + (1 - part) * length), number, _INK, small, anchor="lm")
    if bar.missing:
        box = (left, y + length + 14, left + width, y + length + 14 + width)
        draw.ellipse(box, _OTHERS)
        draw.text((left + width + 8, box[1] + width / 2), "no number", _INK, small, anchor="lm")


def _draw_words(
    made: Image.Image, legend: Sequence[_Word], label: str, left: float, top: float
) -> None:
    draw, small = ImageDraw.Draw(made), _font(13)
    y = _draw_label(draw, label, left, top)
    key = Image.new("RGB", (20 * _SCALE, 20 * _SCALE), "white")
    pen = ImageDraw.Draw(key)
    for word in legend:
        key.paste("white", (0, 0, *key.size))
        _dot(pen, 10, 10, 5, word.color, word.shape)
        made.paste(key.resize((20, 20), Image.Resampling.BOX), (round(left), round(y)))
        count = f"  {word.count}"
        room = _SIDE_PX - 24 - 16 - small.getlength(count)
        text = _shortened(_plain(word.text), small, room)
        draw.text((left + 24, y + 10), text, _INK, small, anchor="lm")
        draw.text((left + 24 + small.getlength(text), y + 10), count, _WEAK, small, anchor="lm")
        y += 24


def _draw_label(draw: ImageDraw.ImageDraw, label: str, left: float, top: float) -> float:
    """What the colours are of, in lines; returns where what is below it starts."""
    small, line = _font(13), ""
    for word in _plain(label).split():
        if line and small.getlength(f"{line} {word}") > _SIDE_PX - 16:
            draw.text((left, top), line, _WEAK, small)
            top, line = top + _height(small), ""
        line = f"{line} {word}".strip()
    if line:
        draw.text((left, top), line, _WEAK, small)
        top += _height(small)
    return top + 12
