"""The state of a training on disk: one safetensors file, whose metadata say what it belongs to."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..models.weights import BadWeights, read_header

_FORMAT = "pellucid style training 2"


class BadCheckpoint(ValueError):
    """A file that no training can go on from; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from.

    Attributes:
        header: Of JSON's types: its step, its settings, what it was computed with.
        tensors: By name, on the host.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def save(self, file: Path) -> None:
        """Puts it in a file's place at once: whenever it is interrupted, one of both is there."""
        metadata = {"format": _FORMAT, "header": json.dumps(self.header)}
        replace(file, save(dict(self.tensors), metadata))


def load(file: Path) -> Checkpoint:
    """The way back of save.

    Raises:
        BadCheckpoint: It is no such file, or damaged.
    """
    try:
        read_header(file)
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise BadCheckpoint(f"{file} is no checkpoint of a training of this version")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Checkpoint(json.loads(metadata["header"]), tensors)
    except BadWeights as error:
        raise BadCheckpoint(f"{file} {error}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(f"{file} is damaged: {error}") from None


def replace(file: Path, data: bytes) -> None:
    """Writes beside a file, and puts that in its place once it is on the disk."""
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
