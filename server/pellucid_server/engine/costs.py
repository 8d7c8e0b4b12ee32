"""What batches cost on the device: measured at warm-up, corrected by every batch since."""

import math
import threading
from collections.abc import Mapping, Sequence

from .rows import Lane

_CORRECTION = 0.1
"""Weight of a new measurement in the running mean."""


class Costs:
    """Milliseconds a batch for each lane and bucket of one model. Safe between threads.

    Args:
        buckets: The batch sizes that are padded to, ascending.
        iteration_budget_ms: Buckets that take longer are not chosen, except the smallest.
    """

    def __init__(self, buckets: Sequence[int], iteration_budget_ms: float) -> None:
        self.buckets = tuple(buckets)
        self._iteration_budget_ms = iteration_budget_ms
        self._batch_ms: dict[tuple[Lane, int], float] = {}
        self._cap = dict.fromkeys(Lane, self.buckets[-1])
        self._lock = threading.Lock()

    def record(self, lane: Lane, bucket_size: int, batch_ms: float) -> None:
        """Takes a measurement of one batch."""
        with self._lock:
            known = self._batch_ms.get((lane, bucket_size), batch_ms)
            self._batch_ms[lane, bucket_size] = known + _CORRECTION * (batch_ms - known)

    def cap(self, lane: Lane, bucket_size: int) -> None:
        """Memory ran out at this bucket: only smaller ones are chosen from now on."""
        smaller = [bucket for bucket in self.buckets if bucket < bucket_size]
        with self._lock:
            self._cap[lane] = min(self._cap[lane], smaller[-1] if smaller else self.buckets[0])

    def snapshot(self) -> Mapping[tuple[Lane, int], float]:
        """Milliseconds a batch, by lane and bucket, as far as they were measured."""
        with self._lock:
            return dict(self._batch_ms)

    def bucket_for(self, lane: Lane, row_count: int, scale: float = 1.0) -> int:
        """The bucket that costs least for each of the waiting rows that it takes.

        Args:
            lane: Theirs.
            row_count: How many there are.
            scale: What each costs, relative to one of the model's own size.
        """
        with self._lock:
            return self._bucket_for(lane, row_count, scale)

    def predict_ms(self, lane: Lane, row_count: int, bucket_size: int | None) -> float:
        """What rows will cost, padding included.

        Args:
            lane: Their lane.
            row_count: How many.
            bucket_size: The bucket that the request fixed, if any.
        """
        total_ms = 0.0
        with self._lock:
            while row_count > 0:
                bucket = bucket_size or self._bucket_for(lane, row_count)
                batches = max(1, row_count // bucket)
                total_ms += batches * self._ms(lane, bucket)
                row_count -= batches * bucket
        return total_ms

    def shared_ms(self, lane: Lane, bucket_size: int | None) -> float:
        """What a row costs in a batch that rows of many requests fill; see predict_ms."""
        with self._lock:
            bucket = bucket_size or self._bucket_for(lane, self.buckets[-1])
            return self._ms(lane, bucket) / bucket

    def _bucket_for(self, lane: Lane, row_count: int, scale: float = 1.0) -> int:
        smallest, budget_ms = self.buckets[0], self._iteration_budget_ms / scale
        allowed = [
            bucket
            for bucket in self.buckets
            if bucket == smallest
            or (bucket <= self._cap[lane] and self._ms(lane, bucket) <= budget_ms)
        ]
        return min(allowed, key=lambda b: (self._ms(lane, b) / min(b, row_count), -b))

    def _ms(self, lane: Lane, bucket: int) -> float:
        """The measured cost; a bucket not measured is taken to be no better than its kin."""
        measured = self._batch_ms.get((lane, bucket))
        if measured is not None:
            return measured
        row_ms = [ms / b for (of, b), ms in self._batch_ms.items() if of is lane]
        return bucket * min(row_ms, default=math.ulp(1.0))
