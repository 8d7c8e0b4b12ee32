"""Gatys' optimization with VGG-19's shapes: the service over plain PyTorch, both timed.

Each moves one image, or as many as --jobs, by the defaults of optimized style: 512 px and 500 steps
on a GPU unless other numbers are given. The plain loop holds its images in one batch; jobs of the
service come one by one, each with its own request. Weights are random, which costs the same.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from pellucid_server.engine.admission import QueueLimits
from pellucid_server.engine.device import TorchDevice, keep_freed_memory, pick_device
from pellucid_server.methods.stylize.neural import (
    LEARNING_RATES,
    STYLE_WEIGHTS,
    default_layers,
    same_area,
)
from pellucid_server.models.architectures import ARCHITECTURES
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tests.bench.__main__ import processor
from tests.bench.style_jobs import optimized, picture
from tests.bench.style_loops import PlainStyle, rows_of, size_of
from tests.harness import Runner, running

CONTENT, PAINTING = "astronaut", "strokes"
NETWORK_PX = 64
"""Of the input that the network is loaded at, whose classifier is left out: images have a size of
their own."""


@dataclass(frozen=True)
class Taken:
    """Seconds of all steps by the wall, and the most memory that tensors took, in bytes."""

    seconds: float
    peak_bytes: int


class Vgg19(nn.Module):
    """With a classifier of one layer, which style does not look at."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features: nn.Sequential = torchvision.models.vgg19().features
        self.classifier = nn.Linear(512, 2)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return made


def served(device: torch.device, precision: Precision) -> Model:
    return Model(
        name="vgg19",
        version="0",
        architecture="torchvision/vgg19",
        network=Network(
            Vgg19(),
            height_px=NETWORK_PX,
            width_px=NETWORK_PX,
            dtype=precision.dtype,
            device=device,
            tf32=precision is Precision.TF32,
        ),
        preprocessing=ARCHITECTURES["resnet18"].preprocessing(NETWORK_PX),
        labels=("first", "second"),
        precision=precision,
        weights_sha256="0" * 64,
    )


def plain(on: Model, side_px: int) -> PlainStyle:
    """As one writes it: torchvision's layers up to the last one that is looked at."""
    device, dtype = on.network.device, on.network.dtype
    content, style = ([name for name, _ in layers] for layers in default_layers(on))
    looked = {int(name.removeprefix("features.")): name for name in (*content, *style)}
    features = Vgg19().features[: max(looked) + 1].eval().to(device, dtype)
    features.requires_grad_(False)
    features.to(memory_format=torch.channels_last)
    mean, std = (
        255 * torch.tensor(values, device=device).view(3, 1, 1)
        for values in (on.preprocessing.mean, on.preprocessing.std)
    )

    def look(images: Tensor) -> Mapping[str, Tensor]:
        seen, rows = {}, ((images - mean) / std).to(dtype, memory_format=torch.channels_last)
        for place, layer in enumerate(features):
            rows = layer(rows)
            if place in looked:
                seen[looked[place]] = rows
        return seen

    photo, painting = picture(CONTENT), picture(PAINTING)
    size = size_of(photo, side_px)
    painted = rows_of(on, painting, same_area(size, *painting.shape[:2]))
    return PlainStyle(
        look, rows_of(on, photo, size), painted, content, style, STYLE_WEIGHTS["gatys"]
    )


def timed(device: torch.device, run: Callable[[], Any]) -> Taken:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started_s = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return Taken(time.perf_counter() - started_s, torch.cuda.max_memory_allocated() if cuda else 0)


def by_the_service(
    runner: Runner, on: Model, job_count: int, bucket_size: int, **neural: Any
) -> list[float]:
    """The last losses."""
    jobs = [
        optimized(runner.engine, on, CONTENT, PAINTING, bucket_size, **neural)
        for _ in range(job_count)
    ]
    return [-job.result().end.progress.score for job in jobs]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.style_vgg", description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="longer side in pixels")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1, help="images at once: the bucket, too")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="tf32", choices=[p.value for p in Precision])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    device, precision = pick_device(options.device), Precision(options.precision)
    on, count = served(device, precision), options.jobs
    loop = plain(on, options.side)
    neural = {"side_px": options.side, "step_count": options.steps, "progress_every": 100}
    loss: dict[str, float] = {}
    taken: dict[str, list[Taken]] = {"plain": [], "served": []}
    with running(
        TorchDevice(device), buckets=(count,), limits=QueueLimits(optimize_ms=1e12)
    ) as runner:
        # Its rounding follows the network's settings; the plain loop's, torch's own switches.
        tf32 = precision is Precision.TF32

        def by_torch(step_count: int) -> None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            loss["plain"] = loop.descend(count, step_count, LEARNING_RATES["adam"])

        def by_service(step_count: int) -> None:
            [loss["served"], *_] = by_the_service(
                runner, on, count, count, **(neural | {"step_count": step_count})
            )

        runs = {"plain": by_torch, "served": by_service}
        for run in runs.values():
            run(min(5, options.steps))
        for _ in range(options.turns):
            for name, run in runs.items():
                taken[name].append(timed(device, partial(run, options.steps)))
    ratio = statistics.median(
        plain.seconds / own.seconds
        for plain, own in zip(taken["plain"], taken["served"], strict=True)
    )
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    title = (
        f"{hardware}, {precision.value}, {options.side} px, {options.steps} steps, {count} at once"
    )
    table = Table("", "seconds", "steps a second", "peak GB", "last loss", title=title)
    figures: dict[str, Any] = {
        "hardware": hardware,
        "torch": torch.__version__,
        **{name: getattr(options, name) for name in ("side", "steps", "jobs", "precision")},
    }
    for name, all_taken in taken.items():
        seconds = statistics.median(one.seconds for one in all_taken)
        figures[name] = {
            "seconds": seconds,
            "steps_per_s": count * options.steps / seconds,
            "peak_bytes": max(one.peak_bytes for one in all_taken),
            "loss": loss[name],
        }
        per_s, peak_gb = figures[name]["steps_per_s"], figures[name]["peak_bytes"] / 1e9
        table.add_row(name, f"{seconds:.2f}", f"{per_s:.1f}", f"{peak_gb:.2f}", f"{loss[name]:.5g}")
    figures["ratio"] = ratio
    console = Console()
    console.print(table)
    console.print(f"served ÷ plain, by speed: {ratio:.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


if __name__ == "__main__":
    main()
