"""Between Python arguments and the messages of optimizations: the core that both clients share."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from google.protobuf.message import Message

from . import _adversarial, _stylize, _universal, optimizing, stylizing, types
from ._wire.arrays import array_of
from ._wire.calls import deadline_s
from ._wire.fields import parameter_of, parse, read, set_fields, short_name
from ._wire.photos import checked, image_of, images_of, listed
from ._wire.requests import class_index_of
from ._wire.responses import run_of
from .errors import (
    BadArgument,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    StatusError,
    Unavailable,
)
from .v1 import data_pb2, optimize_pb2, stylize_pb2

_FIELDS = optimize_pb2.Ascend.DESCRIPTOR.fields_by_name
PARAMETERS = tuple(name for name in _FIELDS if name != "objectives")
"""Everything that an optimization can be told besides what for."""

_KINDS = (
    types.Neuron,
    optimizing.Direction,
    optimizing.Code,
    optimizing.Energy,
    optimizing.Guide,
    optimizing.Diversity,
)


def optimize_request(
    objectives: "optimizing.Objectives",
    *,
    score: str | None,
    model: str,
    format: str | None,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> optimize_pb2.OptimizeSpec:
    """What is asked, but for photos and a checkpoint."""
    spec = optimize_pb2.OptimizeSpec()
    set_fields(spec, model=model, format=format, include_pixels=include_pixels)
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        known = ", ".join(PARAMETERS)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of optimize, which has {known}")
    for one, weight in _weighted(objectives):
        message = spec.ascend.objectives.add()
        set_fields(message, weight=weight)
        _set_objective(message, one)
        if isinstance(one, int | str):
            set_fields(message, score=score)
    kinds = {one.WhichOneof("kind") for one in spec.ascend.objectives}
    if "preset" not in parameters:
        parameters = {**_fitting(kinds), **parameters}
    set_fields(spec.ascend, **parameters)
    return spec


CHECKPOINT_EVERY = 50
"""Steps from one checkpoint to the next, where it is to go on by itself."""

_CHUNK_BYTES = 1 << 20
_PAUSE_S = 0.5
"""Before a server is asked again; gRPC itself has tried several times by then."""


class Course:
    """An optimization over one deadline, on however many servers.

    The deadline is counted from here on.

    Args:
        spec: What is asked, but for photos and a checkpoint.
        timeout_s: The deadline of all of it in seconds.
        photos: Those of its fields, which read_photos reads.
        photo_set: Those of a job of many photos.
        resume: Whether it goes on from the last checkpoint when a server leaves.
        resume_from: What it goes on from at first; None: nothing.

    Raises:
        BadArgument: A photo or the deadline is of no use.
    """

    def __init__(
        self,
        spec: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec,
        timeout_s: float,
        *,
        photos: "Sequence[tuple[data_pb2.Image, types.Photo]]" = (),
        photo_set: "Sequence[types.Photo]" = (),
        resume: bool,
        resume_from: "optimizing.Checkpoint | bytes | None",
    ) -> None:
        self._ends_s = deadline_s(timeout_s)
        settings = getattr(spec, spec.WhichOneof("method") or "")
        long = "checkpoint_every" in settings.DESCRIPTOR.fields_by_name
        self._chosen: Any = None  # settings, where it is not the caller who asks for checkpoints
        if resume and long and not settings.HasField("checkpoint_every"):
            settings.checkpoint_every = CHECKPOINT_EVERY
            self._chosen = settings
        self._spec, self._resume = spec, resume
        self._photos = [(image, checked(photo)) for image, photo in photos]
        self._photo_set = listed(photo_set)
        self._set: list[data_pb2.Image] = []  # which go one by one: together may be too large
        if isinstance(resume_from, optimizing.Checkpoint):
            resume_from = resume_from.data
        self._first = resume_from or b""
        self._own: optimizing.Checkpoint | None = None
        self._parts: list[bytes] = []
        self._begun = self._ended = False
        self._lost: StatusError | None = None
        self._notes: list[str] = []

    def read_photos(self) -> None:
        """Reads them, which takes a while.

        Raises:
            PhotoNotFound: There is no such file.
            BadArgument: One cannot be read.
        """
        for image, photo in self._photos:
            image.CopyFrom(image_of(photo))
        self._set = images_of(self._photo_set)

    def remaining_s(self) -> float:
        return max(1e-3, self._ends_s - time.monotonic())

    @property
    def call(self) -> str:
        """The name of the call that it is made with."""
        return "Stylize" if isinstance(self._spec, stylize_pb2.StylizeSpec) else "Optimize"

    def messages(self) -> list[Message]:
        """What is sent: the spec, the checkpoint in parts, and a set's photos."""
        self._parts = []
        checkpoint = self._first if self._own is None else self._own.data
        self._spec.checkpoint_bytes = len(checkpoint)
        kind: Any = optimize_pb2.OptimizeRequest
        if isinstance(self._spec, stylize_pb2.StylizeSpec):
            kind = stylize_pb2.StylizeRequest
        else:
            self._spec.photo_count = len(self._set)
        return [
            kind(spec=self._spec),
            *(
                kind(checkpoint_chunk=checkpoint[start : start + _CHUNK_BYTES])
                for start in range(0, len(checkpoint), _CHUNK_BYTES)
            ),
            *(optimize_pb2.OptimizeRequest(photo=photo) for photo in self._set),
        ]

    def event(self, response: optimize_pb2.OptimizeResponse | stylize_pb2.StylizeResponse) -> Any:
        """An event, or the result; None: a part of one, or of a kind that came later."""
        self._begun, self._lost = True, None
        if response.HasField("checkpoint"):
            return self._checkpoint(response.checkpoint)
        if isinstance(response, stylize_pb2.StylizeResponse):
            made = _stylize.event(response)
        else:
            made = event(response)
        if isinstance(made, optimizing.OptimizeResult | stylizing.Stylized):
            self._ended = True
            made = dataclasses.replace(made, notes=(*self._notes, *made.notes))
        return made

    def end(self) -> None:
        """The stream is over.

        Raises:
            Internal: Without a result.
        """
        if not self._ended:
            raise Internal("the server's stream ended without a result")

    def pause_s(self, error: StatusError) -> float:
        """How long to wait before a server is asked again.

        Only what has begun is gone on with: from its last checkpoint, or from its beginning
        where a server refuses that. Checkpoints that only this asked for are done without where
        they are too much for a server.

        Raises:
            StatusError: None is to be asked, or there is no time left.
        """
        if self._lost is not None and isinstance(error, DeadlineExceeded) and not error.reason:
            raise self._lost from error  # time ran out, and this is on what
        if self._chosen is not None and _is_of_making_checkpoints(error):
            self._notes.append(f"it was made without checkpoints ({error})")
            self._chosen.ClearField("checkpoint_every")
            self._chosen = None
            return 0.0
        if not (self._resume and self._begun):
            raise error
        if isinstance(error, Unavailable):
            pause_s = _PAUSE_S
        elif isinstance(error, ResourceExhausted) and error.retry_delay_s is not None:
            pause_s = error.retry_delay_s
        elif self._own is not None and _is_of_checkpoint(error):
            note = f"the server refused the checkpoint of step {self._own.step} ({error})"
            self._notes.append(f"{note}: it was started over")
            self._own, pause_s = None, 0.0
        else:
            raise error
        if pause_s >= self.remaining_s():
            raise error
        self._lost = error
        return pause_s

    def _checkpoint(
        self, message: optimize_pb2.OptimizeCheckpoint
    ) -> "optimizing.Checkpoint | None":
        self._parts.append(message.chunk)
        if not message.last:
            return None
        self._own = optimizing.Checkpoint(message.step, b"".join(self._parts))
        self._parts = []
        return self._own


def _is_of_checkpoint(error: StatusError) -> bool:
    """Whether it is the checkpoint that a server refuses: its key, its model or its size."""
    return isinstance(error, InvalidArgument) and any(
        violation.field.startswith("checkpoint") for violation in error.violations
    )


def _is_of_making_checkpoints(error: StatusError) -> bool:
    """Whether it is only that a job's checkpoints are too large, or too much for memory."""
    fields = [violation.field for violation in error.violations]
    return (
        isinstance(error, InvalidArgument)
        and bool(fields)
        and all(field.endswith(".checkpoint_every") for field in fields)
    )


def _fitting(kinds: set[str | None]) -> dict[str, Any]:
    """The parameters that fit what an image is to be good for, where no preset is named."""
    if kinds & {"energy", "guide"}:
        return {"preset": "mordvintsev"}
    if "code" in kinds:  # a code tells where things are: nothing is moved
        still = {"jitter_px": 0, "rotation_degrees": 0, "scaling": 0}
        return {"preset": "olah", "step_count": 400, **still}
    return {"preset": "olah"}


def _weighted(objectives: Any) -> Iterator[tuple[Any, float | None]]:
    """Each objective with its weight: see optimizing.Objectives."""
    if _is_pair(objectives):
        if all(isinstance(one, Integral) for one in objectives):
            both, weighted = list(objectives), [objectives]
            raise BadArgument(
                f"objectives: is {objectives!r}; must be {both!r} for two classes, or "
                f"{weighted!r} for one and its weight"
            )
        objectives = [objectives]
    several = isinstance(objectives, Sequence) and not isinstance(objectives, str)
    for one in objectives if several else [objectives]:
        if not isinstance(one, tuple):
            yield one, None
        elif _is_pair(one):
            yield one
        else:
            raise BadArgument(f"objectives: has {one!r}; must be (objective, weight)")


def _is_pair(value: Any) -> bool:
    """Whether it is an objective and a number, its weight."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Real)


def _set_objective(message: optimize_pb2.Objective, one: Any) -> None:
    if isinstance(one, str):
        message.label = one
    elif isinstance(one, _KINDS):
        inner: Message = getattr(message, type(one).__name__.lower())
        inner.SetInParent()
        set_fields(inner, **vars(one))
    else:
        set_fields(message, class_index=class_index_of(one))


def parameter(text: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS:
        raise BadArgument(
            f"--parameter: is {text!r}; must be NAME=VALUE, where names are {', '.join(PARAMETERS)}"
        )
    return name, parse(name, _FIELDS[name], value)


def event(response: optimize_pb2.OptimizeResponse) -> Any:
    """An event of a stream, or its result; None: of a kind that came later than this client."""
    match response.WhichOneof("event"):
        case "queued":
            return read(optimizing.Queued, response.queued)
        case "progress":
            return _progress(response.progress)
        case "preview":
            return read(optimizing.Preview, response.preview, jpeg=response.preview.image.data)
        case "result":
            return result(response.result)
    return None


def result(message: optimize_pb2.OptimizeResult) -> optimizing.OptimizeResult:
    """What came of an optimization."""
    images = tuple(
        optimizing.OptimizedImage(
            encoded=image.image.data,
            format=short_name(image.image, "format"),
            pixels=array_of(image.pixels) if image.HasField("pixels") else None,
            seed=image.seed,
            progress=_progress(image.progress),
            stop_reason=image.stop_reason,
            adversarial=_adversarial.adversarial(image.adversarial)
            if image.HasField("adversarial")
            else None,
        )
        for image in message.images
    )
    spread = message.spread if message.HasField("spread") else None
    attack = message.attack if message.HasField("attack") else None
    several = attack is not None and attack.HasField("universal")
    return optimizing.OptimizeResult(
        images=images,
        best=images[message.best],
        spread=None if spread is None else read(optimizing.ScoreSpread, spread),
        parameters=_ascend_parameters(message.ascend)
        if attack is None
        else _adversarial.attack_parameters(attack.attack),
        notes=tuple(message.notes),
        run=run_of(message.run),
        attack=None if attack is None or several else _adversarial.attacked(attack),
        universal=_universal.universal(message.attack.universal) if several else None,
    )


def _ascend_parameters(message: optimize_pb2.Ascend) -> dict[str, Any]:
    return {
        name: parameter_of(message, field)
        for name, field in _FIELDS.items()
        if name in PARAMETERS and (message.HasField(name) if field.has_presence else True)
    }


def _progress(message: optimize_pb2.OptimizeProgress) -> optimizing.Progress:
    return read(optimizing.Progress, message, terms=tuple(message.terms))
