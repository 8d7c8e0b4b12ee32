"""The models of a server: what was loaded, and what could not be."""

import enum
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..errors import NotFound, quoted
from ..photos import Preprocessing
from .architectures import (
    ARCHITECTURES,
    BadArchitecture,
    Built,
    WeightsError,
    imagenet_labels,
)
from .folders import UNLIMITED, BadFolder, Limits, build_folder, read_settings, why_not_a_name
from .network import Network
from .onnx.file import BadOnnx, OnnxFile
from .onnx.network import AboutOnnx, build_onnx
from .styles.network import BadStyle
from .trials import UnservableNetwork

log = logging.getLogger(__name__)

_MOST_REASON = 300
"""Characters of why a model failed that an error repeats: it travels in headers, twice."""

_Loaded = TypeVar("_Loaded")


class Precision(enum.Enum):
    """The arithmetic of a loaded model."""

    FLOAT32 = "float32"
    TF32 = "tf32"
    """float32, whose factors a CUDA device may round to TF32; on the CPU, float32."""
    BFLOAT16 = "bfloat16"
    FLOAT64 = "float64"

    @property
    def dtype(self) -> torch.dtype:
        """What the network's tensors are kept in."""
        name = "float32" if self is Precision.TF32 else self.value
        dtype: torch.dtype = getattr(torch, name)
        return dtype


@dataclass(frozen=True)
class Model:
    """A loaded model: a network, and what a request needs to know of it.

    Attributes:
        version: The first 12 digits of weights_sha256.
        weights_sha256: Of the weights' file; of an embedded network, of its tensors.
        onnx: Of a model that is an ONNX file; None for torch's.
    """

    name: str
    version: str
    architecture: str
    network: Network
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    precision: Precision
    weights_sha256: str
    limits: Limits = UNLIMITED
    onnx: AboutOnnx | None = None

    @cached_property
    def _indices_by_label(self) -> dict[str, list[int]]:
        indices: dict[str, list[int]] = {}
        for index, label in enumerate(self.labels):
            indices.setdefault(label.casefold(), []).append(index)
        return indices

    def classes_labelled(self, label: str) -> list[int]:
        """The classes of that label in any letter case; the exact case decides among several."""
        found = self._indices_by_label.get(label.casefold(), [])
        exact = [index for index in found if self.labels[index] == label]
        return exact or found


@dataclass(frozen=True)
class FailedModel:
    """A model that could not be loaded, and why."""

    name: str
    reason: str


class Registry(Mapping[str, Model]):
    """Loaded models by name, in the order of their loading; the first is the default."""

    def __init__(self, models: Sequence[Model | FailedModel]) -> None:
        self._models = {m.name: m for m in models if isinstance(m, Model)}
        self.failed = tuple(m for m in models if isinstance(m, FailedModel))

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def find(self, name: str) -> Model:
        """The model of that name; the default for an empty name.

        Raises:
            NotFound: There is none.
        """
        if not name and self._models:
            return next(iter(self._models.values()))
        if name in self._models:
            return self._models[name]
        for failed in self.failed:
            if failed.name == name:
                reason = failed.reason
                if len(reason) > _MOST_REASON:
                    reason = f"{reason[:_MOST_REASON]}…; GetModel has all of it"
                raise NotFound(f"{quoted(name)} could not be loaded: {reason}")
        known = ", ".join(sorted(self._models)) or "none"
        raise NotFound(f"{quoted(name)} is not loaded; loaded are: {known}")


def load_model(
    name: str,
    *,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
    side_px: int = 224,
) -> Model:
    """Builds an embedded network and prepares it for serving.

    Raises:
        BadArchitecture: There is none of that name.
        WeightsError: Its weights are missing or are not the pinned ones.
        UnservableNetwork: It cannot be served truthfully.
    """
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise BadArchitecture(f"not on the allow-list of architectures: {known}")
    module = architecture.build(side_px)
    steps = architecture.preprocessing(side_px)
    built = Built(name, module, _weights_sha256(module), steps, imagenet_labels())
    return _prepare(name, built, precision, device)


def load_folder(folder: Path, *, device: torch.device) -> Model:
    """Reads a model folder and prepares its network for serving; the name is the folder's.

    Raises:
        BadFolder: Something in the folder is not as it must be.
        UnservableNetwork: The network cannot be served truthfully.
    """
    fault = why_not_a_name(folder.name)
    if fault is not None:
        raise BadFolder(fault)
    settings = read_settings(folder)
    built = build_folder(folder, settings)
    model = _prepare(folder.name, built, Precision(settings.precision), device)
    classes, labels = model.network.class_count, len(model.labels)
    if classes != labels:
        raise BadFolder(f"labels: there are {labels}, and its output has {classes} classes")
    return replace(model, limits=settings.limits)


def _prepare(name: str, built: Built, precision: Precision, device: torch.device) -> Model:
    tf32 = precision is Precision.TF32
    onnx: AboutOnnx | None = None
    if isinstance(built.module, OnnxFile):
        try:
            network, onnx = build_onnx(
                built.module, dtype=precision.dtype, device=device, tf32=tf32
            )
        except BadOnnx as error:
            raise BadFolder(f"weights: the ONNX file {error}") from None
    else:
        network = Network(
            built.module,
            height_px=built.preprocessing.height_px,
            width_px=built.preprocessing.width_px,
            dtype=precision.dtype,
            device=device,
            tf32=tf32,
        )
    labels = built.labels or tuple(map(str, range(network.class_count)))
    return Model(
        name=name,
        version=built.weights_sha256[:12],
        architecture=built.architecture,
        network=network,
        preprocessing=built.preprocessing,
        labels=labels,
        precision=precision,
        weights_sha256=built.weights_sha256,
        onnx=onnx,
    )


def loads(
    names: Sequence[str],
    folders: Path | None = None,
    *,
    device: torch.device,
    precision: Precision,
    side_px: int,
) -> Iterator[Callable[[], Model | FailedModel]]:
    """The loading of every model, one at a time; what cannot be loaded says why.

    Args:
        names: Of embedded networks.
        folders: Where model folders are; hidden ones, and files, are passed over.
        device: Where networks compute.
        precision: The arithmetic of the embedded networks.
        side_px: The side of their input.
    """
    embedded = partial(load_model, device=device, precision=precision, side_px=side_px)
    for name in names:
        yield partial(loaded, name, partial(embedded, name))
    for folder in sorted(folders.iterdir()) if folders is not None else ():
        if folder.name in names:
            yield partial(_failed, folder.name, "an embedded network has that name")
        elif folder.is_dir() and not folder.name.startswith("."):
            yield partial(loaded, folder.name, partial(load_folder, folder, device=device))


def loaded(name: str, load: Callable[[], _Loaded]) -> _Loaded | FailedModel:
    """What is loaded; what cannot be says why, and is logged."""
    try:
        return load()
    except (BadArchitecture, BadFolder, BadStyle, WeightsError, UnservableNetwork) as error:
        return _failed(name, str(error))
    except OSError as error:
        return _failed(name, f"{error.filename} cannot be read: {error.strerror}")
    except MemoryError:
        return _failed(name, "there is too little memory for it")
    except Exception:
        log.exception("model %s cannot be loaded", name)
        return _failed(name, "an unexpected error; the server's log has it")


def _failed(name: str, reason: str) -> FailedModel:
    if not name.isprintable():  # nor could it be sent, in bytes that are no UTF-8
        name = quoted(name)
    log.error("model %s is not served: %s", name, reason)
    return FailedModel(name, reason)


def _weights_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
