"""Images for a unit of a trained perceptron, from many starts, by the engine that serves them."""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.device import TorchDevice
from ..engine.engine import Engine
from ..engine.job import Spec
from ..engine.rows import NeuronTarget, TopTarget
from ..inputs import Photos
from ..methods.optimize.ascent import PRESETS, Ascent
from ..methods.optimize.optimize import Buckets, Optimize
from ..models.network import Network
from ..models.registry import Model, Precision
from ..photos import Preprocessing
from ..workers import Workers
from .digits import CLASS_COUNT

SIDE_PX = 16
"""Of images: the least that optimizations take. A network sees the means of 2 × 2 pixels, and of
red, green and blue."""

_GREY = Preprocessing(0, SIDE_PX, SIDE_PX, "bilinear", (0.5,) * 3, (0.5,) * 3)

STEP_COUNT = 64

_TIMEOUT_S = 600.0
"""Of one unit's images, which take a second."""

_HOW: dict[str, Any] = {
    **PRESETS["simonyan"],
    "preset": "simonyan",
    "update": "adam",
    "learning_rate": 16.0,
    "lp_penalty": 0.0,
    "start": "noise",
    "noise_std": 64.0,
    "step_count": STEP_COUNT,
    "height_px": SIDE_PX,
    "width_px": SIDE_PX,
    "clip_pixels": True,
    "progress_every": 10_000,
}
"""Nothing but the score counts, and pixels stay from 0 to 255: without that bound a network of
rectifiers gives any score. After 64 steps the spread of scores is within 2% of that after 400 of
a quarter of the rate."""


class Perceptron(nn.Module):
    """One network of a stack, as a network of images.

    Args:
        weights: Of each layer, in × out.
        biases: Of each layer, out.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight, bias in zip(weights, biases, strict=True):
            into, out = weight.shape
            layer = nn.Linear(into, out, dtype=weight.dtype)
            layer.weight.data, layer.bias.data = weight.T.clone(), bias.clone()
            self.layers.append(layer)

    def forward(self, images: Tensor) -> Tensor:
        """N×10 logits of n×3×16×16 images."""
        made = F.avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
        for number, layer in enumerate(self.layers):
            made = layer(F.relu(made) if number else made)
        return made


class Climber:
    """An engine of one job at a time; its batches are one start each.

    Args:
        start_count: Images from as many seeds, of each unit.
    """

    def __init__(self, start_count: int) -> None:
        self._start_count = start_count
        self._workers = Workers(1, most_waiting=1)
        self._engine = Engine(
            TorchDevice(torch.device("cpu")), self._workers, buckets=(start_count,)
        )

    def __enter__(self) -> "Climber":
        self._engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()
        self._workers.shutdown()

    def scores(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        layer: int,
        unit: int,
        seed: int,
    ) -> list[float]:
        """What each start's image ends with: the unit's sum, before any rectifier.

        Args:
            weights: Of one network's layers, in × out.
            biases: Of its layers, out.
            layer: Which of them, from 0; the last one's units are logits.
            unit: Of the layer.
            seed: Of the noise that images start from.
        """
        model, size = _model(weights, biases), (SIDE_PX, SIDE_PX)
        ascent = Ascent(**_HOW, seed=seed, restart_count=self._start_count)
        goal = NeuronTarget(f"layers.{layer}", unit)
        method = Optimize(((goal, 1.0),), ascent, Buckets(self._start_count))
        spec = Spec(
            model,
            method,
            Photos((), size),
            TopTarget(),
            time.monotonic() + _TIMEOUT_S,
            bucket_size=self._start_count,
        )
        ends = self._engine.submit(spec).future.result().result.ends
        assert all(end.finite for end in ends)
        return [end.progress.score for end in ends]


def _model(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Model:
    network = Network(
        Perceptron(weights, biases),
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )
    labels = tuple(map(str, range(CLASS_COUNT)))
    return Model(
        "perceptron", "0", "perceptron", network, _GREY, labels, Precision.FLOAT64, "0" * 64
    )
