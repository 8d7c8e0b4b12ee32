"""Crops of the photos that scikit-image brings: a set that anybody can make again.

python -m tests.bench.crops FOLDER
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

PHOTOS = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "coffee",
    "coins",
    "colorwheel",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
)
SIDE_PX = 96


def crops(count: int, seed: int = 0) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """So many, each of a photo, in turn: the photo's name, and 96 × 96 pixels of it.

    Every crop is a square of a third to a half of the photo's shorter side.
    """
    draws = np.random.default_rng(seed)
    photos = {name: _rgb(name) for name in PHOTOS}
    for number in range(count):
        name = PHOTOS[number % len(PHOTOS)]
        photo = photos[name]
        height, width = photo.shape[:2]
        side = int(min(height, width) * draws.uniform(1 / 3, 1 / 2))
        y, x = draws.integers(height - side + 1), draws.integers(width - side + 1)
        crop = Image.fromarray(photo[y : y + side, x : x + side])
        yield name, np.asarray(crop.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def _rgb(name: str) -> NDArray[np.uint8]:
    photo = getattr(skimage.data, name)()
    if photo.ndim == 2:
        photo = np.stack([photo] * 3, 2)
    return np.ascontiguousarray(photo[:, :, :3]).astype(np.uint8)


def main(folder: Path) -> None:
    """Writes 500 of them, by photo."""
    for number, (name, crop) in enumerate(crops(500)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(folder / name / f"{number:03}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
