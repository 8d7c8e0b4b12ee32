"""How an image gets its style by optimization: every parameter, and the layers that are looked at.

Gatys, Ecker and Bethge 2015, arXiv:1508.06576.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.layers import Layout
from ...models.network import Network
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
"""Measured on EfficientNet-Lite0, as are those that follow."""

LEARNING_RATES = {"adam": 10.0, "lbfgs": 1.0}
"""Of pixels from 0 to 255."""


def _style_weight(known: Known) -> float:
    return STYLE_WEIGHTS[known.values["normalization"]]


def _learning_rate(known: Known) -> float:
    return LEARNING_RATES[known.values["update"]]


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
        sides_px = [self.side_px * SCALE**-k for k in reversed(range(self.scale_count))]
        return [at_side(side_px, height_px, width_px) for side_px in sides_px]

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


def at_side(side_px: float, height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width of a picture at a longer side, in its own proportions."""
    factor = side_px / max(height_px, width_px)
    return max(1, round(height_px * factor)), max(1, round(width_px * factor))


def same_area(size: tuple[int, int], height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width of a picture at the area of a size, in its own proportions."""
    factor = math.sqrt(math.prod(size) / (height_px * width_px))
    return max(1, round(height_px * factor)), max(1, round(width_px * factor))


Names = tuple[str, ...]
"""Of layers of a network."""

Layers = tuple[tuple[str, float], ...]
"""Likewise, with their weights."""

_RECTIFIERS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SiLU", "Hardswish", "GELU", "Mish")


def _vgg(name: str, counts: Sequence[int], *, normed: bool) -> tuple[str, Names, Names]:
    """Conv4_2, and conv1_1 to conv5_1, rectified, of a VGG with so many convolutions a block."""
    each = 3 if normed else 2  # modules of a convolution, the last of which rectifies
    starts = [sum(each * count + 1 for count in counts[:block]) for block in range(len(counts))]
    content = f"features.{starts[3] + 2 * each - 1}"
    return name, (content,), tuple(f"features.{start + each - 1}" for start in starts)


_KNOWN: tuple[tuple[str, Names, Names], ...] = (
    *(
        _vgg(f"{name}{'_bn' * normed}", counts, normed=normed)
        for name, counts in {
            "vgg11": (1, 1, 2, 2, 2),
            "vgg13": (2, 2, 2, 2, 2),
            "vgg16": (2, 2, 3, 3, 3),
            "vgg19": (2, 2, 4, 4, 4),
        }.items()
        for normed in (False, True)
    ),
    # As conv4_2 is to conv4_1 of a VGG: next to a layer of style, of its size of maps, not it.
    (r"googlenet", ("inception4b",), ("conv1", "conv3", "inception3b", "inception4a")),
    (r"resnet\d+", ("layer3.0",), ("relu", "layer1", "layer2", "layer3")),
    (
        r"(tf_)?efficientnet_lite0",
        # Deep enough that style can come without it: of blocks.3, whose maps both would be after,
        # the style's loss falls by half as much, at more than twice the loss of content.
        ("blocks.5",),
        tuple(f"blocks.{k}" for k in range(4)),
    ),
)
"""Architectures, their content layers, and their style layers."""


def default_layers(model: Model) -> tuple[Layers, Layers]:
    """Layers of content and of style: those that are known to do, or one of each size of maps.

    Of these, content is the last but one.
    """
    architecture = model.architecture.rpartition("/")[2].partition(".")[0]
    network = model.network
    for pattern, content, style in _KNOWN:
        if re.fullmatch(pattern, architecture) and all(map(network.layer, (*content, *style))):
            return _alike(content), _alike(style)
    last = _last_of_each_size(network)
    return _alike(last[-2:-1] or last), _alike(last)


def _alike(names: Any) -> Layers:
    return tuple((name, 1.0) for name in names)


def _last_of_each_size(network: Network) -> Names:
    """The last rectified layer with maps of each height and width.

    Where nothing is rectified by a layer of its own, the last layer that holds no others.
    """
    layers = [y for y in network.layers if y.spatial and y.layout is Layout.MAPS]
    names = [layer.name for layer in network.layers]
    rectified = [layer for layer in layers if layer.kind in _RECTIFIERS]
    innermost = [
        layer
        for layer in layers
        if layer.kind != "AdaptiveAvgPool2d"  # whose maps have one size at every input
        and not any(name.startswith(f"{layer.name}.") for name in names)
    ]
    return tuple({layer.grid: layer.name for layer in rectified or innermost}.values())
