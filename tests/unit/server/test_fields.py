"""Receptive fields, held against gradients, and against what perturbing pixels does."""

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pellucid_server.models.fields import Fields
from pellucid_server.models.layers import Layout
from torch import Tensor, nn
from torch.nn import functional as F

from tests.oracle.networks import seeded, served

SIDE_PX = 96


def field_of(module: nn.Module, height_px: int, width_px: int, dims: tuple[int, int] = (2, 3)):
    """That of a module's output."""
    image = torch.zeros(1, 3, height_px, width_px, device="meta")
    with torch.inference_mode():
        following = Fields(image)
        with following:
            output = module.to("meta")(image)
    return following.of(output, *dims)


def linearized(module: nn.Module) -> nn.Module:
    """Nothing cancels and nothing is cut off: means with positive weights, no maximum."""
    module = copy.deepcopy(module).double().eval()
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.MaxPool2d):
            path, _, last = name.rpartition(".")
            sizes = (part.kernel_size, part.stride, part.padding)
            setattr(module.get_submodule(path), last, nn.AvgPool2d(*sizes, part.ceil_mode))
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data.fill_(1 / part.weight[0].numel())
        elif isinstance(getattr(part, "running_mean", None), Tensor):
            part.weight.data.fill_(1.0)
            part.running_mean.zero_()
            part.running_var.fill_(1.0)
        if isinstance(getattr(part, "bias", None), Tensor):
            part.bias.data.zero_()
    return module


def support(activation: Tensor, image: Tensor, y: int, x: int) -> tuple[int, int, int, int]:
    """Of the gradient of a place, summed over channels: top, left, bottom, right."""
    (gradient,) = torch.autograd.grad(activation[0, :, y, x].sum(), image, retain_graph=True)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@pytest.mark.parametrize("name", ["efficientnet_lite0", "googlenet", "densenet121"])
def test_fields_are_the_support_of_a_linearized_copy(name: str) -> None:
    """Corners, borders and the middle of layers at all depths."""
    module = linearized(seeded(name))
    on = served(name).network
    chosen = [layer for layer in on.layers if layer.layout is Layout.MAPS]
    called = Counter(layer.name.partition("#")[0] for layer in on.layers)
    chosen = [layer for layer in chosen if called[layer.name] == 1]
    chosen = chosen[:: len(chosen) // 8]
    kept: dict[str, Tensor] = {}
    for layer in chosen:
        module.get_submodule(layer.name).register_forward_hook(
            lambda _m, _i, output, name=layer.name: kept.update({name: output})
        )
    image = torch.rand(1, 3, SIDE_PX, SIDE_PX, dtype=torch.float64) / 1e3  # nothing saturates
    image.requires_grad_()
    module(image)
    for layer in chosen:
        height, width = layer.grid or (0, 0)
        for y, x in {(0, 0), (height // 2, width // 2), (height - 1, width // 3)}:
            assert on.fields[layer.name].box(y, x) == support(kept[layer.name], image, y, x), (
                layer.name,
                (y, x),
            )


def test_sizes_and_strides_by_hand() -> None:
    """ResNet's: r ← r + (k - 1)·j, j ← j·s."""
    fields = served("resnet50").network.fields
    for name, size_px, stride_px in (
        ("conv1", 7, 2),
        ("maxpool", 11, 4),  # 7 + 2·2
        ("layer1.0", 19, 4),  # + 2·4
        ("layer1.2", 35, 4),
        ("layer2.0", 43, 8),  # its convolution of stride 2 still sees places 4 px apart
        ("layer2.3", 91, 8),  # + 3 · 2·8
    ):
        axis = fields[name].y
        assert (axis.size_px, axis.stride_px) == (size_px, stride_px), name


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_tiny"])
def test_squeeze_and_attention_count_as_the_whole_image(name: str) -> None:
    fields = served(name).network.fields
    first, last = next(iter(fields.values())), list(fields.values())[-1]
    assert not first.whole
    assert last.whole
    assert last.box(None, None) == (0, 0, SIDE_PX, SIDE_PX)


def test_windows_of_channels_last_maps() -> None:
    fields = served("convnext_atto").network.fields
    mlp = fields["stages.0.blocks.0.mlp.fc1"]
    assert (mlp.y.size_px, mlp.y.stride_px) == (4 + 6 * 4, 4)
    assert mlp.box(12, 0) == (12 * 4 - 12, 0, 12 * 4 + 16, 16)


class Reshaping(nn.Module):
    """Channel shuffles, padding, slices, transposes and sums of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding="same", dilation=2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(F.pad(image, (2, 1, 0, 3)))
        a, b = x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2).chunk(2, 1)
        x = torch.cat([a * 2, b.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)], 1)
        x = self.second(x)[:, :, 1:, :-2] + x[:, :, 1:, :-2]
        return F.pad(x.roll(1, 3), (1, 1, 1, 1), mode="replicate")


def test_reshaping_keeps_places() -> None:
    module = linearized(Reshaping())
    image = torch.rand(1, 3, 24, 30, dtype=torch.float64).requires_grad_()
    output = module(image)
    field = field_of(copy.deepcopy(module).float(), 24, 30)
    for y in range(output.shape[2]):
        for x in range(3, output.shape[3] - 1):  # rolled places see both ends
            assert field.box(y, x) == support(output, image, y, x), (y, x)


def _in_part(x: Tensor, y: Tensor) -> None:
    x[:, :2] = y[:, :2]


def _transposed(x: Tensor, y: Tensor) -> None:
    x.transpose(2, 3).add_(y)


def _flat(x: Tensor, y: Tensor) -> None:
    x.view(-1).add_(y.view(-1))


@pytest.mark.parametrize("write", [_in_part, _transposed, _flat])
def test_what_is_written_in_part_or_by_another_name_is_not_trusted(
    write: Callable[[Tensor, Tensor], None],
) -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor) -> Tensor:
            x = self.first(image)
            write(x, x.mean((2, 3), keepdim=True).expand_as(x).contiguous())
            return x * 2

    assert field_of(Writing(), 16, 16).whole


KINDS: tuple[Callable[[int, int, int], nn.Module], ...] = (
    lambda kernel, stride, padding: nn.Conv2d(4, 4, kernel, stride, padding),
    lambda kernel, stride, padding: nn.Conv2d(4, 4, kernel, 1, padding, dilation=stride),
    lambda kernel, stride, padding: nn.Conv2d(4, 4, kernel, stride, padding, groups=4),
    lambda kernel, stride, padding: nn.MaxPool2d(
        kernel, stride, min(padding, kernel // 2), ceil_mode=True
    ),
    lambda kernel, stride, padding: nn.AvgPool2d(kernel, stride, min(padding, kernel // 2)),
    lambda kernel, stride, padding: nn.ReflectionPad2d(padding),
    lambda kernel, stride, padding: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6()),
    lambda kernel, stride, padding: nn.AdaptiveAvgPool2d(3 + kernel),
    lambda kernel, stride, padding: nn.InstanceNorm2d(4),
)
PARTS = st.tuples(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))


@given(parts=st.lists(PARTS, min_size=1, max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_pixels_beyond_the_box_never_matter(parts: list, seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        *(kind(kernel, stride, padding) for kind, kernel, stride, padding in parts),
    ).eval()
    image = torch.randn(1, 3, 22, 26)
    try:
        with torch.no_grad():
            before = module(image)
    except RuntimeError:  # the maps became too small
        return
    field = field_of(copy.deepcopy(module), 22, 26)
    y = seed % before.shape[2]
    x = seed % before.shape[3]
    top, left, bottom, right = field.box(y, x)
    changed = torch.randn(1, 3, 22, 26) * 5
    changed[:, :, top:bottom, left:right] = image[:, :, top:bottom, left:right]
    with torch.no_grad():
        after = module(changed)
    assert torch.allclose(after[0, :, y, x], before[0, :, y, x], rtol=1e-4, atol=1e-5)


def test_a_place_that_sees_only_padding() -> None:
    field = field_of(nn.Conv2d(3, 1, 1, padding=2), 8, 8)
    assert field.box(0, 4)[::2] == (0, 0)
    assert field.box(2, 2) == (0, 0, 1, 1)
