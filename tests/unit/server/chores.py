"""What tests have processes do: found by its module there, as the server's own work is."""

import os
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


def run_out(report: Report) -> None:
    raise MemoryError


def die(report: Report) -> None:
    os._exit(3)


def stay(started: str, report: Report) -> None:
    """For ever, as far as a test is concerned."""
    Path(started).write_text(str(os.getpid()))
    report("here")
    time.sleep(600)
