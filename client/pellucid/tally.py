"""What came of calls under load: counts, rates, percentiles."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from hdrh.histogram import HdrHistogram
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "load needs HdrHistogram: pip install 'pellucid[load]'", name="hdrh"
    ) from None

if TYPE_CHECKING:
    from .load import Plan

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
"""Of latencies, by what a report calls them."""

_LONGEST_US = 3_600_000_000
_DIGITS = 3

_LATE_MS = 5.0
_LATE_SHARE = 0.1
"""The generator was late if the 99th percentile of its lag is beyond both: a few milliseconds,
and this share of the median latency."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call.

    Attributes:
        request_bytes: Of its request.
        response_bytes: Of its response; 0 without one.
        code: The name of its gRPC status.
        reason: The server's own word for a failure, such as QUEUE_FULL; may be empty.
        retry_delay_s: After how many seconds the server would be asked again, if it says.
    """

    request_bytes: int = 0
    response_bytes: int = 0
    code: str = "OK"
    reason: str = ""
    retry_delay_s: float | None = None


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, _LONGEST_US, _DIGITS)


def _record(histogram: HdrHistogram, seconds: float) -> None:
    histogram.record_value(min(max(0, round(seconds * 1e6)), _LONGEST_US))


def _milliseconds(histogram: HdrHistogram) -> dict[str, float]:
    """The percentiles and the maximum; nothing of an empty histogram.

    The library's own search takes milliseconds, in which a generator could send nothing.
    """
    if not histogram.total_count:
        return {}
    reached = np.cumsum(np.frombuffer(histogram.counts, np.int64))
    found = {}
    for name, percentile in PERCENTILES.items():
        count = histogram.get_target_count_at_percentile(percentile)
        value = histogram.get_value_from_index(int(np.searchsorted(reached, count)))
        highest = histogram.get_highest_equivalent_value(value)
        found[name] = min(highest, histogram.max_value) / 1e3
    return found | {"max": histogram.max_value / 1e3}


class Tally:
    """Counts what comes of calls."""

    def __init__(self) -> None:
        self.offered = self.dropped = self.answered = 0
        self.refused: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.request_bytes = self.response_bytes = 0
        self.latency = _histogram()

    def take(self, answer: Answer, latency_s: float, timeout_s: float) -> None:
        """Counts an answer by what it is.

        A call without an answer in time has waited for its deadline at least: left out, it would
        make the percentiles better than what callers meet.
        """
        self.request_bytes += answer.request_bytes
        self.response_bytes += answer.response_bytes
        word = answer.reason or answer.code
        if answer.code == "RESOURCE_EXHAUSTED" or answer.reason == "COST_EXCEEDS_DEADLINE":
            self.refused[word] += 1
        elif answer.code == "OK" and latency_s <= timeout_s:
            self.answered += 1
            _record(self.latency, latency_s)
        elif answer.code in ("OK", "DEADLINE_EXCEEDED"):
            self.missed["LATE" if answer.code == "OK" else word] += 1
            _record(self.latency, max(latency_s, timeout_s))
        else:
            self.errors[f"{answer.code} {answer.reason}".strip()] += 1

    def add(self, other: "Tally") -> None:
        """Counts what another one has counted."""
        for name in ("offered", "dropped", "answered", "request_bytes", "response_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("refused", "missed", "errors"):
            getattr(self, name).update(getattr(other, name))
        most_us = max(self.latency.max_value, other.latency.max_value)
        self.latency.add(other.latency)
        self.latency.max_value = most_us  # which add rounds

    def figures(self, measured_s: float) -> "Figures":
        """The counts so far, and rates over so many seconds."""
        sent = self.offered - self.dropped
        ended = self.answered + sum(map(Counter.total, (self.refused, self.missed, self.errors)))

        def per_s(count: int) -> float:
            return count / measured_s if measured_s else 0.0

        return Figures(
            offered=self.offered,
            dropped=self.dropped,
            answered=self.answered,
            refused=dict(self.refused),
            missed=dict(self.missed),
            errors=dict(self.errors),
            unfinished=sent - ended,
            offered_per_s=per_s(self.offered),
            sent_per_s=per_s(sent),
            goodput_per_s=per_s(self.answered),
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            latency_ms=_milliseconds(self.latency),
            histogram=self.latency,
        )


@dataclass(frozen=True)
class Figures:
    """What came of the calls of one method, or of all. Each is counted once.

    Attributes:
        offered: Calls that were to be sent in the time that is measured.
        dropped: Of these, never sent: max_in_flight were under way, or their deadline had passed
            before the generator came to them.
        answered: Answered within their deadline.
        refused: Not taken in by the server, by its reason: RESOURCE_EXHAUSTED, and a deadline
            that is shorter than the call's own cost.
        missed: Not answered within their deadline, by reason; LATE came all the same.
        errors: Other failures, by code and reason.
        unfinished: Under way.
        offered_per_s: Calls that were to be sent, a second.
        sent_per_s: Calls that were sent, a second.
        goodput_per_s: Answers within their deadline, a second.
        request_bytes: Of the requests of calls that ended.
        response_bytes: Of their responses.
        latency_ms: From when calls were to be sent to their answers: p50, p90, p95, p99, p99.9
            and max. Missed calls count as their deadline, or as what they took if that is more;
            others that were not answered do not count. Empty if there are none.
        histogram: The latencies in microseconds, as an HdrHistogram.
    """

    offered: int
    dropped: int
    answered: int
    refused: Mapping[str, int]
    missed: Mapping[str, int]
    errors: Mapping[str, int]
    unfinished: int
    offered_per_s: float
    sent_per_s: float
    goodput_per_s: float
    request_bytes: int
    response_bytes: int
    latency_ms: Mapping[str, float]
    histogram: HdrHistogram

    def fields(self) -> dict[str, Any]:
        """As JSON, the histogram in its encoded form (base64, V2)."""
        return vars(self) | {"histogram": self.histogram.encode().decode()}


@dataclass(frozen=True)
class Report:
    """What was measured, so far or in the end.

    Attributes:
        plan: What was to be done.
        elapsed_s: Seconds since the start.
        measured_s: Seconds that calls are counted of: those after the warm-up.
        interrupted: Whether it was ended before its time.
        figures: Of all methods.
        methods: Of each method.
        lag_ms: How late the generator sent, percentiles as of latencies, which it is a part of.
        warnings: What makes the figures doubtful.
        server: Its address, and the model's name and version.
    """

    plan: "Plan"
    elapsed_s: float
    measured_s: float
    interrupted: bool
    figures: Figures
    methods: Mapping[str, Figures]
    lag_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    server: Mapping[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """All of it as JSON; of the photos, how many."""
        settings = {name: value for name, value in vars(self.plan).items() if name != "photos"}
        return {
            "server": dict(self.server),
            "settings": settings | {"photo_count": len(self.plan.photos)},
            "elapsed_s": self.elapsed_s,
            "measured_s": self.measured_s,
            "interrupted": self.interrupted,
            "all": self.figures.fields(),
            "methods": {name: figures.fields() for name, figures in self.methods.items()},
            "lag_ms": dict(self.lag_ms),
            "warnings": list(self.warnings),
        }


class Recorder:
    """Counts the calls of a run that began at a time of the loop's clock."""

    def __init__(self, plan: "Plan", started_s: float) -> None:
        self._plan = plan
        self._started_s = started_s
        self._from_s = started_s + plan.warm_up_s
        self._tallies = {method: Tally() for method in plan.mix}
        self._unmeasured = Tally()
        self._lag = _histogram()

    def tally(self, method: str, due_s: float) -> Tally:
        """Where a call that is due then counts: nowhere in the warm-up."""
        return self._tallies[method] if due_s >= self._from_s else self._unmeasured

    def lag(self, due_s: float, sent_s: float) -> None:
        """A call is sent."""
        if due_s >= self._from_s:
            _record(self._lag, sent_s - due_s)

    def report(self, now_s: float, *, interrupted: bool = False) -> Report:
        measured_s = min(max(0.0, now_s - self._from_s), self._plan.duration_s)
        total = Tally()
        for tally in self._tallies.values():
            total.add(tally)
        figures, lag_ms = total.figures(measured_s), _milliseconds(self._lag)
        return Report(
            plan=self._plan,
            elapsed_s=now_s - self._started_s,
            measured_s=measured_s,
            interrupted=interrupted,
            figures=figures,
            methods={name: tally.figures(measured_s) for name, tally in self._tallies.items()},
            lag_ms=lag_ms,
            warnings=tuple(_warnings(self._plan, figures, lag_ms)),
        )


def _warnings(plan: "Plan", figures: Figures, lag_ms: Mapping[str, float]) -> Iterator[str]:
    if figures.dropped:
        yield (
            f"the generator dropped {figures.dropped} of {figures.offered} calls: "
            f"{plan.max_in_flight} were under way, or it came to them after their deadline"
        )
    late_ms, median_ms = lag_ms.get("p99", 0.0), figures.latency_ms.get("p50", 0.0)
    if late_ms > max(_LATE_MS, _LATE_SHARE * median_ms):
        yield (
            f"the generator was a bottleneck: of its calls 1% were sent {late_ms:.1f} ms or more "
            "late, which is a part of their latency; give it a core of its own, or less to do"
        )
