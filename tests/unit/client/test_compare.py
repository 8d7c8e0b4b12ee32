"""Methods side by side: what is asked of each, and how they are ranked."""

import io
import re
import threading
import time
from typing import Any

import grpc
import numpy as np
import pellucid
import pytest
from pellucid import _wire
from pellucid.compare import COLUMNS, CONCURRENCY
from pellucid.render import upright
from pellucid.v1 import evidence_pb2, inference_pb2
from PIL import Image

from .conftest import PREPROCESSING, Call, FakeServer, encode, explained, measured

PHOTO = encode(np.full((4, 5, 3), 90, np.uint8), "PNG")


def compared(method: str, **numbers: float) -> pellucid.Compared:
    response = explained(evidence=measured(**numbers))
    return pellucid.Compared(method, _wire.explain_result(response))


def failed(method: str) -> pellucid.Compared:
    return pellucid.Compared(method, None, pellucid.Internal("a bug"))


def comparison(*rows: pellucid.Compared) -> pellucid.Comparison:
    return pellucid.Comparison(PHOTO, rows)


def names(rows: tuple[pellucid.Compared, ...]) -> list[str]:
    return [row.method for row in rows]


# What is asked.


def test_all_supported_methods_explain_one_target(call: Call, server: FakeServer) -> None:
    progress: list[tuple[int, int]] = []
    made = call("compare", PHOTO, on_progress=lambda *counts: progress.append(counts))
    assert names(made.rows) == ["gradient", "rise", "attention_rollout"]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    asked, *requests = server.requests
    assert asked.model == ""
    first = requests[0]
    assert first.WhichOneof("method") == "gradient"
    assert not first.target.WhichOneof("kind")
    # What the fake server resolved the first one's to.
    assert [one.target.class_index for one in requests[1:]] == [0, 0]
    assert all(one.target.WhichOneof("kind") == "class_index" for one in requests[1:])
    assert {one.target.score for one in requests} == {inference_pb2.SCORE_LOGIT}
    assert {one.image.encoded for one in requests} == {PHOTO}


def test_evidence_that_a_method_cannot_have_is_left_out(call: Call, server: FakeServer) -> None:
    call("compare", PHOTO, evidence=["curves", "randomization", "cascade"], target=2)
    asked = {one.WhichOneof("method"): one.evidence for one in server.requests[1:]}
    assert asked["gradient"] == evidence_pb2.Evidence(
        curves=evidence_pb2.Curves(), randomization=evidence_pb2.Randomization()
    )
    assert asked["attention_rollout"] == evidence_pb2.Evidence(curves=evidence_pb2.Curves())


def test_agreement_is_with_the_others(call: Call, server: FakeServer) -> None:
    agreement = {"agreement": {"methods": ["rise"]}}
    call("compare", PHOTO, ["gradient", "rise"], evidence=agreement, target=2)
    asked = {one.WhichOneof("method"): one for one in server.requests[1:]}
    assert list(asked["gradient"].evidence.agreement.methods) == ["rise"]
    assert not asked["rise"].HasField("evidence")


def test_only_methods_that_can_end_early_are_told_when(call: Call, server: FakeServer) -> None:
    call("compare", PHOTO, until=pellucid.Until(0.25), target="lynx", against=1, model="lite")
    asked = {one.WhichOneof("method"): one for one in server.requests[1:]}
    assert asked["rise"].until.tolerance == 0.25
    assert not asked["gradient"].HasField("until")
    for one in asked.values():
        assert (one.model, one.target.label, one.target.against_class_index) == ("lite", "lynx", 1)


def test_a_quadrature_that_can_end_early(call: Call, server: FakeServer) -> None:
    assert _wire.endable("integrated_gradients") == {"quadrature": "adaptive"}
    assert _wire.endable("rise") == _wire.endable("nothing") == {}


def test_neurons_have_no_kind_of_score(call: Call, server: FakeServer) -> None:
    call("compare", PHOTO, ["gradient"], target=pellucid.Neuron("conv"))
    assert server.requests[1].target == inference_pb2.Target(
        neuron=inference_pb2.Neuron(layer="conv")
    )


def test_a_method_that_fails_stops_no_other(call: Call, server: FakeServer) -> None:
    server.by_method["gradient"] = "a bug"
    made = call("compare", PHOTO, ["gradient", "rise", "attention_rollout"])
    assert [row.result is None for row in made.rows] == [True, False, False]
    assert isinstance(made.rows[0].error, pellucid.Internal)
    # The second one resolved the target for the third.
    kinds = [one.target.WhichOneof("kind") for one in server.requests[1:]]
    assert kinds == [None, None, "class_index"]
    assert made.table()[-1] == ("gradient", *("-",) * 7, "failed: a bug")


def test_few_calls_at_a_time(call: Call, server: FakeServer) -> None:
    lock, under_way, most = threading.Lock(), 0, 0
    answer = server._answer

    def counted(request: Any, context: Any, response: Any) -> Any:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return answer(request, context, response)

    server._answer = counted  # type: ignore[method-assign]
    methods = ["gradient", "rise", "lime", "lrp", "occlusion", "grad_cam", "score_cam"]
    call("compare", PHOTO, methods, target=1)
    assert 2 <= most <= CONCURRENCY


def test_whoever_interrupts_it_does_not_wait(call: Call, server: FakeServer) -> None:
    answer = server._answer

    def slowly(request: Any, context: Any, response: Any) -> Any:
        if isinstance(request, inference_pb2.ExplainRequest) and request.HasField("rise"):
            time.sleep(1)
        return answer(request, context, response)

    def interrupt(done: int, count: int) -> None:
        raise RuntimeError("enough")

    server._answer = slowly  # type: ignore[method-assign]
    start_s = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        call("compare", PHOTO, ["gradient", "rise"], target=1, on_progress=interrupt)
    assert time.monotonic() - start_s < 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods: is empty; must name at least one"),
        ({"methods": "rise"}, "methods: is 'rise'; must be a sequence of names"),
        ({"methods": ["rise", "rise"]}, "methods: names 'rise' more than once"),
        ({"methods": ["rise", "shap"], "target": 1}, "method: is 'shap'; must be one of"),
        ({"evidence": "curves"}, "evidence: is 'curves'"),
        ({"until": 3}, "until: is 3; must be an Until"),
    ],
)
def test_what_is_refused(call: Call, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(pellucid.BadArgument, match=message):
        call("compare", PHOTO, **arguments)


def test_a_model_that_is_not_there(call: Call, server: FakeServer) -> None:
    server.fail(grpc.StatusCode.NOT_FOUND, "no such model")
    with pytest.raises(pellucid.NotFound):
        call("compare", PHOTO, model="nope")


# How methods are ranked.


def test_numbers() -> None:
    row = compared("rise")
    # 0.75 - 0.25 less the centre's 0.25; the batch's one row less the evidence's 40.
    assert (row.insertion_area, row.deletion_area, row.gain) == (0.75, 0.25, 0.25)
    assert (row.stability, row.randomization, row.completeness_error) == (0.875, 0.125, 0.25)
    assert row.row_count == 1 - 40
    made = evidence_pb2.Convergence(row_count=77)
    response = explained(evidence=measured(), convergence=made)
    assert pellucid.Compared("rise", _wire.explain_result(response)).row_count == 77


def test_methods_are_ranked_by_gain() -> None:
    rows = (
        compared("low", insertion_area=0.625),
        failed("broken"),
        compared("high", insertion_area=0.875),
        compared("middle"),
    )
    made = comparison(*rows)
    assert names(made.ranking()) == ["high", "middle", "low"]
    assert made.best is rows[2]
    assert [row.gain for row in made.ranking()] == [0.375, 0.25, 0.125]


@pytest.mark.parametrize(
    ("numbers", "doubt"),
    [
        ({"randomization": 0.5}, "does not depend on the class: rank correlation 0.50"),
        ({"randomization": -0.75}, "does not depend on the class"),
        ({"stability": 0.375}, "does not stay when the image hardly changes: .* 0.38"),
        ({"insertion_area": 0.5}, "no better than the yardsticks: gain 0.000"),
        ({"randomization": float("nan")}, "does not depend on the class"),
        ({"insertion_area": float("nan")}, "no better than the yardsticks"),
    ],
)
def test_doubtful_maps_come_last(numbers: dict[str, float], doubt: str) -> None:
    doubtful = compared("doubtful", **{"insertion_area": 1.0} | numbers)
    made = comparison(doubtful, compared("sound", insertion_area=0.625))
    assert names(made.ranking()) == ["sound", "doubtful"]
    assert not compared("sound").doubts
    (words,) = doubtful.doubts
    assert re.match(doubt, words)
    assert comparison(doubtful).best is None


def test_values_just_inside_the_thresholds_are_no_doubt() -> None:
    assert not compared("x", randomization=0.499, stability=0.5, insertion_area=0.501).doubts


def test_every_doubt_is_named() -> None:
    row = compared("x", randomization=0.875, stability=0.25, insertion_area=0.25)
    assert len(row.doubts) == 3


def test_without_curves_a_map_comes_after_those_with() -> None:
    plain = pellucid.Compared("plain", _wire.explain_result(explained()))
    made = comparison(plain, compared("measured", insertion_area=0.625))
    assert names(made.ranking()) == ["measured", "plain"]
    assert plain.doubts == ()
    assert made.table()[1] == ("plain", "-", "-", "-", "-", "-", "-", "1", "")


def test_table() -> None:
    (line,) = comparison(compared("rise")).table()
    assert len(line) == len(COLUMNS)
    expected = ("rise", "0.250", "0.750", "0.250", "0.12", "0.88", "0.25", "-39", "")
    assert line == expected


def test_fields() -> None:
    fields = comparison(
        compared("sound", stability=float("nan"), insertion_area=0.5), failed("broken")
    ).fields()
    assert fields["target"] == "tabby [cat] (class 0)"
    assert (fields["best"], fields["ranking"]) == (None, ["sound"])
    assert fields["methods"]["broken"] == {"error": "a bug"}
    assert fields["methods"]["sound"]["stability"] is None
    assert fields["methods"]["sound"]["insertion"] == 0.5


# The sheet.


@pytest.mark.parametrize(
    "photo",
    [
        PHOTO,
        np.full((4, 5, 3), 90, np.uint8),
        # Of mean 0.5, 0.25, 0.125 and std 1, 2, 4: 90 / 255 in every channel.
        np.stack(
            [
                np.full((4, 5), (90 / 255 - mean) / std, np.float32)
                for mean, std in zip(PREPROCESSING.mean, PREPROCESSING.std, strict=True)
            ]
        ),
    ],
    ids=["file", "pixels", "input"],
)
def test_the_photo_comes_first_on_the_sheet(photo: Any) -> None:
    made = pellucid.Comparison(photo, (compared("a"), compared("b"), failed("c")))
    sheet = made.sheet(cell_px=100, column_count=2)
    pixels = np.asarray(sheet)
    # Cells of 100 with gaps of 5: the photo is level 90, renderings are level 200.
    assert (sheet.width, pixels[40, 50].tolist()) == (5 + 2 * 105, [90, 90, 90])
    assert np.abs(pixels[40, 160].astype(int) - 200).max() <= 2
    below = pixels[sheet.height // 2 + 40]
    assert np.abs(below[50].astype(int) - 200).max() <= 2
    assert below[160].tolist() == [255, 255, 255]


def test_a_sheet_of_nothing() -> None:
    with pytest.raises(pellucid.BadArgument, match="no method succeeded"):
        comparison(failed("a")).sheet()
    without = explained()
    without.ClearField("rendering")
    row = pellucid.Compared("a", _wire.explain_result(without))
    with pytest.raises(pellucid.NotRequested):
        comparison(row).sheet()


def test_photos_are_upright_on_white() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    turned = np.asarray(upright(file.getvalue()))
    assert turned.shape == (3, 2, 3)
    assert turned[0, 1].tolist() == [10, 20, 30]
    assert turned[2, 0].tolist() == [255, 255, 255]
    deep = encode(np.array([[0, 0x7FFF, 0xFFFF]], np.uint16), "PNG")
    assert np.asarray(upright(deep))[0, :, 0].tolist() == [0, 127, 255]
