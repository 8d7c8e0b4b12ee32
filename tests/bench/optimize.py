"""Optimization steps a second: 32 jobs in lock step, over a bare loop and over a plain one.

All run in this process, turn by turn, with the same preset at 224 px. The bare loop moves one batch
of the same bucket by the same arithmetic, written with torch alone; the plain loop does so with
one image at a time. Medians of the turns are printed, by wall time and by CPU time, and how long
a prediction takes among the jobs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pellucid_server.engine.admission import QueueLimits
from pellucid_server.engine.device import keep_freed_memory
from pellucid_server.engine.job import Job
from pellucid_server.engine.rows import ClassTarget
from pellucid_server.inputs import Photos
from pellucid_server.methods.optimize.ascent import PRESETS, Ascent
from pellucid_server.methods.optimize.optimize import Buckets, Optimize
from pellucid_server.methods.predict import Predict
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench.__main__ import MODEL, processor
from tests.harness import Runner, model, running, spec

JOBS, BUCKET, SIDE_PX = 32, 4, 224
AIM = 0.85
OLAH = PRESETS["olah"] | {"preset": "olah", "height_px": SIDE_PX, "width_px": SIDE_PX}


def bare(image_count: int, step_count: int) -> None:
    """One batch, moved by torch alone."""
    network = model(MODEL, side_px=SIDE_PX).network
    shape = (image_count, 3, SIDE_PX, SIDE_PX // 2 + 1, 2)
    spectrum = (0.01 * torch.randn(shape)).requires_grad_()
    optimizer = torch.optim.Adam([spectrum], lr=0.05)
    down, across = torch.fft.fftfreq(SIDE_PX), torch.fft.rfftfreq(SIDE_PX)
    scale = 1 / torch.hypot(down[:, None], across).clamp_min(1 / SIDE_PX)
    colors = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    for _ in range(step_count):
        waves = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, norm="ortho") / 4
        image = torch.einsum("ck,nkhw->nchw", colors, waves).sigmoid()
        shift = tuple(torch.randint(-8, 9, (2,)).tolist())
        angle, factor = torch.rand(2).tolist()
        theta = torch.tensor([[1.0, angle / 5, 0.0], [-angle / 5, 1.0, 0.0]]) * (0.9 + factor / 5)
        grid = F.affine_grid(
            theta.expand(image_count, 2, 3), list(image.shape), align_corners=False
        )
        view = F.grid_sample(
            image.roll(shift, (2, 3)), grid, padding_mode="reflection", align_corners=False
        )
        inputs = ((view - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        (-network.forward(inputs)[""][:, 1].sum()).backward()
        optimizer.step()


def optimize(target: int, step_count: int) -> Optimize:
    ascent = Ascent(**(OLAH | {"step_count": step_count, "seed": target}))
    return Optimize(((ClassTarget(target), 1.0),), ascent, Buckets(BUCKET))


def submit(runner: Runner, step_count: int) -> list[Job]:
    on, photos = model(MODEL, side_px=SIDE_PX), Photos((), (SIDE_PX, SIDE_PX))
    jobs = []
    for target in range(JOBS):
        made = spec(on, optimize(target, step_count), torch.zeros(3, 1, 1), bucket_size=BUCKET)
        jobs.append(runner.engine.submit(replace(made, source=photos, deadline_s=1e12)))
    return jobs


def served(runner: Runner, step_count: int) -> None:
    for job in submit(runner, step_count):
        job.future.result()


def predictions(runner: Runner, step_count: int) -> list[float]:
    """Milliseconds of predictions among running jobs, one after another."""
    jobs, taken_ms = submit(runner, step_count), []
    for _ in range(20):
        started_s = time.perf_counter()
        runner.run(model(MODEL, side_px=SIDE_PX), Predict(5, False), "cat")
        taken_ms.append((time.perf_counter() - started_s) * 1e3)
    for job in jobs:
        runner.engine.cancel(job)
        job.future.exception()
    return taken_ms


def rates(step_count: int, run: Callable[[], Any]) -> tuple[float, float]:
    """Steps a second of wall time and of CPU time."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    run()
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return step_count / wall_s, step_count / cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.optimize", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of each job in a turn")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    keep_freed_memory()
    steps, console = options.steps, Console()
    limits = QueueLimits(optimize_ms=1e12)
    with running(buckets=(1, BUCKET), limits=limits) as runner:
        runner.engine.warm_up(model(MODEL, side_px=SIDE_PX))
        runs: dict[str, tuple[int, Callable[[], Any]]] = {
            # The last look scores the image: as many rows as a step.
            f"{JOBS} jobs": (JOBS * (steps + 1), lambda: served(runner, steps)),
            "bare loop, same bucket": (BUCKET * 4 * steps, lambda: bare(BUCKET, 4 * steps)),
            "plain loop, one image": (4 * steps, lambda: bare(1, 4 * steps)),
        }
        turns = [
            {name: rates(count, run) for name, (count, run) in runs.items()}
            for _ in track(range(options.turns), "measuring", console=console)
        ]
        waits_ms = predictions(runner, 200)
    table = Table("steps", "per second", "per CPU second", "jobs ÷ it", "by CPU", "aim")
    figures = {}
    ours = next(iter(runs))
    for name in runs:
        wall, cpu = (statistics.median(turn[name][k] for turn in turns) for k in (0, 1))
        ratios = [
            statistics.median(turn[ours][k] / turn[name][k] for turn in turns) for k in (0, 1)
        ]
        aim = f"≥ {AIM}" if "bare" in name else ""
        table.add_row(
            name, f"{wall:.2f}", f"{cpu:.2f}", f"{ratios[0]:.2f}", f"{ratios[1]:.2f}", aim
        )
        figures[name] = {"per_s": wall, "per_cpu_s": cpu, "ratio": ratios[0], "by_cpu": ratios[1]}
    console.print(table)
    half, most = np.percentile(waits_ms, (50, 95))
    console.print(f"a prediction among {JOBS} jobs: median {half:.0f} ms, 95% {most:.0f} ms")
    if options.json:
        told = {
            "hardware": processor(),
            "steps": figures,
            "prediction_ms": {"median": half, "p95": most},
        }
        options.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
