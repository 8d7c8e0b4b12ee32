"""What is to be measured of an explanation, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.message import Message
from pellucid import charts
from pellucid.v1 import data_pb2, evidence_pb2

from ..engine.rows import Target
from ..methods.evidence.comparisons import (
    Agreed,
    Agreement,
    Cascade,
    Correlation,
    Correlations,
    Randomization,
    Stability,
    Stages,
)
from ..methods.evidence.completeness import Completeness, Sums
from ..methods.evidence.curves import Curves, Scored
from ..methods.evidence.measure import Measure
from ..methods.explain.explain import Until
from ..methods.explain.explanation import Convergence, ExplainMethod
from ..models.registry import Model
from .fields import (
    Fields,
    Violations,
    number_of,
    read_parameters,
    write_parameters,
    write_picture,
    write_tensor,
)

MEASURES: Mapping[str, type[Measure]] = {
    measure.name: measure
    for measure in (Completeness, Curves, Stability, Randomization, Cascade, Agreement)
}

_TOLERANCES = (0.0001, 1.0)
_TIMES_MS = (1.0, 600_000.0)


def read_until(
    found: Violations,
    message: evidence_pb2.Until | None,
    method: ExplainMethod | None,
    model: Model | None,
    *,
    watched: bool,
) -> Until:
    """When to stop; what a method does by default where nothing is said.

    Args:
        found: Where all that is wrong is noted.
        message: None where the request has none.
        method: None where something is wrong with it.
        model: None where the request names one that is not there.
        watched: Whether estimates are to be shown.
    """
    endless = None if method is None else method.why_endless()
    if endless is not None and (watched or message is not None):
        assert method is not None
        field = "method" if message is None else "until"
        found.invalid(field, f"{method.name} cannot be stopped or streamed: {endless}")
        return Until()
    tolerance = None if method is None else method.tolerance
    if message is None:
        return Until(tolerance)
    fields = Fields(found, "until", message)
    if not any(fields.has(name) for name in ("tolerance", "row_count", "time_ms")):
        found.invalid("until", "required: tolerance, row_count or time_ms")
    least = 1 if method is None or model is None else method.least_rows(model)
    return Until(
        fields.number("tolerance", tolerance, *_TOLERANCES),
        fields.number("row_count", None, least, None),
        fields.number("time_ms", None, *_TIMES_MS),
    )


def read_measures(
    found: Violations,
    message: evidence_pb2.Evidence,
    method: type[ExplainMethod] | None,
    model: Model | None,
    target: Target | None,
    default: Callable[[str], ExplainMethod | str],
) -> tuple[Measure, ...]:
    """The measures that are asked for, in the order of the contract.

    Args:
        found: Where all that is wrong is noted.
        message: What is asked for.
        method: That is measured; None where the request names none.
        model: None where the request names one that is not there.
        target: None where something is wrong with it.
        default: Another method as its defaults make it, or why there is none.
    """
    measures: list[Measure] = []
    for name, kind in MEASURES.items():
        if not message.HasField(cast(Any, name)):
            continue
        where, inner = f"evidence.{name}", getattr(message, name)
        wrong = None if method is None else kind.method_refusal(method)
        wrong = wrong or (None if target is None else kind.target_refusal(target))
        refusal = None if model is None else kind.why_not(model)
        if wrong is not None:
            found.invalid(where, wrong)
        elif refusal is not None:
            found.refused(where, refusal)
        elif kind is Agreement:
            measures += _read_agreement(found, where, list(inner.methods), method, model, default)
        else:
            made = read_parameters(found, where, inner, kind, model, None)
            measures += [] if made is None else [made]
    return tuple(measures)


def _read_agreement(
    found: Violations,
    where: str,
    names: Sequence[str],
    method: type[ExplainMethod] | None,
    model: Model | None,
    default: Callable[[str], ExplainMethod | str],
) -> list[Measure]:
    field = f"{where}.methods"
    if not names:
        found.invalid(field, "required; at least one method")
    others: list[ExplainMethod] = []
    for name in names:
        other = default(name)
        if method is not None and name == method.name:
            found.invalid(field, f"{name} is the request's own method")
        elif names.count(name) > 1:
            found.invalid(field, f"names {name} twice")
        elif isinstance(other, str):
            found.invalid(field, other)
        else:
            others.append(other)
    return [Agreement(tuple(others))] if others and model is not None else []


def write_measures(measures: Sequence[Measure], message: evidence_pb2.Evidence) -> None:
    """Fills in what is asked for, defaults included."""
    for measure in measures:
        inner = getattr(message, measure.name)
        if isinstance(measure, Agreement):
            inner.methods.extend(other.name for other in measure.others)
        else:
            write_parameters(measure, inner, tensors=True)


def write_convergence(made: Convergence, *, tensors: bool) -> evidence_pb2.Convergence:
    """How far an explanation came."""
    number = number_of(evidence_pb2.StopReason.DESCRIPTOR, made.stop.value)
    response = evidence_pb2.Convergence(
        stop=cast(evidence_pb2.StopReason, number),
        row_count=made.row_count,
        error=made.error,
        residual=made.residual,
    )
    if tensors and made.standard_error is not None:
        response.standard_error.CopyFrom(write_tensor(made.standard_error))
    return response


def write_evidence(found: Mapping[str, Any], row_count: int) -> evidence_pb2.EvidenceResult:
    """What came of every measure, by its name."""
    response = evidence_pb2.EvidenceResult(row_count=row_count)
    for name, value in found.items():
        written: Message = _WRITERS[type(value)](value)
        getattr(response, name).CopyFrom(written)
    return response


def _write_sums(sums: Sums) -> Message:
    return evidence_pb2.CompletenessResult(
        attribution_sum=sums.attribution_sum,
        expected_sum=sums.expected_sum,
        relative_error=sums.relative_error,
    )


def _write_scored(scored: Scored) -> Message:
    orders = evidence_pb2.CurveOrder.DESCRIPTOR
    return evidence_pb2.CurvesResult(
        shares=scored.shares,
        curves=[
            evidence_pb2.Curve(
                order=cast(evidence_pb2.CurveOrder, number_of(orders, curve.order)),
                deletion=curve.deletion,
                insertion=curve.insertion,
                deletion_area=curve.deletion_area,
                insertion_area=curve.insertion_area,
            )
            for curve in scored.curves
        ],
        chart=_write_chart(scored),
    )


def _write_chart(scored: Scored) -> data_pb2.EncodedImage:
    return write_picture(charts.curves_chart(scored.shares, scored.curves), "png")


def _write_correlations(found: Correlations) -> Message:
    return evidence_pb2.StabilityResult(
        correlations=found.values,
        mean=sum(found.values) / len(found.values),
        least=min(found.values),
    )


def _write_correlation(found: Correlation) -> Message:
    return evidence_pb2.RandomizationResult(
        correlation=found.signed, absolute_correlation=found.absolute
    )


def _write_stages(found: Stages) -> Message:
    return evidence_pb2.CascadeResult(
        stages=[
            evidence_pb2.CascadeStage(
                layer=stage.layer,
                layer_count=stage.layer_count,
                correlation=stage.correlation.signed,
                absolute_correlation=stage.correlation.absolute,
            )
            for stage in found.stages
        ]
    )


def _write_agreed(found: Agreed) -> Message:
    return evidence_pb2.AgreementResult(
        methods=[
            evidence_pb2.MethodAgreement(
                method=other.method, correlation=other.correlation, top_overlap=other.top_overlap
            )
            for other in found.methods
        ]
    )


_WRITERS: Mapping[type, Callable[[Any], Message]] = {
    Sums: _write_sums,
    Scored: _write_scored,
    Correlations: _write_correlations,
    Correlation: _write_correlation,
    Stages: _write_stages,
    Agreed: _write_agreed,
}
