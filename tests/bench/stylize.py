"""Speed of both ways to stylize, in one run: over the published package's loop, over bare torch.

Fast style: frames of 480 × 360 of one video and of several at once, each with a style of its own,
as StylizeVideo takes and returns them without a protocol, in numbers; and through ONNX Runtime as
the published package runs the 26-style network, one frame at a time, from array to array.
Optimized style: jobs in lock step at 256 px, and one batch of the same bucket that is moved by the
same arithmetic, written with torch alone. All run in this process at the same number of threads,
turn by turn; medians of the turns are printed, by wall time and by CPU time.
"""

import argparse
import asyncio
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from pellucid.v1 import video_pb2
from pellucid_server import wire
from pellucid_server.api.video import Videos
from pellucid_server.engine.admission import QueueLimits
from pellucid_server.engine.device import keep_freed_memory
from pellucid_server.engine.job import Priority
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.methods.stylize.neural import (
    LEARNING_RATES,
    STYLE_WEIGHTS,
    default_layers,
    same_area,
)
from pellucid_server.models.registry import Model
from pellucid_server.models.styles.library import Library, style_loads
from pellucid_server.models.styles.multistyle import MULTISTYLE_FILE
from pellucid_server.observe import Metrics
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench.__main__ import MODEL, processor
from tests.bench.style_jobs import BUCKETS, DAY_S, image, optimized, picture
from tests.bench.style_loops import PlainStyle, rows_of, size_of
from tests.harness import CPU, PHOTOS, Runner, model, running

FRAME = (480, 360)
STREAMS = (1, 4, 16)
STYLE = "7"
JOBS, BUCKET = 8, 4
CONTENT, PAINTING, SIDE_PX = "cat", "strokes", 256
FAST_AIM, OPTIMIZED_AIM = 1.0, 0.85
WHEEL = "the package's own loop"
BARE = "bare loop, same bucket"


@dataclass(frozen=True)
class Rate:
    """Frames or steps a second of wall time, and of this process's CPU time."""

    wall: float
    cpu: float


def rate(count: int, run: Callable[[], Any]) -> Rate:
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    run()
    return Rate(
        count / (time.perf_counter() - started_s), count / (time.process_time() - started_cpu_s)
    )


# Fast style.


def frame(which: int) -> NDArray[np.uint8]:
    shown = Image.fromarray(picture(PHOTOS[which % len(PHOTOS)]))
    return np.asarray(shown.resize(FRAME))


def to_bytes(painted: Any) -> NDArray[np.uint8]:
    """3 × H × W, 0-1, as H × W × 3."""
    made: NDArray[np.uint8] = (np.asarray(painted) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(made.transpose(1, 2, 0))


def by_the_package(file: Path, count: int) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]
    image, code = frame(0), np.zeros(26, np.float32)
    code[int(STYLE)] = 1

    def run() -> None:
        for _ in range(count):
            rows = (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]
            [painted] = session.run(None, dict(zip(names, (rows, code), strict=True)))
            to_bytes(np.clip(painted[0], 0, 1))

    return run


def by_videos(
    runner: Runner, library: Library, stream_count: int, count: int
) -> Callable[[], None]:
    """So many frames of all streams together; none is dropped."""
    limits = wire.Limits(1 << 30, BUCKETS, math.prod(FRAME), Buckets(BUCKET), b"a key of 16 bytes")
    photos = [image(frame(which)) for which in range(stream_count)]

    async def work(priority: Priority, call: wire.Call, function: Callable[[], Any]) -> Any:
        submitted = runner.workers.submit(function, priority, call.deadline_s)
        return await asyncio.wrap_future(submitted)

    async def stream(videos: Videos, which: int) -> None:
        left, back = count // stream_count, 0
        spec = video_pb2.StylizeVideoSpec(
            fast={"styles": [{"name": str(int(STYLE) + which)}], "side_px": max(FRAME)},
            overflow=video_pb2.VIDEO_OVERFLOW_KEEP_ALL,
            format=video_pb2.FRAME_FORMAT_RGB,
        )

        async def receive() -> video_pb2.VideoFrame | None:
            nonlocal left
            left -= 1
            return None if left < 0 else video_pb2.VideoFrame(index=left, image=photos[which])

        async def send(response: video_pb2.StylizeVideoResponse) -> None:
            nonlocal back
            back += response.frame.HasField("pixels")

        call = wire.Call(str(which), time.monotonic() + DAY_S)
        await videos.run(spec, call, library, receive, send)
        assert back == count // stream_count

    async def all_streams() -> None:
        videos = Videos(runner.engine, work, Metrics(), limits, stream_count, idle_s=DAY_S)
        await asyncio.gather(*(stream(videos, which) for which in range(stream_count)))

    return lambda: asyncio.run(all_streams())


# Optimized style.


def in_lock_step(runner: Runner, on: Model, step_count: int) -> None:
    jobs = [
        optimized(runner.engine, on, CONTENT, PAINTING, BUCKET, step_count=step_count)
        for _ in range(JOBS)
    ]
    for job in jobs:
        job.result()


def bare(on: Model, step_count: int) -> Callable[[], float]:
    """As many steps of one batch, its image the photo's."""
    content, style = default_layers(on)
    layers = tuple(name for name, _ in (*content, *style))
    mean, std = (
        255 * torch.tensor(values).view(3, 1, 1)
        for values in (on.preprocessing.mean, on.preprocessing.std)
    )

    def look(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        inputs = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        return on.network.forward(inputs, layers)

    photo, painting = picture(CONTENT), picture(PAINTING)
    size = size_of(photo, SIDE_PX)
    loop = PlainStyle(
        look,
        rows_of(on, photo, size),
        rows_of(on, painting, same_area(size, *painting.shape[:2])),
        [name for name, _ in content],
        [name for name, _ in style],
        STYLE_WEIGHTS["gatys"],
    )
    return lambda: loop.descend(BUCKET, step_count, LEARNING_RATES["adam"])


def ratios(
    taken: list[Mapping[str, Rate]], under: str, aim: float, counted: str
) -> tuple[Table, dict[str, Any]]:
    """Each contender over one of them, by the medians of the turns."""
    table = Table(counted, "per second", "per CPU second", f"÷ {under}", "by CPU", "aim")
    figures = {}
    for name in taken[0]:
        per_s, per_cpu_s, ratio, by_cpu = (
            statistics.median(values)
            for values in (
                [turn[name].wall for turn in taken],
                [turn[name].cpu for turn in taken],
                [turn[name].wall / turn[under].wall for turn in taken],
                [turn[name].cpu / turn[under].cpu for turn in taken],
            )
        )
        figures[name] = {"per_s": per_s, "per_cpu_s": per_cpu_s, "ratio": ratio, "by_cpu": by_cpu}
        told = [f"{value:.2f}" for value in (per_s, per_cpu_s, ratio, by_cpu)]
        table.add_row(name, *told, "" if name == under else f"≥ {aim:g}")
    return table, figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stylize", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64, help="of each contender in a turn")
    parser.add_argument("--steps", type=int, default=50, help="of each job in a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--styles", type=Path, default=Path("styles"))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    steps, console = options.steps, Console()
    library = Library([load() for load in style_loads(options.styles, device=CPU)])
    file, on = options.styles / MULTISTYLE_FILE, model(MODEL, side_px=224)
    with running(buckets=BUCKETS, limits=QueueLimits(1e12, 1e12)) as runner:
        for one in (library.painters[0], on):
            runner.engine.warm_up(one)
        frames: dict[str, tuple[int, Callable[[], Any]]] = {
            WHEEL: (options.frames, by_the_package(file, options.frames))
        }
        for count in STREAMS:
            run = by_videos(runner, library, count, options.frames)
            frames[f"{count} stream{'s' * (count > 1)}"] = options.frames, run
        moved: dict[str, tuple[int, Callable[[], Any]]] = {
            # Both end with a look that scores the images, here and there counted as a step.
            BARE: (BUCKET * (2 * steps + 1), bare(on, 2 * steps)),
            f"{JOBS} jobs": (JOBS * (steps + 1), lambda: in_lock_step(runner, on, steps)),
        }
        for _, run in (*frames.values(), *moved.values()):
            run()
        taken: dict[str, list[Mapping[str, Rate]]] = {"frames": [], "steps": []}
        for _ in track(range(options.turns), "measuring", console=console):
            for part, runs in (("frames", frames), ("steps", moved)):
                taken[part].append({name: rate(*run) for name, run in runs.items()})
    figures: dict[str, Any] = {
        "hardware": processor(),
        "threads": options.threads,
        "turns": options.turns,
        "frame_count": options.frames,
        "step_count": steps,
    }
    for part, under, aim in (("frames", WHEEL, FAST_AIM), ("steps", BARE, OPTIMIZED_AIM)):
        table, figures[part] = ratios(taken[part], under, aim, part)
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
