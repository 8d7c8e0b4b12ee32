"""Checkpoints of optimizations: what they belong to, and what they hold."""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pellucid.v1 import attack_pb2, optimize_pb2

from ..checkpoints import BadCheckpoint, Checkpoint, unpack
from ..engine.job import Spec
from ..methods.optimize.stepper import Snapshot
from ..versions import VERSIONS
from .fields import Violations

_CHUNK_BYTES = 4 << 20
_TENSORS = ("parameters", "first", "second")
_EVENTS = ("progress_every", "preview_every", "checkpoint_every")

Settings = optimize_pb2.Ascend | attack_pb2.Attack
"""What is asked, every parameter filled in."""


class Collector:
    """The newest state of each image of a job, until there is one of all of them.

    Args:
        count: Of images.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._snapshots: dict[int, Snapshot] = {}

    def add(self, snapshot: Snapshot) -> Sequence[Snapshot] | None:
        """All of them, in order, once the last one has come."""
        kept = self._snapshots
        self._snapshots = {k: s for k, s in kept.items() if s.octave == snapshot.octave}
        self._snapshots[snapshot.restart] = snapshot
        if len(self._snapshots) < self._count:
            return None
        complete, self._snapshots = self._snapshots, {}
        return [complete[restart] for restart in range(self._count)]


def write_checkpoint(
    spec: Spec, settings: Settings, snapshots: Sequence[Snapshot], key: bytes
) -> Iterator[optimize_pb2.OptimizeResponse]:
    """A checkpoint, in parts."""
    header = {
        **_belongs_to(spec, settings),
        **_made_by(spec),
        "octave": snapshots[0].octave,
        "steps": [snapshot.step for snapshot in snapshots],
        "totals": [snapshot.total for snapshot in snapshots],
    }
    tensors = {
        f"{name} {snapshot.restart}": getattr(snapshot, name)
        for snapshot in snapshots
        for name in _TENSORS
    }
    data = Checkpoint(header, tensors).pack(key)
    step = min(snapshot.total for snapshot in snapshots)
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        last = start + _CHUNK_BYTES >= len(data)
        yield optimize_pb2.OptimizeResponse(
            checkpoint=optimize_pb2.OptimizeCheckpoint(step=step, chunk=chunk, last=last)
        )


def read_checkpoint(
    found: Violations, spec: Spec, settings: Settings, data: bytes, key: bytes
) -> tuple[tuple[Snapshot, ...], tuple[str, ...]]:
    """The states that a checkpoint holds, and why the bits of what follows may differ."""
    try:
        checkpoint = unpack(data, key)
    except BadCheckpoint as error:
        found.invalid("checkpoint", str(error))
        return (), ()
    header, tensors = checkpoint.header, checkpoint.tensors
    for name, expected in _belongs_to(spec, settings).items():
        if header[name] != expected:
            word = _WORDS[name].format(type(settings).__name__.lower())
            found.invalid("checkpoint", f"is of another {word}")
            return (), ()
    snapshots = tuple(
        Snapshot(
            restart,
            header["octave"],
            step,
            total,
            **{name: tensors[f"{name} {restart}"] for name in _TENSORS},
        )
        for restart, (step, total) in enumerate(zip(header["steps"], header["totals"], strict=True))
    )
    return snapshots, tuple(_differences(header, _made_by(spec)))


_WORDS = {
    "model": "model",
    "model_version": "model version",
    "precision": "precision",
    "settings": "{}: only how often events come may differ",
    "photos": "photo",
}


def _belongs_to(spec: Spec, settings: Settings) -> Mapping[str, str]:
    """What a checkpoint is bound to."""
    bound = copy.deepcopy(settings)
    for name in _EVENTS:
        bound.ClearField(name)
    sent = type(bound).__name__.encode() + bound.SerializeToString(deterministic=True)
    return {
        "model": spec.model.name,
        "model_version": spec.model.weights_sha256,
        "precision": spec.model.precision.value,
        "settings": hashlib.sha256(sent).hexdigest(),
        "photos": spec.source.sha256,
    }


def _made_by(spec: Spec) -> Mapping[str, Any]:
    """What decides the bits besides."""
    device = spec.model.network.device
    on_cpu = device.type == "cpu"
    return {
        "bucket_size": spec.bucket_size,
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(device),
        "thread_count": torch.get_num_threads() if on_cpu else 0,
        "versions": dict(VERSIONS),
    }


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in ("bucket_size", "device", "thread_count"):
        if before[name] != now[name]:
            yield f"bits may differ: {name} was {before[name]}, is {now[name]}"
    for package in sorted({*before["versions"], *now["versions"]}):
        was, version = (made["versions"].get(package, "none") for made in (before, now))
        if was != version:
            yield f"bits may differ: {package} was {was}, is {version}"
