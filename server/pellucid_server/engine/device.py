"""The device: batches in, scores and gradients out. Only the engine thread calls it."""

import ctypes
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..models.network import OUTPUT, Network
from .rows import Lane, Rows, Want
from .seeds import score, upload

Pick = tuple[Rows, int]
"""One row: of which rows, and its place among them."""


@dataclass(frozen=True)
class Flight:
    """A launched batch: the picked rows come first, padding follows.

    Attributes:
        scores: n, float64, on the host once it has landed.
        classes: n, int64, likewise.
        finite: n, bool, likewise: whether all that a row asked for is finite.
        logits: n×classes, likewise, if a row wanted them.
        gradient: n×3×H×W on the device, in the gradient lane.
    """

    scores: Tensor
    classes: Tensor
    finite: Tensor
    logits: Tensor | None
    gradient: Tensor | None
    started: Any
    landed: Any


class Device(Protocol):
    """What the engine needs of a device."""

    pipelined: bool
    """Whether a launch returns before its batch has run."""

    def upload(self, host: Tensor, dtype: torch.dtype) -> Tensor: ...
    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        """Runs rows of one lane, sorted by rule, padded to the bucket."""
        ...

    def land(self, flight: Flight) -> float:
        """Waits for a flight; returns the milliseconds that it took."""
        ...

    @contextmanager
    def aside(self, flight: Flight) -> Iterator[None]:
        """Device work on what a landed flight brought, not behind the next one."""
        yield

    def download(self, result: Any) -> Any:
        """A dataclass with its tensors copied to the host."""
        ...

    def release_memory(self) -> None: ...


class TorchDevice:
    """The CPU or a CUDA device.

    On CUDA a launch returns at once, and results are worked on in a stream of their
    own, so that looking at batch n never waits for batch n+1.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pipelined = device.type == "cuda"
        if self.pipelined:
            _make_deterministic()
            self._side = torch.cuda.Stream(device)

    def upload(self, host: Tensor, dtype: torch.dtype) -> Tensor:
        if self.pipelined:
            host = host.pin_memory()
        return host.to(self.device, dtype, non_blocking=True)

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        if self.pipelined:
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        started = self._mark()
        all_rows = [rows for rows, _ in picks]
        images = [rows.images[index] for rows, index in picks]
        padding = bucket_size - len(picks)
        images += [torch.zeros_like(images[0])] * padding
        stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)
        taps = tuple(frozenset().union(*(rows.taps for rows in all_rows)))
        want_gradient = all_rows[0].lane is Lane.GRADIENT
        rules = [rows.rule for rows in all_rows]
        rules += rules[-1:] * padding
        with torch.set_grad_enabled(want_gradient):
            stacked.requires_grad_(want_gradient)
            activations = network.forward(stacked, taps, rules if want_gradient else ())
        scores = score(activations, [rows.target for rows in all_rows] + [None] * padding)
        finite = scores.values.isfinite()
        gradient = logits = None
        if want_gradient:
            tapped = [activations[name] for name in scores.seeds]
            (gradient,) = torch.autograd.grad(tapped, stacked, list(scores.seeds.values()))
            finite &= gradient.isfinite().flatten(1).all(1)
        if any(rows.want is Want.LOGITS for rows in all_rows):
            from_output = activations[OUTPUT].detach()
            unwanted = [rows.want is not Want.LOGITS for rows in all_rows] + [True] * padding
            finite &= from_output.isfinite().all(1) | upload(unwanted, self.device)
            logits = self._fetch(from_output)
        return Flight(
            self._fetch(scores.values),
            self._fetch(scores.classes),
            self._fetch(finite),
            logits,
            gradient,
            started,
            self._mark(),
        )

    def land(self, flight: Flight) -> float:
        if not self.pipelined:
            return float(flight.landed - flight.started) * 1e3
        flight.landed.synchronize()
        return float(flight.started.elapsed_time(flight.landed))

    @contextmanager
    def aside(self, flight: Flight) -> Iterator[None]:
        if not self.pipelined:
            yield
            return
        self._side.wait_event(flight.landed)
        with torch.cuda.stream(self._side):
            yield
        self._side.synchronize()

    def download(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            return self._fetch(result)
        assert dataclasses.is_dataclass(result)
        assert not isinstance(result, type)
        return dataclasses.replace(
            result,
            **{
                field.name: self._fetch(value)
                for field in dataclasses.fields(result)
                if isinstance(value := getattr(result, field.name), Tensor)
            },
        )

    def release_memory(self) -> None:
        if self.pipelined:
            torch.cuda.empty_cache()

    def _fetch(self, tensor: Tensor) -> Tensor:
        """A copy on the host, there once the stream's next event has passed."""
        if tensor.device.type == "cpu":
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def _mark(self) -> Any:
        if not self.pipelined:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _make_deterministic() -> None:
    """Bits that do not depend on the run: no TF32, no autotuning, deterministic kernels.

    Kernels that have no deterministic form only warn: README names them.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def keep_freed_memory() -> None:
    """Has glibc keep freed memory instead of handing it back after every batch.

    Activations of some megabytes would otherwise be mapped, zeroed by the kernel and
    unmapped again each time: half of the speed at batches of 8 and more on a CPU. It holds
    for the whole process, so only a server calls it. Elsewhere than on glibc: nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in _MALLOC_OPTIONS:
        mallopt(option, value)


_MALLOC_OPTIONS = (
    (-4, 0),  # M_MMAP_MAX: no block gets a mapping of its own
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: nothing is handed back
    (-2, 64 << 20),  # M_TOP_PAD: the heap grows by 64 MiB at a time
    (-8, 1),  # M_ARENA_MAX: and is one for all threads
)


def pick_device(name: str) -> torch.device:
    """auto, cpu or cuda: auto takes CUDA where there is a device, the CPU otherwise."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
