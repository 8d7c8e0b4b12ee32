"""The engine's parts by values worked by hand: costs, admission, schedule, seeds, work."""

import itertools
import math
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch
from pellucid_server.engine.admission import Admission, QueueLimits
from pellucid_server.engine.costs import Costs
from pellucid_server.engine.device import pick_device
from pellucid_server.engine.job import Job, Priority, Spec, Timing, Work
from pellucid_server.engine.lockstep import Pace
from pellucid_server.engine.rows import (
    ClassTarget,
    Lane,
    NeuronTarget,
    Rows,
    TopTarget,
    Want,
)
from pellucid_server.engine.schedule import Batch, Schedule, Ticket
from pellucid_server.engine.seeds import score
from pellucid_server.errors import DeadlineExpired, DeadlineTooShort, Overloaded
from pellucid_server.models.gates import Rule
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.registry import Model

FORWARD, GRADIENT = Lane.FORWARD, Lane.GRADIENT
PREDICT, EXPLAIN, OPTIMIZE = Priority
INF, NAN = math.inf, math.nan
TOP = TopTarget()


@dataclass(frozen=True)
class Sized:
    """As much of a network."""

    pixel_count: int = 1


@dataclass(frozen=True)
class Named:
    """As much of a model as the schedule looks at."""

    name: str
    network: Sized = Sized()


@dataclass(frozen=True)
class Classed:
    """As much of a method."""

    priority: Priority
    steps_at: Pace | None = None

    def pace(self, model: object) -> Pace | None:
        return self.steps_at


ONE, OTHER = Named("one"), Named("other")


def images(count: int) -> torch.Tensor:
    return torch.zeros(count, 3, 1, 1)


def work(count: int, lane: Lane = GRADIENT, rule: Rule = Rule.GRADIENT) -> Work:
    want = Want.GRADIENT if lane is GRADIENT else Want.SCORE
    return Work(Rows(images(count), TOP, want, rule))


def job(
    count: int = 1,
    *,
    on: Named = ONE,
    lane: Lane = GRADIENT,
    rule: Rule = Rule.GRADIENT,
    bucket_size: int | None = None,
    priority: Priority = EXPLAIN,
    deadline_s: float = 100.0,
    caller: str = "",
    cost_ms: float = 0.0,
) -> Job:
    """A job that waits for that many rows."""
    spec = Spec(
        cast(Model, on),
        cast(Any, Classed(priority)),
        cast(Any, None),
        TOP,
        deadline_s,
        caller,
        bucket_size,
    )
    timing = Timing(submitted_s=0.0)
    number = next(_numbers)
    return Job(spec, cost_ms, cost_ms, timing, number, work=work(count, lane, rule))


_numbers = itertools.count()


# Costs


def costs(
    batch_ms: dict[int, float],
    *,
    lanes: Sequence[Lane] = (GRADIENT,),
    iteration_budget_ms: float = INF,
) -> Costs:
    """Costs of which every bucket of those lanes was measured once."""
    measured = Costs(tuple(batch_ms), iteration_budget_ms)
    for lane, (bucket, taken_ms) in itertools.product(lanes, batch_ms.items()):
        measured.record(lane, bucket, taken_ms)
    return measured


def test_a_measurement_corrects_the_mean_by_a_tenth() -> None:
    known = Costs((1, 2), INF)
    assert known.snapshot() == {}
    known.record(GRADIENT, 2, 10.0)
    assert known.snapshot() == {(GRADIENT, 2): 10.0}
    known.record(GRADIENT, 2, 20.0)  # 10 + 0.1 · (20 - 10)
    assert known.snapshot() == {(GRADIENT, 2): pytest.approx(11.0)}
    known.record(GRADIENT, 2, 1.0)  # 11 + 0.1 · (1 - 11)
    known.record(GRADIENT, 1, 3.0)
    known.record(FORWARD, 2, 5.0)
    assert known.snapshot() == {
        (GRADIENT, 2): pytest.approx(10.0),
        (GRADIENT, 1): 3.0,
        (FORWARD, 2): 5.0,
    }


def test_a_snapshot_stays_what_it_was() -> None:
    known = costs({1: 10.0})
    before = known.snapshot()
    known.record(GRADIENT, 1, 20.0)
    assert before == {(GRADIENT, 1): 10.0}


@pytest.mark.parametrize(
    ("row_count", "bucket"),
    # Milliseconds a row that is really there, for buckets of 1, 2, 4, 8:
    [
        (1, 1),  # 10, 12, 20, 48
        (2, 2),  # 10, 6, 10, 24
        (3, 2),  # 10, 6, 6.7, 16
        (4, 4),  # 10, 6, 5, 12
        (5, 4),  # 10, 6, 5, 9.6
        (8, 4),  # 10, 6, 5, 6
        (99, 4),  # 10, 6, 5, 6
    ],
)
def test_the_bucket_is_the_cheapest_for_each_row_it_takes(row_count: int, bucket: int) -> None:
    known = costs({1: 10.0, 2: 12.0, 4: 20.0, 8: 48.0})
    assert known.bucket_for(GRADIENT, row_count) == bucket


def test_padding_is_paid_for_where_it_pays() -> None:
    known = costs({1: 10.0, 4: 24.0})
    assert known.bucket_for(GRADIENT, 2) == 1  # 10 against 24 / 2
    assert known.bucket_for(GRADIENT, 3) == 4  # 10 against 24 / 3


def test_of_equally_cheap_buckets_the_largest_is_taken() -> None:
    assert costs({1: 10.0, 2: 20.0, 4: 40.0}).bucket_for(GRADIENT, 4) == 4


@pytest.mark.parametrize(
    ("budget_ms", "bucket"), [(INF, 8), (30.0, 8), (29.0, 4), (20.0, 4), (19.0, 2), (1.0, 1)]
)
def test_a_bucket_over_the_iteration_budget_is_not_chosen(budget_ms: float, bucket: int) -> None:
    """Except the smallest, without which nothing would run."""
    known = costs({1: 10.0, 2: 12.0, 4: 20.0, 8: 30.0}, iteration_budget_ms=budget_ms)
    assert known.bucket_for(GRADIENT, 8) == bucket


def test_memory_that_ran_out_caps_the_buckets_of_its_lane() -> None:
    known = costs({1: 10.0, 2: 12.0, 4: 14.0, 8: 16.0}, lanes=tuple(Lane))
    assert known.bucket_for(GRADIENT, 8) == 8
    known.cap(GRADIENT, 16)  # a bucket that a request fixed
    assert known.bucket_for(GRADIENT, 8) == 8
    known.cap(GRADIENT, 8)
    assert known.bucket_for(GRADIENT, 8) == 4
    assert known.bucket_for(FORWARD, 8) == 8
    known.cap(GRADIENT, 3)
    assert known.bucket_for(GRADIENT, 8) == 2
    known.cap(GRADIENT, 8)  # told late: what is known already stands
    assert known.bucket_for(GRADIENT, 8) == 2
    known.cap(GRADIENT, 1)
    assert known.bucket_for(GRADIENT, 8) == 1


def test_the_cost_of_rows_is_that_of_the_batches_they_will_fill() -> None:
    known = costs({1: 10.0, 2: 12.0, 4: 20.0})
    assert known.predict_ms(GRADIENT, 0, None) == 0.0
    assert known.predict_ms(GRADIENT, 1, None) == 10.0
    assert known.predict_ms(GRADIENT, 3, None) == 12.0 + 10.0
    assert known.predict_ms(GRADIENT, 7, None) == 20.0 + 12.0 + 10.0
    assert known.predict_ms(GRADIENT, 11, None) == 2 * 20.0 + 12.0 + 10.0


def test_the_cost_of_rows_includes_their_padding() -> None:
    known = costs({1: 10.0, 4: 24.0})
    assert known.predict_ms(GRADIENT, 3, None) == 24.0
    assert known.predict_ms(GRADIENT, 7, None) == 24.0 + 24.0


@pytest.mark.parametrize(("row_count", "expected_ms"), [(1, 20.0), (4, 20.0), (5, 40.0), (8, 40.0)])
def test_a_fixed_bucket_is_paid_for_whole(row_count: int, expected_ms: float) -> None:
    known = costs({1: 1.0, 2: 12.0, 4: 20.0})
    assert known.predict_ms(GRADIENT, row_count, 4) == expected_ms


def test_an_unmeasured_bucket_is_no_better_than_the_best_of_its_lane() -> None:
    known = Costs((1, 2, 4), INF)
    known.record(GRADIENT, 1, 10.0)
    known.record(GRADIENT, 2, 12.0)
    known.record(FORWARD, 1, 1.0)
    assert known.predict_ms(GRADIENT, 4, 4) == 4 * 6.0
    assert known.bucket_for(GRADIENT, 4) == 4  # 6 a row, as the bucket of 2 is
    assert known.predict_ms(FORWARD, 4, 4) == 4 * 1.0


def test_an_unmeasured_bucket_keeps_to_the_iteration_budget() -> None:
    known = Costs((1, 2, 4), iteration_budget_ms=15.0)
    known.record(GRADIENT, 1, 30.0)
    known.record(GRADIENT, 2, 10.0)
    assert known.bucket_for(GRADIENT, 4) == 2
    known.record(GRADIENT, 2, 110.0)  # 20 from now on: none is within the budget
    assert known.bucket_for(GRADIENT, 4) == 1


def test_a_lane_never_measured_costs_next_to_nothing() -> None:
    """Its first requests are not refused for a cost that nobody knows."""
    known = costs({1: 1e6}, lanes=(GRADIENT,))
    assert 0.0 < known.predict_ms(FORWARD, 1000, None) < 1e-9


# Admission


def admission(**limits: Any) -> Admission:
    return Admission(QueueLimits(**limits))


@pytest.fixture
def _at_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of admission stands at 10 s."""
    clock = types.SimpleNamespace(monotonic=lambda: 10.0)
    monkeypatch.setattr("pellucid_server.engine.admission.time", clock)


def waiting_job(cost_ms: float = 0.0, deadline_s: float = INF, priority: Priority = EXPLAIN) -> Job:
    return job(cost_ms=cost_ms, deadline_s=deadline_s, priority=priority)


def test_device_time_is_bounded() -> None:
    queue = admission(device_ms=100.0)
    jobs = [waiting_job(25.0) for _ in range(4)]
    for waiting in jobs[:3]:
        queue.admit(waiting)
    queue.check_room(EXPLAIN)
    queue.admit(jobs[3])
    with pytest.raises(Overloaded, match="4 requests with about 100 ms"):
        queue.admit(waiting_job(0.5))
    with pytest.raises(Overloaded):
        queue.check_room(EXPLAIN)
    assert (queue.depth, queue.device_ms) == (4, 100.0)
    assert set(queue.jobs()) == set(jobs)
    queue.release(jobs[1])
    queue.admit(waiting_job(0.5))
    assert (queue.depth, queue.device_ms) == (4, 75.5)


def test_a_long_job_counts_for_a_quarter_and_is_admitted_for_what_is_ahead_of_it() -> None:
    queue = admission(device_ms=100.0)
    queue.admit(waiting_job(1000.0))  # 25 of it count
    for _ in range(14):
        queue.admit(waiting_job(5.0))
    queue.admit(waiting_job(1000.0))  # 95 are ahead
    with pytest.raises(Overloaded):
        queue.admit(waiting_job(1.0))  # 120 are


def test_what_is_done_counts_no_more() -> None:
    queue = admission(device_ms=100.0)
    jobs = [waiting_job(25.0) for _ in range(4)]
    for waiting in jobs:
        queue.admit(waiting)
    queue.progress(jobs[0], 10.0)
    assert queue.device_ms == 90.0
    queue.admit(waiting_job(10.0))
    with pytest.raises(Overloaded):
        queue.check_room(EXPLAIN)
    queue.progress(jobs[0], 20.0)  # more than was predicted
    assert queue.device_ms == 25.0 + 25.0 + 25.0 + 10.0


def test_a_class_waits_for_itself_and_for_more_urgent_ones() -> None:
    queue = admission(device_ms=100.0, optimize_ms=100.0)
    for _ in range(4):
        queue.admit(waiting_job(30.0, priority=EXPLAIN))
    queue.check_room(PREDICT)
    for late in (EXPLAIN, OPTIMIZE):
        with pytest.raises(Overloaded):
            queue.check_room(late)
    for _ in range(4):
        queue.admit(waiting_job(25.0, priority=PREDICT))
    with pytest.raises(Overloaded, match="4 requests with about 100 ms"):
        queue.admit(waiting_job(priority=PREDICT))


def test_bytes_are_bounded() -> None:
    queue = admission(byte_count=100)
    with queue.holding() as first, queue.holding() as second:
        with queue.holding() as third:
            first.add(40)
            second.add(40)
            third.add(20)
            for _ in range(2):  # what was refused is not counted
                with pytest.raises(Overloaded, match="images of other requests"):
                    first.add(1)
        assert queue.byte_count == 80
        first.add(20)
        second.drop(30)
        second.drop(30)  # it holds 10 by now
        assert queue.byte_count == 60
        first.add(40)
    assert queue.byte_count == 0


def test_a_request_over_the_bound_of_bytes_goes_alone() -> None:
    queue = admission(byte_count=100)
    with queue.holding() as large, queue.holding() as small:
        large.add(90)
        large.add(90)
        with pytest.raises(Overloaded):
            small.add(1)


@pytest.mark.parametrize(
    ("costs_ms", "limit_ms", "delay_ms"),
    [
        ((400.0, 400.0, 400.0, 400.0, 390.0, 900.0), 2000.0, 490.0),  # 1990 + 500 - 2000
        ((500.0, 500.0, 500.0, 500.0), 2000.0, 500.0),  # one job's worth, where 0 would do
        ((10.0, 10.0, 10.0, 10.0), 40.0, 50.0),  # never less
    ],
)
def test_the_retry_delay_of_a_full_queue(
    costs_ms: Sequence[float], limit_ms: float, delay_ms: float
) -> None:
    queue = admission(device_ms=limit_ms)
    for cost_ms in costs_ms:
        queue.admit(waiting_job(cost_ms))
    with pytest.raises(Overloaded) as caught:
        queue.check_room(EXPLAIN)
    assert caught.value.retry_delay_ms == delay_ms


@pytest.mark.parametrize(
    ("costs_ms", "delay_ms"), [((9000.0, 3000.0), 6000.0), ((90.0, 30.0), 1000.0), ((), 1000.0)]
)
def test_the_retry_delay_of_a_queue_full_of_bytes_is_a_job_or_a_rendering(
    costs_ms: Sequence[float], delay_ms: float
) -> None:
    queue = admission(byte_count=100)
    for cost_ms in costs_ms:
        queue.admit(waiting_job(cost_ms))
    with queue.holding() as first, queue.holding() as second:
        first.add(100)
        with pytest.raises(Overloaded) as caught:
            second.add(1)
    assert caught.value.retry_delay_ms == delay_ms


def test_what_was_released_leaves_nothing_behind() -> None:
    assert 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 != 0.0
    queue = admission()
    jobs = [waiting_job(cost_ms) for cost_ms in (0.1, 0.2, 0.3)]
    for admitted in jobs:
        queue.admit(admitted)
    for admitted in jobs:
        queue.release(admitted)
    assert (queue.depth, queue.device_ms, queue.jobs()) == (0, 0.0, ())
    with pytest.raises(KeyError):
        queue.release(jobs[0])


@pytest.mark.usefixtures("_at_ten")
def test_a_cost_over_the_deadline_is_refused_for_good() -> None:
    queue = admission(device_ms=100.0)
    queue.admit(waiting_job(500.0, deadline_s=10.5))  # to the millisecond
    for _ in range(3):
        queue.admit(waiting_job(500.0))
    late = waiting_job(501.0, deadline_s=10.5)
    # The queue is full as well, but no retry would help.
    with pytest.raises(DeadlineTooShort, match=r"about 501 ms .*leaves 500 ms") as caught:
        queue.admit(late)
    assert caught.value.retry_delay_ms is None
    for passed_s in (10.0, 9.0):
        with pytest.raises(DeadlineExpired):
            queue.admit(waiting_job(1.0, deadline_s=passed_s))
    assert queue.depth == 4


# Schedule


@dataclass
class Turns:
    """A schedule, and what it hands out where a forward row costs 10 ms, a gradient 40."""

    buckets: tuple[int, ...] = (1,)
    forward_ms: float = 10.0
    gradient_ms: float = 40.0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        known = Costs(self.buckets, INF)
        for bucket in self.buckets:
            # For each row a batch costs a little less the larger it is; sums of it are exact.
            discount = 1.0 - bucket / 1024
            known.record(FORWARD, bucket, self.forward_ms * bucket * discount)
            known.record(GRADIENT, bucket, self.gradient_ms * bucket * discount)
        self.costs = {ONE.name: known, OTHER.name: known}

    def add(self, *jobs: Job) -> None:
        for added in jobs:
            self.schedule.add(added)

    def next(self) -> Batch | None:
        return self.schedule.next_batch(self.costs)

    def take(self, count: int) -> list[Ticket]:
        """The rows of that many batches."""
        tickets: list[Ticket] = []
        for _ in range(count):
            batch = self.next()
            assert batch is not None
            tickets.extend(batch.tickets)
        return tickets

    def batch_ms(self, batch: Batch) -> float:
        known = self.costs[batch.key.model.name]
        return known.predict_ms(batch.key.lane, batch.bucket_size, batch.bucket_size)


def callers(tickets: Sequence[Ticket]) -> str:
    return "".join(ticket.job.spec.caller for ticket in tickets)


def jobs_of(tickets: Sequence[Ticket]) -> list[Job]:
    return [ticket.job for ticket in tickets]


def test_nothing_waits() -> None:
    turns = Turns()
    assert turns.next() is None
    taken = job(1)
    turns.add(taken)
    assert jobs_of(turns.take(1)) == [taken]
    assert turns.next() is None
    assert len(turns.schedule) == 1  # it waits for what its row brings


def test_rows_are_taken_in_their_order() -> None:
    turns = Turns((4,))
    only = job(6)
    turns.add(only)
    assert [ticket.index for ticket in turns.take(1)] == [0, 1, 2, 3]
    assert [ticket.index for ticket in turns.take(1)] == [4, 5]


def test_the_most_urgent_class_leads() -> None:
    turns = Turns()
    optimize, explain, predict = (
        job(priority=priority, deadline_s=deadline_s)
        for priority, deadline_s in ((OPTIMIZE, 1.0), (EXPLAIN, 2.0), (PREDICT, 3.0))
    )
    turns.add(optimize, explain, predict)
    assert jobs_of(turns.take(3)) == [predict, explain, optimize]


def test_other_classes_ride_in_the_room_that_is_left() -> None:
    turns = Turns((4,))
    optimize = job(4, priority=OPTIMIZE)
    explain, predict = job(1), job(2, priority=PREDICT)
    turns.add(optimize, explain, predict)
    assert jobs_of(turns.take(1)) == [predict, predict, explain, optimize]


def test_each_class_has_its_guaranteed_share_of_device_time() -> None:
    """Predictions never stop coming; theirs is what the others' shares leave."""
    turns = Turns()
    turns.add(
        job(2000, priority=PREDICT, lane=FORWARD),
        job(2000, priority=EXPLAIN, lane=GRADIENT),
        job(2000, priority=OPTIMIZE, lane=GRADIENT, on=OTHER),
    )
    turns.take(100)
    device_ms: Counter[Priority] = Counter()
    for _ in range(1000):
        batch = turns.next()
        assert batch is not None
        device_ms[batch.tickets[0].job.spec.method.priority] += turns.batch_ms(batch)
    shares = {priority: spent_ms / device_ms.total() for priority, spent_ms in device_ms.items()}
    # A share that is reached in batches of 40 ms is passed by some of one.
    assert 0.25 <= shares[EXPLAIN] < 0.35
    assert 0.1 <= shares[OPTIMIZE] < 0.2
    assert shares[PREDICT] > 0.45


def test_rows_that_ride_along_count_for_their_own_class() -> None:
    """Every other row is an explanation's already: it has its share and need not lead."""
    turns = Turns((2,))
    explain = job(50, priority=EXPLAIN)
    turns.add(explain)
    for _ in range(50):
        predict = job(1, priority=PREDICT)
        turns.add(predict)
        assert jobs_of(turns.take(1)) == [predict, explain]
        turns.schedule.remove(predict)


def test_a_class_that_comes_claims_no_time_from_before() -> None:
    """Not three batches in a row, which a quarter of the last ten or so would be."""
    turns = Turns()
    turns.add(job(200, priority=PREDICT))
    turns.take(50)
    turns.add(job(200, priority=EXPLAIN))
    leads = [ticket.job.spec.method.priority for ticket in turns.take(2)]
    assert sorted(leads) == [PREDICT, EXPLAIN]


def test_jobs_that_join_a_waiting_class_use_up_none_of_its_share() -> None:
    turns = Turns()
    turns.add(job(9, priority=PREDICT), job(priority=EXPLAIN))
    (first,) = turns.take(1)
    assert first.job.spec.method.priority is PREDICT
    turns.add(*(job(priority=EXPLAIN) for _ in range(100)))
    (second,) = turns.take(1)
    assert second.job.spec.method.priority is EXPLAIN


def test_a_class_that_comes_back_keeps_what_it_had() -> None:
    """Or one that sends its rows one after the other would have more than its share."""
    turns = Turns()
    turns.add(job(2000, priority=PREDICT))
    leads: list[Priority] = []
    explain = job(1)
    for _ in range(400):
        if not len(turns.schedule) > 1:
            explain = job(1)
            turns.add(explain)
        (ticket,) = turns.take(1)
        leads.append(ticket.job.spec.method.priority)
        if ticket.job is explain:
            turns.schedule.remove(explain)
    assert 0.15 < leads.count(EXPLAIN) / len(leads) < 0.3


def test_the_earliest_deadline_goes_first_within_a_class() -> None:
    turns = Turns()
    late, soon, also_late, predict = (
        job(deadline_s=300.0),
        job(2, deadline_s=100.0),
        job(deadline_s=300.0),
        job(2, deadline_s=900.0, priority=PREDICT, lane=FORWARD),
    )
    turns.add(late, soon, also_late)
    assert jobs_of(turns.take(4)) == [soon, soon, late, also_late]
    turns.add(job(deadline_s=1.0), predict)
    assert jobs_of(turns.take(1)) == [predict]


def test_the_earliest_deadline_goes_first_in_a_batch() -> None:
    turns = Turns((4,))
    late, soon = job(3, deadline_s=300.0), job(3, deadline_s=100.0)
    turns.add(late, soon)
    assert jobs_of(turns.take(1)) == [soon, soon, soon, late]


def test_the_earliest_deadline_goes_first_among_callers_who_are_level() -> None:
    turns = Turns()
    turns.add(
        job(caller="a", deadline_s=3.0),
        job(caller="b", deadline_s=1.0),
        job(caller="c", deadline_s=2.0),
    )
    assert callers(turns.take(3)) == "bca"


def test_callers_take_turns() -> None:
    """Whoever sends many, early and urgent does not hold up the other."""
    turns = Turns()
    turns.add(*(job(5, caller="a", deadline_s=1.0) for _ in range(10)))
    turns.add(job(4, caller="b", deadline_s=99.0))
    assert callers(turns.take(10)) == "abababab" + "aa"


def test_callers_are_level_within_a_batch_worth() -> None:
    turns = Turns((4,))
    turns.add(job(40, caller="a", deadline_s=1.0), job(40, caller="b", deadline_s=99.0))
    assert callers(turns.take(4)) == "aaaabbbbaaaabbbb"


def test_callers_share_device_time_and_not_rows() -> None:
    turns = Turns()
    turns.add(job(500, caller="a", lane=FORWARD), job(500, caller="b", lane=GRADIENT))
    rows = Counter(callers(turns.take(200)))
    assert rows["a"] == pytest.approx(4 * rows["b"], abs=8)


def test_a_caller_who_comes_starts_level() -> None:
    turns = Turns()
    turns.add(job(50, caller="a", deadline_s=1.0))
    turns.take(20)
    came = job(2, caller="b", deadline_s=2.0)
    turns.add(came)
    assert callers(turns.take(3)) == "aba"
    # Coming back, it is owed nothing for the time it was away either.
    turns.schedule.remove(came)
    turns.take(20)
    turns.add(job(5, caller="b", deadline_s=2.0))
    assert callers(turns.take(4)) == "abab"


def test_a_caller_who_is_still_there_is_not_forgiven_what_it_had() -> None:
    turns = Turns()
    turns.add(job(50, caller="a", deadline_s=1.0))
    turns.add(job(2, caller="b", deadline_s=2.0))
    turns.take(1)
    turns.add(job(50, caller="a", deadline_s=1.0))
    assert callers(turns.take(1)) == "b"


def test_a_caller_pays_for_the_padding_of_its_batches() -> None:
    """One row in a bucket of four keeps the device as long as four do."""
    turns = Turns((1, 4))
    padded = job(1, caller="a", bucket_size=4)
    turns.add(padded, job(500, caller="b", bucket_size=1))
    device_ms: Counter[str] = Counter()
    for _ in range(100):
        batch = turns.next()
        assert batch is not None
        device_ms[callers(batch.tickets)] += turns.batch_ms(batch)
        if not padded.work or not padded.work.waiting:
            padded.work = work(1)  # its method asks for the next
    assert device_ms["a"] == pytest.approx(device_ms["b"], abs=2 * 4 * turns.gradient_ms)


def test_a_row_that_runs_again_alone_is_paid_for() -> None:
    turns = Turns()
    again = job(1, caller="a", deadline_s=1.0)
    turns.add(again, job(5, caller="b", deadline_s=99.0))
    assert again.work
    again.work.take()
    again.work.suspects.extend([0] * 5)
    assert callers(turns.take(6)) == "ababab"


def test_equal_rows_share_a_batch() -> None:
    turns = Turns((4,))
    turns.add(job(caller="a", deadline_s=1.0), job(caller="b", rule=Rule.GUIDED))
    batch = turns.next()
    assert batch
    assert callers(batch.tickets) == "ab"
    assert (batch.key.model, batch.key.lane, batch.key.bucket_size) == (ONE, GRADIENT, None)
    assert batch.bucket_size == 4


@pytest.mark.parametrize("other", [{"on": OTHER}, {"lane": FORWARD}, {"bucket_size": 4}])
def test_rows_of_different_keys_never_share_a_batch(other: dict[str, Any]) -> None:
    turns = Turns((4,))
    first, second = job(2, deadline_s=1.0), job(2, deadline_s=2.0, **other)
    turns.add(first, second)
    batches = turns.next(), turns.next()
    assert turns.next() is None
    for batch, own in zip(batches, (first, second), strict=True):
        assert batch
        assert jobs_of(batch.tickets) == [own, own]
        assert batch.key.model is own.spec.model
        assert batch.key.lane is own.work.rows.lane if own.work else False
        assert batch.key.bucket_size == own.spec.bucket_size


def test_the_bucket_is_chosen_for_what_waits_or_was_fixed() -> None:
    turns = Turns((1, 2, 4))
    turns.add(job(3, deadline_s=1.0), job(2, deadline_s=2.0), job(7, on=OTHER, deadline_s=0.0))
    sizes = [(batch.bucket_size, len(batch.tickets)) for batch in iter(turns.next, None) if batch]
    assert sizes == [(4, 4), (2, 2), (1, 1), (4, 4), (1, 1)]
    turns.add(job(4, bucket_size=3))
    sizes = [(batch.bucket_size, len(batch.tickets)) for batch in iter(turns.next, None) if batch]
    assert sizes == [(3, 3), (3, 1)]


def test_rows_are_sorted_by_rule() -> None:
    """Each rule is one slice of the batch; nobody's row is lost over it."""
    turns = Turns((8,))
    guided = job(2, rule=Rule.GUIDED, deadline_s=1.0)
    plain = job(2, rule=Rule.GRADIENT, deadline_s=2.0)
    deconvnet = job(1, rule=Rule.DECONVNET, deadline_s=3.0)
    also_plain = job(1, rule=Rule.GRADIENT, deadline_s=4.0)
    turns.add(guided, plain, deconvnet, also_plain)
    tickets = turns.take(1)
    assert [ticket.rule for ticket in tickets] == [0, 0, 0, 1, 2, 2]
    expected = [(plain, 0), (plain, 1), (also_plain, 0), (deconvnet, 0), (guided, 0), (guided, 1)]
    assert [(ticket.job, ticket.index) for ticket in tickets] == expected


def test_a_suspect_runs_alone_and_first() -> None:
    turns = Turns((1, 4))
    suspected = job(3, deadline_s=1.0)
    turns.add(suspected, job(4, deadline_s=2.0))
    assert suspected.work
    assert suspected.work.take() == 0
    suspected.work.suspects.append(0)
    batch = turns.next()
    assert batch
    assert [(ticket.job, ticket.index) for ticket in batch.tickets] == [(suspected, 0)]
    assert batch.bucket_size == 1
    assert suspected.work.suspects == []
    assert [ticket.index for ticket in turns.take(1)][:2] == [1, 2]


def test_a_suspect_keeps_its_fixed_bucket() -> None:
    turns = Turns((1, 4))
    suspected = job(1, bucket_size=4)
    turns.add(suspected)
    assert suspected.work
    suspected.work.suspects.append(suspected.work.take())
    batch = turns.next()
    assert batch
    assert (batch.bucket_size, len(batch.tickets)) == (4, 1)


def test_rows_of_a_job_that_was_dropped_are_not_taken() -> None:
    turns = Turns((2,))
    dropped, kept = job(5, deadline_s=1.0), job(3, deadline_s=2.0)
    turns.add(dropped, kept)
    assert jobs_of(turns.take(1)) == [dropped, dropped]
    for dead in turns.schedule:  # as the engine drops them: while it looks through them
        if dead is dropped:
            turns.schedule.remove(dead)
    turns.schedule.remove(dropped)
    assert list(turns.schedule) == [kept]
    assert jobs_of(turns.take(2)) == [kept, kept, kept]
    assert turns.next() is None


# Seeds


def test_a_class_scores_its_logit() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [2.0, 4.0, 6.0]])
    scores = score({OUTPUT: logits}, [ClassTarget(2), ClassTarget(0)])
    assert scores.values.tolist() == [3.0, 2.0]
    assert scores.classes.tolist() == [2, 0]
    assert list(scores.seeds) == [OUTPUT]
    assert scores.seeds[OUTPUT].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert (scores.values.dtype, scores.classes.dtype) == (torch.float64, torch.int64)
    assert scores.seeds[OUTPUT].dtype == torch.float32


def test_the_top_target_scores_each_row_of_its_own() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0], [-2.0, -4.0, -6.0], [0.0, 1.0, 2.0]])
    scores = score({OUTPUT: logits}, [TOP, TOP, ClassTarget(1)])
    assert scores.values.tolist() == [5.0, -2.0, 1.0]
    assert scores.classes.tolist() == [1, 0, 1]
    assert scores.seeds[OUTPUT].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("y", "x", "value", "places"),
    [
        # Channel 1 of the row is [[106, 107, 108], [109, 110, 111]].
        (None, None, 651.0, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        (1, 2, 111.0, [(1, 2)]),
        (0, 0, 106.0, [(0, 0)]),
        (1, None, 330.0, [(1, 0), (1, 1), (1, 2)]),
        (None, 1, 217.0, [(0, 1), (1, 1)]),
    ],
)
def test_a_neuron_scores_its_activation(
    y: int | None, x: int | None, value: float, places: list[tuple[int, int]]
) -> None:
    activation = torch.arange(100.0, 124.0).view(2, 2, 2, 3)
    scores = score({"conv": activation}, [NeuronTarget("conv", 1, y, x), None])
    assert scores.values.tolist() == [value, 0.0]
    assert scores.classes.tolist() == [-1, -1]
    assert list(scores.seeds) == ["conv"]
    assert scores.seeds["conv"].shape == activation.shape
    expected = [(0, 1, at_y, at_x) for at_y, at_x in places]
    assert [tuple(place) for place in scores.seeds["conv"].nonzero().tolist()] == expected
    assert scores.seeds["conv"].max() == 1


def test_a_neuron_of_a_flat_layer() -> None:
    activation = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    scores = score({"head": activation}, [NeuronTarget("head", 2), NeuronTarget("head", 0)])
    assert scores.values.tolist() == [3.0, 4.0]
    assert scores.seeds["head"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_padding_scores_nothing_and_seeds_nothing() -> None:
    logits = torch.tensor([[1.0, 5.0], [7.0, 9.0], [NAN, INF]])
    scores = score({OUTPUT: logits}, [TOP, None, None])
    assert scores.values.tolist() == [5.0, 0.0, 0.0]
    assert scores.classes.tolist() == [1, -1, -1]
    assert scores.seeds[OUTPUT].tolist() == [[0, 1], [0, 0], [0, 0]]


def mixed_activations() -> dict[str, torch.Tensor]:
    """Of five rows: logits of 3 classes, a layer of 2×1×2 and one of 1×2×1."""
    return {
        OUTPUT: torch.tensor([[r, r + 2.0, r + 1.0] for r in range(5)]),
        "early": torch.arange(20.0).view(5, 2, 1, 2),
        "late": torch.arange(10.0).view(5, 1, 2, 1) * 10,
    }


MIXED = [
    NeuronTarget("early", 1),  # 2 + 3
    TOP,  # 3, of class 1
    NeuronTarget("late", 0, 1, 0),  # 50
    ClassTarget(2),  # 4
    NeuronTarget("early", 0, 0, 1),  # 17
]
MIXED_SEEDS = {
    OUTPUT: [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]],
    "early": [[0, 0, 1, 1], [0] * 4, [0] * 4, [0] * 4, [0, 1, 0, 0]],
    "late": [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]],
}


def test_rows_of_different_taps_score_together() -> None:
    scores = score(mixed_activations(), MIXED)
    assert scores.values.tolist() == [5.0, 3.0, 50.0, 4.0, 17.0]
    assert scores.classes.tolist() == [-1, 1, -1, 2, -1]
    assert {tap: seed.flatten(1).tolist() for tap, seed in scores.seeds.items()} == MIXED_SEEDS


def test_seeds_are_the_gradients_of_the_scores() -> None:
    """As autograd has them, of the same sum written down row by row."""
    taps = {tap: a.double().requires_grad_() for tap, a in mixed_activations().items()}
    logits, early, late = taps[OUTPUT], taps["early"], taps["late"]
    values = [early[0, 1].sum(), logits[1].max(), late[2, 0, 1, 0], logits[3, 2], early[4, 0, 0, 1]]
    expected = torch.autograd.grad(torch.stack(values).sum(), list(taps.values()))
    scores = score(taps, MIXED)
    assert scores.values.tolist() == torch.stack(values).tolist()
    assert not scores.values.requires_grad
    for tap, gradient in zip(taps, expected, strict=True):
        assert not scores.seeds[tap].requires_grad
        assert scores.seeds[tap].dtype == torch.float64
        assert torch.equal(scores.seeds[tap], gradient)


def test_only_taps_that_targets_need_are_seeded() -> None:
    taps = mixed_activations()
    neurons = score(taps, [NeuronTarget("late", 0, 0, 0), None, None, None, None])
    assert list(neurons.seeds) == ["late"]
    assert list(score(taps, [TOP] * 5).seeds) == [OUTPUT]
    assert score(taps, [None] * 5).seeds == {}


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_what_is_not_finite_elsewhere_touches_no_score(bad: float) -> None:
    """Scores are selected: a product with a mask would make NaN of 0 · inf."""
    clean = score(mixed_activations(), MIXED)
    taps = mixed_activations()
    taps[OUTPUT][torch.tensor(MIXED_SEEDS[OUTPUT]) == 0] = bad
    taps[OUTPUT][1] = torch.tensor([-INF, 3.0, -INF])  # its top is to stay where it is
    for tap in ("early", "late"):
        taps[tap][torch.tensor(MIXED_SEEDS[tap]).view(taps[tap].shape) == 0] = bad
    scores = score(taps, MIXED)
    assert torch.equal(scores.values, clean.values)
    assert torch.equal(scores.classes, clean.classes)
    for tap, seed in scores.seeds.items():
        assert torch.equal(seed, clean.seeds[tap])


def test_what_is_not_finite_at_the_target_shows() -> None:
    logits = torch.tensor([[0.0, INF], [0.0, NAN], [0.0, 1.0]])
    activation = torch.tensor([[0.0, 1.0], [0.0, 1.0], [INF, 1.0]])[:, :, None, None]
    targets = [TOP, ClassTarget(1), NeuronTarget("conv", 0)]
    scores = score({OUTPUT: logits, "conv": activation}, targets)
    assert scores.values.isfinite().tolist() == [False, False, False]
    assert scores.values[[0, 2]].tolist() == [INF, INF]


# Work


def settle(on: Work, index: int, **kept: torch.Tensor) -> None:
    """What came of row k: a score of k + 0.1 and class 10 · k; row 1 is not finite."""
    value = torch.tensor(index + 0.1, dtype=torch.float64)
    brought = {(name, ""): tensor for name, tensor in kept.items()}
    on.settle(index, value, torch.tensor(10 * index), brought, finite=index != 1)


def test_rows_are_taken_once_each_from_the_first() -> None:
    taken = work(3)
    assert (taken.waiting, taken.unsettled) == (3, 3)
    assert [taken.take() for _ in range(2)] == [0, 1]
    assert (taken.waiting, taken.unsettled) == (1, 3)
    assert taken.take() == 2
    with pytest.raises(IndexError):
        taken.take()


def test_traces_are_in_the_order_of_rows() -> None:
    """However they were settled; rows that share one image have gradients of their own."""
    shared = torch.zeros(1, 3, 2, 2).expand(3, 3, 2, 2)
    settled = Work(Rows(shared, TOP, Want.GRADIENT))
    reused = torch.empty(3, 2, 2)
    for left, index in zip((2, 1, 0), (2, 0, 1), strict=True):
        with pytest.raises(AssertionError):
            settled.traces()
        settle(settled, index, gradient=reused.fill_(float(index)))
        assert settled.unsettled == left
    traces = settled.traces()
    assert traces.scores.tolist() == [0.1, 1.1, 2.1]
    assert traces.classes.tolist() == [0, 10, 20]
    assert traces.finite.tolist() == [True, False, True]
    assert (traces.scores.dtype, traces.classes.dtype) == (torch.float64, torch.int64)
    assert traces.logits is None
    assert traces.gradient is not None
    assert traces.gradient.shape == shared.shape
    assert traces.gradient[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(traces.gradient.amin((1, 2, 3)), traces.gradient.amax((1, 2, 3)))
    assert shared.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_keep_their_precision(dtype: torch.dtype) -> None:
    settled = Work(Rows(images(2).to(dtype), TOP, Want.LOGITS))
    for index in (1, 0):
        logits = torch.tensor([index + 0.1, index + 0.2], dtype=dtype)
        settle(settled, index, logits=logits)
    traces = settled.traces()
    assert traces.gradient is None
    assert traces.logits is not None
    assert traces.logits.dtype == dtype
    assert torch.equal(traces.logits, torch.tensor([[0.1, 0.2], [1.1, 1.2]], dtype=dtype))


def test_work_is_for_at_least_one_row() -> None:
    with pytest.raises(AssertionError):
        work(0)


def test_whoever_waits_for_a_job_cannot_end_it() -> None:
    first, second = job(), job()
    assert first.sequence < second.sequence
    assert not first.future.cancel()
    assert not first.cancelled
    first.cancel()
    assert first.cancelled
    assert not second.cancelled
    assert not first.future.done()


# Device


@pytest.mark.parametrize(("name", "picked"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_auto_takes_a_cuda_device(name: str, picked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(name).type == picked


def test_without_a_cuda_device_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [pick_device(name).type for name in ("auto", "cpu")] == ["cpu"] * 2
    with pytest.raises(RuntimeError, match="no CUDA device"):
        pick_device("cuda")
