"""Between Python arguments and the messages of optimizations: the core that both clients share."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from . import _adversarial, _stylize, _universal, _wire, optimizing, types
from .errors import BadArgument, StatusError, Unavailable
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
    photo: "types.Photo | None",
    guide: "types.Photo | None",
    score: str | None,
    model: str,
    format: str | None,
    include_pixels: bool,
    parameters: Mapping[str, Any],
) -> optimize_pb2.OptimizeSpec:
    """What is asked, but for a checkpoint."""
    spec = optimize_pb2.OptimizeSpec()
    _wire._set(spec, model=model, format=format, include_pixels=include_pixels)
    unknown = [name for name in parameters if name not in PARAMETERS]
    if unknown:
        known = ", ".join(PARAMETERS)
        raise BadArgument(f"{', '.join(unknown)}: not a parameter of optimize, which has {known}")
    for one, weight in _weighted(objectives):
        message = spec.ascend.objectives.add()
        _wire._set(message, weight=weight)
        _set_objective(message, one)
        if isinstance(one, int | str):
            _wire._set(message, score=score)
    kinds = {one.WhichOneof("kind") for one in spec.ascend.objectives}
    if "preset" not in parameters:
        parameters = {**_fitting(kinds), **parameters}
    _wire._set(spec.ascend, **parameters)
    for name, image in (("image", photo), ("guide", guide)):
        if image is not None:
            getattr(spec, name).CopyFrom(_wire._image(image))
    return spec


CHECKPOINT_EVERY = 50
"""Steps from one checkpoint to the next, where it is to go on by itself."""

_CHUNK_BYTES = 4 << 20
_PAUSE_S = 0.5
"""Before a server is asked again; gRPC itself has tried several times by then."""


class Course:
    """An optimization over one deadline, on however many servers.

    Args:
        spec: What is asked.
        timeout_s: The deadline of all of it in seconds.
        resume: Whether it goes on from the last checkpoint when a server leaves.
        checkpoint: What it goes on from at first; empty for nothing.
    """

    def __init__(
        self,
        spec: optimize_pb2.OptimizeSpec | stylize_pb2.StylizeSpec,
        timeout_s: float,
        *,
        resume: bool,
        checkpoint: bytes,
    ) -> None:
        settings = getattr(spec, spec.WhichOneof("method") or "")
        if resume and not settings.HasField("checkpoint_every"):
            settings.checkpoint_every = CHECKPOINT_EVERY
        self._spec, self._resume, self._checkpoint = spec, resume, checkpoint
        self._photos: list[data_pb2.Image] = []
        if isinstance(spec, optimize_pb2.OptimizeSpec):
            self._photos += spec.photos  # which go one by one: together they may be too large
            del spec.photos[:]
        self._ends_s = time.monotonic() + timeout_s
        self._parts: list[bytes] = []

    def remaining_s(self) -> float:
        return max(1e-3, self._ends_s - time.monotonic())

    @property
    def call(self) -> str:
        """The name of the call that it is made with."""
        return "Stylize" if isinstance(self._spec, stylize_pb2.StylizeSpec) else "Optimize"

    def messages(self) -> list[Message]:
        """What is sent: the spec, the checkpoint in parts, and a set's photos."""
        self._parts = []
        self._spec.checkpoint_bytes = len(self._checkpoint)
        kind: Any = optimize_pb2.OptimizeRequest
        if isinstance(self._spec, stylize_pb2.StylizeSpec):
            kind = stylize_pb2.StylizeRequest
        else:
            self._spec.photo_count = len(self._photos)
        return [
            kind(spec=self._spec),
            *(
                kind(checkpoint_chunk=self._checkpoint[start : start + _CHUNK_BYTES])
                for start in range(0, len(self._checkpoint), _CHUNK_BYTES)
            ),
            *(optimize_pb2.OptimizeRequest(photo=photo) for photo in self._photos),
        ]

    def event(self, response: optimize_pb2.OptimizeResponse | stylize_pb2.StylizeResponse) -> Any:
        """An event, or the result; None: a part of one, or of a kind that came later."""
        if not response.HasField("checkpoint"):
            if isinstance(response, stylize_pb2.StylizeResponse):
                return _stylize.event(response)
            return event(response)
        self._parts.append(response.checkpoint.chunk)
        if not response.checkpoint.last:
            return None
        self._checkpoint, self._parts = b"".join(self._parts), []
        return optimizing.Checkpoint(response.checkpoint.step, self._checkpoint)

    def pause_s(self, error: StatusError) -> float:
        """How long to wait before another server is asked.

        Raises:
            StatusError: None is to be: it was refused, or there is no time left.
        """
        going = self._resume and isinstance(error, Unavailable)
        if not going or self.remaining_s() <= _PAUSE_S:
            raise error
        return _PAUSE_S


def _fitting(kinds: set[str | None]) -> dict[str, Any]:
    """The parameters that fit what an image is to be good for, where no preset is named."""
    if kinds & {"energy", "guide"}:
        return {"preset": "mordvintsev"}
    if "code" in kinds:  # a code tells where things are: nothing is moved
        still = {"jitter_px": 0, "rotation_degrees": 0, "scaling": 0}
        return {"preset": "olah", "step_count": 400, **still}
    return {"preset": "olah"}


def _weighted(objectives: Any) -> Iterator[tuple[Any, float | None]]:
    several = isinstance(objectives, Sequence) and not isinstance(objectives, str)
    for one in objectives if several else [objectives]:
        if not isinstance(one, tuple):
            yield one, None
        elif len(one) == 2:
            yield one
        else:
            raise BadArgument(f"objectives: has {one!r}; must be (objective, weight)")


def _set_objective(message: optimize_pb2.Objective, one: Any) -> None:
    if isinstance(one, str):
        message.label = one
    elif isinstance(one, _KINDS):
        inner: Message = getattr(message, type(one).__name__.lower())
        inner.SetInParent()
        _wire._set(inner, **vars(one))
    else:
        _wire._set(message, class_index=_wire._class_index(one))


def parameter(text: str) -> tuple[str, Any]:
    """A parameter as the command line has it: NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or name not in PARAMETERS:
        raise BadArgument(
            f"--parameter: is {text!r}; must be NAME=VALUE, where names are {', '.join(PARAMETERS)}"
        )
    return name, _wire._parse(name, _FIELDS[name], value)


def event(response: optimize_pb2.OptimizeResponse) -> Any:
    """An event of a stream, or its result; None: of a kind that came later than this client."""
    match response.WhichOneof("event"):
        case "queued":
            return _wire._read(optimizing.Queued, response.queued)
        case "progress":
            return _progress(response.progress)
        case "preview":
            return _wire._read(
                optimizing.Preview, response.preview, jpeg=response.preview.image.data
            )
        case "result":
            return result(response.result)
    return None


def result(message: optimize_pb2.OptimizeResult) -> optimizing.OptimizeResult:
    """What came of an optimization."""
    images = tuple(
        optimizing.OptimizedImage(
            encoded=image.image.data,
            format=_wire._short(image.image, "format"),
            pixels=_wire._array(image.pixels) if image.HasField("pixels") else None,
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
        spread=None if spread is None else _wire._read(optimizing.ScoreSpread, spread),
        parameters=_ascend_parameters(message.ascend)
        if attack is None
        else _adversarial.attack_parameters(attack.attack),
        notes=tuple(message.notes),
        run=_wire._run(message.run),
        attack=None if attack is None or several else _adversarial.attacked(attack),
        universal=_universal.universal(message.attack.universal) if several else None,
    )


def _ascend_parameters(message: optimize_pb2.Ascend) -> dict[str, Any]:
    return {
        name: _wire._parameter(message, field)
        for name, field in _FIELDS.items()
        if name in PARAMETERS and (message.HasField(name) if field.has_presence else True)
    }


def _progress(message: optimize_pb2.OptimizeProgress) -> optimizing.Progress:
    return _wire._read(optimizing.Progress, message, terms=tuple(message.terms))
