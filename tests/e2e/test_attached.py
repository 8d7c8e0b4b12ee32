"""Predictions with explanations attached, and batches of photos, on a real server."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid_server.methods.explain.rise import Rise

from tests.harness import photo

BUCKET = 4
SMALL: dict[str, dict[str, Any]] = {
    "occlusion": {"window_px": 48, "stride_px": 48},
    "integrated_gradients": {"step_count": 4},
    "smooth_grad": {"sample_count": 4},
    "expected_gradients": {"sample_count": 4},
    "score_cam": {"map_count": 4},
    "rise": {"mask_count": 8},
    "lime": {"segmentation": "grid", "segment_count": 4, "sample_count": 12},
    "kernel_shap": {"segmentation": "grid", "segment_count": 4, "sample_count": 12},
}


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def rows_of(result: Any) -> int:
    return sum(batch.own_row_count for batch in result.run.batches)


def test_every_method_attached_is_the_method_alone_and_costs_no_row_more(
    served: Any, client: pellucid.Client, cat_jpg: Path
) -> None:
    methods = [m.method for m in client.get_model().methods if m.supported][1:]
    assert len(methods) == 19
    alone = client.predict(cat_jpg, include_logits=True, bucket_size=BUCKET)
    for method in methods:
        options = {"outputs": ["attribution"], **SMALL.get(method, {})}
        before = launched(served)
        together = client.predict(
            cat_jpg,
            include_logits=True,
            bucket_size=BUCKET,
            explain=[pellucid.Explain(method, **options)],
        )
        run = launched(served) - before
        explained = client.explain(cat_jpg, method, bucket_size=BUCKET, **options)
        [attached] = together.explanations
        assert np.array_equal(together.logits, alone.logits), method
        assert np.array_equal(attached.attribution, explained.attribution), method
        assert attached.target == explained.target
        assert attached.parameters == explained.parameters
        assert attached.run.queue_ms >= 0
        # DeepLIFT's batches are twice as large: a prediction in one would have other bits.
        assert run == rows_of(explained) + (method == "deep_lift"), method
        assert rows_of(attached) == rows_of(explained), method
        assert client.replay(attached.receipt, cat_jpg).equal
    assert client.replay(together.receipt, cat_jpg).equal


def launched(served: Any) -> float:
    """Rows that the server has run."""
    text = httpx.get(served.metrics).text
    sums = [line for line in text.splitlines() if line.startswith("pellucid_batch_rows_sum")]
    return sum(float(line.split()[-1]) for line in sums)


def test_several_explain_the_top_class_unless_they_name_another(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    result = client.predict(
        cat_jpg,
        explain=[
            "guided_backprop",
            pellucid.Explain("rise", mask_count=8, evidence=["completeness"][:0]),
            pellucid.Explain("gradient", target="espresso", outputs=["rendering"], format="png"),
            pellucid.Explain("grad_cam", target=pellucid.Neuron("blocks.4.1", channel=3)),
        ],
    )
    top = result.top.class_index
    first, second, third, fourth = result.explanations
    assert (first.target.class_index, second.target.class_index) == (top, top)
    assert first.target.top_prediction
    assert third.target.label == "espresso"
    assert third.image.format == "PNG"
    assert fourth.target.neuron.channel == 3
    assert second.target.score_kind == "probability"
    assert second.target.score == pytest.approx(result.top.probability, abs=1e-4)


@pytest.mark.parametrize("place", [0, 1])
def test_a_budget_too_tight_for_one_leaves_the_prediction_and_the_others(
    client: pellucid.Client, cat_jpg: Path, place: int
) -> None:
    explain: list[str | pellucid.Explain] = ["gradient"]
    explain.insert(place, pellucid.Explain("rise", mask_count=20_000))
    result = client.predict(cat_jpg, explain=explain, explain_budget_ms=5_000.0)
    outcomes = list(result.explanations)
    rise = outcomes.pop(place)
    assert result.top.probability > 0
    assert outcomes[0].method == "gradient"
    assert isinstance(rise, pellucid.DeadlineExceeded)
    assert rise.reason == "COST_EXCEEDS_DEADLINE"
    assert re.search(r"needs about \d+ ms .* budget of explanations leaves \d+ ms", rise.message)


def test_a_budget_that_passes_in_the_queue_still_returns_the_prediction(
    make_server: Callable[..., Any], cat_jpg: Path
) -> None:
    with make_server() as running, pellucid.Client(running.grpc, timeout_s=60) as client:
        with running.held():
            asking = asyncio.run_coroutine_threadsafe(
                asyncio.to_thread(
                    client.predict, cat_jpg, explain=["gradient"], explain_budget_ms=300.0
                ),
                running.loop,
            )
            with pytest.raises(TimeoutError):
                asking.result(timeout=1.0)
        result = asking.result(timeout=60)
        assert result.top.probability > 0
        [late] = result.explanations
        assert isinstance(late, pellucid.DeadlineExceeded)
        assert late.reason == "DEADLINE_EXPIRED"


def test_a_method_that_breaks_breaks_nothing_else(
    client: pellucid.Client, cat_jpg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, *_: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(Rise, "masks", broken)
    result = client.predict(cat_jpg, explain=["grad_cam", "rise", "gradient"])
    first, second, third = result.explanations
    assert (first.method, third.method) == ("grad_cam", "gradient")
    assert third.target.class_index == result.top.class_index
    assert isinstance(second, pellucid.Internal)
    assert "secret" not in str(second)


def test_what_is_wrong_with_what_is_attached_is_named_with_its_place(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    with pytest.raises(pellucid.InvalidArgument) as raised:
        client.predict(
            cat_jpg,
            top_k=0,
            explain=["gradient", pellucid.Explain("occlusion", window_px=0, target=-1)],
            explain_budget_ms=-1.0,
        )
    assert {violation.field for violation in raised.value.violations} == {
        "top_k",
        "explain_budget_ms",
        "explain[1].target.class_index",
        "explain[1].occlusion.window_px",
    }
    with pytest.raises(pellucid.InvalidArgument, match="has 9; at most 8"):
        client.predict(cat_jpg, explain=["gradient"] * 9)
    with pytest.raises(pellucid.BadArgument, match="model is the prediction's"):
        client.predict(cat_jpg, explain=[pellucid.Explain("gradient", model="resnet18")])
    with pytest.raises(pellucid.BadArgument, match="sequence of methods"):
        client.predict(cat_jpg, explain="gradient")
    with pytest.raises(pellucid.FailedPrecondition, match=r"explain\[0\].attention_rollout: does"):
        client.predict(cat_jpg, explain=["attention_rollout"])


def test_attached_over_rest(served: Any, cat_jpg: Path) -> None:
    files = {"image": cat_jpg.read_bytes()}
    form = {"explain": "gradient,grad_cam", "top_k": "2"}
    made = httpx.post(f"{served.http}/v1/predict", files=files, data=form, timeout=60).json()
    assert len(made["predictions"]) == 2
    first, second = (one["explanation"] for one in made["explanations"])
    assert "gradient" in first
    assert "gradCam" in second
    assert second["target"]["classIndex"] == made["predictions"][0]["classIndex"]
    wrong = {"explain": "gradient,nothing"}
    answer = httpx.post(f"{served.http}/v1/predict", files=files, data=wrong)
    assert answer.status_code == 400
    assert "'nothing'" in answer.text
    own = httpx.post(
        f"{served.http}/v1/predict",
        json={"image": {"encoded": "AAAA"}, "explain": [{"gradient": {}, "model": "x"}]},
    )
    assert "explain[0].model" in own.text


# Batches.


PHOTOS = ("cat", "coffee", "rocket")


def test_photos_of_one_call_are_answered_as_if_alone(client: pellucid.Client) -> None:
    photos = [photo(name) for name in PHOTOS]
    alone = [client.predict(one, include_logits=True, bucket_size=BUCKET) for one in photos]
    together = client.predict_batch(photos, include_logits=True, bucket_size=BUCKET)
    assert [r.logits.tobytes() for r in together] == [r.logits.tobytes() for r in alone]
    options: dict[str, Any] = {"outputs": ["attribution"], "bucket_size": BUCKET, "window_px": 48}
    explained = client.explain_batch(photos, "occlusion", **options)
    for one, result in zip(photos, explained, strict=True):
        expected = client.explain(one, "occlusion", **options)
        assert np.array_equal(result.attribution, expected.attribution)
        assert result.target == expected.target


def test_photos_of_one_call_share_batches(served: Any, client: pellucid.Client) -> None:
    results = client.explain_batch([photo("cat")] * 8, "gradient")
    largest = max(batch.row_count for result in results for batch in result.run.batches)
    assert largest > 1


def test_one_bad_photo_is_its_own_failure(client: pellucid.Client) -> None:
    nan = np.full((3, 96, 96), np.nan, np.float32)
    photos = [photo("cat"), b"GIF89a", photo("coffee"), nan]
    for results in (client.predict_batch(photos), client.explain_batch(photos)):
        assert [isinstance(r, pellucid.InvalidArgument) for r in results] == [False, True] * 2
        assert {v.field for v in results[1].violations} == {"image.encoded"}
        assert "GIF" in str(results[1])
        assert {v.field for v in results[3].violations} == {"image.tensor.data"}


def test_what_is_wrong_with_all_of_them_fails_the_call(client: pellucid.Client) -> None:
    with pytest.raises(pellucid.InvalidArgument) as raised:
        client.explain_batch([b"GIF89a"], "occlusion", window_px=0, bucket_size=3)
    fields = {violation.field for violation in raised.value.violations}
    assert fields == {"explain.occlusion.window_px", "explain.bucket_size"}
    with pytest.raises(pellucid.InvalidArgument, match="images: has 0; must have 1 to 64"):
        client.predict_batch([])
    with pytest.raises(pellucid.InvalidArgument, match="has 65"):
        client.predict_batch([b"x"] * 65)
    with pytest.raises(pellucid.BadArgument, match="one photo"):
        client.predict_batch("cat.jpg")
    with pytest.raises(pellucid.BadArgument, match="tok_k"):
        client.predict_batch([b"x"], tok_k=3)


def test_batches_have_explanations_attached(client: pellucid.Client) -> None:
    [result] = client.predict_batch([photo("cat")], explain=["gradient"])
    assert result.explanations[0].method == "gradient"


def test_batches_async(served: Any) -> None:
    async def ask() -> tuple[Any, Any]:
        async with pellucid.AsyncClient(served.grpc, timeout_s=60) as client:
            predicted = await client.predict_batch([photo("cat"), b"x"])
            explained = await client.explain_batch([photo("cat")], "grad_cam")
            return predicted, explained

    (first, second), (explained,) = asyncio.run(ask())
    assert first.predictions
    assert isinstance(second, pellucid.InvalidArgument)
    assert explained.method == "grad_cam"


def test_batches_over_rest(served: Any, cat_jpg: Path) -> None:
    cat = cat_jpg.read_bytes()
    files = [("images", ("a.jpg", cat)), ("images", ("b.jpg", b"no"))]
    form = {"method": "occlusion", "window_px": "48"}
    made = httpx.post(f"{served.http}/v1/explain/batch", files=files, data=form, timeout=60).json()
    first, second = made["results"]
    assert first["explanation"]["occlusion"]["windowPx"] == 48
    assert second["failure"]["code"] == 3
    assert second["failure"]["violations"][0]["field"] == "image.encoded"
    body = {"images": [{"encoded": "AAAA"}], "predict": {"topK": 1}}
    made = httpx.post(f"{served.http}/v1/predict/batch", json=body, timeout=60).json()
    assert "failure" in made["results"][0]
    wrong = httpx.post(f"{served.http}/v1/explain/batch", files={"images": "text"}, data={})
    assert wrong.status_code in (400, 415)
    none = httpx.post(
        f"{served.http}/v1/predict/batch", files={"other": cat}, data={"top_k": "1"}, timeout=60
    )
    fields = {v["field"] for v in json.loads(none.text)["error"]["details"][1]["fieldViolations"]}
    assert fields == {"other", "images"}
