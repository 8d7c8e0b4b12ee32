"""DeepLIFT's rescale rule against Captum, against its sum, and against arithmetic by hand."""

import functools
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from unittest import mock

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from pellucid_server.models.gates import Undefined
from pellucid_server.models.network import OUTPUT, Network
from pellucid_server.models.registry import Precision
from pellucid_server.models.rescale import Rescale
from torch import Tensor, nn

from tests.harness import CPU, PHOTOS, model, photo_input, relative_error
from tests.oracle.networks import image_for, seeded, served

BOUND = 1e-9
TARGET = 285
Body = Callable[[Tensor], Tensor]


def multipliers(
    network: Network, images: Tensor, references: Tensor, targets: list[int]
) -> tuple[Tensor, Tensor]:
    """Of each image, and by how much its logit is above its reference's."""
    pairs = torch.cat([images, references]).to(network.dtype)
    pairs = pairs.contiguous(memory_format=torch.channels_last).requires_grad_()
    logits = network.forward(pairs, mode=Rescale())[OUTPUT]
    of_images = logits[: len(images)]
    chosen = F.one_hot(torch.tensor(targets), network.class_count).to(of_images)
    (found,) = torch.autograd.grad(of_images, pairs, chosen)
    above = ((of_images - logits[len(images) :]) * chosen).sum(1)
    return found[: len(images)], above.detach()


def network_of(name: str) -> Network:
    """Float64, 96 px."""
    return (model(name, Precision.FLOAT64) if name == "densenet121" else served(name)).network


def black(image: Tensor) -> Tensor:
    """Not quite: in flat areas, which of equal neighbours is the largest is up to rounding."""
    generator = torch.Generator().manual_seed(0)
    return 0.01 * torch.randn(image.shape, generator=generator, dtype=image.dtype) - 2


# Against Captum, which hooks modules: each may be called once, and not in place.


class Skips(nn.Module):
    """Two residual blocks, and activations that are each a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), act, nn.Conv2d(8, 8, 3, 1, 1))
            for act in (nn.ELU(), nn.LeakyReLU())
        )
        self.outer = nn.ModuleList((nn.Tanh(), nn.ReLU()))
        self.head = nn.Linear(8, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = outer(inner(x) + x)
        return self.head(x.mean((2, 3)))


@functools.lru_cache
def skips() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Skips().eval().double().requires_grad_(False)


class Apart(nn.Module):
    """A maximum whose input is not the very tensor that an activation has put out.

    Captum's hooks on one tensor would run in the wrong order: the activation would see what
    arrives before the rule for maxima has been applied to it.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x.clone())


def by_captum(network: nn.Module, image: Tensor, reference: Tensor) -> Tensor:
    with ExitStack() as changed:
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.ReLU):
                    changed.enter_context(mock.patch.object(child, "inplace", False))
                if isinstance(child, nn.MaxPool2d):
                    parent.register_module(name, Apart(child))
                    changed.callback(parent.register_module, name, child)
        changed.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=r"\s*Setting forward, backward hooks")
        x = image[None].clone().requires_grad_()
        found = captum.attr.DeepLift(network).attribute(x, reference[None], target=TARGET)
    return found[0].detach()


@pytest.mark.parametrize("name", ["vgg16_narrow", "skips"])
def test_contributions_equal_captum(name: str) -> None:
    if name == "skips":
        untouched, side = skips(), {"height_px": 96, "width_px": 96}
        network = Network(skips.__wrapped__(), **side, dtype=torch.float64, device=CPU)
        image = image_for("resnet18")
    else:
        network, untouched, image = served(name).network, seeded(name), image_for(name)
    for reference in (black(image), image_for("resnet18", "coffee")):
        found, _ = multipliers(network, image[None], reference[None], [TARGET])
        expected = by_captum(untouched, image, reference)
        assert relative_error(found[0] * (image - reference), expected) <= BOUND


# Completeness.


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "densenet121", "efficientnet_lite0"])
def test_contributions_sum_to_the_difference(name: str) -> None:
    network = network_of(name)
    assert network.deeplift_refusal is None
    cat, coffee = image_for(name), image_for(name, "coffee")
    images, references = torch.stack([cat, cat]), torch.stack([black(cat), coffee])
    found, above = multipliers(network, images, references, [TARGET, 967])
    sums = (found * (images - references)).sum((1, 2, 3))
    for row in range(2):
        assert relative_error(sums[row], above[row]) <= BOUND


# By hand.


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def passed_back(body: Body, image: object, reference: object, arriving: object) -> object:
    """The multipliers of one pair; nothing arrives at the reference."""
    pair = tensor([image, reference]).requires_grad_()
    with Rescale():
        out = body(pair)
    (found,) = torch.autograd.grad(out[:1], pair, tensor([arriving]))
    return found[0].tolist()


ACTIVATIONS: tuple[Body, ...] = (
    F.relu,
    torch.relu_,
    F.relu6,
    lambda x: F.leaky_relu(x, 0.1),
    lambda x: x.clamp(-1, 2),
    F.elu,
    F.gelu,
    F.silu,
    F.mish,
    F.hardswish,
    F.hardsigmoid,
    F.softplus,
    torch.sigmoid,
    torch.tanh,
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_by_their_differences(activation: Body) -> None:
    """Δout / Δin, and where image and reference are the same, the derivative."""
    image, reference = tensor([3.0, -0.5, 7.0, 0.7]), tensor([-1.0, 2.0, -9.0, 0.7])
    apart = (activation(image.clone()) - activation(reference.clone())) / (image - reference)
    x = image.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(activation(x * 1).sum(), x)
    expected = [2 * float(slope) for slope in (*apart[:3], derivative[3])]
    found = passed_back(lambda x: activation(x[:]), image.tolist(), reference.tolist(), [2.0] * 4)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("window", "image", "reference", "arriving", "expected"),
    [
        # Windows of two that overlap: 1, 5, 2 gives 5, 5, and 4, 0, 3 gives 4, 3. The image
        # wins both: 5 - 4 and twice 5 - 3 come to its middle, which is 5 apart.
        ((1, 2), [1, 5, 2], [4, 0, 3], [1, 2], [0, 1, 0]),
        # The reference wins both: 4 - 5 and twice 3 - 5 come to its middle.
        ((1, 2), [4, 0, 3], [1, 5, 2], [1, 2], [0, 1, 0]),
        # One each: 6 - 4 comes to the image's winner, twice 1 - 4 to the reference's.
        ((1, 2), [6, 0, 1], [0, 4, 0], [1, 2], [2 / 6, 6 / 4, 0]),
        # One window: 5 - 4, and nothing to the others.
        ((1, 3), [1, 5, 2], [4, 0, 3], [1], [0, 1 / 5, 0]),
        # Where image and reference are the same, the gradient.
        ((1, 2), [5, 1, 0], [5, 2, 0], [1, 0], [1, 0, 0]),
    ],
)
def test_maxima_on_paper(
    window: tuple[int, int],
    image: list[float],
    reference: list[float],
    arriving: list[float],
    expected: list[float],
) -> None:
    found = passed_back(
        lambda x: F.max_pool2d(x, window, 1), [[image]], [[reference]], [[arriving]]
    )
    assert found == [[pytest.approx(expected)]]


def test_linear_calls_pass_as_gradients_do() -> None:
    def body(x: Tensor) -> Tensor:
        x = torch.cat([F.pad(x, (1, 0), value=3.0)[:, 1:] * 2, 1 - x], 1) / 4
        x = F.batch_norm(x, tensor([0.0] * 4), tensor([4.0] * 4), eps=0.0)
        return x @ tensor([[1.0], [2.0], [3.0], [4.0]]) + x.mean(1, keepdim=True)

    # Of 2x / 4 / 2: 1 and 2, and the mean 1/4; of -x / 4 / 2: 3 and 4, and 1/4.
    expected = [(1 + 1 / 4) / 4 - (3 + 1 / 4) / 8, (2 + 1 / 4) / 4 - (4 + 1 / 4) / 8]
    assert passed_back(body, [5, -7], [0, 0], [1]) == pytest.approx(expected)


def test_a_shut_gate_stops_an_infinite_multiplier() -> None:
    """inf · 0 would be NaN: products are selected."""
    assert passed_back(F.relu, [-1, 1], [-2, 0], [torch.inf, torch.inf]) == [0, torch.inf]


# Refusals.


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("mobilenet_v3_small", "multiplication of two activations, as in squeeze-and-excitation"),
        ("vit_tiny", "layer_norm"),
        ("convnext_atto", "layer_norm"),
    ],
)
def test_networks_that_are_refused(network: str, words: str) -> None:
    expected = f"DeepLIFT is not defined for the network's {words}"
    assert served(network).network.deeplift_refusal == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda x: x * x, "multiplication of two activations, as in squeeze-and-excitation"),
        (lambda x: x / x, "division by an activation"),
        (lambda x: 1 / x, "division by an activation"),
        (lambda x: x @ x, "product of two activations, as in attention"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "attention"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: F.group_norm(x, 1), "group_norm"),
        (lambda x: F.conv2d(x, x), "conv2d"),
        (lambda x: torch.maximum(x, -x), "maximum"),
        (lambda x: x.transpose(0, 1), "an axis other than the first"),
    ],
)
def test_calls_that_are_refused(body: Body, words: str) -> None:
    x = torch.ones(2, 3, 4, 4, requires_grad=True)
    with pytest.raises(Undefined, match=words), Rescale():
        body(x)


# Bits.


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_a_row_does_not_see_its_neighbours(name: str) -> None:
    """To the bit, whatever their references and targets, at one size of batch."""
    network = model(name).network
    images = torch.stack([photo_input(photo, name).float() for photo in PHOTOS])
    references, targets = images.flip(0) / 2, [285, 967, 1, 2]
    together, _ = multipliers(network, images, references, targets)
    for row, target in enumerate(targets):
        ours, theirs = torch.zeros_like(images), torch.zeros_like(images)
        ours[0], theirs[0] = images[row], references[row]
        solo, _ = multipliers(network, ours, theirs, [target, 0, 0, 0])
        assert together[row].norm() > 0
        assert torch.equal(together[row], solo[0])
