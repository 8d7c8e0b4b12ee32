"""`pellucid styles train`."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from ..engine.device import make_deterministic, pick_device
from ..errors import quoted
from ..methods.stylize.neural import default_layers, same_area
from ..models.architectures import ARCHITECTURES, WeightsError
from ..models.folders import BadFolder
from ..models.registry import Model, load_folder, load_model
from ..models.sizes import UnfitSize
from ..models.styles.library import MOST_LICENCE_CHARACTERS, NAME, STYLE_FILE, taken_names
from ..models.styles.network import SHRINK
from ..models.trials import UnservableNetwork
from ..photos import BadPhoto, decode
from .batches import MOST_PIXELS, NoPhotos, PhotoFolder
from .checkpoint import BadCheckpoint, Checkpoint
from .folder import PREVIEW_FILE, WEIGHTS_FILE, Occupied, StyleFolder
from .losses import BlindLayer, PerceptualLoss
from .sheet import PHOTO_COUNT, sheet
from .training import Diverged, Losses, Settings, Training, computed_with, run, to_rows

_MOST_NAMED = 20
"""Photos that could not be used, before the others are counted."""
_LEAST_SIDE_PX, _MOST_SIDE_PX = 64, 1024
_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10_000_000),
    "size": (_LEAST_SIDE_PX, _MOST_SIDE_PX),
    "style-size": (_LEAST_SIDE_PX, _MOST_SIDE_PX),
    "batch": (1, 64),
    "seed": (0, 2**62),
    "learning-rate": (1e-6, 1),
    "content-weight": (0, 1e6),
    "style-weight": (0, 1e6),
    "tv-weight": (0, 1e6),
    "checkpoint-every": (1, 1_000_000),
    "preview-every": (1, 1_000_000),
    "log-every": (1, 1_000_000),
}


class _Refused(Exception):
    """An option that cannot be; the message says why."""


def train(
    painting: Annotated[Path, typer.Argument(help="The style: a JPEG, PNG or WebP file.")],
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="Photos to train on, also in folders of it.")
    ],
    steps: Annotated[int, typer.Option(help="From the first, those before --resume too.")],
    name: Annotated[str, typer.Option(help="Of the style, as callers will name it.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="styles/NAME if unset."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="Whose eyes: embedded, or a model folder.")
    ] = "efficientnet_lite0",
    content_layer: Annotated[
        list[str] | None,
        typer.Option(help="Again for more; the second of the style's if unset."),
    ] = None,
    style_layer: Annotated[
        list[str] | None, typer.Option(help="Again for more; by architecture if unset.")
    ] = None,
    content_weight: Annotated[float, typer.Option(help="Of what is kept of the photo.")] = 1.0,
    style_weight: Annotated[float, typer.Option(help="Of what is taken from PAINTING.")] = 1.0,
    tv_weight: Annotated[float, typer.Option(help="Of smoothness.")] = 1.0,
    size: Annotated[
        int, typer.Option(help=f"Side of the crops, 64 to 1024 px, a multiple of {SHRINK}.")
    ] = 256,
    style_size: Annotated[
        int | None, typer.Option(help="PAINTING gets the area of its square; --size if unset.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops of a step, 1 to 64.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of first weights, of photos' order and crops.")] = 0,
    licence: Annotated[
        str, typer.Option(metavar="SPDX", help="Of the weights that are made; none if unset.")
    ] = "",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where it runs.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that FOLDER holds.")
    ] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    preview_every: Annotated[int, typer.Option(help=f"Steps between {PREVIEW_FILE}s.")] = 500,
    log_every: Annotated[int, typer.Option(help="Steps between looks at the losses.")] = 10,
) -> None:
    """Trains a network that paints any photo like PAINTING in one pass, and makes it a style.

    Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155).
    """
    numbers = {
        "steps": steps,
        "size": size,
        "style-size": size if style_size is None else style_size,
        "batch": batch,
        "seed": seed,
        "learning-rate": learning_rate,
        "content-weight": content_weight,
        "style-weight": style_weight,
        "tv-weight": tv_weight,
        "checkpoint-every": checkpoint_every,
        "preview-every": preview_every,
        "log-every": log_every,
    }
    target = Path("styles") / name if output is None else output
    console = Console(stderr=True)
    try:
        _check(numbers, name, licence, taken_names(target.parent, target))
        data, picture = _read_painting(painting, int(numbers["style-size"]))
        photos = _of("--images", PhotoFolder, images)
        shown = _of("--images", photos.first, PHOTO_COUNT, size)
        place = _pick_device(device)
        eyes = _load(model, size, place)
        layers = _layers(eyes, content_layer, style_layer, [(size, size), picture.shape[:2]])
        settings = Settings(
            painting_sha256=hashlib.sha256(data).hexdigest(),
            photos_sha256=photos.sha256,
            photo_count=len(photos.names),
            model=eyes.name,
            model_sha256=eyes.weights_sha256,
            content_layers=layers[0],
            style_layers=layers[1],
            content_weight=content_weight,
            style_weight=style_weight,
            tv_weight=tv_weight,
            size_px=size,
            style_size_px=int(numbers["style-size"]),
            batch_size=batch,
            learning_rate=learning_rate,
            seed=seed,
        )
        training = Training(settings, _loss(eyes, picture, settings, place), place)
        folder = StyleFolder(target, resumed=resume)
        if folder.kept is not None:
            _restore(training, folder.kept, steps, console)
    except (_Refused, Occupied, BadCheckpoint) as refusal:
        _say(console, str(refusal))
        raise typer.Exit(2) from None
    except (OSError, WeightsError) as error:
        _say(console, str(error))
        raise typer.Exit(1) from None
    try:
        folder.save(training)  # so that there is always one to go on from
        with _Bar(console, training.step, steps) as bar:
            run(
                training,
                photos,
                steps,
                log_every=log_every,
                noted=bar.show,
                each=[
                    (checkpoint_every, lambda: folder.save(training)),
                    (
                        preview_every,
                        lambda: folder.preview(sheet(picture, shown, training.network, place)),
                    ),
                ],
            )
        folder.publish(training, name=name, licence=licence)
    except KeyboardInterrupt:
        _say(console, f"stopped after step {training.step}; --resume goes on from the checkpoint")
        raise typer.Exit(130) from None
    except (Diverged, NoPhotos, OSError, torch.OutOfMemoryError) as error:
        _say(console, f"after step {training.step}: {error}")
        raise typer.Exit(1) from None
    _report(training, photos, target, console)


def _check(numbers: Mapping[str, float], name: str, licence: str, taken: Collection[str]) -> None:
    for option, value in numbers.items():
        least, most = _RANGES[option]
        if not least <= value <= most:  # nor is what is no number
            raise _Refused(f"--{option}: is {value}; must be {least} to {most}")
    if numbers["size"] % SHRINK:
        raise _Refused(f"--size: is {numbers['size']}; must be a multiple of {SHRINK}")
    if not (numbers["content-weight"] or numbers["style-weight"]):
        raise _Refused("--style-weight: is 0, and so is --content-weight; one must be more")
    if not NAME.fullmatch(name):
        raise _Refused(
            f"--name: is {quoted(name)}; must be of 1 to 64 letters, digits, blanks, - and _"
        )
    if name in taken:
        raise _Refused(f"--name: is {quoted(name)}, which is the name of another style already")
    if len(licence) > MOST_LICENCE_CHARACTERS:
        raise _Refused(
            f"--licence: has {len(licence)} characters; at most {MOST_LICENCE_CHARACTERS}"
        )


def _read_painting(file: Path, side_px: int) -> tuple[bytes, NDArray[np.uint8]]:
    """Its bytes, and its pixels at the area of a square."""
    if not file.is_file():
        raise _Refused(f"PAINTING: there is no file {file}")
    data = file.read_bytes()
    try:
        pixels = decode(data, max_pixels=MOST_PIXELS)
    except BadPhoto as error:
        raise _Refused(f"PAINTING: {file}: {error}") from None
    height, width = same_area((side_px, side_px), *pixels.shape[:2])
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return data, np.array(resized)


_Made = TypeVar("_Made")


def _of(option: str, make: Callable[..., _Made], *arguments: Any) -> _Made:
    try:
        return make(*arguments)
    except NoPhotos as error:
        raise _Refused(f"{option}: {error}") from None


def _pick_device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise _Refused(f"--device: is {quoted(name)}; must be auto, cpu or cuda")
    try:
        device = pick_device(name)
    except RuntimeError as error:
        raise _Refused(f"--device: {error}") from None
    if device.type == "cuda":
        make_deterministic()
    return device


def _load(name: str, size_px: int, device: torch.device) -> Model:
    """An embedded network, or that of a model folder."""
    try:
        if name in ARCHITECTURES:
            return load_model(name, device=device, side_px=size_px)
        if Path(name).is_dir():
            return load_folder(Path(name).resolve(), device=device)
    except (BadFolder, UnservableNetwork) as error:
        raise _Refused(f"--model: {name}: {error}") from None
    raise _Refused(
        f"--model: is {quoted(name)}; must be a model folder, or one of {', '.join(ARCHITECTURES)}"
    )


def _layers(
    model: Model,
    content: Sequence[str] | None,
    style: Sequence[str] | None,
    sizes: Sequence[tuple[int, ...]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the layers of content and of style, which have maps at all sizes."""
    if model.network.white_box_refusal is not None:
        raise _Refused(f"--model: {model.network.white_box_refusal}")
    usual = tuple(name for name, _ in default_layers(model)[1])
    styles = tuple(style or usual)
    chosen = {"style": styles, "content": tuple(content or styles[1:2] or styles)}
    for height, width in sizes:
        try:
            shapes = model.network.shapes_at(height, width)
        except UnfitSize as error:
            raise _Refused(
                f"--size: {model.name} takes no {width} × {height} px: {error}"
            ) from None
        for option, names in chosen.items():
            for name in names:
                layer = model.network.layer(name)
                if layer is None:
                    raise _Refused(
                        f"--{option}-layer: {model.name} has no layer {quoted(name)}; "
                        f"pellucid models {model.name} lists them"
                    )
                if not layer.targetable or not layer.at(shapes[name]).spatial:
                    raise _Refused(
                        f"--{option}-layer: {quoted(name)} has no maps of more than one place "
                        f"on {width} × {height} px"
                    )
    for option, names in chosen.items():
        if len(set(names)) < len(names):
            raise _Refused(f"--{option}-layer: names one twice")
    return chosen["content"], chosen["style"]


def _loss(
    model: Model, picture: NDArray[np.uint8], settings: Settings, device: torch.device
) -> PerceptualLoss:
    painting = to_rows(picture[None], device)[0]
    layers = (settings.content_layers, settings.style_layers)
    try:
        return PerceptualLoss(model, painting, *layers, settings.weights)
    except BlindLayer as error:
        raise _Refused(f"PAINTING: layer {error} of {model.name} is 0 all over on it") from None


def _restore(training: Training, kept: Checkpoint, steps: int, console: Console) -> None:
    training.restore(kept)
    if training.step > steps:
        raise _Refused(f"--steps: is {steps}; the checkpoint is of step {training.step}")
    before, now = kept.header["computed_with"], computed_with(training.device)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            _say(
                console,
                f"{name} was {before.get(name)}, is {now.get(name)}: it goes on close by, and "
                "not to the same bits",
            )
    _say(console, f"going on from step {training.step}")


class _Bar:
    """Steps, time and losses: a bar on a terminal, else a line whenever losses are looked at."""

    def __init__(self, console: Console, done: int, steps: int) -> None:
        self._console, self._steps = console, steps
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            "{task.description}", *columns, console=console, disable=not console.is_terminal
        )
        self._task = self._progress.add_task("", total=steps, completed=done)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, losses: Losses) -> None:
        text = _in_words(losses)
        self._progress.update(self._task, description=text, completed=losses.step)
        if not self._console.is_terminal:
            _say(self._console, f"step {losses.step} of {self._steps}: {text}")


def _in_words(losses: Losses) -> str:
    return (
        f"loss {losses.loss:.4g}, content {losses.content:.4g}, style {losses.style:.4g}, "
        f"tv {losses.tv:.4g}"
    )


def _report(training: Training, photos: PhotoFolder, target: Path, console: Console) -> None:
    for name, why in list(photos.bad.items())[:_MOST_NAMED]:
        _say(console, f"skipped {name}: {why}")
    if photos.bad:
        _say(console, f"skipped {len(photos.bad)} of {len(photos.names)} files")
    if training.history:
        print(f"first    {_in_words(training.history[0])}")
        print(f"last     {_in_words(training.history[-1])}")
    for file in (WEIGHTS_FILE, STYLE_FILE, PREVIEW_FILE):
        print(f"written  {target / file}")
    print(f"served   after a restart with --styles {target.parent}")


def _say(console: Console, text: str) -> None:
    console.print(f"pellucid: {text}", markup=False, highlight=False, soft_wrap=True)
