"""How an image gets its style by optimization: every parameter, and the layers that are looked at.

Gatys, Ecker and Bethge 2015, arXiv:1508.06576.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...models.network import Layout, Network
from ...models.registry import Model
from ..optimize.ascent import MOST_STEPS, PLAIN, Ascent
from ..parameters import MOST_SEED, Known, Parameters, choice, number

LEAST_SIDE_PX = 64
MOST_SIDE_PX = 2048
MOST_SCALES = 8
MOST_WEIGHT = 1e12

SCALE = math.sqrt(2)
"""From one scale to the next."""

LEAST_SCALE_PX = 32
"""Of the longer side, at the smallest scale."""

_NOISE_STD = 40.0
"""Of a start from noise, on a scale of 0 to 255."""

STYLE_WEIGHTS = {"gatys": 3e3, "johnson": 50.0}
"""Measured on EfficientNet-Lite0."""


def _style_weight(known: Known) -> float:
    return STYLE_WEIGHTS[known.values["normalization"]]


def _learning_rate(known: Known) -> float:
    return 1.0 if known.values["update"] == "lbfgs" else 5.0


@dataclass(frozen=True, kw_only=True)
class Neural(Parameters):
    """See the contract's Neural."""

    normalization: str = choice("gatys")
    content_weight: float = number(1.0, 0, MOST_WEIGHT)
    style_weight: float = number(_style_weight, 0, MOST_WEIGHT)
    tv_weight: float = number(0.0, 0, MOST_WEIGHT)
    side_px: int = number(256, LEAST_SIDE_PX, MOST_SIDE_PX)
    start: str = choice("content")
    update: str = choice("adam")
    learning_rate: float = number(_learning_rate, 1e-6, 1e6)
    step_count: int = number(200, 1, MOST_STEPS)
    scale_count: int = number(1, 1, MOST_SCALES)
    pooling: str = choice("as_trained")
    original_colors: str = choice("off")
    seed: int = number(0, 0, MOST_SEED)
    progress_every: int = number(10, 1, MOST_STEPS)
    preview_every: int = number(0, 0, MOST_STEPS)
    checkpoint_every: int = number(0, 0, MOST_STEPS)
    checkpoint_precision: str = choice("full")

    def irrelevant(self) -> Mapping[str, str]:
        needs = {
            "seed": (self.start == "noise", "is for STYLE_START_NOISE"),
            "checkpoint_precision": (self.checkpoint_every > 0, "needs checkpoint_every"),
        }
        return {name: why for name, (relevant, why) in needs.items() if not relevant}

    def contradictions(self, model: Model) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if not self.content_weight and not self.style_weight:
            found["style_weight"] = "is 0, and so is content_weight; one must be more"
        if self.pooling == "average" and not model.network.pools_by_maximum:
            found["pooling"] = f"is POOLING_AVERAGE; {model.name} has no max-pooling layers"
        smallest_px = round(self.side_px / SCALE ** (self.scale_count - 1))
        if smallest_px < LEAST_SCALE_PX:
            found["scale_count"] = (
                f"is {self.scale_count}; the longer side would be {smallest_px} px at the smallest "
                f"scale, at least {LEAST_SCALE_PX} are needed"
            )
        if self.step_total > MOST_STEPS:
            found["step_count"] = (
                f"times scale_count is {self.step_total}; must be at most {MOST_STEPS}"
            )
        return found

    @property
    def step_total(self) -> int:
        """Steps over all scales."""
        return self.step_count * self.scale_count

    def sizes(self, height_px: int, width_px: int) -> list[tuple[int, int]]:
        """Height and width of the image at each scale, the smallest first, by the photo's."""
        longer_px = max(height_px, width_px)
        factors = [SCALE**-k / longer_px for k in reversed(range(self.scale_count))]
        sides_px = [self.side_px * factor for factor in factors]
        return [(max(1, round(height_px * f)), max(1, round(width_px * f))) for f in sides_px]

    def ascent(self, size: tuple[int, int]) -> Ascent:
        """The same as an ascent, of the negative loss."""
        return Ascent(
            **PLAIN
            | {
                "step_count": self.step_count,
                "update": self.update,
                "learning_rate": self.learning_rate,
                "noise_std": _NOISE_STD,
                "clip_pixels": self.update == "adam",
                "tv_penalty": self.tv_weight,
                "octave_count": self.scale_count,
                "octave_scale": SCALE,
            },
            height_px=size[0],
            width_px=size[1],
            seed=self.seed,
            progress_every=self.progress_every,
            preview_every=self.preview_every,
            checkpoint_every=self.checkpoint_every,
        )


def same_area(size: tuple[int, int], height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width of a picture at the area of a size, in its own proportions."""
    factor = math.sqrt(math.prod(size) / (height_px * width_px))
    return max(1, round(height_px * factor)), max(1, round(width_px * factor))


Layers = tuple[tuple[str, float], ...]
"""Layers of a network, with their weights."""

_KNOWN: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    # conv4_2; conv1_1 to conv5_1, rectified.
    (r"vgg16", ("features.20",), tuple(f"features.{k}" for k in (1, 6, 11, 18, 25))),
    (r"vgg19", ("features.22",), tuple(f"features.{k}" for k in (1, 6, 11, 20, 29))),
    (r"googlenet", ("inception4a",), ("conv1", "conv3", "inception3b", "inception4a")),
    (r"resnet\d+", ("layer3",), ("relu", "layer1", "layer2", "layer3")),
    (
        r"(tf_)?efficientnet_lite0",
        ("blocks.3",),
        tuple(f"blocks.{k}" for k in range(5)),
    ),
)
"""Architectures, their content layers, and their style layers."""


def default_layers(model: Model) -> tuple[Layers, Layers]:
    """Layers of content and of style: those that are known to do, or one of each size of maps."""
    architecture = model.architecture.rpartition("/")[2].partition(".")[0]
    network = model.network
    for pattern, content, style in _KNOWN:
        if re.fullmatch(pattern, architecture) and all(map(network.layer, (*content, *style))):
            return _alike(content), _alike(style)
    last = _last_of_each_size(network)
    return _alike(last[-2:-1] or last), _alike(last)


def _alike(names: Any) -> Layers:
    return tuple((name, 1.0) for name in names)


def _last_of_each_size(network: Network) -> tuple[str, ...]:
    """The last layer with maps of each height and width."""
    layers = [y for y in network.layers if y.spatial and y.layout is Layout.MAPS]
    return tuple({layer.grid: layer.name for layer in layers}.values())
