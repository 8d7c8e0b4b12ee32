"""Twice the load that the server can take: what its callers meet.

First the capacity: answers a second of a closed loop. Then an open loop, Poisson, at twice that
rate, each call with a deadline. Printed: of the calls that were admitted, the share that was
answered within it; the goodput as a share of the capacity; refusals and the rest, apart. Answers
are weighted by the device time of their rows: predictions go first, and are cheaper. The
generator shares the server's machine, so its own CPU time is measured, too.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pellucid
from pellucid.load import Figures, Plan, Report, run
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.local import server, wait_until_ready
from tests.bench.__main__ import processor

PHOTOS = (Path(__file__).parents[2] / "examples" / "cat.jpg",)
MIX = {"predict": 1.0, "gradient": 1.0}
LANES = {"predict": "forward", "gradient": "gradient"}
"""Which lane's row each method is."""
CALLERS = 32
OVERLOAD = 2.0
WARM_UP_S = 10.0


def outcome(figures: Figures) -> dict[str, Any]:
    admitted = figures.offered - figures.dropped - sum(figures.refused.values())
    return {
        "offered": figures.offered,
        "refused": dict(figures.refused),
        "missed": dict(figures.missed),
        "errors": dict(figures.errors),
        "dropped": figures.dropped,
        "admitted_in_time": figures.answered / admitted if admitted else None,
        "goodput_per_s": figures.goodput_per_s,
        "latency_ms": dict(figures.latency_ms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--capacity-s", type=float, default=30.0, help="of the closed loop")
    parser.add_argument("--overload-s", type=float, default=60.0, help="of the open loop")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="deadline of each call")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    console = Console()

    def loaded(address: str, name: str, duration_s: float, **loop: Any) -> tuple[Report, float]:
        plan = Plan(PHOTOS, mix=MIX, duration_s=duration_s, warm_up_s=WARM_UP_S, **loop)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(name, total=plan.planned_s)
            started_s = time.process_time()
            report = run(
                plan,
                address,
                on_progress=lambda report: progress.update(task, completed=report.elapsed_s),
            )
        return report, (time.process_time() - started_s) / report.elapsed_s

    def work(report: Report) -> float:
        """Milliseconds of device time of the answers in time, a second."""
        return sum(figures.goodput_per_s * row_ms[m] for m, figures in report.methods.items())

    with server() as (address, _):
        with pellucid.Client(address) as client:
            wait_until_ready(client)
        closed, _ = loaded(
            address, "capacity", options.capacity_s, concurrency=CALLERS, timeout_s=60.0
        )
        capacity = closed.figures.goodput_per_s
        report, cpu = loaded(
            address,
            "overload",
            options.overload_s,
            rate=OVERLOAD * capacity,
            timeout_s=options.timeout_s,
        )
        with pellucid.Client(address) as client:
            costs = client.get_model().costs  # which the load has corrected
    row_ms = {m: min(c.row_ms for c in costs if c.lane == LANES[m]) for m in MIX}
    overload = outcome(report.figures)
    figures = {
        "hardware": processor(),
        "mix": MIX,
        "timeout_s": options.timeout_s,
        "capacity_per_s": capacity,
        "capacity_latency_ms": dict(closed.figures.latency_ms),
        "offered_per_s": report.figures.offered_per_s,
        "row_ms": row_ms,
        "goodput_over_capacity": work(report) / work(closed),
        "calls_over_capacity": report.figures.goodput_per_s / capacity,
        "all": overload,
        "methods": {name: outcome(figures) for name, figures in report.methods.items()},
        "generator": {"lag_ms": dict(report.lag_ms), "cores": cpu, "warnings": report.warnings},
    }
    table = Table("twice the capacity", "measured", "aim", title=processor())
    in_time = overload["admitted_in_time"]
    table.add_row("admitted calls answered within their deadline", f"{in_time:.1%}", "99%")
    table.add_row("goodput ÷ capacity", f"{figures['goodput_over_capacity']:.0%}", "80%")
    table.add_row("the same, by calls", f"{figures['calls_over_capacity']:.0%}", "")
    for kind in ("refused", "missed", "errors"):
        table.add_row(kind, f"{sum(overload[kind].values()) / overload['offered']:.1%}", "")
    console.print(table)
    latency, lag = report.figures.latency_ms, report.lag_ms
    console.print(
        f"capacity {capacity:.1f} calls/s with {CALLERS} callers; "
        f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms, deadline "
        f"{1e3 * options.timeout_s:.0f} ms; the generator took {cpu:.2f} of a core and sent its "
        f"calls {lag['p99']:.1f} ms late at p99"
    )
    for warning in report.warnings:
        console.print(f"warning: {warning}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
