"""The folder of a training: its checkpoint while it runs, and the style that it ends as."""

from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from safetensors.torch import save

from ..models.styles.library import CHECKPOINT_FILE, STYLE_FILE
from ..models.weights import sha256_of
from .checkpoint import Checkpoint, load, replace
from .training import Training

WEIGHTS_FILE = "weights.safetensors"
PREVIEW_FILE = "preview.jpg"


class Occupied(ValueError):
    """A folder that cannot be written to; the message says why."""


class StyleFolder:
    """One, made if it is not there.

    Args:
        path: Of the folder.
        resumed: Whether its training goes on.

    Raises:
        Occupied: It holds something else, or nothing to go on from.
        BadCheckpoint: Its checkpoint is none.
        OSError: It cannot be made or read.
    """

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self._checkpoint = path / CHECKPOINT_FILE
        self.kept: Checkpoint | None = None
        if resumed and not self._checkpoint.is_file():
            raise Occupied(f"--resume: there is no {self._checkpoint} to go on from")
        if resumed:
            self.kept = load(self._checkpoint)
        elif self._checkpoint.exists():
            raise Occupied(
                f"--output: {path} holds a training; --resume goes on with it, or name another"
            )
        elif path.exists() and not path.is_dir():
            raise Occupied(f"--output: {path} is no folder")
        elif path.is_dir() and any(not inner.name.startswith(".") for inner in path.iterdir()):
            raise Occupied(f"--output: {path} is not empty, and holds no training")
        path.mkdir(parents=True, exist_ok=True)

    def save(self, training: Training) -> None:
        """Keeps the state of a training.

        Raises:
            Diverged: Its weights are not finite; the checkpoint before stays.
        """
        training.checkpoint().save(self._checkpoint)

    def preview(self, picture: Image.Image) -> None:
        """Keeps a picture of how far it is."""
        encoded = BytesIO()
        picture.save(encoded, "JPEG", quality=92)
        replace(self.path / PREVIEW_FILE, encoded.getvalue())

    def publish(self, training: Training, *, name: str, licence: str) -> None:
        """Makes it a style that is served.

        Args:
            training: Whose network it is.
            name: Of the style.
            licence: SPDX identifier of the weights', or "".
        """
        weights = self.path / WEIGHTS_FILE
        replace(weights, save(training.network.published()))
        settings = training.settings.as_json()
        about: dict[str, Any] = {"kind": "johnson", "file": WEIGHTS_FILE, "name": name}
        about |= {"licence": licence} if licence else {}
        about["trained"] = {
            "step_count": training.step,
            "weights_sha256": sha256_of(weights),
            **settings,
        }
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        replace(self.path / STYLE_FILE, text.encode())
