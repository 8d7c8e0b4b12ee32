"""Explanations of a folder of photos: pictures, and a manifest by which a run is taken up again.

The manifest is manifest.jsonl beside the pictures: a line of JSON for each photo that is done,
written after its picture. A photo has

    {"photo": "cats/one.jpg", "sha256": "…", "request": "…", "model": "…", "model_version": "…",
     "picture": "cats/one.jpg", "target": "285 Egyptian cat", "score": 9.1, "warnings": []}

or, instead of a picture and what comes after it, an error: {"code": …, "reason": …, "message": …}.
Its code is one of gRPC's, or UNREADABLE: then there is no sha256. A later line of a photo takes the
place of an earlier one.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import _wire
from .compare import target_words
from .errors import BadArgument, InvalidArgument, ResourceExhausted, StatusError, Unavailable
from .types import ExplainResult

if TYPE_CHECKING:
    from .client import Client

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""By which a folder's photos are known."""

MANIFEST = "manifest.jsonl"

CONCURRENCY = 8
"""Calls in flight: enough to fill a batch of the server's."""

Entry = dict[str, Any]
"""A line of the manifest."""


@dataclass(frozen=True)
class FolderResult:
    """What came of a folder.

    Attributes:
        entries: The manifest's, one for each photo, in the order of their names.
        earlier_count: Photos that an earlier run had done.
        manifest: The file.
    """

    entries: tuple[Entry, ...]
    earlier_count: int
    manifest: Path

    @property
    def failed(self) -> tuple[Entry, ...]:
        """The entries of photos that could not be explained."""
        return tuple(entry for entry in self.entries if "error" in entry)


def photos_in(folder: Path, *, nested: bool = False, apart_from: Path | None = None) -> list[Path]:
    """The photos of a folder, by their suffixes, in the order of their names.

    Args:
        folder: Where they are.
        nested: Whether folders in it are looked into, too; hidden ones are not.
        apart_from: One of these that is not; it is compared as it is written.

    Raises:
        BadArgument: It is no folder, or has none.
    """
    if not folder.is_dir():
        raise BadArgument(f"folder: {os.fspath(folder)!r} is not a folder")
    found = folder.rglob("*") if nested else folder.iterdir()
    paths = sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (apart_from is not None and path.is_relative_to(apart_from))
        and path.is_file()
    )
    if not paths:
        raise BadArgument(
            f"folder: there is no photo in {os.fspath(folder)!r}; they end with "
            f"{', '.join(SUFFIXES)}"
        )
    return paths


def explain_folder(
    client: "Client",
    folder: Path,
    output: Path,
    method: str = "gradient",
    *,
    concurrency: int = CONCURRENCY,
    timeout_s: float = 600.0,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> FolderResult:
    """Explains every photo of a folder, and of the folders in it.

    A run that was ended is taken up where it stopped: what the manifest says is done is not done
    again, if the photo, the request and the model's version are still the same. Photos whose errors
    are not their own are tried again.

    A picture has the name of its photo; another suffix is added to it, not put in its place.

    Args:
        client: Of the server.
        folder: Of the photos.
        output: Where pictures and the manifest are written; made if it is not there. It may be
            inside the folder, but not hold it.
        method: See Client.explain.
        concurrency: Calls in flight at most, 1 to 64.
        timeout_s: The deadline of each photo in seconds, waiting for a full queue included.
        on_progress: Called with the photos that are done and all of them, after each.
        **options: Those of Client.explain, and the method's own parameters.

    Raises:
        BadArgument: An argument is wrong, or another run writes there.
        Unavailable: There is no server any more; what is done stays.
        StatusError: The server does not say which model it has.
        OSError: A picture or the manifest cannot be written.
    """
    if not 1 <= concurrency <= 64:
        raise BadArgument(f"concurrency: is {concurrency}; must be 1 to 64")
    folder, output_in_full = folder.resolve(), output.resolve()
    if folder.is_relative_to(output_in_full):
        raise BadArgument(
            f"output: {os.fspath(output)!r} holds the photos; pictures need a folder of their own"
        )
    paths = photos_in(folder, nested=True, apart_from=output_in_full)
    request = _wire.request_sha256(method, options)
    model = client.get_model(options.get("model") or "", timeout_s=timeout_s)
    asked = {"request": request, "model": model.name, "model_version": model.version}
    output.mkdir(parents=True, exist_ok=True)
    with _manifest(output / MANIFEST) as (file, known):
        task = _Task(client, folder, output, method, dict(options), timeout_s, asked)
        waiting = [path for path in paths if not task.is_done(path, known)]
        earlier_count = done_count = len(paths) - len(waiting)
        if on_progress is not None:
            on_progress(done_count, len(paths))
        for entry in _each(task, waiting, concurrency):
            # In ASCII: a name that is no text has a place in it, too.
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            known[entry["photo"]] = entry
            done_count += 1
            if on_progress is not None:
                on_progress(done_count, len(paths))
    entries = tuple(known[task.name_of(path)] for path in paths)
    return FolderResult(entries, earlier_count, output / MANIFEST)


@contextmanager
def _manifest(path: Path) -> Iterator[tuple[BinaryIO, dict[str, Entry]]]:
    """The manifest, to be appended to, and what it says; a line that was cut off is dropped."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadArgument(f"{path}: another run writes it") from None
        file.seek(0)
        known: dict[str, Entry] = {}
        *lines, cut_off = file.read().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not _is_entry(entry):
                raise BadArgument(f"{path}: line {number} is not of a manifest")
            known[entry["photo"]] = entry
        file.truncate(file.tell() - len(cut_off))
        yield file, known


def _is_entry(line: Any) -> bool:
    """Whether it has what is read of an entry."""
    if not isinstance(line, dict) or not isinstance(line.get("photo"), str):
        return False
    if "error" in line:
        return isinstance(line["error"], dict) and {"code", "message"} <= line["error"].keys()
    return isinstance(line.get("picture"), str)


@dataclass(frozen=True)
class _Task:
    """What is done with each photo.

    Attributes:
        asked: What entries say of the run: they are of another one if they say anything else.
    """

    client: "Client"
    folder: Path
    output: Path
    method: str
    options: Mapping[str, Any]
    timeout_s: float
    asked: Entry

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def picture_of(self, path: Path) -> str:
        """Where its picture goes, in the output folder.

        No other photo's goes there, in this run or in another: a photo either has the picture's
        suffix and no second one, or its picture's name ends with two.
        """
        name = path.relative_to(self.folder)
        suffix = ".png" if self.options.get("format") == "png" else ".jpg"
        if name.suffix == suffix and Path(name.stem).suffix.lower() not in SUFFIXES:
            return name.as_posix()
        return f"{name.as_posix()}{suffix}"

    def is_done(self, path: Path, known: Mapping[str, Entry]) -> bool:
        entry = known.get(self.name_of(path))
        if entry is None or not self.asked.items() <= entry.items():
            return False
        if "error" in entry:  # the photo's own, which no later run would mend
            final = entry["error"]["code"] == InvalidArgument.code.name
        else:
            picture = self.picture_of(path)
            final = entry["picture"] == picture and (self.output / picture).is_file()
        try:
            return final and entry.get("sha256") == _sha256(path.read_bytes())
        except OSError:
            return False

    def run(self, path: Path) -> Entry:
        entry = {"photo": self.name_of(path), **self.asked}
        try:
            photo = path.read_bytes()
        except OSError as error:
            told = {"code": "UNREADABLE", "reason": "", "message": error.strerror or str(error)}
            return entry | {"error": told}
        entry["sha256"] = _sha256(photo)
        try:
            result = self._explain(photo)
        except Unavailable:
            raise
        except StatusError as error:
            assert error.code is not None
            told = {"code": error.code.name, "reason": error.reason, "message": error.message}
            return entry | {"error": told}
        picture = self.picture_of(path)
        file = self.output / picture
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(result._rendering())
        part.replace(file)
        return entry | {"picture": picture, **_told(result)}

    def _explain(self, photo: bytes) -> ExplainResult:
        """However often the server's queue is full, until the deadline."""
        expires_s = time.monotonic() + self.timeout_s
        while True:
            try:
                return self.client.explain(
                    photo,
                    self.method,
                    outputs=["rendering"],
                    timeout_s=max(expires_s - time.monotonic(), 0.001),
                    **self.options,
                )
            except ResourceExhausted as error:
                pause_s = error.retry_delay_s
                if pause_s is None or time.monotonic() + pause_s > expires_s:
                    raise
            time.sleep(pause_s)


def _told(result: ExplainResult) -> Entry:
    return {
        "model": result.run.model,
        "model_version": result.run.model_version,
        "target": target_words(result),
        "score": result.target.score,
        "warnings": [warning.reason for warning in result.warnings],
    }


def _each(task: _Task, paths: list[Path], concurrency: int) -> Iterator[Entry]:
    """The entries as they are made; no more calls are in flight than that."""
    pool = ThreadPoolExecutor(concurrency)
    flying: set[Future[Entry]] = set()
    try:
        for path in paths:
            flying.add(pool.submit(task.run, path))
            if len(flying) == concurrency:
                flying = yield from _landed(flying)
        while flying:
            flying = yield from _landed(flying)
    finally:  # whoever interrupts it does not wait for calls that are under way
        pool.shutdown(wait=False, cancel_futures=True)


def _landed(flying: set[Future[Entry]]) -> Generator[Entry, None, set[Future[Entry]]]:
    """The entries of calls that have ended, those without an error first; returns the others."""
    landed, flying = wait(flying, return_when=FIRST_COMPLETED)
    for future in sorted(landed, key=lambda future: future.exception() is not None):
        yield future.result()
    return flying


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
