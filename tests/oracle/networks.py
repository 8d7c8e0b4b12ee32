"""The networks that explanations are held against oracles on: untouched, and as served."""

import copy
import functools

import torch
from pellucid_server.models.architectures import _fit_norms
from pellucid_server.models.network import Network
from pellucid_server.models.registry import Model, Precision
from torch import Tensor, nn

from tests.harness import CPU, model, photo_input, untouched

SIDE_PX = 96

LAYERS = {
    "resnet50": "layer4.1",
    "vgg16": "features.29",
    "googlenet": "inception5a",
    "densenet121": "features.denseblock4",
    "mobilenet_v3_small": "features.9",
    "vit_tiny": "blocks.10",
    "efficientnet_lite0": "blocks.5.1",
}
"""Of each network, a layer with maps, deep down, that folding leaves as it is."""


@functools.lru_cache(maxsize=1)
def seeded(name: str) -> nn.Module:
    """The network as it is built, float64, with seeded weights that tell photos apart."""
    if name == "efficientnet_lite0":
        return untouched(name, SIDE_PX)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _build(name)
        _fit_norms(network, SIDE_PX)
    return network.eval().double().requires_grad_(False)


def _build(name: str) -> nn.Module:
    if name == "vit_tiny":
        import timm

        network = timm.create_model(
            "vit_tiny_patch16_224", img_size=SIDE_PX, num_classes=1000, pretrained=False
        )
        nn.init.normal_(network.head.weight, std=0.1)  # left at 0, logits are the same always
        for parameter in (network.pos_embed, network.cls_token):
            nn.init.normal_(parameter, std=0.2)
        return network
    if name == "convnext_atto":
        import timm

        return timm.create_model(name, pretrained=False)
    from torchvision.models import get_model, vgg

    if name == "vgg16_narrow":
        # A quarter of its channels, and 64 units instead of 4,096: more would show no more.
        features = vgg.make_layers([w if w == "M" else w // 4 for w in vgg.cfgs["D"]])
        with torch.device("meta"):
            network = vgg.VGG(features)
        for place, sizes in {0: (128 * 49, 64), 3: (64, 64), 6: (64, 1000)}.items():
            network.classifier[place] = nn.Linear(*sizes)
        return network
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return get_model(name, weights=None, **options)


@functools.lru_cache(maxsize=1)
def served(name: str) -> Model:
    """The same network as the server has it, float64."""
    if name == "efficientnet_lite0":
        return model(name, Precision.FLOAT64, SIDE_PX)
    network = Network(
        copy.deepcopy(seeded(name)),
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        dtype=torch.float64,
        device=CPU,
    )
    like = model("resnet18", Precision.FLOAT64, SIDE_PX)
    return Model(
        name=name,
        version="0",
        architecture=name,
        network=network,
        preprocessing=like.preprocessing,
        labels=like.labels,
        precision=Precision.FLOAT64,
        weights_sha256="0" * 64,
    )


def image_for(name: str, photo: str = "cat") -> Tensor:
    lite = "efficientnet_lite0"
    return photo_input(photo, lite if name == lite else "resnet18", SIDE_PX)
