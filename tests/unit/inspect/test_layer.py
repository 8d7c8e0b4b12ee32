"""A layer's weights, activations and gradients, against the untouched network in float64."""

import numpy as np
import pytest
import torch
from pellucid_server.engine.rows import ClassTarget, NeuronTarget
from pellucid_server.methods.inspect.layer import Activations, Filters, Gradients, LayerView
from pellucid_server.methods.inspect.statistics import _AT_ONCE, statistics_of
from pellucid_server.models.registry import Precision
from torch import nn

from tests.harness import Runner, model, photo_input, tiny_model, untouched

LITE = "efficientnet_lite0"
EVERYTHING = 10_000


def seen(runner: Runner, method: object, **options: object) -> LayerView:
    on = model(LITE, Precision.FLOAT64)
    result = runner.run(on, method, photo_input("cat", LITE), **options).result
    assert isinstance(result, LayerView)
    return result


def numbers_of(array: torch.Tensor) -> list[float]:
    """NumPy's own."""
    x = array.detach().double().numpy()
    return [x.min(), x.max(), x.mean(), x.std(), (x == 0).mean()]


@pytest.mark.parametrize("shape", [(3,), (5, 4, 4), (7, _AT_ONCE // 3)])
def test_statistics(shape: tuple[int, ...]) -> None:
    """The last is so large that it is taken in parts."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 5
    numbers = numbers.where(numbers > 4, 0)
    torch.testing.assert_close(
        statistics_of(numbers), torch.tensor(numbers_of(numbers)), rtol=1e-9, atol=0
    )


def test_equal_numbers_do_not_deviate() -> None:
    assert statistics_of(torch.full((9, 7), 0.1)).tolist()[3:] == [0, 0]


def test_filters_are_those_that_are_served(runner: Runner) -> None:
    """By hand: the first layer's weights, times the gain of the normalization behind it."""
    network = untouched(LITE)
    norm = network.bn1
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = network.conv_stem.weight * gain[:, None, None, None]
    found = seen(runner, Filters("conv_stem", 10, include_tensor=True))
    torch.testing.assert_close(found.tensor, expected, rtol=1e-10, atol=1e-12)
    norms = expected.square().sum((1, 2, 3)).sqrt()
    order = np.argsort(-norms.numpy())[:10]
    assert found.channels.tolist() == order.tolist()
    torch.testing.assert_close(found.strengths, norms[order])
    torch.testing.assert_close(found.tiles, expected[order])  # all three colours
    torch.testing.assert_close(
        found.statistics, torch.tensor(numbers_of(expected), dtype=torch.float64)
    )


def test_filters_ask_for_no_rows(runner: Runner) -> None:
    done = runner.run(model(LITE), Filters("conv_stem", 10, False), "cat")
    assert done.rides == ()
    assert 0 <= done.timing.launched_s - done.timing.ready_s < 60
    assert done.timing.finished_s == done.timing.launched_s


def test_other_filters_are_grey(runner: Runner) -> None:
    """Depthwise, a chosen input of a convolution, 1 × 1, dense."""
    network = model(LITE).network
    deep = seen(runner, Filters("blocks.1.0.conv_dw", EVERYTHING, True))
    assert deep.tiles.shape == (96, 3, 3)
    torch.testing.assert_close(deep.tiles, deep.tensor[deep.channels, 0])
    stem = seen(runner, Filters("conv_stem", 4, True, input_channel=2))
    torch.testing.assert_close(stem.tiles, stem.tensor[stem.channels, 2])
    point = seen(runner, Filters("blocks.1.0.conv_pw", 5, True))
    assert point.tiles.shape == (5, 1, 16)
    torch.testing.assert_close(point.tiles[:, 0], point.tensor[point.channels, :, 0, 0])
    dense = seen(runner, Filters("classifier", 5, True))
    assert dense.tiles.shape == (5, 1, 1280)
    expected = untouched(LITE).classifier.weight
    torch.testing.assert_close(dense.tensor, expected)
    for method in (Filters("conv_stem", 4, False), Filters("classifier", 5, False)):
        assert seen(runner, method).tiles.shape[1:] == method.tile_shape(network)


def test_activations(runner: Runner) -> None:
    network, kept = untouched(LITE), {}
    layer = network.get_submodule("blocks.2.0")
    hook = layer.register_forward_hook(lambda _m, _i, output: kept.update(maps=output[0]))
    with torch.no_grad():
        network(photo_input("cat", LITE)[None])
    hook.remove()
    maps = kept["maps"]
    found = seen(runner, Activations("blocks.2.0", 12, include_tensor=True))
    torch.testing.assert_close(found.tensor, maps, rtol=1e-8, atol=1e-9)
    order = np.argsort(-maps.mean((1, 2)).numpy())[:12]
    assert found.channels.tolist() == order.tolist()
    torch.testing.assert_close(found.tiles, maps[order], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        found.statistics, torch.tensor(numbers_of(maps)), rtol=1e-8, atol=1e-9
    )


def test_activations_of_one_number_a_channel(runner: Runner) -> None:
    found = seen(runner, Activations("classifier", 3, include_tensor=True))
    assert found.tiles.shape == (3, 1, 1)
    best = found.tensor.topk(3)
    assert found.channels.tolist() == best.indices.tolist()
    assert found.tiles.flatten().tolist() == best.values.tolist() == found.strengths.tolist()


@pytest.mark.parametrize(
    "target", [ClassTarget(285), NeuronTarget("blocks.4.0", 3), NeuronTarget("blocks.2.0", 1)]
)
def test_gradients(runner: Runner, target: ClassTarget | NeuronTarget) -> None:
    """Plain autograd of the score by the layer's output; the layer itself may be the target's."""
    network, kept = untouched(LITE), {}

    def keep(name: str, *, cut: bool) -> object:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            kept[name] = output.detach().requires_grad_() if cut else output
            return kept[name]

        return network.get_submodule(name).register_forward_hook(hook)

    hooks = [keep("blocks.2.0", cut=True)]
    if isinstance(target, NeuronTarget) and target.layer != "blocks.2.0":
        hooks.append(keep(target.layer, cut=False))
    logits = network(photo_input("cat", LITE)[None])
    score = (
        logits[0, 285]
        if isinstance(target, ClassTarget)
        else kept[target.layer][0, target.channel].sum()
    )
    [expected] = torch.autograd.grad(score, kept["blocks.2.0"])
    for hook in hooks:
        hook.remove()
    method = Gradients("blocks.2.0", 7, include_tensor=True)
    found = seen(runner, method, target=target)
    torch.testing.assert_close(found.tensor, expected[0], rtol=1e-7, atol=1e-10)
    assert found.target == target
    assert found.score == pytest.approx(score.item())
    strengths = expected[0].abs().mean((1, 2))
    assert found.strengths.tolist() == pytest.approx(sorted(strengths.tolist())[:-8:-1])


def test_a_layer_beside_the_way_to_the_target_has_no_gradient(runner: Runner) -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))

    on, image = tiny_model(Fork()), torch.ones(3, 2, 2)
    found = runner.run(on, Gradients("left", 9, True), image, NeuronTarget("right", 1)).result
    assert found.tensor.shape == (2, 2, 2)
    assert not found.tensor.any()
    assert found.channels.tolist() == [0, 1]  # of equal ones the first
