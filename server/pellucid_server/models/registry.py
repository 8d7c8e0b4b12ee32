"""The models of a server: what was loaded, and what could not be."""

import enum
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ..errors import NotFound, quoted
from ..photos import Preprocessing
from .architectures import ARCHITECTURES, WeightsError, imagenet_labels
from .network import Network, UnservableNetwork

log = logging.getLogger(__name__)


class Precision(enum.Enum):
    """The arithmetic of a loaded model."""

    FLOAT32 = torch.float32
    FLOAT64 = torch.float64


@dataclass(frozen=True)
class Model:
    """A loaded model: a network, and what a request needs to know of it."""

    name: str
    version: str
    architecture: str
    network: Network
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    precision: Precision
    weights_sha256: str

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
        known = ", ".join(sorted(self._models)) or "none"
        raise NotFound(f"{quoted(name)} is not loaded; loaded are: {known}")


def load_model(
    name: str,
    *,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
    side_px: int = 224,
) -> Model:
    """Builds a network of the allow-list and prepares it for serving.

    Raises:
        WeightsError: Its weights are missing or are not the pinned ones.
        UnservableNetwork: It cannot be served truthfully.
    """
    architecture = ARCHITECTURES[name]
    module = architecture.build(side_px)
    weights_sha256 = _weights_sha256(module)
    network = Network(
        module, height_px=side_px, width_px=side_px, dtype=precision.value, device=device
    )
    return Model(
        name=name,
        version=weights_sha256[:12],
        architecture=name,
        network=network,
        preprocessing=architecture.preprocessing(side_px),
        labels=imagenet_labels(),
        precision=precision,
        weights_sha256=weights_sha256,
    )


def load_registry(
    names: Sequence[str], *, device: torch.device, precision: Precision, side_px: int
) -> Registry:
    """Loads every model that can be loaded, and lists the others with their reasons."""
    models: list[Model | FailedModel] = []
    for name in names:
        if name not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            models.append(FailedModel(name, f"not on the allow-list of architectures: {known}"))
            continue
        try:
            models.append(load_model(name, device=device, precision=precision, side_px=side_px))
        except (WeightsError, UnservableNetwork) as error:
            models.append(FailedModel(name, str(error)))
        except Exception:
            log.exception("model %s cannot be loaded", name)
            models.append(FailedModel(name, "an unexpected error; the server's log has it"))
    for failed in models:
        if isinstance(failed, FailedModel):
            log.error("model %s is not served: %s", failed.name, failed.reason)
    return Registry(models)


def _weights_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
