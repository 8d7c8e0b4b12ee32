"""Stylized video: what goes in, and what comes of each frame."""

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import StatusError
from .optimizing import AsyncCourse, Course
from .types import Photo, opened

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class StylizedFrame:
    """A frame in the style of paintings, or why it is not.

    Attributes:
        index: Of the frame that it was made of, from 0.
        timestamp_ms: As it was sent; 0 where none was.
        encoded: The file, where frames come back as JPEG; None where they do not.
        error: Why it failed; None where it did not.
        dropped_count: Frames of the stream that were dropped so far.
        taken_ms: From its arrival at the server to its leaving.
    """

    index: int
    timestamp_ms: float
    encoded: bytes | None = field(repr=False)
    error: StatusError | None
    dropped_count: int
    taken_ms: float
    _raw: NDArray[np.uint8] | None = field(repr=False, default=None)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """Red, green and blue, height × width × 3.

        Raises:
            StatusError: The frame failed.
        """
        return np.asarray(self.image) if self._raw is None else self._raw

    @cached_property
    def image(self) -> "Image":
        """As a PIL image.

        Raises:
            StatusError: The frame failed.
        """
        if self.error is not None:
            raise self.error
        if self.encoded is not None:
            return opened(self.encoded)
        from PIL import Image

        assert self._raw is not None
        return Image.fromarray(self._raw)


@dataclass(frozen=True)
class VideoSummary:
    """What became of all frames: received = stylized + dropped + failed.

    Attributes:
        received_count: Frames that came to the server.
        stylized_count: Frames that were stylized.
        dropped_count: Frames that were dropped.
        failed_count: Frames that failed.
        most_waiting_count: How many waited at once, at most.
    """

    received_count: int
    stylized_count: int
    dropped_count: int
    failed_count: int
    most_waiting_count: int


Frames: TypeAlias = "Iterable[Photo | tuple[Photo, float]]"
AsyncFrames: TypeAlias = "Frames | AsyncIterable[Photo | tuple[Photo, float]]"
StylizedVideo: TypeAlias = Course[StylizedFrame, VideoSummary]
AsyncStylizedVideo: TypeAlias = AsyncCourse[StylizedFrame, VideoSummary]
