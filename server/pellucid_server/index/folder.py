"""The folder of a finished index: written once, then only read.

manifest.json   what it is, and checksums of the others; written last
index.sqlite    photos with their pictures, failures, units with histograms, patches
codes.npy       float32 photos × numbers
"""

import hashlib
import io
import json
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.fields import Field
from ..models.registry import Model
from .manifest import (
    CODES_FILE,
    FORMAT,
    INDEX_FILE,
    MANIFEST_FILE,
    BadIndex,
    read_manifest,
    version_of,
)
from .progress import PROGRESS_FILE, Progress

_SCHEMA = """
CREATE TABLE photos (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, picture BLOB NOT NULL
);
CREATE TABLE failures (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE units (
    layer TEXT, channel INTEGER, edges TEXT NOT NULL, counts TEXT NOT NULL,
    PRIMARY KEY (layer, channel)
) WITHOUT ROWID;
CREATE TABLE patches (
    layer TEXT, channel INTEGER, rank INTEGER, photo INTEGER NOT NULL REFERENCES photos(id),
    activation REAL NOT NULL, y INTEGER NOT NULL, x INTEGER NOT NULL,
    top INTEGER NOT NULL, "left" INTEGER NOT NULL, bottom INTEGER NOT NULL,
    "right" INTEGER NOT NULL,
    PRIMARY KEY (layer, channel, rank)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Patch:
    """A part of a photo that excites a unit.

    Attributes:
        photo: The photo's number.
        name: Its name.
        sha256: Of its file.
        activation: The largest of the unit's map.
        y: The row of the place; 0 where the layer has none.
        x: The column.
        box: Top, left, bottom and right of its receptive field, pixels of the network's input.
    """

    photo: int
    name: str
    sha256: str
    activation: float
    y: int
    x: int
    box: tuple[int, ...]


@dataclass(frozen=True)
class Neighbor:
    """A photo that is alike.

    Attributes:
        photo: Its number.
        name: Its name.
        sha256: Of its file.
        similarity: The cosine of the codes' angle.
    """

    photo: int
    name: str
    sha256: str
    similarity: float


def publish(folder: Path, progress: Progress, about: Mapping[str, Any], model: Model) -> None:
    """Makes the finished index of one in the making, which is gone then.

    Args:
        folder: Where both are.
        progress: What is finished.
        about: What the manifest says besides.
        model: Whose layers it is of.
    """
    fields = model.network.fields
    with closing(_new(folder / INDEX_FILE)) as file, _Codes(folder / CODES_FILE, about) as codes:
        for number, name, sha256, picture, code in progress.photos():
            file.execute("INSERT INTO photos VALUES (?, ?, ?, ?)", (number, name, sha256, picture))
            codes.add(code)
        failures = progress.failures()
        file.executemany("INSERT INTO failures VALUES (?, ?, ?)", failures)
        start = 0
        for layer in about["layers"]:
            _write_layer(file, layer, start, progress, fields[layer["name"]])
            start += layer["channel_count"]
        file.commit()
    for name in (INDEX_FILE, CODES_FILE):
        _partial(folder / name).replace(folder / name)
    content = {
        "format": FORMAT,
        **about,
        "photo_count": progress.photo_count,
        "failed_count": len(failures),
        "files": {name: sha256_of(folder / name) for name in (INDEX_FILE, CODES_FILE)},
    }
    content["version"] = version_of(content)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    _write_durably(folder / MANIFEST_FILE, text.encode())
    progress.close()
    tidy(folder)


def tidy(folder: Path) -> None:
    """Removes what a finished index was made from."""
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{PROGRESS_FILE}{suffix}").unlink(missing_ok=True)


class Index:
    """A finished index, for any number of threads. Nothing of it is ever written.

    Args:
        folder: Where it is.

    Raises:
        BadIndex: It is half-written, or was changed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = read_manifest(folder)
        for name, sha256 in self.about["files"].items():
            try:
                same = sha256_of(folder / name) == sha256
            except OSError as error:
                raise BadIndex(f"{name} cannot be read: {error.strerror}") from None
            if not same:
                raise BadIndex(f"{name} is not the file that the manifest names: it was changed")
        self._opened = threading.local()
        self._codes = self._open_codes()
        self._check_rows()
        (self._most_kept,) = self._file.execute(
            "SELECT max(length(picture)) FROM photos"
        ).fetchone()
        # All codes at length 1, in memory: exact, and 6 ms a question for ten thousand photos.
        self._neighbors = faiss.IndexFlatIP(self._codes.shape[1])
        for start in range(0, len(self._codes), 4096):
            self._neighbors.add(_normalized(self._codes[start : start + 4096]))

    def _open_codes(self) -> NDArray[np.float32]:
        """Raises BadIndex where they are not a row of so many numbers for each photo."""
        shape = (self.photo_count, int(self.about["code_length"]))
        try:
            codes: NDArray[np.float32] = np.lib.format.open_memmap(
                self.folder / CODES_FILE, mode="r"
            )
        except (OSError, ValueError) as error:
            raise BadIndex(f"{CODES_FILE} cannot be read: {error}") from None
        if codes.shape != shape or codes.dtype != np.dtype("<f4"):
            raise BadIndex(f"{CODES_FILE} is {codes.dtype} {codes.shape}, not float32 {shape}")
        return codes

    def _check_rows(self) -> None:
        """Raises BadIndex where the tables are not those of as many photos and units."""
        wanted = {
            "photos": self.photo_count,
            "failures": int(self.about["failed_count"]),
            "units": int(self.about["channel_count"]),
        }
        try:
            counts = self._file.execute(
                "SELECT (SELECT count(*) FROM photos), (SELECT count(*) FROM failures), "
                "(SELECT count(*) FROM units)"
            ).fetchone()
        except sqlite3.Error as error:
            raise BadIndex(f"{INDEX_FILE} cannot be read: {error}") from None
        for (table, count), found in zip(wanted.items(), counts, strict=True):
            if found != count:
                raise BadIndex(f"{INDEX_FILE} has {found} {table}, not {count}")

    @property
    def model(self) -> str:
        """The name of the model that it was made with."""
        return str(self.about["model"])

    @property
    def model_version(self) -> str:
        return str(self.about["model_version"])

    @property
    def version(self) -> str:
        return str(self.about["version"])

    @property
    def photo_count(self) -> int:
        return int(self.about["photo_count"])

    @property
    def top_k(self) -> int:
        """How many patches of a unit it keeps."""
        return int(self.about["top_k"])

    @property
    def code_layer(self) -> str:
        return str(self.about["code_layer"])

    @property
    def channel_counts(self) -> Mapping[str, int]:
        """By layer."""
        return {layer["name"]: layer["channel_count"] for layer in self.about["layers"]}

    def files(self) -> Mapping[str, str]:
        """The SHA-256 of every file that it was made from, by name, what failed among them."""
        return dict(
            self._file.execute(
                "SELECT name, sha256 FROM photos UNION ALL SELECT name, sha256 FROM failures"
            )
        )

    def failures(self) -> Sequence[tuple[str, str]]:
        """Names of what could not be used, and why."""
        return list(self._file.execute("SELECT name, reason FROM failures ORDER BY name"))

    def patches(self, layer: str, channel: int, count: int) -> Sequence[Patch]:
        """The best of a unit, no two of one photo."""
        found = self._file.execute(
            'SELECT photo, name, sha256, activation, y, x, top, "left", bottom, "right" '
            "FROM patches JOIN photos ON photos.id = photo "
            "WHERE layer = ? AND channel = ? AND rank < ? ORDER BY rank",
            (layer, channel, count),
        )
        return [
            Patch(photo, name, sha256, activation, y, x, tuple(box))
            for photo, name, sha256, activation, y, x, *box in found
        ]

    def histogram(self, layer: str, channel: int) -> tuple[Sequence[float], Sequence[int]]:
        """Edges of bins, and how many photos' largest activation lies in each."""
        row = self._file.execute(
            "SELECT edges, counts FROM units WHERE layer = ? AND channel = ?", (layer, channel)
        ).fetchone()
        return json.loads(row[0]), json.loads(row[1])

    def picture(self, photo: int) -> bytes:
        """The network's input of a photo, as a JPEG or WebP file."""
        (data,) = self._file.execute("SELECT picture FROM photos WHERE id = ?", (photo,)).fetchone()
        return bytes(data)

    @property
    def most_picture_bytes(self) -> int:
        """Of a photo as it is sent: a JPEG as it is kept, or a PNG, which may need all pixels."""
        if self.about["picture_format"] == "jpeg":
            return int(self._most_kept)
        steps = self.about["preprocessing"]
        return int(3 * steps["height_px"] * steps["width_px"])

    def pixels(self, photo: int) -> NDArray[np.uint8]:
        """The same as uint8 height × width × 3."""
        return np.array(Image.open(io.BytesIO(self.picture(photo))).convert("RGB"))

    def code(self, photo: int) -> NDArray[np.float32]:
        return np.array(self._codes[photo])

    def nearest(self, code: NDArray[np.float32], count: int) -> Sequence[Neighbor]:
        """The photos whose codes are at the smallest angles to a code, the nearest first."""
        count = min(count, self.photo_count)
        similarities, numbers = self._neighbors.search(_normalized(code[None]), count)
        found = []
        for photo, similarity in zip(numbers[0].tolist(), similarities[0].tolist(), strict=True):
            name, sha256 = self._file.execute(
                "SELECT name, sha256 FROM photos WHERE id = ?", (photo,)
            ).fetchone()
            found.append(Neighbor(photo, name, sha256, max(-1.0, min(1.0, similarity))))
        return found

    @property
    def _file(self) -> sqlite3.Connection:
        """One a thread. Immutable: no lock is taken, so that the folder may be read-only."""
        if not hasattr(self._opened, "file"):
            path = (self.folder / INDEX_FILE).absolute().as_uri()
            self._opened.file = sqlite3.connect(f"{path}?mode=ro&immutable=1", uri=True)
        file: sqlite3.Connection = self._opened.file
        return file


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Codes:
    """An .npy file of so many numbers a row, which is written row by row.

    Args:
        path: Of the file.
        about: Says how many numbers.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._length = about["code_length"]
        self._file = _partial(path).open("wb")
        self._count = 0

    def __enter__(self) -> "_Codes":
        self._write_header()
        return self

    def add(self, code: NDArray[np.float32]) -> None:
        assert code.shape == (self._length,)
        self._file.write(code.tobytes())
        self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()  # padded, so that a larger count takes no more room
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        shape = (self._count, self._length)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _write_layer(
    file: sqlite3.Connection,
    layer: Mapping[str, Any],
    start: int,
    progress: Progress,
    field: Field,
) -> None:
    """The units and patches of a layer, whose first channel is the tally's one at start."""
    tally, name, width = progress.tally, layer["name"], layer["width"]
    has_places = layer["height"] > 0
    for channel in range(layer["channel_count"]):
        row = start + channel
        edges, counts = tally.histogram(row)
        unit = (name, channel, json.dumps(edges.tolist()), json.dumps(counts.tolist()))
        file.execute("INSERT INTO units VALUES (?, ?, ?, ?)", unit)
        patches = []
        for rank, photo in enumerate(tally.photos[row].tolist()):
            if photo < 0:
                break
            y, x = divmod(int(tally.places[row, rank]), width) if has_places else (0, 0)
            box = field.box(y, x) if has_places else field.box(None, None)
            activation = float(tally.values[row, rank])
            patches.append((name, channel, rank, photo, activation, y, x, *box))
        file.executemany("INSERT INTO patches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", patches)


def _new(path: Path) -> sqlite3.Connection:
    """A database that is written in one go, beside where it will be."""
    partial = _partial(path)
    partial.unlink(missing_ok=True)
    file = sqlite3.connect(partial)
    file.execute("PRAGMA journal_mode=OFF")
    file.executescript(_SCHEMA)
    return file


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _write_durably(path: Path, data: bytes) -> None:
    """All of it or nothing, whatever happens meanwhile."""
    with _partial(path).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _partial(path).replace(path)


def _normalized(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """At length 1; a code of zeros stays one."""
    lengths = np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    made: NDArray[np.float32] = (codes / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return made
