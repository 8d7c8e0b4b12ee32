"""Requests as specs. Validation happens here, once, and names every violation at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from pellucid import render
from pellucid.v1 import codes_pb2, data_pb2, index_pb2, inference_pb2, inspect_pb2, stylize_pb2

from ..engine.job import Source, Spec
from ..engine.rows import Target, TopTarget
from ..errors import NotFound, PellucidError, quoted
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
from ..methods.predict import Predict
from ..models.network import OUTPUT
from ..models.registry import Model, Registry
from .evidence import read_measures, read_until
from .fields import (
    Fields,
    Violations,
    one_of,
    outside,
    read_parameters,
)
from .images import read_image
from .limits import Call, Limits
from .targets import read_target

TOP_K = 5
PERCENTILE = 99.5
LONGEST_SIDE_PX = 1024
LEAST_SIDE_PX, MOST_SIDE_PX = 32, 4096
MOST_ATTACHED = 8
MOST_IMAGES = 64

_Asked = TypeVar("_Asked")


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
    | index_pb2.SimilarRequest
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
