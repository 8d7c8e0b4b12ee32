"""How far optimized style gets by its defaults, and whether scales get there sooner.

Content and style losses of photos in paintings at 256 px, 200 steps: how many times the style's has
fallen, and the content's as a share of what noise has. Then what it takes until a loss is reached,
from small to large and at one size: CPU seconds, and steps at the last size, by pixels.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pellucid.v1 import stylize_pb2
from pellucid_server.engine.admission import QueueLimits
from pellucid_server.engine.device import keep_freed_memory
from pellucid_server.methods.optimize.stepper import Progress
from pellucid_server.methods.stylize.neural import SCALE
from pellucid_server.models.registry import Model
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench.__main__ import MODEL, processor
from tests.bench.style_jobs import BUCKETS, optimized
from tests.harness import PHOTOS, Runner, model, running

PAIRS = (
    ("cat", "strokes"),
    ("coffee", "dabs"),
    ("astronaut", "immunohistochemistry"),
    ("rocket", "strokes"),
    ("coffee", "grid"),
)
PAINTINGS = ("strokes", "dabs", "immunohistochemistry", "grid")
SCALED = ("cat", "strokes")
FALL_AIM, CONTENT_AIM = 20.0, 0.5
BUCKET = 1
NORMALIZATIONS = {
    "gatys": stylize_pb2.GRAM_NORMALIZATION_GATYS,
    "johnson": stylize_pb2.GRAM_NORMALIZATION_JOHNSON,
}
STARTS = {"photo": stylize_pb2.STYLE_START_CONTENT, "noise": stylize_pb2.STYLE_START_NOISE}


@dataclass(frozen=True)
class Fall:
    """Of a pair.

    Attributes:
        style: Its loss at the photo over that at the end; layers weigh as they do in the loss.
        content: Its loss at the end over that of noise.
        cpu_s: All steps took.
    """

    style: float
    content: float
    cpu_s: float


def style_of(progress: Progress) -> float:
    """The default layers weigh the same."""
    return -sum(progress.terms[1:])


def fall(runner: Runner, on: Model, content: str, style: str, pictures: Path | None) -> Fall:
    args = (runner.engine, on, content, style, BUCKET)
    noise = optimized(*args, start=STARTS["noise"], step_count=1, progress_every=1)
    run = optimized(*args, progress_every=1)
    made = run.result()
    noise.result()
    if pictures is not None:
        pixels = (made.picture * 255).round().to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(pictures / f"{content}-{style}.png")
    # The first score is that of the start, told once the first step is made.
    first, last = run.shown[0][1], made.end.progress
    return Fall(
        style_of(first) / style_of(last), last.terms[0] / noise.shown[0][1].terms[0], run.cpu_s
    )


@dataclass(frozen=True)
class Sooner:
    """Scales over one size.

    Attributes:
        loss: What scales end at.
        steps: What they take: CPU seconds, and steps at the last size, by pixels.
        cpu_s: Likewise.
        one_steps: What one size takes to come as low; None: it does not in its steps.
        one_cpu_s: Likewise.
    """

    loss: float
    steps: float
    cpu_s: float
    one_steps: float | None
    one_cpu_s: float | None


def sooner(runner: Runner, on: Model, scale_count: int, steps: int, **neural: Any) -> Sooner:
    """As many steps at each scale, and three times as many at one."""
    args = (runner.engine, on, *SCALED, BUCKET)
    scales = {"scale_count": scale_count, "progress_every": 1, **neural}
    optimized(*args, step_count=1, **scales).result()  # what is kept of styles is there from now on
    scaled = optimized(*args, step_count=steps, **scales)
    loss = -scaled.result().end.progress.score
    one = optimized(*args, step_count=3 * steps, progress_every=1, **neural)
    one.result()
    met = next(((s, shown.step) for s, shown in one.shown if -shown.score <= loss), None)
    work = steps * sum(SCALE ** (-2 * scale) for scale in range(scale_count))
    return Sooner(loss, work, scaled.shown[-1][0], met and met[1], met and met[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.style_losses", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every photo in every painting")
    parser.add_argument("--only", choices=("pairs", "scales"))
    parser.add_argument("--scaled-steps", type=int, default=40, help="at each scale")
    parser.add_argument("--scaled-side", type=int, default=256, help="of scales, in pixels")
    parser.add_argument("--pictures", type=Path, help="folder that the images are written to")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    on, console = model(MODEL, side_px=224), Console()
    pairs = tuple(product(PHOTOS, PAINTINGS)) if options.all else PAIRS
    ways = tuple(product(NORMALIZATIONS, STARTS, (2, 3)))
    with running(buckets=BUCKETS, limits=QueueLimits(1e12, 1e12)) as runner:
        runner.engine.warm_up(on)
        falls = {
            pair: fall(runner, on, *pair, options.pictures)
            for pair in track(() if options.only == "scales" else pairs, "pairs", console=console)
        }
        gains = {
            (norm, start, count): sooner(
                runner,
                on,
                count,
                options.scaled_steps,
                side_px=options.scaled_side,
                normalization=NORMALIZATIONS[norm],
                start=STARTS[start],
            )
            for norm, start, count in track(
                () if options.only == "pairs" else ways, "scales", console=console
            )
        }
    table = Table("photo", "painting", "style falls", "content ÷ noise's", "CPU s")
    for pair, one in falls.items():
        table.add_row(*pair, f"{one.style:.1f}×", f"{one.content:.2f}", f"{one.cpu_s:.0f}")
    table.caption = f"aims: at least {FALL_AIM:g}×, below {CONTENT_AIM:g}"
    console.print(table)
    table = Table("normalization", "start", "scales", "loss", "steps", "CPU s")
    table.add_column("steps of one size")
    table.add_column("CPU s")
    for (norm, start, count), gain in gains.items():
        figures = [f"{gain.loss:.4g}", f"{gain.steps:.0f}", f"{gain.cpu_s:.1f}"]
        one_size = (gain.one_steps, gain.one_cpu_s)
        figures += ["never" if value is None else f"{value:.4g}" for value in one_size]
        table.add_row(norm, start, str(count), *figures)
    table.caption = "until the loss is as low; steps of the last size, by pixels"
    console.print(table)
    if options.json:
        told = {
            "hardware": processor(),
            "pairs": {" in ".join(pair): asdict(one) for pair, one in falls.items()},
            "scales": {
                f"{norm} from {start}, {count} scales": asdict(one)
                for (norm, start, count), one in gains.items()
            },
        }
        options.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
