"""Optimizations: specs from requests."""

import bisect
from dataclasses import dataclass, replace
from typing import Any, cast

from pellucid import render
from pellucid.v1 import attack_pb2, optimize_pb2

from ..engine.job import Spec
from ..engine.rows import (
    TopTarget,
)
from ..inputs import Photos, PhotoSet
from ..methods.attack.attack import Attack
from ..methods.attack.gradient import Pgd
from ..methods.attack.universal import SHOWN_PHOTOS, UniversalAttack
from ..methods.optimize.optimize import Optimize
from ..methods.optimize.snapshot import Snapshot
from ..models.registry import Model, Registry
from .adversarial import most_told_bytes
from .ascend import read_ascend, write_ascend
from .attack import read_attack, write_attack
from .checkpoints import check_checkpoint, check_checkpoints, join_checkpoint, read_checkpoint
from .fields import (
    Fields,
    Violations,
    check_sendable,
    most_picture_bytes,
)
from .limits import Call, Limits
from .requests import find_model
from .universal import read_universal, write_universal

_OPTIMIZATIONS = ("ascend", "attack")
AnyOptimize = Optimize | Attack | UniversalAttack


@dataclass(frozen=True)
class AskedOptimize:
    """A validated request.

    Attributes:
        spec: What is run.
        request: What was asked.
        settings: Of it, every parameter filled in.
        format: Of the images.
        notes: Why bits may differ from those of a run that was not interrupted.
    """

    spec: Spec
    request: optimize_pb2.OptimizeSpec
    settings: optimize_pb2.Ascend | attack_pb2.Attack
    format: render.Format
    notes: tuple[str, ...] = ()

    @property
    def image_count(self) -> int:
        method = self.spec.method
        assert isinstance(method, AnyOptimize)
        return method.image_count

    @property
    def states(self) -> tuple[Snapshot, ...]:
        """Where its images go on from."""
        method = self.spec.method
        assert isinstance(method, AnyOptimize)
        return method.states

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered."""
        return self.spec.byte_count


def read_optimize(
    request: optimize_pb2.OptimizeSpec,
    call: Call,
    registry: Registry,
    limits: Limits,
    rest: bytes | bytearray = b"",
    *,
    follows: bool = False,
) -> AskedOptimize:
    """An OptimizeSpec.

    Args:
        request: What is asked.
        call: By whom, and until when.
        registry: All models.
        limits: The server's.
        rest: Of its checkpoint, what followed it.
        follows: Whether what it says follows it is yet to come: it is then read without that, to
            be read again once all is there.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    model = find_model(found, request.model, registry)
    opaque = None if model is None else model.network.white_box_refusal
    if opaque is not None:
        found.refused(request.WhichOneof("method") or "method", f"does not apply: {opaque}")
        model = None  # nothing of its inside can be asked for
    picture = Fields(found, "", request).choice("format", "png")
    read: tuple[AnyOptimize, Photos | PhotoSet] | None = None
    match request.WhichOneof("method"), request.attack.WhichOneof("method"):
        case "ascend", _:
            read = read_ascend(found, request, model, limits)
        case "attack", "universal":
            read = read_universal(found, request, model, limits, follows=follows)
        case "attack", _:
            read = read_attack(found, request, model, registry, limits)
        case _:
            found.invalid("method", f"required; one of {', '.join(_OPTIMIZATIONS)}")
    found.raise_any()
    assert model is not None
    assert read is not None
    method, photos = read
    bucket_size = limits.optimize_buckets.of(photos.size)
    spec = Spec(
        model,
        method,
        photos,
        TopTarget(),
        call.deadline_s,
        call.caller,
        bucket_size,
        method.elsewhere if isinstance(method, Attack) else (),
    )
    if not isinstance(method, Optimize):
        _check_memory(found, spec, method, limits.max_optimize_bytes)
    settings: optimize_pb2.Ascend | attack_pb2.Attack
    match method:
        case Attack():
            settings = write_attack(method, method.source)
        case UniversalAttack():
            settings = write_universal(method)
        case _:
            settings = write_ascend(request, method)
    check_checkpoints(found, spec, settings, limits.max_checkpoint_bytes)
    _check_result(found, request, method, model, limits)
    most = limits.max_checkpoint_bytes
    given = check_checkpoint(found, request, spec, rest, most, follows=follows)
    found.raise_any()
    notes: tuple[str, ...] = ()
    if given and not follows:
        data = join_checkpoint(request, rest)
        states, notes = read_checkpoint(found, spec, settings, data, limits.checkpoint_key)
        found.raise_any()
        spec = replace(spec, method=replace(method, states=states))
    return AskedOptimize(spec, request, settings, cast(render.Format, picture), notes)


def _check_memory(
    found: Violations, spec: Spec, method: Attack | UniversalAttack, most_bytes: int
) -> None:
    """What an attack holds by itself is to fit; beside others', the queue sees to that."""
    if spec.byte_count <= most_bytes:
        return

    def byte_count(**changed: Any) -> int:
        return replace(spec, method=replace(method, **changed)).byte_count

    field, fits = "attack", []
    if isinstance(method, Attack) and isinstance(method.algorithm, Pgd):
        algorithm = method.algorithm
        starts = range(1, method.image_count)
        fitting = bisect.bisect_right(
            starts,
            most_bytes,
            key=lambda count: byte_count(algorithm=replace(algorithm, restart_count=count)),
        )
        if fitting:
            field = f"attack.{algorithm.name}.restart_count"
            fits.append(f"{fitting} starts")
    if byte_count(shows=replace(method.shows, checkpoint_every=0)) <= most_bytes:
        field = "attack.checkpoint_every"
        fits.append("no checkpoints")
    advice = f"{' or '.join(fits)} would fit" if fits else "ask for fewer layers or photos"
    found.invalid(
        field, f"makes it hold {spec.byte_count} bytes; must be at most {most_bytes}: {advice}"
    )


def _check_result(
    found: Violations,
    request: optimize_pb2.OptimizeSpec,
    method: AnyOptimize,
    model: Model,
    limits: Limits,
) -> None:
    """What comes of a job is sure to fit into a response: nobody waits for what cannot be sent."""
    count, pixel_count = method.image_count, model.network.pixel_count
    pictures, others = 1, 0  # of each image, and beside them
    match method:
        case Optimize(ascent=ascent):
            pixel_count = ascent.height_px * ascent.width_px
        case UniversalAttack():
            count, others = min(SHOWN_PHOTOS, method.photos.photo_count), 1
        case _:
            pictures, others = 2, 1
    picture, tensor = most_picture_bytes(pixel_count), 3 * 4 * pixel_count
    byte_count = count * (pictures * picture + request.include_pixels * tensor) + others * picture
    byte_count += tensor * isinstance(method, UniversalAttack)
    if not isinstance(method, Optimize):
        byte_count += most_told_bytes(method, model)
    check_sendable(
        found,
        request.WhichOneof("method") or "method",
        request.include_pixels,
        count,
        pixel_count,
        byte_count,
        limits.max_response_bytes,
    )
