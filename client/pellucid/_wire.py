"""Between Python arguments and messages: the pure core that both clients share.

What a method, an enum or a parameter may be is read from the contract's descriptors, so that a
new method needs no change here.
"""

import hashlib
import io
import math
import operator
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

from . import types
from .errors import (
    BY_CODE,
    BadArgument,
    PhotoNotFound,
    ResourceExhausted,
    StatusError,
    Unknown,
    Violation,
)
from .v1 import data_pb2, evidence_pb2, inference_pb2, model_pb2

_METHODS = {
    member.name: member.message_type
    for member in inference_pb2.ExplainRequest.DESCRIPTOR.oneofs_by_name["method"].fields
    if member.message_type is not None
}


_EVIDENCE = evidence_pb2.Evidence.DESCRIPTOR.fields_by_name


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


_T = TypeVar("_T", bound=_Dataclass)


# Requests.


def predict_request(
    photo: types.Photo,
    *,
    model: str,
    top_k: int | None,
    include_logits: bool,
    bucket_size: int | None,
    explain: Sequence[str | types.Explain] = (),
    explain_budget_ms: float | None = None,
) -> inference_pb2.PredictRequest:
    request = _predict_request(
        model=model,
        top_k=top_k,
        include_logits=include_logits,
        bucket_size=bucket_size,
        explain=explain,
        explain_budget_ms=explain_budget_ms,
    )
    request.image.CopyFrom(_image(photo))
    return request


def _predict_request(
    *, explain: Sequence[str | types.Explain] = (), **options: Any
) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest()
    _check_options("predict", options, _PREDICT_OPTIONS)
    _set(request, **options)
    if isinstance(explain, str | types.Explain):
        raise BadArgument(f"explain: is {explain!r}; must be a sequence of methods")
    for one in explain:
        asked = types.Explain(one) if isinstance(one, str) else one
        if not isinstance(asked, types.Explain):
            raise BadArgument(f"explain: has {one!r}; each must be a name or an Explain")
        given = [name for name in ("model", "bucket_size") if name in asked.options]
        if given:
            raise BadArgument(f"explain: {given[0]} is the prediction's; give it to predict")
        request.explain.append(_explain_request(asked.method, asked.options))
    return request


_PREDICT_OPTIONS = ("model", "top_k", "include_logits", "bucket_size", "explain_budget_ms")
_RENDERING_OPTIONS = ("color_scale", "percentile", "longest_side_px", "format", "legend")
_EXPLAIN_OPTIONS = (
    *("target", "against", "score", "model", "outputs", "bucket_size", "until", "evidence"),
    *_RENDERING_OPTIONS,
)


def _check_options(name: str, options: Iterable[str], known: Sequence[str]) -> None:
    unknown = [option for option in options if option not in known]
    if unknown:
        raise BadArgument(f"{', '.join(unknown)}: not an option of {name}: {', '.join(known)}")


def predict_batch_request(
    photos: Sequence[types.Photo], options: Mapping[str, Any]
) -> inference_pb2.PredictBatchRequest:
    """As predict_request, whose options these are, for several photos."""
    return inference_pb2.PredictBatchRequest(
        predict=_predict_request(**options), images=_images(photos)
    )


def explain_batch_request(
    photos: Sequence[types.Photo], method: str, options: Mapping[str, Any]
) -> inference_pb2.ExplainBatchRequest:
    """As explain_request, whose options these are, for several photos."""
    return inference_pb2.ExplainBatchRequest(
        explain=_explain_request(method, options), images=_images(photos)
    )


def _images(photos: Sequence[types.Photo]) -> list[data_pb2.Image]:
    return [_image(photo) for photo in listed(photos)]


def _explain_request(
    method: str, options: Mapping[str, Any], photo: "types.Photo | None" = None
) -> inference_pb2.ExplainRequest:
    """With the options of Client.explain, of which those that are no others' are the method's."""
    given = {name: options.get(name) for name in _EXPLAIN_OPTIONS}
    return explain_request(
        photo,
        method,
        target=given["target"],
        against=given["against"],
        score=given["score"],
        model=given["model"] or "",
        outputs=given["outputs"],
        bucket_size=given["bucket_size"],
        until=given["until"],
        evidence=given["evidence"],
        rendering={name: given[name] for name in _RENDERING_OPTIONS},
        method_parameters={k: v for k, v in options.items() if k not in _EXPLAIN_OPTIONS},
    )


def request_sha256(method: str, options: Mapping[str, Any]) -> str:
    """A digest of what is asked, whatever the photo, in hexadecimal."""
    request = _explain_request(method, options)
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def explain_request(
    photo: "types.Photo | None",
    method: str,
    *,
    target: "types.Target | None",
    against: int | str | None,
    score: str | None,
    model: str,
    outputs: Sequence[str] | None,
    bucket_size: int | None,
    until: "types.Until | None",
    evidence: "types.Evidence | None",
    rendering: Mapping[str, Any],
    method_parameters: Mapping[str, Any],
) -> inference_pb2.ExplainRequest:
    request = inference_pb2.ExplainRequest()
    _set_method(request, method, method_parameters)
    _set_target(request.target, target)
    if against is not None:
        field = "against_label" if isinstance(against, str) else "against_class_index"
        _set(request.target, **{field: against})
    _set(request.target, score=score)
    _set(request, model=model, outputs=outputs, bucket_size=bucket_size)
    _set(request.rendering, **rendering)
    _set_until(request.until, until)
    _set(request, evidence=evidence_of(evidence) or None)
    if request.evidence.HasField("agreement") and not request.evidence.agreement.methods:
        raise BadArgument(
            'evidence: agreement needs methods, such as {"agreement": {"methods": ["rise"]}}'
        )
    if photo is not None:
        request.image.CopyFrom(_image(photo))
    return request


def evidence_of(evidence: "types.Evidence | None") -> dict[str, Mapping[str, Any]]:
    """The parameters of each piece of evidence, by its name."""
    if evidence is None:
        return {}
    given: Any = evidence
    if isinstance(given, Mapping):
        return dict(given)
    is_sequence = isinstance(given, Sequence) and not isinstance(given, str)
    if is_sequence and all(isinstance(name, str) for name in given):
        return {name: {} for name in given}
    raise BadArgument(
        f"evidence: is {evidence!r}; must be a sequence of names, or a mapping from names to "
        f"their parameters; names are {', '.join(_EVIDENCE)}"
    )


def _set_until(message: evidence_pb2.Until, until: "types.Until | None") -> None:
    if until is None:
        return
    if not isinstance(until, types.Until):
        raise BadArgument(f"until: is {until!r}; must be an Until")
    message.SetInParent()
    _set(message, **vars(until))


def common_score(target: "types.Target | None", score: str | None) -> str | None:
    """The score that methods side by side explain, which neurons have no choice of."""
    return "logit" if score is None and not isinstance(target, types.Neuron) else score


def endable(method: str) -> dict[str, Any]:
    """The parameters without which a method takes all of its rows, whatever Until says."""
    fields = _METHODS[method].fields_by_name if method in _METHODS else {}
    return {"quadrature": "adaptive"} if "quadrature" in fields else {}


def stream_request(request: inference_pb2.ExplainRequest) -> inference_pb2.ExplainStreamRequest:
    """The same, to be shown as it is made."""
    return inference_pb2.ExplainStreamRequest(explain=request)


def get_model_request(name: str) -> model_pb2.GetModelRequest:
    request = model_pb2.GetModelRequest()
    _set(request, model=name)
    return request


def _set_method(
    request: inference_pb2.ExplainRequest, method: str, parameters: Mapping[str, Any]
) -> None:
    if method not in _METHODS:
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(_METHODS)}")
    message = getattr(request, method)
    message.SetInParent()
    _check_names(method, message, parameters)
    _set(message, **parameters)


def _check_names(name: str, message: Message, parameters: Iterable[str]) -> None:
    known = message.DESCRIPTOR.fields_by_name
    unknown = [str(parameter) for parameter in parameters if parameter not in known]
    if unknown:
        raise BadArgument(
            f"{', '.join(unknown)}: not a parameter of {name}, "
            f"which has {', '.join(known) or 'none'}"
        )


def parameter(method: str, text: str) -> tuple[str, Any]:
    """A parameter of a method as the command line has it: NAME=VALUE, or NAME.FIELD=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadArgument(f"--parameter: is {text!r}; must be NAME=VALUE")
    if method not in _METHODS:
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(_METHODS)}")
    descriptor, *path = _METHODS[method], *name.split(".")
    for step in path[:-1]:
        field = descriptor.fields_by_name.get(step)
        if field is None or field.message_type is None:
            break
        descriptor = field.message_type
    field = descriptor.fields_by_name.get(path[-1])
    if field is not None and field.message_type is inference_pb2.Baseline.DESCRIPTOR:
        path.append("fill")  # baseline=blur is baseline.fill=blur
    parsed = value if field is None else _parse(name, field, value)
    for step in reversed(path[1:]):
        parsed = {step: parsed}
    return path[0], parsed


def evidence_options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Evidence as the command line has it: NAME or NAME.PARAMETER=VALUE each."""
    evidence: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        name, dot, option = path.partition(".")
        if bool(equals) != bool(dot):
            raise BadArgument(f"--evidence: is {text!r}; must be NAME or NAME.PARAMETER=VALUE")
        if name not in _EVIDENCE:
            raise BadArgument(f"--evidence: is {name!r}; must be one of {', '.join(_EVIDENCE)}")
        parameters = evidence.setdefault(name, {})
        if not dot:
            continue
        message = getattr(evidence_pb2.Evidence(), name)
        _check_names(name, message, [option])
        parsed = _parse(path, message.DESCRIPTOR.fields_by_name[option], value)
        if isinstance(getattr(message, option), MutableSequence):
            parameters.setdefault(option, []).append(parsed)
        elif option in parameters:
            raise BadArgument(f"--evidence: {path} is given more than once")
        else:
            parameters[option] = parsed
    return evidence


def _parse(name: str, field: Any, text: str) -> Any:
    """A number or a truth value where the field is one; the text itself elsewhere."""
    if field.message_type is None and field.enum_type is None:
        return _parse_scalar(name, field.cpp_type, text)
    return text


def _parse_scalar(name: str, kind: int, text: str) -> Any:
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BadArgument(f"{name}: is {text!r}; must be true or false")
    numeric = {
        FieldDescriptor.CPPTYPE_INT32: int,
        FieldDescriptor.CPPTYPE_INT64: int,
        FieldDescriptor.CPPTYPE_DOUBLE: float,
    }
    try:
        return numeric.get(kind, str)(text)
    except ValueError:
        raise BadArgument(f"{name}: is {text!r}; must be a number") from None


def _set_target(message: inference_pb2.Target, target: "types.Target | None") -> None:
    if target is None:
        return
    if isinstance(target, types.Neuron):
        message.neuron.SetInParent()
        _set(message.neuron, **vars(target))
    elif isinstance(target, str):
        message.label = target
    elif isinstance(target, Sequence):
        message.classes.SetInParent()
        for one in target:
            if isinstance(one, str):
                message.classes.labels.append(one)
            else:
                message.classes.class_indices.append(_class_index(one))
    else:
        _set(message, class_index=_class_index(target))


def _class_index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise BadArgument(
            f"target: is {value!r}; must be a class index, a label, several of them, or a Neuron"
        ) from None


def _set(message: Message, **values: Any) -> None:
    """Sets the fields of a message that are not None; enums are lower-case short names."""
    for name, value in values.items():
        if value is None:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        try:
            if field.message_type is not None:
                _set_message(getattr(message, name), name, value)
            elif field.enum_type is None:
                _set_scalar(message, name, value)
            elif isinstance(value, str):
                setattr(message, name, _number(field.enum_type, value))
            else:
                getattr(message, name).extend(_number(field.enum_type, v) for v in value)
        except BadArgument as error:  # of a field of the field
            raise BadArgument(f"{name}.{error}") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise BadArgument(f"{name}: is {value!r}; {error}") from None


def _set_scalar(message: Message, name: str, value: Any) -> None:
    several = getattr(message, name)
    if not isinstance(several, MutableSequence):
        setattr(message, name, value)
    elif isinstance(value, str):
        raise TypeError("must be a sequence of strings")
    else:
        several.extend(value)


def _set_message(message: Message, name: str, value: Any) -> None:
    """Sets a message: from its fields, or a baseline from a fill or an array."""
    message.SetInParent()
    if isinstance(message, inference_pb2.Baseline) and isinstance(value, str):
        value = {"fill": value}
    if isinstance(message, inference_pb2.Baseline) and isinstance(value, np.ndarray):
        value = {"tensor": value}
    if isinstance(message, data_pb2.Tensor):
        array = np.asarray(value, dtype="<f4")
        message.data_type = data_pb2.DATA_TYPE_FLOAT32
        message.shape.extend(array.shape)
        message.data = array.tobytes()
    elif isinstance(value, Mapping):
        _check_names(name, message, value)
        _set(message, **value)
    else:
        raise TypeError("must be a mapping of its fields")


def _prefix(enum: Any) -> str:
    return str(enum.values_by_number[0].name.removesuffix("UNSPECIFIED"))


def _number(enum: Any, short: str) -> int:
    names: dict[str, int] = {
        value.name.removeprefix(_prefix(enum)).lower(): value.number
        for value in enum.values
        if value.number
    }
    if short not in names:
        raise ValueError(f"must be {' or '.join(map(repr, names))}")
    return names[short]


def loaded(photo: types.Photo) -> bytes | NDArray[np.uint8] | NDArray[np.float32]:
    """A photo as it is sent, read or encoded once for many requests."""
    image = _image(photo)
    return photo if isinstance(photo, np.ndarray) else image.encoded


def listed(photos: Sequence[types.Photo]) -> list[types.Photo]:
    """Several photos, each checked.

    Raises:
        BadArgument: It is one, or has what is none.
    """
    if isinstance(photos, str | bytes | os.PathLike | np.ndarray):
        raise BadArgument("photos: is one photo; must be a sequence of them")
    return [checked(photo) for photo in photos]


def checked(photo: types.Photo) -> types.Photo:
    """It, where it is of a kind that a photo can be; no file is read.

    Raises:
        BadArgument: It is none.
    """
    if isinstance(photo, np.ndarray):
        _element_type(photo)
    elif not (isinstance(photo, bytes | str | os.PathLike) or _is_pil(photo)):
        raise BadArgument(
            f"photo: is {type(photo).__name__}; must be a path, the bytes of an image file, a PIL "
            "image or a NumPy array"
        )
    return photo


def _is_pil(photo: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # whoever has a PIL image has imported it
    return pil is not None and isinstance(photo, pil.Image)


def _image(photo: types.Photo) -> data_pb2.Image:
    photo = checked(photo)
    if isinstance(photo, bytes):
        return data_pb2.Image(encoded=photo)
    if isinstance(photo, str | os.PathLike):
        return data_pb2.Image(encoded=_read_file(photo))
    if isinstance(photo, np.ndarray):
        return data_pb2.Image(tensor=_image_tensor(photo))
    return data_pb2.Image(encoded=_png(photo))


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise PhotoNotFound(f"photo: there is no file {os.fspath(path)}") from None
    except (OSError, ValueError) as error:
        raise BadArgument(f"photo: {os.fspath(path)!r} cannot be read: {error}") from error


def _element_type(array: NDArray[Any]) -> data_pb2.DataType:
    dtype, shape = array.dtype.name, array.shape
    if dtype == "uint8" and array.ndim == 3 and shape[2] == 3:
        return data_pb2.DATA_TYPE_UINT8
    if dtype == "float32" and array.ndim == 3 and shape[0] == 3:
        return data_pb2.DATA_TYPE_FLOAT32
    raise BadArgument(
        f"photo: is an array of {dtype} {' × '.join(map(str, shape)) or 'without axes'}; must "
        "be uint8 height × width × 3 (a photo) or float32 3 × height × width (an input "
        "already preprocessed)"
    )


def _image_tensor(array: NDArray[Any]) -> data_pb2.Tensor:
    data_type = _element_type(array)
    data = array.astype(_DTYPES[data_type], copy=False).tobytes()
    return data_pb2.Tensor(data_type=data_type, shape=array.shape, data=data)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, "PNG", compress_level=1)  # as lossless as the slow levels
    except OSError as error:
        raise BadArgument(f"photo: is a PIL image that PNG cannot hold: {error}") from error
    return file.getvalue()


# Results.


def predict_result(response: inference_pb2.PredictResponse) -> types.PredictResult:
    return types.PredictResult(
        predictions=tuple(_read(types.Prediction, p) for p in response.predictions),
        logits=_array(response.logits) if response.HasField("logits") else None,
        receipt=_receipt(response.receipt),
        run=_run(response.run),
        explanations=tuple(
            _failure(attached.failure)
            if attached.HasField("failure")
            else explain_result(attached.explanation)
            for attached in response.explanations
        ),
    )


def predict_results(
    response: inference_pb2.PredictBatchResponse,
) -> tuple[types.PredictResult | StatusError, ...]:
    return tuple(
        _failure(result.failure)
        if result.HasField("failure")
        else predict_result(result.prediction)
        for result in response.results
    )


def explain_results(
    response: inference_pb2.ExplainBatchResponse,
) -> tuple[types.ExplainResult | StatusError, ...]:
    return tuple(
        _failure(result.failure)
        if result.HasField("failure")
        else explain_result(result.explanation)
        for result in response.results
    )


def _failure(failure: data_pb2.Failure) -> StatusError:
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
    scale = None if heatmap is None else _short(heatmap, "color_scale")
    return types.ExplainResult(
        method=method,
        parameters=_parameters(getattr(response, method)) if method else {},
        target=_resolved_target(response.target),
        attribution=_array(response.attribution) if has_attribution else None,
        heatmap_png=heatmap.image.data if heatmap and heatmap.HasField("image") else None,
        color_scale=scale,
        limit=None if heatmap is None else heatmap.limit,
        percentile=None if heatmap is None else heatmap.percentile,
        rendering=response.rendering.data if has_rendering else None,
        rendering_format=_short(response.rendering, "format") if has_rendering else None,
        input_box=_read(types.Box, response.input_box),
        occlusion_details=_occlusion_details(response.occlusion_details)
        if response.HasField("occlusion_details")
        else None,
        segment_details=_read(
            types.SegmentDetails,
            response.segment_details,
            segments=_array(response.segment_details.segments),
            values=_array(response.segment_details.values),
        )
        if response.HasField("segment_details")
        else None,
        warnings=tuple(_read(types.MapWarning, warning) for warning in response.warnings),
        convergence=_convergence(response.convergence)
        if response.HasField("convergence")
        else None,
        evidence=_evidence(response.evidence) if response.HasField("evidence") else None,
        receipt=_receipt(response.receipt),
        run=_run(response.run),
    )


def _convergence(message: evidence_pb2.Convergence) -> types.Convergence:
    return _read(
        types.Convergence,
        message,
        stop=_short(message, "stop"),
        standard_error=_array(message.standard_error)
        if message.HasField("standard_error")
        else None,
        residual=message.residual if message.HasField("residual") else None,
    )


def _evidence(message: evidence_pb2.EvidenceResult) -> types.EvidenceResult:
    readers: dict[str, Callable[[Any], Any]] = {
        "completeness": lambda part: _read(types.CompletenessResult, part),
        "curves": _curves,
        "stability": lambda part: _read(
            types.StabilityResult, part, correlations=tuple(part.correlations)
        ),
        "randomization": lambda part: _read(types.RandomizationResult, part),
        "cascade": lambda part: types.CascadeResult(
            tuple(_read(types.CascadeStage, stage) for stage in part.stages)
        ),
        "agreement": lambda part: types.AgreementResult(
            tuple(_read(types.MethodAgreement, one) for one in part.methods)
        ),
    }
    return _read(
        types.EvidenceResult,
        message,
        **{
            name: read(getattr(message, name)) if message.HasField(name) else None
            for name, read in readers.items()
        },
    )


def _curves(message: evidence_pb2.CurvesResult) -> types.CurvesResult:
    return types.CurvesResult(
        shares=_doubles(message.shares),
        curves=tuple(
            _read(
                types.Curve,
                curve,
                order=_short(curve, "order"),
                deletion=_doubles(curve.deletion),
                insertion=_doubles(curve.insertion),
            )
            for curve in message.curves
        ),
        chart_png=message.chart.data,
    )


def model_summaries(response: model_pb2.ListModelsResponse) -> tuple[types.ModelSummary, ...]:
    return tuple(_read(types.ModelSummary, summary) for summary in response.models)


def model(response: model_pb2.GetModelResponse) -> types.Model:
    return _read(
        types.Model,
        response,
        preprocessing=_preprocessing(response.preprocessing),
        precision=_short(response, "precision"),
        layers=tuple(
            _read(
                types.Layer, x, shape=tuple(x.shape), layout=_short(x, "layout"), grid=tuple(x.grid)
            )
            for x in response.layers
        ),
        methods=tuple(
            _read(types.MethodSupport, method, evidence=tuple(method.evidence))
            for method in response.methods
        ),
        labels=tuple(response.labels),
        costs=tuple(_read(types.BatchCost, x, lane=_short(x, "lane")) for x in response.costs),
        platform=_short(response, "platform"),
        onnx=_onnx(response.onnx) if response.HasField("onnx") else None,
    )


def _onnx(message: model_pb2.Onnx) -> types.Onnx:
    parity = message.parity if message.HasField("parity") else None
    return _read(types.Onnx, message, parity=parity, notes=tuple(message.notes))


def _run(run: inference_pb2.Run) -> types.Run:
    return _read(
        types.Run,
        run,
        preprocessing=_preprocessing(run.preprocessing),
        precision=_short(run, "precision"),
        batches=tuple(_read(types.Batch, batch) for batch in run.batches),
    )


def _preprocessing(message: model_pb2.Preprocessing) -> types.Preprocessing:
    return _read(
        types.Preprocessing,
        message,
        interpolation=_short(message, "interpolation"),
        mean=tuple(message.mean),
        std=tuple(message.std),
    )


def _resolved_target(target: inference_pb2.ResolvedTarget) -> types.ResolvedTarget:
    return _read(
        types.ResolvedTarget,
        target,
        class_index=target.class_index if target.HasField("class_index") else None,
        neuron=_neuron(target.neuron) if target.HasField("neuron") else None,
        class_indices=tuple(target.classes.class_indices),
        labels=tuple(target.classes.labels),
        against_class_index=target.against_class_index
        if target.HasField("against_class_index")
        else None,
        score_kind=_short(target, "score_kind") if target.HasField("score_kind") else None,
    )


def _neuron(neuron: inference_pb2.Neuron) -> types.Neuron:
    return types.Neuron(**{field.name: value for field, value in neuron.ListFields()})


def _occlusion_details(details: inference_pb2.OcclusionDetails) -> types.OcclusionDetails:
    has_rise = details.HasField("largest_rise")
    return types.OcclusionDetails(
        falls=_array(details.falls),
        largest_fall=_read(types.Box, details.largest_fall),
        largest_rise=_read(types.Box, details.largest_rise) if has_rise else None,
    )


def _parameters(method: Message) -> dict[str, Any]:
    return {
        field.name: _parameter(method, field)
        for field in method.DESCRIPTOR.fields
        if (method.HasField(field.name) if field.has_presence else getattr(method, field.name))
    }


def _parameter(method: Message, field: Any) -> Any:
    value = getattr(method, field.name)
    if isinstance(value, data_pb2.Tensor):
        return _array(value)
    if isinstance(value, Message):
        return _parameters(value)
    return _short(method, field.name) if field.enum_type else value


# Receipts.


def _receipt(message: inference_pb2.Receipt) -> types.Receipt:
    return types.Receipt(json_format.MessageToDict(message))


def replay_request(
    receipt: types.Receipt, photo: types.Photo
) -> tuple[inference_pb2.Receipt, str, inference_pb2.PredictRequest | inference_pb2.ExplainRequest]:
    """The receipt as its message, the RPC that it is of, and the request to send again.

    Raises:
        BadArgument: It is no receipt, or the photo is not the one that it is of.
    """
    message = inference_pb2.Receipt()
    try:
        # Read strictly: a parameter that is passed over would make another result.
        json_format.ParseDict(dict(receipt.fields), message)
    except (json_format.ParseError, ValueError) as error:
        raise BadArgument(f"receipt: cannot be read: {error}") from None
    kind = message.WhichOneof("request")
    if kind is None:
        raise BadArgument("receipt: holds no request")
    try:
        _array(message.sketch)
    except (KeyError, ValueError):
        raise BadArgument("receipt: cannot be read: its sketch is damaged") from None
    image = _image(photo)
    if _sha256(image) != message.image_sha256:
        raise BadArgument("photo: is not the one that the receipt is of; its SHA-256 is another")
    request: inference_pb2.PredictRequest | inference_pb2.ExplainRequest
    if kind == "predict":
        request = inference_pb2.PredictRequest()
        request.CopyFrom(message.predict)
        request.include_logits = True
    else:
        request = inference_pb2.ExplainRequest()
        request.CopyFrom(message.explain)
        request.outputs.append(inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION)
    request.image.CopyFrom(image)
    return message, kind.capitalize(), request


def _sha256(image: data_pb2.Image) -> str:
    """Of a file; of a tensor, with its type and shape before its bytes: see Receipt."""
    sent = image.encoded
    if image.HasField("tensor"):
        tensor = image.tensor
        line = " ".join(map(str, (np.dtype(_DTYPES[tensor.data_type]).name, *tensor.shape)))
        sent = f"{line}\n".encode() + tensor.data
    return hashlib.sha256(sent).hexdigest()


def replay(
    before: inference_pb2.Receipt,
    response: inference_pb2.PredictResponse | inference_pb2.ExplainResponse,
) -> types.Replay:
    """What came of a request that was sent again, compared with its receipt."""
    result: types.PredictResult | types.ExplainResult
    if isinstance(response, inference_pb2.PredictResponse):
        result, exact = predict_result(response), response.logits.data
    else:
        result, exact = explain_result(response), response.attribution.data
    after = response.receipt
    sketch, again = (_array(r.sketch).astype(np.float64) for r in (before, after))
    equal = hashlib.sha256(exact).hexdigest() == before.result_sha256
    difference = 0.0
    if not equal:
        difference = math.inf
        if sketch.shape == again.shape:
            norm = float(np.linalg.norm(sketch)) or 1.0
            difference = float(np.linalg.norm(again - sketch)) / norm
    return types.Replay(equal, difference, tuple(_notes(before, after)), result)


def _notes(before: inference_pb2.Receipt, after: inference_pb2.Receipt) -> Iterator[str]:
    request = before.explain if before.HasField("explain") else before.predict
    if not request.HasField("bucket_size"):
        yield "made without bucket_size: equal bits were not promised"
    for name in ("weights_sha256", "device", "thread_count"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield f"{name} was {was}, is {now}"
    for name in ("preprocessing", "precision"):
        if getattr(before, name) != getattr(after, name):
            yield f"{name} is another"
    for package in sorted({*before.versions, *after.versions}):
        was, now = before.versions.get(package, "none"), after.versions.get(package, "none")
        if was != now:
            yield f"{package} was {was}, is {now}"


def _read(kind: type[_T], message: Message, **given: Any) -> _T:
    """A dataclass of a message's fields of the same names, but for those that are given."""
    names = [name for name in kind.__dataclass_fields__ if name not in given]
    return kind(**{name: getattr(message, name) for name in names}, **given)


def _short(message: Message, name: str) -> str:
    """The lower-case short name of an enum's value; its number where the contract is newer."""
    enum: Any = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = getattr(message, name)
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enum)).lower()


_DTYPES = {
    data_pb2.DATA_TYPE_UINT8: "u1",
    data_pb2.DATA_TYPE_FLOAT32: "<f4",
    data_pb2.DATA_TYPE_FLOAT64: "<f8",
    data_pb2.DATA_TYPE_INT64: "<i8",
}


def _array(tensor: data_pb2.Tensor) -> NDArray[Any]:
    """A read-only view of the tensor's bytes."""
    return np.frombuffer(tensor.data, _DTYPES[tensor.data_type]).reshape(tensor.shape)


def _doubles(values: Iterable[float]) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    array.flags.writeable = False
    return array


# Calls.


def call_metadata(caller: str, token: str | None) -> tuple[tuple[str, str], ...]:
    """What goes along with every call."""
    if not (caller.isascii() and caller.isprintable()):
        raise BadArgument(f"caller: is {caller!r}; must be printable ASCII")
    metadata = [("pellucid-caller", caller)] if caller else []
    if token is not None:
        if not all("!" <= character <= "~" for character in token or " "):
            raise BadArgument("token: must be printable ASCII without spaces, and not empty")
        metadata.append(("authorization", f"Bearer {token}"))
    return tuple(metadata)


def deadline_s(timeout_s: float) -> float:
    """When time is up, on the monotonic clock.

    Raises:
        BadArgument: Never, or before now.
    """
    if not 0 < timeout_s < math.inf:
        raise BadArgument(f"timeout_s: is {timeout_s}; must be more than 0 and finite")
    return time.monotonic() + timeout_s


_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
)


class Attempts:
    """The attempts of one call under one deadline."""

    def __init__(self, timeout_s: float, max_retries: int) -> None:
        self._expires_s = deadline_s(timeout_s)
        self._retries_left = max_retries

    def remaining_s(self) -> float:
        return max(0.0, self._expires_s - time.monotonic())

    def pause_s(self, error: grpc.RpcError, *, started: bool = False) -> float:
        """How long to wait before the next attempt.

        Args:
            error: What the call ended with.
            started: Whether a part of the answer was there already.

        Raises:
            StatusError: There is to be none: the answer had started, no retry was offered, none
                is left, or its delay reaches beyond the deadline.
        """
        failure = failure_of(error)
        delay_s = failure.retry_delay_s
        if (
            started
            or not isinstance(failure, ResourceExhausted)
            or delay_s is None
            or self._retries_left <= 0
            or delay_s >= self.remaining_s()
        ):
            raise failure from error
        self._retries_left -= 1
        return delay_s


def _details(error: grpc.RpcError) -> list[Message]:
    """What the server says of an error besides its code and message; nothing if unreadable."""
    known = {kind.DESCRIPTOR.full_name: kind for kind in _DETAILS}
    trailing: Any = error.trailing_metadata() or ()
    packed = next((value for key, value in trailing if key == "grpc-status-details-bin"), b"")
    try:
        details = status_pb2.Status.FromString(packed).details
        kinds = [(known.get(detail.TypeName()), detail.value) for detail in details]
        return [kind.FromString(value) for kind, value in kinds if kind is not None]
    except DecodeError:
        return []


def failure_of(error: grpc.RpcError) -> StatusError:
    """The exception for what a call ended with, with the details that the server sent."""
    reason, violations, retry_delay_s = "", [], None
    for detail in _details(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            reason = detail.reason
        elif isinstance(detail, error_details_pb2.BadRequest):
            violations = [Violation(v.field, v.description) for v in detail.field_violations]
        elif isinstance(detail, error_details_pb2.RetryInfo):
            delay = detail.retry_delay
            retry_delay_s = max(0.0, delay.seconds + delay.nanos / 1e9)
    return BY_CODE.get(error.code(), Unknown)(
        error.details() or error.code().name,
        reason=reason,
        violations=violations,
        retry_delay_s=retry_delay_s,
    )
