"""Where a request's image comes from, and what it becomes: an input and a canvas."""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from . import photos
from .engine.job import Source
from .errors import InvalidArgument, Violation
from .models.registry import Model

Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels."""


@dataclass(frozen=True)
class Loaded:
    """A decoded image.

    Attributes:
        input: 3×H×W, float, what the network gets.
        canvas: uint8 H×W×3: the upright photo to draw on, not larger than was asked for; None
            where nothing is drawn.
        input_box: The part of the photo that the network sees, in the photo's pixels.
        photo_size: Width and height of the upright photo in pixels.
    """

    input: Tensor
    canvas: NDArray[np.uint8] | None
    input_box: Box
    photo_size: tuple[int, int]


@dataclass(frozen=True)
class EncodedPhoto:
    """A JPEG, PNG or WebP file; field is what the request calls it."""

    data: bytes
    max_pixels: int
    canvas_px: int | None
    header: photos.Header
    field: str = "image"

    @property
    def byte_count(self) -> int:
        width_px, height_px = self.header.width_px, self.header.height_px
        return len(self.data) + _canvas_bytes(width_px, height_px, self.canvas_px)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def decoded(self) -> NDArray[np.uint8]:
        """The upright photo, H×W×3.

        Raises:
            InvalidArgument: It is damaged.
        """
        try:
            return photos.decode(self.data, max_pixels=self.max_pixels)
        except photos.BadPhoto as error:
            found = Violation(f"{self.field}.encoded", str(error))
            raise InvalidArgument(f"{found.field}: {error}", violations=[found]) from None

    def load(self, model: Model) -> Loaded:
        return _from_photo(self.decoded(), model, self.canvas_px)


@dataclass(frozen=True, eq=False)
class ArrayPhoto:
    """A photo as uint8 H×W×3."""

    photo: NDArray[np.uint8]
    canvas_px: int | None

    @property
    def byte_count(self) -> int:
        height_px, width_px = self.photo.shape[:2]
        return self.photo.nbytes + _canvas_bytes(width_px, height_px, self.canvas_px)

    @cached_property
    def sha256(self) -> str:
        return _sha256(self.photo)

    def decoded(self) -> NDArray[np.uint8]:
        """As it is."""
        return self.photo

    def load(self, model: Model) -> Loaded:
        return _from_photo(self.photo, model, self.canvas_px)


@dataclass(frozen=True, eq=False)
class PreparedInput:
    """An input that the caller has already preprocessed, float 3×H×W."""

    array: NDArray[np.floating]
    canvas_px: int | None

    @property
    def byte_count(self) -> int:
        height_px, width_px = self.array.shape[1:]
        return self.array.nbytes + _canvas_bytes(width_px, height_px, self.canvas_px)

    @cached_property
    def sha256(self) -> str:
        return _sha256(self.array)

    def load(self, model: Model) -> Loaded:
        height_px, width_px = self.array.shape[1:]
        canvas = None
        if self.canvas_px is not None:
            picture = model.preprocessing.unnormalize(self.array)
            canvas = photos.thumbnail(picture, self.canvas_px)
        return Loaded(
            input=torch.tensor(self.array),
            canvas=canvas,
            input_box=(0.0, 0.0, float(width_px), float(height_px)),
            photo_size=(width_px, height_px),
        )


Decodable = EncodedPhoto | ArrayPhoto
PhotoSource = Decodable | PreparedInput


class Kept:
    """A source that is loaded once, for jobs that follow one another.

    Args:
        source: Where the image comes from.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._loaded: Any = None

    @property
    def byte_count(self) -> int:
        return self._source.byte_count

    @property
    def sha256(self) -> str:
        return self._source.sha256

    def load(self, model: Model) -> Any:
        if self._loaded is None:
            self._loaded = self._source.load(model)
        return self._loaded


@dataclass(frozen=True)
class Photos:
    """Several photos, or none, as inputs of one size, which may be another than the network's.

    Attributes:
        sources: What is loaded, in order.
        size: Height and width of the inputs.
    """

    sources: tuple[PhotoSource, ...]
    size: tuple[int, int]

    @property
    def byte_count(self) -> int:
        inputs = len(self.sources) * math.prod(self.size) * 3 * 8
        return inputs + sum(source.byte_count for source in self.sources)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256("".join(s.sha256 for s in self.sources).encode()).hexdigest()

    def load(self, model: Model) -> Loaded:
        """An input of n×3×H×W."""
        loaded = [source.load(self._at_size(model, source)).input for source in self.sources]
        shape = (0, 3, *self.size)
        inputs = torch.stack(loaded) if loaded else torch.zeros(shape)
        return Loaded(inputs, None, (0.0, 0.0, 0.0, 0.0), (0, 0))

    def _at_size(self, model: Model, source: PhotoSource) -> Model:
        """The model as its preprocessing is for the size."""
        own, (height_px, width_px) = model.preprocessing, self.size
        if (own.height_px, own.width_px) == self.size or isinstance(source, PreparedInput):
            return model
        if isinstance(source, EncodedPhoto):
            photo_width_px, photo_height_px = source.header.width_px, source.header.height_px
        else:
            photo_height_px, photo_width_px = source.photo.shape[:2]
        other_px = abs(photo_width_px * height_px / photo_height_px - width_px)
        shorter_px = 0  # stretched
        if other_px > _SAME_PROPORTIONS_PX:
            shorter_px = max(self.size)
        steps = replace(
            own, height_px=height_px, width_px=width_px, resize_shorter_side_px=shorter_px
        )
        return replace(model, preprocessing=steps)


@dataclass(frozen=True)
class Pictures:
    """Photos of a size each, as one row of numbers; whole ones, stretched to it.

    Attributes:
        sources: What is loaded, in order.
        sizes: Height and width of each input.
        cropped: Which of them is cropped before, to its middle in the proportions of its size.
    """

    sources: tuple[Decodable, ...]
    sizes: tuple[tuple[int, int], ...]
    cropped: int | None = None

    @property
    def byte_count(self) -> int:
        inputs = 3 * 8 * sum(map(math.prod, self.sizes))
        return inputs + sum(source.byte_count for source in self.sources)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256("".join(s.sha256 for s in self.sources).encode()).hexdigest()

    def load(self, model: Model) -> Loaded:
        """An input of all numbers of the first, 3×H×W, then those of the next."""
        inputs: list[Tensor] = []
        for place, (source, size) in enumerate(zip(self.sources, self.sizes, strict=True)):
            photo = source.decoded()
            if place == self.cropped:
                photo = _middle(photo, size)
            steps = replace(
                model.preprocessing, height_px=size[0], width_px=size[1], resize_shorter_side_px=0
            )
            inputs.append(torch.from_numpy(steps.apply(photo)).flatten())
        return Loaded(torch.cat(inputs), None, (0.0, 0.0, 0.0, 0.0), (0, 0))


@dataclass(frozen=True)
class PlainPhoto:
    """A photo as numbers from 0 to 1, and a mask of it.

    Attributes:
        photo: It.
        mask: White where the mask is 1; of the photo's size.
        size: Height and width of the input.
    """

    photo: Decodable
    mask: Decodable | None
    size: tuple[int, int]

    @property
    def _parts(self) -> list[Decodable]:
        return [self.photo] if self.mask is None else [self.photo, self.mask]

    @property
    def byte_count(self) -> int:
        inputs = len(self._parts) * math.prod(self.size) * 3 * 4
        return inputs + sum(part.byte_count for part in self._parts)

    @cached_property
    def sha256(self) -> str:
        return self.photo.sha256

    def load(self, _: object) -> Loaded:
        """An input of 3×H×W, or of 4×H×W: the mask is the fourth channel.

        Raises:
            InvalidArgument: One cannot be decoded, or nothing of the mask is white.
        """
        channels = [self._resized(part.decoded()) for part in self._parts]
        for mask in channels[1:]:
            if not mask.any():
                found = Violation("mask", "is black everywhere: it leaves no place for the style")
                raise InvalidArgument(f"mask: {found.description}", violations=[found])
            channels[1] = mask.mean(0, keepdim=True)
        return Loaded(torch.cat(channels), None, (0.0, 0.0, 0.0, 0.0), (0, 0))

    def _resized(self, photo: NDArray[np.uint8]) -> Tensor:
        height_px, width_px = self.size
        if photo.shape[:2] != self.size:
            picture = Image.fromarray(photo)
            size = (width_px, height_px)
            photo = np.asarray(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3))
        return torch.from_numpy(photo.transpose(2, 0, 1).astype(np.float32) / 255)


@dataclass(frozen=True)
class Nothing:
    """Of a request whose method brings its own pictures."""

    byte_count: ClassVar[int] = 0
    sha256: ClassVar[str] = hashlib.sha256().hexdigest()

    def load(self, _: object) -> Loaded:
        """No numbers."""
        return Loaded(torch.zeros(0), None, (0.0, 0.0, 0.0, 0.0), (0, 0))


@dataclass(frozen=True)
class PhotoSet:
    """Many photos, which are decoded when they are needed, at the network's own size.

    Attributes:
        sources: The photos; none is preprocessed already.
        size: Height and width of the network's input.
    """

    sources: tuple[PhotoSource, ...]
    size: tuple[int, int]

    @property
    def photo_count(self) -> int:
        return len(self.sources)

    @property
    def byte_count(self) -> int:
        decoded = len(self.sources) * math.prod(self.size) * 3
        return decoded + sum(source.byte_count for source in self.sources)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256("".join(s.sha256 for s in self.sources).encode()).hexdigest()

    def load(self, model: Model) -> Loaded:
        """Nothing yet."""
        return Loaded(torch.zeros(0, 3, *self.size), None, (0.0, 0.0, 0.0, 0.0), (0, 0))

    def decode(self, model: Model, start: int, stop: int) -> Tensor:
        """Photos as the network sees them, uint8 n×3×H×W. Called in a worker.

        Raises:
            InvalidArgument: One cannot be decoded; it is named by its place.
        """
        seen = [
            model.preprocessing.unnormalize(source.load(model).input.numpy())
            for source in self.sources[start:stop]
        ]
        return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).contiguous()


_SAME_PROPORTIONS_PX = 2.0
"""A photo that is so much wider or narrower at an input's height is stretched to it."""


def _middle(photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """As much of a photo as has the proportions of a size."""
    height, width = photo.shape[:2]
    tall = min(height, max(1, round(width * size[0] / size[1])))
    wide = min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - tall) // 2, (width - wide) // 2
    return photo[top : top + tall, left : left + wide]


def _sha256(array: NDArray[Any]) -> str:
    """Of a tensor's type and shape in a line, such as "uint8 300 451 3", and of its bytes."""
    line = " ".join(map(str, (array.dtype.name, *array.shape)))
    return hashlib.sha256(f"{line}\n".encode() + array.tobytes()).hexdigest()


def _canvas_bytes(width_px: int, height_px: int, canvas_px: int | None) -> int:
    """What a photo takes as a canvas: nothing where nothing is drawn."""
    if canvas_px is None:
        return 0
    return math.prod(photos.thumbnail_size(width_px, height_px, canvas_px)) * 3


def _from_photo(photo: NDArray[np.uint8], model: Model, canvas_px: int | None) -> Loaded:
    height_px, width_px = photo.shape[:2]
    return Loaded(
        input=torch.from_numpy(model.preprocessing.apply(photo)),
        canvas=None if canvas_px is None else photos.thumbnail(photo, canvas_px),
        input_box=model.preprocessing.input_box(width_px, height_px),
        photo_size=(width_px, height_px),
    )
