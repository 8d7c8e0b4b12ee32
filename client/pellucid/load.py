"""Load: calls at a seeded rate or concurrency, and what came of them.

    from pellucid.load import Plan, run

    report = run(Plan(["cat.jpg"], rate=20, mix={"predict": 8, "gradient": 2}), "localhost:8001")
    print(report.figures.goodput_per_s, report.figures.latency_ms["p99"])

An open loop (rate) sends at the arrivals of a Poisson process, whatever the server does: so do
callers who know nothing of each other. A closed loop (concurrency) sends the next call when one is
answered: so a capacity is measured. Latency counts from when a call was to be sent: one that the
generator or a stalled server held up has waited, too. Nothing is tried again.

Needs HdrHistogram: pip install 'pellucid[load]'.
"""

import asyncio
import math
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from selectors import SelectSelector
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from . import _wire, types
from ._channel import connect_aio
from .aio import AsyncClient
from .errors import BadArgument, Violation
from .tally import Answer, Figures, Recorder, Report, Tally
from .v1 import service_pb2

__all__ = ["Answer", "Figures", "Plan", "Report", "measure", "run"]

MAX_REQUEST_BYTES = 1 << 30
"""Of all requests of a plan, which are kept in memory."""

PROGRESS_S = 0.5
"""How often progress is told: meanwhile nothing is sent."""

_PAUSE_S = 0.1
"""Of a closed loop's caller after a failure for which the server names no delay."""


@dataclass(frozen=True)
class Plan:
    """What is asked, how often and for how long.

    Attributes:
        photos: From which each call takes one at random; see Photo.
        rate: Calls a second of an open loop, Poisson; more than 0.
        concurrency: Calls at a time of a closed loop, 1 or more. Either it or rate.
        mix: Weights of methods, "predict" and those of explain, by name; more than 0.
        parameters: Of methods, by name: {"occlusion": {"window_px": 64}}.
        model: Its name; the server's default model when empty.
        outputs: Of explanations, see Client.explain; its defaults when None.
        duration_s: Seconds that are measured, more than 0.
        warm_up_s: Seconds before them of the same load, of which nothing is counted.
        timeout_s: The deadline of each call in seconds after it was to be sent.
        max_in_flight: Calls at a time of an open loop. Arrivals beyond are dropped and counted.
        seed: Of arrivals, methods and photos; 0 or more.

    Raises:
        BadArgument: With every violation.
    """

    photos: Sequence[types.Photo]
    rate: float | None = None
    concurrency: int | None = None
    mix: Mapping[str, float] = field(default_factory=lambda: {"predict": 1.0})
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: str = ""
    outputs: Sequence[str] | None = None
    duration_s: float = 30.0
    warm_up_s: float = 5.0
    timeout_s: float = 10.0
    max_in_flight: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        violations = list(self._violations())
        if violations:
            words = "; ".join(f"{v.field}: {v.description}" for v in violations)
            raise BadArgument(words, violations=violations)

    def _violations(self) -> Iterator[Violation]:
        if not self.photos:
            yield Violation("photos", "is empty; must be one or more")
        if (self.rate is None) == (self.concurrency is None):
            given = "neither is" if self.rate is None else "both are"
            yield Violation("rate, concurrency", f"{given} given; must be one of them")
        for name in ("rate", "duration_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield Violation(name, f"is {value}; must be more than 0 and finite")
        if not 0 <= self.warm_up_s < math.inf:
            yield Violation("warm_up_s", f"is {self.warm_up_s}; must be 0 or more and finite")
        for name in ("concurrency", "max_in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Violation(name, f"is {value}; must be 1 or more")
        if self.seed < 0:
            yield Violation("seed", f"is {self.seed}; must be 0 or more")
        if not self.mix:
            yield Violation("mix", "is empty; must be one method or more")
        for method, weight in self.mix.items():
            if not 0 < weight < math.inf:
                yield Violation(f"mix.{method}", f"is {weight}; must be more than 0 and finite")
            try:
                self.request(method, b"")
            except BadArgument as error:
                yield Violation(f"mix.{method}", error.message)
        for method in self.parameters.keys() - self.mix.keys():
            yield Violation(f"parameters.{method}", "is not in the mix")

    @property
    def planned_s(self) -> float:
        """Seconds in which calls are sent."""
        return self.warm_up_s + self.duration_s

    def arrivals(self) -> Iterator[float]:
        """When the calls of an open loop are to be sent: seconds from its start."""
        assert self.rate is not None
        draws, at_s = np.random.default_rng([self.seed, 0]), 0.0
        while (at_s := at_s + draws.exponential(1 / self.rate)) < self.planned_s:
            yield at_s

    def questions(self) -> Iterator[tuple[str, int]]:
        """What is asked, call after call, whatever the rate: the method, and which photo."""
        draws, methods = np.random.default_rng([self.seed, 1]), list(self.mix)
        edges = np.cumsum(list(self.mix.values()))
        while True:
            place = np.searchsorted(edges, draws.uniform(0, edges[-1]), side="right")
            yield methods[place], int(draws.integers(len(self.photos)))

    def request(self, method: str, photo: types.Photo) -> Message:
        """The message that is sent for a method and a photo."""
        parameters = self.parameters.get(method, {})
        if method == "predict":
            if parameters:
                raise BadArgument(f"{', '.join(parameters)}: predict has no parameters here")
            return _wire.predict_request(
                photo, model=self.model, top_k=None, include_logits=False, bucket_size=None
            )
        return _wire.explain_request(
            photo,
            method,
            target=None,
            against=None,
            score=None,
            model=self.model,
            outputs=self.outputs,
            bucket_size=None,
            until=None,
            evidence=None,
            rendering={},
            method_parameters=parameters,
        )


Send = Callable[[str, int, float], Awaitable[Answer]]
"""Makes a call: of a method, with a photo by its place in the plan, within so many seconds."""


class _Run:
    """One run of a plan, by the running loop's clock."""

    def __init__(self, plan: Plan, send: Send) -> None:
        self._plan = plan
        self._send = send
        self._questions = plan.questions()
        self._now_s = asyncio.get_running_loop().time
        self._started_s = self._now_s()
        self._in_flight = 0
        self.recorder = Recorder(plan, self._started_s)

    async def all_calls(self) -> None:
        """Makes them, and waits for the last of them to end."""
        async with asyncio.TaskGroup() as group:
            if self._plan.concurrency is None:
                await self._open_loop(group)
            else:
                for _ in range(self._plan.concurrency):
                    group.create_task(self._caller())

    async def _open_loop(self, group: asyncio.TaskGroup) -> None:
        plan = self._plan
        for at_s in plan.arrivals():
            due_s = self._started_s + at_s
            await asyncio.sleep(max(0.0, due_s - self._now_s()))
            method, photo = next(self._questions)
            tally = self.recorder.tally(method, due_s)
            tally.offered += 1
            if self._in_flight < plan.max_in_flight and self._now_s() < due_s + plan.timeout_s:
                self._in_flight += 1
                group.create_task(self._call(tally, method, photo, due_s))
            else:
                tally.dropped += 1
        await asyncio.sleep(max(0.0, self._started_s + plan.planned_s - self._now_s()))

    async def _caller(self) -> None:
        """One of a closed loop: it asks again as soon as it has an answer."""
        until_s = self._started_s + self._plan.planned_s
        while (due_s := self._now_s()) < until_s:
            method, photo = next(self._questions)
            tally = self.recorder.tally(method, due_s)
            tally.offered += 1
            self._in_flight += 1
            answer = await self._call(tally, method, photo, due_s)
            if answer.code != "OK":  # failures that come at once would be asked for without end
                delay_s = _PAUSE_S if answer.retry_delay_s is None else answer.retry_delay_s
                await asyncio.sleep(min(delay_s, max(0.0, until_s - self._now_s())))

    async def _call(self, tally: Tally, method: str, photo: int, due_s: float) -> Answer:
        sent_s, timeout_s = self._now_s(), self._plan.timeout_s
        self.recorder.lag(due_s, sent_s)
        try:
            answer = await self._send(method, photo, max(0.0, due_s + timeout_s - sent_s))
            tally.take(answer, self._now_s() - due_s, timeout_s)
            return answer
        finally:
            self._in_flight -= 1

    async def progress(self, tell: Callable[[Report], None]) -> None:
        """Tells of it, again and again."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            tell(self.recorder.report(self._now_s()))


async def measure(
    plan: Plan,
    send: Send,
    *,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Runs a plan with calls of one's own, by the running loop's clock.

    Args:
        plan: What to do.
        send: Makes one call. What it raises ends the run.
        stop: Ends the run early once it is set; calls under way are given up.
        on_progress: Gets what was measured so far, about twice a second.
    """
    run = _Run(plan, send)
    now_s = asyncio.get_running_loop().time
    calls = asyncio.create_task(run.all_calls())
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    beside: list[asyncio.Task[Any]] = [stopped]
    if on_progress is not None:
        beside.append(asyncio.create_task(run.progress(on_progress)))
    try:
        await asyncio.wait((calls, *beside), return_when=asyncio.FIRST_COMPLETED)
        interrupted, ended_s = not calls.done(), now_s()
    finally:
        for task in (calls, *beside):
            task.cancel()
        done = await asyncio.gather(calls, *beside, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, Exception):
            raise outcome
    return run.recorder.report(ended_s, interrupted=interrupted)


class _Stub:
    """Calls a server with requests that are serialized once, and leaves responses as bytes."""

    def __init__(
        self, plan: Plan, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        service = service_pb2.DESCRIPTOR.services_by_name["PellucidService"].full_name
        self._metadata = metadata
        self._calls: dict[str, Any] = {
            method: channel.unary_unary(
                f"/{service}/{'Predict' if method == 'predict' else 'Explain'}"
            )
            for method in plan.mix
        }
        self._requests: dict[tuple[str, int], bytes] = {}
        byte_count = 0
        for place, photo in enumerate(plan.photos):
            loaded = _wire.loaded(photo)
            for method in plan.mix:
                request = plan.request(method, loaded).SerializeToString()
                byte_count += len(request)
                if byte_count > MAX_REQUEST_BYTES:
                    raise BadArgument(
                        f"photos: the requests with the first {place + 1} of {len(plan.photos)} "
                        f"take more than {MAX_REQUEST_BYTES} bytes, which is the most"
                    )
                self._requests[method, place] = request

    async def __call__(self, method: str, photo: int, timeout_s: float) -> Answer:
        request = self._requests[method, photo]
        try:
            response = await self._calls[method](
                request, timeout=timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            failure = _wire.failure_of(error)
            code, delay_s = error.code().name, failure.retry_delay_s
            return Answer(len(request), 0, code, failure.reason, delay_s)
        return Answer(len(request), len(response))


def _precise_loop() -> asyncio.AbstractEventLoop:
    """A loop that waits by microseconds; epoll's rounds up to milliseconds, for every call."""
    return asyncio.SelectorEventLoop(SelectSelector())


def run(
    plan: Plan,
    target: str = "localhost:8001",
    *,
    caller: str = "",
    on_progress: Callable[[Report], None] | None = None,
    **access: Any,
) -> Report:
    """Runs a plan against a server, and waits for the end of it.

    An interrupt (Ctrl-C) in the main thread ends it early: what was measured is returned.

    Args:
        plan: What to do.
        target: HOST:PORT of the server.
        caller: The name that the server knows this caller by; see Client.
        on_progress: Gets what was measured so far, about twice a second.
        **access: The keywords of Client by which a locked server is reached: token, tls, ca_file
            and so on.

    Raises:
        BadArgument: The photos cannot be read, or are too large.
        StatusError: The server cannot be reached, or has no such model.
    """

    async def work() -> Report:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncClient(target, caller=caller, **access) as client:
            model = await client.get_model(plan.model)
            credentials, metadata = client._credentials, client._metadata
        server = {"address": target, "model": model.name, "version": model.version}
        main = threading.current_thread() is threading.main_thread()
        async with connect_aio(target, credentials, retries=False) as channel:
            send = _Stub(plan, channel, metadata)
            if main:
                loop.add_signal_handler(signal.SIGINT, stop.set)
            try:
                report = await measure(plan, send, stop=stop, on_progress=on_progress)
            finally:
                if main:
                    loop.remove_signal_handler(signal.SIGINT)
        return replace(report, server=server)

    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        return runner.run(work())
