"""Why two photos are alike: the gradient of the cosine of their codes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pellucid_server.engine.rows import CosineTarget, EnergyTarget, NeuronTarget
from pellucid_server.engine.seeds import score
from pellucid_server.index.build import Built
from pellucid_server.index.folder import Index
from pellucid_server.methods.inspect.similar import Similar
from pellucid_server.models.layers import Layout
from pellucid_server.models.network import PENULTIMATE
from pellucid_server.models.registry import Model, Precision
from torch import nn

from tests.harness import Runner, model, photo_input, relative_error, tiny_model, untouched
from tests.unit.index.conftest import resnet


def test_the_cosine_by_hand() -> None:
    """Of (3, 4) and (1, 0) it is 0.6, and its gradient ((1, 0) - 0.6·(0.6, 0.8))/5."""
    activation = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    code = torch.tensor([2.0, 0.0], dtype=torch.float64)
    targets = [CosineTarget("code", code), CosineTarget("code", code), None]
    found = score({"code": activation}, targets)
    assert found.values.tolist() == pytest.approx([0.6, 0, 0])
    assert found.seeds["code"].numpy() == pytest.approx(np.array([[0.128, -0.096], [0, 0], [0, 0]]))
    assert found.classes.tolist() == [-1, -1, -1]
    nothing = score({"code": activation}, [CosineTarget("code", torch.zeros_like(code))] * 3)
    assert not nothing.values.any()
    assert not nothing.seeds["code"].any()


@pytest.mark.parametrize(
    ("layout", "shape", "places", "start"),
    [
        (Layout.MAPS, (5, 2, 3), (2, 3), 0),
        (Layout.MAPS_CHANNELS_LAST, (2, 3, 5), (1, 2), 0),
        (Layout.TOKENS, (6, 5), (1,), 0),
        (Layout.TOKENS, (8, 5), (1,), 2),
    ],
)
def test_pooled_by_the_mean_in_any_layout(
    layout: Layout, shape: tuple[int, ...], places: tuple[int, ...], start: int
) -> None:
    """Against autograd, beside rows that are after something else; the first tokens are of none."""
    from pellucid_server.models.layers import Layer

    layer = Layer("maps", "", shape, True, "", layout, (2, 3))

    def place_of(neuron: NeuronTarget) -> tuple[int | None, ...]:
        return layer.place(neuron.channel, neuron.y, neuron.x)

    generator = torch.Generator().manual_seed(0)
    activation = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    code = torch.randn(5, generator=generator, dtype=torch.float64)
    targets = [CosineTarget("maps", code), EnergyTarget("maps"), CosineTarget("maps", -code)]
    found = score({"maps": activation}, targets, place_of)
    for row, sign in ((0, 1), (2, -1)):
        one = activation[row : row + 1].clone().requires_grad_()
        expected = torch.cosine_similarity(one[:, start:].mean(places)[0], sign * code, 0)
        expected.backward()
        assert float(found.values[row]) == pytest.approx(float(expected.detach()))
        assert torch.allclose(found.seeds["maps"][row], one.grad[0], rtol=1e-12, atol=1e-15)
    assert torch.equal(found.seeds["maps"][1], activation[1])


@dataclass(frozen=True)
class Alone:
    """An index of one photo, without a folder."""

    codes: np.ndarray
    seen: np.ndarray
    code_layer: str = PENULTIMATE

    def nearest(self, code: np.ndarray, count: int) -> list[Any]:
        @dataclass(frozen=True)
        class One:
            photo: int = 0
            name: str = ""
            sha256: str = ""
            similarity: float = 0.0

        return [One()]

    def code(self, photo: int) -> np.ndarray:
        return self.codes

    def pixels(self, photo: int) -> np.ndarray:
        return self.seen


def explained(runner: Runner, on: Model, image: torch.Tensor, alone: Alone) -> Any:
    method = Similar(alone, lambda pixels: pixels, 1, 1)
    return runner.run(on, method, image).result


def test_on_a_tiny_network_by_a_formula(runner: Runner) -> None:
    """Where the code is a = W·mean(x), by every pixel of channel c it changes by
    (Wᵀ(c/‖c‖ - cos·a/‖a‖)/‖a‖)_c / pixels; no autograd is in it."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Conv2d(3, 4, 1, bias=False)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.pool(self.mix(x)).flatten(1))

    torch.manual_seed(0)
    module = Tiny()
    weights = module.mix.weight.detach().double().numpy()[:, :, 0, 0]
    on = tiny_model(module, side_px=4)
    rng = np.random.default_rng(0)
    query, match = (rng.standard_normal((3, 4, 4)).astype(np.float32) for _ in range(2))

    def by_hand(image: np.ndarray, code: np.ndarray) -> np.ndarray:
        a = weights @ image.astype(np.float64).mean((1, 2))
        cosine = a @ code / np.linalg.norm(a) / np.linalg.norm(code)
        slope = code / np.linalg.norm(code) - cosine * a / np.linalg.norm(a)
        by_channel = weights.T @ slope / np.linalg.norm(a) / 16
        return np.broadcast_to(by_channel[:, None, None], image.shape)

    codes = {
        name: weights @ image.mean((1, 2)) for name, image in (("query", query), ("match", match))
    }
    alone = Alone(codes["match"].astype(np.float32), match)
    found = explained(runner, on, torch.from_numpy(query), alone)
    assert found.query[0].numpy() == pytest.approx(by_hand(query, codes["match"]), rel=1e-4)
    assert found.match[0].numpy() == pytest.approx(by_hand(match, codes["query"]), rel=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_against_finite_differences(runner: Runner, name: str) -> None:
    """Of the network as it was built, float64, along random directions, for both photos.

    At longer steps a gate of Lite0 changes on the way: at 1e-7 that is 1e-3 of the slope.
    """
    on = model(name, Precision.FLOAT64)
    network = untouched(name)
    classifier = network.fc if name == "resnet18" else network.classifier

    def code_of(image: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        hook = classifier.register_forward_pre_hook(lambda _m, given: kept.append(given[0][0]))
        with torch.no_grad():
            network(image[None])
        hook.remove()
        return kept[0]

    query, match = photo_input("cat", name), photo_input("coffee", name)
    codes = {"query": code_of(query), "match": code_of(match).float().double()}
    alone = Alone(codes["match"].float().numpy(), match.numpy())
    found = explained(runner, on, query, alone)
    generator = torch.Generator().manual_seed(1)
    for image, other, gradient in (
        (query, codes["match"], found.query[0]),
        (match, codes["query"], found.match[0]),
    ):
        slopes, expected = [], []
        for _ in range(4):
            direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
            ahead, behind = (
                torch.cosine_similarity(code_of(image + step * direction), other, 0)
                for step in (1e-8, -1e-8)
            )
            expected.append((ahead - behind) / 2e-8)
            slopes.append((gradient * direction).sum())
        assert relative_error(torch.stack(slopes), torch.stack(expected)) < 1e-5


def test_matches_of_an_index(built: Built, runner: Runner) -> None:
    """A photo of it finds itself, where the cosine is largest and nothing changes it."""
    on, index = resnet(), Index(built.folder)
    seen = torch.from_numpy(on.preprocessing.normalize(index.pixels(3)))
    method = Similar(index, on.preprocessing.normalize, 3, 2)
    found = runner.run(on, method, seen).result
    assert found.neighbors[0].photo == 3
    assert found.neighbors[0].similarity == pytest.approx(1, abs=1e-6)
    assert len(found.query) == len(found.match) == 2
    assert found.query[0].norm() < 1e-3 * found.query[1].norm()
    assert found.match[0].norm() < 1e-3 * found.match[1].norm()
    none = runner.run(on, Similar(index, on.preprocessing.normalize, 3, 0), seen).result
    assert none.query is None
    assert [n.photo for n in none.neighbors] == [n.photo for n in found.neighbors]
    assert math.isclose(none.neighbors[2].similarity, found.neighbors[2].similarity, abs_tol=1e-6)
