"""Processes for long work on the CPU alone: maps, assignments.

Each is an interpreter of its own that never loads torch, one thread wide. It is begun when it is
first needed, and killed to cancel what it does; another takes its place. It does not outlive the
server, however that ends, and it has memory of its own size: what needs more fails alone.
"""

import contextlib
import ctypes
import errno
import functools
import importlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from .errors import (
    Cancelled,
    DeadlineExpired,
    Internal,
    OutOfMemory,
    Overloaded,
    PellucidError,
    Unavailable,
)

log = logging.getLogger(__name__)

_RETRY_DELAY_MS = 5000.0
"""When to come back if all places are taken: about a map of a thousand points."""

_NICENESS = 5
"""Below the engine, which answers within milliseconds."""

_ENDING_S = 5.0
"""How long a process may take to end once nobody hears from it."""

_OUT_OF_MEMORY = 77
"""What a process ends with that ran out of memory, wherever it was."""

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets once the thread that began it has ended."""

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""Sums of several threads would not be the same each time."""

Report = Callable[[Any], None]
"""Tells how far work is; it gets what the outlet is handed."""

Work = str
"""A function, as MODULE:NAME, which gets its arguments and a Report. The server itself need not
load its module."""


@dataclass(eq=False)
class Task:
    """Work that waits or runs. Its future ends with what the function returned, or an error.

    Attributes:
        outlet: Gets what is reported, on a thread of the pool's.
    """

    function: Work
    arguments: tuple[Any, ...]
    deadline_s: float
    outlet: Report
    number: int
    future: "Future[Any]" = field(default_factory=Future)
    cancelled: bool = False


class Processes:
    """Runs tasks in processes, in the order of their deadlines.

    Args:
        count: Processes, and tasks at once.
        most_waiting: Tasks that may wait beside.
        most_bytes: Memory that a process may write to, on Linux: its interpreter and libraries,
            what it is sent and what it computes with.
    """

    def __init__(self, count: int, most_waiting: int, most_bytes: int) -> None:
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes
        self._waiting: set[Task] = set()
        self._running: dict[Task, _Process | None] = {}  # None: its process is being begun
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name="process", daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def check_room(self) -> None:
        """Refuses what could not be taken in now, before anything of it is read.

        Raises:
            Overloaded: Too many wait.
            Unavailable: The processes have been told to end.
        """
        with self._changed:
            self._check_room()

    def submit(
        self,
        function: Work,
        arguments: tuple[Any, ...],
        deadline_s: float,
        outlet: Report = lambda _: None,
    ) -> Task:
        """Has a function run.

        Args:
            function: What to run; its module must not load torch.
            arguments: Its arguments, less the last one.
            deadline_s: Of the request, by time.monotonic(); whoever waits cancels by then.
            outlet: See Task.

        Raises:
            Overloaded, Unavailable: See check_room.
        """
        task = Task(function, arguments, deadline_s, outlet, next(self._numbers))
        task.future.set_running_or_notify_cancel()  # cancelling is the pool's
        with self._changed:
            self._check_room()
            self._waiting.add(task)
            self._changed.notify()
        return task

    def cancel(self, task: Task) -> None:
        """Ends a task now; nothing where it has ended."""
        with self._changed:
            if task in self._waiting:
                self._waiting.remove(task)
                task.future.set_exception(Cancelled("the caller went away"))
            elif task in self._running:
                self._interrupt(task)

    def shutdown(self) -> None:
        """Refuses what waits, ends what runs."""
        with self._changed:
            self._stopping = True
            refused, self._waiting = self._waiting, set()
            for task in self._running:
                self._interrupt(task)
            self._changed.notify_all()
        for task in refused:
            task.future.set_exception(_stopping())
        for thread in self._threads:
            thread.join()

    def _interrupt(self, task: Task) -> None:
        """Ends what runs: at once, or as soon as its process has been begun."""
        task.cancelled = True
        process = self._running[task]
        if process is not None:
            process.kill()

    def _check_room(self) -> None:
        if self._stopping:
            raise _stopping()
        # As many as there are processes are about to be taken, though no thread has come to it.
        places = self._most_waiting + len(self._threads)
        if len(self._waiting) + len(self._running) >= places:
            raise Overloaded(
                f"{len(self._waiting) + len(self._running)} maps are made or wait to be",
                retry_delay_ms=_RETRY_DELAY_MS,
            )

    def _run(self) -> None:
        """A thread's life: one process after another, one task after another."""
        with contextlib.ExitStack() as opened:
            process: _Process | None = None
            while (task := self._take()) is not None:
                if task.deadline_s <= time.monotonic():
                    self._end(task, DeadlineExpired("the deadline passed while it waited"))
                    continue
                if process is None or not process.alive:
                    opened.close()
                    try:
                        process = opened.enter_context(
                            contextlib.closing(_Process(self._most_bytes))
                        )
                    except OSError:
                        log.exception("a process could not be begun")
                        self._end(task, Internal())
                        continue
                self._do(task, process)
                del task

    def _take(self) -> Task | None:
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            task = min(self._waiting, key=lambda one: (one.deadline_s, one.number))
            self._waiting.remove(task)
            self._running[task] = None
            return task

    def _do(self, task: Task, process: "_Process") -> None:
        with self._changed:
            begun = not task.cancelled
            if begun:
                self._running[task] = process
        if not begun:
            self._end(task, self._interrupted())
            return
        outcome: Any = Internal()
        ended = False
        try:
            outcome = process.do(task.function, task.arguments, task.outlet)
        except _Failed as failed:
            log.error("work in a process failed\n%s", failed)
        except (EOFError, OSError):
            ended = True
        except Exception:  # of this side: what the process is at is not known
            log.exception("work in a process was given up")
            process.close()
        with self._changed:  # from here on nobody kills the process for this task's sake
            self._running[task] = None
        if task.cancelled:
            process.close()
            outcome = self._interrupted()
        elif ended:
            status = process.ended()
            log.error("a process ended amid its work, with %s", status)
            if status == _OUT_OF_MEMORY:
                outcome = OutOfMemory(
                    "it needs more memory than the server gives a map, "
                    f"{self._most_bytes >> 20} MiB at most: fewer or shorter codes need less"
                )
            elif status == -signal.SIGKILL:
                outcome = OutOfMemory(
                    "the system ended its process, as it does where memory is short: fewer or "
                    "shorter codes need less"
                )
        self._end(task, outcome)

    def _interrupted(self) -> PellucidError:
        return _stopping() if self._stopping else Cancelled("the caller went away")

    def _end(self, task: Task, outcome: Any) -> None:
        with self._changed:
            del self._running[task]
        if isinstance(outcome, Exception):
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)


class _Failed(Exception):
    """A function raised an error, whose traceback it is."""


class _Process:
    """An interpreter that does one thing after another.

    It is no child of multiprocessing's, which would run the server's main module again there.
    """

    def __init__(self, most_bytes: int) -> None:
        own, other = socket.socketpair()
        path = os.pathsep.join(one for one in sys.path if one)
        with other:
            numbers = other.fileno(), os.getpid(), most_bytes
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", __name__, *map(str, numbers)],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            )
        self._connection = Connection(own.detach())

    @property
    def alive(self) -> bool:
        """Whether it may be given work; the system can have ended it since the last."""
        return not self._connection.closed and self._process.poll() is None

    def do(self, function: Work, arguments: tuple[Any, ...], outlet: Report) -> Any:
        """What a function returns.

        Raises:
            EOFError, OSError: The process has ended.
            _Failed: The function raised an error.
            Exception: What it was to be sent, or sent, or an outlet, made one.
        """
        self._connection.send((function, arguments))
        while True:
            kind, value = self._connection.recv()
            if kind == "report":
                outlet(value)
            elif kind == "returned":
                return value
            else:
                raise _Failed(value)

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> int | None:
        """What it ended with by itself; None: it had to be ended."""
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_ENDING_S)
        self.close()
        return status

    def close(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._connection.close()
        self._process.wait()


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; another replica will answer")


def _serve(descriptor: int, server: int, most_bytes: int) -> None:
    """The process's side: does what it is sent until nobody is there."""
    _end_with(server)
    _bound_memory(most_bytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the server decides
    os.nice(_NICENESS)
    connection = Connection(descriptor)

    def tell(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except OSError:
            sys.exit()  # nobody is there

    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = connection.recv()
            try:
                module, _, name = function.partition(":")
                work = getattr(importlib.import_module(module), name)
                value = work(*arguments, functools.partial(tell, "report"))
                tell("returned", value)
                del value
            except MemoryError:
                raise
            except Exception as error:  # the server logs it, and the process goes on
                if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                    raise MemoryError from error
                tell("failed", traceback.format_exc())
            del arguments


def _bound_memory(most_bytes: int) -> None:
    """Has this process get MemoryError for more; on Linux, elsewhere it can take what there is.

    What counts is memory of its own that it may write to, threads' stacks among it; libraries that
    are mapped do not, nor what heaps reserve for later.
    """
    if sys.platform == "linux":
        import resource  # which not every platform has

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        if most != resource.RLIM_INFINITY:
            most_bytes = min(most_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def _end_with(server: int) -> None:
    """Has this process killed with the server, amid whatever it does.

    Elsewhere than on Linux it ends once it has done what it is at.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # which ended before it was asked for
            sys.exit()


if __name__ == "__main__":
    try:
        _serve(*map(int, sys.argv[1:]))
    except MemoryError:  # there may be none to say so with, and a message may have been cut off
        os._exit(_OUT_OF_MEMORY)
