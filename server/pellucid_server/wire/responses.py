"""Results as responses, models as messages, errors as google.rpc.Status."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from pellucid import render
from pellucid.v1 import data_pb2, inference_pb2
from PIL import Image
from torch import Tensor

from .. import photos
from ..engine.job import Done, Spec
from ..engine.rows import (
    ClassesTarget,
    ClassTarget,
    Lane,
    NeuronTarget,
    Resolved,
    Score,
    TopTarget,
)
from ..errors import PellucidError
from ..inputs import Loaded
from ..methods.explain.explain import Explain
from ..methods.explain.explanation import Explanation, Stop, Window
from ..methods.predict import Predict, PredictResult
from ..models.registry import Model
from ..versions import VERSIONS
from .evidence import write_convergence, write_evidence, write_measures
from .failures import write_failure
from .fields import number_of, write_parameters, write_picture, write_tensor
from .models import PRECISIONS, write_preprocessing
from .requests import Explained, View

_MOST_SKETCH_CELLS = 16
_SATURATED = 0.99
"""Above this probability its gradient is small, and made of the runners-up."""


def write_predict(
    spec: Spec,
    done: Done,
    attached: Sequence[Explained] = (),
    outcomes: Sequence[Done | PellucidError] = (),
) -> inference_pb2.PredictResponse:
    """The best classes of a finished Predict, and what came of the explanations sent along."""
    method, result = spec.method, done.result
    assert isinstance(method, Predict)
    assert isinstance(result, PredictResult)
    return inference_pb2.PredictResponse(
        run=write_run(spec, done),
        predictions=write_predictions(spec.model, result.logits, method.top_k),
        logits=write_tensor(result.logits) if method.include_logits else None,
        receipt=_write_receipt(spec, done, result.logits, predict=_write_predict_request(spec)),
        explanations=[
            _write_attached(spec, explained, outcome)
            for explained, outcome in zip(attached, outcomes, strict=True)
        ],
    )


def write_predictions(model: Model, logits: Tensor, top_k: int) -> list[inference_pb2.Prediction]:
    """The best classes, best first."""
    logits = logits.double()
    probabilities = logits.softmax(0)
    return [
        inference_pb2.Prediction(
            class_index=index,
            label=model.labels[index],
            probability=float(probabilities[index]),
            logit=float(logits[index]),
        )
        for index in probabilities.topk(top_k).indices.tolist()
    ]


def _write_attached(
    spec: Spec, explained: Explained, outcome: Done | PellucidError
) -> inference_pb2.AttachedExplanation:
    if isinstance(outcome, PellucidError):
        return inference_pb2.AttachedExplanation(failure=write_failure(outcome))
    of = replace(spec, method=explained.method, target=explained.target)
    explanation = write_explain(of, explained.view, outcome)
    return inference_pb2.AttachedExplanation(explanation=explanation)


def write_predict_batch(
    outcomes: Sequence[inference_pb2.PredictResponse | PellucidError],
) -> inference_pb2.PredictBatchResponse:
    """What came of each image."""
    return inference_pb2.PredictBatchResponse(
        results=[
            inference_pb2.PredictBatchResult(failure=write_failure(outcome))
            if isinstance(outcome, PellucidError)
            else inference_pb2.PredictBatchResult(prediction=outcome)
            for outcome in outcomes
        ]
    )


def write_explain_batch(
    outcomes: Sequence[inference_pb2.ExplainResponse | PellucidError],
) -> inference_pb2.ExplainBatchResponse:
    """What came of each image."""
    return inference_pb2.ExplainBatchResponse(
        results=[
            inference_pb2.ExplainBatchResult(failure=write_failure(outcome))
            if isinstance(outcome, PellucidError)
            else inference_pb2.ExplainBatchResult(explanation=outcome)
            for outcome in outcomes
        ]
    )


def write_explain(spec: Spec, view: View, done: Done) -> inference_pb2.ExplainResponse:
    """A finished explanation, rendered."""
    result, loaded = done.result, done.loaded
    asked = spec.method
    assert isinstance(asked, Explain)
    assert isinstance(result, Explanation)
    assert isinstance(loaded, Loaded)
    started_s = time.monotonic()
    x_px, y_px, width_px, height_px = loaded.input_box
    response = inference_pb2.ExplainResponse(
        target=_write_target(spec, result),
        input_box=data_pb2.Box(x_px=x_px, y_px=y_px, width_px=width_px, height_px=height_px),
        attribution=write_tensor(result.attribution) if view.attribution else None,
        occlusion_details=_write_occlusion_details(result),
        segment_details=_write_segment_details(result),
        warnings=_warnings(spec, result, loaded),
    )
    write_parameters(asked.method, getattr(response, asked.name), tensors=False)
    made = result.convergence
    if made is not None:
        response.convergence.CopyFrom(write_convergence(made, tensors=view.attribution))
    if result.evidence:
        rows = sum(ride.own_row_count for ride in done.rides)
        response.evidence.CopyFrom(write_evidence(result.evidence, rows - result.row_count))
    if made is None or made.stop is not Stop.RUNNING:
        explain = _write_explain_request(spec, asked, view, result)
        receipt = _write_receipt(spec, done, result.attribution, explain=explain)
        response.receipt.CopyFrom(receipt)
    if view.heatmap or view.rendering:
        attribution = result.attribution.float().numpy()
        values = render.reduce_channels(attribution, view.color_scale)
        limit = render.limit_of(values, view.percentile)
        response.heatmap.color_scale = _color_scale(view.color_scale)
        response.heatmap.limit = limit
        response.heatmap.percentile = view.percentile
        if view.heatmap:
            grey = render.quantize(values, limit, view.color_scale)
            response.heatmap.image.CopyFrom(write_picture(Image.fromarray(grey), "png"))
        if view.rendering:
            assert loaded.canvas is not None
            canvas = photos.thumbnail(loaded.canvas, view.longest_side_px)
            scale = canvas.shape[1] / loaded.photo_size[0]
            scale_y = canvas.shape[0] / loaded.photo_size[1]
            picture = render.overlay(
                canvas,
                values,
                box=(x_px * scale, y_px * scale_y, width_px * scale, height_px * scale_y),
                limit=limit,
                color_scale=view.color_scale,
                percentile=view.percentile,
                legend=view.legend,
            )
            response.rendering.CopyFrom(write_picture(picture, view.format))
    response.run.CopyFrom(write_run(spec, done, (time.monotonic() - started_s) * 1e3))
    return response


def _color_scale(short_name: str) -> inference_pb2.ColorScale:
    number = number_of(inference_pb2.ColorScale.DESCRIPTOR, short_name)
    return cast(inference_pb2.ColorScale, number)


def _write_target(spec: Spec, result: Explanation) -> inference_pb2.ResolvedTarget:
    return write_target(spec, result.target, result.score)


def write_target(spec: Spec, resolved: Resolved, score: float) -> inference_pb2.ResolvedTarget:
    """What a request's target has turned out to be, and its score."""
    labels = spec.model.labels
    response = inference_pb2.ResolvedTarget(
        score=score, top_prediction=isinstance(spec.target, TopTarget)
    )
    match resolved:
        case NeuronTarget(layer=layer, channel=channel, y=y, x=x):
            response.neuron.CopyFrom(inference_pb2.Neuron(layer=layer, channel=channel, y=y, x=x))
        case ClassTarget() | ClassesTarget() as target:
            added = [index for index, weight in target.weights if weight > 0]
            for index, weight in target.weights:
                if weight < 0:
                    response.against_class_index = index
                    response.against_label = labels[index]
            if len(added) == 1:
                response.class_index, response.label = added[0], labels[added[0]]
            else:
                response.classes.class_indices.extend(added)
                response.classes.labels.extend(labels[index] for index in added)
            response.score_kind = _write_score(target.score)
    return response


def _write_score(score: Score) -> inference_pb2.Score:
    number = number_of(inference_pb2.Score.DESCRIPTOR, score.name.lower())
    return cast(inference_pb2.Score, number)


def _warnings(spec: Spec, result: Explanation, loaded: Loaded) -> Iterator[inference_pb2.Warning]:
    """Why the map may mislead."""
    asked, target = spec.method, result.target
    assert isinstance(asked, Explain)
    method, tolerance, made = asked.method, asked.until.tolerance, result.convergence
    lanes = method.row_counts(spec.model, spec.target)
    if Lane.GRADIENT in lanes and (confidence := _confidence(target, result.score)) > _SATURATED:
        yield inference_pb2.Warning(
            reason="SATURATED",
            description=f"the probability is {confidence:.6g}, where its gradient all but "
            "vanishes; explain the logit",
        )
    if not result.attribution.any():
        gradient = set(lanes) - {Lane.FORWARD}
        yield inference_pb2.Warning(
            reason="ZERO_GRADIENT" if gradient else "ZERO_ATTRIBUTION",
            description="the attribution is 0 everywhere: nothing that was tried moves the score",
        )
    flat = loaded.input.flatten(1)
    if bool((flat.amax(1) == flat.amin(1)).all()):
        yield inference_pb2.Warning(
            reason="CONSTANT_INPUT",
            description="the network's input is of one colour: its map shows the network alone",
        )
    over = made is not None and made.stop not in (Stop.TOLERANCE, Stop.RUNNING)
    if over and tolerance is not None and made is not None and made.error > tolerance:
        yield inference_pb2.Warning(
            reason="NOT_CONVERGED",
            description=f"the error is {made.error:.3g} after {made.row_count} rows, where "
            f"{tolerance:.3g} was asked for: this is as far as it came",
        )
    if method.class_blind:
        yield inference_pb2.Warning(
            reason="SAME_FOR_EVERY_CLASS",
            description="this map does not depend on the target: it is the same for every class",
        )


def _confidence(target: Resolved, score: float) -> float:
    """How close a score of probabilities is to where its gradient vanishes, which is at 1."""
    match target:
        case ClassTarget(score=Score.LOG_PROBABILITY):
            return math.exp(min(0.0, score))
        case ClassTarget(score=Score.PROBABILITY) | ClassesTarget(score=Score.PROBABILITY):
            return abs(score)  # a contrast vanishes at -1, too
    return 0.0


def _write_occlusion_details(result: Explanation) -> inference_pb2.OcclusionDetails | None:
    falls = result.falls
    if falls is None:
        return None
    rise = falls.largest_rise
    return inference_pb2.OcclusionDetails(
        falls=write_tensor(falls.values),
        largest_fall=_write_window(falls.largest_fall),
        largest_rise=None if rise is None else _write_window(rise),
    )


def _write_window(window: Window) -> data_pb2.Box:
    ys, xs = window
    return data_pb2.Box(
        x_px=xs.start, y_px=ys.start, width_px=xs.stop - xs.start, height_px=ys.stop - ys.start
    )


def _write_segment_details(result: Explanation) -> inference_pb2.SegmentDetails | None:
    segments = result.segments
    if segments is None:
        return None
    return inference_pb2.SegmentDetails(
        segments=write_tensor(segments.labels),
        values=write_tensor(segments.values),
        baseline_score=segments.baseline_score,
    )


# Receipts.


def _write_predict_request(spec: Spec) -> inference_pb2.PredictRequest:
    method = spec.method
    assert isinstance(method, Predict)
    return inference_pb2.PredictRequest(
        model=spec.model.name,
        top_k=method.top_k,
        include_logits=method.include_logits,
        bucket_size=spec.bucket_size,
    )


def _write_explain_request(
    spec: Spec, asked: Explain, view: View, result: Explanation
) -> inference_pb2.ExplainRequest:
    """The request without its image, every parameter filled in, the target resolved.

    Rows are those that were run: of what stopped them, the tolerance alone is left.
    """
    method = asked.used(result)
    request = inference_pb2.ExplainRequest(
        model=spec.model.name,
        outputs=view.outputs,
        bucket_size=spec.bucket_size,
        rendering=inference_pb2.Rendering(
            color_scale=_color_scale(view.color_scale),
            percentile=view.percentile,
            longest_side_px=view.longest_side_px,
            format=cast(
                data_pb2.ImageFormat, number_of(data_pb2.ImageFormat.DESCRIPTOR, view.format)
            ),
            legend=view.legend,
        ),
    )
    write_parameters(method, getattr(request, method.name), tensors=True)
    if asked.until.tolerance is not None:
        request.until.tolerance = asked.until.tolerance
    if asked.measures:
        write_measures(asked.measures, request.evidence)
    target, resolved = request.target, _write_target(spec, result)
    match resolved.WhichOneof("kind"):
        case "neuron":
            target.neuron.CopyFrom(resolved.neuron)
        case "classes":
            target.classes.class_indices.extend(resolved.classes.class_indices)
        case _:
            target.class_index = resolved.class_index
    if resolved.HasField("against_class_index"):
        target.against_class_index = resolved.against_class_index
    target.score = resolved.score_kind
    return request


def _write_receipt(
    spec: Spec,
    done: Done,
    result: Tensor,
    *,
    predict: inference_pb2.PredictRequest | None = None,
    explain: inference_pb2.ExplainRequest | None = None,
) -> inference_pb2.Receipt:
    model, exact = spec.model, write_tensor(result)
    device = model.network.device
    on_cpu = device.type == "cpu"
    return inference_pb2.Receipt(
        predict=predict,
        explain=explain,
        image_sha256=spec.source.sha256,
        weights_sha256=model.weights_sha256,
        preprocessing=write_preprocessing(model),
        precision=PRECISIONS[model.precision],
        device="cpu" if on_cpu else torch.cuda.get_device_name(device),
        thread_count=torch.get_num_threads() if on_cpu else 0,
        versions=VERSIONS,
        result_sha256=hashlib.sha256(exact.data).hexdigest(),
        sketch=exact if result.dim() == 1 else write_tensor(_sketch(result)),
    )


def _sketch(attribution: Tensor) -> Tensor:
    """Means over cells, at most 16 × 16."""
    height, width = (min(side, _MOST_SKETCH_CELLS) for side in attribution.shape[1:])
    return F.adaptive_avg_pool2d(attribution.double(), (height, width))


def write_run(spec: Spec[Any], done: Done, render_ms: float = 0.0) -> inference_pb2.Run:
    """What a result was computed by."""
    model, timing = spec.model, done.timing
    return inference_pb2.Run(
        model=model.name,
        model_version=model.version,
        preprocessing=write_preprocessing(model) if isinstance(model, Model) else None,
        precision=PRECISIONS[model.precision],
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
