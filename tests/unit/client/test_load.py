"""Load: schedules, loops and counts by a virtual clock; calls of a server; the command."""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hdrh.histogram import HdrHistogram
from pellucid import BadArgument, Client, Unavailable, tally
from pellucid._channel import connect_aio
from pellucid.cli import app
from pellucid.load import Answer, Plan, Report, Send, _Stub, measure, run
from typer.testing import CliRunner, Result

from .conftest import EXPLAINED, FakeServer
from .virtual import VirtualLoop, virtually

PHOTO = b"a photo"
OK = Answer(request_bytes=10, response_bytes=100)


def plan(**settings: Any) -> Plan:
    return Plan(**{"photos": [PHOTO], "rate": 100.0, "warm_up_s": 0.0} | settings)


def answering(*answers: Answer, after_s: float = 0.0) -> Send:
    """One of these after the other, each after that long."""
    turns = itertools.cycle(answers or (OK,))

    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        await asyncio.sleep(after_s)
        return next(turns)

    return send


def measured(of: Plan, send: Send, **options: Any) -> Report:
    return virtually(measure(of, send, **options))


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


# The schedule.


def test_arrivals_are_poisson_and_seeded() -> None:
    made = plan(rate=50.0, duration_s=400.0, warm_up_s=100.0)
    times = np.array(list(made.arrivals()))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(25_000, rel=0.02)
    assert times[0] > 0 and times[-1] < 500
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.02)  # of an exponential: its mean
    for seconds, share in ((0.01, 0.5), (0.02, 1.0), (0.06, 3.0)):
        assert (gaps > seconds).mean() == pytest.approx(np.exp(-share), rel=0.03)
    counts = np.histogram(times, bins=500, range=(0, 500))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.15)  # of a Poisson count
    assert list(made.arrivals()) == times.tolist()
    assert next(plan(rate=50.0, seed=1).arrivals()) != times[0]


def test_questions_follow_the_weights_and_the_seed_alone() -> None:
    mix = {"predict": 8.0, "gradient": 2.0, "occlusion": 1.0}
    made = plan(photos=[PHOTO] * 3, mix=mix)
    asked = list(itertools.islice(made.questions(), 33_000))
    counts = Counter(method for method, _ in asked)
    for method, weight in mix.items():
        assert counts[method] == pytest.approx(3000 * weight, rel=0.04)
    for number in Counter(photo for _, photo in asked).values():
        assert number == pytest.approx(11_000, rel=0.04)
    closed = plan(photos=[PHOTO] * 3, mix=mix, rate=None, concurrency=2)
    assert list(itertools.islice(closed.questions(), 1000)) == asked[:1000]
    other = plan(photos=[PHOTO] * 3, mix=mix, seed=1)
    assert list(itertools.islice(other.questions(), 1000)) != asked[:1000]


def test_a_run_is_a_function_of_the_plan() -> None:
    async def sent(made: Plan) -> list[tuple[float, str, int]]:
        calls = []

        async def send(method: str, photo: int, timeout_s: float) -> Answer:
            calls.append((asyncio.get_running_loop().time() - 1000, method, photo))
            return OK

        await measure(made, send)
        return calls

    made = plan(photos=[PHOTO] * 2, mix={"predict": 1.0, "gradient": 1.0}, duration_s=2.0)
    calls = virtually(sent(made))
    assert calls == virtually(sent(made))
    times, methods, photos = zip(*calls, strict=True)
    assert times == pytest.approx(list(made.arrivals()), abs=1e-6)
    assert list(zip(methods, photos, strict=True)) == list(
        itertools.islice(made.questions(), len(calls))
    )


# Latencies.

PERCENTILES = np.array([50, 90, 95, 99, 99.9])


@pytest.mark.parametrize(
    "quantile",
    [
        lambda p: -0.05 * np.log1p(-p),  # exponential, mean 50 ms
        lambda p: 0.02 + 0.1 * p,  # uniform, 20 to 120 ms
        lambda p: 0.04 * (1 - p) ** -0.25,  # Pareto, at least 40 ms
    ],
    ids=["exponential", "uniform", "pareto"],
)
def test_percentiles_of_a_known_distribution(quantile: Callable[[Any], Any]) -> None:
    made = plan(rate=200.0, duration_s=50.0, max_in_flight=10_000)
    count = len(list(made.arrivals()))
    times_s = quantile((np.arange(count) + 0.5) / count)  # no chance in it: each quantile once
    draws = iter(np.random.default_rng(0).permutation(times_s).tolist())

    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        await asyncio.sleep(next(draws))
        return OK

    report = measured(made, send)
    assert report.figures.answered == count
    found = [report.figures.latency_ms[name] for name in tally.PERCENTILES]
    assert found == pytest.approx(1e3 * quantile(PERCENTILES / 100), rel=0.02)
    assert report.figures.latency_ms["max"] == pytest.approx(1e3 * times_s[-1], rel=1e-3)
    assert report.warnings == ()


STALL_FROM_S, STALL_S, SERVICE_S = 1030.0, 8.0, 0.02


async def stalled_server(method: str, photo: int, timeout_s: float) -> Answer:
    """Answers nothing from 30 s to 38 s; otherwise at once, nearly."""
    now_s = asyncio.get_running_loop().time()
    if STALL_FROM_S <= now_s < STALL_FROM_S + STALL_S:
        await asyncio.sleep(STALL_FROM_S + STALL_S - now_s)
    await asyncio.sleep(SERVICE_S)
    return OK


async def stalled_generator(method: str, photo: int, timeout_s: float) -> Answer:
    """The first call after 30 s keeps the whole process for 8 s."""
    if loop().time() < STALL_FROM_S + 1 and loop().time() >= STALL_FROM_S:
        loop().block(STALL_FROM_S + STALL_S - loop().time())
    await asyncio.sleep(SERVICE_S)
    return OK


@pytest.mark.parametrize("send", [stalled_server, stalled_generator])
def test_a_stall_is_met_by_all_that_were_to_be_sent_in_it(send: Send) -> None:
    """Of the calls 8% wait, evenly from 0 to 8 s: of all, 5% wait 3 s or more, and 1% wait 7 s."""
    made = plan(rate=200.0, duration_s=100.0, timeout_s=60.0, max_in_flight=10_000)
    report = measured(made, send)
    due_s = 1000 + np.array(list(made.arrivals()))
    inside = (due_s >= STALL_FROM_S) & (due_s < STALL_FROM_S + STALL_S)
    exact_s = np.where(inside, STALL_FROM_S + STALL_S - due_s, 0) + SERVICE_S
    exact_ms = 1e3 * np.percentile(exact_s, PERCENTILES, method="inverted_cdf")
    found = [report.figures.latency_ms[name] for name in tally.PERCENTILES]
    assert found == pytest.approx(exact_ms, rel=0.02)
    assert found[2] == pytest.approx(3020, rel=0.15)  # how many fall into it is chance
    assert found[3:] == pytest.approx([7020, 7920], rel=0.02)
    assert report.figures.latency_ms["max"] == pytest.approx(8020, rel=0.01)
    lagged = send is stalled_generator
    assert report.lag_ms["p99"] == pytest.approx(7000 if lagged else 0, rel=0.02, abs=0.01)
    assert any("generator was a bottleneck" in words for words in report.warnings) is lagged
    # Who waits for each answer before asking again sees one slow call, and nothing at p99.9.
    callers = plan(rate=None, concurrency=6, duration_s=100.0, timeout_s=60.0)
    omitted = measured(callers, send).figures
    assert omitted.latency_ms["p99.9"] == pytest.approx(20, rel=0.02)


def test_percentiles_are_the_librarys() -> None:
    histogram = tally._histogram()
    assert tally._milliseconds(histogram) == {}
    for value in np.random.default_rng(0).lognormal(-3, 1, 5000):
        tally._record(histogram, value)
    found = tally._milliseconds(histogram)
    for name, percentile in tally.PERCENTILES.items():
        assert found[name] == histogram.get_value_at_percentile(percentile) / 1e3
    tally._record(histogram, 1e9)  # of which it knows no end
    tally._record(histogram, -1e-9)
    assert histogram.total_count == 5002
    assert tally._milliseconds(histogram)["max"] == 3_600_000


def test_the_warm_up_does_not_count() -> None:
    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        await asyncio.sleep(1.0 if asyncio.get_running_loop().time() < 1010 else 0.1)
        return OK

    made = plan(duration_s=20.0, warm_up_s=10.0)
    report = measured(made, send)
    assert report.figures.offered == sum(at_s >= 10 for at_s in made.arrivals())
    assert report.figures.latency_ms["max"] == pytest.approx(100, rel=0.01)
    assert report.measured_s == 20
    assert report.elapsed_s == pytest.approx(30.1, abs=0.1)
    assert report.figures.offered_per_s == report.figures.offered / 20


# Loops.


def test_a_closed_loop_keeps_its_concurrency() -> None:
    draws = np.random.default_rng(0)
    under_way: list[int] = []
    now = 0

    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        nonlocal now
        now += 1
        under_way.append(now)
        await asyncio.sleep(draws.exponential(0.05))
        now -= 1
        return OK

    report = measured(plan(rate=None, concurrency=7, duration_s=50.0), send)
    assert under_way[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert set(under_way[7:]) == {7}
    # Little's law: 7 callers, 50 ms each.
    assert report.figures.goodput_per_s == pytest.approx(7 / 0.05, rel=0.05)
    assert report.figures.answered == report.figures.offered == len(under_way)
    assert report.lag_ms["max"] == 0


def test_a_refused_caller_waits_as_long_as_the_server_says() -> None:
    refused = Answer(code="RESOURCE_EXHAUSTED", reason="QUEUE_FULL", retry_delay_s=0.5)
    for_long = Answer(code="RESOURCE_EXHAUSTED", retry_delay_s=60.0)
    down = Answer(code="UNAVAILABLE")
    for answer, count in ((refused, 20), (for_long, 1), (down, 100)):
        report = measured(plan(rate=None, concurrency=1, duration_s=10.0), answering(answer))
        assert report.figures.offered == pytest.approx(count, abs=1)
        assert report.figures.goodput_per_s == 0
        assert report.elapsed_s == pytest.approx(10)


def test_arrivals_beyond_the_bound_are_dropped_and_counted() -> None:
    most = now = 0

    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(1.0)
        now -= 1
        return OK

    report = measured(plan(rate=50.0, duration_s=100.0, max_in_flight=10), send)
    figures = report.figures
    assert most == 10
    assert figures.offered == figures.dropped + figures.answered
    # Erlang's loss formula at 50 erlang and 10 lines.
    terms = np.cumprod([1.0, *(50 / line for line in range(1, 11))])
    assert figures.dropped / figures.offered == pytest.approx(terms[-1] / terms.sum(), rel=0.02)
    assert figures.latency_ms["max"] == pytest.approx(1000, rel=0.01)  # none was held back
    assert any("dropped" in words for words in report.warnings)


def test_a_call_is_not_sent_after_its_deadline() -> None:
    left_s: list[float] = []

    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        left_s.append(timeout_s)
        if len(left_s) == 50:
            loop().block(5.0)
        return OK

    made = plan(duration_s=10.0, timeout_s=1.0)
    figures = measured(made, send).figures
    assert figures.dropped == pytest.approx(400, rel=0.15)
    assert figures.dropped + len(left_s) == figures.offered == len(list(made.arrivals()))
    assert 0 < min(left_s) < 0.1  # a call's deadline does not move because it is sent late
    assert max(left_s) == pytest.approx(1.0)


# Counts.


def test_what_becomes_of_calls_is_counted_apart() -> None:
    answers = (
        OK,
        Answer(10, code="RESOURCE_EXHAUSTED", reason="QUEUE_FULL"),
        Answer(10, code="RESOURCE_EXHAUSTED"),
        Answer(10, code="DEADLINE_EXCEEDED", reason="COST_EXCEEDS_DEADLINE"),
        Answer(10, code="DEADLINE_EXCEEDED", reason="DEADLINE_EXPIRED"),
        Answer(10, code="DEADLINE_EXCEEDED"),
        Answer(10, code="INTERNAL", reason="INTERNAL"),
        Answer(10, code="UNAVAILABLE"),
    )
    figures = measured(plan(rate=80.0, duration_s=100.0), answering(*answers)).figures
    every = {*figures.refused.values(), *figures.missed.values(), *figures.errors.values()}
    every |= {figures.answered}
    assert max(every) - min(every) <= 1
    assert max(every) == pytest.approx(1000, rel=0.04)
    assert set(figures.refused) == {"QUEUE_FULL", "RESOURCE_EXHAUSTED", "COST_EXCEEDS_DEADLINE"}
    assert set(figures.missed) == {"DEADLINE_EXPIRED", "DEADLINE_EXCEEDED"}
    assert set(figures.errors) == {"INTERNAL INTERNAL", "UNAVAILABLE"}
    assert (figures.dropped, figures.unfinished) == (0, 0)
    assert figures.request_bytes == 10 * figures.offered
    assert figures.response_bytes == 100 * figures.answered
    assert figures.goodput_per_s == pytest.approx(figures.answered / 100)
    # A third of what has a latency was answered; the rest waited for its deadline, at least.
    assert figures.histogram.total_count == figures.answered + sum(figures.missed.values())
    assert figures.latency_ms["p50"] == pytest.approx(10_000, rel=0.01)


def test_an_answer_after_its_deadline_is_a_miss() -> None:
    figures = measured(plan(duration_s=5.0, timeout_s=1.0), answering(after_s=1.5)).figures
    assert figures.answered == figures.goodput_per_s == 0
    assert figures.missed == {"LATE": figures.offered}
    assert figures.latency_ms["p50"] == pytest.approx(1500, rel=0.01)


def test_methods_are_counted_apart_and_in_all() -> None:
    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        await asyncio.sleep({"predict": 0.01, "gradient": 0.05}[method])
        return OK if method == "predict" else Answer(code="INTERNAL")

    report = measured(plan(mix={"predict": 3.0, "gradient": 1.0}, duration_s=50.0), send)
    predict, gradient = report.methods["predict"], report.methods["gradient"]
    assert predict.offered == pytest.approx(3 * gradient.offered, rel=0.1)
    assert predict.latency_ms["p50"] == pytest.approx(10, rel=0.01)
    assert (gradient.latency_ms, gradient.errors) == ({}, {"INTERNAL": gradient.offered})
    assert report.figures.offered == predict.offered + gradient.offered
    assert report.figures.answered == predict.answered
    assert report.figures.latency_ms == predict.latency_ms


def test_it_ends_early_and_tells_of_what_is_under_way() -> None:
    told: list[Report] = []

    async def work() -> Report:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(12.25, stop.set)
        made = plan(duration_s=60.0, warm_up_s=2.0)
        return await measure(made, answering(after_s=0.5), stop=stop, on_progress=told.append)

    report = virtually(work())
    assert report.interrupted
    assert report.measured_s == pytest.approx(10.25)
    figures = report.figures
    assert figures.unfinished == pytest.approx(50, rel=0.5)
    assert figures.offered == figures.answered + figures.unfinished
    assert figures.offered_per_s == pytest.approx(100, rel=0.1)
    assert len(told) == 24
    assert [one.measured_s for one in told[:6]] == pytest.approx([0, 0, 0, 0, 0.5, 1.0])
    assert told[0].figures.offered == 0
    assert told[-1].figures.unfinished > 0
    assert not told[-1].interrupted
    assert told[-1].figures.answered <= figures.answered


def test_a_bug_in_a_call_ends_the_run() -> None:
    async def send(method: str, photo: int, timeout_s: float) -> Answer:
        raise ZeroDivisionError

    for made in (plan(), plan(rate=None, concurrency=3)):
        with pytest.raises(ExceptionGroup) as caught:
            measured(made, send)
        assert caught.group_contains(ZeroDivisionError)


def test_a_report_as_json() -> None:
    made = plan(mix={"predict": 3.0, "gradient": 1.0}, photos=[PHOTO, PHOTO], duration_s=5.0)
    report = measured(made, answering(after_s=0.02))
    fields = json.loads(json.dumps(report.fields()))
    assert fields["settings"]["rate"] == 100
    assert fields["settings"]["photo_count"] == 2
    assert fields["settings"]["mix"] == {"predict": 3, "gradient": 1}
    assert fields["interrupted"] is False
    assert fields["all"]["answered"] == report.figures.answered
    assert fields["all"]["latency_ms"] == report.figures.latency_ms
    decoded = HdrHistogram.decode(fields["methods"]["predict"]["histogram"].encode())
    assert decoded.get_total_count() == report.methods["predict"].answered
    assert decoded.get_value_at_percentile(99) / 1e3 == pytest.approx(
        fields["methods"]["predict"]["latency_ms"]["p99"], rel=1e-3
    )


def test_a_plan_names_all_that_is_wrong_with_it() -> None:
    with pytest.raises(BadArgument) as caught:
        Plan(
            [],
            mix={"predict": 0.0, "nothing": 1.0, "occlusion": 2.0},
            parameters={"occlusion": {"windows": 3}, "rise": {}, "predict": {"top_k": 3}},
            duration_s=float("inf"),
            warm_up_s=-1.0,
            timeout_s=0.0,
            max_in_flight=0,
            seed=-1,
        )
    assert [violation.field for violation in caught.value.violations] == [
        "photos",
        "rate, concurrency",
        "duration_s",
        "timeout_s",
        "warm_up_s",
        "max_in_flight",
        "seed",
        "mix.predict",
        "mix.predict",
        "mix.nothing",
        "mix.occlusion",
        "parameters.rise",
    ]
    assert "must be one of" in caught.value.message
    with pytest.raises(BadArgument, match="both are given"):
        Plan([PHOTO], rate=1.0, concurrency=1)
    with pytest.raises(BadArgument, match="mix: is empty"):
        Plan([PHOTO], rate=1.0, mix={})


# Calls of a server.


def with_stub(server: FakeServer, made: Plan, do: Callable[[_Stub], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        async with connect_aio(server.address, None, retries=False) as channel:
            return await do(_Stub(made, channel, (("pellucid-caller", "load"),)))

    return asyncio.run(work())


def test_requests_are_the_clients(server: FakeServer) -> None:
    made = plan(
        photos=[b"one", b"two"],
        mix={"predict": 1.0, "occlusion": 1.0},
        parameters={"occlusion": {"window_px": 64}},
        model="lite",
        outputs=["heatmap"],
    )

    async def do(stub: _Stub) -> list[Answer]:
        return [await stub("predict", 1, 5.0), await stub("occlusion", 0, 5.0)]

    _, explained = with_stub(server, made, do)
    with Client(server.address, timeout_s=5, caller="load") as client:
        client.predict(b"two", model="lite")
        client.explain(b"one", "occlusion", model="lite", outputs=["heatmap"], window_px=64)
    assert server.requests[:2] == server.requests[2:]
    assert explained == Answer(server.requests[1].ByteSize(), EXPLAINED.ByteSize())
    assert all(4 < left_s < 5.2 for left_s in server.remaining_s)
    assert [one["pellucid-caller"] for one in server.metadata] == ["load"] * 4


def test_nothing_is_tried_again(server: FakeServer) -> None:
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL")
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))
    server.fail(grpc.StatusCode.UNAVAILABLE, "starting")
    server.fail(grpc.StatusCode.CANCELLED, "closing")
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info, retry)

    async def do(stub: _Stub) -> list[Answer]:
        return [await stub("predict", 0, 5.0) for _ in range(4)]

    answers = with_stub(server, plan(), do)
    assert [answer.code for answer in answers] == [
        "UNAVAILABLE",
        "CANCELLED",
        "RESOURCE_EXHAUSTED",
        "OK",
    ]
    assert (answers[2].reason, answers[2].retry_delay_s) == ("QUEUE_FULL", 0.05)
    assert len(server.requests) == 4


def test_requests_are_bounded(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.load.MAX_REQUEST_BYTES", 2500)
    with pytest.raises(BadArgument, match="first 3 of 4"):
        run(plan(photos=[bytes(1000)] * 4), server.address)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        run(plan(), "localhost:1")


# The command.


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("b.png", "a.jpg"):
        Path("photos", name).write_bytes(name.encode())
    Path("photos/notes.txt").write_text("not a photo")
    Path("cat.jpg").write_bytes(PHOTO)


def command(server: FakeServer, *args: str) -> Result:
    environment = {"PELLUCID_SERVER": server.address}
    return CliRunner(env=environment).invoke(app, ["load", *args])


def test_the_command(server: FakeServer) -> None:
    server.by_method = {"occlusion": "broken"}
    arguments = (
        "cat.jpg photos --concurrency 2 --duration-s 0.4 --warm-up-s 0 --seed 3 --model lite "
        "--mix predict=3 --mix occlusion=1 -p occlusion.window_px=64 --timeout-s 5 --json out.json"
    )
    result = command(server, *arguments.split())
    assert result.exit_code == 0, result.output
    assert "INTERNAL" in result.stdout
    assert result.stderr == ""
    written = json.loads(Path("out.json").read_text())
    assert written["server"] == {
        "address": server.address,
        "model": "lite",
        "version": "0123456789ab",
    }
    assert written["settings"]["photo_count"] == 3
    assert written["settings"]["parameters"] == {"occlusion": {"window_px": 64}}
    assert written["methods"]["predict"]["answered"] > 0
    assert written["methods"]["occlusion"]["errors"]["INTERNAL"] > 0
    asked = server.requests[1:]
    assert {one.image.encoded for one in asked} == {PHOTO, b"a.jpg", b"b.png"}
    assert len(asked) == written["all"]["offered"]
    assert f"{written['all']['answered']}" in result.stdout


def test_the_exit_code_says_whether_anything_was_answered(server: FakeServer) -> None:
    server.by_method = {"gradient": "broken"}
    timing = ["--rate=20", "--duration-s=0.3", "--warm-up-s=0", "--seed=1"]
    result = command(server, "cat.jpg", "--mix=gradient=1", *timing)
    assert result.exit_code == 1
    assert "errors" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cat.jpg"], "neither is given"),
        (["cat.jpg", "--rate=5", "--concurrency=2"], "both are given"),
        (["cat.jpg", "--rate=5", "--mix=predict"], "--mix: is 'predict'; must be METHOD=WEIGHT"),
        (["cat.jpg", "--rate=5", "--mix=predict=1", "--mix=predict=2"], "more than once"),
        (["cat.jpg", "--rate=5", "--mix=magic=1"], "must be one of"),
        (["cat.jpg", "--rate=5", "-p", "window_px=3"], "must be METHOD.NAME=VALUE"),
        (["cat.jpg", "--rate=5", "-p", "rise.seed=3"], "parameters.rise: is not in the mix"),
    ],
)
def test_bad_arguments(server: FakeServer, arguments: list[str], words: str) -> None:
    result = command(server, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_photo_that_is_not_there(server: FakeServer) -> None:
    result = command(server, "none.jpg", "--rate=5")
    assert result.exit_code == 1
    assert "there is no file none.jpg" in result.stderr


def test_help(server: FakeServer) -> None:
    result = command(server, "--help")
    assert result.exit_code == 0
    assert "--max-in-flight" in result.stdout
    assert "pellucid load" in result.stdout


def test_what_is_not_installed_is_said(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pellucid.load", "pellucid.tally"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    result = command(server, "cat.jpg", "--rate=5")
    assert result.exit_code == 1
    assert result.stderr == ("pellucid: load needs HdrHistogram: pip install 'pellucid[load]'\n")
