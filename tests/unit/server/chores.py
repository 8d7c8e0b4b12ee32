"""What tests have processes do: found by its module there, as the server's own work is."""

import atexit
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = Callable[[Any], None]


def add(a: int, b: int, report: Report) -> int:
    report(("adding", a))
    report(("adding", b))
    return a + b


def whoami(report: Report) -> tuple[int, bool]:
    return os.getpid(), "torch" in sys.modules


def fail(report: Report) -> None:
    raise ValueError("chosen by the test")


def fail_to_read(report: Report) -> None:
    raise FileNotFoundError("read by the test")


def run_out(report: Report) -> None:
    raise MemoryError


def reserve(mebibytes: int, report: Report) -> None:
    mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE)


def fill(mebibytes: int, give_back: bool, report: Report) -> list[bytes] | None:
    """Takes so much memory, of which most systems would give it more at once."""
    kept = [b"x" * (1 << 20) for _ in range(mebibytes)]
    return kept if give_back else None


def fill_bit_by_bit(report: Report) -> None:
    """Until nothing is left even for the smallest object."""
    kept: Any = None
    while True:
        kept = (kept,)


def end_slowly(report: Report) -> None:
    """Breaks the connection, and takes its time."""
    atexit.register(time.sleep, 600)
    sys.exit()


def take(given: bytes, report: Report) -> int:
    return len(given)


def be_killed(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(report: Report) -> None:
    sys.exit(4)


def die(report: Report) -> None:
    os._exit(3)


def stay(started: str, report: Report) -> None:
    """For ever, as far as a test is concerned."""
    Path(started).write_text(str(os.getpid()))
    report("here")
    time.sleep(600)
