"""The bound of the queue: predicted device time, and bytes."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import DeadlineExpired, DeadlineTooShort, Overloaded
from .job import Job, Priority
from .schedule import GUARANTEED_SHARES

_LEAST_RETRY_DELAY_MS = 50.0

_RENDERING_MS = 1000.0
"""About what a large rendering takes: what holds many bytes waits for its own."""

_MOST_OF_ONE = 0.25
"""The share of the limit that one job counts for at most: a long one does not shut out others."""

_CAUTION = 2.0
"""What is ahead of a job may take so many times what is expected: a device that others use, too,
is slower at times, and an answer is rendered after its rows are run. At twice the capacity of a
simulated device 99.5% of what is admitted is in time, and 97% where the device is half as fast for
two seconds of every eight; at 1.5 it is 97% and 92%, with as much work done."""

_CAUTION_OF_OPTIMIZATIONS = 1.6
"""The same for optimizations, which last so long that slow times even out: those of a caller fill
1/1.6 of their deadline. Of another, who comes later and gets half of the device, half as many are
let in: all of them take 1.5/1.6 of it, and nobody is late."""

_RECENT_S = 5.0
"""Time constant of the mean of what each class takes of the device."""


@dataclass(frozen=True)
class QueueLimits:
    """What may wait and run at once.

    Attributes:
        device_ms: Predicted milliseconds of device time.
        optimize_ms: The same for optimizations, that wait for everybody else.
        byte_count: Bytes of images, as they arrived and as they are decoded.
    """

    device_ms: float = 30_000.0
    optimize_ms: float = 3_600_000.0
    byte_count: int = 1 << 30


class Admission:
    """Lets requests in while the queue has room. Safe between threads."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._left_ms: dict[Job, float] = {}
        self._recent_ms: dict[Priority, float] = defaultdict(float)
        self._recent_at_s = time.monotonic()
        self._byte_count = 0

    @property
    def depth(self) -> int:
        return len(self._left_ms)

    @property
    def device_ms(self) -> float:
        """Milliseconds that remain of all jobs."""
        with self._lock:
            return sum(self._left_ms.values())

    @property
    def byte_count(self) -> int:
        return self._byte_count

    def jobs(self) -> tuple[Job, ...]:
        """Those that were admitted and have not ended."""
        with self._lock:
            return tuple(self._left_ms)

    def check_room(self, *priorities: Priority) -> None:
        """Refuses what arrives at a full queue before anything of it is read.

        Raises:
            Overloaded: The queue is full for each of these classes.
        """
        refused: list[Overloaded] = []
        with self._lock:
            for priority in priorities:
                try:
                    self._check_room(priority)
                except Overloaded as error:
                    refused.append(error)
        if len(refused) == len(priorities):
            raise refused[-1]

    def admit(self, job: Job, advise: Callable[[float], str] = lambda _: "") -> None:
        """Takes a job in.

        Args:
            job: Which.
            advise: What to ask for in place of a job that is too long for so many milliseconds, as
                words to append.

        Raises:
            DeadlineExpired: Its deadline has passed.
            DeadlineTooShort: The job's own cost exceeds the time that it has.
            Overloaded: The queue is full for its class, or too long for its deadline.
        """
        left_ms = (job.spec.deadline_s - time.monotonic()) * 1e3
        if left_ms <= 0:
            raise DeadlineExpired("the deadline passed before the request was admitted")
        if job.cost_ms > left_ms:
            raise DeadlineTooShort(
                f"this request needs about {job.cost_ms:.0f} ms of device time; its deadline "
                f"leaves {left_ms:.0f} ms{advise(left_ms)}"
            )
        with self._lock:
            self._check_room(job.spec.method.priority)
            self._check_wait(job, left_ms)
            self._left_ms[job] = job.queued_ms

    def progress(self, job: Job, queued_ms: float) -> None:
        """That much of a job is done."""
        with self._lock:
            self._left_ms[job] = max(0.0, self._left_ms[job] - queued_ms)

    def ran(self, jobs: Sequence[Job], taken_ms: float) -> None:
        """A batch took so long, a row of each of these jobs being in it."""
        with self._lock:
            self._forget()
            for job in jobs:
                self._recent_ms[job.spec.method.priority] += taken_ms / len(jobs)

    def release(self, job: Job) -> None:
        """The job has ended."""
        with self._lock:
            del self._left_ms[job]

    @contextmanager
    def holding(self) -> Iterator["Held"]:
        """Counts the bytes of one request until the block ends."""
        held = Held(self)
        try:
            yield held
        finally:
            held.release()

    def let_go(self, held: "Held", byte_count: int) -> None:
        with self._lock:
            dropped = min(byte_count, held.byte_count)
            self._byte_count -= dropped
            held.byte_count -= dropped

    def hold(self, held: "Held", byte_count: int) -> None:
        with self._lock:
            others = self._byte_count - held.byte_count
            # What exceeds the limit by itself is still taken, alone.
            if others and self._byte_count + byte_count > self._limits.byte_count:
                left_ms = sum(self._left_ms.values())
                raise Overloaded(
                    "the queue is full: the images of other requests fill its "
                    f"{self._limits.byte_count} bytes",
                    retry_delay_ms=max(left_ms / max(1, self.depth), _RENDERING_MS),
                )
            self._byte_count += byte_count
            held.byte_count += byte_count

    def _check_room(self, priority: Priority) -> None:
        """A class waits for its own jobs and for more urgent ones, not for those below it."""
        ahead_ms = [
            left_ms
            for job, left_ms in self._left_ms.items()
            if job.spec.method.priority <= priority
        ]
        limits = self._limits
        limit_ms = limits.optimize_ms if priority is Priority.OPTIMIZE else limits.device_ms
        counted_ms = sum(min(left_ms, _MOST_OF_ONE * limit_ms) for left_ms in ahead_ms)
        if counted_ms >= limit_ms:
            raise Overloaded(
                f"the queue is full: {len(ahead_ms)} requests with about "
                f"{sum(ahead_ms):.0f} ms of device time wait or run",
                retry_delay_ms=max(
                    counted_ms - limit_ms, counted_ms / len(ahead_ms), _LEAST_RETRY_DELAY_MS
                ),
            )

    def _check_wait(self, job: Job, left_ms: float) -> None:
        """What would not be done by its deadline is refused, not begun.

        It waits as the schedule has it wait: for more urgent classes, those that come meanwhile
        included, which take what they took of late; for what its own caller is to have sooner; and
        for the other callers of its class, each of whom gets no more than its own caller does.
        """
        spec, own = job.spec, job.spec.method.priority
        urgent_ms = 0.0
        kin, sooner = _Load(job), _Load(job)
        of_callers: dict[str, _Load] = defaultdict(lambda: _Load(job))
        for other, ms in self._left_ms.items():
            priority, caller = other.spec.method.priority, other.spec.caller
            if priority < own:
                urgent_ms += ms
            elif priority == own and caller != spec.caller:
                of_callers[caller].add(other, ms)
            elif priority == own and other.spec.deadline_s == spec.deadline_s:
                kin.add(other, ms)  # the other images of one request
            elif priority == own and other.spec.deadline_s < spec.deadline_s:
                sooner.add(other, ms)
        together_ms = max(job.cost_ms, job.queued_ms + kin.mates_ms) + kin.apart_ms
        if together_ms > left_ms:
            raise DeadlineTooShort(
                f"the request's images need about {together_ms:.0f} ms of device time; "
                f"its deadline leaves {left_ms:.0f} ms"
            )
        least_ms = 0.0 if job.steps_with is None else job.cost_ms
        own_ms = max(least_ms, job.queued_ms + kin.mates_ms + sooner.mates_ms)
        own_ms += kin.apart_ms + sooner.apart_ms
        mates_ms, apart_ms = sooner.mates_ms, urgent_ms + sooner.apart_ms
        for load in of_callers.values():
            of_mates_ms = min(load.mates_ms, own_ms)
            mates_ms += of_mates_ms
            apart_ms += min(load.apart_ms, own_ms - of_mates_ms)
        self._forget()
        recent_ms = sum(ms for priority, ms in self._recent_ms.items() if priority < own)
        share = max(1 - recent_ms / (1e3 * _RECENT_S), GUARANTEED_SHARES.get(own, 0.0))
        caution = _CAUTION_OF_OPTIMIZATIONS if own is Priority.OPTIMIZE else _CAUTION
        factor = caution / share
        beside_ms = job.queued_ms + kin.mates_ms + factor * mates_ms
        needed_ms = max(job.cost_ms, beside_ms) + kin.apart_ms + factor * apart_ms
        if needed_ms > left_ms:
            raise Overloaded(
                f"the queue is too long: with what is ahead of it, this request needs about "
                f"{needed_ms:.0f} ms; its deadline leaves {left_ms:.0f} ms",
                retry_delay_ms=max(needed_ms - left_ms, _LEAST_RETRY_DELAY_MS),
            )

    def _forget(self) -> None:
        """What classes took of the device fades."""
        now_s = time.monotonic()
        kept = math.exp((self._recent_at_s - now_s) / _RECENT_S)
        self._recent_at_s = now_s
        for priority in self._recent_ms:
            self._recent_ms[priority] *= kept


class _Load:
    """What jobs of a class leave to do, as another job of it meets it.

    Those that step together fill each other's batches, and take no less than the longest of them
    alone; its mates are those that it steps together with.

    Args:
        job: Which job.
    """

    def __init__(self, job: Job) -> None:
        self._own = job.steps_with
        self._shared_ms: dict[Hashable, float] = defaultdict(float)
        self._alone_ms: dict[Hashable, float] = defaultdict(float)

    def add(self, job: Job, left_ms: float) -> None:
        kind = job.steps_with
        self._shared_ms[kind] += left_ms
        if kind is not None and job.queued_ms:
            alone_ms = left_ms / job.queued_ms * job.cost_ms
            self._alone_ms[kind] = max(self._alone_ms[kind], alone_ms)

    @property
    def mates_ms(self) -> float:
        """Of those whose batches the job's rows ride in."""
        return 0.0 if self._own is None else self._shared_ms.get(self._own, 0.0)

    @property
    def apart_ms(self) -> float:
        """Of all others."""
        return sum(
            max(ms, self._alone_ms.get(kind, 0.0))
            for kind, ms in self._shared_ms.items()
            if kind is None or kind != self._own
        )


class Held:
    """The bytes that one request holds, from its arrival to its answer."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.byte_count = 0

    def add(self, byte_count: int) -> None:
        """Counts more of them.

        Raises:
            Overloaded: Other requests leave no room for them.
        """
        self._admission.hold(self, byte_count)

    def drop(self, byte_count: int) -> None:
        """So many of them are held no longer; of none nothing is left to drop."""
        self._admission.let_go(self, byte_count)

    def release(self) -> None:
        """They are held no longer."""
        self._admission.let_go(self, self.byte_count)
