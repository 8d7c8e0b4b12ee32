"""A prediction with its gradient over the gradient alone, and over the two calls one by one.

The service runs in a process of its own, called over gRPC by one caller with a photo's bytes; the
three are measured in turn, and the medians of a turn's ratios are printed. Aim: at most 1.15 of
the gradient alone, with the same outputs, a rendering on the photo among them.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
from rich.console import Console
from rich.progress import track
from rich.table import Table

from examples.local import server, wait_until_ready
from tests.bench.__main__ import processor

PHOTO = Path(__file__).parents[2] / "examples" / "cat.jpg"
AIM = 1.15


def milliseconds(run: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    run()
    return (time.perf_counter() - started_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attached", description=__doc__)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    photo, console = PHOTO.read_bytes(), Console()
    with server() as (address, _), pellucid.Client(address, timeout_s=120) as client:
        wait_until_ready(client)
        runs: dict[str, Callable[[], Any]] = {
            "gradient": lambda: client.explain(photo, "gradient"),
            "prediction with its gradient": lambda: client.predict(photo, explain=["gradient"]),
            "both, one by one": lambda: (client.predict(photo), client.explain(photo, "gradient")),
        }
        for run in runs.values():
            run()
        turns = [
            {name: milliseconds(run) for name, run in runs.items()}
            for _ in track(range(options.turns), "measuring", console=console)
        ]
    figures = {
        name: {
            "median_ms": float(np.median([turn[name] for turn in turns])),
            "ratio": float(np.median([turn[name] / turn["gradient"] for turn in turns])),
        }
        for name in runs
    }
    table = Table("call", "median ms", "÷ gradient", "aim", title=processor())
    for name, found in figures.items():
        aim = f"≤ {AIM}" if name == "prediction with its gradient" else ""
        table.add_row(name, f"{found['median_ms']:.1f}", f"{found['ratio']:.2f}", aim)
    console.print(table)
    if options.json:
        told = {"hardware": processor(), "turns": options.turns, "calls": figures}
        options.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
