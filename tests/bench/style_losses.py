"""How far optimized style gets by its defaults, and whether scales get there sooner.

Content and style losses of photos in paintings at 256 px, 200 steps: how many times the style's has
fallen, and the content's as a share of what noise has. Then the seconds until a loss is reached,
from small to large and at one size, which are of CPU time: others may use the machine meanwhile.
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
    """Two sizes over one.

    Attributes:
        loss: What two end at.
        two_s: CPU seconds that they take.
        one_s: Those until one size is as low; None: it is not in its steps.
    """

    loss: float
    two_s: float
    one_s: float | None

    @property
    def ratio(self) -> float | None:
        return None if self.one_s is None else self.two_s / self.one_s


def sooner(runner: Runner, on: Model, small_steps: int, **neural: Any) -> Sooner:
    """Two scales with as many steps each, and one with three times as many."""
    args = (runner.engine, on, *SCALED, BUCKET)
    two = optimized(*args, scale_count=2, step_count=small_steps, progress_every=1, **neural)
    loss = -two.result().end.progress.score
    two_s = two.cpu_s
    one = optimized(*args, step_count=3 * small_steps, progress_every=1, **neural)
    one.result()
    one_s = next((cpu_s for cpu_s, shown in one.shown if -shown.score <= loss), None)
    return Sooner(loss, two_s, one_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.style_losses", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every photo in every painting")
    parser.add_argument("--scaled-steps", type=int, default=50, help="at each of two scales")
    parser.add_argument("--pictures", type=Path, help="folder that the images are written to")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    on, console = model(MODEL, side_px=224), Console()
    pairs = tuple(product(PHOTOS, PAINTINGS)) if options.all else PAIRS
    ways = tuple(product(NORMALIZATIONS, STARTS))
    with running(buckets=BUCKETS, limits=QueueLimits(optimize_ms=1e12)) as runner:
        runner.engine.warm_up(on)
        falls = {
            pair: fall(runner, on, *pair, options.pictures)
            for pair in track(pairs, "pairs", console=console)
        }
        gains = {
            way: sooner(
                runner,
                on,
                options.scaled_steps,
                normalization=NORMALIZATIONS[way[0]],
                start=STARTS[way[1]],
            )
            for way in track(ways, "scales", console=console)
        }
    table = Table("photo", "painting", "style falls", "content ÷ noise's", "CPU s")
    for pair, one in falls.items():
        table.add_row(*pair, f"{one.style:.1f}×", f"{one.content:.2f}", f"{one.cpu_s:.0f}")
    table.caption = f"aims: at least {FALL_AIM:g}×, below {CONTENT_AIM:g}"
    console.print(table)
    table = Table("normalization", "start", "loss", "two scales, s", "one, s", "two ÷ one")
    for way, gain in gains.items():
        ratio = "" if gain.ratio is None else f"{gain.ratio:.2f}"
        one_s = "never" if gain.one_s is None else f"{gain.one_s:.1f}"
        table.add_row(*way, f"{gain.loss:.4g}", f"{gain.two_s:.1f}", one_s, ratio)
    table.caption = "CPU seconds until the loss is as low"
    console.print(table)
    if options.json:
        figures = {
            "hardware": processor(),
            "pairs": {" in ".join(pair): asdict(one) for pair, one in falls.items()},
            "two_scales": {
                " from ".join(way): asdict(one) | {"ratio": one.ratio} for way, one in gains.items()
            },
        }
        options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
