"""The speed of `pellucid index` over the bare forward loop, and its memory over many photos.

Crops of the sample photos are indexed in this process. Speed: an index whose photos are decoded
already over the bare loop of the same batches, with none of the layers looked at, in turn; and an
index of files, decoding and pictures included. Aim: at most a tenth is lost without decoding.
Memory: one long index, with the resident size read after every batch; the slope is fitted to the
second half.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import skimage.data
import torch
from pellucid_server.engine.device import keep_freed_memory
from pellucid_server.index.build import Options, build, choose_layers
from pellucid_server.index.peaks import Files, LoadedFiles, Read, encode
from pellucid_server.models.registry import Model, load_model
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.bench.__main__ import processor

AIM = 0.9
SOURCES = ("cat", "coffee", "rocket", "astronaut")


def crops(folder: Path, count: int) -> list[Path]:
    """JPEG files of seeded crops."""
    rng, wholes = np.random.default_rng(0), [getattr(skimage.data, name)() for name in SOURCES]
    paths = []
    for number in range(count):
        whole = wholes[number % len(wholes)]
        side = int(rng.integers(150, 290))
        y, x = (int(rng.integers(length - side)) for length in whole.shape[:2])
        paths.append(folder / f"{number:06}.jpg")
        Image.fromarray(whole[y : y + side, x : x + side]).save(paths[-1], quality=90)
    return paths


@dataclass(frozen=True)
class Rate:
    """Photos a second of wall time, and of this process's CPU time."""

    wall: float
    cpu: float


def clocks() -> np.ndarray:
    """Seconds of both."""
    return np.array([time.perf_counter(), time.process_time()])


def bare_loop(model: Model, paths: list[Path], size: int) -> Rate:
    """The plain forward pass, batch by batch, of inputs that are there."""
    shape = (size, 3, model.network.height_px, model.network.width_px)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(model.network.device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        model.network.forward(images)[""].cpu()
        started_s = clocks()
        for _ in range(0, len(paths), size):
            model.network.forward(images)[""].cpu()
    return Rate(*(len(paths) / (clocks() - started_s)))


@contextmanager
def decoded() -> Iterator[None]:
    """Files are decoded once; then the same input and picture stand for each."""
    kept: list[tuple[torch.Tensor, bytes]] = []

    def load(self: Files, model: Model) -> LoadedFiles:
        if not kept:
            pixels = np.asarray(Image.open(self.paths[0]).convert("RGB"))
            image = model.preprocessing.apply(pixels)
            picture = encode(model.preprocessing.unnormalize(image), lossless=False)
            kept.append((torch.from_numpy(image).float(), picture))
        image, picture = kept[0]
        outcomes = tuple(Read(path, (0, 0), "", picture) for path in self.paths)
        return LoadedFiles(image.expand(len(self.paths), -1, -1, -1).contiguous(), outcomes)

    with mock.patch.object(Files, "load", load):
        yield


def index(model: Model, options: Options, folder: Path, paths: list[Path]) -> Rate:
    """From the second batch that is kept to the last: a new thread builds its kernels first."""
    marks: list[tuple[np.ndarray, int]] = []
    with tempfile.TemporaryDirectory() as out:
        build(
            model,
            options,
            folder,
            paths,
            Path(out),
            lambda done, _: marks.append((clocks(), done)),
        )
    (first_s, first), (last_s, last) = marks[2], marks[-1]
    return Rate(*((last - first) / (last_s - first_s)))


def memory(model: Model, options: Options, folder: Path, paths: list[Path]) -> dict[str, float]:
    """Resident mebibytes: at the end, and the slope over the second half a thousand photos."""
    process, sizes = psutil.Process(), list[tuple[int, float]]()
    with tempfile.TemporaryDirectory() as out:
        build(
            model,
            options,
            folder,
            paths,
            Path(out),
            lambda done, _: sizes.append((done, process.memory_info().rss / (1 << 20))),
        )
    half = np.array([one for one in sizes if one[0] >= len(paths) / 2])
    slope = float(np.polyfit(half[:, 0] / 1000, half[:, 1], 1)[0])
    return {
        "photo_count": len(paths),
        "half_mib": float(half[0, 1]),
        "end_mib": float(half[-1, 1]),
        "slope_mib_per_1000": slope,
    }


def ratio(rates: list[Rate], bare: list[Rate], clock: str) -> float:
    """The median of the turns'."""
    pairs = zip(rates, bare, strict=True)
    return float(np.median([getattr(a, clock) / getattr(b, clock) for a, b in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.index", description=__doc__)
    parser.add_argument("--photos", type=int, default=256, help="a round of speed")
    parser.add_argument("--long", type=int, default=5000, help="of memory; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--layers", default="conv_stem,blocks.2.1,blocks.4.2,blocks.6.0,conv_head")
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    asked = parser.parse_args()
    keep_freed_memory()  # for the bare loop, too
    console, device = Console(), torch.device(asked.device)
    model = load_model(asked.model, device=device, side_px=asked.input_px)
    layers = choose_layers(model, asked.layers.split(",") if asked.layers else None)
    options = Options(layers, top_k=9, bucket_size=asked.batch, lossless=False)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        paths = crops(folder, max(asked.photos, asked.long))
        few = paths[: asked.photos]
        rates: dict[str, list[Rate]] = {"bare loop": [], "index, decoded": [], "index": []}
        for _ in track(range(asked.rounds), "measuring", console=console):
            rates["bare loop"].append(bare_loop(model, few, asked.batch))
            with decoded():
                rates["index, decoded"].append(index(model, options, folder, few))
            rates["index"].append(index(model, options, folder, few))
        figures: dict[str, dict[str, float]] = {
            name: {
                "photos_per_s": float(np.median([rate.wall for rate in each])),
                "ratio": ratio(each, rates["bare loop"], "wall"),
                "cpu_ratio": ratio(each, rates["bare loop"], "cpu"),
            }
            for name, each in rates.items()
        }
        units = sum(layer.channel_count for layer in layers)
        title = f"{processor()}: {asked.model}, {len(layers)} layers, {units} units"
        table = Table("", "photos/s", "÷ bare loop", "of CPU time", "aim", title=title)
        for name, figure in figures.items():
            aim = str(AIM) if name == "index, decoded" else ""
            numbers = (figure["photos_per_s"], figure["ratio"], figure["cpu_ratio"])
            table.add_row(name, *(f"{number:.2f}" for number in numbers), aim)
        console.print(table)
        if asked.long:
            figures["memory"] = memory(model, options, folder, paths[: asked.long])
            told = figures["memory"]
            console.print(
                f"{told['photo_count']:.0f} photos: {told['half_mib']:.0f} MiB after half of "
                f"them, {told['end_mib']:.0f} at the end; {told['slope_mib_per_1000']:+.1f} MiB "
                "a thousand"
            )
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
