"""The worker pool: who goes first, who is dropped, what is bounded."""

import gc
import math
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from pellucid_server.engine.job import Priority
from pellucid_server.errors import DeadlineExpired, Overloaded, Unavailable
from pellucid_server.workers import Workers

PREDICT, EXPLAIN, OPTIMIZE = Priority
NEVER_S = math.inf


class Busy:
    """Workers whose every thread stands still until they are let go."""

    def __init__(self, most_waiting: int = 100) -> None:
        self.workers = Workers(1, most_waiting)
        self.go_on = threading.Event()
        self.ran: list[str] = []
        for priority in (EXPLAIN, PREDICT):  # the general thread first: it may take either
            self.hold(priority)

    def hold(self, priority: Priority) -> None:
        standing = threading.Event()

        def stand() -> None:
            standing.set()
            self.go_on.wait(60)

        self.workers.submit(stand, priority, NEVER_S)
        assert standing.wait(60)

    def add(self, name: str, priority: Priority, deadline_s: float = NEVER_S):
        return self.workers.submit(lambda: self.ran.append(name), priority, deadline_s)


@pytest.fixture
def busy() -> Iterator[Busy]:
    made = Busy()
    yield made
    made.go_on.set()
    made.workers.shutdown()


def test_a_function_is_run() -> None:
    workers = Workers(1, 1)
    assert workers.submit(lambda: 7, EXPLAIN, NEVER_S).result(60) == 7
    failing = workers.submit(lambda: 1 / 0, PREDICT, NEVER_S)
    with pytest.raises(ZeroDivisionError):
        failing.result(60)
    workers.shutdown()


def test_classes_go_before_deadlines_and_deadlines_before_arrival(busy: Busy) -> None:
    late = time.monotonic() + 1000
    last = [
        busy.add("dream", OPTIMIZE, late - 500),
        busy.add("explain 1", EXPLAIN),
        busy.add("explain 2", EXPLAIN),
        busy.add("urgent", EXPLAIN, late),
    ]
    busy.go_on.set()
    for future in last:
        future.result(60)
    assert busy.ran == ["urgent", "explain 1", "explain 2", "dream"]


def test_predictions_wait_for_no_rendering() -> None:
    workers, go_on = Workers(2, 100), threading.Event()
    renderings = [workers.submit(lambda: go_on.wait(60), EXPLAIN, NEVER_S) for _ in range(20)]
    assert workers.submit(lambda: 7, PREDICT, NEVER_S).result(10) == 7
    assert not any(rendering.done() for rendering in renderings)
    go_on.set()
    workers.shutdown()


def test_what_is_cancelled_leaves_at_once(busy: Busy) -> None:
    class Image:
        pass

    image = Image()
    gone = weakref.ref(image)
    future = busy.workers.submit(lambda image=image: image, EXPLAIN, NEVER_S)
    del image
    assert future.cancel()
    del future
    gc.collect()
    assert gone() is None


def test_what_has_expired_is_not_begun(busy: Busy) -> None:
    expired = busy.add("late", EXPLAIN, time.monotonic() + 0.01)
    time.sleep(0.02)
    busy.go_on.set()
    with pytest.raises(DeadlineExpired):
        expired.result(60)
    assert busy.ran == []


def test_each_class_has_a_bound() -> None:
    busy = Busy(most_waiting=2)
    first = [busy.add("explain", EXPLAIN) for _ in range(2)]
    with pytest.raises(Overloaded) as caught:
        busy.add("explain", EXPLAIN)
    assert caught.value.retry_delay_ms == 1000.0
    busy.add("predict", PREDICT)
    first[0].cancel()
    busy.add("explain", EXPLAIN)
    busy.go_on.set()
    busy.workers.shutdown()


def test_nothing_waits_for_ever() -> None:
    busy = Busy()
    waiting = busy.add("explain", EXPLAIN)
    ending = threading.Thread(target=busy.workers.shutdown)
    ending.start()
    with pytest.raises(Unavailable):
        waiting.result(60)
    busy.go_on.set()
    ending.join()
    with pytest.raises(Unavailable):
        busy.add("explain", EXPLAIN)
