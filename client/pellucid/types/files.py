"""Image files: their formats by name, and their contents."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArgument

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a rendering, "jpeg" or "png", by the name of its file.

    Raises:
        BadArgument: The name ends in neither .jpg, .jpeg nor .png.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise BadArgument(f"{os.fspath(path)}: must end with {', '.join(FORMATS)}")
    return FORMATS[suffix.lower()]


def opened(encoded: bytes) -> "Image":
    """A file's bytes as a PIL image, decoded."""
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image
