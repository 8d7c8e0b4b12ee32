"""The styles of a server: the published networks, and those that its users have trained.

A folder holds the files that `pellucid models pull styles` makes, and for each trained network a
folder of its own with a style.yaml:

    kind: johnson
    file: mosaic.safetensors
    name: mosaic
    licence: CC0-1.0
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, ValidationError

from ..folders import BadFolder, StrictSettings, complaints, inside, read_mapping
from ..registry import FailedModel, Precision, loaded
from ..weights import sha256_of
from .arbitrary import PREDICT_FILE, TRANSFORM_FILE, Predictor, load_arbitrary, load_predictor
from .johnson import load_johnson
from .multistyle import MULTISTYLE_FILE, STYLE_NAMES, load_multistyle
from .network import RowNetwork, StyleNetwork

STYLE_FILE = "style.yaml"
CHECKPOINT_FILE = "checkpoint.safetensors"
"""Of a training, which makes a STYLE_FILE at its end."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}")
"""Of a style."""
MOST_LICENCE_CHARACTERS = 64
PREFIX = "styles/"
"""Of the names of networks, which no model's name can begin with."""
_PREDICTOR = f"{PREFIX}predictor"


@dataclass(frozen=True)
class StyleModel:
    """A loaded network of fast style.

    Attributes:
        name: "styles/multistyle26" and the like.
        version: The first 12 digits of weights_sha256.
        weights_sha256: Of its file.
    """

    name: str
    network: RowNetwork
    weights_sha256: str
    precision: ClassVar[Precision] = Precision.FLOAT32

    @property
    def version(self) -> str:
        return self.weights_sha256[:12]


@dataclass(frozen=True)
class Painter(StyleModel):
    """One that paints."""

    network: StyleNetwork


@dataclass(frozen=True)
class CodeModel(StyleModel):
    """The one that predicts codes of pictures."""

    network: Predictor


class Library:
    """All of them, and which network has which style.

    Args:
        loaded: Networks; those that could not be loaded say why.
    """

    def __init__(self, loaded: Sequence[StyleModel | FailedModel] = ()) -> None:
        self._places: dict[str, tuple[Painter, int]] = {}
        self.painters: list[Painter] = []
        self.failed = [one for one in loaded if isinstance(one, FailedModel)]
        self.predictor = next((one for one in loaded if isinstance(one, CodeModel)), None)
        for one in loaded:
            if isinstance(one, Painter):
                self._add(one)

    def _add(self, painter: Painter) -> None:
        places = {name: (painter, index) for index, name in enumerate(painter.network.styles)}
        taken = [name for name in places if name in self._places]
        if taken:
            self.failed.append(FailedModel(painter.name, f"there is a style {taken[0]!r} already"))
        else:
            self.painters.append(painter)
            self._places |= places

    def __bool__(self) -> bool:
        return bool(self.painters)

    @property
    def names(self) -> Sequence[str]:
        """Of all styles that have one."""
        return tuple(self._places)

    def find(self, name: str) -> tuple[Painter, int] | None:
        """The network that knows a style, and the style's index there; None: none does."""
        return self._places.get(name)

    @property
    def arbitrary(self) -> tuple[Painter, CodeModel] | None:
        """The pair that takes any picture as a style."""
        painter = next((one for one in self.painters if not one.network.styles), None)
        if painter is None or self.predictor is None:
            return None
        return painter, self.predictor


def style_loads(
    folder: Path | None, *, device: torch.device
) -> Iterator[Callable[[], StyleModel | FailedModel]]:
    """The loading of every network of a folder, one at a time; see registry.loads."""
    if folder is None:
        return
    published: tuple[tuple[str, str, Callable[[Path], StyleModel]], ...] = (
        ("multistyle26", MULTISTYLE_FILE, partial(_painter, "multistyle26", load_multistyle)),
        ("arbitrary", TRANSFORM_FILE, partial(_painter, "arbitrary", load_arbitrary)),
        ("predictor", PREDICT_FILE, _code_model),
    )
    for name, file, load in published:
        if (folder / file).exists():
            yield partial(loaded, f"{PREFIX}{name}", partial(_on, device, load, folder / file))
    for inner in _inner(folder):
        yield partial(loaded, f"{PREFIX}{inner.name}", partial(_on, device, _of_folder, inner))


def taken_names(folder: Path, but: Path) -> frozenset[str]:
    """Names that one more style of a folder cannot have: those of others, and the published.

    Args:
        folder: Of all styles; it need not be there yet.
        but: The folder of that one.
    """
    names = set(STYLE_NAMES)
    for inner in _inner(folder) if folder.is_dir() else ():
        with suppress(BadFolder):
            if inner != but:
                names.add(_settings_of(inner).name)
    return frozenset(names)


def _inner(folder: Path) -> Iterator[Path]:
    """Folders of trained networks, but for those that are being trained."""
    for inner in sorted(folder.iterdir()):
        trained = (inner / STYLE_FILE).exists() or not (inner / CHECKPOINT_FILE).exists()
        if inner.is_dir() and not inner.name.startswith(".") and trained:
            yield inner


def _on(device: torch.device, load: Callable[[Path], StyleModel], file: Path) -> StyleModel:
    made = load(file)
    made.network.to(device)
    return made


def _painter(name: str, load: Callable[[Path], StyleNetwork], file: Path) -> Painter:
    return Painter(f"{PREFIX}{name}", load(file), sha256_of(file))


def _code_model(file: Path) -> CodeModel:
    return CodeModel(_PREDICTOR, load_predictor(file), sha256_of(file))


def _plain(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("must be of 1 to 64 letters, digits, blanks, - and _")
    return name


class StyleSettings(StrictSettings):
    """What a style.yaml says.

    Attributes:
        kind: The layout of the network.
        file: Its weights, safetensors or ONNX, in the same folder.
        name: Of its style.
        licence: SPDX identifier of the weights'.
        trained: What it was trained on, where `pellucid styles train` made it.
    """

    kind: Literal["johnson"]
    file: Annotated[str, Field(min_length=1, max_length=255)]
    name: Annotated[str, AfterValidator(_plain)]
    licence: Annotated[str, Field(max_length=MOST_LICENCE_CHARACTERS)] = ""
    trained: dict[str, Any] | None = None


def _settings_of(folder: Path) -> StyleSettings:
    value = read_mapping(folder, STYLE_FILE)
    try:
        return StyleSettings.model_validate(value)
    except ValidationError as error:
        raise BadFolder(f"{STYLE_FILE}: {complaints(error, StyleSettings)}") from None


def _of_folder(folder: Path) -> Painter:
    settings = _settings_of(folder)
    try:
        file = inside(folder, settings.file)
    except BadFolder as error:
        raise BadFolder(f"{STYLE_FILE}: file {error}") from None
    load = partial(load_johnson, name=settings.name, licence=settings.licence)
    return _painter(folder.name, load, file)
