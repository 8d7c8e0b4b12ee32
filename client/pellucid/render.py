"""Pictures of attributions: one value a pixel, in colour, on the photo.

Needs NumPy and Pillow only. The server draws its renderings with it; a client can draw the same
ones from a heatmap or a raw attribution.

Three steps, of which each is also of use alone: reduce_channels makes one value a pixel,
limit_of finds the value that the strongest colour stands for, overlay draws.
"""

import unicodedata
from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

ColorScale = Literal["signed", "absolute"]
Format = Literal["jpeg", "png"]
Photo = NDArray[np.uint8]
Map = NDArray[np.floating]

_Color = tuple[int, int, int]

# Strength 0 to 1 in even steps. All three grow lighter, so that they are ordered in grey too and
# stand out from a darkened photo; blue against red is told apart with every colour blindness.
_BLUES: list[_Color] = [(35, 80, 240), (40, 125, 255), (75, 170, 255), (125, 210, 255)]
_REDS: list[_Color] = [(215, 15, 35), (245, 35, 35), (255, 75, 50), (255, 120, 85)]
# After matplotlib's inferno, without its darkest fifth.
_INFERNO: list[_Color] = [
    (66, 10, 104),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
]
_OPACITY = 0.9
"""Of the strongest colour: a little of the photo still shows."""
_OPACITY_EXPONENT = 0.6
"""Opacity is strength to this power: below 1, so that weak and fine marks still show."""

_SATURATION = 0.25
"""How much of the photo's colour stays."""
_INSIDE = (0.52, 18)
_OUTSIDE = (0.24, 6)
"""What is left of the photo's brightness below the map and beside its box, and what is added:
dark photos stay readable, light ones get darker than the map's colours."""

_FONT_MARKS = "«»‹›‘’“”…·°±™"
"""What Pillow's own font has beside ASCII."""

_STRIP: _Color = (22, 24, 29)
_TEXT: _Color = (240, 240, 240)
_TEXT_WEAK: _Color = (170, 175, 182)


def reduce_channels(attribution: Map, color_scale: ColorScale) -> NDArray[np.float32]:
    """One value a pixel.

    Args:
        attribution: channels × height × width.
        color_scale: signed: the sum over channels. absolute: the largest magnitude over channels
            (Simonyan, Vedaldi and Zisserman 2013, section 3.1, arXiv:1312.6034).

    Returns:
        float32 height × width.
    """
    reduced: Map
    if color_scale == "signed":
        reduced = attribution.sum(axis=0, dtype=np.float64)
    else:
        reduced = np.abs(attribution).max(axis=0)
    return reduced.astype(np.float32)


def limit_of(values: Map, percentile: float) -> float:
    """The magnitude that the strongest colour stands for; 0 only for a map that is all zero.

    Args:
        values: height × width.
        percentile: Of the magnitudes, 0 to 100, linear between ranks. Where it is 0 though the
            map is not (fewer pixels than that differ from 0), the largest magnitude is taken.
    """
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, percentile)) or float(magnitudes.max())


def quantize(values: Map, limit: float, color_scale: ColorScale) -> NDArray[np.uint8]:
    """Values as grey levels, clipped to the limit and rounded to nearest.

    Args:
        values: height × width; negative values are 0 on the absolute scale.
        limit: At least 0. At 0, everything is drawn as 0.
        color_scale: signed: v is 128 + 127 · value / limit, from 1 to 255. absolute: v is
            255 · value / limit.

    Returns:
        uint8 height × width.
    """
    least, zero, steps = (-1, 128, 127) if color_scale == "signed" else (0, 0, 255)
    levels = values / np.float64(limit or np.inf)
    np.clip(levels, least, 1, out=levels)
    levels *= steps
    levels += zero
    return np.rint(levels, out=levels).astype(np.uint8)


def dequantize(
    grey: NDArray[np.uint8], limit: float, color_scale: ColorScale
) -> NDArray[np.float32]:
    """What grey levels stand for: off by half a level at most, where nothing was clipped.

    Args:
        grey: uint8 height × width, of quantize.
        limit: The one it was quantized with.
        color_scale: signed: (v - 128) / 127 · limit. absolute: v / 255 · limit.

    Returns:
        float32 height × width.
    """
    levels = grey.astype(np.float64)
    strength = (levels - 128) / 127 if color_scale == "signed" else levels / 255
    return (strength * limit).astype(np.float32)


def overlay(
    photo: Photo,
    values: Map,
    *,
    box: tuple[float, float, float, float],
    limit: float,
    color_scale: ColorScale,
    percentile: float,
    legend: bool,
    title: str = "",
) -> Image.Image:
    """A map in colour on its photo, which is greyed and darkened, outside the box more so.

    signed goes from blue (negative) over none to red (positive), absolute from none over violet
    and orange to bright yellow. Opacity grows with the magnitude; 0 leaves no colour.

    Args:
        photo: uint8 height × width × 3.
        values: The map, rows × columns, in the frame of the network's input.
        box: Left, top, width and height of the part of the photo that the map covers, in the
            photo's pixels; drawn to whole pixels.
        limit: The magnitude that the strongest colour stands for: see limit_of.
        color_scale: How values become colours.
        percentile: The one that limit was found with, for the legend.
        legend: Whether a strip is added below the photo: the title, the colours with the numbers
            they stand for, the scale and where it is clipped. Words that do not fit are left out.
        title: First words of the legend. Drawn in plain Latin letters.

    Returns:
        An RGB image of the photo's width, and of its height plus the strip's.
    """
    height, width = photo.shape[:2]
    x0, x1 = _span(box[0], box[2], width)
    y0, y1 = _span(box[1], box[3], height)
    picture = Image.fromarray(photo)
    canvas = _dimmed(picture, _OUTSIDE)
    inside = _dimmed(picture.crop((x0, y0, x1, y1)), _INSIDE)
    _paint(inside, quantize(_resample(values, limit, inside.size), 1.0, color_scale), color_scale)
    canvas.paste(inside, (x0, y0))
    if not legend:
        return canvas
    if limit == 0:
        clipping = "all zero"
    elif np.abs(values).max() <= limit:
        clipping = "not clipped"
    else:
        clipping = f"clipped at the {_ordinal(percentile)} percentile"
    strip = _legend(width, limit, color_scale, clipping, _plain(title))
    framed = Image.new("RGB", (width, height + strip.height))
    framed.paste(canvas, (0, 0))
    framed.paste(strip, (0, height))
    return framed


def encode(image: Image.Image, format: Format) -> bytes:
    """An image as the bytes of a file.

    Args:
        image: RGB or grey.
        format: jpeg is of quality 90, without chroma subsampling: thin lines keep their colour.
    """
    file = BytesIO()
    if format == "jpeg":
        image.save(file, "JPEG", quality=90, subsampling="4:4:4")
    else:
        image.save(file, "PNG")
    return file.getvalue()


def upright(data: bytes) -> Image.Image:
    """A photo's pixels as the server sees them: upright, on white where it is transparent, RGB.

    Args:
        data: The bytes of a JPEG, PNG or WebP file.

    Raises:
        OSError: It is none, or is damaged.
    """
    image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    if image.mode.startswith("I"):  # 16 bits, which convert would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        on_white = Image.new("RGBA", image.size, "white")
        on_white.alpha_composite(image.convert("RGBA"))
        image = on_white
    return image.convert("RGB")


def blank(side_px: int) -> Image.Image:
    """A cell of a contact sheet where there is nothing to show."""
    return Image.new("RGB", (side_px, side_px), "white")


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | Photo]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] = (),
    cell_px: int = 320,
    captions: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """Pictures in a labelled grid on white.

    Every picture is scaled, its aspect kept, to the cell's width, or to 1.5 times that in height
    where it would be taller; its top stays at the row's top, so that pictures with and without a
    legend are level.

    Args:
        rows: Pictures by row and column: RGB images or uint8 height × width × 3.
        row_labels: Drawn left of each row; "" for none. None: nothing is.
        column_labels: Drawn above each column; nothing if empty.
        cell_px: Width of a cell.
        captions: Drawn below each picture; "" for none.
    """
    row_labels = [""] * len(rows) if row_labels is None else row_labels
    font = _font(max(10, round(cell_px / 16)))
    small = _font(max(9, round(cell_px / 20)))
    gap = max(4, cell_px // 20)
    cells = [[_fit(picture, cell_px) for picture in row] for row in rows]
    left_width = cell_px // 2 if any(row_labels) else 0
    left = gap + (left_width + gap if left_width else 0)
    headings = [_wrap(label, font, cell_px) for label in column_labels]
    top = gap + max((_height(font) * len(lines) for lines in headings), default=0) + gap // 2

    notes = [
        [_wrap(caption, small, cell_px) for caption in line]
        for line in (captions or [[""] * len(row) for row in cells])
    ]
    heights = [
        max(cell.height for cell in row) + _height(small) * max(len(lines) for lines in line)
        for row, line in zip(cells, notes, strict=True)
    ]
    columns = max(len(row) for row in cells)
    size = left + columns * (cell_px + gap), top + sum(height + gap for height in heights)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(headings):
        middle = left + column * (cell_px + gap) + cell_px / 2
        for number, text in enumerate(lines):
            y = top - gap // 2 - _height(font) * (len(lines) - number)
            draw.text((middle, y), text, (20, 20, 20), font, anchor="ma")
    for row, line, label, height in zip(cells, notes, row_labels, heights, strict=True):
        for number, text in enumerate(_wrap(label, font, left_width)):
            draw.text((gap, top + number * _height(font)), text, (20, 20, 20), font)
        for column, (cell, lines) in enumerate(zip(row, line, strict=True)):
            x = left + column * (cell_px + gap)
            sheet.paste(cell, (x + (cell_px - cell.width) // 2, top))
            for number, text in enumerate(lines):
                y = top + cell.height + number * _height(small) + gap // 5
                draw.text((x + cell_px / 2, y), text, (90, 90, 90), small, anchor="ma")
        top += height + gap
    return sheet


def _span(start: float, length: float, size: int) -> tuple[int, int]:
    """A stretch as whole pixels inside 0 to size: at least one."""
    first = min(max(round(start), 0), size - 1)
    return first, min(max(round(start + length), first + 1), size)


def _dimmed(picture: Image.Image, brightness: tuple[float, float]) -> Image.Image:
    """A picture with less colour, its values v made v · brightness[0] + brightness[1]."""
    luma = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    mixed = brightness[0] * (_SATURATION * np.eye(3) + (1 - _SATURATION) * luma)
    matrix = np.hstack([mixed, np.full((3, 1), brightness[1])])
    return picture.convert("RGB", tuple(matrix.ravel().tolist()))


def _resample(values: Map, limit: float, size: tuple[int, int]) -> NDArray[np.float32]:
    """Values / limit at another size, -1 to 1, by bicubic interpolation.

    Each sign is resampled alone and clipped at 0: the filter's undershoot would otherwise ring
    every red mark with blue, which the map does not say.
    """
    strength = np.clip(values / np.float64(limit or np.inf), -1, 1).astype(np.float32)
    positive, negative = (
        np.array(Image.fromarray(part).resize(size, Image.Resampling.BICUBIC)).clip(min=0)
        for part in (np.maximum(strength, 0), np.maximum(-strength, 0))
    )
    signed: NDArray[np.float32] = positive - negative
    return signed


def _paint(picture: Image.Image, grey: NDArray[np.uint8], color_scale: ColorScale) -> None:
    """Lays the colours of quantized values over a picture of the same size."""
    colors, opacity = _tables(color_scale)
    mask = Image.fromarray(opacity[grey])
    picture.paste(Image.fromarray(colors[grey]), mask=mask)


def _tables(color_scale: ColorScale) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour (256 × 3) and opacity (256) of every grey level."""
    levels = np.arange(256)
    if color_scale == "signed":
        strength = np.abs(levels - 128) / 127
        tables = _gradient(_BLUES, strength), _gradient(_REDS, strength)
        colors = np.where((levels < 128)[:, None], *tables)
    else:
        strength = levels / 255
        colors = _gradient(_INFERNO, strength)
    opacity = _OPACITY * np.minimum(strength, 1) ** _OPACITY_EXPONENT
    return np.rint(colors).astype(np.uint8), np.rint(255 * opacity).astype(np.uint8)


def _gradient(points: list[_Color], strength: NDArray[np.float64]) -> NDArray[np.float64]:
    at = np.linspace(0, 1, len(points))
    channels = np.array(points, np.float64).T
    return np.stack([np.interp(strength, at, channel) for channel in channels], axis=1)


def _legend(
    width: int, limit: float, color_scale: ColorScale, clipping: str, title: str
) -> Image.Image:
    """The strip below the photo: title and words, the colour bar, its numbers."""
    size = max(10, round(4 + width / 56))
    font = _font(size)
    line = _height(font)
    margin = min(round(size * 0.7), width // 16)
    room = width - 2 * margin

    ticks = _ticks(limit, color_scale, font, room)
    lines = _lines(title, color_scale, clipping, font, room) if any(ticks) else []

    bar_top = margin + line * len(lines) + (margin // 2 if lines else 0)
    bar_height = max(5, round(size * 0.75))
    text_top = bar_top + bar_height + margin // 3
    height = text_top + (line if any(ticks) else 0) + margin // 2
    strip = Image.new("RGB", (width, height), _STRIP)
    draw = ImageDraw.Draw(strip)
    for number, (at_left, at_right) in enumerate(lines):
        y = margin + number * line
        draw.text((margin, y), at_left, _TEXT, font)
        draw.text((width - margin, y), at_right, _TEXT_WEAK, font, anchor="ra")

    # On what a middle grey of the photo becomes, so that it looks like the marks on the photo.
    bar = _dimmed(Image.new("RGB", (room, bar_height), (128, 128, 128)), _INSIDE)
    ramp = np.rint(np.linspace(1 if color_scale == "signed" else 0, 255, room)).astype(np.uint8)
    _paint(bar, np.tile(ramp, (bar_height, 1)), color_scale)
    strip.paste(bar, (margin, bar_top))
    for text, x, anchor in zip(ticks, (margin, width / 2, width - margin), _ANCHORS, strict=True):
        draw.text((x, text_top), text, _TEXT, font, anchor=anchor)
    return strip


_ANCHORS = ("la", "ma", "ra")
"""Of a text at the left, in the middle and at the right: by its ascender."""


def _lines(
    title: str, color_scale: str, clipping: str, font: ImageFont.FreeTypeFont, room: float
) -> list[tuple[str, str]]:
    """The words above the colour bar, a left and a right text a line, as far as they fit."""
    words = f"{color_scale} · {clipping}"
    if title and font.getlength(f"{title}    {words}") <= room:
        return [(title, words)]
    options = [words], [color_scale, clipping], [color_scale]
    fitting = (o for o in options if all(font.getlength(text) <= room for text in o))
    texts = [_shortened(title, font, room), *next(fitting, [])]
    return [(text, "") for text in texts if text]


def _ticks(
    limit: float, color_scale: ColorScale, font: ImageFont.FreeTypeFont, room: float
) -> tuple[str, str, str]:
    """The numbers below the colour bar's left end, middle and right end, as far as they fit."""
    number = _number(limit)
    options: list[tuple[str, str, str]]
    if limit == 0:
        options = [("", "0", "") if color_scale == "signed" else ("0", "", "")]
    elif color_scale == "signed":
        options = [(f"-{number}", "0", number), (f"-{number}", "", number), ("", f"±{number}", "")]
    else:
        options = [("0", "", number), ("", "", number)]
    for option in options:
        left, middle, right = (font.getlength(text) for text in option)
        ends = 2 * max(left, right) if left and right else max(left, right)
        spaces = font.getlength("  ") * (sum(text != "" for text in option) - 1)
        if ends + middle + spaces <= room:
            return option
    return "", "", ""


def _number(value: float) -> str:
    """Three significant digits."""
    mantissa, exponent_mark, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent_mark else mantissa


def _ordinal(number: float) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(int(number) % 10, "th")
    if number != int(number) or 11 <= number % 100 <= 13:
        ending = "th"
    return f"{number:g}{ending}"


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size_px)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    return font


def _height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics()) + 1


def _plain(text: str) -> str:
    """Text in the letters that the font has: accents are dropped, other scripts become ?."""
    bare = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in _FONT_MARKS else "?" for c in bare)


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """As much of a text as fits; nothing where not even its first letters do."""
    if font.getlength(text) <= room:
        return text
    kept = text
    while kept and font.getlength(f"{kept}…") > room:
        kept = kept[:-1]
    return f"{kept.rstrip()}…" if len(kept) > 2 else ""


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    """A text in lines that fit; a word that is too long is cut."""
    lines: list[str] = []
    for word in _plain(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(_shortened(word, font, room))
    return lines


def _fit(picture: Image.Image | Photo, cell_px: int) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    scale = min(cell_px / image.width, 1.5 * cell_px / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
