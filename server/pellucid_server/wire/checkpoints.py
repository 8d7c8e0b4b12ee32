"""Checkpoints of optimizations: what they belong to, and what they hold."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pellucid.v1 import attack_pb2, checkpoint_pb2, optimize_pb2, stylize_pb2
from torch import Tensor

from ..checkpoints import BadCheckpoint, Checkpoint, halved, restored, unpack
from ..engine.job import Spec
from ..methods.optimize.snapshot import Declared, Resumable, Snapshot, snapshot_bytes
from ..versions import VERSIONS
from .fields import Violations

_CHUNK_BYTES = 2 << 20
"""Clients of gRPC that set no cap of their own take messages of 4 MiB."""

_EVENTS = ("progress_every", "preview_every", "checkpoint_every", "checkpoint_precision")


class Collector:
    """The newest state of each image of a job, until there is one of all of them.

    Args:
        count: Of images.
        states: Where the job goes on from: of what has ended already there is nothing newer.
    """

    def __init__(self, count: int, states: Sequence[Snapshot] = ()) -> None:
        self._count = count
        self._snapshots = {state.restart: state for state in states if state.ended}

    def add(self, snapshot: Snapshot) -> Sequence[Snapshot] | None:
        """All of them, in order, once the last one has come."""
        kept = self._snapshots
        self._snapshots = {k: s for k, s in kept.items() if s.fits(snapshot)}
        self._snapshots[snapshot.restart] = snapshot
        if len(self._snapshots) < self._count:
            return None
        complete = self._snapshots
        self._snapshots = {k: s for k, s in complete.items() if s.ended}
        return [complete[restart] for restart in range(self._count)]


Settings = optimize_pb2.Ascend | attack_pb2.Attack | stylize_pb2.StylizeSpec
"""What was asked, every parameter filled in."""


def write_checkpoint(
    spec: Spec,
    settings: Settings,
    snapshots: Sequence[Snapshot],
    key: bytes,
    notes: Sequence[str] = (),
    most_bytes: int = 2 * _CHUNK_BYTES,
) -> Iterator[optimize_pb2.OptimizeCheckpoint]:
    """A checkpoint, in parts that are made as they are taken.

    Args:
        spec: Of the job.
        settings: Of the request.
        snapshots: Of all images, in their order.
        key: Signs it.
        notes: Those of what the job itself went on from.
        most_bytes: Of a response, as it is or in base64.
    """
    images = [
        {
            "octave": one.octave,
            "step": one.step,
            "total": one.total,
            "ended": one.ended,
            "numbers": dict(one.numbers),
        }
        for one in snapshots
    ]
    tensors = {
        f"{name} {snapshot.restart}": tensor
        for snapshot in snapshots
        for name, tensor in snapshot.tensors.items()
    }
    factors: dict[str, float] = {}
    if in_halves(settings):
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name], factors[name] = halved(tensor)
    header = {
        **_belongs_to(spec, settings),
        **_made_by(spec),
        "images": images,
        "factors": factors,
        "notes": list(notes),
    }
    step = min(snapshot.total for snapshot in snapshots)
    chunks = _chunks(Checkpoint(header, tensors).parts(key), min(_CHUNK_BYTES, most_bytes // 2))
    chunk = next(chunks)
    for after in chunks:
        yield optimize_pb2.OptimizeCheckpoint(step=step, chunk=chunk)
        chunk = after
    yield optimize_pb2.OptimizeCheckpoint(step=step, chunk=chunk, last=True)


def _chunks(parts: Iterable[bytes | memoryview], chunk_bytes: int) -> Iterator[bytes]:
    """The same bytes, so many at a time, each copied once."""
    pieces: list[memoryview] = []
    room = chunk_bytes
    for part in parts:
        rest = memoryview(part)
        while rest:
            pieces.append(rest[:room])
            rest = rest[room:]
            room -= len(pieces[-1])
            if room == 0:
                yield b"".join(pieces)
                pieces, room = [], chunk_bytes
    if pieces:
        yield b"".join(pieces)


def most_checkpoint_bytes(spec: Spec, *, in_halves: bool = False) -> int:
    """Bytes of the largest checkpoint that a job can make, or go on from; 0: it makes none."""
    method = cast(Resumable, spec.method)
    tensors = snapshot_bytes(method, spec.model)
    if not tensors:
        return 0
    entries = max(len(one.tensors) + len(one.numbers) for one in method.declared(spec.model))
    written = _MOST_HEADER_BYTES + method.image_count * (1 + entries) * _MOST_ENTRY_BYTES
    return written + (tensors // 2 if in_halves else tensors)


_MOST_HEADER_BYTES = 64 << 10
_MOST_ENTRY_BYTES = 512
"""Of a tensor's name, shape, place and factor; of a number and its name; of an image's steps."""


def check_checkpoint(
    found: Violations,
    request: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec,
    spec: Spec,
    rest: bytes | bytearray,
    most_bytes: int,
    *,
    follows: bool,
) -> bool:
    """Whether there is a checkpoint, of a size that this job's have, and nothing of it missing."""
    byte_count = request.checkpoint_bytes
    most = min(most_checkpoint_bytes(spec), most_bytes)
    field = "checkpoint_bytes" if byte_count else "checkpoint"
    count = len(request.checkpoint) + byte_count
    if byte_count < 0:
        found.invalid(field, f"is {byte_count}; must be at least 0")
    elif count and not most:
        found.invalid(field, "is for jobs that make checkpoints; this one makes none")
    elif count > most:
        found.invalid(field, f"makes {count} bytes; a checkpoint of this job has at most {most}")
    elif byte_count != len(rest) and not follows:
        found.invalid(field, "is for streams, in which more follows; here checkpoint has it all")
    return count > 0


def join_checkpoint(
    request: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec, rest: bytes | bytearray
) -> bytes | bytearray:
    """A request's own checkpoint and what followed of it, copied where it is in two parts only."""
    own = request.checkpoint
    return b"".join((own, rest)) if own and rest else own or rest


def check_checkpoints(found: Violations, spec: Spec, settings: Settings, most_bytes: int) -> None:
    """What a job gives away it can be given again."""
    byte_count, paced = most_checkpoint_bytes(spec, in_halves=in_halves(settings)), _paced(settings)
    if paced.checkpoint_every and byte_count > most_bytes:
        found.invalid(
            f"{paced.DESCRIPTOR.name.lower()}.checkpoint_every",
            f"makes checkpoints of {byte_count} bytes; this server goes on from at most "
            f"{most_bytes}",
        )


def read_checkpoint(
    found: Violations, spec: Spec, settings: Settings, data: bytes | bytearray, key: bytes
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
        declared, images = method.declared(spec.model), header["images"]
        if len(images) != method.image_count:
            raise ValueError(f"it has {len(images)} images")
        snapshots = tuple(
            Snapshot(
                restart,
                image["octave"],
                image["step"],
                image["total"],
                _tensors_of(checkpoint, restart, declared[image["octave"]]),
                {name: float(image["numbers"][name]) for name in declared[image["octave"]].numbers},
                ended=image["ended"],
                rounded=bool(header["factors"]),
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


def in_halves(settings: Settings) -> bool:
    """Whether checkpoints are of half precision."""
    return _paced(settings).checkpoint_precision == checkpoint_pb2.CHECKPOINT_PRECISION_HALF


def _paced(
    settings: Settings,
) -> optimize_pb2.Ascend | attack_pb2.Attack | stylize_pb2.Neural:
    """What says how often events come."""
    return settings.neural if isinstance(settings, stylize_pb2.StylizeSpec) else settings


def _belongs_to(spec: Spec, settings: Settings) -> Mapping[str, str]:
    """What a checkpoint is bound to."""
    asked = type(settings)()
    asked.CopyFrom(settings)  # type: ignore[arg-type]
    paced = _paced(asked)
    for name in _EVENTS:
        paced.ClearField(name)
    method = settings.DESCRIPTOR.name.lower()
    text = json.dumps(_canonical(asked), sort_keys=True, allow_nan=False)
    return {
        "model": spec.model.name,
        "model_version": spec.model.weights_sha256,
        "precision": spec.model.precision.value,
        "method": method,
        method: hashlib.sha256(text.encode()).hexdigest(),
        "photos": spec.source.sha256,
    }


def _canonical(message: Message, *, filled_in: bool = True) -> Mapping[str, Any]:
    """A message as JSON's types, which no version of protobuf writes otherwise.

    Where parameters are all filled in, those that are 0 or false are left out: one that is new, and
    off, is not another setting. In lists, of objectives, 0 is kept apart from nothing.
    """
    made: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.is_repeated:
            nested = field.message_type is not None
            made[field.name] = [_canonical(v, filled_in=False) if nested else v for v in value]
        elif field.message_type is not None:
            made[field.name] = _canonical(value, filled_in=filled_in)
        elif value or not filled_in or _is_of_several(field):
            made[field.name] = value
    return made


def _is_of_several(field: FieldDescriptor) -> bool:
    """Whether that it is set says which of a oneof's fields is; `optional` makes a oneof of one."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


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
