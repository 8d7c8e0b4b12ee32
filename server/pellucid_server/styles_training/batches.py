"""Photos to train on: which, in what order and cut how is a function of (seed, step)."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..methods import draws
from ..photos import BadPhoto, decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_PIXELS = 40_000_000
_LEAST_SHARE = 0.5
"""Of a photo's shorter side that a crop takes."""
_AHEAD = 2
"""Batches that are decoded while the device is busy."""


class NoPhotos(ValueError):
    """A folder with nothing to train on; the message says why."""


class PhotoFolder:
    """The photos of a folder and of folders in it, by their suffixes; hidden ones are not.

    What cannot be decoded is found when it is due, since folders of a hundred thousand photos are
    usual: its place is taken by the next photo of the same order.

    Args:
        folder: Where they are.

    Attributes:
        names: Of all files, relative to the folder, sorted.
        sha256: Of their names, sizes and times of change.
        bad: Why files that were due could not be used, by their names.

    Raises:
        NoPhotos: It is no folder, or holds no such file.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NoPhotos(f"there is no folder {folder}")
        found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        self.names = sorted(
            path.as_posix()
            for path in found
            if path.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in path.parts)
        )
        if not self.names:
            raise NoPhotos(f"there is no photo in {folder}; they end with {', '.join(SUFFIXES)}")
        self._folder = folder
        self.sha256 = hashlib.sha256("".join(map(self._stated, self.names)).encode()).hexdigest()
        self.bad: dict[str, str] = {}

    def first(self, count: int, size_px: int) -> NDArray[np.uint8]:
        """The middle of the first photos that can be used, at most count: n × size × size × 3."""
        found: list[NDArray[np.uint8]] = []
        for name in self.names:
            if len(found) == count:
                break
            if (photo := self._photo(name)) is not None:
                found.append(cut(photo, size_px))
        if not found:
            raise NoPhotos(f"{self._folder}: {self._all_bad()}")
        return np.stack(found)

    def batch(self, seed: int, step: int, count: int, size_px: int) -> NDArray[np.uint8]:
        """The crops of a step, counted from 0: count × size × size × 3.

        Every photo comes once in each round of all of them, each round in an order of its own.
        A crop is a square of half to all of the shorter side, somewhere, every other time turned
        left to right.

        Raises:
            NoPhotos: None can be used.
        """
        total, crops = len(self.names), []
        chances = draws.uniform(seed, step, (count, 4)).numpy()
        for place, (share, x, y, turned) in enumerate(chances, step * count):
            round_number, first = divmod(place, total)
            order = _order(seed, round_number, total)
            following = (order[(first + more) % total] for more in range(total))
            photos = (self._photo(self.names[index]) for index in following)
            photo = next((photo for photo in photos if photo is not None), None)
            if photo is None:
                raise NoPhotos(f"{self._folder}: {self._all_bad()}")
            crop = cut(photo, size_px, _LEAST_SHARE + (1 - _LEAST_SHARE) * share, x, y)
            crops.append(crop[:, ::-1] if turned < 0.5 else crop)
        return np.stack(crops)

    def batches(
        self, seed: int, first: int, end: int, count: int, size_px: int
    ) -> Iterator[NDArray[np.uint8]]:
        """Those of steps from first up to end, decoded ahead of their use."""
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        with ThreadPoolExecutor(_AHEAD) as pool:
            try:
                for step in range(first, end + _AHEAD):
                    if step < end:
                        waiting.append(pool.submit(self.batch, seed, step, count, size_px))
                    if step >= first + _AHEAD:
                        yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _stated(self, name: str) -> str:
        status = (self._folder / name).stat()
        return f"{name}\0{status.st_size}\0{int(status.st_mtime)}\n"

    def _photo(self, name: str) -> NDArray[np.uint8] | None:
        if name in self.bad:
            return None
        try:
            return decode((self._folder / name).read_bytes(), max_pixels=MOST_PIXELS)
        except BadPhoto as error:
            self.bad[name] = str(error)
        except OSError as error:
            self.bad[name] = f"it cannot be read: {error.strerror}"
        return None

    def _all_bad(self) -> str:
        name, why = next(iter(self.bad.items()))
        return f"none of {len(self.names)} photos can be used; {name}: {why}"


def cut(
    photo: NDArray[np.uint8], size_px: int, share: float = 1.0, x: float = 0.5, y: float = 0.5
) -> NDArray[np.uint8]:
    """A square of a photo, H × W × 3, resized to size × size × 3.

    Args:
        photo: The whole.
        size_px: Of what is made.
        share: Of the shorter side, up to 1.
        x: Where it is across: 0 left, 1 right.
        y: Where it is down: 0 on top, 1 at the bottom.
    """
    height, width = photo.shape[:2]
    side = share * min(height, width)
    left, top = x * (width - side), y * (height - side)
    box = (left, top, min(left + side, width), min(top + side, height))
    square = Image.fromarray(photo).resize(
        (size_px, size_px), Image.Resampling.BICUBIC, box, reducing_gap=3
    )
    return np.array(square)


@lru_cache(maxsize=4)
def _order(seed: int, round_number: int, count: int) -> NDArray[np.int64]:
    """Of the photos in a round; of a seed of its own, since crops are drawn of (seed, step)."""
    return draws.permutation(~seed, round_number, count).numpy()
