"""What every test may use: small networks, free photos, an engine that runs them."""

import functools
import gc
import inspect
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import skimage.data
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from pellucid_server.engine.device import Device, TorchDevice
from pellucid_server.engine.engine import Engine
from pellucid_server.engine.job import Done, Job, Spec
from pellucid_server.engine.rows import Target, TopTarget
from pellucid_server.inputs import ArrayPhoto, EncodedPhoto, PreparedInput
from pellucid_server.models.architectures import ARCHITECTURES
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision, load_model
from pellucid_server.workers import Workers
from PIL import Image
from torch import nn

CPU = torch.device("cpu")
NETWORKS = tuple(ARCHITECTURES)
TOP = TopTarget()
PHOTOS = ("cat", "coffee", "rocket", "astronaut")


_Made = TypeVar("_Made")


def cached(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """As lru_cache, but a default that is spelled out, or by its name, is the same call."""
    signature, kept = inspect.signature(make), functools.lru_cache(make)

    @functools.wraps(make)
    def call(*args: Any, **options: Any) -> _Made:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        return kept(*bound.args)

    call.cache_clear = kept.cache_clear
    return call


@cached
def photo(name: str) -> np.ndarray:
    return np.ascontiguousarray(getattr(skimage.data, name)())


def crops(folder: Path, count: int) -> list[Path]:
    """A folder of so many seeded parts of the photos, as PNG files of 100 to 200 px."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        whole = photo(PHOTOS[number % len(PHOTOS)])
        side = int(rng.integers(100, 200))
        y, x = (int(rng.integers(length - side)) for length in whole.shape[:2])
        Image.fromarray(whole[y : y + side, x : x + side]).save(folder / f"{number:03}.png")
    return sorted(folder.iterdir())


@cached
def model(name: str, precision: Precision = Precision.FLOAT32, side_px: int = 96) -> Model:
    return load_model(name, device=CPU, precision=precision, side_px=side_px)


def tiny_model(module: nn.Module, side_px: int = 2) -> Model:
    """A network of a test's own, float32, seeded by the test."""
    return Model(
        name=type(module).__name__,
        version="0",
        architecture="test",
        network=Network(
            module, height_px=side_px, width_px=side_px, dtype=torch.float32, device=CPU
        ),
        preprocessing=ARCHITECTURES["resnet18"].preprocessing(side_px),
        labels=("first", "second", "third", "fourth"),
        precision=Precision.FLOAT32,
        weights_sha256="0" * 64,
    )


@cached
def untouched(name: str, side_px: int = 96) -> nn.Module:
    """The network as it is built, float64: what oracles run on."""
    network = ARCHITECTURES[name].build(side_px).eval().double()
    return network.requires_grad_(False)


@cached
def photo_input(photo_name: str, model_name: str, side_px: int = 96) -> torch.Tensor:
    """A preprocessed photo, 3×H×W, float64, dithered by about half a grey level.

    In flat areas neighbours would be equal: which of them a maximum is pooled from is decided
    by rounding then, and either choice is a right gradient.
    """
    preprocessing = ARCHITECTURES[model_name].preprocessing(side_px)
    image = torch.from_numpy(preprocessing.apply(photo(photo_name)))
    generator = torch.Generator().manual_seed(0)
    return image + 0.01 * torch.randn(image.shape, generator=generator, dtype=torch.float64)


def spec(
    on: Model,
    method: Any,
    image: torch.Tensor | str,
    target: Target = TOP,
    *,
    timeout_s: float = 300.0,
    caller: str = "",
    bucket_size: int | None = None,
) -> Spec:
    source = (
        ArrayPhoto(photo(image), canvas_px=64)
        if isinstance(image, str)
        else PreparedInput(image.numpy(), canvas_px=64)
    )
    return Spec(on, method, source, target, time.monotonic() + timeout_s, caller, bucket_size)


@dataclass
class Runner:
    """An engine on the CPU, and a shorthand to run one spec on it."""

    engine: Engine
    workers: Workers
    submitted: list[Job] = field(default_factory=list)

    def submit(self, *args: Any, **options: Any) -> Job:
        job = self.engine.submit(spec(*args, **options))
        self.submitted.append(job)
        return job

    def run(self, *args: Any, **options: Any) -> Done:
        return self.submit(*args, **options).future.result(timeout=300)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The engine thread stands still between two iterations until the block ends.

        What is submitted meanwhile is decoded and waits: all of it is there at the next one.
        """
        reached, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            reached.set()
            go_on.wait(60)

        holder = threading.Thread(target=self.engine.call, args=(stand_still,))
        holder.start()
        reached.wait(60)
        self.submitted.clear()
        try:
            yield
            self._wait_for_decoding()
        finally:
            go_on.set()
            holder.join()

    def _wait_for_decoding(self) -> None:
        until_s = time.monotonic() + 60
        while self.engine._inbox.qsize() < len(self.submitted):
            assert time.monotonic() < until_s
            time.sleep(0.001)


@contextmanager
def running(device: Device | None = None, **options: Any) -> Iterator[Runner]:
    workers = Workers(2, most_waiting=10_000)
    engine = Engine(device or TorchDevice(CPU), workers, **options)
    engine.start()
    try:
        yield Runner(engine, workers)
    finally:
        engine.stop()
        workers.shutdown()


@contextmanager
def without_collections() -> Iterator[None]:
    """What is let go of meanwhile goes by its last reference, or stays.

    What was there is not looked at by `gc`, as in a server that has started.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def expect_nothing_held(ask: Callable[[], None]) -> None:
    """Once a call has ended, as it did before, nothing of it is in memory. All in this process."""
    kinds = (Message, Job, Spec, EncodedPhoto, torch.Tensor)

    def held() -> Counter[str]:
        return Counter(type(o).__name__ for o in gc.get_objects() if issubclass(type(o), kinds))

    ask()
    with without_collections():
        for _ in range(3):
            ask()
        until_s = time.monotonic() + 5
        while found := held():
            assert time.monotonic() < until_s, found
            time.sleep(0.05)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """‖a-b‖₂ / ‖b‖₂, where ‖b‖₂ must be more than 0."""
    actual, expected = actual.double().flatten(), expected.double().flatten()
    assert expected.norm() > 0
    return float((actual - expected).norm() / expected.norm())


def moving(count: int, height_px: int = 64, width_px: int = 96) -> list[NDArray[np.uint8]]:
    """Frames of a video: a window that slides over a photo."""
    return [photo("cat")[i : i + height_px, i : i + width_px].copy() for i in range(count)]


def file_of(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    """An image file."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()


PADDED_BYTES = 1 << 20
MOST_SENT = 50
"""Padded frames that a sender gets rid of where none is painted: 3 under way, 4 that wait, 1 that
is received, and what is in the buffers of both ends, some MiB: measured, 13 over gRPC and 15 over
a WebSocket.
"""


def padded(frames: list[NDArray[np.uint8]]) -> Iterator[bytes]:
    """As files that take long to send and short to paint: what follows a JPEG's end is not read."""
    for frame in frames:
        yield file_of(frame).ljust(PADDED_BYTES, b"\0")


def settle(count: Callable[[], int], least: int) -> None:
    """Waits until a number that is to reach so many has then stayed the same for a second."""
    last, until_s = None, time.monotonic() + 60
    while last != (last := count()) or last < least:
        assert time.monotonic() < until_s
        time.sleep(1.0)
