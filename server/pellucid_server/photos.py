"""Photos: from a file's bytes to upright pixels, and from pixels to a network's input.

Everything here is pure and safe to run in many threads at once: Pillow's process-wide pixel
limit and Python's warning filters are not changed, and no pixel count is judged by them.

Colours are taken as sRGB: embedded colour profiles are ignored.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

Format = Literal["JPEG", "PNG", "WebP"]

# The plugins themselves, not Image.open, which would apply Pillow's own pixel threshold and
# warn or raise by it, and would read a multi-picture JPEG as several frames.
_PLUGINS: dict[Format, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OTHERS = {  # offset and bytes by which other files are known, so that a message can name them
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "TIFF": (0, b"II*\0"),
    "big-endian TIFF": (0, b"MM\0*"),
    "PDF": (0, b"%PDF"),
    "AVIF": (4, b"ftypavif"),
    "HEIC": (4, b"ftyphei"),
    "SVG or XML": (0, b"<"),
}


class BadPhoto(ValueError):
    """A photo that is refused; the message says why, to the caller."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before any pixel is decoded.

    Attributes:
        format: The file format.
        width_px: Width of the upright photo, EXIF orientation applied.
        height_px: Height of the upright photo.
        frame_count: Always 1, since animations are refused. The further pictures of a
            multi-picture JPEG (previews, depth maps) are not frames and are not counted.
    """

    format: Format
    width_px: int
    height_px: int
    frame_count: int


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Reads a JPEG, PNG or WebP file's header; no pixel is decoded.

    Args:
        data: The whole file.
        max_pixels: Width times height that is still accepted. (A WebP of more than 178 million
            pixels is refused even when more are accepted: Pillow does not open it.)

    Raises:
        BadPhoto: No bytes, another format, a damaged header, too many pixels, or more than one
            frame.
    """
    form, image = _open(data, max_pixels)
    with image:
        width_px, height_px = image.size
        if _orientation(image, data) >= 5:
            width_px, height_px = height_px, width_px
        return Header(form, width_px, height_px, _frame_count(image))


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decodes a JPEG, PNG or WebP file.

    - EXIF orientation is applied.
    - Transparency, of an alpha channel or of a colour key, is composited on white:
      (v·a + 255·(255 - a)) / 255, rounded to nearest.
    - A 16-bit sample v becomes v >> 8.
    - CMYK is converted without a profile: (255 - c)·(255 - k) / 255. With Adobe's marker the
      samples are stored inverted, without it they are not.

    A file that is cut off is refused, also where an end marker was put behind the cut. Other
    damage is found where the format can tell: PNG has checksums; in a JPEG or WebP, flipped bits
    can decode to another picture.

    Args:
        data: The whole file.
        max_pixels: As for read_header.

    Returns:
        The upright photo: uint8 height × width × 3, RGB.

    Raises:
        BadPhoto: Whatever read_header refuses, and truncated or corrupt data.
    """
    form, image = _open(data, max_pixels)
    with image:
        orientation = _orientation(image, data)
        try:
            image.load()
            complete = {"PNG": _is_complete_png, "JPEG": _is_complete_jpeg}.get(form)
            if complete and not complete(image, data):
                raise BadPhoto(f"the {form} file is truncated or corrupt: pixels are missing")
            pixels = _rgb(image, data)
        except (BadPhoto, MemoryError):
            raise
        except Exception as error:
            raise BadPhoto(f"the {form} file is truncated or corrupt") from error
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels))


_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}
"""How stored pixels are turned, by EXIF orientation (EXIF 2.32, tag 0x0112)."""


def _open(data: bytes, max_pixels: int) -> tuple[Format, ImageFile]:
    """The file's format and its image, not yet decoded, once its header is acceptable."""
    form = _format_of(data)
    if form == "WebP":  # Pillow's constructor allocates the whole canvas: look first
        _check_size(_webp_size(data), max_pixels)
    try:
        image = _PLUGINS[form](BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:
        raise BadPhoto(f"the {form} file has a damaged or unsupported header") from error
    _check_size(image.size, max_pixels)
    if _frame_count(image) > 1:
        raise BadPhoto(
            f"the {form} file is an animation of {_frame_count(image)} frames;"
            " a photo has a single frame"
        )
    return form, image


def _format_of(data: bytes) -> Format:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if not data:
        raise BadPhoto("the photo has zero bytes; a JPEG, PNG or WebP file is needed")
    names = (name for name, (at, magic) in _OTHERS.items() if data.startswith(magic, at))
    found = next(names, f"unknown, its first bytes are {data[:8].hex(' ')}")
    raise BadPhoto(f"the photo's format is {found}; JPEG, PNG and WebP are accepted")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP's canvas (RFC 9649, sections 2.5 to 2.7)."""
    number = int.from_bytes
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        return number(data[26:28], "little") & 0x3FFF, number(data[28:30], "little") & 0x3FFF
    if data[12:16] == b"VP8L" and data[20:21] == b"\x2f" and len(data) >= 25:
        bits = number(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return number(data[24:27], "little") + 1, number(data[27:30], "little") + 1
    raise BadPhoto("the WebP file has a damaged or unsupported header")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width_px, height_px = size
    if width_px < 1 or height_px < 1:
        raise BadPhoto(f"the photo is {width_px} × {height_px} pixels; at least 1 × 1 is needed")
    if width_px * height_px > max_pixels:
        raise BadPhoto(
            f"the photo is {width_px} × {height_px} = {width_px * height_px} pixels;"
            f" at most {max_pixels} are accepted"
        )


def _frame_count(image: ImageFile) -> int:
    return int(getattr(image, "n_frames", 1))


def _orientation(image: ImageFile, data: bytes) -> int:
    """EXIF orientation 1 to 8, read without decoding; 1 where it is absent or not readable."""
    if isinstance(image, PngImageFile) and "exif" not in image.info:
        # The chunk may stand behind the pixels, where the header's reader does not get.
        for kind, body in _png_chunks(data):
            if kind == b"eXIf":
                image.info["exif"] = bytes(body)
                break
    try:
        # The base class's: that of PNG would decode the pixels first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # whatever damaged EXIF does to its parser, the photo is fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG file: type and body."""
    view, at = memoryview(data), len(_PNG_SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += length + 12


_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row and the steps of an interlaced PNG's passes (its section 8.1)."""


def _is_complete_png(image: ImageFile, data: bytes) -> bool:
    """Whether a decoded PNG held data for every row.

    Pillow accepts a stream that ends early and leaves the missing rows 0. Where one of the last
    two rows is 0 (the last or, of an interlaced image, perhaps the one before), the stream is
    inflated once more and counted.
    """
    width, height = image.size
    last = [image.crop((0, y, width, y + 1)) for y in range(max(0, height - 2), height)]
    if all(np.asarray(row).any() for row in last):
        return True
    depth, colour_type, interlaced = data[24], data[25], data[28]
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    missing = 0
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = ceil((width - x) / across), ceil((height - y) / down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + ceil(columns * bits / 8))
    stream = zlib.decompressobj()
    for kind, body in _png_chunks(data):
        rest: bytes | memoryview = body if kind == b"IDAT" else b""
        while rest and missing > 0:
            missing -= len(stream.decompress(rest, 1 << 20))
            rest = stream.unconsumed_tail
    return missing <= 0


def _is_complete_jpeg(image: ImageFile, data: bytes) -> bool:
    """Whether a decoded JPEG held data up to its last pixel.

    Where the coded data ends early but the file's end marker is there, the decoder fills up
    with mid-grey. Where the last pixel is mid-grey, noise is put before the end marker, and more
    behind the restart marker that may be due: a complete picture stays as it was, since what
    follows its last block is skipped. (A last block that is cut itself, or a progressive file
    that ends between its scans and is only coarse, is accepted.)
    """
    width, height = image.size
    corner = image.crop((width - 1, height - 1, width, height))
    last = np.asarray(corner.convert("L") if image.mode == "RGB" else corner)
    if (np.abs(last - 127.5) > 2).any():
        return True
    end = data.rfind(b"\xff\xd9")
    restarts = [data.rfind(bytes([0xFF, 0xD0 + number]), 0, end) for number in range(8)]
    due = (restarts.index(max(restarts)) + 1) % 8 if max(restarts) >= 0 else 0
    noise = bytes(range(1, 251))
    # Without the bytes 0xFF that may fill up before a marker: with the noise they would be one.
    noisy_data = data[:end].rstrip(b"\xff") + noise + bytes([0xFF, 0xD0 + due]) + noise
    with JpegImageFile(BytesIO(noisy_data + data[end:])) as noisy:
        return ImageChops.difference(image, noisy).getbbox() is None


def _rgb(image: ImageFile, data: bytes) -> NDArray[np.uint8]:
    """The pixels of a decoded image as uint8 height × width × 3, as decode states."""
    key = image.info.get("transparency")
    depth = data[24] if isinstance(image, PngImageFile) else 8
    if image.mode.startswith("I"):  # 16-bit grey, which convert would saturate
        wide = np.asarray(image)
        grey = (wide >> 8).astype(np.uint8)
        if key is not None:
            grey[wide == key] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "CMYK" and "adobe" not in image.info:
        return np.array(ImageChops.invert(image).convert("RGB"))  # Pillow took it as inverted
    if key is not None and image.mode in ("1", "L", "RGB"):
        pixels = np.array(image.convert("RGB"))
        if image.mode == "L":
            key = key * 255 // (2**depth - 1)  # in the file's bits; the pixels are scaled to 8
        elif depth == 16:
            key = tuple(k >> 8 for k in key)  # the low bytes are gone: neighbours match too
        pixels[(pixels == key).all(axis=2)] = 255
        return pixels
    if image.mode in ("LA", "PA", "RGBA") or key is not None:
        layered = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layered.convert("RGB"), mask=layered.getchannel("A"))
        return np.array(paper)
    return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes a network's input: resize, crop the centre, normalize.

    Attributes:
        resize_shorter_side_px: What the photo's shorter side is resized to before the centre is
            cropped; at least height_px and width_px. 0: nothing is cropped, the whole photo is
            stretched to the input.
        height_px: Height of the input, at least 1.
        width_px: Width of the input, at least 1.
        interpolation: How pixels are interpolated; antialiased both ways.
        mean: Subtracted from each channel, on a scale of 0 to 1.
        std: Each channel is divided by it, on a scale of 0 to 1; more than 0.
    """

    resize_shorter_side_px: int
    height_px: int
    width_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        shorter, longest = self.resize_shorter_side_px, max(self.height_px, self.width_px)
        if min(self.height_px, self.width_px) < 1:
            raise ValueError(f"an input of {self.width_px} × {self.height_px} px has no pixels")
        if shorter != 0 and shorter < longest:
            raise ValueError(
                f"resize_shorter_side_px is {shorter}; to crop {longest} px from it, it must be"
                f" at least {longest} (or 0, to stretch the photo)"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; every channel must be more than 0")

    def apply(self, photo: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The network's input from a photo.

        The pixels are those of resizing the whole photo in Pillow, across and then down, and
        cropping then, by torchvision's rounding. Only the part that is kept is resized, with
        the neighbours that the filter reads beyond its edge; its filter weights round
        differently, which moves a value by 2 of 255 at most. What must be widened and lowered is
        resized down first, so that no photo, however long, makes a giant in between.

        Args:
            photo: uint8 height × width × 3, RGB, upright.

        Returns:
            float64 3 × height_px × width_px: (value / 255 - mean) / std.
        """
        height, width = photo.shape[:2]
        x, y, across, down = self.input_box(width, height)
        # The filter reads up to 2 px (bicubic) of the coarser of both grids beyond the box.
        pad_x, pad_y = (
            2 * max(1.0, seen / size) + 1
            for seen, size in ((across, self.width_px), (down, self.height_px))
        )
        left, top = max(0, floor(x - pad_x)), max(0, floor(y - pad_y))
        right, bottom = ceil(x + across + pad_x), ceil(y + down + pad_y)
        part = Image.fromarray(photo[top:bottom, left:right])
        passes = [(0, self.width_px, x - left, across), (1, self.height_px, y - top, down)]
        if across < self.width_px and down > self.height_px:
            passes.reverse()
        for axis, size_px, start, length in passes:
            part = _resize_axis(part, axis, size_px, start, length, self.interpolation)
        return self.normalize(np.asarray(part))

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The input that pixels of its size are.

        Args:
            pixels: uint8 height_px × width_px × 3, RGB.

        Returns:
            float64 3 × height_px × width_px: (value / 255 - mean) / std.
        """
        values = pixels.astype(np.float64) / 255
        return np.ascontiguousarray(((values - self.mean) / self.std).transpose(2, 0, 1))

    def input_box(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """The part of a photo that the network sees.

        Args:
            width_px: Width of the upright photo.
            height_px: Its height.

        Returns:
            Left edge, top edge, width and height, in the photo's pixels.
        """
        if self.resize_shorter_side_px == 0:
            return 0.0, 0.0, float(width_px), float(height_px)
        # As torchvision: the longer side is rounded down, the crop's corner to nearest (half to
        # even).
        shorter = min(width_px, height_px)
        resized_width, resized_height = (
            self.resize_shorter_side_px * side // shorter for side in (width_px, height_px)
        )
        left = round((resized_width - self.width_px) / 2)
        top = round((resized_height - self.height_px) / 2)
        scale_x, scale_y = width_px / resized_width, height_px / resized_height
        return left * scale_x, top * scale_y, self.width_px * scale_x, self.height_px * scale_y

    def unnormalize(self, x: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The picture of an input: what normalization made of a photo, undone.

        Args:
            x: 3 × height × width, normalized and finite.

        Returns:
            uint8 height × width × 3, RGB; rounded to nearest, clipped to 0 and 255.
        """
        values = x.transpose(1, 2, 0).astype(np.float64) * self.std + self.mean
        return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def _resize_axis(
    image: Image.Image,
    axis: int,
    size_px: int,
    start: float,
    length: float,
    interpolation: Literal["bilinear", "bicubic"],
) -> Image.Image:
    """Resizes a stretch of one axis (0 across, 1 down) to size_px; the other stays.

    With both axes in one call, Pillow chooses which comes first, from version 13 on another than
    before; that moves pixels, since what lies between is rounded and clipped to 8 bits.
    """
    resampling = Image.Resampling[interpolation.upper()]
    stop = min(start + length, image.size[axis])
    if axis == 0:
        return image.resize((size_px, image.height), resampling, (start, 0, stop, image.height))
    return image.resize((image.width, size_px), resampling, (0, start, image.width, stop))


def thumbnail_size(width_px: int, height_px: int, longest_side_px: int) -> tuple[int, int]:
    """Width and height of a photo's thumbnail."""
    scale = min(1.0, longest_side_px / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def thumbnail(photo: NDArray[np.uint8], longest_side_px: int) -> NDArray[np.uint8]:
    """A photo with its longest side reduced to longest_side_px; a smaller one as it is.

    Args:
        photo: uint8 height × width × 3.
        longest_side_px: At least 1.

    Returns:
        uint8 height × width × 3; the shorter side is rounded to nearest, at least 1.
    """
    height, width = photo.shape[:2]
    size = thumbnail_size(width, height, longest_side_px)
    if size == (width, height):
        return photo
    # A reducing gap of 3 first averages whole pixels: faster, and not told from the full filter.
    return np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS, reducing_gap=3))
