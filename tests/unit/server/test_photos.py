"""Photos against arithmetic by hand, and preprocessing against torchvision's rounding."""

import struct
import threading
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from pellucid_server.photos import BadPhoto, Preprocessing, decode, read_header, thumbnail
from PIL import Image
from torchvision.transforms import functional as transforms

MAX_PIXELS = 40_000_000


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), np.uint8)


def file_of(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    rows: list[bytes],
    *,
    before: bytes = b"",
    after: bytes = b"",
    interlace: int = 0,
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", pixels)
        + after
        + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def on_white(value: int, alpha: int) -> int:
    return round((value * alpha + 255 * (255 - alpha)) / 255)


# ── Pixels ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_rgb_is_exact(form: str, options: dict[str, object]) -> None:
    photo = noise(5, 7)
    found = decode(file_of(Image.fromarray(photo), form, **options), max_pixels=35)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    np.testing.assert_array_equal(found, photo)


def test_jpeg_is_close() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, 0).repeat(3, 2)
    found = decode(file_of(Image.fromarray(ramp), "JPEG", quality=95), max_pixels=MAX_PIXELS)
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - ramp).max() <= 6


def test_grey_and_one_bit() -> None:
    grey = noise(4, 9)[:, :, 0]
    found = decode(file_of(Image.fromarray(grey), "PNG"), max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(found, np.stack([grey] * 3, axis=2))

    found = decode(png(8, 1, 1, 0, [b"\xa5"]), max_pixels=MAX_PIXELS)  # 1010 0101
    assert found[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255]


def test_sixteen_bit_grey_is_scaled_and_never_saturates() -> None:
    wide = [0, 255, 256, 0x1234, 0x7FFF, 0x8000, 0xFF00, 0xFFFF]
    found = decode(png(8, 1, 16, 0, [struct.pack(">8H", *wide)]), max_pixels=MAX_PIXELS)
    for channel in range(3):
        assert found[0, :, channel].tolist() == [v // 256 for v in wide]


def test_sixteen_bit_grey_with_colour_key_is_matched_in_sixteen_bits() -> None:
    key = chunk(b"tRNS", struct.pack(">H", 0x1234))
    rows = [struct.pack(">3H", 0x1234, 0x1235, 0)]
    found = decode(png(3, 1, 16, 0, rows, before=key), max_pixels=MAX_PIXELS)
    assert found[0, :, 0].tolist() == [255, 0x12, 0]


def test_sixteen_bit_rgb_and_rgba() -> None:
    rows = [struct.pack(">6H", 0, 0x1FF, 0xFFFF, 0x8000, 0xABCD, 0x00FF)]
    found = decode(png(2, 1, 16, 2, rows), max_pixels=MAX_PIXELS)
    assert found[0].tolist() == [[0, 1, 255], [0x80, 0xAB, 0]]

    rows = [struct.pack(">4H", 0x2000, 0x4000, 0x6000, 0x80FF)]
    found = decode(png(1, 1, 16, 6, rows), max_pixels=MAX_PIXELS)
    assert found[0, 0].tolist() == [on_white(v, 0x80) for v in (0x20, 0x40, 0x60)]


def test_sixteen_bit_rgb_colour_key_goes_by_the_high_bytes() -> None:
    key = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    rows = [struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1334, 0x5678, 0x9ABC)]
    found = decode(png(2, 1, 16, 2, rows, before=key), max_pixels=MAX_PIXELS)
    assert found[0].tolist() == [[255, 255, 255], [0x13, 0x56, 0x9A]]


def test_alpha_is_composited_on_white_for_every_value_and_alpha() -> None:
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    expected = np.array([[on_white(v, a) for v in range(256)] for a in range(256)])

    rgba = np.stack([value, 255 - value, value, alpha], axis=2).astype(np.uint8)
    found = decode(file_of(Image.fromarray(rgba), "PNG"), max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(found[:, :, 0], expected)
    np.testing.assert_array_equal(found[:, :, 1], expected[:, ::-1])

    la = np.stack([value, alpha], axis=2).astype(np.uint8)
    found = decode(file_of(Image.fromarray(la), "PNG"), max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=2))


def test_webp_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 0, 51))
    found = decode(file_of(image, "WEBP", lossless=True, exact=True), max_pixels=MAX_PIXELS)
    assert found[2, 2].tolist() == [on_white(v, 51) for v in (200, 100, 0)]


def test_palette_plain_and_with_transparency() -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    plain = png(3, 1, 8, 3, [bytes([2, 0, 1])], before=palette)
    assert decode(plain, max_pixels=9)[0].tolist() == [[70, 80, 90], [10, 20, 30], [40, 50, 60]]

    alphas = palette + chunk(b"tRNS", bytes([128, 0]))  # of entries 0 and 1; 2 is opaque
    found = decode(png(3, 1, 8, 3, [bytes([2, 0, 1])], before=alphas), max_pixels=9)[0].tolist()
    assert found == [[70, 80, 90], [on_white(v, 128) for v in (10, 20, 30)], [255, 255, 255]]

    key = palette + chunk(b"tRNS", bytes([255, 0]))  # a single transparent entry
    found = decode(png(3, 1, 8, 3, [bytes([2, 0, 1])], before=key), max_pixels=9)[0].tolist()
    assert found == [[70, 80, 90], [10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize(
    ("depth", "key", "row", "expected"),
    [
        (8, 7, bytes([7, 8, 0, 255]), [255, 8, 0, 255]),
        (4, 7, b"\x78\x0f", [255, 8 * 17, 0, 255]),
        (2, 1, b"\x6c", [255, 170, 255, 0]),  # 01 10 11 00
        (1, 0, b"\x50", [255, 255, 255, 255]),  # 0 1 0 1: black is transparent
    ],
)
def test_grey_colour_key(depth: int, key: int, row: bytes, expected: list[int]) -> None:
    data = png(4, 1, depth, 0, [row], before=chunk(b"tRNS", struct.pack(">H", key)))
    assert decode(data, max_pixels=4)[0, :, 1].tolist() == expected


def test_rgb_colour_key() -> None:
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    data = png(2, 1, 8, 2, [bytes([1, 2, 3, 1, 2, 4])], before=key)
    assert decode(data, max_pixels=2)[0].tolist() == [[255, 255, 255], [1, 2, 4]]


def test_cmyk_with_and_without_adobes_inversion() -> None:
    c, m, y, k = 200, 100, 50, 20
    with_marker = file_of(Image.new("CMYK", (16, 16), (c, m, y, k)), "JPEG", quality=100)
    expected = [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]
    found = decode(with_marker, max_pixels=256)[8, 8].astype(int)
    assert np.abs(found - expected).max() <= 2

    at = with_marker.index(b"\xff\xee")
    length = struct.unpack(">H", with_marker[at + 2 : at + 4])[0]
    without = with_marker[:at] + with_marker[at + 2 + length :]
    # Adobe's files hold 255 - ink. Without the marker the same samples are inks themselves.
    expected = [ink * k / 255 for ink in (c, m, y)]
    found = decode(without, max_pixels=256)[8, 8].astype(int)
    assert np.abs(found - expected).max() <= 2


# ── Orientation ─────────────────────────────────────────────────────────────────────────────

UPRIGHT = [[1, 2, 3], [4, 5, 6]]
STORED = {  # how a camera stores UPRIGHT, by the orientation that it writes
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_orientation(orientation: int, form: str) -> None:
    levels = np.kron(np.array(STORED[orientation], np.uint8) * 40, np.ones((8, 8), np.uint8))
    image = Image.fromarray(np.stack([levels] * 3, axis=2))
    lossless = {"lossless": True} if form == "WEBP" else {}
    data = file_of(image, form, exif=exif(orientation), **lossless)
    header = read_header(data, max_pixels=MAX_PIXELS)
    assert (header.width_px, header.height_px, header.frame_count) == (24, 16, 1)
    assert header.format == {"PNG": "PNG", "WEBP": "WebP", "JPEG": "JPEG"}[form]
    found = decode(data, max_pixels=MAX_PIXELS)
    assert found.shape == (16, 24, 3)
    np.testing.assert_allclose(found[4::8, 4::8, 0], np.array(UPRIGHT) * 40, atol=2)


def test_orientation_behind_the_pixels_of_a_png() -> None:
    data = png(2, 1, 8, 0, [b"\1\2"], after=chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")))
    header = read_header(data, max_pixels=2)
    assert (header.width_px, header.height_px) == (1, 2)
    assert decode(data, max_pixels=2)[:, 0, 0].tolist() == [1, 2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("tags", [exif(0), exif(9), b"Exif\0\0II*\0\xff\xff\xff\xff", b"rubbish"])
def test_senseless_exif_is_ignored(tags: bytes) -> None:
    data = file_of(Image.fromarray(noise(8, 16)), "JPEG", exif=tags)
    assert decode(data, max_pixels=MAX_PIXELS).shape == (8, 16, 3)
    assert read_header(data, max_pixels=MAX_PIXELS).width_px == 16


# ── Refusals ────────────────────────────────────────────────────────────────────────────────


def refusal(data: bytes, max_pixels: int = MAX_PIXELS, *, by_header: bool = True) -> str:
    with pytest.raises(BadPhoto) as caught:
        decode(data, max_pixels=max_pixels)
    if by_header:
        with pytest.raises(BadPhoto) as by_header_too:
            read_header(data, max_pixels=max_pixels)
        assert str(by_header_too.value) == str(caught.value)
    return str(caught.value)


def test_what_is_no_photo_is_named() -> None:
    assert "zero bytes" in refusal(b"")
    assert "JPEG, PNG and WebP are accepted" in refusal(b"hello, world")
    assert "68 65 6c 6c 6f" in refusal(b"hello, world")
    assert "GIF" in refusal(file_of(Image.new("L", (2, 2)), "GIF"))
    assert "BMP" in refusal(file_of(Image.new("L", (2, 2)), "BMP"))
    assert "TIFF" in refusal(file_of(Image.new("L", (2, 2)), "TIFF"))
    assert "HEIC" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0")


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\4\0\0\0WEBP"])
def test_a_start_alone_is_a_damaged_header(start: bytes) -> None:
    assert "damaged" in refusal(start)
    assert "damaged" in refusal(start + b"VP8 rubbish and more rubbish, longer than a header")


def webp_header(width: int, height: int, kind: bytes) -> bytes:
    body = {
        b"VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(9),
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    return (
        b"RIFF"
        + struct.pack("<I", len(body) + 12)
        + b"WEBP"
        + kind
        + struct.pack("<I", len(body))
        + body
    )


def jpeg_header(width: int, height: int) -> bytes:
    data = file_of(Image.new("L", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (png(50_000, 50_000, 8, 2, []), "50000 × 50000 = 2500000000"),
        (png(10_000, 10_000, 8, 2, []), "10000 × 10000 = 100000000"),  # where Pillow warns
        (jpeg_header(65_000, 65_000), "65000 × 65000 = 4225000000"),
        (webp_header(60_000, 50_000, b"VP8X"), "60000 × 50000 = 3000000000"),
        (webp_header(16_000, 15_000, b"VP8L"), "16000 × 15000 = 240000000"),
        (webp_header(16_000, 15_000, b"VP8 "), "16000 × 15000 = 240000000"),
    ],
)
def test_bombs_are_refused_by_their_header(data: bytes, pixels: str) -> None:
    message = refusal(data)
    assert pixels in message
    assert "40000000" in message


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_the_pixel_limit_is_exact(form: str) -> None:
    data = file_of(Image.fromarray(noise(10, 20)), form)
    assert decode(data, max_pixels=200).shape == (10, 20, 3)
    assert "20 × 10 = 200 pixels; at most 199" in refusal(data, 199)


def test_pillows_own_threshold_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    for form in ("PNG", "JPEG"):
        data = file_of(Image.fromarray(noise(10, 20)), form)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_header(data, max_pixels=200).height_px == 10
            assert decode(data, max_pixels=200).shape == (10, 20, 3)


@pytest.mark.parametrize(("form", "name"), [("PNG", "PNG"), ("WEBP", "WebP")])
def test_animations_are_refused_with_their_frame_count(form: str, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = file_of(frames[0], form, save_all=True, append_images=frames[1:], duration=50)
    assert f"the {name} file is an animation of 3 frames" in refusal(data)


def test_the_first_picture_of_a_multi_picture_jpeg() -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]
    data = file_of(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    assert read_header(data, max_pixels=256).frame_count == 1
    assert np.abs(decode(data, max_pixels=256)[8, 8].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_truncated_files_are_refused(form: str, options: dict[str, object], part: float) -> None:
    data = file_of(Image.fromarray(noise(64, 80)), form, **options)
    message = refusal(data[: int(len(data) * part)], by_header=False)
    assert "truncated or corrupt" in message or "damaged" in message


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_ends_early_behind_an_end_marker_is_refused(
    mode: str, options: dict[str, object]
) -> None:
    data = file_of(Image.fromarray(noise(64, 80)).convert(mode), "JPEG", **options)
    first_scan = data.index(b"\xff\xda") + 20
    # The first of the progressive scans holds 80 blocks' means; the last block may be cut.
    last = first_scan + 25 if options.get("progressive") else len(data) - 200
    for end in range(first_scan, last, max(1, (last - first_scan) // 40)):
        assert "missing" in refusal(data[:end] + b"\xff\xd9", by_header=False), end


def test_a_jpeg_that_ends_early_at_a_restart_marker_is_refused() -> None:
    image = Image.fromarray(noise(64, 80)).convert("L")
    data = file_of(image, "JPEG", restart_marker_rows=1)
    for number in range(7):
        end = data.index(bytes([0xFF, 0xD0 + number]))
        for fill in (b"", b"\xff", b"\xff\xff"):
            assert "missing" in refusal(data[:end] + fill + b"\xff\xd9", by_header=False)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_complete_jpeg_of_mid_grey_is_accepted(mode: str, progressive: bool) -> None:
    image = Image.new("RGB", (40, 30), (128, 128, 128)).convert(mode)
    data = file_of(image, "JPEG", progressive=progressive)
    assert (decode(data, max_pixels=1200) == 128).all()
    photo = noise(30, 40)
    photo[16:, 24:] = 128
    data = file_of(Image.fromarray(photo).convert(mode), "JPEG", progressive=progressive)
    assert decode(data, max_pixels=1200).shape == (30, 40, 3)


def test_a_png_whose_stream_ends_early_is_refused() -> None:
    rows = [bytes([9] * 10)] * 5
    assert "pixels are missing" in refusal(png(10, 10, 8, 0, rows), by_header=False)
    black = [bytes(10)] * 10
    assert not decode(png(10, 10, 8, 0, black), max_pixels=100).any()
    assert "pixels are missing" in refusal(png(10, 10, 8, 0, black[1:]), by_header=False)


def test_an_interlaced_png() -> None:
    # 3 × 3: Adam7 has passes of (0,0), of none, none, of (2,0), of (0,2) and (2,2),
    # of (1,0) and (1,2), and of row 1.
    passes = [b"\x01", b"\x03", b"\x07\x09", b"\x02", b"\x08", b"\x04\x05\x06"]
    found = decode(png(3, 3, 8, 0, passes, interlace=1), max_pixels=9)
    assert found[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert "pixels are missing" in refusal(
        png(3, 3, 8, 0, passes[:-1], interlace=1), by_header=False
    )
    black = [bytes(len(row)) for row in passes]
    assert not decode(png(3, 3, 8, 0, black, interlace=1), max_pixels=9).any()


def test_flipped_bits_in_a_png_are_refused() -> None:
    data = bytearray(file_of(Image.fromarray(noise(20, 20)), "PNG"))
    data[len(data) // 2] ^= 1
    assert "corrupt" in refusal(bytes(data), by_header=False)


def test_many_threads_decode_alike() -> None:
    photo = noise(60, 80)
    good = file_of(Image.fromarray(photo), "PNG")
    bomb = png(10_000, 10_000, 8, 2, [])
    wrong: list[object] = []

    def work() -> None:
        for _ in range(10):
            if not np.array_equal(decode(good, max_pixels=4800), photo):
                wrong.append("pixels")
            try:
                read_header(bomb, max_pixels=4800)
                wrong.append("accepted")
            except BadPhoto:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ── Preprocessing ───────────────────────────────────────────────────────────────────────────

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing(shorter: int, height: int, width: int, how: str = "bilinear") -> Preprocessing:
    assert how in ("bilinear", "bicubic")
    return Preprocessing(shorter, height, width, how, MEAN, STD)


def whole_then_crop(photo: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float64]:
    """The photo resized whole, across and then down, cropped by torchvision."""
    shorter, resampling = how.resize_shorter_side_px, Image.Resampling[how.interpolation.upper()]
    height, width = photo.shape[:2]
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    image = Image.fromarray(photo).resize((size[0], height), resampling).resize(size, resampling)
    cropped = np.asarray(transforms.center_crop(image, [how.height_px, how.width_px]))
    return np.stack([(cropped[:, :, c] / 255 - MEAN[c]) / STD[c] for c in range(3)])


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "shorter", "crop"),
    [
        (300, 451, 64, (56, 56)),
        (451, 300, 64, (56, 48)),
        (37, 61, 64, (56, 56)),  # enlarged
        (64, 101, 64, (63, 64)),  # not resized; odd margins, half to even
        (640, 33, 40, (40, 40)),  # elongated
        (33, 640, 40, (32, 40)),
        (224, 224, 256, (224, 224)),
    ],
)
def test_apply_is_resizing_and_then_cropping(
    height: int, width: int, shorter: int, crop: tuple[int, int], how: str
) -> None:
    photo, steps = noise(height, width), preprocessing(shorter, *crop, how)
    found = steps.apply(photo)
    assert found.dtype == np.float64
    assert found.shape == (3, *crop)
    levels = np.abs(found - whole_then_crop(photo, steps)) * np.reshape(STD, (3, 1, 1)) * 255
    assert levels.max() < 2.01
    assert (levels > 0.01).mean() < 0.02


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_apply_agrees_with_torchvision(how: str) -> None:
    photo = np.asarray(Image.fromarray(noise(30, 40)).resize((400, 300)))
    steps = preprocessing(128, 112, 112, how)
    image = transforms.resize(
        Image.fromarray(photo), 128, transforms.InterpolationMode(how), antialias=True
    )
    tensor = transforms.to_tensor(transforms.center_crop(image, [112, 112]))
    expected = transforms.normalize(tensor, MEAN, STD).numpy()
    np.testing.assert_allclose(steps.apply(photo), expected, atol=1.01 / 255 / min(STD))


def test_apply_stretches_the_whole_photo() -> None:
    photo, steps = noise(90, 50), preprocessing(0, 30, 20, "bicubic")
    image = Image.fromarray(photo).resize((20, 90), Image.Resampling.BICUBIC)
    stretched = np.asarray(image.resize((20, 30), Image.Resampling.BICUBIC))
    expected = np.stack([(stretched[:, :, c] / 255 - MEAN[c]) / STD[c] for c in range(3)])
    np.testing.assert_array_equal(steps.apply(photo), expected)


def test_apply_normalizes_in_float64() -> None:
    steps = preprocessing(0, 2, 2)
    found = steps.apply(np.array([[[10, 20, 30]] * 2] * 2, np.uint8))
    for channel, value in enumerate((10, 20, 30)):
        assert found[channel, 1, 1] == pytest.approx(
            (value / 255 - MEAN[channel]) / STD[channel], rel=1e-14
        )


@pytest.mark.parametrize("shape", [(3_000_000, 1, 3), (1, 3_000_000, 3)])
@pytest.mark.parametrize("shorter", [0, 256])
def test_apply_makes_no_giant_of_a_long_photo(
    shape: tuple[int, int, int], shorter: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", watched)
    found = preprocessing(shorter, 224, 224).apply(np.full(shape, 200, np.uint8))
    np.testing.assert_allclose(found[0], (200 / 255 - MEAN[0]) / STD[0])
    assert 0 < largest <= 3_000_000


def test_input_box() -> None:
    assert preprocessing(0, 10, 20).input_box(300, 200) == (0, 0, 300, 200)
    # 400 × 200 is resized to 200 × 100 (half); the crop of 80 × 60 starts at (60, 20).
    assert preprocessing(100, 60, 80).input_box(400, 200) == (120, 40, 160, 120)
    # 300 × 301 is resized to 100 × 100 (301 / 3 rounded down): scales of 3 and 3.01.
    x, y, width, height = preprocessing(100, 75, 75).input_box(300, 301)
    # (100 - 75) / 2 = 12.5 is rounded to even.
    assert (x, width) == (36, 225)
    assert (y, height) == pytest.approx((12 * 3.01, 75 * 3.01))


def test_what_lies_outside_the_input_box_does_not_matter() -> None:
    steps = preprocessing(64, 48, 48)
    photo = noise(200, 300)
    x, y, width, height = steps.input_box(300, 200)
    reach = 200 / 64 + 1  # of the bilinear filter
    changed = photo.copy()
    changed[: int(y - reach)] = 0
    changed[:, : int(x - reach)] = 0
    changed[int(y + height + reach) + 1 :] = 0
    changed[:, int(x + width + reach) + 1 :] = 0
    assert (changed != photo).mean() > 0.3
    np.testing.assert_array_equal(steps.apply(changed), steps.apply(photo))


def test_unnormalize_undoes_apply_and_clips() -> None:
    photo, steps = noise(6, 8), preprocessing(0, 6, 8)
    np.testing.assert_array_equal(steps.unnormalize(steps.apply(photo)), photo)
    np.testing.assert_array_equal(steps.unnormalize(steps.apply(photo).astype(np.float32)), photo)
    plain = Preprocessing(0, 1, 1, "bilinear", (0, 0, 0), (1, 1, 1))
    x = np.array([-0.5, 100.4 / 255, 1.5]).reshape(3, 1, 1)
    assert plain.unnormalize(x).tolist() == [[[0, 100, 255]]]
    assert plain.unnormalize(x + 0.2 / 255).tolist() == [[[0, 101, 255]]]


def test_senseless_preprocessing_is_refused() -> None:
    with pytest.raises(ValueError, match="resize_shorter_side_px is 200"):
        preprocessing(200, 224, 100)
    with pytest.raises(ValueError, match="no pixels"):
        preprocessing(0, 0, 10)
    with pytest.raises(ValueError, match="std"):
        Preprocessing(0, 1, 1, "bilinear", (0, 0, 0), (1, 0, 1))


def test_thumbnail() -> None:
    photo = noise(30, 50)
    assert thumbnail(photo, 50) is photo
    assert thumbnail(photo, 4096) is photo
    assert thumbnail(photo, 20).shape == (12, 20, 3)
    assert thumbnail(photo.transpose(1, 0, 2), 20).shape == (20, 12, 3)
    assert thumbnail(noise(1, 900), 100).shape == (1, 100, 3)
    flat = np.full((90, 70, 3), (10, 128, 240), np.uint8)
    np.testing.assert_array_equal(thumbnail(flat, 30), np.full((30, 23, 3), (10, 128, 240)))
