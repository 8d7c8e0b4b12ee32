"""A small chart of deletion and insertion curves. Needs Pillow only; the server draws it, too."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from PIL import Image, ImageDraw

from .render import _font, _height, _number

_Point = tuple[float, float]
_Color = tuple[int, int, int]


class CurveLike(Protocol):
    """The scores of one order of the pixels: see Curve in the contract."""

    @property
    def order(self) -> str:
        """How pixels are ordered: "map", "random" or "center"."""

    @property
    def deletion(self) -> Sequence[float]:
        """The score after each step of deletion."""

    @property
    def insertion(self) -> Sequence[float]:
        """The score after each step of insertion."""

    @property
    def deletion_area(self) -> float:
        """The area under deletion."""

    @property
    def insertion_area(self) -> float:
        """The area under insertion."""


@dataclass(frozen=True)
class ChartCurve:
    """The scores of one order of the pixels: a CurveLike.

    Attributes:
        order: "map", "random" or "center".
        deletion: The score after each step of deletion, as many as there are shares.
        insertion: The score after each step of insertion, as many.
        deletion_area: The area under deletion.
        insertion_area: The area under insertion.
    """

    order: str
    deletion: Sequence[float]
    insertion: Sequence[float]
    deletion_area: float
    insertion_area: float


@dataclass(frozen=True)
class _Stroke:
    word: str
    color: _Color
    width_px: float
    dash_px: float


# Told apart by width and dashes too, so that colours need not be seen.
_STROKES = {
    "center": _Stroke("centre", (150, 156, 164), 1.5, 4.0),
    "random": _Stroke("random", (120, 126, 134), 1.5, 0.0),
    "map": _Stroke("map", (200, 30, 45), 2.75, 0.0),
}

_WIDTH_PX, _HEIGHT_PX = 512, 240
_PLOT_PX = (204, 152)
_PLOT_TOP_PX = 30
_PLOT_LEFTS_PX = (36, 292)
_INK: _Color = (45, 50, 58)
_WEAK: _Color = (105, 110, 118)
_GRID: _Color = (228, 230, 234)
_SCALE = 4
"""Lines are drawn so many times larger and scaled down, which makes them smooth."""


def curves_chart(shares: Sequence[float], curves: Sequence[CurveLike]) -> Image.Image:
    """Deletion at the left, insertion at the right, over the share of pixels.

    Args:
        shares: The share of pixels taken away or brought in after each step, 0 to 1.
        curves: By the map (drawn strong), at random (grey), from the centre (dashed). The upper
            end of the scores' axis, both panels', is 1; or the next round number where no score
            is above a quarter, or one is above 1. The lower end is 0, or a round number below
            the lowest score.

    Returns:
        An RGB image of 512 × 240 pixels, on white; the areas are in the legend.
    """
    scores = [float(v) for curve in curves for v in (*curve.deletion, *curve.insertion)]
    low, high = _scores_axis(scores)
    lines = Image.new("RGB", (_WIDTH_PX * _SCALE, _HEIGHT_PX * _SCALE), "white")
    pen = ImageDraw.Draw(lines)
    ordered = sorted(curves, key=lambda curve: list(_STROKES).index(curve.order))
    for left, name in zip(_PLOT_LEFTS_PX, ("deletion", "insertion"), strict=True):
        _grid(pen, left)
        for curve in ordered:
            heights = [(v - low) / (high - low) for v in getattr(curve, name)]
            points = [_place(left, x, y) for x, y in zip(shares, heights, strict=True)]
            _draw(pen, points, _STROKES[curve.order])
        for curve, (x, y) in zip(ordered, _legend_places(left, _texts(ordered, name)), strict=True):
            _draw(pen, [(x, y), (x + 12, y)], _STROKES[curve.order])
    chart = lines.resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BOX)

    draw = ImageDraw.Draw(chart)
    for left, name, better in zip(
        _PLOT_LEFTS_PX, ("deletion", "insertion"), ("lower", "higher"), strict=True
    ):
        _words(draw, left, f"{name}: {better} is better", low, high)
        texts = _texts(ordered, name)
        for curve, text, (x, y) in zip(ordered, texts, _legend_places(left, texts), strict=True):
            color = _STROKES[curve.order].color if curve.order == "map" else _INK
            draw.text((x + 15, y), text, color, _font(10), anchor="lm")
    return chart


def _scores_axis(scores: Sequence[float]) -> tuple[float, float]:
    """The ends of the scores' axis."""
    low, high = min([0.0, *scores]), max([0.0, *scores])
    top = 1.0 if 0.25 < high <= 1 else _round_up(high)
    return -_round_up(-low), top or float(low == 0)


def _round_up(value: float) -> float:
    """The next round number; 0 for 0."""
    if value == 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        float(f"{n * unit:.3g}") for n in (1, 2, 2.5, 5, 10) if n * unit >= value * (1 - 1e-9)
    )


def _place(left: float, x: float, y: float) -> _Point:
    """Where a share and a height of 0 to 1 are, in pixels."""
    return left + x * _PLOT_PX[0], _PLOT_TOP_PX + (1 - y) * _PLOT_PX[1]


def _texts(curves: Sequence[CurveLike], name: str) -> list[str]:
    """The words of the legend: whose curve it is, and the area under it."""
    return [
        f"{_STROKES[curve.order].word} {_area(getattr(curve, f'{name}_area'))}" for curve in curves
    ]


def _area(area: float) -> str:
    """Two significant digits."""
    if 0 < abs(area) < 0.001:
        mantissa, _, exponent = f"{area:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return _number(float(f"{area:.2g}"))


def _legend_places(left: float, texts: Sequence[str]) -> list[_Point]:
    """Where each entry of a legend starts: from right to left, the last one first in line."""
    places, x = [], left - 28.0
    for text in reversed(texts):
        places.append((x, _HEIGHT_PX - 12.0))
        x += 15 + _font(10).getlength(text) + 6
    return places[::-1]


def _grid(pen: ImageDraw.ImageDraw, left: float) -> None:
    for part in (0, 0.25, 0.5, 0.75, 1):
        stroke = _Stroke("", _WEAK if part == 0 else _GRID, 1, 0)
        _draw(pen, [_place(left, 0, part), _place(left, 1, part)], stroke)
        _draw(pen, [_place(left, part, 0), _place(left, part, 1)], stroke)


def _words(draw: ImageDraw.ImageDraw, left: float, title: str, low: float, high: float) -> None:
    small = _font(10)
    draw.text((left, _PLOT_TOP_PX - 6), title, _INK, _font(12), anchor="ls")
    for part in (0, 0.5, 1):
        x, y = _place(left, 0, part)
        draw.text((x - 4, y), _number(low + part * (high - low)), _WEAK, small, anchor="rm")
        x, y = _place(left, part, 0)
        draw.text((x, y + 3), f"{part:g}", _WEAK, small, anchor="ma")
    x, y = _place(left, 0.75, 0)
    draw.text((x, y + 3 + _height(small) // 2), "of pixels", _WEAK, small, anchor="mm")


def _draw(pen: ImageDraw.ImageDraw, points: Sequence[_Point], stroke: _Stroke) -> None:
    for dash in _dashes(points, stroke.dash_px) if stroke.dash_px else [points]:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in dash]
        pen.line(scaled, stroke.color, round(stroke.width_px * _SCALE), joint="curve")


def _dashes(points: Sequence[_Point], dash_px: float) -> Iterator[list[_Point]]:
    """Every other piece of a line that is cut into pieces of one length."""
    walked, piece, drawn = 0.0, [points[0]], True
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        at = dash_px - walked
        while at <= length and length:
            cut = x0 + (x1 - x0) * at / length, y0 + (y1 - y0) * at / length
            if drawn:
                yield [*piece, cut]
            piece, drawn = [cut], not drawn
            at += dash_px
        walked = length - (at - dash_px)
        piece.append((x1, y1))
    if drawn and len(piece) > 1:
        yield piece
