"""The bound of the queue: predicted device time, and bytes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import DeadlineExpired, DeadlineTooShort, Overloaded
from .job import Job, Priority

_LEAST_RETRY_DELAY_MS = 50.0

_RENDERING_MS = 1000.0
"""About what a large rendering takes: what holds many bytes waits for its own."""

_MOST_OF_ONE = 0.25
"""The share of the limit that one job counts for at most: a long one does not shut out others."""


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
            Overloaded: The queue is full for its class.
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
            self._left_ms[job] = job.cost_ms

    def progress(self, job: Job, cost_ms: float) -> None:
        """That much of a job is done."""
        with self._lock:
            self._left_ms[job] = max(0.0, self._left_ms[job] - cost_ms)

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
