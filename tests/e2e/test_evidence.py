"""Evidence and streams on a real server, over gRPC, REST and the SDK."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pellucid
import pytest
from pellucid_server.engine.engine import Engine

BUCKET = 4


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    parts = [part.split("\n") for part in text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in parts
    ]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("rise", {"mask_count": 60}),
        ("occlusion", {"window_px": 24, "stride_px": 12}),
        ("smooth_grad", {"sample_count": 20}),
        ("expected_gradients", {"sample_count": 20}),
        ("lime", {"segmentation": "grid", "segment_count": 4, "sample_count": 40}),
        ("kernel_shap", {"segmentation": "grid", "segment_count": 6, "sample_count": 40}),
        ("integrated_gradients", {"quadrature": "adaptive", "step_count": 30}),
    ],
)
def test_the_last_of_a_stream_is_the_unary_result_to_the_bit(
    client: pellucid.Client, cat_jpg: Path, method: str, parameters: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {
        "outputs": ["attribution"],
        "bucket_size": BUCKET,
        "until": pellucid.Until(row_count=38),
        **parameters,
    }
    *estimates, last = client.explain_stream(cat_jpg, method, **asked)
    unary = client.explain(cat_jpg, method, **asked)
    assert np.array_equal(last.attribution, unary.attribution)
    assert last.convergence.row_count == unary.convergence.row_count <= 38
    assert all(one.convergence.stop == "running" for one in estimates)
    assert last.convergence.stop != "running"
    assert sum(batch.own_row_count for batch in last.run.batches) == last.convergence.row_count
    # A receipt names the rows that were run, and the same bits come of it.
    assert client.replay(last.receipt, cat_jpg).equal


def test_estimates_come_while_rows_are_run(client: pellucid.Client, cat_jpg: Path) -> None:
    shown = list(client.explain_stream(cat_jpg, "rise", mask_count=600, outputs=["heatmap"]))
    rows = [one.convergence.row_count for one in shown]
    assert len(shown) >= 3
    assert rows == sorted(rows)
    assert rows[-1] == 601
    assert shown[0].convergence.error > shown[-1].convergence.error > 0


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """The rows of every batch that is launched until the block ends."""
    rows: list[int] = []
    launch = engine._device.launch

    def counting(network: Any, picks: Any, bucket_size: int) -> Any:
        rows.append(len(picks))
        return launch(network, picks, bucket_size)

    engine._device.launch = counting  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        engine._device.launch = launch  # type: ignore[method-assign]


def wait_until_idle(engine: Engine) -> None:
    until_s = time.monotonic() + 30
    while engine.admission.depth:
        assert time.monotonic() < until_s
        time.sleep(0.01)


LEFT: dict[str, Any] = {"mask_count": 1500, "outputs": ["heatmap"], "bucket_size": BUCKET}
"""A stream that takes far longer than whoever leaves it waits."""


def test_a_stream_that_is_left_runs_no_more_rows(
    served: Any, client: pellucid.Client, cat_jpg: Path
) -> None:
    engine: Engine = served.server.engine
    with counted(engine) as rows:
        stream = client.explain_stream(cat_jpg, "rise", **LEFT)
        assert next(stream).convergence.stop == "running"
        stream.close()
        wait_until_idle(engine)
    assert 9 <= sum(rows) < LEFT["mask_count"] / 2


def test_an_async_stream_that_is_left_runs_no_more_rows(served: Any, cat_jpg: Path) -> None:
    async def leave() -> int:
        async with pellucid.AsyncClient(served.grpc, timeout_s=120) as client:
            stream = client.explain_stream(cat_jpg, "rise", **LEFT)
            count = 0
            async for _ in stream:
                count += 1
                break
            await stream.aclose()
            return count

    engine: Engine = served.server.engine
    with counted(engine) as rows:
        assert asyncio.run(leave()) == 1
        wait_until_idle(engine)
    assert 9 <= sum(rows) < LEFT["mask_count"] / 2


def test_a_tolerance_stops_and_one_out_of_reach_is_flagged(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    near, far = (
        client.explain(
            cat_jpg,
            "lime",
            segmentation="grid",
            segment_count=6,
            sample_count=200,
            until=pellucid.Until(tolerance=tolerance),
            outputs=["attribution"],
        )
        for tolerance in (0.9, 0.0001)
    )
    assert near.convergence.stop == "tolerance"
    assert near.convergence.row_count < far.convergence.row_count == 202
    assert near.convergence.standard_error.shape == (6,)
    assert not near.warnings
    assert far.convergence.stop == "complete"
    (warning,) = far.warnings
    assert warning.reason == "NOT_CONVERGED"
    assert warning.description.endswith("was asked for: this is as far as it came")


def test_a_time_stops(client: pellucid.Client, cat_jpg: Path) -> None:
    """A deadline that all rows would not fit into does not refuse it."""
    result = client.explain(
        cat_jpg, "rise", mask_count=20_000, until=pellucid.Until(time_ms=300), timeout_s=20
    )
    assert result.convergence.stop == "time"
    assert 9 <= result.convergence.row_count < 20_001


def test_adaptive_integrated_gradients_know_their_residual(
    client: pellucid.Client, cat_jpg: Path
) -> None:
    result = client.explain(
        cat_jpg,
        "integrated_gradients",
        quadrature="adaptive",
        evidence=["completeness"],
        outputs=["attribution"],
    )
    sums = result.evidence.completeness
    missed = sums.attribution_sum - sums.expected_sum
    assert missed == pytest.approx(result.convergence.residual, abs=1e-3)
    if result.convergence.stop == "tolerance":
        assert result.convergence.error <= 0.01
    assert result.convergence.standard_error is None


def test_streams_over_rest(served: Any, cat_jpg: Path) -> None:
    with cat_jpg.open("rb") as photo:
        answer = httpx.post(
            f"{served.http}/v1/explain/stream",
            files={"image": photo},
            data={"method": "rise", "mask_count": "40", "outputs": "heatmap", "tolerance": "0.2"},
            timeout=120,
        )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    assert [name for name, _ in told][-1] == "result"
    assert {name for name, _ in told[:-1]} <= {"estimate"}
    last = told[-1][1]
    assert last["convergence"]["stop"].startswith("STOP_REASON_")
    assert "receipt" in last
    assert all("receipt" not in data for _, data in told[:-1])


def test_what_is_wrong_with_a_stream_over_rest_is_an_error_like_any_other(
    served: Any, cat_jpg: Path
) -> None:
    with cat_jpg.open("rb") as photo:
        answer = httpx.post(
            f"{served.http}/v1/explain/stream",
            files={"image": photo},
            data={"method": "gradient"},
            timeout=120,
        )
    assert answer.status_code == 400
    assert "gradient cannot be stopped or streamed" in answer.json()["error"]["message"]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("rise", {"until": pellucid.Until(tolerance=0.0)}, "until.tolerance: is 0.0; must be"),
    ("rise", {"until": pellucid.Until(tolerance=1e-9)}, "until.tolerance: is 1e-09; must be"),
    ("rise", {"until": pellucid.Until(row_count=0)}, "until.row_count: is 0; must be at least 9"),
    ("rise", {"until": pellucid.Until(row_count=8)}, "until.row_count: is 8; must be at least 9"),
    ("gradient", {"until": pellucid.Until(tolerance=0.1)}, "gradient cannot be stopped"),
    (
        "integrated_gradients",
        {"until": pellucid.Until(tolerance=0.1), "quadrature": "trapezoid"},
        "QUADRATURE_ADAPTIVE can be stopped",
    ),
    (
        "integrated_gradients",
        {"quadrature": "adaptive", "step_count": 8},
        "step_count: is 8; must be at least 9",
    ),
    ("rise", {"evidence": ["completeness"]}, "rise do not sum to anything known"),
    (
        "gradient",
        {"evidence": ["randomization"], "target": pellucid.Neuron("blocks.4.1", 7)},
        "evidence.randomization: the target is a neuron",
    ),
    (
        "gradient",
        {"evidence": {"curves": {"step_count": 96 * 96 + 1}}},
        "evidence.curves.step_count: is 9217; must be 2 to 9216",
    ),
    ("gradient", {"evidence": {"agreement": {"methods": ["gradient"]}}}, "request's own method"),
    ("gradient", {"evidence": {"agreement": {"methods": ["lime", "lime"]}}}, "names lime twice"),
    ("gradient", {"evidence": {"agreement": {"methods": ["magic"]}}}, "'magic' is not a method"),
    (
        "gradient",
        {"evidence": {"agreement": {"methods": ["attention_rollout"]}}},
        "attention_rollout does not apply",
    ),
    ("gradient", {"evidence": {"stability": {"sample_count": 0}}}, "sample_count: is 0; must be"),
    ("gradient", {"evidence": {"cascade": {"stage_count": 11}}}, "stage_count: is 11; must be"),
]


@pytest.mark.parametrize(("method", "fields", "words"), BAD)
def test_what_is_wrong_is_named(
    client: pellucid.Client, cat_jpg: Path, method: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(pellucid.InvalidArgument) as caught:
        client.explain(cat_jpg, method, **fields)
    assert words in caught.value.message


def test_evidence_rides_with_that_of_others(served: Any, cat_jpg: Path) -> None:
    evidence = {"curves": {"step_count": 30}, "stability": {"sample_count": 8}}
    results: list[pellucid.ExplainResult] = []

    def ask(caller: int) -> None:
        with pellucid.Client(served.grpc, timeout_s=120, caller=f"caller {caller}") as own:
            results.append(own.explain(cat_jpg, "gradient", evidence=evidence))

    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(4)]
    with served.held():
        for caller in callers:
            caller.start()
        until_s = time.monotonic() + 30
        while served.server.engine.admission.depth < len(callers):
            assert time.monotonic() < until_s
            time.sleep(0.01)
    for caller in callers:
        caller.join()
    shared = [batch.row_count > batch.own_row_count for r in results for batch in r.run.batches]
    assert sum(shared) > len(shared) / 2
    assert all(result.evidence.row_count == 3 + 6 * 29 + 8 for result in results)
