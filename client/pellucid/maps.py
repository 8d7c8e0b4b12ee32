"""Maps of photos, or of codes: on them, what is alike lies close by."""

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import BadArgument
from .optimizing import AsyncCourse, Course
from .types import Run


@dataclass(frozen=True)
class MapProgress:
    """How far a map is.

    Attributes:
        stage: What is being done: receive or embed, queue, reduce, neighbors, optimize, assign.
        step: Steps of the stage that are done.
        step_count: Steps of the stage; 0 where that is not known.
        divergence: Of optimize: the Kullback-Leibler divergence so far; 0 elsewhere.
    """

    stage: str
    step: int
    step_count: int
    divergence: float


@dataclass(frozen=True, eq=False)
class CodeMap:
    """A map, or where new points lie on one.

    Attributes:
        points: Where each lies, across and up, float32 n × 2; of new points alone where they were
            placed on a map.
        places: Row, from the top, and column of each on a grid, int64 n × 2; None where no grid
            was asked for.
        grid_shape: Rows and columns of the grid; (0, 0) where none was asked for.
        codes: What photos became, float32 n × numbers; None where codes were sent, and where they
            were too large to be sent back.
        parameters: Every parameter, filled in.
        kept_variance: The share of the codes' variance that the reduction left, 0 to 1.
        divergence: Of t-SNE, at its end.
        notes: What is worth knowing, for example that codes were equal.
        run: What photos' codes were computed by; None where codes were sent.
    """

    points: NDArray[np.float32]
    places: NDArray[np.int64] | None
    grid_shape: tuple[int, int]
    codes: NDArray[np.float32] | None = field(repr=False)
    parameters: Mapping[str, Any] = field(repr=False)
    kept_variance: float
    divergence: float
    notes: tuple[str, ...]
    run: Run | None = field(repr=False)


Projection: TypeAlias = Course[MapProgress, CodeMap]
AsyncProjection: TypeAlias = AsyncCourse[MapProgress, CodeMap]


@dataclass(frozen=True, eq=False)
class SavedMap:
    """A map as a file has it, which new points are placed on.

    Attributes:
        codes: n × numbers.
        points: n × 2.
        names: Of each point; empty strings where they have none.
        parameters: What it was made with.
        model_version: Of the model that made codes of photos; empty where codes were sent.
    """

    codes: NDArray[np.float32] = field(repr=False)
    points: NDArray[np.float32] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    parameters: Mapping[str, Any]
    model_version: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to an .npz file.

        Raises:
            BadArgument: The name of the file ends otherwise.
            OSError: The file cannot be written.
        """
        check_npz(path)
        about = {"parameters": self.parameters, "model_version": self.model_version}
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                codes=self.codes,
                points=self.points,
                names=np.array(self.names, dtype=np.str_),
                about=np.array(json.dumps(about)),
            )


def check_npz(path: str | os.PathLike[str]) -> None:
    """Refuses a name that does not end in .npz."""
    if Path(path).suffix.lower() != ".npz":
        raise BadArgument(f"{os.fspath(path)}: must end with .npz")


_BAD_FILE = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,  # encrypted, or of a kind of zip files that is not read
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises of a file that is none of its own, or is damaged."""


def load_map(path: str | os.PathLike[str]) -> SavedMap:
    """A map that SavedMap.save wrote.

    Raises:
        BadArgument: It is none.
        OSError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            codes, points, names = file["codes"], file["points"], file["names"]
            parameters, version = dict(about["parameters"]), str(about["model_version"])
        if codes.ndim != 2 or (points.shape, names.shape) != ((len(codes), 2), (len(codes),)):
            shapes = (" × ".join(map(str, array.shape)) for array in (codes, points, names))
            raise ValueError("codes, points and names are {}, {} and {}".format(*shapes))
    except _BAD_FILE as error:
        raise BadArgument(f"{os.fspath(path)}: is no map that was saved here: {error}") from None
    return SavedMap(codes, points, tuple(map(str, names)), parameters, version)


def load_codes(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Codes of the caller's own: an .npy file, or codes in an .npz file.

    Raises:
        BadArgument: It has none.
        OSError: The file cannot be read.
    """
    return _array(path, "codes")


def load_numbers(path: str | os.PathLike[str], count: int) -> NDArray[Any]:
    """A number or a word for each point: an .npy file, or a text file of a line each.

    Raises:
        BadArgument: There are not as many as points.
        OSError: The file cannot be read.
    """
    if Path(path).suffix.lower() in (".npy", ".npz"):
        found = _array(path, "values")
    else:
        lines = Path(path).read_text("utf-8").split("\n")
        words = [line.strip() for line in (lines[:-1] if not lines[-1].strip() else lines)]
        try:
            found = np.array([float(word) for word in words])
        except ValueError:
            found = np.array(words, dtype=np.str_)
    if found.shape != (count,):
        shape = " × ".join(map(str, found.shape)) or "a scalar"
        raise BadArgument(f"{os.fspath(path)}: has {shape}; must be one for each of {count} points")
    return found


def _array(path: str | os.PathLike[str], name: str) -> NDArray[Any]:
    try:
        with Path(path).open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
            if not isinstance(found, np.ndarray):
                with found:
                    only = found.files[0] if len(found.files) == 1 else name
                    found = found[only]
    except _BAD_FILE as error:
        raise BadArgument(f"{os.fspath(path)}: has no array {name!r}: {error}") from None
    array: NDArray[Any] = found
    return array


Onto: TypeAlias = "SavedMap | tuple[NDArray[Any], NDArray[Any]]"
"""A map, or the codes and the points of one."""

Many: TypeAlias = "Sequence[Any] | NDArray[Any]"
"""Photos, or codes as an array of n × numbers."""
