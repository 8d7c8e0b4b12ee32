"""Requests as specs. Validation happens here, once, and names every violation at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pellucid import render
from pellucid.v1 import (
    codes_pb2,
    data_pb2,
    inference_pb2,
    inspect_pb2,
    optimize_pb2,
    stylize_pb2,
)

from .. import photos
from ..engine.job import Source, Spec
from ..engine.rows import ClassesTarget, ClassTarget, NeuronTarget, Score, Target, TopTarget
from ..errors import NotFound, PellucidError, quoted
from ..inputs import ArrayPhoto, EncodedPhoto, PhotoSource, PreparedInput
from ..methods.explain.cams import (
    GradCam,
    GradCamPlusPlus,
    GuidedGradCam,
    HiResCam,
    LayerCam,
    ScoreCam,
)
from ..methods.explain.explain import Explain
from ..methods.explain.explanation import ExplainMethod
from ..methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop, InputXGradient
from ..methods.explain.occlusion import Occlusion
from ..methods.explain.paths import ExpectedGradients, IntegratedGradients, SmoothGrad
from ..methods.explain.programs import AttentionRollout, DeepLift, Lrp
from ..methods.explain.rise import Rise
from ..methods.explain.segments import KernelShap, Lime
from ..methods.optimize.optimize import Buckets
from ..methods.predict import Predict
from ..models.network import OUTPUT
from ..models.registry import Model, Registry
from ..models.sizes import Shapes
from .evidence import read_measures, read_until
from .fields import (
    DTYPES,
    Fields,
    Violations,
    check_finite,
    find_layer,
    like,
    one_of,
    outside,
    read_parameters,
    read_tensor,
    times,
    why_not,
)

TOP_K = 5
PERCENTILE = 99.5
LONGEST_SIDE_PX = 1024
LEAST_SIDE_PX, MOST_SIDE_PX = 32, 4096
MOST_ATTACHED = 8
MOST_IMAGES = 64

_Asked = TypeVar("_Asked")


@dataclass(frozen=True)
class Limits:
    """What a request may ask for on this server."""

    max_photo_pixels: int
    buckets: tuple[int, ...]
    max_optimize_pixels: int
    optimize_buckets: Buckets
    checkpoint_key: bytes
    max_optimize_bytes: int = 1 << 30
    max_checkpoint_bytes: int = 256 << 20
    max_photo_set_bytes: int = 256 << 20
    max_response_bytes: int = 32 << 20


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
    color_scale: render.ColorScale
    percentile: float
    longest_side_px: int
    format: render.Format
    legend: bool

    @property
    def canvas_px(self) -> int | None:
        """The longest side of the photo to draw on; None where nothing is drawn."""
        return self.longest_side_px if self.rendering else None

    @property
    def outputs(self) -> list[inference_pb2.ExplainOutput]:
        """The parts that are returned, as they are asked for."""
        return [number for number, name in _OUTPUTS.items() if getattr(self, name)]


# Requests.


@dataclass(frozen=True)
class Explained:
    """An explanation that is asked for: how, of what, and what of it is returned."""

    method: Explain
    target: Target
    view: View


@dataclass(frozen=True)
class Asked:
    """A validated request.

    Attributes:
        spec: Of the prediction, or of the explanation.
        view: Of the explanation.
        attached: The explanations that are sent along with the prediction.
        explain_budget_ms: When they are given up, after the request's arrival.
    """

    spec: Spec
    view: View | None = None
    attached: tuple[Explained, ...] = ()
    explain_budget_ms: float | None = None

    @property
    def byte_count(self) -> int:
        """Bytes that it holds until it is answered."""
        model = self.spec.model
        return self.spec.byte_count + sum(e.method.byte_count(model) for e in self.attached)


def read_predict(
    request: inference_pb2.PredictRequest, call: Call, registry: Registry, limits: Limits
) -> Asked:
    """A PredictRequest.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    [asked] = _read_predict(found, request, call, registry, limits, [(found, request.image)])
    assert isinstance(asked, Asked)
    return asked


def read_predict_batch(
    request: inference_pb2.PredictBatchRequest, call: Call, registry: Registry, limits: Limits
) -> list[Asked | PellucidError]:
    """A PredictBatchRequest: for each image the request, or what is wrong with that image.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation that concerns all.
    """
    found = Violations()
    images = _read_images(found, request.images, request.predict.HasField("image"), "predict")
    inner = found.inside("predict")
    return _read_predict(inner, request.predict, call, registry, limits, images)


def read_explain(
    request: inference_pb2.ExplainRequest,
    call: Call,
    registry: Registry,
    limits: Limits,
    *,
    watched: bool = False,
) -> Asked:
    """An ExplainRequest.

    Args:
        request: What is asked.
        call: Who asks.
        registry: The models.
        limits: What may be asked for.
        watched: Whether estimates are shown as they are made.

    Raises:
        InvalidArgument, NotFound, FailedPrecondition: With every violation.
    """
    found = Violations()
    images = [(found, request.image)]
    [asked] = _read_explain(found, request, call, registry, limits, images, watched=watched)
    assert isinstance(asked, Asked)
    return asked


def read_explain_batch(
    request: inference_pb2.ExplainBatchRequest, call: Call, registry: Registry, limits: Limits
) -> list[Asked | PellucidError]:
    """An ExplainBatchRequest, as read_predict_batch."""
    found = Violations()
    images = _read_images(found, request.images, request.explain.HasField("image"), "explain")
    inner = found.inside("explain")
    return _read_explain(inner, request.explain, call, registry, limits, images)


BatchedImage = tuple[Violations, data_pb2.Image]
"""An image, and where what is wrong with it is noted."""


def _read_images(
    found: Violations, images: Sequence[data_pb2.Image], has_image: bool, inner: str
) -> list[BatchedImage]:
    if has_image:
        found.invalid(f"{inner}.image", "must be unset; the images are in images")
    return read_images(found, images)


def read_images(found: Violations, images: Sequence[data_pb2.Image]) -> list[BatchedImage]:
    """The images of a batch; none where they are too few or too many."""
    if not 1 <= len(images) <= MOST_IMAGES:
        found.invalid("images", f"has {len(images)}; must have 1 to {MOST_IMAGES}")
        return []
    return [(Violations(), image) for image in images]


def _read_predict(
    found: Violations,
    request: inference_pb2.PredictRequest,
    call: Call,
    registry: Registry,
    limits: Limits,
    images: Sequence[BatchedImage],
) -> list[Asked | PellucidError]:
    """The request for each image; raises what is wrong with all of them."""
    model = find_model(found, request.model, registry)
    top_k = request.top_k if request.HasField("top_k") else TOP_K
    if model is not None and not 1 <= top_k <= model.network.class_count:
        if request.HasField("top_k"):
            found.invalid("top_k", outside(top_k, 1, model.network.class_count))
        top_k = model.network.class_count
    attached = tuple(_read_attached(found, request, model))
    budget_ms = _read_budget(found, request)
    bucket_size = read_bucket_size(found, request, limits)
    canvas_px = max((one.view.canvas_px for one in attached if one.view.canvas_px), default=None)

    def asked(source: Source) -> Asked:
        assert model is not None
        method = Predict(top_k, request.include_logits)
        spec = Spec(model, method, source, TopTarget(), call.deadline_s, call.caller, bucket_size)
        return Asked(spec, attached=attached, explain_budget_ms=budget_ms)

    return of_each(found, images, model, limits, canvas_px, asked)


def _read_explain(
    found: Violations,
    request: inference_pb2.ExplainRequest,
    call: Call,
    registry: Registry,
    limits: Limits,
    images: Sequence[BatchedImage],
    *,
    watched: bool = False,
) -> list[Asked | PellucidError]:
    """As _read_predict."""
    model = find_model(found, request.model, registry)
    explained = _read_explained(found, request, model, watched=watched)
    bucket_size = read_bucket_size(found, request, limits)

    def asked(source: Source) -> Asked:
        assert model is not None
        assert explained is not None
        method, target = explained.method, explained.target
        return Asked(
            Spec(model, method, source, target, call.deadline_s, call.caller, bucket_size),
            explained.view,
        )

    canvas_px = None if explained is None else explained.view.canvas_px
    return of_each(found, images, model, limits, canvas_px, asked)


def of_each(
    found: Violations,
    images: Sequence[BatchedImage],
    model: Model | None,
    limits: Limits,
    canvas_px: int | None,
    asked: Callable[[Source], _Asked],
) -> list[_Asked | PellucidError]:
    """The request for each image, or what is wrong with it; raises what is wrong with all."""
    sources = [read_image(of_one, image, model, limits, canvas_px) for of_one, image in images]
    found.raise_any()
    each: list[_Asked | PellucidError] = []
    for (of_one, _), source in zip(images, sources, strict=True):
        if source is not None:
            each.append(asked(source))
        else:
            error = of_one.error()
            assert error is not None
            each.append(error)
    return each


def _read_attached(
    found: Violations, request: inference_pb2.PredictRequest, model: Model | None
) -> Iterator[Explained]:
    """The explanations that are sent along."""
    if len(request.explain) > MOST_ATTACHED:
        found.invalid("explain", f"has {len(request.explain)}; at most {MOST_ATTACHED}")
    for place, inner in enumerate(request.explain[:MOST_ATTACHED]):
        inside = found.inside(f"explain[{place}]")
        for name in ("model", "image", "bucket_size"):
            if Fields(inside, "", inner).has(name):
                inside.invalid(name, "must be unset: it is the prediction's")
        explained = _read_explained(inside, inner, model)
        if explained is not None:
            yield explained


def _read_budget(found: Violations, request: inference_pb2.PredictRequest) -> float | None:
    if not request.HasField("explain_budget_ms"):
        return None
    if not request.explain:
        found.invalid("explain_budget_ms", "is for explain, which is empty")
    if not request.explain_budget_ms > 0:
        found.invalid("explain_budget_ms", f"is {request.explain_budget_ms:g}; must be more than 0")
    return request.explain_budget_ms


def _read_explained(
    found: Violations,
    request: inference_pb2.ExplainRequest,
    model: Model | None,
    *,
    watched: bool = False,
) -> Explained | None:
    """What is asked but for the image; None where something is wrong with it."""
    before = len(found)
    name = request.WhichOneof("method") or ""
    kind = METHODS.get(name)
    target = read_target(found, request.target, model, kind)
    method: ExplainMethod | None = None
    if kind is None:
        found.invalid("method", f"required; one of {', '.join(METHODS)}")
    elif model is not None and (refusal := kind.why_not(model)) is not None:
        others = [other.name for other in METHODS.values() if other.why_not(model) is None]
        found.refused(name, f"does not apply: {refusal}. {', '.join(others)} do")
        read_parameters(found, name, getattr(request, name), kind, None, None)
    else:
        tap = None if target is None else target.tap
        method = read_parameters(found, name, getattr(request, name), kind, model, tap)
    stops = request.until if request.HasField("until") else None
    until = read_until(found, stops, method, model, watched=watched)
    measures = read_measures(
        found, request.evidence, kind, model, target, lambda name: _other_method(name, model)
    )
    view = _read_view(found, request, kind)
    if len(found) > before or method is None or target is None:
        return None
    return Explained(Explain(method, until, measures, watched), target, view)


def default_method(kind: type[ExplainMethod], model: Model) -> ExplainMethod | str:
    """A method as its defaults make it, or why it does not apply to the model."""
    refusal = kind.why_not(model)
    if refusal is not None:
        return refusal
    message = getattr(inference_pb2.ExplainRequest(), kind.name)
    made = read_parameters(Violations(), kind.name, message, kind, model, OUTPUT)
    assert made is not None
    return made


def _other_method(name: str, model: Model | None) -> ExplainMethod | str:
    if name not in METHODS:
        return f"{quoted(name)} is not a method; must be one of {', '.join(METHODS)}"
    if model is None:
        return f"{name} needs a model"
    made = default_method(METHODS[name], model)
    return f"{name} does not apply: {made}" if isinstance(made, str) else made


def find_model(found: Violations, name: str, registry: Registry) -> Model | None:
    """The model of that name, or the default one; noted as missing where there is none."""
    try:
        return registry.find(name)
    except NotFound as error:
        found.missing("model", error.message)
        return None


def read_bucket_size(
    found: Violations,
    request: inference_pb2.PredictRequest
    | inference_pb2.ExplainRequest
    | stylize_pb2.Fast
    | inspect_pb2.InspectRequest
    | codes_pb2.EmbedRequest,
    limits: Limits,
) -> int | None:
    """The batch size that rows are padded to, if it is fixed."""
    if not request.HasField("bucket_size"):
        return None
    if request.bucket_size not in limits.buckets:
        allowed = ", ".join(map(str, limits.buckets))
        found.invalid("bucket_size", f"is {request.bucket_size}; must be one of {allowed}")
    return request.bucket_size


def read_image(
    found: Violations,
    image: data_pb2.Image,
    model: Model | None,
    limits: Limits,
    canvas_px: int | None,
    field: str = "image",
) -> PhotoSource | None:
    """An image; None where something is wrong with it."""
    kind = image.WhichOneof("kind")
    if kind is None:
        found.invalid(field, "required; either encoded or tensor")
        return None
    if kind == "encoded":
        try:
            header = photos.read_header(image.encoded, max_pixels=limits.max_photo_pixels)
        except photos.BadPhoto as error:
            found.invalid(f"{field}.encoded", str(error))
            return None
        return EncodedPhoto(image.encoded, limits.max_photo_pixels, canvas_px, header, field)
    field = f"{field}.tensor"
    array = read_tensor(found, field, image.tensor)
    if array is None:
        return None
    if array.dtype == np.uint8:
        return _read_photo_tensor(found, field, array, limits, canvas_px)
    if array.dtype == np.float32:
        return _read_prepared_tensor(found, field, array, model, canvas_px)
    found.invalid(
        f"{field}.data_type", f"is {DTYPES[image.tensor.data_type].name}; {_IMAGE_TENSORS}"
    )
    return None


_IMAGE_TENSORS = "must be uint8 height × width × 3 (a photo) or float32 3 × height × width"


def _read_photo_tensor(
    found: Violations, field: str, array: NDArray[Any], limits: Limits, canvas_px: int | None
) -> PhotoSource | None:
    if array.ndim != 3 or array.shape[2] != 3:
        found.invalid(f"{field}.shape", f"is {times(array.shape)}; {_IMAGE_TENSORS}")
    elif array.shape[0] * array.shape[1] > limits.max_photo_pixels:
        found.invalid(
            f"{field}.shape",
            f"has {array.shape[0] * array.shape[1]} pixels; at most {limits.max_photo_pixels}",
        )
    else:
        return ArrayPhoto(array, canvas_px)
    return None


def _read_prepared_tensor(
    found: Violations,
    field: str,
    array: NDArray[Any],
    model: Model | None,
    canvas_px: int | None,
) -> PhotoSource | None:
    if model is None:
        return None
    expected = (3, model.network.height_px, model.network.width_px)
    if array.shape != expected:
        found.invalid(
            f"{field}.shape",
            f"is {times(array.shape)}; an input already preprocessed (float32) for "
            f"{model.name} is {times(expected)}, a photo is uint8 height × width × 3",
        )
        return None
    before = len(found)
    check_finite(found, field, array)
    if len(found) > before:
        return None
    return PreparedInput(array, canvas_px)


def read_target(
    found: Violations,
    target: inference_pb2.Target,
    model: Model | None,
    method: type[ExplainMethod] | None,
) -> Target | None:
    """The request's field target; None where it is wrong, or cannot be told without a model."""
    fields = Fields(found, "target", target)
    before = len(found)
    default = Score.LOGIT if method is None else method.score
    score = Score[fields.choice("score", default.name.lower()).upper()]
    if method is not None and method.logits_only and score is not Score.LOGIT:
        fields.invalid("score", f"is SCORE_{score.name}; {method.name} explains SCORE_LOGIT only")
    against = _read_against(found, target, model)
    if target.WhichOneof("kind") == "neuron":
        for name in ("score", "against_class_index", "against_label"):
            if fields.has(name):
                fields.invalid(name, "is for classes; the target is a neuron")
        neuron = read_neuron(found, "target.neuron", target.neuron, model)
        return neuron if len(found) == before else None
    if target.WhichOneof("kind") is None:
        return TopTarget(score, against) if len(found) == before else None
    classes = _read_classes(found, target, model)
    if against is not None and against in classes:
        fields.invalid(str(target.WhichOneof("against")), "is the class itself")
    if len(found) > before or model is None:
        return None
    if len(classes) == 1 and against is None:
        return ClassTarget(classes[0], score)
    weights = [(index, 1.0) for index in classes]
    weights += [] if against is None else [(against, -1.0)]
    return ClassesTarget(tuple(weights), score)


def _read_classes(
    found: Violations, target: inference_pb2.Target, model: Model | None
) -> list[int]:
    """The classes that a target names."""
    named: list[tuple[str, int | str]] = []
    match target.WhichOneof("kind"):
        case "class_index":
            named = [("target.class_index", target.class_index)]
        case "label":
            named = [("target.label", target.label)]
        case _:
            several = target.classes
            named += [("target.classes.class_indices", index) for index in several.class_indices]
            named += [("target.classes.labels", label) for label in several.labels]
            if not named:
                found.invalid("target.classes", "required; at least one class")
    classes: list[int] = []
    for field, name in named:
        index = read_class(found, field, name, model)
        if index is not None and index in classes:
            found.invalid(field, f"names class {index} twice")
        classes += [] if index is None else [index]
    return classes


def _read_against(
    found: Violations, target: inference_pb2.Target, model: Model | None
) -> int | None:
    kind = target.WhichOneof("against")
    return (
        None if kind is None else read_class(found, f"target.{kind}", getattr(target, kind), model)
    )


def read_class(found: Violations, field: str, name: int | str, model: Model | None) -> int | None:
    """A class by its index or its label."""
    if isinstance(name, int):
        last = None if model is None else model.network.class_count - 1
        if name < 0 or (last is not None and name > last):
            found.invalid(field, outside(name, 0, last))
        return name
    if model is None:
        return None
    classes = model.classes_labelled(name)
    if not classes:
        close = like(name, model.labels)
        found.missing(field, f"{quoted(name)} is not a label of {model.name}{close}")
    elif len(classes) > 1:
        shared = ", ".join(map(str, classes))
        found.invalid(
            field, f"{quoted(name)} is shared by the classes {shared}; name one by class_index"
        )
    return classes[0] if classes else None


def read_neuron(
    found: Violations,
    field: str,
    neuron: inference_pb2.Neuron | optimize_pb2.Direction,
    model: Model | None,
    shapes: Shapes | None = None,
) -> NeuronTarget:
    """A neuron, or the place that a direction is at.

    Args:
        found: Where all that is wrong is noted.
        field: Its path in the request.
        neuron: What is read.
        model: None where the request names one that is not there.
        shapes: Of layers, where the input's size is not the network's own.
    """
    layer = None if model is None else find_layer(found, f"{field}.layer", neuron.layer, model)
    if layer is not None and not layer.targetable:
        found.refused(f"{field}.layer", f"{layer.name} cannot be a target: {why_not(layer)}")
        layer = None
    if layer is not None and shapes is not None and layer.grid is not None:
        layer = layer.at(shapes[layer.name])
    fields = Fields(found, field, neuron)
    grid = (None, None) if layer is None else (layer.grid or (0, 0))
    lengths = {"y": grid[0], "x": grid[1]}
    if isinstance(neuron, inference_pb2.Neuron):
        lengths["channel"] = None if layer is None else layer.channel_count
    for name, length in lengths.items():
        if layer is not None and length == 0 and fields.has(name):
            fields.invalid(name, f"{layer.name} has no map: it is {layer.channel_count} long")
        else:
            fields.number(name, 0, 0, length - 1 if length else None)
    if fields.has("y") != fields.has("x"):
        fields.invalid("x" if fields.has("y") else "y", "required where the other one is set")
    given = {name: getattr(neuron, name) for name in lengths if fields.has(name)}
    return NeuronTarget(neuron.layer, **given)


_OUTPUTS = {
    inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION: "attribution",
    inference_pb2.EXPLAIN_OUTPUT_HEATMAP: "heatmap",
    inference_pb2.EXPLAIN_OUTPUT_RENDERING: "rendering",
}


def _read_view(
    found: Violations, request: inference_pb2.ExplainRequest, method: type[ExplainMethod] | None
) -> View:
    wanted = set(request.outputs)
    unknown = wanted - set(_OUTPUTS)
    if unknown:
        allowed = one_of([inference_pb2.ExplainOutput.Name(number) for number in _OUTPUTS])
        found.invalid("outputs", f"has {min(unknown)}; each must be {allowed}")
    drawn = Fields(found, "rendering", request.rendering)
    percentile = drawn.number("percentile", PERCENTILE, 50.0, 100.0)
    longest = drawn.number("longest_side_px", LONGEST_SIDE_PX, LEAST_SIDE_PX, MOST_SIDE_PX)
    default = "absolute" if method is None else method.color_scale
    return View(
        attribution=inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION in wanted,
        heatmap=not wanted or inference_pb2.EXPLAIN_OUTPUT_HEATMAP in wanted,
        rendering=not wanted or inference_pb2.EXPLAIN_OUTPUT_RENDERING in wanted,
        color_scale=cast(render.ColorScale, drawn.choice("color_scale", default)),
        percentile=percentile,
        longest_side_px=longest,
        format=cast(render.Format, drawn.choice("format", "jpeg")),
        legend=request.rendering.legend if drawn.has("legend") else True,
    )


METHODS: Mapping[str, type[ExplainMethod]] = {
    method.name: method
    for method in (
        Gradient,
        Deconvnet,
        GuidedBackprop,
        Occlusion,
        InputXGradient,
        IntegratedGradients,
        SmoothGrad,
        ExpectedGradients,
        GradCam,
        GradCamPlusPlus,
        LayerCam,
        HiResCam,
        GuidedGradCam,
        ScoreCam,
        Rise,
        Lime,
        KernelShap,
        Lrp,
        DeepLift,
        AttentionRollout,
    )
}
