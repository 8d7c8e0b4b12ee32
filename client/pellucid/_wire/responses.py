"""From responses to what a caller gets."""

from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from .. import types
from ..errors import BY_CODE, StatusError, Unknown, Violation
from ..v1 import data_pb2, evidence_pb2, inference_pb2, model_pb2
from .arrays import array_of, doubles_of
from .fields import parameters_of, read, short_name


def predict_result(response: inference_pb2.PredictResponse) -> types.PredictResult:
    return types.PredictResult(
        predictions=tuple(read(types.Prediction, p) for p in response.predictions),
        logits=array_of(response.logits) if response.HasField("logits") else None,
        receipt=receipt_of(response.receipt),
        run=run_of(response.run),
        explanations=tuple(
            failure_in(attached.failure)
            if attached.HasField("failure")
            else explain_result(attached.explanation)
            for attached in response.explanations
        ),
    )


def predict_results(
    response: inference_pb2.PredictBatchResponse,
) -> tuple[types.PredictResult | StatusError, ...]:
    return tuple(
        failure_in(result.failure)
        if result.HasField("failure")
        else predict_result(result.prediction)
        for result in response.results
    )


def explain_results(
    response: inference_pb2.ExplainBatchResponse,
) -> tuple[types.ExplainResult | StatusError, ...]:
    return tuple(
        failure_in(result.failure)
        if result.HasField("failure")
        else explain_result(result.explanation)
        for result in response.results
    )


def failure_in(failure: data_pb2.Failure) -> StatusError:
    """The exception for what one part of a request ended with."""
    delayed = failure.HasField("retry_delay_ms")
    return _BY_NUMBER.get(failure.code, Unknown)(
        failure.message,
        reason=failure.reason,
        violations=[Violation(v.field, v.description) for v in failure.violations],
        retry_delay_s=failure.retry_delay_ms / 1e3 if delayed else None,
    )


_BY_NUMBER = {code.value[0]: kind for code, kind in BY_CODE.items() if code is not None}


def explain_result(response: inference_pb2.ExplainResponse) -> types.ExplainResult:
    method = response.WhichOneof("method") or ""
    has_attribution = response.HasField("attribution")
    has_rendering = response.HasField("rendering")
    heatmap = response.heatmap if response.HasField("heatmap") else None
    scale = None if heatmap is None else short_name(heatmap, "color_scale")
    return types.ExplainResult(
        method=method,
        parameters=parameters_of(getattr(response, method)) if method else {},
        target=resolved_target(response.target),
        attribution=array_of(response.attribution) if has_attribution else None,
        heatmap_png=heatmap.image.data if heatmap and heatmap.HasField("image") else None,
        color_scale=scale,
        limit=None if heatmap is None else heatmap.limit,
        percentile=None if heatmap is None else heatmap.percentile,
        rendering=response.rendering.data if has_rendering else None,
        rendering_format=short_name(response.rendering, "format") if has_rendering else None,
        input_box=read(types.Box, response.input_box),
        occlusion_details=_occlusion_details(response.occlusion_details)
        if response.HasField("occlusion_details")
        else None,
        segment_details=read(
            types.SegmentDetails,
            response.segment_details,
            segments=array_of(response.segment_details.segments),
            values=array_of(response.segment_details.values),
        )
        if response.HasField("segment_details")
        else None,
        warnings=tuple(read(types.MapWarning, warning) for warning in response.warnings),
        convergence=_convergence(response.convergence)
        if response.HasField("convergence")
        else None,
        evidence=_evidence(response.evidence) if response.HasField("evidence") else None,
        receipt=receipt_of(response.receipt),
        run=run_of(response.run),
    )


def _convergence(message: evidence_pb2.Convergence) -> types.Convergence:
    return read(
        types.Convergence,
        message,
        stop=short_name(message, "stop"),
        standard_error=array_of(message.standard_error)
        if message.HasField("standard_error")
        else None,
        residual=message.residual if message.HasField("residual") else None,
    )


def _evidence(message: evidence_pb2.EvidenceResult) -> types.EvidenceResult:
    readers: dict[str, Callable[[Any], Any]] = {
        "completeness": lambda part: read(types.CompletenessResult, part),
        "curves": _curves,
        "stability": lambda part: read(
            types.StabilityResult, part, correlations=tuple(part.correlations)
        ),
        "randomization": lambda part: read(types.RandomizationResult, part),
        "cascade": lambda part: types.CascadeResult(
            tuple(read(types.CascadeStage, stage) for stage in part.stages)
        ),
        "agreement": lambda part: types.AgreementResult(
            tuple(read(types.MethodAgreement, one) for one in part.methods)
        ),
    }
    return read(
        types.EvidenceResult,
        message,
        **{
            name: reader(getattr(message, name)) if message.HasField(name) else None
            for name, reader in readers.items()
        },
    )


def _curves(message: evidence_pb2.CurvesResult) -> types.CurvesResult:
    return types.CurvesResult(
        shares=doubles_of(message.shares),
        curves=tuple(
            read(
                types.Curve,
                curve,
                order=short_name(curve, "order"),
                deletion=doubles_of(curve.deletion),
                insertion=doubles_of(curve.insertion),
            )
            for curve in message.curves
        ),
        chart_png=message.chart.data,
    )


def model_summaries(response: model_pb2.ListModelsResponse) -> tuple[types.ModelSummary, ...]:
    return tuple(read(types.ModelSummary, summary) for summary in response.models)


def model(response: model_pb2.GetModelResponse) -> types.Model:
    return read(
        types.Model,
        response,
        preprocessing=_preprocessing(response.preprocessing),
        precision=short_name(response, "precision"),
        layers=tuple(
            read(
                types.Layer,
                x,
                shape=tuple(x.shape),
                layout=short_name(x, "layout"),
                grid=tuple(x.grid),
            )
            for x in response.layers
        ),
        methods=tuple(
            read(types.MethodSupport, method, evidence=tuple(method.evidence))
            for method in response.methods
        ),
        labels=tuple(response.labels),
        costs=tuple(read(types.BatchCost, x, lane=short_name(x, "lane")) for x in response.costs),
        platform=short_name(response, "platform"),
        onnx=_onnx(response.onnx) if response.HasField("onnx") else None,
    )


def _onnx(message: model_pb2.Onnx) -> types.Onnx:
    parity = message.parity if message.HasField("parity") else None
    return read(types.Onnx, message, parity=parity, notes=tuple(message.notes))


def run_of(run: inference_pb2.Run) -> types.Run:
    return read(
        types.Run,
        run,
        preprocessing=_preprocessing(run.preprocessing),
        precision=short_name(run, "precision"),
        batches=tuple(read(types.Batch, batch) for batch in run.batches),
    )


def _preprocessing(message: model_pb2.Preprocessing) -> types.Preprocessing:
    return read(
        types.Preprocessing,
        message,
        interpolation=short_name(message, "interpolation"),
        mean=tuple(message.mean),
        std=tuple(message.std),
    )


def resolved_target(target: inference_pb2.ResolvedTarget) -> types.ResolvedTarget:
    return read(
        types.ResolvedTarget,
        target,
        class_index=target.class_index if target.HasField("class_index") else None,
        neuron=_neuron(target.neuron) if target.HasField("neuron") else None,
        class_indices=tuple(target.classes.class_indices),
        labels=tuple(target.classes.labels),
        against_class_index=target.against_class_index
        if target.HasField("against_class_index")
        else None,
        score_kind=short_name(target, "score_kind") if target.HasField("score_kind") else None,
    )


def _neuron(neuron: inference_pb2.Neuron) -> types.Neuron:
    return types.Neuron(**{field.name: value for field, value in neuron.ListFields()})


def _occlusion_details(details: inference_pb2.OcclusionDetails) -> types.OcclusionDetails:
    has_rise = details.HasField("largest_rise")
    return types.OcclusionDetails(
        falls=array_of(details.falls),
        largest_fall=read(types.Box, details.largest_fall),
        largest_rise=read(types.Box, details.largest_rise) if has_rise else None,
    )


def receipt_of(message: inference_pb2.Receipt) -> types.Receipt:
    return types.Receipt(json_format.MessageToDict(message))
