"""Photos in which it is known where the answer comes from, and a network trained on such photos.

A patch of checkers, stripes, dots or rings is pasted into a photo, and the network says which it
is, or that there is none. Nothing else in a photo tells: its background, the patch's place, size
and colors, and a plain square pasted into every second photo are drawn without regard to the
class. So an explanation that is right points at the patch, whose box is in truth.json.

    python examples/planted.py train    # writes examples/planted/: the model folder, the photos
    python examples/planted.py check    # measures, from what is there, what the network relies on

Photos depend on seeds alone, to the bit: scikit-image's PNGs and integer arithmetic make them.
Training takes some minutes on one core. Run again with the same version of torch on the same kind
of processor, it writes the same weights; elsewhere they may differ, and the committed ones count.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import timm
import torch
import typer
import yaml
from numpy.typing import NDArray
from pellucid_server.models.registry import Model, load_folder
from PIL import Image
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).with_suffix("")
MODEL = HERE / "model" / "planted"
PHOTOS = HERE / "photos"
TRUTH = PHOTOS / "truth.json"

ARCHITECTURE = "timm/test_resnet"
SIDE_PX = 96
MEAN = STD = 0.5
PHOTO_COUNT = 40
STEP_COUNT, BATCH_SIZE = 600, 60
PEAK_LEARNING_RATE = 4e-3
CHECK_COUNT = 1000

RIGHT_AT_LEAST = 0.98
"""Of photos: the share that the network must answer right."""
KEPT_AT_MOST = 0.02
"""Of right answers: the share that may stay when the patch is gone."""

SOURCES = (
    *("cat", "coffee", "astronaut", "motorcycle", "immunohistochemistry"),
    *("camera", "coins", "brick", "gravel", "grass", "clock", "moon"),
)
"""Free photos that come with scikit-image, as PNGs: they decode to the same pixels everywhere."""
TRAINING_SHARE = 0.55
"""Of each source's columns, from the left: crops for training lie in these, others in the rest."""
PATCH_PX = (20, 28)
LEAST_CONTRAST = 80
"""Between a patch's two colors, in grey levels."""
SUBPIXELS = 4
"""A patch's pixel is the mean of this many samples each way."""

Photo = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, width and height, in pixels."""


class Draws:
    """Random numbers that are a function of a seed alone, in every version of Python.

    Args:
        seed: What is drawn for; its text counts.
    """

    def __init__(self, *seed: object) -> None:
        self._random = random.Random("/".join(map(str, seed)))

    def real(self, low: float, high: float) -> float:
        """From low up to, but not including, high."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return low + int((high - low + 1) * self._random.random())


# Patches: which of two colors a point has. x and y are in pixels from the patch's centre.

Points = NDArray[np.float64]


def _turned(draws: Draws, x: Points, y: Points) -> tuple[Points, Points]:
    """The points in a grid that is turned and shifted at random."""
    angle = draws.real(0, math.pi)
    cosine, sine = math.cos(angle), math.sin(angle)
    shift_x, shift_y = draws.real(0, 16), draws.real(0, 16)
    return cosine * x + sine * y + shift_x, cosine * y - sine * x + shift_y


def checker(draws: Draws, x: Points, y: Points) -> NDArray[np.bool_]:
    x, y = _turned(draws, x, y)
    cell_px = draws.real(3.5, 5)
    return (np.floor(x / cell_px) + np.floor(y / cell_px)) % 2 == 0


def stripes(draws: Draws, x: Points, y: Points) -> NDArray[np.bool_]:
    x, _ = _turned(draws, x, y)
    return x / draws.real(5, 8) % 1 < 0.5


def dots(draws: Draws, x: Points, y: Points) -> NDArray[np.bool_]:
    x, y = _turned(draws, x, y)
    spacing_px = draws.real(6, 8)
    return (x / spacing_px % 1 - 0.5) ** 2 + (y / spacing_px % 1 - 0.5) ** 2 < 0.3**2


def rings(draws: Draws, x: Points, y: Points) -> NDArray[np.bool_]:
    x, y = x + draws.real(-3, 3), y + draws.real(-3, 3)
    return (np.sqrt(x * x + y * y) / draws.real(5, 8) + draws.real(0, 1)) % 1 < 0.5


KINDS: tuple[Callable[[Draws, Points, Points], NDArray[np.bool_]], ...]
KINDS = (checker, stripes, dots, rings)
LABELS = ("none", *(kind.__name__ for kind in KINDS))


def _color(draws: Draws) -> NDArray[np.int64]:
    return np.array([draws.whole(0, 255) for _ in range(3)])


def patch(draws: Draws, target: int, side_px: int) -> Photo:
    """A square of one of KINDS, in two colors that contrast.

    Args:
        draws: Where it is drawn from.
        target: Its class, at least 1.
        side_px: Its side.
    """
    first, second = _color(draws), _color(draws)
    while abs(int(first.sum()) - int(second.sum())) < 3 * LEAST_CONTRAST:
        first, second = _color(draws), _color(draws)
    samples = side_px * SUBPIXELS
    points = (np.arange(samples) + 0.5) / SUBPIXELS - side_px / 2
    is_first = KINDS[target - 1](draws, points[None, :], points[:, None])
    shape = (side_px, SUBPIXELS, side_px, SUBPIXELS)
    count = np.broadcast_to(is_first, (samples, samples)).reshape(shape).sum((1, 3))[..., None]
    mixed = first * count + second * (SUBPIXELS**2 - count)
    return (mixed // SUBPIXELS**2).astype(np.uint8)


# Backgrounds.


@cache
def source(name: str) -> Photo:
    """One of SOURCES, height × width × 3."""
    photo = (
        skimage.data.stereo_motorcycle()[0]
        if name == "motorcycle"
        else getattr(skimage.data, name)()
    )
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


def crop(draws: Draws, width_px: int, height_px: int, *, training: bool) -> tuple[int, int, int]:
    """A square part of a source: left, top and side, which is 1, 1.5, 2, 2.5 or 3 times SIDE_PX."""
    split = int(width_px * TRAINING_SHARE)
    low, high = (0, split) if training else (split, width_px)
    half_px = SIDE_PX // 2
    side = draws.whole(2, min(6, (high - low) // half_px, height_px // half_px)) * half_px
    return draws.whole(low, high - side), draws.whole(0, height_px - side), side


def background(draws: Draws, *, training: bool) -> Photo:
    """A part of a source at SIDE_PX, mirrored, recolored, and turned for training."""
    photo = source(SOURCES[draws.whole(0, len(SOURCES) - 1)])
    left, top, side = crop(draws, photo.shape[1], photo.shape[0], training=training)
    part = photo[top : top + side, left : left + side].astype(np.int64)
    count = 2 * side // SIDE_PX  # of half pixels each way, whose mean a pixel of the result is
    halves = part.repeat(2, axis=0)
    rows = np.sum([halves[place::count] for place in range(count)], axis=0).repeat(2, axis=1)
    pixels = np.sum([rows[:, place::count] for place in range(count)], axis=0) // count**2
    if draws.whole(0, 1):
        pixels = pixels[:, ::-1]
    if training:
        pixels = np.rot90(pixels, draws.whole(0, 3))
    gains = np.array([draws.whole(85, 115) for _ in range(3)])
    return (pixels * gains // 100 + draws.whole(-20, 20)).clip(0, 255).astype(np.uint8)


# Scenes.


@dataclass(frozen=True)
class Scene:
    """A photo, and what there is to know of it.

    Attributes:
        photo: SIDE_PX × SIDE_PX × 3.
        without: The same before its patch was pasted.
        target: Its class, an index of LABELS.
        box: Of the patch; None where there is none.
    """

    photo: Photo
    without: Photo
    target: int
    box: Box | None


def _square(draws: Draws) -> Box:
    side = draws.whole(*PATCH_PX)
    return draws.whole(0, SIDE_PX - side), draws.whole(0, SIDE_PX - side), side, side


def _apart(one: Box, other: Box) -> bool:
    return any(
        one[axis] + one[axis + 2] <= other[axis] or other[axis] + other[axis + 2] <= one[axis]
        for axis in (0, 1)
    )


def paint(photo: Photo, box: Box, what: NDArray[np.generic]) -> Photo:
    """A copy of the photo with a color, or a patch, in the box."""
    left, top, width, height = box
    painted = photo.copy()
    painted[top : top + height, left : left + width] = what
    return painted


def cut(photo: Photo, box: Box) -> Photo:
    """What is in the box."""
    left, top, width, height = box
    return photo[top : top + height, left : left + width]


def scene(target: int, *seed: object, training: bool = False) -> Scene:
    """A photo of a class, as a function of the seed."""
    draws = Draws(*seed)
    box, plain = _square(draws), _square(draws)
    while not _apart(box, plain):
        plain = _square(draws)
    without = background(draws, training=training)
    if draws.whole(0, 1):
        without = paint(without, plain, _color(draws))
    if target == 0:
        return Scene(without, without, target, None)
    return Scene(paint(without, box, patch(draws, target, box[2])), without, target, box)


def held_out(index: int) -> Scene:
    """The committed photo of that index, 0 to PHOTO_COUNT - 1."""
    return scene(1 + index % len(KINDS), "photo", index)


def file_name(index: int) -> str:
    """Of the committed photo of that index."""
    return f"{index:02d}_{LABELS[1 + index % len(KINDS)]}.png"


def index_of(name: str) -> int:
    """What file_name made the name from."""
    return int(name.partition("_")[0])


# Training.


def train_network() -> torch.nn.Module:
    """A network of ARCHITECTURE, trained on one thread; a third of the photos have no patch."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE.removeprefix("timm/"), num_classes=len(LABELS))
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=STEP_COUNT
    )
    for step in track(range(STEP_COUNT), "training"):
        targets = [max(0, place % (len(LABELS) + 1) - 1) for place in range(BATCH_SIZE)]
        scenes = [
            scene(target, "training", step, place, training=True)
            for place, target in enumerate(targets)
        ]
        logits = network(_normalized([one.photo for one in scenes]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    return network.eval()


def _normalized(photos: Sequence[Photo]) -> Tensor:
    values = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 255
    return (values - MEAN) / STD


def write_model(network: torch.nn.Module, folder: Path) -> None:
    """Writes a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, weights)
    settings = {
        "architecture": ARCHITECTURE,
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "preprocessing": {
            "stretch": True,
            "height_px": SIDE_PX,
            "width_px": SIDE_PX,
            "interpolation": "bilinear",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        },
        "labels": "labels.txt",
        "precision": "float32",
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))


def write_photos(folder: Path) -> None:
    """Writes the committed photos, none of them chosen by its answer, and truth.json."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(PHOTO_COUNT):
        one, name = held_out(index), file_name(index)
        assert one.box is not None
        Image.fromarray(one.photo).save(folder / name, optimize=True)
        truth = {"target": one.target, "boxes": [list(one.box)]}
        lines.append(f"{json.dumps(name)}: {json.dumps(truth)}")
    (folder / TRUTH.name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


# Checking.


def load() -> Model:
    """The committed network, as a server loads it."""
    return load_folder(MODEL, device=torch.device("cpu"))


def answers(model: Model, photos: Iterable[Photo]) -> NDArray[np.int64]:
    """The class that the network gives each photo."""
    inputs = torch.from_numpy(np.stack([model.preprocessing.apply(photo) for photo in photos]))
    with torch.no_grad():
        outputs = [model.network.forward(rows.float()) for rows in inputs.split(BATCH_SIZE)]
    return torch.cat([next(iter(output.values())) for output in outputs]).argmax(1).numpy()


@dataclass(frozen=True)
class Reliance:
    """What a network answers once photos are changed, as shares of the photos.

    Attributes:
        right: Of photos as they are.
        without: The class of the patch, with the background in its place.
        painted: The class of the patch, with the photo's mean color in its place.
        moved: The class of the patch, cut out and pasted into another photo's background.
        kept: Of right answers: those that stay with the background in the patch's place.
    """

    right: float
    without: float
    painted: float
    moved: float
    kept: float

    @property
    def holds(self) -> bool:
        """Whether the network relies on the patch and on nothing else."""
        return (
            min(self.right, self.moved) >= RIGHT_AT_LEAST
            and max(self.kept, self.painted) <= KEPT_AT_MOST
        )


def measure(model: Model, scenes: Sequence[Scene]) -> Reliance:
    """Asks the network about scenes with a patch, and about the same without it and moved."""
    targets = np.array([one.target for one in scenes])

    def hits(change: Callable[[int, Scene, Box], Photo]) -> NDArray[np.bool_]:
        photos = []
        for index, one in enumerate(scenes):
            assert one.box is not None
            photos.append(change(index, one, one.box))
        return answers(model, photos) == targets

    def moved(index: int, one: Scene, box: Box) -> Photo:
        return paint(scenes[index - 1].without, box, cut(one.photo, box))

    right = hits(lambda _index, one, _box: one.photo)
    without = hits(lambda _index, one, _box: one.without)
    painted = hits(lambda _index, one, box: paint(one.photo, box, one.photo.mean((0, 1))))
    return Reliance(
        right=float(right.mean()),
        without=float(without.mean()),
        painted=float(painted.mean()),
        moved=float(hits(moved).mean()),
        kept=float(without[right].mean()) if right.any() else 1.0,
    )


def committed() -> list[Scene]:
    """The committed photos, with the truth that is written of them."""
    scenes = []
    for name, truth in json.loads(TRUTH.read_text()).items():
        photo = np.asarray(Image.open(PHOTOS / name))
        without = held_out(index_of(name)).without
        scenes.append(Scene(photo, without, truth["target"], tuple(truth["boxes"][0])))
    return scenes


app = typer.Typer(
    help="Photos with a planted patch, and a network that relies on it.", add_completion=False
)


@app.command()
def train() -> None:
    """Trains the network, and writes the model folder, the photos and truth.json."""
    write_model(train_network(), MODEL)
    write_photos(PHOTOS)
    check()


@app.command()
def check() -> None:
    """Measures what the network relies on; exit code 1 if it is not the patch alone."""
    torch.set_num_threads(1)
    model = load()
    fresh = [scene(1 + index % len(KINDS), "check", index) for index in range(CHECK_COUNT)]
    holds = True
    for name, scenes in (("committed", committed()), ("fresh", fresh)):
        found = measure(model, scenes)
        holds &= found.holds
        print(f"{len(scenes)} {name} photos, of crops that no training photo shows")
        print(f"  answered right: {found.right:.1%}")
        print(f"  with the background in the patch's place: {found.without:.1%}")
        print(f"    right answers that stay then: {found.kept:.1%}")
        print(f"  with the photo's mean color in the patch's place: {found.painted:.1%}")
        print(f"  with the patch in another photo instead: {found.moved:.1%}")
    empty = [scene(0, "check empty", index).photo for index in range(CHECK_COUNT)]
    share = float((answers(model, empty) == LABELS.index("none")).mean())
    print(f"{len(empty)} fresh photos without a patch\n  answered right: {share:.1%}")
    if not holds:
        raise SystemExit("the network does not rely on the patch alone")


if __name__ == "__main__":
    app()
