"""`pellucid load` in a process of its own, against a real server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram


def started(served: Any, photo: Path, json_file: Path, *flags: str) -> subprocess.Popen[str]:
    options = ["--mix=predict=3", "--mix=occlusion=1", "-p", "occlusion.window_px=48"]
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", "load", photo, f"--json={json_file}", *options, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PELLUCID_SERVER": served.grpc},
    )


def test_a_short_load(served: Any, cat_jpg: Path, tmp_path: Path) -> None:
    flags = ("--rate=15", "--duration-s=2", "--warm-up-s=0.5", "--timeout-s=30", "--seed=1")
    process = started(served, cat_jpg, tmp_path / "out.json", *flags)
    told, wrong = process.communicate(timeout=120)
    assert process.returncode == 0, wrong
    written = json.loads((tmp_path / "out.json").read_text())
    figures = written["all"]
    assert written["server"]["model"] == "efficientnet_lite0"
    assert figures["offered"] == figures["answered"] > 10
    assert not figures["refused"] and not figures["missed"] and not figures["errors"]
    assert figures["request_bytes"] > figures["offered"] * cat_jpg.stat().st_size
    latencies = HdrHistogram.decode(figures["histogram"].encode())
    assert latencies.get_total_count() == figures["answered"]
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["max"]
    assert str(figures["answered"]) in told
    assert "occlusion" in told
    assert wrong == ""


def test_an_interrupt_ends_it_early(served: Any, cat_jpg: Path, tmp_path: Path) -> None:
    metrics = served.server._metrics.registry

    def count() -> float:
        labels = {"method": "predict"}
        return metrics.get_sample_value("pellucid_requests_total", labels) or 0.0

    before = count()
    flags = ("--concurrency=2", "--duration-s=100", "--warm-up-s=0")
    process = started(served, cat_jpg, tmp_path / "out.json", *flags)
    while count() < before + 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, wrong = process.communicate(timeout=60)
    assert process.returncode == 0, wrong
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["interrupted"] is True
    assert written["measured_s"] < 60
    assert written["all"]["answered"] > 0
    assert "by an interrupt" in told
    assert "Traceback" not in wrong
