"""The forward pass of an index: from files to each channel's largest activation, and codes."""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .. import photos
from ..engine.job import Priority
from ..engine.places import pooled
from ..engine.rows import EnergyTarget, Lane, Program, Rows, SumTarget, Target, Want
from ..models.layers import Layer
from ..models.registry import Model

JPEG_QUALITY = 95
"""Of pictures that are not lossless: 26 kB at 224 × 224 px, instead of 70 kB."""


Stamp = tuple[int, int]
"""Size and time of change in ns, which tell that a file has changed; -1 twice: it is gone."""


def stamp_of(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Read:
    """A photo that was read.

    Attributes:
        stamp: Of its file, before it was read.
        sha256: Of its file.
        picture: The network's input, un-normalized, as a JPEG or lossless WebP file.
    """

    path: Path
    stamp: Stamp
    sha256: str
    picture: bytes


@dataclass(frozen=True)
class Unread:
    """One that was not, and why.

    Attributes:
        stamp: Of its file, before it was read.
        sha256: Of its file; "" where not even that could be read.
    """

    path: Path
    stamp: Stamp
    sha256: str
    reason: str


@dataclass(frozen=True)
class LoadedFiles:
    """Decoded photos.

    Attributes:
        input: n×3×H×W, of those that were read.
        outcomes: One for each file, in order.
    """

    input: Tensor
    outcomes: tuple[Read | Unread, ...]


@dataclass(frozen=True)
class Files:
    """Photos of a folder, one batch of them; what cannot be read is an outcome, not an error."""

    paths: tuple[Path, ...]
    max_pixels: int
    lossless: bool

    def load(self, model: Model) -> LoadedFiles:
        """In a thread of its own."""
        steps = model.preprocessing
        shape = (len(self.paths), 3, steps.height_px, steps.width_px)
        inputs = torch.empty(shape, dtype=model.network.dtype)
        outcomes: list[Read | Unread] = []
        count = 0
        for path in self.paths:
            stamp = stamp_of(path)
            try:
                data = path.read_bytes()
            except OSError as error:
                outcomes.append(Unread(path, stamp, "", f"it cannot be read: {error.strerror}"))
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            try:
                photo = photos.decode(data, max_pixels=self.max_pixels)
            except photos.BadPhoto as error:
                outcomes.append(Unread(path, stamp, sha256, str(error)))
                continue
            image = steps.apply(photo)
            inputs[count] = torch.from_numpy(image)
            count += 1
            picture = encode(steps.unnormalize(image), lossless=self.lossless)
            outcomes.append(Read(path, stamp, sha256, picture))
        return LoadedFiles(inputs[:count], tuple(outcomes))


@dataclass(frozen=True)
class Decoded:
    """A batch that was read already."""

    loaded: LoadedFiles

    sha256: ClassVar[str] = ""

    @property
    def byte_count(self) -> int:
        return 0  # as many as the batches that are decoded, which are few

    def load(self, model: Model) -> LoadedFiles:
        return self.loaded


def encode(picture: NDArray[np.uint8], *, lossless: bool) -> bytes:
    """A picture as a file: WebP where no pixel may change, JPEG otherwise."""
    file = io.BytesIO()
    if lossless:
        Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=0, method=0)
    else:
        Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return file.getvalue()


@dataclass(frozen=True)
class Found:
    """What a batch of photos brought.

    Attributes:
        values: float32 n×C: the largest activation of each channel, layer after layer.
        places: int32 n×C: where in its map, row by row.
        codes: float32 n×K.
    """

    values: Tensor
    places: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Peaks:
    """One forward row a photo, for all layers.

    Attributes:
        layers: Those that are looked at.
        code_layer: The one whose pooled activation is the photo's code.
        photo_count: How many are in the batch.
    """

    layers: tuple[Layer, ...]
    code_layer: str
    photo_count: int

    name: ClassVar[str] = "index"
    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.FORWARD: self.photo_count}

    def pace(self, model: Model) -> None:
        """All of its rows can come at once."""

    def most_ms(self, model: Model, row_ms: float) -> float:
        return math.inf

    def byte_count(self, model: Model) -> int:
        return 0

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Found | None]:
        """Of n×3×H×W; nothing where no photo could be read."""
        if not len(image):
            return None
        # A score is always computed: this one asks for nothing behind the code.
        score = SumTarget(((EnergyTarget(self.code_layer), 1.0),))
        names = tuple(layer.name for layer in self.layers)
        traces = yield Rows(
            image, score, Want.ACTIVATION, layers=(self.code_layer,), peak_layers=names
        )
        first = model.network.first_place(self.code_layer)
        codes = pooled(traces.activations[self.code_layer], first)
        values = torch.cat([traces.peaks[name].float() for name in names], 1)
        places = torch.cat([traces.peak_places[name] for name in names], 1)
        return Found(values, places, codes.float())
