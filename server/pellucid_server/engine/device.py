"""The device: batches in, scores and gradients out. Only the engine thread calls it."""

import ctypes
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..models.attention import Attention
from ..models.gates import Gates, Rule
from ..models.network import OUTPUT, Network
from ..models.relevance import Relevance
from ..models.rescale import Rescale
from ..models.styles.network import RowNetwork
from .places import upload, upload_tensor
from .rows import Brought, Lane, Rows, StyleRows, SumTarget, Want
from .seeds import Scores, score

Pick = tuple[Rows, int]
"""One row: of which rows, and its place among them."""

StylePick = tuple[StyleRows, int]
"""Likewise."""


@dataclass(frozen=True)
class Flight:
    """A launched batch: the picked rows come first, padding follows.

    Attributes:
        scores: n, float64, on the host once it has landed.
        classes: n, int64, likewise.
        finite: n, bool, likewise: whether all that a row asked for is finite.
        terms: n×terms, likewise, if a row's target is a sum: see Scores.
        logits: n×classes, likewise, if a row wanted them.
        activations: n×… on the device, for each layer that a row named.
        gradient: n×3×H×W on the device, in all lanes but the forward one.
        layer_gradients: As activations, for each layer by which a row wanted the gradient.
        attention: n×layers×heads×tokens×tokens on the device, if a row wanted it.
        made: n×… on the device, of StyleRows.
        peaks: As Traces.peaks and Traces.peak_places, by layer.
    """

    scores: Tensor
    classes: Tensor
    finite: Tensor
    terms: Tensor | None
    logits: Tensor | None
    activations: Mapping[str, Tensor]
    gradient: Tensor | None
    layer_gradients: Mapping[str, Tensor]
    attention: Tensor | None
    started: Any
    landed: Any
    made: Tensor | None = None
    peaks: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def brought(self, rows: Rows | StyleRows) -> Brought:
        """What these rows wanted, n×… with the batch's rows."""
        if isinstance(rows, StyleRows):
            assert self.made is not None
            return {("made", ""): self.made}
        everything = {
            Want.LOGITS: ("logits", self.logits),
            Want.ATTENTION: ("attention", self.attention),
            Want.GRADIENT: ("gradient", self.gradient),
        }
        by_layer = {
            Want.ACTIVATION: ("activations", self.activations),
            Want.LAYER_GRADIENT: ("layer_gradients", self.layer_gradients),
        }
        brought: Brought = {}
        for want in rows.want:
            if want in by_layer:
                name, tensors = by_layer[want]
                brought |= {(name, layer): tensors[layer] for layer in rows.layers}
            else:
                name, tensor = everything[want]
                assert tensor is not None
                brought[name, ""] = tensor
        for layer in rows.peak_layers:
            brought["peaks", layer], brought["peak_places", layer] = self.peaks[layer]
        if isinstance(rows.target, SumTarget):
            assert self.terms is not None
            brought["terms", ""] = self.terms[:, : len(rows.target.terms)]
        return brought


class Device(Protocol):
    """What the engine needs of a device."""

    kind: str
    """cpu or cuda."""

    pipelined: bool
    """Whether a launch returns before its batch has run."""

    def upload(self, host: Tensor, dtype: torch.dtype) -> Tensor: ...
    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        """Runs rows of one lane, sorted by rule, padded to the bucket."""
        ...

    def paint(self, network: RowNetwork, picks: Sequence[StylePick], bucket_size: int) -> Flight:
        """Likewise, through a network of fast style."""
        ...

    def land(self, flight: Flight) -> float:
        """Waits for a flight; returns the milliseconds that it took."""
        ...

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Device work that the next launch waits for, not behind the one on its way."""
        yield

    @contextmanager
    def aside(self, flight: Flight | None = None) -> Iterator[None]:
        """Device work on what a landed flight brought, not behind the next one.

        What is downloaded meanwhile has arrived when it ends.
        """
        yield

    def download(self, result: Any) -> Any:
        """A dataclass with its tensors, and those in what it holds, on the host."""
        ...

    def release_memory(self) -> None: ...


class TorchDevice:
    """The CPU or a CUDA device.

    On CUDA a launch returns at once, and results are worked on in a stream of their
    own, so that looking at batch n never waits for batch n+1.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = device.type
        self.pipelined = device.type == "cuda"
        if self.pipelined:
            make_deterministic()
            self._side = torch.cuda.Stream(device)

    def upload(self, host: Tensor, dtype: torch.dtype) -> Tensor:
        if self.pipelined:
            host = host.pin_memory()
        return host.to(self.device, dtype, non_blocking=True)

    def launch(self, network: Network, picks: Sequence[Pick], bucket_size: int) -> Flight:
        started = self._start()
        all_rows = [rows for rows, _ in picks]
        lane = all_rows[0].lane
        padding = bucket_size - len(picks)
        images = [rows.images[index] for rows, index in picks]
        images += [torch.zeros_like(images[0])] * padding
        if lane is Lane.DEEPLIFT:
            images += [r.references[index] for r, index in picks if r.references is not None]
            images += [torch.zeros_like(images[0])] * padding
        stacked = _together(images)
        taps = tuple(frozenset().union(*(rows.taps for rows in all_rows)))
        attention = Attention() if any(Want.ATTENTION in r.want for r in all_rows) else None
        mode = attention or self._backward(lane, all_rows, padding)
        with (
            _tf32(network.tf32 and self.pipelined),
            torch.set_grad_enabled(lane is not Lane.FORWARD),
        ):
            stacked.requires_grad_(lane is not Lane.FORWARD)
            activations = network.forward(stacked, taps, mode)
        heads: Mapping[str, Tensor] = activations
        if lane is Lane.DEEPLIFT:  # the references' half is no row
            heads = {name: activation[:bucket_size] for name, activation in activations.items()}
        targets = [rows.target_of(index) for rows, index in picks] + [None] * padding
        scores = score(heads, targets, network.place_of, network.classifier)
        finite = scores.values.isfinite()
        kept = {
            name: heads[name].detach()
            for r in all_rows
            for name in r.layers
            if Want.ACTIVATION in r.want
        }
        peaked = {name for r in all_rows for name in r.peak_layers}
        peaks = {name: _peaks(network, name, heads[name]) for name in peaked}
        for name, (largest, _) in peaks.items():
            asked = [name in r.peak_layers for r in all_rows]
            finite &= self._finite_or_unasked(largest, asked, padding)
        gradient = logits = None
        by_layer: dict[str, Tensor] = {}
        if lane is not Lane.FORWARD:
            with _tf32(network.tf32 and self.pipelined):
                gradient, by_layer = self._pass_back(
                    lane, all_rows, stacked, activations, heads, scores
                )
            finite &= gradient.isfinite().flatten(1).all(1)
        if any(Want.LOGITS in rows.want for rows in all_rows):
            logits = heads[OUTPUT].detach()
        for tensors, want in ((kept, Want.ACTIVATION), (by_layer, Want.LAYER_GRADIENT)):
            for name, tensor in tensors.items():
                asked = [want in r.want and name in r.layers for r in all_rows]
                finite &= self._finite_or_unasked(tensor, asked, padding)
        if logits is not None:
            asked = [Want.LOGITS in rows.want for rows in all_rows]
            finite &= self._finite_or_unasked(logits, asked, padding)
            logits = self._fetch(logits)
        return Flight(
            self._fetch(scores.values),
            self._fetch(scores.classes),
            self._fetch(finite),
            None if scores.terms is None else self._fetch(scores.terms),
            logits,
            kept,
            gradient,
            by_layer,
            None if attention is None else attention.weights(),
            started,
            self._mark(),
            peaks=peaks,
        )

    def paint(self, network: RowNetwork, picks: Sequence[StylePick], bucket_size: int) -> Flight:
        started = self._start()
        images = [rows.images[index] for rows, index in picks]
        images += [torch.zeros_like(images[0])] * (bucket_size - len(picks))
        inputs = [_together(images)]
        codes = [rows.codes[index] for rows, index in picks if rows.codes is not None]
        if codes:
            codes += [torch.zeros_like(codes[0])] * (bucket_size - len(picks))
            inputs.append(torch.stack(codes))
        with _tf32(network.tf32 and self.pipelined):
            made: Tensor = network(*inputs)
        return Flight(
            scores=torch.zeros(bucket_size, dtype=torch.float64),
            classes=torch.full((bucket_size,), -1),
            finite=self._fetch(made.isfinite().flatten(1).all(1)),
            terms=None,
            logits=None,
            activations={},
            gradient=None,
            layer_gradients={},
            attention=None,
            started=started,
            landed=self._mark(),
            made=made,
        )

    def _backward(
        self, lane: Lane, all_rows: Sequence[Rows], padding: int
    ) -> TorchFunctionMode | None:
        """The mode that a lane's forward pass runs under, so that it goes back as it should."""
        rules = [rows.rule for rows in all_rows]
        rules += rules[-1:] * padding
        if lane is Lane.GRADIENT and any(rule is not Rule.GRADIENT for rule in rules):
            return Gates(rules)
        if lane is Lane.LRP:
            epsilons = [rows.epsilon for rows in all_rows] + [1.0] * padding
            host = torch.tensor(epsilons, dtype=all_rows[0].images.dtype)
            return Relevance(rules, upload_tensor(host, self.device))
        if lane is Lane.DEEPLIFT:
            return Rescale()
        return None

    def _pass_back(
        self,
        lane: Lane,
        all_rows: Sequence[Rows],
        stacked: Tensor,
        activations: Mapping[str, Tensor],
        heads: Mapping[str, Tensor],
        scores: Scores,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One backward pass from all taps at once: to the images, and to the layers named."""
        seeds = scores.seeds
        if lane is Lane.LRP:  # the relevance of a target is its own activation
            seeds = {name: torch.where(s != 0, s * heads[name], 0) for name, s in seeds.items()}
        layers = {name for r in all_rows if Want.LAYER_GRADIENT in r.want for name in r.layers}
        names = [name for name in activations if name in layers]
        gradient, *rest = torch.autograd.grad(
            [heads[name] for name in seeds],
            [stacked, *(activations[name] for name in names)],
            list(seeds.values()),
            materialize_grads=True,  # a layer beside the way to every target has none
        )
        return gradient[: len(scores.values)], dict(zip(names, rest, strict=True))

    def _finite_or_unasked(self, tensor: Tensor, asked: list[bool], padding: int) -> Tensor:
        unasked = [not a for a in asked] + [True] * padding
        return tensor.isfinite().flatten(1).all(1) | upload(unasked, self.device)

    def land(self, flight: Flight) -> float:
        if not self.pipelined:
            return float(flight.landed - flight.started) * 1e3
        flight.landed.synchronize()
        return float(flight.started.elapsed_time(flight.landed))

    @contextmanager
    def ahead(self) -> Iterator[None]:
        with torch.cuda.stream(self._side) if self.pipelined else nullcontext():
            yield

    @contextmanager
    def aside(self, flight: Flight | None = None) -> Iterator[None]:
        if not self.pipelined:
            yield
            return
        if flight is not None:
            self._side.wait_event(flight.landed)
        with torch.cuda.stream(self._side):
            yield
        self._side.synchronize()

    def download(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            return self._fetch(result)
        if isinstance(result, Mapping):
            return {name: self.download(one) for name, one in result.items()}
        if type(result) is tuple:
            return tuple(self.download(one) for one in result)
        if not dataclasses.is_dataclass(result) or isinstance(result, type):
            return result
        fetched = {
            f.name: self.download(getattr(result, f.name)) for f in dataclasses.fields(result)
        }
        return dataclasses.replace(result, **fetched)

    def release_memory(self) -> None:
        if self.pipelined:
            torch.cuda.empty_cache()

    def _fetch(self, tensor: Tensor) -> Tensor:
        """A copy on the host, there once the stream's next event has passed."""
        if tensor.device.type == "cpu":
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def _start(self) -> Any:
        """When a launch begins: it waits for what is done aside."""
        if self.pipelined:
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        return self._mark()

    def _mark(self) -> Any:
        if not self.pipelined:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _together(images: Sequence[Tensor]) -> Tensor:
    """Images of 3×H×W as n×3×H×W in channels-last layout, in one pass over them."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _peaks(network: Network, name: str, activation: Tensor) -> tuple[Tensor, Tensor]:
    layer = network.layer(name)
    assert layer is not None
    return layer.peaks(activation.detach())


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Lets kernels that are launched meanwhile round factors to TF32, if that is allowed."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def make_deterministic() -> None:
    """Bits that do not depend on the run: no TF32, no autotuning, deterministic kernels.

    It holds for the whole process. Kernels that have no deterministic form only warn: README names
    them.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # All that is made empty is written before it is read: no second write of it all. (Torch puts
    # the attribute on the module as it is imported, where mypy does not see it.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


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
    """auto, cpu or cuda: auto takes CUDA where there is a device, the CPU otherwise.

    Raises:
        RuntimeError: It is to be CUDA, and there is no such device.
    """
    cuda = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise RuntimeError("device cuda: no CUDA device is there that torch could use")
    return torch.device("cuda" if cuda else "cpu")
