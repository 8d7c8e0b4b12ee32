"""Speed as ratios, measured in one run: tensor in, raw attribution out, the default network.

The service runs in a process of its own and is called over gRPC by concurrent clients. What
it is held against runs alone, before it: the bare loop over batches of the best size, and
Captum one image at a time. Each figure is taken in several rounds, turn by turn, and the
median is printed: per second of wall time, and per second of the server's CPU time.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pellucid
import psutil
import torch
from pellucid_server.models.registry import Precision, load_model
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.local import server, wait_until_ready

MODEL = "efficientnet_lite0"
BUCKETS = (1, 2, 4, 8, 16)
CALLERS = 32
TARGET = 285
RULES = ("gradient", "deconvnet", "guided_backprop")


@dataclass(frozen=True)
class Rate:
    """Gradient rows a second of wall time, and of CPU time of the process that made them."""

    wall: float
    cpu: float


def measured(process: psutil.Process, row_count: int, run: Callable[[], Any]) -> Rate:
    """Times run, which makes row_count rows in the process."""

    def cpu_s() -> float:
        times = process.cpu_times()
        return times.user + times.system

    started_s, started_cpu_s = time.perf_counter(), cpu_s()
    run()
    return Rate(
        row_count / (time.perf_counter() - started_s), row_count / (cpu_s() - started_cpu_s)
    )


class Bare:
    """The prepared network in a plain loop over batches: what the service cannot beat."""

    def __init__(self, device: torch.device) -> None:
        self.model = load_model(MODEL, device=device, precision=Precision.FLOAT32)
        self.network = self.model.network
        self.device = device

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        x = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        logits = self.network.forward(x)[""]
        (gradient,) = torch.autograd.grad(logits[:, TARGET].sum(), x)
        return gradient.cpu()

    def loop(self, inputs: list[torch.Tensor], bucket: int) -> None:
        for start in range(0, len(inputs), bucket):
            self.batch(torch.stack(inputs[start : start + bucket]).to(self.device))

    def best_bucket(self, inputs: list[torch.Tensor], buckets: tuple[int, ...]) -> int:
        def row_s(bucket: int) -> float:
            taken = []
            for _ in range(3):
                started_s = time.perf_counter()
                self.loop(inputs[:bucket], bucket)
                taken.append((time.perf_counter() - started_s) / bucket)
            return min(taken)

        return min(buckets, key=row_s)


class CaptumOneByOne:
    """Captum's Saliency on the network as timm builds it, one image at a time."""

    def __init__(self, device: torch.device) -> None:
        from pellucid_server.models.architectures import ARCHITECTURES

        self.network = ARCHITECTURES[MODEL].build(224).eval().to(device)
        self.saliency = captum.attr.Saliency(self.network)
        self.device = device

    def loop(self, inputs: list[torch.Tensor]) -> None:
        for image in inputs:
            x = image[None].to(self.device).requires_grad_()
            self.saliency.attribute(x, target=TARGET, abs=False).cpu()


class Served:
    """Concurrent callers of the service."""

    def __init__(self, client: pellucid.Client, process: psutil.Process) -> None:
        self.client, self.process = client, process
        self.row_counts: list[int] = []

    def loop(self, inputs: list[np.ndarray], methods: tuple[str, ...]) -> None:
        def call(place: int) -> None:
            result = self.client.explain(
                inputs[place],
                methods[place % len(methods)],
                target=TARGET,
                outputs=("attribution",),
            )
            assert result.attribution is not None
            self.row_counts.extend(batch.row_count for batch in result.run.batches)

        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(call, range(len(inputs))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=192, help="rows a round and contender")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    inputs = list(torch.randn(options.rows, 3, 224, 224, generator=generator))
    arrays = [image.numpy() for image in inputs]
    bare, rival, own = Bare(device), CaptumOneByOne(device), psutil.Process()
    bucket = bare.best_bucket(inputs, BUCKETS)
    rates: dict[str, list[Rate]] = {}

    def take(name: str, process: psutil.Process, run: Callable[[], Any], count: int) -> None:
        rates.setdefault(name, []).append(measured(process, count, run))

    few = inputs[: max(16, options.rows // 4)]
    console = Console()
    with (
        server("--device", options.device) as (address, process_id),
        pellucid.Client(address, timeout_s=300) as client,
        Progress(console=console) as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        task = progress.add_task("measuring", total=options.rounds)
        wait_until_ready(client)
        process = psutil.Process(process_id)
        served = Served(client, process)
        served.loop(arrays[:32], RULES)
        served.row_counts.clear()
        for _ in range(options.rounds):
            take("bare loop", own, lambda: bare.loop(inputs, bucket), len(inputs))
            take("gradient", process, lambda: served.loop(arrays, RULES[:1]), len(inputs))
            take("thirds", process, lambda: served.loop(arrays, RULES), len(inputs))
            take("captum", own, lambda: rival.loop(few), len(few))
            progress.advance(task)
        rows_a_batch = len(served.row_counts) / sum(1 / count for count in served.row_counts)

    def ratio(over: str, under: str, figure: str) -> float:
        return statistics.median(
            getattr(a, figure) / getattr(b, figure)
            for a, b in zip(rates[over], rates[under], strict=True)
        )

    hardware = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    figures = {
        "hardware": hardware,
        "torch": torch.__version__,
        "bare_loop_bucket": bucket,
        "rows_a_batch": rows_a_batch,
        "rows_a_second": {
            name: statistics.median(rate.wall for rate in taken) for name, taken in rates.items()
        },
        "ratios": {
            f"{over} / {under}": {
                "wall": ratio(over, under, "wall"),
                "cpu": ratio(over, under, "cpu"),
            }
            for over, under, _ in COMPARED
        },
    }
    table = Table("ratio", "per wall second", "per CPU second", "aim", title=hardware)
    for over, under, aim in COMPARED:
        both = figures["ratios"][f"{over} / {under}"]
        table.add_row(
            f"served {over} ÷ {LABELS[under]}", f"{both['wall']:.2f}", f"{both['cpu']:.2f}", aim
        )
    console.print(table)
    console.print(
        ", ".join(f"{name} {rate:.0f} rows/s" for name, rate in figures["rows_a_second"].items())
        + f"; bare loop at batch {bucket}; {rows_a_batch:.1f} rows a batch served"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


COMPARED = (
    ("gradient", "bare loop", "0.9"),
    ("gradient", "captum", "2.5"),
    ("thirds", "gradient", "0.85"),
)
LABELS = {
    "bare loop": "the bare loop",
    "captum": "Captum, one image at a time",
    "gradient": "gradient alone",
}


def processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


if __name__ == "__main__":
    main()
