"""Who is let in when time is short: by hand, and with the schedule on a virtual clock."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from pellucid_server.engine import admission
from pellucid_server.engine.admission import Admission, QueueLimits
from pellucid_server.engine.costs import Costs
from pellucid_server.engine.job import Job, Priority, Spec, Timing, Work
from pellucid_server.engine.lockstep import Climb, Climbing, Group, Pace
from pellucid_server.engine.rows import Lane, Rows, TopTarget, Want
from pellucid_server.engine.schedule import Schedule
from pellucid_server.errors import DeadlineTooShort, Overloaded, PellucidError
from pellucid_server.methods.attack.carlini_wagner_stepper import CarliniWagnerStepper
from pellucid_server.methods.optimize.stepper import AscentStepper
from pellucid_server.models.registry import Model

from .test_parts import Classed, Named, images

PREDICT, EXPLAIN, OPTIMIZE = Priority
CAUTION = admission._CAUTION


@dataclass
class Clock:
    """Stands still, unless it is set."""

    now_s: float = 10.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(admission, "time", made)
    return made


_numbers = itertools.count()


def job(
    cost_ms: float,
    *,
    within_ms: float = math.inf,
    caller: str = "",
    priority: Priority = EXPLAIN,
    queued_ms: float | None = None,
    rows: int = 1,
    lane: Lane = Lane.GRADIENT,
    now_s: float = 10.0,
) -> Job:
    spec = Spec(
        cast(Model, Named("one")),
        cast(Any, Classed(priority)),
        cast(Any, None),
        TopTarget(),
        now_s + within_ms / 1e3,
        caller,
    )
    want = Want.GRADIENT if lane is Lane.GRADIENT else Want.SCORE
    queued_ms = cost_ms if queued_ms is None else queued_ms
    work = Work(Rows(images(rows), TopTarget(), want))
    return Job(spec, cost_ms, queued_ms, Timing(0.0), next(_numbers), rows, work=work)


def refused(queue: Admission, late: Job, kind: type[PellucidError] = Overloaded) -> str:
    with pytest.raises(kind) as caught:
        queue.admit(late)
    assert (caught.value.retry_delay_ms is None) == (kind is DeadlineTooShort)
    return str(caught.value)


def fits(queue: Admission, needed_ms: float, **asked: Any) -> None:
    """A job that needs so long is refused a millisecond below it, and taken a millisecond above."""
    refused(queue, job(within_ms=needed_ms - 1, **asked))
    queue.admit(job(within_ms=needed_ms + 1, **asked))


def test_nobody_ahead(clock: Clock) -> None:
    Admission(QueueLimits()).admit(job(1000.0, within_ms=1000.0))


def test_what_its_own_caller_wants_sooner_is_ahead(clock: Clock) -> None:
    queue = Admission(QueueLimits())
    queue.admit(job(400.0, within_ms=500.0))
    queue.admit(job(300.0, within_ms=9000.0))  # later than the next one
    fits(queue, 200 + CAUTION * 400, cost_ms=200.0)


def test_a_queue_counts_rows_as_batches_of_many_take_them(clock: Clock) -> None:
    queue = Admission(QueueLimits())
    queue.admit(job(300.0, queued_ms=100.0, within_ms=320.0))
    assert queue.device_ms == 100.0
    fits(queue, 200 + CAUTION * 100, cost_ms=200.0, queued_ms=50.0)


def test_other_callers_get_no_more_than_its_own(clock: Clock) -> None:
    """A long job of one caller does not refuse another's short one."""
    queue = Admission(QueueLimits())
    queue.admit(job(14_000.0, within_ms=30_000.0, caller="alice"))
    queue.admit(job(40.0, within_ms=30_000.0, caller="alice"))
    queue.admit(job(30.0, within_ms=30_000.0, caller="bob"))
    fits(queue, 100 + CAUTION * (100 + 30), cost_ms=100.0, caller="carol")


def test_its_own_sooner_jobs_have_turns_too(clock: Clock) -> None:
    queue = Admission(QueueLimits())
    queue.admit(job(1000.0, within_ms=30_000.0, caller="alice"))
    queue.admit(job(200.0, within_ms=700.0, caller="bob"))
    # Bob's 300 ms of work are done when Alice has had 300 ms as well.
    fits(queue, 100 + CAUTION * (200 + 300), cost_ms=100.0, caller="bob")


def test_more_urgent_classes_are_ahead_and_later_ones_are_not(clock: Clock) -> None:
    queue = Admission(QueueLimits())
    queue.admit(job(70.0, within_ms=9000.0, priority=PREDICT, caller="alice"))
    queue.admit(job(900.0, within_ms=9000.0, priority=OPTIMIZE))
    fits(queue, 200 + CAUTION * 70, cost_ms=200.0)


def test_images_of_one_request_are_not_ahead_of_each_other_but_must_fit(clock: Clock) -> None:
    queue = Admission(QueueLimits())
    for _ in range(8):
        queue.admit(job(100.0, within_ms=850.0, caller="alice"))
    said = refused(queue, job(100.0, within_ms=850.0, caller="alice"), DeadlineTooShort)
    assert "the request's images need about 900 ms" in said
    # Behind others they wait as everybody does.
    queue = Admission(QueueLimits())
    queue.admit(job(100.0, within_ms=150.0, caller="alice"))
    for _ in range(2):
        queue.admit(job(100.0, within_ms=2 * 100 + CAUTION * 100 + 1, caller="alice"))
    refused(queue, job(100.0, within_ms=2 * 100 + CAUTION * 100 + 1, caller="alice"))


@pytest.mark.parametrize(
    ("predicted_ms", "later_s", "share"),
    [
        (0.0, 0.0, 1.0),
        (2500.0, 0.0, 0.5),  # of the last 5 s
        (2500.0, 5.0, 1 - 0.5 / math.e),
        (1e6, 0.0, 0.25),  # what its class is guaranteed
    ],
)
def test_urgent_jobs_will_come_as_they_came(
    clock: Clock, predicted_ms: float, later_s: float, share: float
) -> None:
    queue = Admission(QueueLimits())
    prediction = job(0.0, priority=PREDICT)
    queue.admit(prediction)
    queue.ran([prediction, prediction], predicted_ms)
    queue.release(prediction)
    clock.now_s += later_s
    queue.admit(job(300.0, within_ms=400.0, now_s=clock.now_s))
    fits(queue, 100 + CAUTION * 300 / share, cost_ms=100.0, now_s=clock.now_s)


# The schedule and the queue together.

BATCH_MS = {
    Lane.FORWARD: {1: 20.0, 2: 30.0, 4: 50.0, 8: 90.0},
    Lane.GRADIENT: {1: 40.0, 2: 60.0, 4: 100.0, 8: 180.0},
}
"""Of a device where batches pay, as on a CPU."""


@dataclass(frozen=True)
class Arrival:
    at_s: float
    caller: str
    rows: int
    within_s: float
    priority: Priority


@dataclass
class Simulated:
    """Arrivals at a device of that speed, which runs what the schedule takes."""

    clock: Clock
    arrivals: list[Arrival]
    speed: Any = lambda now_s: 1.0
    done: list[Arrival] = field(default_factory=list)
    late: list[Arrival] = field(default_factory=list)
    refused: list[Arrival] = field(default_factory=list)
    worked_ms: float = 0.0

    def run(self) -> None:
        queue, schedule = Admission(QueueLimits(device_ms=1e9)), Schedule()
        costs = Costs((1, 2, 4, 8), 250.0)
        for lane, measured in BATCH_MS.items():
            for bucket, ms in measured.items():
                costs.record(lane, bucket, ms)
        waiting, under_way = sorted(self.arrivals, key=lambda a: a.at_s), {}
        while waiting or under_way:
            now_s = self.clock.now_s
            if not under_way and waiting[0].at_s > now_s:
                self.clock.now_s = waiting[0].at_s
                continue
            while waiting and waiting[0].at_s <= now_s:
                arrival = waiting.pop(0)
                lane = Lane.FORWARD if arrival.priority is PREDICT else Lane.GRADIENT
                made = job(
                    costs.predict_ms(lane, arrival.rows, None),
                    within_ms=arrival.within_s * 1e3,
                    caller=arrival.caller,
                    priority=arrival.priority,
                    queued_ms=arrival.rows * costs.shared_ms(lane, None),
                    rows=arrival.rows,
                    lane=lane,
                    now_s=arrival.at_s,
                )
                try:
                    queue.admit(made)
                except PellucidError:
                    self.refused.append(arrival)
                    continue
                under_way[made] = arrival
                schedule.add(made)
            for made in list(under_way):
                if made.spec.deadline_s <= self.clock.now_s:
                    self._ends(self.late, made, under_way, queue, schedule)
            batch = schedule.next_batch({"one": costs})
            if batch is None:
                continue
            taken_ms = BATCH_MS[batch.key.lane][batch.bucket_size] / self.speed(now_s)
            self.clock.now_s += taken_ms / 1e3
            costs.record(batch.key.lane, batch.bucket_size, taken_ms)
            queue.ran([ticket.job for ticket in batch.tickets], taken_ms)
            for ticket in batch.tickets:
                made = ticket.job
                queue.progress(made, made.row_ms)
                ticket.work.unsettled -= 1
                if not ticket.work.unsettled:
                    in_time = made.spec.deadline_s >= self.clock.now_s
                    self.worked_ms += made.queued_ms if in_time else 0.0
                    ending = self.done if in_time else self.late
                    self._ends(ending, made, under_way, queue, schedule)

    def _ends(self, where: list[Arrival], made: Job, under_way: Any, *holders: Any) -> None:
        where.append(under_way.pop(made))
        queue, schedule = holders
        queue.release(made)
        schedule.remove(made)

    @property
    def in_time(self) -> float:
        """Of those that were admitted."""
        return len(self.done) / (len(self.done) + len(self.late))


def poisson(seed: int, rate: float, lasts_s: float, **kinds: float) -> Iterator[Arrival]:
    """Predictions and gradients of callers, as likely as they are weighed."""
    draws, at_s = random.Random(seed), 10.0
    while (at_s := at_s + draws.expovariate(rate)) < 10.0 + lasts_s:
        kind = draws.choices([*kinds], [*kinds.values()])[0]
        caller, what = kind.split("_")
        yield {
            "predict": Arrival(at_s, caller, 1, 2.0, PREDICT),
            "gradient": Arrival(at_s, caller, 1, 2.0, EXPLAIN),
            "rise": Arrival(at_s, caller, 100, 8.0, EXPLAIN),
        }[what]


MIXES = [
    {"a_gradient": 1.0},
    {"a_predict": 1.0, "a_gradient": 1.0},
    {"a_predict": 1.0, "b_gradient": 1.0, "c_gradient": 1.0},
    {"a_gradient": 1.0, "b_gradient": 1.0, "c_rise": 0.02},
]
CAPACITY = {0: 44.0, 1: 59.0, 2: 53.0, 3: 22.0}
"""About what the device does of each mix, a second."""


@pytest.mark.parametrize("mix", range(len(MIXES)))
@pytest.mark.parametrize("slows", [False, True])
def test_at_twice_the_capacity_what_is_admitted_is_in_time(
    clock: Clock, mix: int, slows: bool
) -> None:
    arrivals = [*poisson(mix, 2 * CAPACITY[mix], 60.0, **MIXES[mix])]
    # A device that others use, too: at half its speed for two seconds of every eight.
    found = Simulated(clock, arrivals, lambda now_s: 0.5 if slows and now_s % 8 < 2 else 1.0)
    found.run()
    assert found.in_time >= (0.96 if slows else 0.99)
    assert found.worked_ms / 60e3 >= (0.75 if slows else 0.85)


def test_what_the_device_can_do_is_not_refused(clock: Clock) -> None:
    arrivals = [*poisson(7, 0.6 * CAPACITY[1], 60.0, **MIXES[1])]
    found = Simulated(clock, arrivals)
    found.run()
    assert not found.late
    assert len(found.refused) <= 0.01 * len(arrivals)


def test_one_callers_long_jobs_leave_room_for_another(clock: Clock) -> None:
    long = [Arrival(10.0 + 0.1 * number, "a", 400, 60.0, EXPLAIN) for number in range(3)]
    short = [Arrival(10.5 + number, "b", 1, 2.0, EXPLAIN) for number in range(20)]
    found = Simulated(clock, [*long, *short])
    found.run()
    assert {*short} <= {*found.done}


# Optimizations, which share batches step by step.

STEPS, BUCKET, STEP_MS = 400, 4, 100.0
"""Of each: alone it takes 40 s, and one of many that fill batches 10 s."""


class Slots:
    """As much of a stepper: its slots are counted."""

    def __init__(self) -> None:
        self._slots = itertools.count()

    def join(self, start: object) -> int:
        return next(self._slots)

    def leave(self, slot: int) -> None: ...


@dataclass
class Stepping:
    """A device that optimizes for callers, STEP_MS a batch, and who was let in and is done."""

    clock: Clock
    queue: Admission = field(default_factory=lambda: Admission(QueueLimits()))
    slow: float = 1.0
    groups: dict[tuple[int, type], Group] = field(default_factory=dict)
    left: dict[Job, int] = field(default_factory=dict)
    ended_s: dict[Job, float] = field(default_factory=dict)

    def ask(
        self,
        count: int,
        *,
        within_s: float,
        caller: str = "",
        size: int = 1,
        kind: type = AscentStepper,
    ) -> list[Job]:
        """So many jobs of an image, one after another: those of them that are let in."""
        taken = []
        for _ in range(count):
            self.clock.now_s += 0.001
            made = self._job(within_s, caller, size, kind)
            try:
                self.queue.admit(made)
            except Overloaded:
                continue
            group = self.groups.setdefault((size, kind), Group(cast(Any, Slots())))
            climb = Climb((size, 1), BUCKET, kind, cast(Any, Slots), [None])
            made.work = Climbing(group, climb)
            self.left[made] = STEPS
            taken.append(made)
        return taken

    def _job(self, within_s: float, caller: str, size: int, kind: type) -> Job:
        spec = Spec(
            cast(Model, Named("one")),
            cast(Any, Classed(OPTIMIZE, Pace([], (size, 1), kind))),
            cast(Any, None),
            TopTarget(),
            self.clock.now_s + within_s,
            caller,
            BUCKET,
        )
        alone_ms = STEPS * STEP_MS
        return Job(spec, alone_ms, alone_ms / BUCKET, Timing(0.0), next(_numbers), STEPS)

    def run(self) -> None:
        costs, schedule = Costs((BUCKET,), 250.0), Schedule()
        costs.record(Lane.GRADIENT, BUCKET, STEP_MS)
        for made in self.left:
            schedule.add(made)
        while batch := schedule.next_batch({"one": costs}):
            self.clock.now_s += STEP_MS * self.slow / 1e3
            for ticket in batch.tickets:
                made = ticket.job
                self.left[made] -= 1
                self.queue.progress(made, made.row_ms)
                assert isinstance(ticket.work, Climbing)
                ticket.work.settle(ticket.index, None if self.left[made] else "done")
                if not self.left[made]:
                    self.ended_s[made] = self.clock.now_s
                    self.queue.release(made)
                    schedule.remove(made)

    def in_time(self, jobs: list[Job]) -> bool:
        return all(self.ended_s[made] <= made.spec.deadline_s for made in jobs)


def test_a_callers_optimizations_that_fit_together_are_all_let_in(clock: Clock) -> None:
    """32 of them take 320 s."""
    device = Stepping(clock)
    jobs = device.ask(32, within_s=600.0)
    assert len(jobs) == 32
    device.run()
    assert device.in_time(jobs)
    assert clock.now_s == pytest.approx(10.0 + 320.0, abs=1.0)


@pytest.mark.parametrize("slow", [1.0, 1.4])
def test_of_more_than_fit_those_are_let_in_that_will_be_done(clock: Clock, slow: float) -> None:
    device = Stepping(clock, slow=slow)
    jobs = device.ask(100, within_s=600.0)
    assert len(jobs) >= 36
    device.run()
    assert device.in_time(jobs)


def test_another_caller_makes_nobody_late(clock: Clock) -> None:
    """One asks for all that is given, and so does another, who comes later."""
    device = Stepping(clock)
    jobs = [device.ask(100, within_s=600.0, caller=caller) for caller in ("alice", "bob")]
    assert len(jobs[1]) >= 15
    device.run()
    assert all(device.in_time(of_one) for of_one in jobs)


def test_optimizations_of_other_sizes_fill_nobodys_batches(clock: Clock) -> None:
    """Each takes 40 s then: of 16 sizes not all fit into 600 s."""
    device = Stepping(clock)
    jobs = [made for size in range(1, 17) for made in device.ask(1, within_s=600.0, size=size)]
    assert 9 <= len(jobs) < 16
    device.run()
    assert device.in_time(jobs)


@pytest.mark.parametrize("other", [CarliniWagnerStepper, Rows])
def test_attacks_of_another_kind_fill_nobodys_batches(clock: Clock, other: type) -> None:
    """One of 40 s is ahead: 1.6 times that, and 40 s of its own.

    Of the same kind it fills that one's batches, and needs its own 40 s alone.
    """
    device, beside = Stepping(clock), Stepping(clock)
    for one in (device, beside):
        assert one.ask(1, within_s=41.0)
    assert not device.ask(1, within_s=1.6 * 40 + 39, kind=other)
    assert device.ask(1, within_s=1.6 * 40 + 41, kind=other)
    assert beside.ask(1, within_s=42.0)


def test_a_jobs_pace_is_asked_for_once(clock: Clock) -> None:
    """Not by every job that comes after it."""
    paces: list[int] = []

    class Counting(Classed):
        def pace(self, model: Any) -> Pace | None:
            paces.append(1)
            return super().pace(model)

    device = Stepping(clock)
    for _ in range(8):
        made = device._job(600.0, "", 1, AscentStepper)
        method = Counting(OPTIMIZE, made.spec.method.pace(made.spec.model))
        made.spec = replace(made.spec, method=method)
        device.queue.admit(made)
    assert len(paces) == 8


def test_one_optimization_alone_needs_all_of_its_batches(clock: Clock) -> None:
    device = Stepping(clock)
    with pytest.raises(DeadlineTooShort, match="needs about 40000 ms"):
        device.ask(1, within_s=39.0)
    assert len(device.ask(1, within_s=41.0)) == 1
    # It fills batches that are run anyway.
    assert len(device.ask(3, within_s=76.0)) == 3
