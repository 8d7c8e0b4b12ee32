"""Threads for what is neither the loop's nor the device's: validation, decoding, rendering."""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .engine.job import Priority
from .errors import DeadlineExpired, Overloaded, Unavailable

_RETRY_DELAY_MS = 1000.0
"""When to come back if all places are taken: about a large rendering."""

_Returned = TypeVar("_Returned")


@dataclass(frozen=True, eq=False)
class _Task:
    function: Callable[[], Any]
    deadline_s: float
    future: "Future[Any]" = field(default_factory=Future)


class Workers:
    """Runs tasks by class, then by deadline, then in the order of their arrival.

    One thread more takes predictions only: none of them waits behind long renderings. A task
    that is cancelled is dropped at once; one whose deadline has passed is not begun.

    Args:
        thread_count: Threads that take tasks of every class; 0: tasks are predictions', one by one.
        most_waiting: Tasks of one class that may wait.
    """

    def __init__(self, thread_count: int, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._waiting: dict[Priority, dict[int, _Task]] = {priority: {} for priority in Priority}
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, args=(least,), name="worker", daemon=True)
            for least in (Priority.PREDICT, *[max(Priority)] * thread_count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, function: Callable[[], _Returned], priority: Priority, deadline_s: float
    ) -> "Future[_Returned]":
        """Has a function run.

        Args:
            function: What to run.
            priority: The class of the request that wants it.
            deadline_s: That of the request, by time.monotonic().

        Raises:
            Overloaded: Too many of its class wait.
            Unavailable: The threads have been told to end.
        """
        waiting = self._waiting[priority]
        task, number = _Task(function, deadline_s), next(self._numbers)
        with self._changed:
            if self._stopping:
                raise Unavailable("the server is stopping; another replica will answer")
            if len(waiting) >= self._most_waiting:
                raise Overloaded(
                    f"{self._most_waiting} requests wait to be read or rendered",
                    retry_delay_ms=_RETRY_DELAY_MS,
                )
            waiting[number] = task
            self._changed.notify_all()

        def drop(_: object) -> None:  # by its number: a future that keeps its task keeps itself
            with self._changed:
                waiting.pop(number, None)

        task.future.add_done_callback(drop)
        return task.future

    def shutdown(self) -> None:
        """Refuses what waits, finishes what runs, ends the threads."""
        with self._changed:
            self._stopping = True
            refused = [task for waiting in self._waiting.values() for task in waiting.values()]
            for waiting in self._waiting.values():
                waiting.clear()
            self._changed.notify_all()
        for task in refused:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(
                    Unavailable("the server is stopping; another replica will answer")
                )
        for thread in self._threads:
            thread.join()

    def _run(self, least: Priority) -> None:
        while self._run_next(least):
            pass

    def _run_next(self, least: Priority) -> bool:
        """Waits for a task of that class or a more urgent one and runs it; false at the end."""
        task = self._take(least)
        if task is None:
            return False
        if not task.future.set_running_or_notify_cancel():
            return True
        try:
            if task.deadline_s <= time.monotonic():
                raise DeadlineExpired("the deadline passed before the result was ready")
            task.future.set_result(task.function())
        except BaseException as error:
            task.future.set_exception(error)
        finally:
            del task  # or the error would keep, by its traceback, the future that keeps it
        return True

    def _take(self, least: Priority) -> _Task | None:
        with self._changed:
            while not self._stopping:
                for priority in Priority:
                    waiting = self._waiting[priority]
                    if priority <= least and waiting:
                        first = min(waiting, key=lambda n: (waiting[n].deadline_s, n))
                        return waiting.pop(first)
                self._changed.wait()
        return None
