"""Metrics: one observer that the engine, the service and its edges call."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .engine.admission import Admission
from .engine.engine import Outcome
from .engine.job import Done, Job
from .engine.schedule import Batch
from .errors import Cancelled, Internal, PellucidError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Prometheus metrics, in base units, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "pellucid_requests", "Requests, by method.", ["method"], registry=self.registry
        )
        self._errors = Counter(
            "pellucid_request_errors",
            "Requests that failed, by method and reason.",
            ["method", "reason"],
            registry=self.registry,
        )
        self._unauthenticated = Counter(
            "pellucid_unauthenticated",
            "Calls refused for want of a token; they are no requests.",
            ["protocol"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "pellucid_request_seconds",
            "From a request's arrival to its response.",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "pellucid_queue_seconds",
            "What a request waited: for a worker, for the device, for a worker again.",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._compute_seconds = Histogram(
            "pellucid_compute_seconds",
            "From the launch of a job's first batch to its result.",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_rows = Histogram(
            "pellucid_batch_rows",
            "Rows in a batch, padding not counted.",
            ["model", "lane"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "pellucid_batch_seconds",
            "Device time of a batch.",
            ["model", "lane"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._depth = Gauge(
            "pellucid_queue_depth", "Jobs that wait or run.", registry=self.registry
        )
        self._queued_seconds = Gauge(
            "pellucid_queue_device_seconds",
            "Predicted device time of jobs that wait or run.",
            registry=self.registry,
        )

    def watch(self, admission: Admission) -> None:
        """Shows the queue as it is whenever the metrics are read."""
        self._depth.set_function(lambda: admission.depth)
        self._queued_seconds.set_function(lambda: admission.device_ms / 1e3)

    @contextmanager
    def request(self, method: Callable[[], str]) -> Iterator[None]:
        """Counts a request, and how it ends.

        Args:
            method: Its method, asked when it ends: over REST it is read meanwhile.
        """
        started_s = time.monotonic()
        reason = ""
        try:
            yield
        except PellucidError as error:
            reason = error.reason
            raise
        except asyncio.CancelledError:
            reason = Cancelled.reason
            raise
        except Exception:
            reason = Internal.reason
            raise
        finally:
            name = method()
            self._requests.labels(name).inc()
            if reason:
                self._errors.labels(name, reason).inc()
            self._request_seconds.labels(name).observe(time.monotonic() - started_s)

    def unauthenticated(self, protocol: str) -> None:
        """A call came without a token."""
        self._unauthenticated.labels(protocol).inc()

    def queued(self, method: str, queue_ms: float) -> None:
        """A request has waited for the last time."""
        self._queue_seconds.labels(method).observe(queue_ms / 1e3)

    def batch(self, batch: Batch, batch_ms: float) -> None:
        labels = (batch.key.model.name, batch.key.lane.value)
        self._batch_rows.labels(*labels).observe(len(batch.tickets))
        self._batch_seconds.labels(*labels).observe(batch_ms / 1e3)

    def ended(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            timing, method = job.timing, job.spec.method.name
            self._compute_seconds.labels(method).observe(timing.finished_s - timing.launched_s)
