"""Between protobuf messages and what the server works with: Spec in, results out.

Validation happens here, once, and names every violation at once.
"""

import difflib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from numpy.typing import NDArray
from pellucid import render
from pellucid.v1 import data_pb2, inference_pb2, model_pb2
from PIL import Image
from torch import Tensor

from . import photos
from .engine.costs import Costs
from .engine.job import Done, Source, Spec
from .engine.rows import ClassTarget, Lane, NeuronTarget, Target, TopTarget
from .errors import (
    CODES,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PellucidError,
    Violation,
    quoted,
)
from .inputs import ArrayPhoto, EncodedPhoto, Loaded, PreparedInput
from .methods.explain.explanation import ExplainMethod, Explanation
from .methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from .methods.explain.occlusion import Occlusion
from .methods.predict import Predict, PredictResult
from .models.network import Layer
from .models.registry import Model, Precision, Registry

ERROR_DOMAIN = "pellucid"

TOP_K = 5
PERCENTILE = 99.5
LONGEST_SIDE_PX = 1024
LEAST_SIDE_PX, MOST_SIDE_PX = 32, 4096
BLUR_SIGMA_PX = 10.0
LEAST_BLUR_SIGMA_PX, MOST_BLUR_SIGMA_PX = 0.1, 100.0
WINDOWS_A_SIDE = 7

_K = TypeVar("_K")
_N = TypeVar("_N", int, float)
_V = TypeVar("_V")

_ColorScale = Literal["signed", "absolute"]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for on this server."""

    max_photo_pixels: int
    buckets: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """Who calls, and until when; deadline_s is by time.monotonic()."""

    caller: str
    deadline_s: float


@dataclass(frozen=True)
class View:
    """What of an explanation is returned, and how it is drawn."""

    attribution: bool
    heatmap: bool
    rendering: bool
    color_scale: _ColorScale
    percentile: float
    longest_side_px: int
    format: Literal["jpeg", "png"]
    legend: bool


class _Violations:
    """Collects all that is wrong with a request, to say it at once."""

    def __init__(self) -> None:
        self._found: list[Violation] = []
        self._missing: list[Violation] = []
        self._refused: list[Violation] = []

    def invalid(self, field: str, description: str) -> None:
        self._found.append(Violation(field, description))

    def missing(self, field: str, description: str) -> None:
        """What a field names does not exist."""
        self._missing.append(Violation(field, description))

    def refused(self, field: str, description: str) -> None:
        """The model cannot do it."""
        self._refused.append(Violation(field, description))

    def raise_any(self) -> None:
        """Raises the gravest kind, with everything that was found."""
        everything = [*self._found, *self._missing, *self._refused]
        message = "; ".join(f"{v.field}: {v.description}" for v in everything)
        if self._found:
            raise InvalidArgument(message, violations=everything)
        if self._missing:
            raise NotFound(message, violations=everything)
        if self._refused:
            raise FailedPrecondition(message, violations=everything)


class _Fields:
    """Reads the scalars of one message, and notes those that are out of range."""

    def __init__(self, found: _Violations, name: str, message: Any) -> None:
        self._found, self._name = found, name
        self.message = message

    def invalid(self, field: str, description: str) -> None:
        self._found.invalid(f"{self._name}.{field}", description)

    def has(self, field: str) -> bool:
        present: bool = self.message.HasField(field)
        return present

    def number(self, field: str, default: _N, least: _N, most: _N | None) -> _N:
        """A number from least to most; without most, what bounds it is not known."""
        if not self.has(field):
            return default
        value: _N = getattr(self.message, field)
        if not (least <= value and (most is None or value <= most)):  # NaN is neither
            self.invalid(field, _outside(value, least, most))
        return value

    def choice(self, field: str, default: _K, choices: Mapping[_K, Any]) -> _K:
        """One of an enum's values; its unset 0 is the default."""
        number = getattr(self.message, field)
        if number and number not in choices.values():
            *others, last = (str(choice).upper() for choice in choices)
            self.invalid(field, f"is {number}; must be {', '.join(others)} or {last}")
        return _key_of(choices, number, default)


# Requests.


def read_predict(
    request: inference_pb2.PredictRequest, call: Call, registry: Registry, limits: Limits
) -> Spec:
    """A PredictRequest as a Spec.

    Raises:
        InvalidArgument, NotFound: With every violation.
    """
    found = _Violations()
    model = _read_model(found, request.model, registry)
    source = _read_image(found, request.image, model, limits, canvas_px=None)
    top_k = request.top_k if request.HasField("top_k") else TOP_K
    if model is not None and not 1 <= top_k <= model.network.class_count:
        if request.HasField("top_k"):
            found.invalid("top_k", _outside(top_k, 1, model.network.class_count))
        top_k = model.network.class_count
    bucket_size = _read_bucket_size(found, request, limits)
    found.raise_any()
    assert model is not None
    assert source is not None
    method = Predict(top_k, request.include_logits)
    return Spec(model, method, source, TopTarget(), call.deadline_s, call.caller, bucket_size)


def read_explain(
    request: inference_pb2.ExplainRequest, call: Call, registry: Registry, limits: Limits
) -> tuple[Spec, View]:
    """An ExplainRequest as a Spec, and what is to be returned of its result.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = _Violations()
    model = _read_model(found, request.model, registry)
    name = request.WhichOneof("method")
    wire = METHODS.get(name or "")
    method: ExplainMethod | None = None
    if wire is None:
        found.invalid("method", f"required; one of {', '.join(METHODS)}")
    else:
        message = getattr(request, wire.method.name)
        method = wire.read(_Fields(found, wire.method.name, message), model)
        refusal = None if model is None else wire.method.refusal(model)
        if model is not None and refusal is not None:
            others = [w.method.name for w in METHODS.values() if w.method.refusal(model) is None]
            found.refused("method", f"{name} does not apply: {refusal}. {', '.join(others)} do")
    target = _read_target(found, request.target, model)
    view = _read_view(found, request, wire)
    bucket_size = _read_bucket_size(found, request, limits)
    canvas_px = view.longest_side_px if view.rendering else None
    source = _read_image(found, request.image, model, limits, canvas_px)
    found.raise_any()
    assert model is not None
    assert method is not None
    assert source is not None
    return Spec(model, method, source, target, call.deadline_s, call.caller, bucket_size), view


def _read_model(found: _Violations, name: str, registry: Registry) -> Model | None:
    try:
        return registry.find(name)
    except NotFound as error:
        found.missing("model", error.message)
        return None


def _read_bucket_size(
    found: _Violations,
    request: inference_pb2.PredictRequest | inference_pb2.ExplainRequest,
    limits: Limits,
) -> int | None:
    if not request.HasField("bucket_size"):
        return None
    if request.bucket_size not in limits.buckets:
        allowed = ", ".join(map(str, limits.buckets))
        found.invalid("bucket_size", f"is {request.bucket_size}; must be one of {allowed}")
    return request.bucket_size


def _read_image(
    found: _Violations,
    image: data_pb2.Image,
    model: Model | None,
    limits: Limits,
    canvas_px: int | None,
) -> Source | None:
    kind = image.WhichOneof("kind")
    if kind is None:
        found.invalid("image", "required; either encoded or tensor")
        return None
    if kind == "encoded":
        try:
            header = photos.read_header(image.encoded, max_pixels=limits.max_photo_pixels)
        except photos.BadPhoto as error:
            found.invalid("image.encoded", str(error))
            return None
        return EncodedPhoto(image.encoded, limits.max_photo_pixels, canvas_px, header)
    array = _read_tensor(found, "image.tensor", image.tensor)
    if array is None:
        return None
    if array.dtype == np.uint8:
        return _read_photo_tensor(found, array, limits, canvas_px)
    if array.dtype == np.float32:
        return _read_prepared_tensor(found, array, model, canvas_px)
    found.invalid("image.tensor.data_type", f"is {_name_of(image.tensor)}; {_IMAGE_TENSORS}")
    return None


_IMAGE_TENSORS = "must be uint8 height × width × 3 (a photo) or float32 3 × height × width"


def _read_photo_tensor(
    found: _Violations, array: NDArray[Any], limits: Limits, canvas_px: int | None
) -> Source | None:
    if array.ndim != 3 or array.shape[2] != 3:
        found.invalid("image.tensor.shape", f"is {_times(array.shape)}; {_IMAGE_TENSORS}")
    elif array.shape[0] * array.shape[1] > limits.max_photo_pixels:
        found.invalid(
            "image.tensor.shape",
            f"has {array.shape[0] * array.shape[1]} pixels; at most {limits.max_photo_pixels}",
        )
    else:
        return ArrayPhoto(array, canvas_px)
    return None


def _read_prepared_tensor(
    found: _Violations, array: NDArray[Any], model: Model | None, canvas_px: int | None
) -> Source | None:
    if model is None:
        return None
    expected = (3, model.network.height_px, model.network.width_px)
    if array.shape != expected:
        found.invalid(
            "image.tensor.shape",
            f"is {_times(array.shape)}; an input already preprocessed (float32) for "
            f"{model.name} is {_times(expected)}, a photo is uint8 height × width × 3",
        )
        return None
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        found.invalid(
            "image.tensor.data",
            f"has {int((~finite).sum())} elements that are not finite, the first at {first}; "
            "all must be finite",
        )
        return None
    return PreparedInput(array, canvas_px)


_DTYPES: dict[int, np.dtype[Any]] = {
    data_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    data_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    data_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    data_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}


def _name_of(tensor: data_pb2.Tensor) -> str:
    dtype = _DTYPES.get(tensor.data_type)
    return str(tensor.data_type) if dtype is None else dtype.name


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"


_MOST_AXES = 4
"""Of a tensor in a request."""


def _read_tensor(found: _Violations, field: str, tensor: data_pb2.Tensor) -> NDArray[Any] | None:
    dtype = _DTYPES.get(tensor.data_type)
    shape = tuple(tensor.shape[: _MOST_AXES + 1])
    if dtype is None:
        found.invalid(f"{field}.data_type", "required; for an image uint8 or float32")
    elif len(tensor.shape) > _MOST_AXES:
        found.invalid(f"{field}.shape", f"has {len(tensor.shape)} axes; at most {_MOST_AXES}")
    elif not shape or min(shape) < 1:
        found.invalid(f"{field}.shape", f"is {_times(shape)}; every length must be at least 1")
    elif (expected := math.prod(shape) * dtype.itemsize) != len(tensor.data):
        found.invalid(
            f"{field}.data",
            f"has {len(tensor.data)} bytes; {_times(shape)} of {dtype.name} takes {expected}",
        )
    else:
        return np.frombuffer(tensor.data, dtype).reshape(shape)
    return None


def _read_target(found: _Violations, target: inference_pb2.Target, model: Model | None) -> Target:
    match target.WhichOneof("kind"):
        case "class_index":
            last = None if model is None else model.network.class_count - 1
            index = _Fields(found, "target", target).number("class_index", 0, 0, last)
            return ClassTarget(index)
        case "label" if model is not None:
            return _read_label(found, target.label, model)
        case "neuron":
            return _read_neuron(found, target.neuron, model)
        case _:
            return TopTarget()


def _read_label(found: _Violations, label: str, model: Model) -> Target:
    classes = model.classes_labelled(label)
    if not classes:
        like = _like(label, model.labels)
        found.missing("target.label", f"{quoted(label)} is not a label of {model.name}{like}")
        return TopTarget()
    if len(classes) > 1:
        found.invalid(
            "target.label",
            f"{quoted(label)} is shared by the classes {', '.join(map(str, classes))}; "
            "name one by class_index",
        )
    return ClassTarget(classes[0])


def _read_neuron(
    found: _Violations, neuron: inference_pb2.Neuron, model: Model | None
) -> NeuronTarget:
    field = "target.neuron"
    shape: tuple[int, ...] = ()
    if model is not None:
        layer = model.network.layer(neuron.layer)
        if layer is None:
            names = [known.name for known in model.network.layers]
            found.missing(
                f"{field}.layer",
                f"{quoted(neuron.layer)} is not a layer of {model.name}"
                f"{_like(neuron.layer, names)}; GetModel lists them",
            )
        elif not layer.targetable:
            found.refused(f"{field}.layer", f"{layer.name} cannot be a target: {_why_not(layer)}")
        else:
            shape = layer.shape
    fields = _Fields(found, field, neuron)
    for axis, name in enumerate(("channel", "y", "x")):
        if shape and axis >= len(shape) and fields.has(name):
            fields.invalid(name, f"{neuron.layer} has no map: it is {shape[0]} long")
        else:
            last = shape[axis] - 1 if axis < len(shape) else None
            fields.number(name, 0, 0, last)
    if not fields.has("channel"):
        fields.invalid("channel", f"required; 0 to {shape[0] - 1}" if shape else "required")
    if fields.has("y") != fields.has("x"):
        fields.invalid("x" if fields.has("y") else "y", "required where the other one is set")
    return NeuronTarget(
        neuron.layer,
        neuron.channel,
        neuron.y if fields.has("y") else None,
        neuron.x if fields.has("x") else None,
    )


def _why_not(layer: Layer) -> str:
    return layer.note or f"its output of {_times(layer.shape)} is neither channels nor maps"


def _outside(value: float, least: float, most: float | None) -> str:
    allowed = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
    return f"is {value}; must be {allowed}"


def _like(name: str, known: Sequence[str]) -> str:
    lowered = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), lowered, n=3)
    return f"; close to it: {', '.join(lowered[c] for c in close)}" if close else ""


_OUTPUTS = frozenset(
    {
        inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION,
        inference_pb2.EXPLAIN_OUTPUT_HEATMAP,
        inference_pb2.EXPLAIN_OUTPUT_RENDERING,
    }
)


def _read_view(
    found: _Violations, request: inference_pb2.ExplainRequest, wire: "MethodWire | None"
) -> View:
    wanted = set(request.outputs)
    unknown = wanted - _OUTPUTS
    if unknown:
        found.invalid(
            "outputs", f"{min(unknown)} is not an output; ATTRIBUTION, HEATMAP, RENDERING"
        )
    drawn = _Fields(found, "rendering", request.rendering)
    percentile = drawn.number("percentile", PERCENTILE, 50.0, 100.0)
    longest = drawn.number("longest_side_px", LONGEST_SIDE_PX, LEAST_SIDE_PX, MOST_SIDE_PX)
    default: _ColorScale = wire.method.color_scale if wire else "absolute"
    return View(
        attribution=inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION in wanted,
        heatmap=not wanted or inference_pb2.EXPLAIN_OUTPUT_HEATMAP in wanted,
        rendering=not wanted or inference_pb2.EXPLAIN_OUTPUT_RENDERING in wanted,
        color_scale=drawn.choice("color_scale", default, _COLOR_SCALES),
        percentile=percentile,
        longest_side_px=longest,
        format=drawn.choice("format", "jpeg", _FORMATS),
        legend=request.rendering.legend if drawn.has("legend") else True,
    )


_COLOR_SCALES: dict[_ColorScale, inference_pb2.ColorScale] = {
    "signed": inference_pb2.COLOR_SCALE_SIGNED,
    "absolute": inference_pb2.COLOR_SCALE_ABSOLUTE,
}
_FORMATS: dict[Literal["jpeg", "png"], data_pb2.ImageFormat] = {
    "jpeg": data_pb2.IMAGE_FORMAT_JPEG,
    "png": data_pb2.IMAGE_FORMAT_PNG,
}
_FILLS: dict[Literal["black", "white", "mean", "blur"], inference_pb2.Fill] = {
    "black": inference_pb2.FILL_BLACK,
    "white": inference_pb2.FILL_WHITE,
    "mean": inference_pb2.FILL_MEAN,
    "blur": inference_pb2.FILL_BLUR,
}


def _key_of(names: Mapping[_K, _V], number: _V, default: _K) -> _K:
    return next((name for name, known in names.items() if known == number), default)


# Methods: how each is read from its message, and written back with its defaults filled in.


@dataclass(frozen=True)
class MethodWire:
    """One member of ExplainRequest.method."""

    method: type[ExplainMethod]
    read: Callable[[_Fields, Model | None], ExplainMethod]
    write: Callable[[Any], Any]


def _read_occlusion(fields: _Fields, model: Model | None) -> Occlusion:
    shorter_px = None if model is None else min(model.network.height_px, model.network.width_px)
    window_px = fields.number(
        "window_px", max(1, (shorter_px or 1) // WINDOWS_A_SIDE), least=1, most=shorter_px
    )
    known = model is not None or fields.has("window_px")
    stride_px = fields.number(
        "stride_px", max(1, window_px // 2), least=1, most=max(1, window_px) if known else None
    )
    fill = fields.choice("fill", "mean", _FILLS)
    sigma_px = BLUR_SIGMA_PX
    if fill == "blur":
        sigma_px = fields.number(
            "blur_sigma_px", BLUR_SIGMA_PX, LEAST_BLUR_SIGMA_PX, MOST_BLUR_SIGMA_PX
        )
    elif fields.has("blur_sigma_px"):
        fields.invalid("blur_sigma_px", "allowed with FILL_BLUR only")
    return Occlusion(window_px, stride_px, fill, sigma_px)


def _write_occlusion(method: Occlusion) -> inference_pb2.Occlusion:
    return inference_pb2.Occlusion(
        window_px=method.window_px,
        stride_px=method.stride_px,
        fill=_FILLS[method.fill],
        blur_sigma_px=method.blur_sigma_px if method.fill == "blur" else None,
    )


METHODS: dict[str, MethodWire] = {
    wire.method.name: wire
    for wire in (
        MethodWire(Gradient, lambda *_: Gradient(), lambda _: inference_pb2.Gradient()),
        MethodWire(Deconvnet, lambda *_: Deconvnet(), lambda _: inference_pb2.Deconvnet()),
        MethodWire(
            GuidedBackprop, lambda *_: GuidedBackprop(), lambda _: inference_pb2.GuidedBackprop()
        ),
        MethodWire(Occlusion, _read_occlusion, _write_occlusion),
    )
}


# Responses.


def write_predict(spec: Spec, done: Done) -> inference_pb2.PredictResponse:
    """The best classes of a finished Predict."""
    method, result = spec.method, done.result
    assert isinstance(method, Predict)
    assert isinstance(result, PredictResult)
    logits = result.logits.double()
    probabilities = logits.softmax(0)
    best = probabilities.topk(method.top_k).indices.tolist()
    return inference_pb2.PredictResponse(
        run=_write_run(spec, done),
        predictions=[
            inference_pb2.Prediction(
                class_index=index,
                label=spec.model.labels[index],
                probability=float(probabilities[index]),
                logit=float(logits[index]),
            )
            for index in best
        ],
        logits=_write_tensor(result.logits) if method.include_logits else None,
    )


def write_explain(spec: Spec, view: View, done: Done) -> inference_pb2.ExplainResponse:
    """A finished explanation, rendered."""
    result, loaded = done.result, done.loaded
    assert isinstance(result, Explanation)
    assert isinstance(loaded, Loaded)
    started_s = time.monotonic()
    x_px, y_px, width_px, height_px = loaded.input_box
    wire = METHODS[spec.method.name]
    response = inference_pb2.ExplainResponse(
        target=_write_target(spec, result),
        input_box=data_pb2.Box(x_px=x_px, y_px=y_px, width_px=width_px, height_px=height_px),
        attribution=_write_tensor(result.attribution) if view.attribution else None,
        occlusion_details=_write_occlusion_details(spec, result),
    )
    getattr(response, wire.method.name).CopyFrom(wire.write(spec.method))
    if view.heatmap or view.rendering:
        attribution = result.attribution.numpy()
        values = render.reduce_channels(attribution, view.color_scale)
        limit = render.limit_of(values, view.percentile)
        response.heatmap.color_scale = _COLOR_SCALES[view.color_scale]
        response.heatmap.limit = limit
        response.heatmap.percentile = view.percentile
        if view.heatmap:
            grey = render.quantize(values, limit, view.color_scale)
            response.heatmap.image.CopyFrom(_write_picture(Image.fromarray(grey), "png"))
        if view.rendering:
            assert loaded.canvas is not None
            scale = loaded.canvas.shape[1] / loaded.photo_size[0]
            scale_y = loaded.canvas.shape[0] / loaded.photo_size[1]
            picture = render.overlay(
                loaded.canvas,
                values,
                box=(x_px * scale, y_px * scale_y, width_px * scale, height_px * scale_y),
                limit=limit,
                color_scale=view.color_scale,
                percentile=view.percentile,
                legend=view.legend,
            )
            response.rendering.CopyFrom(_write_picture(picture, view.format))
    response.run.CopyFrom(_write_run(spec, done, (time.monotonic() - started_s) * 1e3))
    return response


def _write_picture(picture: Any, file_format: Literal["jpeg", "png"]) -> data_pb2.EncodedImage:
    return data_pb2.EncodedImage(
        format=_FORMATS[file_format],
        data=render.encode(picture, file_format),
        width_px=picture.width,
        height_px=picture.height,
    )


def _write_target(spec: Spec, result: Explanation) -> inference_pb2.ResolvedTarget:
    response = inference_pb2.ResolvedTarget(
        score=result.score, top_prediction=isinstance(spec.target, TopTarget)
    )
    match result.target:
        case ClassTarget(index=index):
            response.class_index = index
            response.label = spec.model.labels[index]
        case NeuronTarget(layer=layer, channel=channel, y=y, x=x):
            response.neuron.CopyFrom(inference_pb2.Neuron(layer=layer, channel=channel, y=y, x=x))
    return response


def _write_occlusion_details(
    spec: Spec, result: Explanation
) -> inference_pb2.OcclusionDetails | None:
    method, falls = spec.method, result.falls
    if not isinstance(method, Occlusion):
        return None
    assert falls is not None
    flat = falls.flatten()
    details = inference_pb2.OcclusionDetails(
        falls=_write_tensor(falls),
        largest_fall=_write_window(spec, method, int(flat.argmax())),
    )
    if float(flat.min()) < 0:
        details.largest_rise.CopyFrom(_write_window(spec, method, int(flat.argmin())))
    return details


def _write_window(spec: Spec, method: Occlusion, index: int) -> data_pb2.Box:
    network = spec.model.network
    ys, xs = method.window(index, network.height_px, network.width_px)
    return data_pb2.Box(
        x_px=xs.start, y_px=ys.start, width_px=xs.stop - xs.start, height_px=ys.stop - ys.start
    )


def _write_tensor(tensor: Tensor) -> data_pb2.Tensor:
    array = np.ascontiguousarray(tensor.to(torch.float32).numpy(), dtype="<f4")
    return data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()
    )


_PRECISIONS = {
    Precision.FLOAT32: model_pb2.PRECISION_FLOAT32,
    Precision.FLOAT64: model_pb2.PRECISION_FLOAT64,
}
_INTERPOLATIONS = {
    "bilinear": model_pb2.INTERPOLATION_BILINEAR,
    "bicubic": model_pb2.INTERPOLATION_BICUBIC,
}
_LANES = {Lane.FORWARD: model_pb2.LANE_FORWARD, Lane.GRADIENT: model_pb2.LANE_GRADIENT}


def _write_run(spec: Spec, done: Done, render_ms: float = 0.0) -> inference_pb2.Run:
    model, timing = spec.model, done.timing
    return inference_pb2.Run(
        model=model.name,
        model_version=model.version,
        preprocessing=_write_preprocessing(model),
        precision=_PRECISIONS[model.precision],
        device=model.network.device.type,
        decode_ms=(timing.ready_s - timing.decode_started_s) * 1e3,
        queue_ms=timing.queue_ms,
        run_ms=(timing.finished_s - timing.launched_s) * 1e3,
        render_ms=render_ms,
        batches=[
            inference_pb2.Batch(
                bucket_size=ride.bucket_size,
                row_count=ride.row_count,
                own_row_count=ride.own_row_count,
            )
            for ride in done.rides
        ],
    )


def _write_preprocessing(model: Model) -> model_pb2.Preprocessing:
    steps = model.preprocessing
    return model_pb2.Preprocessing(
        resize_shorter_side_px=steps.resize_shorter_side_px,
        height_px=steps.height_px,
        width_px=steps.width_px,
        interpolation=_INTERPOLATIONS[steps.interpolation],
        mean=steps.mean,
        std=steps.std,
    )


def write_models(registry: Registry) -> model_pb2.ListModelsResponse:
    """All models, those that failed to load included."""
    summaries = [
        model_pb2.ModelSummary(name=model.name, ready=True, version=model.version)
        for model in registry.values()
    ]
    summaries += [
        model_pb2.ModelSummary(name=failed.name, ready=False, reason=failed.reason)
        for failed in registry.failed
    ]
    summaries.sort(key=lambda summary: summary.name)
    return model_pb2.ListModelsResponse(models=summaries)


def write_model(
    name: str, registry: Registry, costs_of: Callable[[Model], Costs]
) -> model_pb2.GetModelResponse:
    """One model in full.

    Raises:
        NotFound: There is none of that name.
    """
    for failed in registry.failed:
        if failed.name == name:
            return model_pb2.GetModelResponse(name=name, ready=False, reason=failed.reason)
    found = _Violations()
    model = _read_model(found, name, registry)
    found.raise_any()
    assert model is not None
    network = model.network
    return model_pb2.GetModelResponse(
        name=model.name,
        ready=True,
        version=model.version,
        architecture=model.architecture,
        preprocessing=_write_preprocessing(model),
        precision=_PRECISIONS[model.precision],
        layers=[
            model_pb2.Layer(
                name=layer.name,
                type=layer.kind,
                shape=layer.shape,
                targetable=layer.targetable,
                note=layer.note,
            )
            for layer in network.layers
        ],
        methods=[
            model_pb2.MethodSupport(method=Predict.name, supported=True),
            *(
                model_pb2.MethodSupport(
                    method=method, supported=refusal is None, reason=refusal or ""
                )
                for method, wire in METHODS.items()
                for refusal in [wire.method.refusal(model)]
            ),
        ],
        labels=model.labels,
        costs=[
            model_pb2.BatchCost(lane=_LANES[lane], bucket_size=bucket, row_ms=batch_ms / bucket)
            for (lane, bucket), batch_ms in sorted(
                costs_of(model).snapshot().items(), key=lambda item: (item[0][0].value, item[0][1])
            )
        ],
        gate_count=network.gates.site_count,
        device=network.device.type,
    )


def write_error(error: PellucidError) -> status_pb2.Status:
    """An error as google.rpc.Status, with its reason, violations and retry delay."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.violations
                ]
            )
        )
    if error.retry_delay_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil(error.retry_delay_ms))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    code = CODES[type(error)].grpc
    return status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=error.message, details=packed
    )
