"""`pellucid index`."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from pellucid.errors import BadArgument
from pellucid.folders import photos_in
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..engine.device import pick_device
from ..models.architectures import BadArchitecture, WeightsError
from ..models.folders import BadFolder
from ..models.registry import Model, Precision, load_folder, load_model
from ..models.trials import UnservableNetwork
from .build import Built, Options, build, choose_layers
from .manifest import BadIndex
from .progress import Refused

_RANGES = {"top-k": (1, 100), "batch": (1, 256), "input-px": (32, 1024)}
_PRECISIONS = tuple(one.value for one in Precision)
_MOST_NAMED = 20
"""Photos that could not be used, before the others are counted."""


def index(
    photos: Annotated[
        Path, typer.Argument(metavar="DIR", help="Of photos, also in folders of it.")
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="Embedded, or a model folder.")
    ] = "efficientnet_lite0",
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Whose channels; all: every layer with maps; those with weights if unset.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Of the index; by model and version in the user's data folder if unset.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Patches to keep of every channel, 1 to 100.")] = 9,
    batch: Annotated[int, typer.Option(help="Photos of a batch, 1 to 256.")] = 16,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Keep every pixel of pictures, at three times the space."),
    ] = False,
    input_px: Annotated[
        int, typer.Option(help="Side of an embedded model's input, as of serve.")
    ] = 224,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where it runs.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(_PRECISIONS),
            help="Arithmetic of an embedded model, as of serve; float32 if unset.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Finds the patches of photos that excite each unit most, and codes to find photos by.

    The same command goes on with an index that was left half-written. `pellucid serve --index
    FOLDER` mounts it.
    """
    console = Console(stderr=True)
    try:
        for name, value in (("top-k", top_k), ("batch", batch), ("input-px", input_px)):
            least, most = _RANGES[name]
            if not least <= value <= most:
                raise Refused(f"--{name}: is {value}; must be {least} to {most}")
        paths = photos_in(photos, nested=True, apart_from=out)
        loaded = _load(model, device, precision, input_px)
        chosen = choose_layers(loaded, None if layers is None else layers.split(","))
        folder = _default_folder(loaded) if out is None else out
        options = Options(chosen, top_k, batch, lossless)
        with _bar(console) as show:
            built = build(loaded, options, photos, paths, folder, show)
    except (Refused, BadArgument, BadFolder, BadArchitecture, BadIndex) as refusal:
        _say(str(refusal))
        raise typer.Exit(2) from None
    except (OSError, RuntimeError, WeightsError, UnservableNetwork) as error:
        _say(str(error))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        raise typer.Exit(130) from None
    _report(built)


def _load(name: str, device: str, precision: str | None, input_px: int) -> Model:
    if device not in ("auto", "cpu", "cuda"):
        raise Refused(f"--device: is {device!r}; must be auto, cpu or cuda")
    if precision not in (None, *_PRECISIONS):
        allowed = f"{', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}"
        raise Refused(f"--precision: is {precision!r}; must be {allowed}")
    place: torch.device = pick_device(device)
    if Path(name).is_dir():
        if precision is not None:
            raise Refused("--precision: is for embedded models; a model folder says its own")
        return load_folder(Path(name), device=place)
    arithmetic = Precision.FLOAT32 if precision is None else Precision(precision)
    try:
        return load_model(name, device=place, precision=arithmetic, side_px=input_px)
    except BadArchitecture as error:
        raise Refused(f"--model: {name!r} is no model folder, and {error}") from None


def _default_folder(model: Model) -> Path:
    """By the XDG base directory specification."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    precision = "" if model.precision is Precision.FLOAT32 else f"-{model.precision.value}"
    return data / "pellucid" / "indices" / model.name / f"{model.version}{precision}"


class _Rate(ProgressColumn):
    """Photos a second of this run."""

    def render(self, task: Task) -> Text:
        elapsed_s = time.monotonic() - task.fields["started_s"]
        rate = (task.completed - task.fields["earlier"]) / max(elapsed_s, 1e-9)
        return Text(f"{rate:.1f} photos/s")


@contextmanager
def _bar(console: Console) -> Iterator["_Show"]:
    """A bar on the terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Show(progress)


class _Show:
    """Tells a bar how much is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task(
            "indexing", total=None, earlier=0, started_s=time.monotonic()
        )
        self._shown = False

    def __call__(self, done: int, count: int) -> None:
        if not self._shown:
            self._progress.update(self._task, earlier=done, started_s=time.monotonic())
            self._shown = True
        self._progress.update(self._task, completed=done, total=count)


def _report(built: Built) -> None:
    about = built.about
    for name, reason in built.failures[:_MOST_NAMED]:
        print(f"{name}: {reason}")
    if len(built.failures) > _MOST_NAMED:
        print(f"and {len(built.failures) - _MOST_NAMED} more; the table failures has all of them")
    earlier = f", {built.earlier_count} of all in earlier runs" if built.earlier_count else ""
    print(
        f"{about['photo_count']} photos indexed, {about['failed_count']} failed{earlier}: "
        f"{about['channel_count']} units of {len(about['layers'])} layers, "
        f"version {about['version']}"
    )
    print(f"written  {built.folder}")


def _say(text: str) -> None:
    print(f"pellucid: {text}", file=sys.stderr)
