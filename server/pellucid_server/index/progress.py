"""An index in the making: one SQLite file, one transaction a batch.

What a batch brought is logged; every so often the tally of all batches so far takes the log's
place. A process that is killed loses the batch that it was at, and nothing else.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .peaks import Read, Unread, stamp_of
from .tally import Tally

PROGRESS_FILE = "progress.sqlite"

_BATCHES_LOGGED = 64
"""Between two tallies: of a hundred thousand channels one takes 40 MB, a batch's log 13 MB."""

_PRAGMAS = (
    "page_size=16384",  # rows are of pictures: a third of the time that pages of 4 KiB take
    "locking_mode=EXCLUSIVE",  # one process at a time
    "journal_mode=WAL",  # with the next: what is committed outlives a process however it ends
    "synchronous=NORMAL",
    "wal_autocheckpoint=2000",  # pages, 32 MB: the device waits while the disk is waited for
)

_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    name TEXT PRIMARY KEY, byte_count INTEGER NOT NULL, mtime_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE photos (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    picture BLOB NOT NULL, code BLOB NOT NULL
);
CREATE TABLE failures (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE log (
    first_photo INTEGER PRIMARY KEY, photo_count INTEGER NOT NULL,
    peaks BLOB NOT NULL, places BLOB NOT NULL
);
CREATE TABLE tally (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class Refused(ValueError):
    """What cannot be gone on with; the message says why."""


@dataclass(frozen=True)
class Brought:
    """What one batch brought.

    Attributes:
        outcomes: One for each file, in order.
        values: float32 n×C, of the photos that were read.
        places: int32 n×C.
        codes: float32 n×K.
    """

    outcomes: Sequence[Read | Unread]
    values: NDArray[np.float32]
    places: NDArray[np.int32]
    codes: NDArray[np.float32]


class Progress:
    """The file of one index, made if it is not there, and open to one process alone.

    Args:
        folder: Of the index.
        photos: The folder of the photos.
        settings: All that the result depends on besides the photos.

    Attributes:
        tally: Of all photos so far.
        photo_count: How many there are.

    Raises:
        Refused: Another process has it, or it is of other settings.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, photos: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._photos = photos
        self._file = sqlite3.connect(folder / PROGRESS_FILE, timeout=0, isolation_level=None)
        try:
            for pragma in _PRAGMAS:
                self._file.execute(f"PRAGMA {pragma}")
            self._start(settings)
        except sqlite3.OperationalError as error:
            self._file.close()
            if "locked" in str(error):
                raise Refused(f"another run writes to {folder}") from None
            raise OSError(f"{folder / PROGRESS_FILE}: {error}") from None
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise Refused(f"{folder / PROGRESS_FILE} is damaged: {error}") from None
        except BaseException:
            self._file.close()
            raise
        top_k, channel_count = settings["top_k"], settings["channel_count"]
        tallied: dict[str, bytes] = dict(self._file.execute("SELECT name, value FROM tally"))
        self.tally = (
            Tally.from_bytes(top_k, tallied.__getitem__)
            if tallied
            else Tally.empty(channel_count, top_k)
        )
        self._logged = 0
        for first, count, peaks, places in self._file.execute(
            "SELECT first_photo, photo_count, peaks, places FROM log ORDER BY first_photo"
        ):
            self._logged += 1
            self.tally.add(
                np.frombuffer(peaks, np.float32).reshape(count, -1),
                np.frombuffer(places, np.int32).reshape(count, -1),
                np.arange(first, first + count),
            )
        (self.photo_count,) = self._file.execute("SELECT count(*) FROM photos").fetchone()

    def done(self) -> frozenset[str]:
        """Names of the files that need not be read again.

        Raises:
            Refused: One of them has changed since it was read.
        """
        known = list(self._file.execute("SELECT name, byte_count, mtime_ns FROM files"))
        for name, byte_count, mtime_ns in known:
            if stamp_of(self._photos / name) != (byte_count, mtime_ns):
                raise Refused(f"{name} has changed since it was indexed; remove the folder")
        return frozenset(name for name, *_ in known)

    def add(self, brought: Brought) -> None:
        """Keeps what a batch brought."""
        read = [one for one in brought.outcomes if isinstance(one, Read)]
        numbers = np.arange(self.photo_count, self.photo_count + len(read))
        if len(read):
            self.tally.add(brought.values, brought.places, numbers)
        run = self._file
        with self._transaction():
            run.executemany(
                "INSERT INTO files VALUES (?, ?, ?)",
                [(self._name(one.path), *one.stamp) for one in brought.outcomes],
            )
            run.executemany(
                "INSERT INTO failures VALUES (?, ?, ?)",
                [
                    (self._name(one.path), one.sha256, one.reason)
                    for one in brought.outcomes
                    if isinstance(one, Unread)
                ],
            )
            run.executemany(
                "INSERT INTO photos VALUES (?, ?, ?, ?, ?)",
                [
                    (int(number), self._name(one.path), one.sha256, one.picture, code.tobytes())
                    for number, one, code in zip(numbers, read, brought.codes, strict=True)
                ],
            )
            if self._logged == _BATCHES_LOGGED:
                self._logged = 0
                run.execute("DELETE FROM log")
                run.executemany(
                    "INSERT OR REPLACE INTO tally VALUES (?, ?)", self.tally.to_bytes().items()
                )
            elif len(read):
                self._logged += 1
                arrays = (brought.values.tobytes(), brought.places.tobytes())
                row = (self.photo_count, len(read), *arrays)
                run.execute("INSERT INTO log VALUES (?, ?, ?, ?)", row)
        self.photo_count += len(read)

    def photos(self) -> Iterator[tuple[int, str, str, bytes, NDArray[np.float32]]]:
        """Number, name, SHA-256, picture and code of each, in order."""
        for number, name, sha256, picture, code in self._file.execute(
            "SELECT id, name, sha256, picture, code FROM photos ORDER BY id"
        ):
            yield number, name, sha256, picture, np.frombuffer(code, np.float32)

    def failures(self) -> list[tuple[str, str, str]]:
        """Name and SHA-256 of what could not be read, and why."""
        return list(self._file.execute("SELECT name, sha256, reason FROM failures ORDER BY name"))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, settings: Mapping[str, Any]) -> None:
        run = self._file
        with self._transaction():
            if not run.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    run.execute(statement)
                run.executemany(
                    "INSERT INTO settings VALUES (?, ?)",
                    [(name, json.dumps(value)) for name, value in settings.items()],
                )
            kept = dict(run.execute("SELECT name, value FROM settings"))
        check_same(
            {name: json.loads(value) for name, value in kept.items()},
            settings,
            "the folder has an index in the making",
        )

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._file)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._photos).as_posix()


class _Transaction:
    """Commits at the end of a block, unless it fails."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.execute("COMMIT" if error is None else "ROLLBACK")


def check_same(kept: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Refuses to go on with what is of other settings.

    Raises:
        Refused: Naming the first that differs.
    """
    for name, value in wanted.items():
        if kept.get(name) != value:
            label = name.replace("_", " ")
            raise Refused(
                f"{what} whose {label} is {_shown(kept.get(name))}, not {_shown(value)}; name "
                "another folder with --out, or remove this one"
            )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
