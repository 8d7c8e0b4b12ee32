"""Models as messages: what they are, what they can do, and how their inputs are made."""

from collections.abc import Callable, Iterator

from pellucid.v1 import model_pb2

from ..engine.costs import Costs
from ..engine.rows import (
    Lane,
    TopTarget,
)
from ..methods.predict import Predict
from ..models.layers import Layout
from ..models.registry import Model, Precision, Registry
from .evidence import MEASURES
from .fields import Violations
from .requests import METHODS, default_method, find_model

PRECISIONS = {
    Precision.FLOAT32: model_pb2.PRECISION_FLOAT32,
    Precision.FLOAT64: model_pb2.PRECISION_FLOAT64,
    Precision.TF32: model_pb2.PRECISION_TF32,
    Precision.BFLOAT16: model_pb2.PRECISION_BFLOAT16,
}
_INTERPOLATIONS = {
    "bilinear": model_pb2.INTERPOLATION_BILINEAR,
    "bicubic": model_pb2.INTERPOLATION_BICUBIC,
}
_LANES = {
    Lane.FORWARD: model_pb2.LANE_FORWARD,
    Lane.GRADIENT: model_pb2.LANE_GRADIENT,
    Lane.LRP: model_pb2.LANE_LRP,
    Lane.DEEPLIFT: model_pb2.LANE_DEEPLIFT,
}
_LAYOUTS = {
    Layout.CHANNELS: model_pb2.LAYOUT_CHANNELS,
    Layout.MAPS: model_pb2.LAYOUT_MAPS,
    Layout.MAPS_CHANNELS_LAST: model_pb2.LAYOUT_MAPS_CHANNELS_LAST,
    Layout.TOKENS: model_pb2.LAYOUT_TOKENS,
    Layout.OTHER: model_pb2.LAYOUT_UNSPECIFIED,
}


def write_preprocessing(model: Model) -> model_pb2.Preprocessing:
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
        if failed.name == name and name not in registry:
            return model_pb2.GetModelResponse(name=name, ready=False, reason=failed.reason)
    found = Violations()
    model = find_model(found, name, registry)
    found.raise_any()
    assert model is not None
    network = model.network
    return model_pb2.GetModelResponse(
        name=model.name,
        ready=True,
        version=model.version,
        architecture=model.architecture,
        preprocessing=write_preprocessing(model),
        precision=PRECISIONS[model.precision],
        layers=[
            model_pb2.Layer(
                name=layer.name,
                type=layer.kind,
                shape=layer.shape,
                targetable=layer.targetable,
                note=layer.note,
                layout=_LAYOUTS[layer.layout],
                grid=layer.grid or (),
            )
            for layer in network.layers
        ],
        methods=list(_method_supports(model)),
        labels=model.labels,
        costs=[
            model_pb2.BatchCost(lane=_LANES[lane], bucket_size=bucket, row_ms=batch_ms / bucket)
            for (lane, bucket), batch_ms in sorted(
                costs_of(model).snapshot().items(), key=lambda item: (item[0][0].value, item[0][1])
            )
        ],
        gate_count=network.gates.site_count,
        device=network.device.type,
        platform=model_pb2.PLATFORM_ONNX if model.onnx else model_pb2.PLATFORM_TORCH,
        onnx=_write_onnx(model),
    )


def _write_onnx(model: Model) -> model_pb2.Onnx | None:
    about = model.onnx
    if about is None:
        return None
    return model_pb2.Onnx(
        opset=about.opset,
        provider=about.provider or "",
        fixed_batch_size=about.batch_size or 0,
        parity=about.parity,
        white_box_refusal=model.network.white_box_refusal or "",
        notes=about.notes,
    )


def _method_supports(model: Model) -> Iterator[model_pb2.MethodSupport]:
    """Every method, and whether it applies."""
    yield model_pb2.MethodSupport(method=Predict.name, supported=True, row_count=1)
    for name, kind in METHODS.items():
        made = default_method(kind, model)
        if isinstance(made, str):
            yield model_pb2.MethodSupport(method=name, reason=made)
            continue
        yield model_pb2.MethodSupport(
            method=name,
            supported=True,
            row_count=sum(made.row_counts(model, TopTarget()).values()),
            anytime=kind.anytime,
            evidence=[
                measure
                for measure, of in MEASURES.items()
                if of.method_refusal(kind) is None and of.why_not(model) is None
            ],
        )
