"""Codes of images, against the network itself run by hand."""

import pytest
import torch
from pellucid_server.methods.inspect.embed import Embed, code_length, default_layer
from pellucid_server.models.network import PENULTIMATE, Network
from torch import nn

from tests.harness import CPU, Runner, model, photo_input, tiny_model, untouched

LITE = "efficientnet_lite0"
DEEP = "blocks.5.1"


def test_the_code_is_what_the_classifier_gets(runner: Runner) -> None:
    """By hand: the network's own maps before its head, pooled; the head makes the logits of it."""
    image, network = photo_input("cat", LITE), untouched(LITE)
    assert default_layer(model(LITE).network) == PENULTIMATE
    code = runner.run(model(LITE), Embed(PENULTIMATE), image).result.code
    expected = network.global_pool(network.forward_features(image[None]))[0]
    assert code.shape == (1280,) == expected.shape
    torch.testing.assert_close(code.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "max", "flatten"])
def test_poolings(runner: Runner, pooling: str) -> None:
    image, kept = photo_input("coffee", LITE), {}
    with torch.no_grad():
        module = untouched(LITE)
        hook = module.get_submodule(DEEP).register_forward_hook(
            lambda _module, _inputs, output: kept.update(maps=output[0])
        )
        module(image[None])
        hook.remove()
    maps = kept["maps"]
    expected = {"mean": maps.mean((1, 2)), "max": maps.amax((1, 2)), "flatten": maps.flatten()}
    code = runner.run(model(LITE), Embed(DEEP, pooling), image).result.code
    assert len(code) == code_length(model(LITE).network, DEEP, pooling)
    torch.testing.assert_close(code.double(), expected[pooling], rtol=1e-3, atol=1e-3)


class _Tokens(nn.Module):
    """Four patches of 2 × 2 pixels, a class token before them, and a head on that token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 5, 2, 2)
        self.norm = nn.LayerNorm(5)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).flatten(2).mT
        tokens = torch.cat([patches.mean(1, keepdim=True) + 1, patches], 1)
        tokens = self.mix(self.norm(tokens))
        return self.head(tokens.mean(1))


def test_class_tokens_are_no_places(runner: Runner) -> None:
    image = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    module = _Tokens()
    patches = module.patches(image[None]).flatten(2).mT
    tokens = torch.cat([patches.mean(1, keepdim=True) + 1, patches], 1)
    expected = module.mix(module.norm(tokens))[0, 1:].mean(0).detach()
    on = tiny_model(module, 4)
    assert on.network.layer("mix").layout.value == "tokens"
    code = runner.run(on, Embed("mix"), image).result.code
    torch.testing.assert_close(code, expected)
    assert len(runner.run(on, Embed("mix", "flatten"), image).result.code) == 25


def test_without_a_classifier_it_is_the_last_maps() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network = Network(module, height_px=4, width_px=4, dtype=torch.float32, device=CPU)
    assert default_layer(network) == "1"
    assert code_length(network, "1", "mean") == 6


def test_it_goes_no_deeper_than_its_layer(runner: Runner) -> None:
    """What lies behind is not run: there it would not be finite, and the row would fail."""
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4, bias=False))
    on = tiny_model(module)
    with torch.no_grad():
        on.network._module[3].weight.fill_(float("nan"))
    code = runner.run(on, Embed("0"), torch.ones(3, 2, 2)).result.code
    assert code.isfinite().all()
