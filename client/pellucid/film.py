"""Films of pictures, as GIF or MP4: what an image looked like on its way.

Needs imageio: pip install 'pellucid[video]'.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadArgument

try:
    import av as _av  # noqa: F401 - imageio's plugin asks for it when it is too late
    import imageio.v3 as imageio
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "videos need imageio: pip install 'pellucid[video]'", name="imageio"
    ) from None

if TYPE_CHECKING:
    from PIL.Image import Image

FRAME_MS = 80
"""How long each picture is shown."""

_FORMATS: dict[str, dict[str, Any]] = {
    ".gif": {"plugin": "pillow", "duration": FRAME_MS, "loop": 0},
    ".mp4": {
        "plugin": "pyav",
        "codec": "h264",
        "out_pixel_format": "yuv420p",
        "fps": 1000 / FRAME_MS,
    },
}


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises BadArgument where a film cannot be written to a file of this name."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise BadArgument(f"{os.fspath(path)}: must end with {', '.join(_FORMATS)}")


def write_film(path: str | os.PathLike[str], pictures: Sequence["Image"]) -> None:
    """Writes pictures one after another, each as large as the last.

    An MP4 is h264 in yuv420p, which every player plays: its sides are even, an odd last row or
    column is left out.

    Raises:
        BadArgument: The name of the file ends otherwise.
        OSError: The file cannot be written.
    """
    check_name(path)
    suffix = Path(path).suffix.lower()
    width_px, height_px = pictures[-1].size
    frames = np.stack(
        [np.asarray(one.convert("RGB").resize((width_px, height_px))) for one in pictures]
    )
    if suffix == ".mp4":
        frames = frames[:, : height_px // 2 * 2, : width_px // 2 * 2]
    imageio.imwrite(Path(path), frames, extension=suffix, **_FORMATS[suffix])
