"""Processes: bounded, cancelled by killing, one task's end not another's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pellucid_server import processes as pools
from pellucid_server.errors import (
    Cancelled,
    DeadlineExpired,
    Internal,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from pellucid_server.processes import Processes, Task

from tests.unit.server import chores

MOST_BYTES = 256 << 20
"""An interpreter takes a tenth of it."""


@pytest.fixture
def processes() -> Iterator[Processes]:
    pool = Processes(1, most_waiting=1, most_bytes=MOST_BYTES)
    yield pool
    pool.shutdown()


def submit(
    pool: Processes,
    function: Callable[..., Any],
    *arguments: Any,
    timeout_s: float = 60,
    **more: Any,
) -> Task:
    name = f"{function.__module__}:{function.__name__}"
    return pool.submit(name, arguments, time.monotonic() + timeout_s, **more)


def busy(pool: Processes, tmp_path: Path) -> tuple[Task, int]:
    """A task that stays, once it is under way, and the process that it is in."""
    here = threading.Event()
    task = submit(pool, chores.stay, str(tmp_path / "pid"), outlet=lambda _: here.set())
    assert here.wait(60)
    return task, int((tmp_path / "pid").read_text())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_is_returned_and_reported(processes: Processes) -> None:
    reports: list[Any] = []
    assert submit(processes, chores.add, 2, 3, outlet=reports.append).future.result(60) == 5
    assert reports == [("adding", 2), ("adding", 3)]


def test_another_process_without_torch_is_kept(processes: Processes) -> None:
    first, with_torch = submit(processes, chores.whoami).future.result(60)
    assert first != os.getpid()
    assert not with_torch
    assert submit(processes, chores.whoami).future.result(60)[0] == first


def test_an_error_stays_in_the_log(processes: Processes, caplog: pytest.LogCaptureFixture) -> None:
    pid, _ = submit(processes, chores.whoami).future.result(60)
    with pytest.raises(Internal) as caught:
        submit(processes, chores.fail).future.result(60)
    assert "chosen" not in str(caught.value)
    assert "chosen by the test" in caplog.text
    with pytest.raises(Internal):
        submit(processes, chores.fail_to_read).future.result(60)
    assert "read by the test" in caplog.text
    assert submit(processes, chores.whoami).future.result(60)[0] == pid


def test_a_crash_fails_its_own_task_alone(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    crashing, next_one = submit(processes, chores.die), submit(processes, chores.add, 1, 1)
    with pytest.raises(Internal):
        crashing.future.result(60)
    assert "ended amid its work, with 3" in caplog.text
    assert next_one.future.result(60) == 2


def refused(task: Task) -> str:
    with pytest.raises(OutOfMemory) as caught:
        task.future.result(60)
    return str(caught.value)


def test_memory_has_a_bound(processes: Processes) -> None:
    """What needs more fails, in the work or on the way back, and ends its process alone."""
    assert submit(processes, chores.fill, 150, False).future.result(60) is None
    assert "256 MiB at most" in refused(submit(processes, chores.fill, 300, False))
    assert "256 MiB at most" in refused(submit(processes, chores.fill, 150, True))
    assert "256 MiB at most" in refused(submit(processes, chores.fill_bit_by_bit))
    assert "256 MiB at most" in refused(submit(processes, chores.run_out))
    assert "256 MiB at most" in refused(submit(processes, chores.reserve, 512))
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3


def test_what_does_not_fit_when_it_comes_ends_the_process_alone(processes: Processes) -> None:
    pid, _ = submit(processes, chores.whoami).future.result(60)
    assert "256 MiB at most" in refused(submit(processes, chores.take, bytes(MOST_BYTES)))
    assert gone(pid)
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3


def test_a_process_that_the_kernel_kills_was_too_large(processes: Processes) -> None:
    assert "the system ended its process" in refused(submit(processes, chores.be_killed))
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3


def test_a_process_that_ended_in_between_fails_nothing(processes: Processes) -> None:
    """As the system ends one that waits, where memory is short."""
    pid, _ = submit(processes, chores.whoami).future.result(60)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3


def test_an_outlet_that_fails_ends_its_own_task_alone(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(report: Any) -> None:
        raise RuntimeError("the loop is closed")

    with pytest.raises(Internal):
        submit(processes, chores.add, 1, 2, outlet=fail).future.result(60)
    assert "the loop is closed" in caplog.text
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3


def test_an_exit_is_no_lack_of_memory(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Internal):
        submit(processes, chores.leave).future.result(60)
    # Nor is what the pool does to one that will not end.
    monkeypatch.setattr("pellucid_server.processes._ENDING_S", 0.2)
    with pytest.raises(Internal):
        submit(processes, chores.end_slowly).future.result(60)


def test_cancelling_kills_and_another_takes_its_place(processes: Processes, tmp_path: Path) -> None:
    task, pid = busy(processes, tmp_path)
    processes.cancel(task)
    with pytest.raises(Cancelled):
        task.future.result(60)
    assert gone(pid)
    other, _ = submit(processes, chores.whoami).future.result(60)
    assert other != pid
    processes.cancel(task)  # which has ended: nothing
    assert submit(processes, chores.whoami).future.result(60)[0] == other


def begun_when_told(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Says when a process is being begun, and lets it once the other is set."""
    beginning, let = threading.Event(), threading.Event()

    class Slow(pools._Process):
        def __init__(self, most_bytes: int) -> None:
            beginning.set()
            assert let.wait(60)
            super().__init__(most_bytes)

    monkeypatch.setattr(pools, "_Process", Slow)
    return beginning, let


def test_cancelling_while_a_process_is_begun(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning, let = begun_when_told(monkeypatch)
    task = submit(processes, chores.stay, str(tmp_path / "pid"))
    assert beginning.wait(60)
    processes.cancel(task)
    let.set()
    with pytest.raises(Cancelled):
        task.future.result(60)
    assert submit(processes, chores.add, 1, 2).future.result(60) == 3
    assert not (tmp_path / "pid").exists()


def test_closing_while_a_process_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beginning, let = begun_when_told(monkeypatch)
    pool = Processes(1, most_waiting=1, most_bytes=MOST_BYTES)
    task = submit(pool, chores.stay, str(tmp_path / "pid"))
    assert beginning.wait(60)
    closing = threading.Thread(target=pool.shutdown)
    closing.start()
    while not pool._stopping:
        time.sleep(0.001)
    let.set()
    with pytest.raises(Unavailable):
        task.future.result(60)
    closing.join(60)
    assert not (tmp_path / "pid").exists()


def test_the_queue_is_bounded(processes: Processes, tmp_path: Path) -> None:
    task, _ = busy(processes, tmp_path)
    processes.check_room()
    waiting = submit(processes, chores.add, 1, 2)
    with pytest.raises(Overloaded) as caught:
        submit(processes, chores.add, 1, 2)
    assert caught.value.retry_delay_ms
    with pytest.raises(Overloaded):
        processes.check_room()
    processes.cancel(waiting)
    with pytest.raises(Cancelled):
        waiting.future.result(60)
    late = submit(processes, chores.add, 1, 2, timeout_s=-1)
    processes.cancel(task)
    with pytest.raises(DeadlineExpired):
        late.future.result(60)


def test_closing_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    pool = Processes(1, most_waiting=1, most_bytes=MOST_BYTES)
    task, pid = busy(pool, tmp_path)
    waiting = submit(pool, chores.add, 1, 2)
    pool.shutdown()
    assert gone(pid)
    for one in (task, waiting):
        with pytest.raises(Unavailable):
            one.future.result(60)
    with pytest.raises(Unavailable):
        submit(pool, chores.add, 1, 2)


SERVER = """
import sys, time
from pellucid_server.processes import Processes
pool, stay = Processes(1, most_waiting=1, most_bytes=1 << 28), "tests.unit.server.chores:stay"
tell = lambda _: print("here", flush=True)
pool.submit(stay, (sys.argv[1],), time.monotonic() + 600, tell).future.result()
"""


def test_a_process_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """It has the server's output, which ends once both have."""
    started = tmp_path / "pid"
    server = subprocess.Popen([sys.executable, "-c", SERVER, started], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"here\n"
        server.kill()
        assert server.communicate(timeout=30)[0] == b""
    except BaseException:
        server.kill()
        os.kill(int(started.read_text()), signal.SIGKILL)
        raise
