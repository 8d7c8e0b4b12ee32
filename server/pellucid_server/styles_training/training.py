"""A training: a network, what Adam keeps of it, and steps whose photos follow from their number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..versions import VERSIONS
from .batches import PhotoFolder
from .checkpoint import BadCheckpoint, Checkpoint
from .losses import PerceptualLoss, Weights
from .transformer import Transformer

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What torch's Adam calls the two."""
_HISTORY = "history"
"""Losses that were looked at, n × 5."""


class Diverged(RuntimeError):
    """Numbers that are not finite; the message says when."""


@dataclass(frozen=True)
class Settings:
    """All that decides what a step does: a training goes on under the same ones alone.

    Attributes:
        painting_sha256: Of the painting's file.
        photos_sha256: See batches.PhotoFolder.
        photo_count: Files of photos.
        model: Whose network looks.
        model_sha256: Of its weights.
        content_layers: Of that network.
        style_layers: Of that network.
        content_weight: See losses.PerceptualLoss.
        style_weight: Of the style.
        tv_weight: Of smoothness.
        size_px: Side of the crops.
        style_size_px: Side of a square of the painting's area.
        batch_size: Crops of a step.
        learning_rate: Of Adam (Kingma and Ba 2014, arXiv:1412.6980).
        seed: Of the first weights, of photos' order and of crops.
    """

    painting_sha256: str
    photos_sha256: str
    photo_count: int
    model: str
    model_sha256: str
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    size_px: int
    style_size_px: int
    batch_size: int
    learning_rate: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Of JSON's types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @property
    def weights(self) -> Weights:
        """Of the losses."""
        return Weights(self.content_weight, self.style_weight, self.tv_weight)


@dataclass(frozen=True)
class Losses:
    """Of the batch of one step, before the step was taken.

    Attributes:
        step: Counted from 1.
        loss: The weighted sum.
        content: See losses.PerceptualLoss.
        style: Of the style.
        tv: Of smoothness.
    """

    step: int
    loss: float
    content: float
    style: float
    tv: float


class Training:
    """From its first step, or from a checkpoint.

    Args:
        settings: All that decides what a step does.
        loss: By these settings.
        device: Where it computes.

    Attributes:
        device: Where it computes.
        step: Steps that were taken.
        history: Losses that were looked at.
    """

    def __init__(self, settings: Settings, loss: PerceptualLoss, device: torch.device) -> None:
        self.settings, self.step = settings, 0
        self.history: list[Losses] = []
        self.network = Transformer(settings.seed).to(device)
        self._loss, self.device = loss, device
        self._adam = torch.optim.Adam(self.network.parameters(), settings.learning_rate)

    def advance(self, crops: NDArray[np.uint8]) -> Tensor:
        """Takes a step; returns its loss, content, style and tv, on the device, not waited for.

        Args:
            crops: n × H × W × 3.
        """
        photos = to_rows(crops, self.device)
        self._adam.zero_grad()
        losses: Tensor = self._loss(self.network(photos), photos)
        losses[0].backward()
        self._adam.step()
        self.step += 1
        return losses.detach()

    def note(self, losses: Tensor) -> Losses:
        """Looks at the last step's losses.

        Raises:
            Diverged: They are not finite.
        """
        noted = Losses(self.step, *losses.tolist())
        if not math.isfinite(noted.loss):
            raise Diverged(f"the loss of step {self.step} is {noted.loss}")
        self.history.append(noted)
        return noted

    def checkpoint(self) -> Checkpoint:
        """All of its state.

        Raises:
            Diverged: Weights are not finite.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.network.named_parameters():
            kept = self._adam.state.get(parameter, {})
            tensors[f"weight.{name}"] = parameter.detach()
            tensors |= {f"{moment}.{name}": kept[moment] for moment in _MOMENTS if kept}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise Diverged(f"weights are not finite after step {self.step}")
        # No part of the header: that is read whole, and of a bounded length.
        kept = [astuple(losses) for losses in self.history]
        tensors[_HISTORY] = torch.tensor(kept, dtype=torch.float64).reshape(-1, len(fields(Losses)))
        header = {
            "step": self.step,
            "settings": self.settings.as_json(),
            "computed_with": computed_with(self.device),
        }
        return Checkpoint(header, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint: to the same bits, where it is computed with the same.

        Raises:
            BadCheckpoint: It is of other settings, or its tensors are not of this network.
        """
        header, own = checkpoint.header, self.settings.as_json()
        if others := _differences(header.get("settings", {}), own):
            raise BadCheckpoint(f"the checkpoint is of other settings: {'; '.join(others)}")
        self.step = header["step"]
        history = checkpoint.tensors.get(_HISTORY, torch.zeros(()))
        if history.dtype is not torch.float64 or history.shape[1:] != (len(fields(Losses)),):
            raise BadCheckpoint(f"the checkpoint is damaged: {_HISTORY} is not what it must be")
        self.history = [Losses(int(step), *losses) for step, *losses in history.tolist()]
        for name, parameter in self.network.named_parameters():
            moments = {m: self._taken(checkpoint, f"{m}.{name}", parameter) for m in _MOMENTS}
            with torch.no_grad():
                parameter.copy_(self._taken(checkpoint, f"weight.{name}", parameter))
            self._adam.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}

    def _taken(self, checkpoint: Checkpoint, name: str, like: Tensor) -> Tensor:
        """One of its tensors, on the device, as a parameter lies in memory."""
        found = checkpoint.tensors.get(name)
        if found is None and not self.step:
            return torch.zeros_like(like)  # no step was taken: there are no moments yet
        if found is None or found.shape != like.shape or found.dtype != like.dtype:
            raise BadCheckpoint(f"the checkpoint is damaged: {name} is not what it must be")
        return torch.empty_like(like).copy_(found)


def run(
    training: Training,
    photos: PhotoFolder,
    step_count: int,
    *,
    log_every: int,
    noted: Callable[[Losses], None],
    each: Sequence[tuple[int, Callable[[], None]]],
) -> None:
    """Takes steps until there are step_count.

    Args:
        training: What takes them.
        photos: On which.
        step_count: From the first, those before a checkpoint too.
        log_every: Steps from one look at the losses to the next: only then the device is waited
            for, besides what is done at `each`.
        noted: Told of them.
        each: What is done whenever so many more steps were taken, and at the end.

    Raises:
        Diverged: Losses or weights are not finite.
        NoPhotos: None can be used.
    """
    settings = training.settings
    for crops in photos.batches(
        settings.seed, training.step, step_count, settings.batch_size, settings.size_px
    ):
        losses = training.advance(crops)
        if training.step % log_every == 0 or training.step in (1, step_count):
            noted(training.note(losses))
        for every, do in each:
            if training.step % every == 0 or training.step == step_count:
                do()


def to_rows(pictures: NDArray[np.uint8], device: torch.device) -> Tensor:
    """From n × H × W × 3 to n × 3 × H × W, 0-1, float32."""
    rows = torch.from_numpy(pictures).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return rows.to(torch.float32, memory_format=torch.channels_last) / 255


def computed_with(device: torch.device) -> dict[str, Any]:
    """What decides the bits besides the settings."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": kind, "threads": torch.get_num_threads(), **VERSIONS}


def _differences(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {theirs.get(name)!r}, is {value!r}"
        for name, value in own.items()
        if theirs.get(name) != value
    ]
