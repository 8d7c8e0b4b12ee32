"""A chart of many ends of the same optimization over its size. Needs Pillow only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .charts import _GRID, _INK, _SCALE, _STROKES, _WEAK, _draw, _Stroke
from .render import _font, _number

_PANEL_PX = (360, 190)
_LEFTS_PX = (64, 512)
_TOPS_PX = (56, 312)
_SIZE_PX = (896, 552)
_DOT = (70, 110, 180)
_DOT_PX = 1.4
_CAP_PX = 3.5
_SPREAD_OF_DOTS = 0.62
"""Of a column's width, which dots are spread over so that they do not hide each other."""

_BARS = (_STROKES["map"], _Stroke("", (120, 126, 134), 1.5, 4.0))
"""Strong, and weak."""

_ROUND = [step * 10.0**exponent for exponent in range(-13, 13) for step in (1, 2, 5)]

_NONE = 1e-12
"""What is drawn as none at all."""


@dataclass(frozen=True)
class Bar:
    """A value, and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """One size.

    Attributes:
        label: Below it.
        points: What was reached.
        mean: Of the points.
        bars: Two measures of their spread, the more important one first.
    """

    label: str
    points: Sequence[float]
    mean: float
    bars: tuple[Bar, Bar]


@dataclass(frozen=True)
class Plot:
    """All sizes, in order.

    Attributes:
        title: Above all.
        y_label: Of the points.
        bar_labels: Of both bars of each column.
        x_label: Of the sizes.
        columns: One a size.
        logarithmic: Whether points are on a logarithmic scale; they are more than 0 then. Bars
            always are.
    """

    title: str
    y_label: str
    bar_labels: tuple[str, str]
    x_label: str
    columns: Sequence[Column]
    logarithmic: bool


@dataclass(frozen=True)
class _Panel:
    """Where numbers are: columns evenly across, and a scale up."""

    left: float
    top: float
    column_count: int
    low: float
    high: float
    logarithmic: bool

    def x(self, column: int, aside: float = 0.0) -> float:
        """Of a column's middle, or aside of it by a share of its width, from -0.5 to 0.5."""
        return self.left + (column + 0.5 + aside) / self.column_count * _PANEL_PX[0]

    def y(self, value: float) -> float:
        within = min(max(value, self.low), self.high)
        share = (within - self.low) / (self.high - self.low)
        if self.logarithmic:
            share = math.log(within / self.low) / math.log(self.high / self.low)
        return self.top + (1 - share) * _PANEL_PX[1]

    @property
    def ticks(self) -> list[float]:
        """Decades, or of few of them 1, 2 and 5 of each; round numbers of an even scale."""
        if not self.logarithmic:
            unit = _unit(self.low, self.high)
            first, last = math.ceil(self.low / unit - 1e-6), math.floor(self.high / unit + 1e-6)
            return [number * unit for number in range(first, last + 1)]
        least, most = (math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        steps = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
        every = max(1, round((most - least) / 6)) if len(steps) == 1 else 1
        found = [step * 10.0**e for e in range(least, most + 1, every) for step in steps]
        return [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]


def scatter_chart(plots: Sequence[Plot]) -> Image.Image:
    """Two plots side by side: points above, their spread with intervals below.

    Returns:
        An RGB image of 896 × 552 pixels, on white.
    """
    lines = Image.new("RGB", (_SIZE_PX[0] * _SCALE, _SIZE_PX[1] * _SCALE), "white")
    pen = ImageDraw.Draw(lines)
    panels = []
    for left, plot in zip(_LEFTS_PX, plots, strict=True):
        points = [value for column in plot.columns for value in column.points]
        bars = [v for column in plot.columns for b in column.bars for v in (b.value, b.low, b.high)]
        count = len(plot.columns)
        ends = _log_axis(points) if plot.logarithmic else _even_axis(points)
        pair = (
            _Panel(left, _TOPS_PX[0], count, *ends, plot.logarithmic),
            _Panel(left, _TOPS_PX[1], count, *_log_axis(bars), True),
        )
        for panel in pair:
            _grid(pen, panel)
        _points(pen, pair[0], plot.columns)
        _bars(pen, pair[1], plot.columns)
        for stroke, (x, y) in zip(_BARS, _legend(pair[1], plot), strict=True):
            _draw(pen, [(x, y), (x + 16, y)], stroke)
        panels.append(pair)
    chart = lines.resize(_SIZE_PX, Image.Resampling.BOX)
    draw = ImageDraw.Draw(chart)
    for plot, (above, below) in zip(plots, panels, strict=True):
        draw.text((above.left, above.top - 30), plot.title, _INK, _font(14), anchor="ls")
        draw.text((above.left, above.top - 7), plot.y_label, _WEAK, _font(11), anchor="ls")
        for panel in (above, below):
            _words(draw, panel, plot)
        for word, (x, y) in zip(plot.bar_labels, _legend(below, plot), strict=True):
            draw.text((x + 20, y), word, _INK, _font(11), anchor="lm")
    return chart


def _unit(least: float, most: float) -> float:
    """What an even axis is numbered by: 1, 2 or 5 of a decade, six numbers at most."""
    return next(u for u in _ROUND if u >= 0.02 and most - least <= 5 * u)


def _even_axis(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an even axis, round numbers around all that is there."""
    unit = _unit(min(values), max(values))
    low = math.floor(min(values) / unit)
    return low * unit, max(math.ceil(max(values) / unit), low + 1) * unit


def _log_axis(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a logarithmic axis: 1, 2 or 5 of a decade, around all that is there."""
    there = [value for value in values if value > _NONE]
    if not there:
        return 0.1, 1.0
    low = max((number for number in _ROUND if number <= min(there)), default=_ROUND[0])
    high = min((number for number in _ROUND if number >= max(there)), default=_ROUND[-1])
    return (low, high) if low < high else (low / 2, high * 2)


def _grid(pen: ImageDraw.ImageDraw, panel: _Panel) -> None:
    right, bottom = panel.left + _PANEL_PX[0], panel.top + _PANEL_PX[1]
    for tick in panel.ticks:
        y = panel.y(tick)
        _draw(pen, [(panel.left, y), (right, y)], _Stroke("", _GRID, 1, 0))
    for line in ([(panel.left, panel.top), (panel.left, bottom)], [(panel.left, bottom)]):
        _draw(pen, [*line, (right, bottom)] if len(line) == 1 else line, _Stroke("", _WEAK, 1, 0))


def _points(pen: ImageDraw.ImageDraw, panel: _Panel, columns: Sequence[Column]) -> None:
    for place, column in enumerate(columns):
        count = len(column.points)
        for number, value in enumerate(column.points):
            x = panel.x(place, _SPREAD_OF_DOTS * ((number + 0.5) / count - 0.5))
            y = panel.y(value)
            box = [(x - _DOT_PX, y - _DOT_PX), (x + _DOT_PX, y + _DOT_PX)]
            pen.ellipse([(a * _SCALE, b * _SCALE) for a, b in box], _DOT)
        y = panel.y(column.mean)
        _draw(pen, [(panel.x(place, -0.4), y), (panel.x(place, 0.4), y)], _STROKES["map"])


def _bars(pen: ImageDraw.ImageDraw, panel: _Panel, columns: Sequence[Column]) -> None:
    for kind, stroke in reversed(list(enumerate(_BARS))):
        aside = 0.06 * (2 * kind - 1)
        solid = _Stroke("", stroke.color, stroke.width_px, 0.0)
        line = []
        for place, column in enumerate(columns):
            bar, x = column.bars[kind], panel.x(place, aside)
            if bar.value <= _NONE:
                continue
            low, high = panel.y(bar.low), panel.y(bar.high)
            _draw(pen, [(x, low), (x, high)], solid)
            for y in (low, high):
                _draw(pen, [(x - _CAP_PX, y), (x + _CAP_PX, y)], solid)
            line.append((x, panel.y(bar.value)))
        if len(line) > 1:
            _draw(pen, line, stroke)


def _words(draw: ImageDraw.ImageDraw, panel: _Panel, plot: Plot) -> None:
    small, bottom = _font(11), panel.top + _PANEL_PX[1]
    for tick in panel.ticks:
        draw.text((panel.left - 5, panel.y(tick)), _number(tick), _WEAK, small, anchor="rm")
    for place, column in enumerate(plot.columns):
        draw.text((panel.x(place), bottom + 4), column.label, _WEAK, small, anchor="ma")
        if panel.top == _TOPS_PX[1] and column.bars[0].value <= _NONE:
            draw.text((panel.x(place), bottom - 4), "none", _INK, small, anchor="ms")
    middle = panel.left + _PANEL_PX[0] / 2
    draw.text((middle, bottom + 18), plot.x_label, _WEAK, small, anchor="ma")


def _legend(panel: _Panel, plot: Plot) -> list[tuple[float, float]]:
    """Where both entries start."""
    second = panel.left + 20 + _font(11).getlength(plot.bar_labels[0]) + 16
    return [(x, panel.top - 12) for x in (panel.left, second)]
