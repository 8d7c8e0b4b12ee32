"""How an image is optimized: every parameter, and the presets that are named after their sources.

A preset is nothing but defaults: whatever a request sets stands above it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...models.registry import Model
from ..parameters import MOST_SEED, Known, Parameters, choice, flag, number

MOST_STEPS = 10_000
MOST_RESTARTS = 64
MOST_BLUR_PX = 10.0
MOST_OCTAVES = 12
LEAST_SIDE_PX = 16

PLAIN: dict[str, Any] = {
    "step_count": 400,
    "parameterization": "pixels",
    "update": "adam",
    "learning_rate": 1.0,
    "momentum": 0.9,
    "progress": 2.0,
    "start": "noise",
    "noise_std": 10.0,
    "clip_pixels": False,
    "l2_decay": 0.0,
    "lp_penalty": 0.0,
    "lp_order": 6.0,
    "tv_penalty": 0.0,
    "tv_beta": 2.0,
    "blur_sigma_px": 0.0,
    "blur_every": 4,
    "small_norm_percentile": 0.0,
    "small_contribution_percentile": 0.0,
    "jitter_px": 0,
    "rotation_degrees": 0.0,
    "scaling": 0.0,
    "octave_count": 1,
    "octave_scale": 1.4,
}

_YOSINSKI = (
    PLAIN | {"update": "momentum", "momentum": 0.0, "learning_rate": 100.0} | {"clip_pixels": True}
)
_PROGRESS = _YOSINSKI | {"update": "progress"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007, by the code they published.
    "olah": PLAIN
    | {
        "step_count": 512,
        "parameterization": "spectrum",
        "learning_rate": 0.05,
        "noise_std": 0.01,
        "jitter_px": 8,
        "rotation_degrees": 10.0,
        "scaling": 0.1,
    },
    # Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034: the L2 penalty and the start from
    # zero, the mean added. They publish neither strength nor steps: those are ours.
    "simonyan": PLAIN
    | {
        "update": "momentum",
        "learning_rate": 1000.0,
        "start": "grey",
        "lp_penalty": 10.0,
        "lp_order": 2.0,
    },
    # Yosinski and others 2015, arXiv:1506.06579: the rows of their table of hyperparameters,
    # with the steps and rates of the commands that they published.
    "yosinski_1": _PROGRESS
    | {
        "step_count": 500,
        "blur_sigma_px": 0.5,
        "small_norm_percentile": 50.0,
    },
    "yosinski_2": _YOSINSKI | {"step_count": 750, "l2_decay": 0.3, "small_norm_percentile": 20.0},
    "yosinski_3": _YOSINSKI | {"step_count": 1000, "l2_decay": 0.0001, "blur_sigma_px": 1.0},
    "yosinski_4": _PROGRESS
    | {
        "step_count": 1000,
        "learning_rate": 1e8,
        "blur_sigma_px": 0.5,
        "small_contribution_percentile": 90.0,
    },
    # Mahendran and Vedaldi 2014, arXiv:1412.0035, by the code they published: its learning rate of
    # 0.001 stands before a gradient that is multiplied by what penalties are divided by.
    "mahendran": PLAIN
    | {
        "step_count": 2100,
        "update": "momentum",
        "learning_rate": 0.001 * 3 * 224**2 * 57.4**2,
        "noise_std": 57.4,
        "lp_penalty": 8e-10,
        "tv_penalty": 10.0,
    },
    # Mordvintsev, Olah and Tyka 2015: the notebook of DeepDream.
    "mordvintsev": PLAIN
    | {
        "step_count": 10,
        "update": "normalized",
        "learning_rate": 1.5,
        "start": "photo",
        "clip_pixels": True,
        "jitter_px": 32,
        "octave_count": 4,
    },
}


def _preset(name: str) -> Callable[[Known], Any]:
    def of(known: Known) -> Any:
        return PRESETS[known.values["preset"]][name]

    return of


def _side(name: str) -> Callable[[Known], int | None]:
    """That of the network."""

    def of(known: Known) -> int | None:
        return None if known.model is None else int(getattr(known.model.network, name))

    return of


_MOST_SIDE_PX = 8192


@dataclass(frozen=True, kw_only=True)
class Ascent(Parameters):
    """See the contract's Ascend. The objective is climbed, its penalties are subtracted."""

    preset: str = choice("olah")
    step_count: int = number(_preset("step_count"), 1, MOST_STEPS)
    parameterization: str = choice(_preset("parameterization"))
    update: str = choice(_preset("update"))
    learning_rate: float = number(_preset("learning_rate"), 1e-9, 1e12)
    momentum: float = number(_preset("momentum"), 0, 0.999)
    progress: float = number(_preset("progress"), 1e-9, 1e9)
    height_px: int = number(_side("height_px"), LEAST_SIDE_PX, _MOST_SIDE_PX)
    width_px: int = number(_side("width_px"), LEAST_SIDE_PX, _MOST_SIDE_PX)
    start: str = choice(_preset("start"))
    noise_std: float = number(_preset("noise_std"), 0, 128)
    seed: int = number(0, 0, MOST_SEED - MOST_RESTARTS)
    restart_count: int = number(1, 1, MOST_RESTARTS)
    clip_pixels: bool = flag(_preset("clip_pixels"))
    l2_decay: float = number(_preset("l2_decay"), 0, 1)
    lp_penalty: float = number(_preset("lp_penalty"), 0, 1e12)
    lp_order: float = number(_preset("lp_order"), 1, 12)
    tv_penalty: float = number(_preset("tv_penalty"), 0, 1e12)
    tv_beta: float = number(_preset("tv_beta"), 1, 4)
    blur_sigma_px: float = number(_preset("blur_sigma_px"), 0, MOST_BLUR_PX)
    blur_every: int = number(_preset("blur_every"), 1, MOST_STEPS)
    small_norm_percentile: float = number(_preset("small_norm_percentile"), 0, 99)
    small_contribution_percentile: float = number(_preset("small_contribution_percentile"), 0, 99)
    jitter_px: int = number(_preset("jitter_px"), 0, 512)
    rotation_degrees: float = number(_preset("rotation_degrees"), 0, 180)
    scaling: float = number(_preset("scaling"), 0, 0.5)
    octave_count: int = number(_preset("octave_count"), 1, MOST_OCTAVES)
    octave_scale: float = number(_preset("octave_scale"), 1.01, 4)
    max_linf: float = number(0.0, 0, 255)
    max_l2: float = number(0.0, 0, 1e6)
    progress_every: int = number(10, 1, MOST_STEPS)
    preview_every: int = number(0, 0, MOST_STEPS)
    checkpoint_every: int = number(0, 0, MOST_STEPS)
    checkpoint_precision: str = choice("full")

    @property
    def spectral(self) -> bool:
        return self.parameterization == "spectrum"

    def irrelevant(self) -> Mapping[str, str]:
        needs = {
            "momentum": (self.update == "momentum", "is for UPDATE_RULE_MOMENTUM"),
            "progress": (self.update == "progress", "is for UPDATE_RULE_PROGRESS"),
            "noise_std": (self.start == "noise", "is for START_NOISE"),
            "lp_order": (self.lp_penalty > 0, "needs lp_penalty"),
            "tv_beta": (self.tv_penalty > 0, "needs tv_penalty"),
            "blur_every": (self.blur_sigma_px > 0, "needs blur_sigma_px"),
            "checkpoint_precision": (self.checkpoint_every > 0, "needs checkpoint_every"),
            "octave_scale": (self.octave_count > 1, "needs octave_count of 2 or more"),
            "max_linf": (self.start == "photo", "is for START_PHOTO"),
            "max_l2": (self.start == "photo", "is for START_PHOTO"),
        }
        return {name: why for name, (relevant, why) in needs.items() if not relevant}

    def contradictions(self, model: Model) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for name in _OF_PIXELS if self.spectral else ():
            value = getattr(self, name)
            if value > (name == "octave_count"):
                found[name] = f"is {value}; it acts on pixels: set PARAMETERIZATION_PIXELS"
        if self.max_linf > 0 and self.max_l2 > 0:
            found["max_l2"] = f"is {self.max_l2:g} beside max_linf; only one of them may be set"
        shorter_px = min(self.octave_sizes[0])
        if shorter_px < LEAST_SIDE_PX:
            found["octave_count"] = (
                f"is {self.octave_count}; the smallest octave would have a side of {shorter_px} "
                f"px, at least {LEAST_SIDE_PX} are needed"
            )
        return found

    @property
    def bounded(self) -> bool:
        """Whether the image stays near to the photo."""
        return self.max_linf > 0 or self.max_l2 > 0

    @property
    def octave_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each octave, the smallest first."""
        factors = [self.octave_scale**-k for k in reversed(range(self.octave_count))]
        return [(round(self.height_px * f), round(self.width_px * f)) for f in factors]

    @property
    def step_total(self) -> int:
        """Steps of one image, over all octaves."""
        return self.step_count * self.octave_count


_OF_PIXELS = (
    *("clip_pixels", "l2_decay", "blur_sigma_px", "small_norm_percentile"),
    *("small_contribution_percentile", "octave_count", "max_linf", "max_l2"),
)
