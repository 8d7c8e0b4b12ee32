"""Makes an index: photos through an engine of its own, a bounded number of batches at a time."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.admission import QueueLimits
from ..engine.device import TorchDevice, keep_freed_memory
from ..engine.engine import Engine
from ..engine.job import Spec
from ..engine.rows import TopTarget
from ..errors import InvalidArgument, OutOfMemory, PellucidError, quoted
from ..methods.inspect.embed import code_length, default_layer
from ..models.layers import Layer
from ..models.network import OUTPUT
from ..models.registry import Model
from ..workers import Workers
from .folder import Index, publish, sha256_of, tidy
from .manifest import MANIFEST_FILE, read_manifest
from .peaks import Decoded, Files, Found, LoadedFiles, Peaks, Read, Unread
from .progress import Brought, Progress, Refused, check_same

_MAX_PIXELS = 40_000_000
"""Of a photo, as a server takes it by default."""

WORKER_COUNT = 2
"""Threads that decode."""

_DECODED_AHEAD = WORKER_COUNT + 1
"""Batches: one that is ready for the device, and those that are decoded."""


@dataclass(frozen=True)
class Options:
    """What an index is to be of.

    Attributes:
        layers: Those whose channels are looked at.
        top_k: Patches that are kept of every channel.
        bucket_size: Photos of a batch, which fixes the bits.
        lossless: Whether pictures keep every pixel, and take three times the space.
    """

    layers: tuple[Layer, ...]
    top_k: int
    bucket_size: int
    lossless: bool


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        folder: Where it is.
        about: The manifest.
        earlier_count: Photos that an earlier run had done.
        failures: Names of the photos that could not be used, and why.
    """

    folder: Path
    about: dict[str, Any]
    earlier_count: int
    failures: tuple[tuple[str, str], ...]


def choose_layers(model: Model, names: Sequence[str] | None) -> tuple[Layer, ...]:
    """Layers by their names; "all": every one with maps; None: those of them with weights.

    Raises:
        Refused: One is not there, or has no channels; or nothing can be seen of the model.
    """
    network = model.network
    if network.white_box_refusal is not None:
        raise Refused(f"--model: {network.white_box_refusal}")
    spatial = network.spatial_layers(OUTPUT)
    if names is None:
        weighted = set(network.weighted_layers)
        return tuple(layer for layer in spatial if layer.name.partition("#")[0] in weighted)
    if list(names) == ["all"]:
        return spatial
    chosen: dict[str, Layer] = {}
    for name in names:
        layer = network.layer(name)
        if layer is None:
            raise Refused(
                f"--layers: {quoted(name)} is not a layer of {model.name}; those with maps are "
                f"{', '.join(one.name for one in spatial)}"
            )
        if not layer.targetable:
            why = layer.note or "its output is neither channels nor maps"
            raise Refused(f"--layers: {name} cannot be indexed: {why}")
        if name in chosen:
            raise Refused(f"--layers: {name} is named twice")
        chosen[name] = layer
    return tuple(chosen.values())


def settings_of(model: Model, options: Options) -> dict[str, Any]:
    """All that an index depends on besides its photos, as JSON has it."""
    network = model.network
    code_layer = default_layer(network)
    steps = asdict(model.preprocessing)
    return {
        "model": model.name,
        "model_version": model.version,
        "architecture": model.architecture,
        "preprocessing": {k: list(v) if isinstance(v, tuple) else v for k, v in steps.items()},
        "precision": model.precision.value,
        "layers": [
            {
                "name": layer.name,
                "channel_count": layer.channel_count,
                "height": 0 if layer.grid is None else layer.grid[0],
                "width": 0 if layer.grid is None else layer.grid[1],
            }
            for layer in options.layers
        ],
        "channel_count": sum(layer.channel_count for layer in options.layers),
        "code_layer": code_layer,
        "code_length": code_length(network, code_layer, "mean"),
        "top_k": options.top_k,
        "bucket_size": options.bucket_size,
        "picture_format": "webp" if options.lossless else "jpeg",
    }


def build(
    model: Model,
    options: Options,
    photos: Path,
    paths: Sequence[Path],
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, count: None,
) -> Built:
    """Makes an index, or goes on with one that was begun.

    Args:
        model: Whose channels.
        options: Which of them, and how.
        photos: The folder of the photos.
        paths: Of the photos in it, in the order of the index.
        folder: Where it is written, made if it is not there.
        on_progress: Called with the photos that are done and all of them, after each batch.

    Raises:
        Refused: The folder has another index, or a photo has changed meanwhile.
        BadIndex: The index that it has was changed.
        OSError: It cannot be written.
    """
    settings = settings_of(model, options)
    _check(model, options, photos, paths)
    if (folder / MANIFEST_FILE).exists():
        return _finished(folder, settings, photos, paths)
    with Progress(folder, photos, settings) as progress, _engine(model, options) as engine:
        done = progress.done()
        waiting = [path for path in paths if path.relative_to(photos).as_posix() not in done]
        earlier_count = done_count = len(paths) - len(waiting)
        on_progress(done_count, len(paths))
        with closing(_run(engine, model, options, settings["code_layer"], waiting)) as batches:
            for brought in batches:
                progress.add(brought)
                done_count += len(brought.outcomes)
                on_progress(done_count, len(paths))
        if not progress.photo_count:
            raise Refused("none of the photos could be read: there is nothing to index")
        failures = tuple((name, reason) for name, _, reason in progress.failures())
        publish(folder, progress, {**settings, "pellucid": version("pellucid")}, model)
    return Built(folder, read_manifest(folder), earlier_count, failures)


def _check(model: Model, options: Options, photos: Path, paths: Sequence[Path]) -> None:
    """Raises Refused where the model, or the index, cannot take what it is given."""
    most = model.limits.max_bucket_size
    if most is not None and options.bucket_size > most:
        raise Refused(f"--batch: is {options.bucket_size}; {model.name} takes at most {most}")
    for path in paths:
        name = path.relative_to(photos).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise Refused(f"{shown}: a photo's name must be UTF-8") from None


def _finished(folder: Path, settings: dict[str, Any], photos: Path, paths: Sequence[Path]) -> Built:
    """What is there already, of these very photos.

    Raises:
        Refused: It is another one.
        BadIndex: It was changed.
    """
    check_same(read_manifest(folder), settings, "the folder has an index")
    index = Index(folder)
    indexed, now = index.files(), {path.relative_to(photos).as_posix(): path for path in paths}
    why = ""
    if len(indexed) != len(now):
        why = f"of {len(indexed)} photos, and there are {len(now)} now"
    elif strange := sorted(now.keys() - indexed.keys()):
        why = f"of other photos: {strange[0]} is not among them"
    else:
        changed = next((n for n, path in now.items() if _sha256_if_any(path) != indexed[n]), None)
        if changed is not None:
            why = f"of another {changed}: it has changed since"
    if why:
        raise Refused(
            f"the folder has an index {why}; an index is never changed: name another folder with "
            "--out, or remove this one"
        )
    tidy(folder)
    return Built(folder, index.about, len(now), tuple(index.failures()))


def _sha256_if_any(path: Path) -> str:
    """Of a file; "" where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


@contextmanager
def _engine(model: Model, options: Options) -> Iterator[Engine]:
    """One that runs batches of one size, however long they take."""
    if model.network.device.type == "cpu":
        keep_freed_memory()
    workers = Workers(1, 1)
    engine = Engine(
        TorchDevice(model.network.device),
        workers,
        buckets=(options.bucket_size,),
        limits=QueueLimits(device_ms=math.inf),
    )
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        workers.shutdown()


def _run(
    engine: Engine, model: Model, options: Options, code_layer: str, paths: Sequence[Path]
) -> Generator[Brought, None, None]:
    """The batches, in order; others are decoded meanwhile.

    None is run before what the one before it brought is kept: that is all that can be lost.
    """
    size = options.bucket_size
    batches = (tuple(paths[start : start + size]) for start in range(0, len(paths), size))
    with ThreadPoolExecutor(WORKER_COUNT) as decoders:
        ahead: deque[Future[LoadedFiles]] = deque()

        def decode(count: int) -> None:
            for batch in itertools.islice(batches, count):
                files = Files(batch, _MAX_PIXELS, options.lossless)
                ahead.append(decoders.submit(files.load, model))

        decode(_DECODED_AHEAD)
        try:
            while ahead:
                loaded = ahead.popleft().result()
                decode(1)
                yield from _outcome(engine, model, options, code_layer, loaded)
        finally:
            decoders.shutdown(cancel_futures=True)


def _outcome(
    engine: Engine, model: Model, options: Options, code_layer: str, loaded: LoadedFiles
) -> Iterator[Brought]:
    """What a batch brought; one by one where a photo of it has no finite activations.

    Raises:
        Refused: It is too large.
        RuntimeError: It failed, and by no photo's fault.
    """
    method = Peaks(options.layers, code_layer, len(loaded.outcomes))
    source, size = Decoded(loaded), options.bucket_size
    job = engine.submit(Spec(model, method, source, TopTarget(), math.inf, bucket_size=size))
    try:
        done = job.future.result()
    except OutOfMemory as error:
        raise Refused(f"{error.message}: a smaller --batch needs less") from None
    except InvalidArgument as error:
        if len(loaded.outcomes) > 1:
            for one in _singles(loaded):
                yield from _outcome(engine, model, options, code_layer, one)
            return
        (read,) = loaded.outcomes
        unread = Unread(read.path, read.stamp, read.sha256, error.message)
        yield _brought(LoadedFiles(loaded.input[:0], (unread,)), None)
        return
    except PellucidError as error:  # nobody's photo's: nothing is kept of the batch
        raise RuntimeError(f"{error.message}; the same command goes on") from error
    yield _brought(loaded, done.result)


def _singles(loaded: LoadedFiles) -> Iterator[LoadedFiles]:
    row = 0
    for outcome in loaded.outcomes:
        count = int(isinstance(outcome, Read))
        yield LoadedFiles(loaded.input[row : row + count], (outcome,))
        row += count


def _brought(loaded: LoadedFiles, found: Found | None) -> Brought:
    if found is None:
        found = Found(*(torch.zeros(0, 0) for _ in range(3)))
    assert len(found.codes) == sum(isinstance(one, Read) for one in loaded.outcomes)
    values, codes = (one.numpy().astype(np.float32) for one in (found.values, found.codes))
    return Brought(loaded.outcomes, values, found.places.numpy().astype(np.int32), codes)
