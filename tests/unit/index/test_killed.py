"""A process that is killed in the middle loses what it was at, and no more."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pellucid_server.index.build import build
from pellucid_server.index.folder import Index
from pellucid_server.index.manifest import BadIndex

from tests.harness import crops
from tests.unit.index.conftest import options, resnet

BATCH = 4

SCRIPT = """
import sys, time
from pathlib import Path
from pellucid_server.index.build import build
from pellucid_server.index.peaks import Peaks
from pellucid_server.index.progress import Progress
from tests.unit.index.conftest import options, resnet

photos, folder = map(Path, sys.argv[1:])
program, add = Peaks.program, Progress.add

def counted(self, *given):
    made = yield from program(self, *given)
    print("run", flush=True)
    return made

def slow(self, brought):
    time.sleep(0.3)  # in which others would be run
    add(self, brought)

Peaks.program, Progress.add = counted, slow
on = resnet()
build(
    on, options(on), photos, sorted(photos.iterdir()), folder,
    lambda done, count: print(done, flush=True),
)
"""


def test_a_kill_loses_at_most_a_batch(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "index"
    paths = crops(photos, 24)
    command = [sys.executable, "-c", SCRIPT, str(photos), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while str(2 * BATCH) not in lines:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            lines.append(line.strip())
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().split()
        told = max(int(line) for line in lines if line != "run")
    assert process.returncode == -signal.SIGKILL
    if told == len(paths):
        pytest.fail("it was done before it could be killed")
    with pytest.raises(BadIndex, match="half-written"):
        Index(folder)
    shown: list[int] = []
    on = resnet()
    resumed = build(on, options(on), photos, paths, folder, lambda done, count: shown.append(done))
    # What was told was committed; a batch more may have been, and was not told.
    assert resumed.earlier_count in (told, told + BATCH)
    assert 0 <= lines.count("run") - resumed.earlier_count // BATCH <= 1
    assert shown == list(range(resumed.earlier_count, len(paths) + 1, BATCH))
    whole = build(on, options(on), photos, paths, tmp_path / "whole")
    assert resumed.about == whole.about
