"""From Python arguments to requests.

What a method may be is read from the contract's descriptors, so that a new one needs no change
here.
"""

import hashlib
import operator
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from typing import Any

from .. import types
from ..errors import BadArgument
from ..v1 import evidence_pb2, inference_pb2, model_pb2
from .fields import check_names, parse, set_fields
from .photos import image_of, images_of

METHODS = {
    member.name: member.message_type
    for member in inference_pb2.ExplainRequest.DESCRIPTOR.oneofs_by_name["method"].fields
    if member.message_type is not None
}
_EVIDENCE = evidence_pb2.Evidence.DESCRIPTOR.fields_by_name


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
    request.image.CopyFrom(image_of(photo))
    return request


def _predict_request(
    *, explain: Sequence[str | types.Explain] = (), **options: Any
) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest()
    _check_options("predict", options, _PREDICT_OPTIONS)
    set_fields(request, **options)
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
        predict=_predict_request(**options), images=images_of(photos)
    )


def explain_batch_request(
    photos: Sequence[types.Photo], method: str, options: Mapping[str, Any]
) -> inference_pb2.ExplainBatchRequest:
    """As explain_request, whose options these are, for several photos."""
    return inference_pb2.ExplainBatchRequest(
        explain=_explain_request(method, options), images=images_of(photos)
    )


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
    set_target(request.target, target, against, score)
    set_fields(request, model=model, outputs=outputs, bucket_size=bucket_size)
    set_fields(request.rendering, **rendering)
    _set_until(request.until, until)
    set_fields(request, evidence=evidence_of(evidence) or None)
    if request.evidence.HasField("agreement") and not request.evidence.agreement.methods:
        raise BadArgument(
            'evidence: agreement needs methods, such as {"agreement": {"methods": ["rise"]}}'
        )
    if photo is not None:
        request.image.CopyFrom(image_of(photo))
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
    set_fields(message, **vars(until))


def common_score(target: "types.Target | None", score: str | None) -> str | None:
    """The score that methods side by side explain, which neurons have no choice of."""
    return "logit" if score is None and not isinstance(target, types.Neuron) else score


def endable(method: str) -> dict[str, Any]:
    """The parameters without which a method takes all of its rows, whatever Until says."""
    fields = METHODS[method].fields_by_name if method in METHODS else {}
    return {"quadrature": "adaptive"} if "quadrature" in fields else {}


def stream_request(request: inference_pb2.ExplainRequest) -> inference_pb2.ExplainStreamRequest:
    """The same, to be shown as it is made."""
    return inference_pb2.ExplainStreamRequest(explain=request)


def get_model_request(name: str) -> model_pb2.GetModelRequest:
    request = model_pb2.GetModelRequest()
    set_fields(request, model=name)
    return request


def _set_method(
    request: inference_pb2.ExplainRequest, method: str, parameters: Mapping[str, Any]
) -> None:
    if method not in METHODS:
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(METHODS)}")
    message = getattr(request, method)
    message.SetInParent()
    check_names(method, message, parameters)
    set_fields(message, **parameters)


def parameter(method: str, text: str) -> tuple[str, Any]:
    """A parameter of a method as the command line has it: NAME=VALUE, or NAME.FIELD=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise BadArgument(f"--parameter: is {text!r}; must be NAME=VALUE")
    if method not in METHODS:
        raise BadArgument(f"method: is {method!r}; must be one of {', '.join(METHODS)}")
    descriptor, *path = METHODS[method], *name.split(".")
    for step in path[:-1]:
        field = descriptor.fields_by_name.get(step)
        if field is None or field.message_type is None:
            break
        descriptor = field.message_type
    field = descriptor.fields_by_name.get(path[-1])
    if field is not None and field.message_type is inference_pb2.Baseline.DESCRIPTOR:
        path.append("fill")  # baseline=blur is baseline.fill=blur
    parsed = value if field is None else parse(name, field, value)
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
        check_names(name, message, [option])
        parsed = parse(path, message.DESCRIPTOR.fields_by_name[option], value)
        if isinstance(getattr(message, option), MutableSequence):
            parameters.setdefault(option, []).append(parsed)
        elif option in parameters:
            raise BadArgument(f"--evidence: {path} is given more than once")
        else:
            parameters[option] = parsed
    return evidence


def set_target(
    message: inference_pb2.Target,
    target: "types.Target | None",
    against: int | str | None,
    score: str | None,
) -> None:
    """Sets whose score is meant; what is None is left to the server."""
    _set_target(message, target)
    if against is not None:
        field = "against_label" if isinstance(against, str) else "against_class_index"
        set_fields(message, **{field: against})
    set_fields(message, score=score)


def _set_target(message: inference_pb2.Target, target: "types.Target | None") -> None:
    if target is None:
        return
    if isinstance(target, types.Neuron):
        message.neuron.SetInParent()
        set_fields(message.neuron, **vars(target))
    elif isinstance(target, str):
        message.label = target
    elif isinstance(target, Sequence):
        message.classes.SetInParent()
        for one in target:
            if isinstance(one, str):
                message.classes.labels.append(one)
            else:
                message.classes.class_indices.append(class_index_of(one))
    else:
        set_fields(message, class_index=class_index_of(target))


def class_index_of(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise BadArgument(
            f"target: is {value!r}; must be a class index, a label, several of them, or a Neuron"
        ) from None
