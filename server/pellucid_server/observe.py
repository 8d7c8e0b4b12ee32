"""Metrics: one observer that the engine, the service and its edges call."""

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .engine.admission import Admission
from .engine.engine import Outcome
from .engine.job import Done, Job
from .engine.schedule import Batch
from .errors import Cancelled, Internal, PellucidError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass
class Total:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds


@dataclass
class Counts:
    """What became of one model's jobs since the server started.

    Attributes:
        success: Jobs that were answered, from their arrival to their result.
        fail: Jobs that were admitted and not answered.
        queue: What those that were answered waited: for a worker to decode, for the device.
        decode: Their decoding and preprocessing.
        compute: From the launch of their first batch to their result.
        batches: Device time, by bucket size.
        last_success_ms: When one was last answered, milliseconds since 1970 began; 0: never.
    """

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    decode: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    batches: dict[int, Total] = field(default_factory=dict)
    last_success_ms: int = 0


class Metrics:
    """Prometheus metrics, in base units, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counts: dict[str, Counts] = {}
        self._counting = threading.Lock()
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
        self._video_frames = Counter(
            "pellucid_video_frames",
            "Frames of video, by what became of them: stylized, dropped, failed or left.",
            ["outcome"],
            registry=self.registry,
        )
        self._video_streams = Gauge(
            "pellucid_video_streams", "Streams of video under way.", registry=self.registry
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

    @contextmanager
    def video(self) -> Iterator[None]:
        """A stream of video is under way."""
        with self._video_streams.track_inprogress():
            yield

    def video_frame(self, outcome: str) -> None:
        """What became of a frame: stylized, dropped, failed, or left by a stream that ended."""
        self._video_frames.labels(outcome).inc()

    def batch(self, batch: Batch, batch_ms: float) -> None:
        labels = (batch.key.model.name, batch.key.lane.value)
        self._batch_rows.labels(*labels).observe(len(batch.tickets))
        self._batch_seconds.labels(*labels).observe(batch_ms / 1e3)
        with self._counted(batch.key.model.name) as counts:
            counts.batches.setdefault(batch.bucket_size, Total()).add(batch_ms / 1e3)

    def ended(self, job: Job, outcome: Outcome) -> None:
        timing = job.timing
        with self._counted(job.spec.model.name) as counts:
            if not isinstance(outcome, Done):
                counts.fail.add(time.monotonic() - timing.submitted_s)
                return
            counts.success.add(timing.finished_s - timing.submitted_s)
            counts.queue.add(
                timing.decode_started_s - timing.submitted_s + timing.launched_s - timing.ready_s
            )
            counts.decode.add(timing.ready_s - timing.decode_started_s)
            counts.compute.add(timing.finished_s - timing.launched_s)
            counts.last_success_ms = time.time_ns() // 1_000_000
        compute_s = timing.finished_s - timing.launched_s
        self._compute_seconds.labels(job.spec.method.name).observe(compute_s)

    def counts_of(self, model: str) -> Counts:
        """What became of a model's jobs so far."""
        with self._counted(model) as counts:
            return copy.deepcopy(counts)

    @contextmanager
    def _counted(self, model: str) -> Iterator[Counts]:
        """A model's counts, while no other thread has them."""
        with self._counting:
            yield self._counts.setdefault(model, Counts())
