"""Checkpoints of optimizations: what they belong to, and what they hold."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from pellucid.v1 import attack_pb2, optimize_pb2, stylize_pb2
from torch import Tensor

from ..checkpoints import BadCheckpoint, Checkpoint, halved, restored, unpack
from ..engine.job import Spec
from ..methods.optimize.snapshot import Declared, Resumable, Snapshot
from ..versions import VERSIONS
from .fields import Violations

_CHUNK_BYTES = 4 << 20
_EVENTS = ("progress_every", "preview_every", "checkpoint_every", "checkpoint_precision")


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
        self._snapshots = {k: s for k, s in kept.items() if s.fits(snapshot)}
        self._snapshots[snapshot.restart] = snapshot
        if len(self._snapshots) < self._count:
            return None
        complete, self._snapshots = self._snapshots, {}
        return [complete[restart] for restart in range(self._count)]


Settings = optimize_pb2.Ascend | attack_pb2.Attack | stylize_pb2.StylizeSpec
"""What was asked, every parameter filled in."""


def write_checkpoint(
    spec: Spec,
    settings: Settings,
    snapshots: Sequence[Snapshot],
    key: bytes,
    notes: Sequence[str] = (),
) -> Iterator[optimize_pb2.OptimizeCheckpoint]:
    """A checkpoint, in parts; notes are those of what the job itself went on from."""
    images = [
        {"step": one.step, "total": one.total, "numbers": dict(one.numbers)} for one in snapshots
    ]
    tensors = {
        f"{name} {snapshot.restart}": tensor
        for snapshot in snapshots
        for name, tensor in snapshot.tensors.items()
    }
    factors: dict[str, float] = {}
    if _in_halves(settings):
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name], factors[name] = halved(tensor)
    header = {
        **_belongs_to(spec, settings),
        **_made_by(spec),
        "octave": snapshots[0].octave,
        "images": images,
        "factors": factors,
        "notes": list(notes),
    }
    data = Checkpoint(header, tensors).pack(key)
    step = min(snapshot.total for snapshot in snapshots)
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES]
        last = start + _CHUNK_BYTES >= len(data)
        yield optimize_pb2.OptimizeCheckpoint(step=step, chunk=chunk, last=last)


def read_checkpoint(
    found: Violations, spec: Spec, settings: Settings, data: bytes, key: bytes
) -> tuple[tuple[Snapshot, ...], tuple[str, ...]]:
    """The states that a checkpoint holds, and why the bits of what follows may differ."""
    try:
        checkpoint = unpack(data, key)
        return _read(checkpoint, spec, settings)
    except BadCheckpoint as error:
        found.invalid("checkpoint", str(error))
        return (), ()


def _read(
    checkpoint: Checkpoint, spec: Spec, settings: Settings
) -> tuple[tuple[Snapshot, ...], tuple[str, ...]]:
    """Raises BadCheckpoint."""
    header = checkpoint.header
    for name, expected in _belongs_to(spec, settings).items():
        if header.get(name) != expected:
            raise BadCheckpoint(f"is of another {_WORDS.get(name, name)}")
    method = cast(Resumable, spec.method)
    try:
        declared, images = method.declared(spec.model)[header["octave"]], header["images"]
        if len(images) != method.image_count:
            raise ValueError(f"it has {len(images)} images")
        snapshots = tuple(
            Snapshot(
                restart,
                header["octave"],
                image["step"],
                image["total"],
                _tensors_of(checkpoint, restart, declared),
                {name: float(image["numbers"][name]) for name in declared.numbers},
            )
            for restart, image in enumerate(images)
        )
        notes = [*header["notes"], *_differences(header, _made_by(spec))]
        return snapshots, tuple(dict.fromkeys(notes))
    except (LookupError, TypeError, ValueError) as error:  # this key signed it, other code wrote it
        raise BadCheckpoint("is no checkpoint of this version") from error


def _tensors_of(checkpoint: Checkpoint, restart: int, declared: Declared) -> Mapping[str, Tensor]:
    """Those of one image, as they are declared.

    Raises:
        LookupError, ValueError: They are others.
    """
    made: dict[str, Tensor] = {}
    for name, (shape, dtype) in declared.tensors.items():
        kept = f"{name} {restart}"
        tensor, factor = checkpoint.tensors[kept], checkpoint.header["factors"].get(kept)
        if (tuple(tensor.shape), tensor.dtype) != (shape, torch.half if factor else dtype):
            raise ValueError(f"{name} is {tensor.dtype}, {tuple(tensor.shape)}")
        made[name] = restored(tensor, factor, dtype) if factor else tensor
    return made


_WORDS = {
    "model_version": "model version",
    "ascend": "ascend: only how often events come may differ",
    "attack": "attack: only how often events come may differ",
    "stylizespec": "neural, or of other weights of styles: only how often events come may differ",
    "photos": "photo",
}


def _in_halves(settings: Settings) -> bool:
    half = optimize_pb2.CHECKPOINT_PRECISION_HALF
    return isinstance(settings, optimize_pb2.Ascend) and settings.checkpoint_precision == half


def _belongs_to(spec: Spec, settings: Settings) -> Mapping[str, str]:
    """What a checkpoint is bound to."""
    asked = type(settings)()
    asked.CopyFrom(settings)  # type: ignore[arg-type]
    paced = asked.neural if isinstance(asked, stylize_pb2.StylizeSpec) else asked
    for name in _EVENTS:
        if name in paced.DESCRIPTOR.fields_by_name:
            paced.ClearField(name)
    method = settings.DESCRIPTOR.name.lower()
    return {
        "model": spec.model.name,
        "model_version": spec.model.weights_sha256,
        "precision": spec.model.precision.value,
        "method": method,
        method: hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest(),
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
    if before["factors"]:
        yield "bits differ: the checkpoint is of half precision"
    for name in ("bucket_size", "device", "thread_count"):
        if before[name] != now[name]:
            yield f"bits may differ: {name} was {before[name]}, is {now[name]}"
    for package in sorted({*before["versions"], *now["versions"]}):
        was, version = (made["versions"].get(package, "none") for made in (before, now))
        if was != version:
            yield f"bits may differ: {package} was {was}, is {version}"
