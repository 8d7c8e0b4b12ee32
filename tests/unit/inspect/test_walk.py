"""All layers in numbers, and one place through them, against the untouched network and by hand."""

import numpy as np
import pytest
import torch
from pellucid_server.methods.inspect.walk import Column, Walk, walked
from pellucid_server.models.fields import Axis
from pellucid_server.models.registry import Precision
from torch import nn

from tests.harness import Runner, model, photo_input, tiny_model, untouched

LITE = "efficientnet_lite0"


def test_statistics_are_those_of_the_network_itself(runner: Runner) -> None:
    """Every layer but the convolutions that normalizations are folded into, and these's own."""
    network, kept = untouched(LITE), {}
    on = model(LITE, Precision.FLOAT64)
    image = photo_input("cat", LITE)

    def hook_for(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                kept[name] = output[0].clone()

        return hook

    hooks = [m.register_forward_hook(hook_for(n)) for n, m in network.named_modules() if n]
    with torch.no_grad():
        logits = network(image[None])[0]
    for hook in hooks:
        hook.remove()
    seen = runner.run(on, Walk(5), image).result
    torch.testing.assert_close(seen.logits, logits, rtol=1e-8, atol=1e-8)
    layers = walked(on.network)
    assert len(layers) == len(seen.statistics) > 100
    assert not {layer.kind for layer in layers} & {"Identity", "Dropout"}
    compared = 0
    for layer, numbers, dead in zip(layers, seen.statistics, seen.dead, strict=True):
        if "folded" in layer.note:
            continue
        compared += 1
        x = kept[layer.name].numpy()
        expected = [x.min(), x.max(), x.mean(), x.std(), (x == 0).mean()]
        np.testing.assert_allclose(numbers.numpy(), expected, rtol=1e-6, atol=1e-9)
        channels = x.reshape(len(x), -1)
        assert int(dead) == int((channels == 0).all(1).sum())
    assert compared > 60


class _Clipped(nn.Module):
    """Constants by channel: what is cut off where can be counted by hand."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        self.act = act
        self.head = nn.Linear(5, 4)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[3, 0] = 1.0  # the only one that looks at the image
            self.conv.bias.copy_(torch.tensor([-9.0, 9.0, 50.0, 0.5, 0.25]))
            self.head.weight.copy_(torch.arange(20.0).reshape(4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("act", "dead", "saturated"),
    [
        (nn.ReLU(), 1, 0),
        (nn.ReLU6(), 1, 2),
        (nn.Hardtanh(-20.0, 9.0), 0, 2),
        (nn.Hardsigmoid(), 1, 2),
        (nn.Sequential(nn.Identity(), nn.ReLU6()), 1, 2),
    ],
)
def test_dead_and_saturated_channels(
    runner: Runner, act: nn.Module, dead: int, saturated: int
) -> None:
    """Of -9, 9, 50, the image + 0.5 and 0.25: the third and fourth vary or are between."""
    on = tiny_model(_Clipped(act))
    image = torch.tensor([0.1, -7.0, 100.0, 0.2]).reshape(1, 2, 2).repeat(3, 1, 1)
    seen = runner.run(on, Walk(1), image).result
    rows = {layer.name: place for place, layer in enumerate(walked(on.network))}
    assert int(seen.dead[rows["act"]]) == dead
    assert int(seen.saturated[rows["act"]]) == saturated
    assert int(seen.saturated[rows["conv"]]) == int(seen.dead[rows["conv"]]) == 0
    zero_share = float(seen.statistics[rows["act"], 4])
    # A dead channel is 4 of 20 numbers, and of the varying one the second place is 0.
    expected = {"ReLU": 0.25, "ReLU6": 0.25, "Hardtanh": 0.0, "Hardsigmoid": 0.25}
    kind = type(act).__name__
    assert zero_share == pytest.approx(expected.get(kind, 0.25))


def test_units_without_places_count_as_channels(runner: Runner) -> None:
    on = tiny_model(_Clipped(nn.ReLU()))
    seen = runner.run(on, Walk(1), torch.zeros(3, 2, 2)).result
    layers = walked(on.network)
    (place,) = [n for n, layer in enumerate(layers) if layer.name == "head"]
    assert layers[place].shape == (4,)
    assert int(seen.dead[place]) == 0


def chain() -> nn.Module:
    """Strides, padding and none: 15 pixels, then 13, 6 and 2 places."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 2, 3),
        nn.Conv2d(2, 3, 3, stride=2),
        nn.MaxPool2d(3, stride=2, padding=0),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def test_a_column_looks_at_its_pixel(runner: Runner) -> None:
    """By hand: the middles are at 1.5 + i, 2.5 + 2i and 4.5 + 4i of 15 pixels."""
    on = tiny_model(chain(), 15)
    image = torch.randn(3, 15, 15, generator=torch.Generator().manual_seed(1))
    module, x = chain().eval(), image[None]
    maps = []
    with torch.no_grad():
        for part in list(module)[:3]:
            x = part(x)
            maps.append(x[0])
    for y_px, x_px, expected in (
        (0, 14, [(0, 12), (0, 5), (0, 1)]),
        (7, 7, [(6, 6), (2, 2), (1, 1)]),
        (8, 6, [(7, 5), (3, 2), (1, 0)]),
    ):
        seen = runner.run(on, Column(y_px, x_px), image).result
        assert [place.layer for place in seen.places] == ["0", "1", "2"]
        assert [(place.y, place.x) for place in seen.places] == expected
        for place, of_layer in zip(seen.places, maps, strict=True):
            torch.testing.assert_close(place.activation, of_layer[:, place.y, place.x])


def test_places_that_are_cut_off_at_the_border_count_as_whole() -> None:
    """Windows of three, padded by one, at every second of 8 pixels: middles at 0.5, 2.5, ..."""
    low, high = np.array([0, 1, 3, 5]), np.array([2, 4, 6, 8])
    axis = Axis(low, high, 3, 2)
    assert [axis.nearest(pixel, 4, 8) for pixel in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    # Windows of 12, of which each is cut off on one side: middles at 0, 4, 8.
    axis = Axis(np.array([0, 0, 2]), np.array([6, 8, 8]), 12, 4)
    assert [axis.nearest(pixel, 3, 8) for pixel in range(8)] == [0, 0, 1, 1, 1, 1, 2, 2]


def test_places_that_see_everything_are_spread_evenly() -> None:
    everything = Axis(np.zeros(4, int), np.full(4, 8), 99, 2)
    assert [everything.nearest(pixel, 4, 8) for pixel in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]
    one_for_all = Axis(np.zeros(1, int), np.full(1, 8), 8, 8)
    assert [one_for_all.nearest(pixel, 2, 8) for pixel in (0, 3, 4, 7)] == [0, 0, 1, 1]
