"""Until and evidence: what is sent for them, and what comes back."""

import io
import json
from typing import Any

import numpy as np
import pellucid
import pytest
from pellucid import _wire
from pellucid._wire.photos import sha256_of
from pellucid.v1 import data_pb2, evidence_pb2, inference_pb2
from PIL import Image

from .conftest import Call, FakeServer, explained, measured, tensor
from .test_requests import explain_request

Evidence = evidence_pb2.Evidence


def test_until_and_evidence_are_sent(call: Call, server: FakeServer) -> None:
    asked: dict[str, Any] = {
        "until": pellucid.Until(tolerance=0.25, row_count=64, time_ms=1500.5),
        "evidence": ("curves", "completeness"),
    }
    call("explain", b"x", "rise", **asked)
    call("explain_stream", b"x", "rise", **asked)
    expected = inference_pb2.ExplainRequest(
        image=data_pb2.Image(encoded=b"x"),
        until=evidence_pb2.Until(tolerance=0.25, row_count=64, time_ms=1500.5),
        evidence=Evidence(curves=evidence_pb2.Curves(), completeness=evidence_pb2.Completeness()),
        rise=inference_pb2.Rise(),
    )
    assert server.requests == [expected, inference_pb2.ExplainStreamRequest(explain=expected)]


def test_neither_is_sent_unasked() -> None:
    for sent in (explain_request(), explain_request(evidence=()), explain_request(evidence={})):
        assert not sent.HasField("until")
        assert not sent.HasField("evidence")
    assert explain_request(until=pellucid.Until()).HasField("until")


def test_parameters_of_evidence() -> None:
    sent = explain_request(
        evidence={
            "curves": {"step_count": 32, "insertion_fill": "black"},
            "stability": {"noise_level": 0.5},
            "agreement": {"methods": ("rise", "lime")},
            "cascade": {},
        }
    )
    assert sent.evidence == Evidence(
        curves=evidence_pb2.Curves(step_count=32, insertion_fill=data_pb2.FILL_BLACK),
        stability=evidence_pb2.Stability(noise_level=0.5),
        agreement=evidence_pb2.Agreement(methods=["rise", "lime"]),
        cascade=evidence_pb2.Cascade(),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": 0.01}, r"^until: is 0.01; must be an Until$"),
        ({"until": pellucid.Until("fine")}, r"^tolerance: is 'fine'"),  # type: ignore[arg-type]
        ({"evidence": "curves"}, r"^evidence: is 'curves'; must be a sequence of names, or"),
        ({"evidence": 3}, r"^evidence: is 3; must be .* names are completeness, curves, stab"),
        ({"evidence": [3]}, r"^evidence: is \[3\]; must be"),
        ({"evidence": ["trust"]}, r"^evidence.trust: not a parameter of evidence, which has comp"),
        ({"evidence": {"curves": 8}}, r"^evidence.curves: is 8; must be a mapping"),
        (
            {"evidence": {"curves": {"steps": 8}}},
            r"^evidence.curves.steps: not a parameter of curves, which has step_count, deletion",
        ),
        ({"evidence": {"curves": {"seed": "x"}}}, r"^evidence.curves.seed: is 'x'"),
        (
            {"evidence": {"curves": {"deletion_fill": "red"}}},
            r"^evidence.curves.deletion_fill: is 'red'; must be 'black' or 'white'",
        ),
        ({"evidence": ["agreement"]}, r"^evidence: agreement needs methods, such as"),
        ({"evidence": {"agreement": {"methods": []}}}, r"^evidence: agreement needs methods"),
        (
            {"evidence": {"agreement": {"methods": "rise"}}},
            r"^evidence.agreement.methods: is 'rise'; must be a sequence of strings",
        ),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(pellucid.BadArgument, match=message):
        explain_request(**arguments)


def test_evidence_of_the_command_line() -> None:
    texts = ["stability", "curves.step_count=32", "curves.blur_sigma_px=2.5"]
    texts += ["curves.deletion_fill=black", "agreement.methods=rise", "agreement.methods=lime"]
    assert _wire.evidence_options(texts) == {
        "stability": {},
        "curves": {"step_count": 32, "blur_sigma_px": 2.5, "deletion_fill": "black"},
        "agreement": {"methods": ["rise", "lime"]},
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["curves=3"], "--evidence: is 'curves=3'; must be NAME or NAME.PARAMETER=VALUE"),
        (["curves.seed"], "--evidence: is 'curves.seed'; must be NAME or NAME.PARAMETER=VALUE"),
        (["trust"], "--evidence: is 'trust'; must be one of completeness, curves"),
        (["curves.steps=3"], "steps: not a parameter of curves, which has step_count"),
        (["curves.seed=x"], "curves.seed: is 'x'; must be a number"),
        (["curves.seed=1", "curves.seed=1"], "--evidence: curves.seed is given more than once"),
    ],
)
def test_evidence_that_cannot_be_read(texts: list[str], message: str) -> None:
    with pytest.raises(pellucid.BadArgument, match=message):
        _wire.evidence_options(texts)


def test_convergence() -> None:
    errors = np.array([[[0.5, 0.25, 0], [1, 2, 3]]], np.float32)
    made = evidence_pb2.Convergence(
        stop=evidence_pb2.STOP_REASON_ROW_COUNT,
        row_count=96,
        error=0.125,
        standard_error=tensor(errors),
    )
    result = _wire.explain_result(explained(convergence=made)).convergence
    assert result is not None
    assert (result.stop, result.row_count, result.error) == ("row_count", 96, 0.125)
    assert result.residual is None
    assert result.standard_error is not None
    np.testing.assert_array_equal(result.standard_error, errors)
    assert not result.standard_error.flags.writeable

    summed = evidence_pb2.Convergence(stop=evidence_pb2.STOP_REASON_COMPLETE, residual=0.0)
    other = _wire.explain_result(explained(convergence=summed)).convergence
    assert other is not None
    assert (other.stop, other.standard_error, other.residual) == ("complete", None, 0.0)


def test_evidence() -> None:
    sent = measured()
    sent.cascade.stages.add(layer="fc", layer_count=1, correlation=-0.5, absolute_correlation=0.5)
    sent.agreement.methods.add(method="rise", correlation=0.25, top_overlap=0.125)
    result = _wire.explain_result(explained(evidence=sent)).evidence
    assert result is not None
    assert result.completeness == pellucid.CompletenessResult(3, 4, 0.25)
    assert result.stability == pellucid.StabilityResult((0.75, 1.0), 0.875, 0.75)
    assert result.randomization == pellucid.RandomizationResult(-0.5, 0.125)
    assert result.cascade == pellucid.CascadeResult((pellucid.CascadeStage("fc", 1, -0.5, 0.5),))
    assert result.agreement == pellucid.AgreementResult(
        (pellucid.MethodAgreement("rise", 0.25, 0.125),)
    )
    assert result.row_count == 40


def test_curves() -> None:
    result = _wire.explain_result(explained(evidence=measured())).evidence
    assert result is not None
    curves = result.curves
    assert curves is not None
    assert curves.shares.tolist() == [0, 0.5, 1]
    assert [one.order for one in curves.curves] == ["map", "random", "center"]
    assert curves.map.deletion.tolist() == [0.75, 0.5, 0.125]
    assert curves.map.insertion.tolist() == [0.125, 0.5, 0.75]
    assert (curves.map.deletion_area, curves.map.insertion_area) == (0.25, 0.75)
    for array in (curves.shares, curves.map.deletion, curves.map.insertion):
        assert array.dtype == np.float64
        assert not array.flags.writeable
    # The map's 0.75 - 0.25, less the centre's 0.75 - 0.5, which is the better yardstick.
    assert curves.gain == 0.25
    assert curves.chart is curves.chart
    assert curves.chart.size == (4, 2)
    with Image.open(io.BytesIO(curves.chart_png)) as image:
        assert image.format == "PNG"


def test_what_was_not_measured_is_none() -> None:
    result = _wire.explain_result(explained())
    assert result.convergence is None
    assert result.evidence is None
    empty = _wire.explain_result(explained(evidence=evidence_pb2.EvidenceResult(row_count=3)))
    assert empty.evidence == pellucid.EvidenceResult(None, None, None, None, None, None, 3)


def test_a_receipt_holds_them() -> None:
    asked = explain_request("rise", until=pellucid.Until(0.25), evidence=["curves"])
    receipt = inference_pb2.Receipt(explain=asked, image_sha256=sha256_of(asked.image))
    receipt.sketch.CopyFrom(tensor(np.ones((1, 1), np.float32)))
    receipt.explain.ClearField("image")
    kept = _wire.explain_result(explained(receipt=receipt)).receipt
    again = pellucid.Receipt(json.loads(json.dumps(kept.fields)))
    _, rpc, request = _wire.replay_request(again, b"photo")
    assert rpc == "Explain"
    assert isinstance(request, inference_pb2.ExplainRequest)
    assert (request.until, request.evidence) == (asked.until, asked.evidence)
