"""Renderings against arithmetic by hand."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from pellucid import render
from PIL import Image, ImageDraw


def grey_photo(height: int, width: int, level: int = 128) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def draw(
    photo: NDArray[np.uint8],
    values: NDArray[np.float32],
    *,
    box: tuple[float, float, float, float] | None = None,
    limit: float = 1.0,
    color_scale: render.ColorScale = "signed",
    percentile: float = 99.5,
    legend: bool = False,
    title: str = "",
) -> NDArray[np.int64]:
    height, width = photo.shape[:2]
    picture = render.overlay(
        photo,
        values,
        box=box or (0, 0, width, height),
        limit=limit,
        color_scale=color_scale,
        percentile=percentile,
        legend=legend,
        title=title,
    )
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(np.int64)


def colour(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far each pixel is from grey."""
    return pixels.max(axis=-1) - pixels.min(axis=-1)


# ── Values ──────────────────────────────────────────────────────────────────────────────────


def test_reduce_channels() -> None:
    attribution = np.array([[[1.0, -4.0]], [[2.0, 3.0]], [[-0.5, 0.5]]], np.float32)
    signed = render.reduce_channels(attribution, "signed")
    absolute = render.reduce_channels(attribution, "absolute")
    assert signed.dtype == absolute.dtype == np.float32
    assert signed.tolist() == [[2.5, -0.5]]
    assert absolute.tolist() == [[2.0, 4.0]]


def test_reduce_channels_sums_in_double() -> None:
    # In single precision the 1 would vanish next to 1e8.
    assert render.reduce_channels(np.array([[[1e8]], [[1]], [[-1e8]]], np.float32), "signed") == 1


def test_limit_of() -> None:
    values = np.array([[-4.0, 1.0], [2.0, 3.0]])
    assert render.limit_of(values, 100) == 4
    assert render.limit_of(values, 50) == 2.5  # midway between ranks 2 and 3 of 1, 2, 3, 4
    assert render.limit_of(np.zeros((3, 3)), 99.5) == 0


def test_limit_of_a_map_with_a_single_mark_is_its_magnitude() -> None:
    values = np.zeros((100, 100), np.float32)
    values[3, 4] = -0.25
    assert np.percentile(np.abs(values), 99.5) == 0
    assert render.limit_of(values, 99.5) == 0.25


def test_quantize_by_hand() -> None:
    values = np.array([[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]])
    assert render.quantize(values, 2, "signed").tolist() == [[1, 1, 64, 128, 192, 255, 255]]
    assert render.quantize(values, 2, "absolute").tolist() == [[0, 0, 0, 0, 128, 255, 255]]
    # 0.301 · 127 = 38.2 and 0.305 · 127 = 38.7
    assert render.quantize(np.array([[0.301, 0.305]]), 1, "signed").tolist() == [[166, 167]]


def test_quantize_without_a_limit_is_zero() -> None:
    nothing = np.zeros((2, 2), np.float32)
    assert (render.quantize(nothing, 0, "signed") == 128).all()
    assert (render.quantize(nothing, 0, "absolute") == 0).all()
    assert (render.dequantize(np.full((2, 2), 128, np.uint8), 0, "signed") == 0).all()


def test_dequantize_is_the_heatmaps_convention() -> None:
    grey = np.array([[1, 128, 255]], np.uint8)
    assert render.dequantize(grey, 0.5, "signed").tolist() == [[-0.5, 0, 0.5]]
    levels = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(render.dequantize(levels, 0.5, "absolute"), [[0, 0.1, 0.5]])


@pytest.mark.parametrize(("scale", "step"), [("signed", 1 / 127), ("absolute", 1 / 255)])
def test_quantizing_loses_half_a_level_at_most(scale: render.ColorScale, step: float) -> None:
    limit = 3e-6
    values = np.random.default_rng(0).uniform(-limit, limit, (64, 64)).astype(np.float32)
    if scale == "absolute":
        values = np.abs(values)
    grey = render.quantize(values, limit, scale)
    assert len(np.unique(grey)) > 200
    back = render.dequantize(grey, limit, scale)
    assert np.abs(back - values).max() <= 0.5001 * step * limit
    np.testing.assert_array_equal(render.quantize(back, limit, scale), grey)


# ── Overlays ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scale", ["signed", "absolute"])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_a_zero_map_leaves_no_colour(scale: render.ColorScale, limit: float) -> None:
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    found = draw(ramp, np.zeros((7, 7), np.float32), limit=limit, color_scale=scale)
    assert colour(found).max() <= 1  # of rounding
    assert (np.diff(found[0, :, 0]) >= 0).all()  # the photo still shows
    assert np.ptp(found) > 80


def test_signed_is_red_where_positive_and_blue_where_negative() -> None:
    values = np.zeros((4, 4), np.float32)
    values[:, 0], values[:, 3] = -1, 1
    found = draw(grey_photo(40, 40), values)
    red, _, blue = found[20, 38]
    assert red > blue + 100
    red, _, blue = found[20, 1]
    assert blue > red + 100
    # Nothing rings: between the marks there is no trace of either.
    assert colour(found[:, 18:22]).max() <= 1


def test_a_mark_has_no_halo_of_the_other_sign() -> None:
    values = np.zeros((9, 9), np.float32)
    values[4, 4] = 1
    found = draw(grey_photo(180, 180), values)
    assert (found[:, :, 0] >= found[:, :, 2] - 1).all()
    assert (found[:, :, 0] - found[:, :, 2]).max() > 100


def test_absolute_grows_lighter_and_stronger() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(4, 0)
    found = draw(grey_photo(64, 640, 0), values, color_scale="absolute")
    luma = found[32] @ [0.299, 0.587, 0.114]
    assert luma[-1] > luma[320] + 60 > luma[0] + 100
    assert (np.diff(luma) > -1.5).all()


def test_a_small_value_is_nearly_transparent_and_a_large_one_nearly_not() -> None:
    photo = grey_photo(40, 40)
    photo[::2] = 255  # stripes
    weak = draw(photo, np.full((4, 4), 0.02, np.float32))
    strong = draw(photo, np.full((4, 4), 1, np.float32))
    bare = draw(photo, np.zeros((4, 4), np.float32))

    def contrast(picture: NDArray[np.int64]) -> int:
        return int(abs(picture[20, 20] - picture[21, 20]).max())

    assert contrast(strong) < 0.2 * contrast(bare)
    assert contrast(weak) > 0.8 * contrast(bare)


def test_single_pixel_speckle_is_visible() -> None:
    values = np.zeros((224, 224), np.float32)
    values[100, 50] = 0.3
    for scale in ("absolute", "signed"):
        found = draw(grey_photo(600, 600), values, color_scale=scale)
        # Pixel (100, 50) covers 600 / 224 px a side around its centre.
        y, x = round(100.5 * 600 / 224), round(50.5 * 600 / 224)
        assert colour(found)[y, x] > 40
        assert colour(found)[:, 200:].max() <= 1


def test_the_map_lies_on_its_box_and_the_rest_is_dimmer() -> None:
    values = np.zeros((10, 10), np.float32)
    values[0, 0] = values[9, 9] = 1
    found = draw(grey_photo(100, 200), values, box=(60, 20, 80, 70))
    inside, outside = found[55, 100, 0], found[5, 5, 0]
    assert outside < 0.6 * inside
    assert colour(found)[20, 60] > 100
    assert colour(found)[89, 139] > 100
    mask = np.ones((100, 200), bool)
    mask[20:90, 60:140] = False
    assert (found[mask] == outside).all()
    assert (found[~mask].max(axis=-1) >= inside - 1).all()


def test_a_box_between_pixels_or_beyond_the_photo_is_cut() -> None:
    values = np.ones((4, 4), np.float32)
    found = draw(grey_photo(10, 10), values, box=(2.4, 3.6, 4.2, 3.0))
    assert np.argwhere(colour(found) > 50).min(axis=0).tolist() == [4, 2]
    assert np.argwhere(colour(found) > 50).max(axis=0).tolist() == [6, 6]
    assert colour(draw(grey_photo(10, 10), values, box=(-5, -5, 20, 20))).min() > 50
    assert colour(draw(grey_photo(1, 1), values, box=(0, 0, 0.2, 0.2))).min() > 50


# ── Legends ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn, which must lie on the picture entirely."""
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text

    def watched(
        self: ImageDraw.ImageDraw,
        xy: tuple[float, float],
        words: str,
        *rest: object,
        **options: object,
    ) -> None:
        if words:
            drawn.append(words)
            font, anchor = rest[1], options.get("anchor", "la")
            left, top, right, bottom = self.textbbox(xy, words, font, anchor=anchor)
            assert left >= 0 and top >= 0, words
            assert right <= self.im.size[0] and bottom <= self.im.size[1], words
        text(self, xy, words, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", watched)
    return drawn


@pytest.mark.parametrize("width", [1, 2, 16, 32, 64, 100, 224, 512, 1024, 4096])
@pytest.mark.parametrize("scale", ["signed", "absolute"])
def test_the_legend_lies_below_the_photo(
    width: int, scale: render.ColorScale, texts: list[str]
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, width, 3), np.uint8)
    values = np.random.default_rng(1).uniform(0, 2, (8, 8)).astype(np.float32)
    bare = draw(photo, values, color_scale=scale)
    found = draw(photo, values, color_scale=scale, legend=True, title="tabby cat")
    assert bare.shape == (30, width, 3)
    assert found.shape[1] == width
    assert 35 < found.shape[0] < 30 + max(90, width // 4)
    np.testing.assert_array_equal(found[:30], bare)
    strip = found[30:]
    if width >= 16:
        assert colour(strip).max() > 100  # the colour bar
    if width >= 64:
        assert any("1" in text for text in texts)
        assert scale in texts or any(text.startswith(f"{scale} ·") for text in texts)
        assert (strip.min(axis=-1) > 200).any()  # the text is light on dark
        assert np.median(strip) < 60


def test_the_legends_words_and_numbers(texts: list[str]) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8) / 8000
    draw(grey_photo(50, 800), values, limit=0.000123456, legend=True, title="tabby cät 猫")
    assert texts[:2] == ["tabby cat ?", "signed · clipped at the 99.5th percentile"]
    assert texts[2:] == ["-0.000123", "0", "0.000123"]
    texts.clear()
    draw(grey_photo(50, 800), values, limit=1234567.0, color_scale="absolute", legend=True)
    assert texts == ["absolute · not clipped", "0", "1.23e6"]
    texts.clear()
    draw(grey_photo(50, 800), values * 0, limit=0, legend=True)
    assert texts == ["signed · all zero", "0"]


@pytest.mark.parametrize(
    ("percentile", "words"),
    [
        (50, "50th"),
        (51, "51st"),
        (62, "62nd"),
        (73, "73rd"),
        (99, "99th"),
        (99.9, "99.9th"),
        (11, "11th"),
    ],
)
def test_percentiles_are_spelt(percentile: float, words: str, texts: list[str]) -> None:
    draw(grey_photo(9, 500), np.full((2, 2), 5, np.float32), percentile=percentile, legend=True)
    assert texts[0] == f"signed · clipped at the {words} percentile"


def test_narrow_legends_drop_words_before_numbers(texts: list[str]) -> None:
    values = np.full((2, 2), 5, np.float32)
    found: dict[int, list[str]] = {}
    for width in (400, 190, 64, 30):
        texts.clear()
        draw(grey_photo(20, width), values, limit=0.00456, legend=True, title="the face of a cat")
        found[width] = list(texts)
    clipping, numbers = "clipped at the 99.5th percentile", ["-0.00456", "0", "0.00456"]
    assert found[400] == ["the face of a cat", f"signed · {clipping}", *numbers]
    assert found[190] == ["the face of a cat", "signed", clipping, *numbers]
    assert found[64][0].endswith("…") and "the face of a cat".startswith(found[64][0][:-1])
    assert found[64][1:] == ["signed", "±0.00456"]
    assert found[30] == []


# ── Files and sheets ────────────────────────────────────────────────────────────────────────


def test_encode() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)  # one pixel wide: lost with subsampled chroma
    image = Image.fromarray(stripes)
    with Image.open(BytesIO(render.encode(image, "png"))) as png:
        assert png.format == "PNG"
        np.testing.assert_array_equal(np.asarray(png), stripes)
    with Image.open(BytesIO(render.encode(image, "jpeg"))) as jpeg:
        assert jpeg.format == "JPEG"
        assert np.abs(np.asarray(jpeg).astype(int) - stripes).mean() < 15
        # The luminance table of quality 90: the standard's first entry 16 · 0.2, rounded.
        assert jpeg.quantization[0][0] == 3
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with Image.open(BytesIO(render.encode(Image.fromarray(grey), "png"))) as png:
        assert png.mode == "L"
        np.testing.assert_array_equal(np.asarray(png), grey)


def test_contact_sheet(texts: list[str]) -> None:
    red = np.full((60, 120, 3), (255, 0, 0), np.uint8)
    blue = Image.new("RGB", (50, 100), (0, 0, 255))
    tall = Image.new("RGB", (10, 400), (0, 255, 0))
    sheet = render.contact_sheet(
        [[red, blue], [tall, red]],
        row_labels=["tabby cat", "espresso"],
        column_labels=["photo", "gradient"],
        cell_px=200,
        captions=[["", "one"], ["", "two"]],
    )
    pixels = np.asarray(sheet).astype(int)

    def area(colour: tuple[int, int, int]) -> list[tuple[int, int]]:
        """Height and width of what has a colour, left half and right half of the sheet."""
        middle = sheet.width - 200 - 10 - 5
        hit = np.abs(pixels - colour).sum(axis=2) < 30
        sizes = []
        for half in (hit[:, :middle], hit[:, middle:]):
            where = np.argwhere(half)
            sizes.append(tuple(np.ptp(where, axis=0) + 1) if len(where) else (0, 0))
        return sizes

    assert area((255, 0, 0)) == [(100, 200), (100, 200)]
    assert area((0, 0, 255)) == [(0, 0), (300, 150)]  # at most 1.5 cells high
    assert area((0, 255, 0)) == [(300, 8), (0, 0)]
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels[:, [0, -1]] == 255).all()
    assert sorted(texts) == ["espresso", "gradient", "one", "photo", "tabby cat", "two"]


def test_contact_sheet_wraps_long_labels_and_needs_no_captions(texts: list[str]) -> None:
    picture = Image.new("RGB", (10, 10))
    sheet = render.contact_sheet(
        [[picture]],
        row_labels=[""],
        column_labels=["guided backpropagation of a rather long name"],
        cell_px=120,
    )
    assert len(texts) > 1
    assert " ".join(texts) == "guided backpropagation of a rather long name"
    assert 120 < sheet.width < 150
