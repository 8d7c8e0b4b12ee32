"""Layer-wise relevance propagation against Zennit, and against arithmetic by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pellucid_server.models.gates import Rule, Undefined
from pellucid_server.models.network import OUTPUT, Network
from pellucid_server.models.registry import Precision
from pellucid_server.models.relevance import Relevance
from torch import Tensor

from tests.harness import PHOTOS, model, photo_input, relative_error
from tests.oracle.networks import image_for, served
from tests.oracle.zennit_lrp import CANONIZERS, by_zennit

BOUND = 1e-9
TARGET = 285
RULES = (Rule.LRP_EPSILON, Rule.LRP_COMPOSITE)


def relevance(
    network: Network,
    images: Tensor,
    rules: list[Rule],
    epsilons: list[float],
    targets: list[int],
) -> Tensor:
    """Of each image, by its own rule, for its own target."""
    images = images.to(network.dtype).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    mode = Relevance(rules, torch.tensor(epsilons, dtype=network.dtype))
    logits = network.forward(images, mode=mode)[OUTPUT]
    chosen = F.one_hot(torch.tensor(targets), network.class_count).bool()
    (found,) = torch.autograd.grad(logits, images, logits.detach().where(chosen, 0))
    return found


@pytest.mark.parametrize("name", CANONIZERS)
def test_rules_equal_zennit(name: str) -> None:
    network, image = served(name).network, image_for(name)
    assert network.lrp_refusal is None
    cases = [(Rule.LRP_EPSILON, 1e-2), (Rule.LRP_COMPOSITE, 1e-6)]
    rules, epsilons = map(list, zip(*cases, strict=True))
    found = relevance(network, torch.stack([image] * 2), rules, epsilons, [TARGET] * 2)
    for actual, (rule, epsilon) in zip(found, cases, strict=True):
        expected = by_zennit(name, image, TARGET, rule, epsilon)
        assert relative_error(actual, expected) <= BOUND, (rule, epsilon)


# By hand: the stabilizer is 1 throughout, so that z = 3 divides by 4 and z = -3 by -4.

Body = Callable[[Tensor], Tensor]


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def passed_back(body: Body, x: object, arriving: object, rule: Rule = Rule.LRP_EPSILON) -> object:
    """What of the relevance that arrives reaches one row."""
    row = tensor([x]).requires_grad_()
    with Relevance([rule], torch.ones(1, dtype=torch.float64)):
        out = body(row)
    (found,) = torch.autograd.grad(out, row, tensor([arriving]))
    return found[0].tolist()


WEIGHT, BIAS = tensor([[3, 2], [-1, 1], [1, -1]]), tensor([-1, 0, 0])


def dense(x: Tensor) -> Tensor:
    return F.linear(x, WEIGHT, BIAS)


def convolution(x: Tensor) -> Tensor:
    return F.conv2d(x, WEIGHT[:, :, None, None], BIAS)


@pytest.mark.parametrize(
    ("x", "arriving", "expected"),
    [
        # z = 6 - 2 - 1 = 3, so of 4 / 4 the inputs get 6 and -2, and the bias the rest.
        ([2, -1], [4, 0, 0], [6, -2]),
        # z = -2 - 1 = -3: of 8 / -4 they get -2 and -1.
        ([2, -1], [0, 8, 0], [4, 2]),
        ([2, -1], [4, 8, 0], [10, 0]),
        # z = 0 counts as positive: of 5 / 1.
        ([1, 1], [0, 5, 0], [-5, 5]),
    ],
)
def test_epsilon_on_paper(x: list[int], arriving: list[int], expected: list[int]) -> None:
    assert passed_back(dense, x, arriving) == expected
    pixel, over = [[[v]] for v in x], [[[v]] for v in arriving]
    assert passed_back(convolution, pixel, over) == [[[v]] for v in expected]


def test_composite_on_paper() -> None:
    """Two channels of one pixel: copied by the first layer, convolved, and then dense."""
    kept: list[Tensor] = []

    def body(x: Tensor) -> Tensor:
        kept.append(F.conv2d(x, torch.eye(2, dtype=torch.float64)[:, :, None, None]))
        kept.append(convolution(kept[0]))
        return F.linear(kept[1].flatten(1), tensor([[2, 1, 0]]))

    x = tensor([[[[2]], [[-1]]]]).requires_grad_()
    with Relevance([Rule.LRP_COMPOSITE], torch.ones(1, dtype=torch.float64)):
        out = body(x)
    found = torch.autograd.grad(out, [kept[1], kept[0], x], tensor([[4]]))
    after, between, first = (relevance.flatten().tolist() for relevance in found)
    # Epsilon: the convolution gives 3, -3, 3, of which z = 6 - 3 = 3: of 4 / 4.
    assert after == [6, -3, 0]
    # z-plus: of 3·2, 2·-1 and the bias -1, only the first raises z, to 6: of 6 / 7. In the
    # second unit neither input does.
    assert between == pytest.approx([6 * 6 / 7, 0])
    # Flat: each input of two gets as much of each unit: of 36 / 7 / 3.
    assert first == pytest.approx([12 / 7, 12 / 7])


def test_z_plus_takes_negative_inputs_by_negative_weights() -> None:
    def body(x: Tensor) -> Tensor:
        return convolution(
            F.conv2d(x, torch.ones(2, 1, 1, 1).double() * tensor([2, -1]).view(2, 1, 1, 1))
        )

    # The third unit: 1·2 and -1·-1 make 3, so of 4 / 4 they pass 2 and 1, then 3 / 2 each.
    found = passed_back(body, [[[1]]], [[[0]], [[0]], [[4]]], Rule.LRP_COMPOSITE)
    assert found == [[[2 / 2 + 1 / 2]]]


KERNEL = torch.arange(-4.0, 5.0).double().view(1, 1, 3, 3)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: F.conv2d(x, KERNEL, stride=2, padding=1),
        lambda x: F.conv2d(F.pad(x, (1, 0, 1, 0)), KERNEL),
        lambda x: F.conv2d(F.pad(F.pad(x, (1, 0, 0, 0)), (0, 0, 1, 0)), KERNEL, tensor([9])),
    ],
)
def test_flat_leaves_borders_out(body: Body) -> None:
    """Four of the nine inputs are the image, whoever pads it: each gets 1 of 4 + 1."""
    found = passed_back(body, [[[7, 0], [-1, 2]]], [[[10]]], Rule.LRP_COMPOSITE)
    assert found == [[[2, 2], [2, 2]]]


MAP = [[[1, 2], [3, 6]]]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("body", "x", "arriving", "expected"),
    [
        # Sums: 2 + 1 = 3, of 8 / 4; -4 + 1 = -3, of 8 / -4; a constant keeps its share.
        (lambda x: x[:, :1] + x[:, 1:], [2, 1], [8], [4, 2]),
        (lambda x: torch.add(x[:, :1], x[:, 1:], alpha=2), [1, 1], [8], [2, 4]),
        (lambda x: torch.add(x[:, :1], other=x[:, 1:]), [-4, 1], [8], [8, -2]),
        (lambda x: x + 1, [2], [8], [4]),
        # Averages: 3, of which each has a quarter of itself, of 16 / 4.
        (lambda x: F.avg_pool2d(x, 2), MAP, [[[16]]], MAP),
        (lambda x: F.adaptive_avg_pool2d(x, 1), MAP, [[[16]]], MAP),
        (lambda x: x.mean((2, 3)), MAP, [16], MAP),
        # Maxima: the winner's; all of it moves with it; copies come together again.
        (lambda x: F.max_pool2d(x, 2), MAP, [[[5]]], [[[0, 0], [0, 5]]]),
        (lambda x: torch.cat([x, x], 1).permute(0, 1), [1, 2], [1, 2, 3, 4], [4, 6]),
        (lambda x: F.dropout(x, 0.5, False).view(-1, 1, 2).flatten(1), [1, 2], [3, 4], [3, 4]),
        (lambda x: F.hardtanh_(x, 0.0, 6.0), [7, -1, 2], [1, 2, 3], [1, 2, 3]),
        # Activations: as it is, shut or saturated.
        *(
            (act, [7, -1, 2], [1, 2, 3], [1, 2, 3])
            for act in (F.relu, torch.relu_, F.relu6, F.leaky_relu, F.elu, torch.tanh)
        ),
    ],
)
def test_other_calls_on_paper(
    body: Body, x: object, arriving: object, expected: object, rule: Rule
) -> None:
    assert passed_back(lambda row: body(row[:]), x, arriving, rule) == expected


def test_nothing_comes_to_what_is_zero() -> None:
    """inf · 0 would be NaN: shares are selected."""
    assert passed_back(dense, [0, 1], [torch.inf, 0, 0]) == [0, torch.inf]


# Refusals.


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("densenet121", "batch normalization, which could not be folded into a convolution"),
        ("mobilenet_v3_small", "Hardswish"),
        ("vit_tiny", "layer_norm"),
        ("convnext_atto", "layer_norm"),
    ],
)
def test_networks_that_are_refused(network: str, words: str) -> None:
    served_network = (
        model(network, Precision.FLOAT64) if network == "densenet121" else served(network)
    ).network
    expected = f"layer-wise relevance propagation is not defined for the network's {words}"
    assert served_network.lrp_refusal == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda x: x * F.adaptive_avg_pool2d(x, 1), "as in squeeze-and-excitation"),
        (lambda x: x * 2, "multiplication by a constant"),
        (lambda x: x @ x, "product of two activations, as in attention"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "attention"),
        (lambda x: x.softmax(1), "softmax"),
        (F.gelu, "GELU"),
        (F.silu, "SiLU"),
        (F.hardswish, "Hardswish"),
        (torch.sigmoid, "sigmoid"),
        (lambda x: F.group_norm(x, 1), "group_norm"),
        (lambda x: 1 - x, "subtraction"),
        (lambda x: F.pad(x, (1, 1, 1, 1), value=1.0), "padding, which is not with zeros"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "padding, which is not with zeros"),
        (lambda x: F.conv2d(x, x), "conv2d"),
        (lambda x: x.transpose(0, 1), "an axis other than the first"),
        (lambda x: x.reshape(-1, 4), "an axis other than the first"),
    ],
)
def test_calls_that_are_refused(body: Body, words: str) -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    with pytest.raises(Undefined, match=words), Relevance(RULES, torch.ones(2)):
        body(x)


def test_questions_and_constants_are_not_refused() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    with Relevance(RULES, torch.ones(2)):
        assert x.shape == (2, 3, 4, 4)
        assert x.dim() == 4
        assert x.detach().softmax(1).shape == x.shape
        assert not bool((x > 0).any())


# Bits.


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "efficientnet_lite0"])
def test_a_row_does_not_see_its_neighbours(name: str) -> None:
    """To the bit, whatever their rules, epsilons and targets, at one size of batch."""
    network = model(name).network
    images = torch.stack([photo_input(photo, name).float() for photo in PHOTOS])
    epsilons, targets = [1e-6, 1e-2, 1e-6, 1.0], [285, 967, 1, 2]
    for rules in ([RULES[0], RULES[0], RULES[1], RULES[1]], [RULES[0], *[RULES[1]] * 3]):
        together = relevance(network, images, rules, epsilons, targets)
        for row, rule in enumerate(rules):
            padded = torch.zeros_like(images)
            padded[0] = images[row]
            solo = relevance(
                network, padded, [rule] * 4, [epsilons[row], 1, 1, 1], [targets[row], 0, 0, 0]
            )
            assert together[row].norm() > 0
            assert torch.equal(together[row], solo[0])
