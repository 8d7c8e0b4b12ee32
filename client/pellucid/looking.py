"""What an index of photos says: what excites a unit most, and which photos are alike."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from .types import Box, Run
from .types.files import format_of, opened

if TYPE_CHECKING:
    from PIL.Image import Image

_T = TypeVar("_T")

_PLACES = 3
"""Digits of numbers in captions."""


@dataclass(frozen=True)
class IndexSummary:
    """An index, in brief.

    Attributes:
        model: The model that it was made with.
        model_version: Its version.
        photo_count: Photos in it.
        version: The index's own version.
    """

    model: str
    model_version: str
    photo_count: int
    version: str


@dataclass(frozen=True)
class Patch:
    """A part of a photo that excites a unit.

    Attributes:
        photo: The photo's name in the index.
        sha256: Of its file.
        activation: The largest of the unit's map.
        y: The row of the place in the map; 0 where the layer has none.
        x: The column.
        box: The place's receptive field, in the network's input.
        encoded: That part of the input, as the bytes of a file; None where it is empty: the place
            sees padding alone.
        input_encoded: The whole input, likewise; None where it was not asked for.
    """

    photo: str
    sha256: str
    activation: float
    y: int
    x: int
    box: Box
    encoded: bytes | None = field(repr=False)
    input_encoded: bytes | None = field(repr=False)

    @cached_property
    def image(self) -> "Image | None":
        """As a PIL image."""
        return None if self.encoded is None else opened(self.encoded)

    @cached_property
    def input(self) -> "Image | None":
        """The whole input, likewise."""
        return None if self.input_encoded is None else opened(self.input_encoded)


@dataclass(frozen=True)
class TopPatches:
    """The patches that excite a unit most.

    Attributes:
        layer: The unit's layer.
        channel: Its channel.
        index: What they were found in.
        patches: Best first; no two of one photo.
        edges: Of the bins of a histogram of the unit's largest activation in each photo.
        counts: Photos in each bin.
    """

    layer: str
    channel: int
    index: IndexSummary
    patches: tuple[Patch, ...]
    edges: NDArray[np.float64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)

    def sheet(self, *, columns: int = 3, cell_px: int = 224) -> "Image":
        """The patches side by side, below each its photo and activation."""
        from . import render

        return render.contact_sheet(
            _rows([patch.image or render.blank(cell_px) for patch in self.patches], columns),
            captions=_rows(
                [f"{p.activation:.{_PLACES}g}  {p.photo}" for p in self.patches], columns
            ),
            cell_px=cell_px,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sheet to a .png or .jpg file.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        self.sheet().save(path, format_of(path), quality=95)


@dataclass(frozen=True)
class Match:
    """A photo that is alike.

    Attributes:
        photo: Its name in the index.
        sha256: Of its file.
        similarity: The cosine of the codes' angle, -1 to 1.
        encoded: The network's input, as the bytes of a file.
        query_attribution: float32 3×H×W: how the similarity changes with the image that was asked
            for, in the network's input frame; None where it was not explained.
        match_attribution: How it changes with this one.
        query_rendering: The former drawn on its image, as the bytes of a JPEG file.
        match_rendering: The latter on this one.
    """

    photo: str
    sha256: str
    similarity: float
    encoded: bytes = field(repr=False)
    query_attribution: NDArray[np.float32] | None = field(repr=False)
    match_attribution: NDArray[np.float32] | None = field(repr=False)
    query_rendering: bytes | None = field(repr=False)
    match_rendering: bytes | None = field(repr=False)

    @cached_property
    def image(self) -> "Image":
        """As a PIL image."""
        return opened(self.encoded)


@dataclass(frozen=True)
class SimilarResult:
    """The photos of an index that are most alike.

    Attributes:
        index: What they were found in.
        matches: Best first.
        run: What it was computed by.
    """

    index: IndexSummary
    matches: tuple[Match, ...]
    run: Run = field(repr=False)

    def sheet(self, *, columns: int = 3, cell_px: int = 320) -> "Image":
        """Those that are explained, each a row of pictures; then the others."""
        from . import render

        rows: list[list[Image]] = []
        captions: list[list[str]] = []
        others: list[Match] = []
        for match in self.matches:
            if match.query_rendering is None or match.match_rendering is None:
                others.append(match)
                continue
            drawn = [opened(match.query_rendering), opened(match.match_rendering), match.image]
            rows.append(drawn)
            captions.append(
                ["what in yours makes them alike", "what in the match", _caption(match)]
            )
        rows += _rows([match.image for match in others], columns)
        captions += _rows([_caption(match) for match in others], columns)
        return render.contact_sheet(rows, captions=captions, cell_px=cell_px)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sheet to a .png or .jpg file: see TopPatches.save."""
        self.sheet().save(Path(path), format_of(path), quality=95)


def _caption(match: Match) -> str:
    return f"{match.similarity:.{_PLACES}f}  {match.photo}"


def _rows(items: Sequence[_T], columns: int) -> list[list[_T]]:
    return [list(items[start : start + columns]) for start in range(0, len(items), columns)]
