"""The bound of the queue: predicted device time, and bytes."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
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

_CAUTION = 2.5
"""What is ahead of a job may take so many times what is expected. Measured at twice the capacity of
a device whose speed halves every few seconds: 99.8% of what is admitted is in time, 97% at 1.5, and
as much work is done."""

_KEPT = 0.9
"""What remains of earlier batches in the pace after each: about ten batches count."""

_SLOWEST = 4.0
"""A batch that takes more times what is predicted tells nothing of the next one."""

_RECENT_S = 5.0
"""Time constant of the mean of what each class takes of the device."""


@dataclass(frozen=True)
class QueueLimits:
    """What may wait and run at once.

    Attributes:
        device_ms: Predicted milliseconds of device time.
        byte_count: Bytes of images, as they arrived and as they are decoded.
    """

    device_ms: float = 30_000.0
    byte_count: int = 1 << 30


class Admission:
    """Lets requests in while the queue has room. Safe between threads."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._left_ms: dict[Job, float] = {}
        self._recent_ms: dict[Priority, float] = defaultdict(float)
        self._recent_at_s = time.monotonic()
        self._predicted_ms = self._taken_ms = 1.0
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

    def check_room(self, priority: Priority) -> None:
        """Refuses what arrives at a full queue before anything of it is read.

        Raises:
            Overloaded: The queue is full for that class.
        """
        with self._lock:
            self._check_room(priority)

    def admit(self, job: Job) -> None:
        """Takes a job in.

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
                f"leaves {left_ms:.0f} ms"
            )
        with self._lock:
            self._check_room(job.spec.method.priority)
            self._check_wait(job, left_ms)
            self._left_ms[job] = job.cost_ms

    def progress(self, job: Job, cost_ms: float) -> None:
        """That much of a job is done."""
        with self._lock:
            self._left_ms[job] = max(0.0, self._left_ms[job] - cost_ms)
            self._forget()
            self._recent_ms[job.spec.method.priority] += cost_ms * self._pace

    def batch(self, predicted_ms: float, taken_ms: float) -> None:
        """A batch took so long, and its rows were predicted to, each by itself."""
        with self._lock:
            self._predicted_ms = _KEPT * self._predicted_ms + predicted_ms
            self._taken_ms = _KEPT * self._taken_ms + min(taken_ms, _SLOWEST * predicted_ms)

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

    def let_go(self, held: "Held") -> None:
        with self._lock:
            self._byte_count -= held.byte_count
            held.byte_count = 0

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
        limit_ms = self._limits.device_ms
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

        More urgent jobs go first, and so do those of its class with an earlier deadline. More
        urgent ones will come while it waits: they take what they took of late, less what its own
        class is guaranteed.
        """
        own, deadline_s = job.spec.method.priority, job.spec.deadline_s
        ahead_ms = sum(
            ms
            for other, ms in self._left_ms.items()
            if (other.spec.method.priority, other.spec.deadline_s) <= (own, deadline_s)
        )
        if not ahead_ms:
            return
        self._forget()
        urgent_ms = sum(ms for other, ms in self._recent_ms.items() if other < own)
        share = max(1 - urgent_ms / (1e3 * _RECENT_S), GUARANTEED_SHARES.get(own, 0.0))
        needed_ms = job.cost_ms + _CAUTION * self._pace * ahead_ms / share
        if needed_ms > left_ms:
            raise Overloaded(
                f"the queue is too long: with what is ahead of it, this request needs about "
                f"{needed_ms:.0f} ms; its deadline leaves {left_ms:.0f} ms",
                retry_delay_ms=max(needed_ms - left_ms, _LEAST_RETRY_DELAY_MS),
            )

    @property
    def _pace(self) -> float:
        """What batches take of what is predicted."""
        return self._taken_ms / self._predicted_ms

    def _forget(self) -> None:
        """What classes took of the device fades."""
        now_s = time.monotonic()
        kept = math.exp((self._recent_at_s - now_s) / _RECENT_S)
        self._recent_at_s = now_s
        for priority in self._recent_ms:
            self._recent_ms[priority] *= kept


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

    def release(self) -> None:
        """They are held no longer."""
        self._admission.let_go(self)
