"""`pellucid explain DIR` on a real server: bad photos, a run that is killed, and the one after."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.harness import PHOTOS, photo

COUNT = 200
BROKEN = (3, 50, 99, 150, 199)


def crops(folder: Path) -> None:
    """Small crops of free photos; some of the files are no photos."""
    draws = np.random.default_rng(0)
    for number in range(COUNT):
        source = photo(PHOTOS[number % len(PHOTOS)])
        y, x = (int(draws.integers(0, side - 100)) for side in source.shape[:2])
        file = folder / f"{number:03}.jpg"
        if number in BROKEN:
            file.write_bytes(b"\xff\xd8\xff no photo")
        else:
            Image.fromarray(source[y : y + 100, x : x + 100]).save(file)


def test_two_hundred_photos_five_of_them_broken_in_two_runs(served: Any, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "why"
    photos.mkdir()
    crops(photos)
    command = [sys.executable, "-m", "pellucid", "explain", str(photos), "-o", str(output)]
    command += ["--method", "grad_cam", "--longest-side-px", "64", "--concurrency", "4"]
    environment = os.environ | {"PELLUCID_SERVER": served.grpc}
    manifest = output / "manifest.jsonl"
    with subprocess.Popen(command, env=environment) as first:
        until_s = time.monotonic() + 120
        while not manifest.is_file() or manifest.read_bytes().count(b"\n") < 40:
            assert time.monotonic() < until_s
            assert first.poll() is None
            time.sleep(0.01)
        first.kill()
    before = manifest.read_text().rpartition("\n")[0].splitlines()
    assert 40 <= len(before) < COUNT
    done = [json.loads(line) for line in before]
    kept = output / next(entry["picture"] for entry in done if "picture" in entry)
    written_ns = kept.stat().st_mtime_ns

    second = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert second.returncode == 1, second.stderr
    lines = manifest.read_text().splitlines()
    assert lines[: len(before)] == before  # nothing was done again
    assert kept.stat().st_mtime_ns == written_ns
    entries = {entry["photo"]: entry for entry in map(json.loads, lines)}
    assert len(lines) == len(entries) == COUNT
    failed = {name: entry["error"] for name, entry in entries.items() if "error" in entry}
    assert set(failed) == {f"{number:03}.jpg" for number in BROKEN}
    assert {error["code"] for error in failed.values()} == {"INVALID_ARGUMENT"}
    assert all(name in second.stdout for name in failed)
    assert f"195 explained, 5 failed, {len(before)} of all in earlier runs" in second.stdout
    pictures = sorted(path.name for path in output.glob("*.jpg"))
    assert pictures == sorted(set(entries) - set(failed))
    with Image.open(output / entries["000.jpg"]["picture"]) as picture:
        assert picture.size[0] == 64
    assert all(entry["target"] for name, entry in entries.items() if name not in failed)

    third = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "195 explained, 5 failed, 200 of all in earlier runs" in third.stdout
    assert manifest.read_text().splitlines() == lines
