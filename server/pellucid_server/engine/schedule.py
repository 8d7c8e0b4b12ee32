"""Which rows go into the next batch.

By class: the most urgent class that has rows leads, unless a class below it has had
less of the device than its guaranteed share. Inside a class callers take turns, rows
of callers who had about as much of the device go by earliest deadline. Rows of every
class that fit the leader's batch ride along.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..models.gates import Rule
from .costs import Costs
from .job import Job, Priority, Served, Work
from .lockstep import Climbing, Group
from .rows import Lane

GUARANTEED_SHARES: Mapping[Priority, float] = {Priority.EXPLAIN: 0.25, Priority.OPTIMIZE: 0.1}
"""The share of device time that a class with waiting rows has at least."""

_MEMORY = 0.9
"""What remains of a class's counted device time after each batch: about ten batches count."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """One row of a job, taken into a batch."""

    job: Job
    work: Work | Climbing
    index: int

    @property
    def rule(self) -> Rule:
        return self.work.rows.rule if isinstance(self.work, Work) else Rule.GRADIENT


@dataclass(frozen=True)
class Key:
    """What the rows of one batch have in common."""

    model: Served
    lane: Lane
    bucket_size: int | None
    size: tuple[int, int]
    group: Group | None

    @property
    def scale(self) -> float:
        """What a row of it costs, relative to one of the model's own size."""
        return self.size[0] * self.size[1] / self.model.network.pixel_count


@dataclass(frozen=True)
class Batch:
    """Rows that go through the network together, sorted by rule, padded to the bucket."""

    key: Key
    bucket_size: int
    tickets: tuple[Ticket, ...]


def key_of(job: Job) -> Key:
    assert job.work is not None
    work = job.work
    return Key(
        work.model or job.spec.model,
        work.lane,
        work.bucket_size or job.spec.bucket_size,
        work.size,
        work.group,
    )


class Schedule:
    """The jobs that have rows to run, and whose turn it is. The engine thread's own."""

    def __init__(self) -> None:
        self._jobs: dict[Job, None] = {}  # in the order of arrival
        self._spent_ms: dict[Priority, float] = defaultdict(float)
        self._caller_ms: dict[str, float] = {}
        self._batch_count = 0
        self._quantum_ms = 0.0  # callers within a batch's worth of each other are level

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs))

    def add(self, job: Job) -> None:
        """A job has rows to run; nothing changes where it had some already."""
        if job in self._jobs:
            return
        caller = job.spec.caller
        if all(other.spec.caller != caller for other in self._jobs):
            # A caller who comes, or comes back, starts level with who had least.
            active = {other.spec.caller for other in self._jobs}
            least = min((self._caller_ms[name] for name in active), default=0.0)
            self._caller_ms = {name: self._caller_ms[name] for name in active}
            self._caller_ms[caller] = least
        priority = job.spec.method.priority
        if all(other.spec.method.priority is not priority for other in self._jobs):
            # Nor does a class that had nothing to run claim a share of that time.
            share = GUARANTEED_SHARES.get(priority, 0.0)
            others = sum(ms for other, ms in self._spent_ms.items() if other is not priority)
            self._spent_ms[priority] = max(self._spent_ms[priority], share / (1 - share) * others)
        self._jobs[job] = None

    def remove(self, job: Job) -> None:
        self._jobs.pop(job, None)

    def next_batch(self, costs: Mapping[str, Costs]) -> Batch | None:
        """Takes rows for one batch; None when no row waits."""
        waiting = [job for job in self._jobs if _rows_waiting(job)]
        if not waiting:
            return None
        self._batch_count += 1
        leading = self._leading({job.spec.method.priority for job in waiting})
        leaders = [job for job in waiting if job.spec.method.priority is leading]
        lead = min(leaders, key=self._turn)
        assert lead.work is not None
        key = key_of(lead)
        cost = costs[key.model.name]
        mates = [job for job in waiting if key_of(job) == key and job.work and job.work.waiting]
        count = 1 if lead.work.suspects else sum(job.work.waiting for job in mates if job.work)
        bucket_size = key.bucket_size or cost.bucket_for(key.lane, count, key.scale)
        self._quantum_ms = key.scale * cost.predict_ms(key.lane, bucket_size, bucket_size)
        row_ms = self._quantum_ms / min(bucket_size, count)  # padding is paid for, too
        if lead.work.suspects:
            tickets = [Ticket(lead, lead.work, lead.work.suspects.pop())]
            self._charge(lead, row_ms)
        else:
            tickets = self._take(mates, leading, bucket_size, row_ms)
            tickets.sort(key=lambda ticket: ticket.rule)
        for priority in self._spent_ms:
            self._spent_ms[priority] *= _MEMORY
        return Batch(key, bucket_size, tuple(tickets))

    def _charge(self, job: Job, row_ms: float) -> None:
        self._caller_ms[job.spec.caller] += row_ms
        self._spent_ms[job.spec.method.priority] += row_ms

    def _leading(self, waiting: set[Priority]) -> Priority:
        total = sum(self._spent_ms.values())
        starved = [
            p
            for p in waiting
            if total > 0 and self._spent_ms[p] < GUARANTEED_SHARES.get(p, 0.0) * total
        ]
        return min(starved or waiting)

    def _turn(self, job: Job) -> tuple[float, int, float, int]:
        """Less is sooner: who had less of the device, then as _order."""
        had_ms, quantum_ms = self._caller_ms[job.spec.caller], self._quantum_ms
        return (had_ms // quantum_ms if quantum_ms else 0.0, *_order(job))

    def _take(
        self, mates: list[Job], leading: Priority, bucket_size: int, row_ms: float
    ) -> list[Ticket]:
        tickets: list[Ticket] = []
        for priority in sorted(
            {job.spec.method.priority for job in mates}, key=lambda p: (p is not leading, p)
        ):
            queues: dict[str, list[Job]] = defaultdict(list)
            for job in mates:
                if job.spec.method.priority is priority:
                    queues[job.spec.caller].append(job)
            for queue in queues.values():
                queue.sort(key=_order, reverse=True)
            turns = [(self._turn(queue[-1]), queue) for queue in queues.values()]
            heapq.heapify(turns)
            while turns and len(tickets) < bucket_size:
                _, queue = heapq.heappop(turns)
                job = queue[-1]
                assert job.work is not None
                tickets.append(Ticket(job, job.work, job.work.take()))
                if isinstance(job.work, Climbing):
                    job.work.turn = self._batch_count
                self._charge(job, row_ms)
                if not job.work.waiting:
                    queue.pop()
                if queue:
                    heapq.heappush(turns, (self._turn(queue[-1]), queue))
        return tickets


def _order(job: Job) -> tuple[int, float, int]:
    """Of a caller's jobs: in lock step those that wait longest, then the earliest deadline."""
    assert job.work is not None
    return (job.work.turn, job.spec.deadline_s, job.sequence)


def _rows_waiting(job: Job) -> bool:
    return job.work is not None and bool(job.work.waiting or job.work.suspects)
