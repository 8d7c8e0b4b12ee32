"""Every method's rows a second over those of a bare loop of its lane, in one run.

The service runs in a process of its own, called over gRPC by concurrent clients; each method's
turn lies between two turns of the bare loops, whose mean it is divided by.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
import torch
from pellucid.v1 import inference_pb2
from pellucid_server.engine.rows import Lane, TopTarget
from pellucid_server.models.registry import Model
from pellucid_server.wire import METHODS
from pellucid_server.wire.fields import Violations, read_parameters
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.local import server, wait_until_ready
from tests.bench.__main__ import BUCKETS, Bare, processor

CALLERS = 16
PARAMETERS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"step_count": 20},
    "smooth_grad": {"sample_count": 20},
    "expected_gradients": {"sample_count": 20},
    "score_cam": {"map_count": 40},
    "rise": {"mask_count": 60},
    "lime": {"sample_count": 60, "segment_count": 30},
    "kernel_shap": {"sample_count": 60, "segment_count": 30},
}


def rows_per_second(count: int, run: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    run()
    return count / (time.perf_counter() - started_s)


class BareForward(Bare):
    """The bare loop of the forward lane."""

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = images.contiguous(memory_format=torch.channels_last)
            return self.network.forward(x)[""].cpu()


def is_forward(name: str, model: Model) -> bool:
    """Whether most of a method's rows, by its defaults, go forward only."""
    message = getattr(inference_pb2.ExplainRequest(), name)
    method = read_parameters(Violations(), name, message, METHODS[name], model, "")
    assert method is not None
    counts = method.row_counts(model, TopTarget())
    return counts.get(Lane.FORWARD, 0) > sum(counts.values()) / 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.methods", description=__doc__)
    parser.add_argument("--rows", type=int, default=160, help="rows a turn, about")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    inputs = list(torch.randn(options.rows, 3, 224, 224, generator=generator))
    arrays = [image.numpy() for image in inputs]
    bare = {"back": Bare(device), "forward": BareForward(device)}
    buckets = {name: loop.best_bucket(inputs, BUCKETS) for name, loop in bare.items()}

    def of_bare(name: str) -> float:
        return rows_per_second(len(inputs), lambda: bare[name].loop(inputs, buckets[name]))

    ratios: dict[str, dict[str, Any]] = {}
    console = Console()
    with (
        server("--device", options.device) as (address, _),
        pellucid.Client(address, timeout_s=300) as client,
        Progress(console=console) as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        wait_until_ready(client)
        supported = {s.method for s in client.get_model().methods if s.supported} & METHODS.keys()
        task = progress.add_task("measuring", total=len(supported))
        for name in (method for method in METHODS if method in supported):
            lane = "forward" if is_forward(name, bare["back"].model) else "back"

            def call(image: np.ndarray, name: str = name) -> int:
                result = client.explain(
                    image, name, outputs=("attribution",), **PARAMETERS.get(name, {})
                )
                return sum(batch.own_row_count for batch in result.run.batches)

            rows = call(arrays[0])
            calls = arrays[: max(4, options.rows // rows)]
            before = of_bare(lane)
            with ThreadPoolExecutor(CALLERS) as callers:
                taken = rows_per_second(
                    rows * len(calls), lambda c=calls: list(callers.map(call, c))
                )
            rate = (before + of_bare(lane)) / 2
            ratios[name] = {"lane": lane, "rows_a_second": taken, "ratio": taken / rate}
            progress.advance(task)
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    table = Table("method", "lane", "rows/s", "÷ the bare loop of its lane", title=hardware)
    for name, found in ratios.items():
        table.add_row(name, found["lane"], f"{found['rows_a_second']:.0f}", f"{found['ratio']:.2f}")
    console.print(table)
    if options.json:
        figures = {"hardware": hardware, "torch": torch.__version__, "methods": ratios}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
