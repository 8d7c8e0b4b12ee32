"""The bound of the queue: predicted device time, and bytes."""

import threading
import time
from dataclasses import dataclass

from ..errors import DeadlineTooShort, Overloaded, Unavailable
from .job import Job

_LEAST_RETRY_DELAY_MS = 50.0


@dataclass(frozen=True)
class QueueLimits:
    """What may wait and run at once.

    Attributes:
        device_ms: Predicted milliseconds of device time.
        byte_count: Bytes of images as they arrived.
    """

    device_ms: float = 30_000.0
    byte_count: int = 1 << 30


class Admission:
    """Lets jobs in while the queue has room. Safe between threads."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._jobs: set[Job] = set()
        self._device_ms = 0.0
        self._byte_count = 0
        self.draining = False

    @property
    def depth(self) -> int:
        return len(self._jobs)

    @property
    def device_ms(self) -> float:
        return self._device_ms

    def jobs(self) -> tuple[Job, ...]:
        """Those that were admitted and have not ended."""
        with self._lock:
            return tuple(self._jobs)

    def check_room(self) -> None:
        """Refuses what arrives at a full queue before anything of it is read.

        Raises:
            Unavailable: The server is stopping.
            Overloaded: The queue is full.
        """
        with self._lock:
            self._check_room(0.0, 0)

    def admit(self, job: Job) -> None:
        """Takes a job in.

        Raises:
            Unavailable: The server is stopping.
            DeadlineTooShort: The job's own cost exceeds the time that it has.
            Overloaded: The queue has no room for it.
        """
        left_ms = (job.spec.deadline_s - time.monotonic()) * 1e3
        if job.cost_ms > left_ms:
            raise DeadlineTooShort(
                f"this request needs about {job.cost_ms:.0f} ms of device time; its deadline "
                f"leaves {max(left_ms, 0):.0f} ms"
            )
        with self._lock:
            self._check_room(job.cost_ms, job.spec.source.byte_count)
            self._jobs.add(job)
            self._device_ms += job.cost_ms
            self._byte_count += job.spec.source.byte_count

    def release(self, job: Job) -> None:
        """The job has ended."""
        with self._lock:
            self._jobs.remove(job)
            self._device_ms = self._device_ms - job.cost_ms if self._jobs else 0.0
            self._byte_count -= job.spec.source.byte_count
            if not self._jobs:
                self._empty.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Admits nothing more and waits for what was admitted; false when time ran out."""
        with self._lock:
            self.draining = True
            return self._empty.wait_for(lambda: not self._jobs, timeout_s)

    def _check_room(self, cost_ms: float, byte_count: int) -> None:
        if self.draining:
            raise Unavailable("the server is stopping; another replica will answer")
        limits = self._limits
        # A job that exceeds a limit by itself still runs, alone.
        if self._jobs and (
            self._device_ms + cost_ms > limits.device_ms
            or self._byte_count + byte_count > limits.byte_count
        ):
            over_ms = self._device_ms + cost_ms - limits.device_ms
            mean_job_ms = self._device_ms / len(self._jobs)
            raise Overloaded(
                f"the queue is full: {len(self._jobs)} requests with about "
                f"{self._device_ms:.0f} ms of device time wait or run",
                retry_delay_ms=max(over_ms, mean_job_ms, _LEAST_RETRY_DELAY_MS),
            )
