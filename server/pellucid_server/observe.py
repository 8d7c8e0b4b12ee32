"""Metrics: one observer that the engine and the service call."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
        self._request_seconds = Histogram(
            "pellucid_request_seconds",
            "From a request's arrival to its response.",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "pellucid_queue_seconds",
            "From a job's readiness to the launch of its first batch.",
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

    @contextmanager
    def request(self, method: str) -> Iterator[None]:
        """Counts a request, and how it ends."""
        self._requests.labels(method).inc()
        started_s = time.monotonic()
        try:
            yield
        except PellucidError as error:
            self._errors.labels(method, error.reason).inc()
            raise
        except asyncio.CancelledError:
            self._errors.labels(method, Cancelled.reason).inc()
            raise
        except Exception:
            self._errors.labels(method, Internal.reason).inc()
            raise
        finally:
            self._request_seconds.labels(method).observe(time.monotonic() - started_s)

    def batch(self, batch: Batch, batch_ms: float) -> None:
        labels = (batch.key.model.name, batch.key.lane.value)
        self._batch_rows.labels(*labels).observe(len(batch.tickets))
        self._batch_seconds.labels(*labels).observe(batch_ms / 1e3)

    def ended(self, job: Job, outcome: Outcome) -> None:
        if isinstance(outcome, Done):
            timing, method = job.timing, job.spec.method.name
            self._queue_seconds.labels(method).observe(timing.launched_s - timing.ready_s)
            self._compute_seconds.labels(method).observe(timing.finished_s - timing.launched_s)

    def queue(self, depth: int, device_ms: float) -> None:
        self._depth.set(depth)
        self._queued_seconds.set(device_ms / 1e3)
