"""Model folders: a model.yaml, a safetensors or an ONNX file, and labels.

Whatever such a folder holds, nothing of it is run or unpickled, nothing outside it is read,
and every size is capped before memory is spent.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.functional_validators import AfterValidator
from torch import nn

from ..errors import quoted
from ..photos import Preprocessing
from .architectures import (
    BadArchitecture,
    Built,
    build_network,
    imagenet_labels,
    is_known,
    known_architectures,
    training_heads,
)
from .onnx.file import MOST_ONNX_BYTES, BadOnnx, DType, Expected, Layout, read_onnx
from .weights import (
    MOST_CLASSES,
    BadWeights,
    Entry,
    class_count_of,
    load_weights,
    read_header,
    sha256_of,
)

_Read = TypeVar("_Read")

SETTINGS_FILE = "model.yaml"
_MOST_SETTINGS_BYTES = 64 << 10
_MOST_LABELS_BYTES = 4 << 20
_MOST_NAME_CHARACTERS = 64
_MOST_INPUT_PX = 2048


class BadFolder(ValueError):
    """A model folder that is refused; the message says why."""


def why_not_a_name(name: str) -> str | None:
    """What is wrong with a model's name, if anything."""
    if not name or len(name) > _MOST_NAME_CHARACTERS:
        return f"a name has 1 to {_MOST_NAME_CHARACTERS} characters, this one {len(name)}"
    if name.startswith("."):
        return "a name does not start with a dot"
    if set("/:") & set(name) or not name.isprintable():
        return "a name has no / and no :, and only characters that can be printed"
    return None


# What model.yaml says.


class StrictSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(architecture: str) -> str:
    if not is_known(architecture):
        near = get_close_matches(architecture, known_architectures(), n=3)
        hint = f", for example {' or '.join(near)}" if near else ""
        raise ValueError(f"must be torchvision/NAME or timm/NAME of a network of theirs{hint}")
    return architecture


_Count = Annotated[int, Field(strict=True, ge=1)]
_Side = Annotated[int, Field(strict=True, ge=1, le=_MOST_INPUT_PX)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Positive = Annotated[_Number, Field(gt=0)]
_Path = Annotated[str, Field(min_length=1, max_length=255)]
_Name = Annotated[str, Field(min_length=1, max_length=255)]
Architecture = Annotated[str, Field(max_length=128), AfterValidator(_known)]


class PreprocessingSettings(StrictSettings):
    """How a photo becomes the input; photos.Preprocessing has the meanings."""

    resize_shorter_side_px: Annotated[int, Field(strict=True, ge=1, le=16_384)] | None = None
    stretch: Annotated[bool, Field(strict=True)] = False
    height_px: _Side
    width_px: _Side
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[_Number, _Number, _Number]
    std: tuple[_Positive, _Positive, _Positive]

    @model_validator(mode="after")
    def _is_sensible(self) -> "PreprocessingSettings":
        if self.stretch == (self.resize_shorter_side_px is not None):
            raise ValueError("must have either resize_shorter_side_px or stretch: true")
        self.steps()
        return self

    def steps(self) -> Preprocessing:
        return Preprocessing(
            resize_shorter_side_px=self.resize_shorter_side_px or 0,
            height_px=self.height_px,
            width_px=self.width_px,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


class Limits(StrictSettings):
    """What a model may take of the device.

    Attributes:
        max_bucket_size: The largest batch that the server chooses for it by itself, rows.
    """

    max_bucket_size: _Count | None = None


UNLIMITED = Limits()


class FolderSettings(StrictSettings):
    """What the model.yaml of every platform says."""

    weights: _Path
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    preprocessing: PreprocessingSettings
    labels: _Path | None = None
    limits: Limits = UNLIMITED


class TorchSettings(FolderSettings):
    """Of a network of torchvision or timm, whose weights are a safetensors file."""

    platform: Literal["torch"] = "torch"
    architecture: Architecture
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"


class InputSettings(StrictSettings):
    """The graph's input.

    Attributes:
        name: None: the only one.
        layout: The order of its axes.
        dtype: Of its elements, and of the output's.
    """

    name: _Name | None = None
    layout: Layout = "NCHW"
    dtype: DType = "float32"


class OutputSettings(StrictSettings):
    """The graph's output: logits; name None: the only one."""

    name: _Name | None = None


class OnnxSettings(FolderSettings):
    """Of an ONNX file.

    Attributes:
        precision: In float64 the converted network computes everything.
    """

    platform: Literal["onnx"]
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    precision: Literal["float32", "tf32", "float64"] = "float32"

    def expected(self) -> Expected:
        return Expected(
            self.preprocessing.height_px,
            self.preprocessing.width_px,
            self.input.layout,
            self.input.dtype,
            self.input.name,
            self.output.name,
        )


_PLATFORMS: Mapping[object, type[TorchSettings | OnnxSettings]] = {
    "torch": TorchSettings,
    "onnx": OnnxSettings,
}


def read_settings(folder: Path) -> TorchSettings | OnnxSettings:
    """Reads a folder's model.yaml.

    Raises:
        BadFolder: It is missing, too large, no YAML, or says what is not allowed: every such
            thing is named.
    """
    value = read_mapping(folder, SETTINGS_FILE)
    platform = value.get("platform", "torch")
    kind = _PLATFORMS.get(platform) if isinstance(platform, str) else None
    if kind is None:
        allowed = " or ".join(map(str, _PLATFORMS))
        raise BadFolder(f"{SETTINGS_FILE}: platform must be {allowed}, is {quoted(str(platform))}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise BadFolder(f"{SETTINGS_FILE}: {complaints(error, kind)}") from None


def read_mapping(folder: Path, name: str) -> dict[str, Any]:
    """A YAML file of settings.

    Raises:
        BadFolder: It is missing, too large, or none.
    """
    value = _parse(read_text(folder, name, _MOST_SETTINGS_BYTES), name)
    if not isinstance(value, dict):
        raise BadFolder(f"{name} is not a mapping of settings")
    return value


def complaints(error: ValidationError, kind: type[BaseModel]) -> str:
    """All that is wrong with settings, in one line."""
    return "; ".join(_complaint(dict(problem), kind) for problem in error.errors())


def _complaint(problem: dict[str, Any], kind: type[BaseModel]) -> str:
    place = problem["loc"]
    field = ".".join(str(part)[:64] for part in place)
    match problem["type"]:
        case "missing":
            return f"{field} is missing"
        case "extra_forbidden":
            parents: dict[object, type[BaseModel]] = {
                "preprocessing": PreprocessingSettings,
                "limits": Limits,
                "input": InputSettings,
                "output": OutputSettings,
            }
            owner = parents.get(place[0], kind) if len(place) > 1 else kind
            return f"{field} is unknown; known there are {', '.join(owner.model_fields)}"
        case "value_error":
            what = str(problem["ctx"]["error"])
            given = problem["input"]
            return (
                f"{field}: {what}" if isinstance(given, dict) else f"{field} {what}, is {given!r}"
            )
    what = problem["msg"].replace("Input should ", "must ").replace("String should ", "must ")
    return f"{field} {what}, is {quoted(str(problem['input']))}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only: without aliases, which make much of little, and keys given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{quoted(key)} stands there twice")
        return super().construct_mapping(node, deep)


def _parse(text: str, name: str) -> Any:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise BadFolder(f"{name} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise BadFolder(f"{name} is not YAML that is read here: {where}{what}") from None


# The folder's files.


def inside(folder: Path, name: str) -> Path:
    """A file of the folder.

    Raises:
        BadFolder: It is not there, or is elsewhere.
    """
    if Path(name).is_absolute():
        raise BadFolder(f"{quoted(name)} is absolute; a path inside the folder is needed")
    try:
        root, file = folder.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte
        raise BadFolder(f"{quoted(name)} is no path") from None
    if not file.is_relative_to(root):
        raise BadFolder(f"{quoted(name)} leads out of the folder")
    if not file.is_file():  # nor a pipe, which would never end
        raise BadFolder(f"there is no file {quoted(name)} in the folder")
    return file


def _read_bytes(folder: Path, name: str, most_bytes: int) -> bytes:
    with inside(folder, name).open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        data = opened.read(most_bytes + 1) if size <= most_bytes else b""
    if max(size, len(data)) > most_bytes:
        raise BadFolder(f"{name} has more than {most_bytes} bytes")
    return data


def read_text(folder: Path, name: str, most_bytes: int) -> str:
    data = _read_bytes(folder, name, most_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFolder(f"{name} is not UTF-8, from byte {error.start} on") from None


def _read_labels(folder: Path, name: str | None) -> tuple[str, ...] | None:
    if name is None:
        return None
    if name == "imagenet":
        return imagenet_labels()
    labels = read_text(folder, name, _MOST_LABELS_BYTES).rstrip("\r\n").split("\n")
    labels = [label.strip() for label in labels]
    if "" in labels:
        raise BadFolder(f"line {labels.index('') + 1} of {name} is empty; each has a label")
    if len(labels) > MOST_CLASSES:
        raise BadFolder(f"{name} has {len(labels)} labels; at most {MOST_CLASSES} are accepted")
    return tuple(labels)


def build_folder(folder: Path, settings: TorchSettings | OnnxSettings) -> Built:
    """Builds the network of a folder and gives it its weights.

    Raises:
        BadFolder: A file is missing or is not what model.yaml says, or the weights do not fit.
    """
    if isinstance(settings, OnnxSettings):
        return _read_onnx_folder(folder, settings)
    faults = _Faults()
    labels = faults.of("labels", lambda: _read_labels(folder, settings.labels))
    file = faults.of("weights", lambda: inside(folder, settings.weights))
    entries = faults.of("weights", lambda: read_header(file)) if file else None
    digest = sha256_of(file) if file and entries is not None else ""
    faults.of_digest(digest, settings)
    faults.raise_any()
    assert file is not None
    assert entries is not None
    steps = settings.preprocessing.steps()
    dropped = training_heads(settings.architecture)
    entries = {name: entry for name, entry in entries.items() if not name.startswith(dropped)}
    try:
        module = _build(
            settings.architecture, entries, None if labels is None else len(labels), steps
        )
        load_weights(file, entries, module)
    except BadArchitecture as error:
        raise BadFolder(f"architecture: {error}") from None
    except BadWeights as error:
        raise BadFolder(f"weights: {settings.weights} {error}") from None
    return Built(settings.architecture, module, digest, steps, labels)


def _read_onnx_folder(folder: Path, settings: OnnxSettings) -> Built:
    faults = _Faults()
    labels = faults.of("labels", lambda: _read_labels(folder, settings.labels))
    data = faults.of("weights", lambda: _read_bytes(folder, settings.weights, MOST_ONNX_BYTES))
    digest = "" if data is None else hashlib.sha256(data).hexdigest()
    faults.of_digest(digest, settings)
    faults.raise_any()  # what is not the file that is stated is not parsed
    assert data is not None
    try:
        graph = read_onnx(data, settings.expected())
    except BadOnnx as error:
        raise BadFolder(f"weights: {settings.weights} {error}") from None
    return Built("onnx", graph, digest, settings.preprocessing.steps(), labels)


class _Faults:
    """What is wrong with a folder's files."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def of(self, field: str, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except (BadFolder, BadWeights) as error:
            self._found.append(f"{field}: {error}")
        return None

    def of_digest(self, digest: str, settings: FolderSettings) -> None:
        if digest and digest != settings.sha256:
            stated = f"{settings.sha256} is stated"
            self._found.append(f"sha256: of {settings.weights} is {digest}; {stated}")

    def raise_any(self) -> None:
        if self._found:
            raise BadFolder("; ".join(self._found))


def _build(
    architecture: str, entries: Mapping[str, Entry], label_count: int | None, steps: Preprocessing
) -> nn.Module:
    """The network for as many classes as there are labels, else as its weights are for."""
    size = (steps.height_px, steps.width_px)
    module, class_count = build_network(architecture, label_count, size)
    if label_count is None:
        found = class_count_of(entries, module, class_count)
        if found != class_count:
            module, _ = build_network(architecture, found, size)
    return module
