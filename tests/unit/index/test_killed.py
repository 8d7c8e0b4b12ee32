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
import sys
from pathlib import Path
from pellucid_server.index.build import build
from tests.unit.index.conftest import options, resnet

photos, folder = map(Path, sys.argv[1:])
on = resnet()
build(
    on, options(on), photos, sorted(photos.iterdir()), folder,
    lambda done, count: print(done, flush=True),
)
"""


def test_a_kill_loses_at_most_a_batch(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "index"
    paths = crops(photos, 40)
    command = [sys.executable, "-c", SCRIPT, str(photos), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = 0
        while told < 3 * BATCH:
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = max([told, *map(int, process.stdout.read().split())])
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
    assert shown == list(range(resumed.earlier_count, len(paths) + 1, BATCH))
    whole = build(on, options(on), photos, paths, tmp_path / "whole")
    assert resumed.about == whole.about
