"""Gates against arithmetic worked by hand, on networks of one pixel."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pellucid_server.models.gates import Gates, Rule
from pellucid_server.models.network import OUTPUT, Network
from torch import Tensor, nn

# One pixel of three channels goes in. The first layer copies channels, the last one weighs
# them, so that everything between can be followed on paper.
IMAGE = torch.tensor([2.0, -1.0, 7.0])
WEIGHTS = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 2.0, -3.0]])


class OnePixel(nn.Module):
    """logits = WEIGHTS · activation(activation'(x)), by the function that is given."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("weights", WEIGHTS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1) * 1.0) @ self.weights.T


def network_of(body: Callable[[Tensor], Tensor]) -> Network:
    return Network(
        OnePixel(body), height_px=1, width_px=1, dtype=torch.float64, device=torch.device("cpu")
    )


class ModuleReLU6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Reused(nn.Module):
    """One module, called twice: z₂ = relu(z₁) - 1, with z₁ the image."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.act(x) - 1)


def in_place_method(x: Tensor) -> Tensor:
    return x.relu_()


def functional_in_place(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)


# For logit 0 every channel sends back +1; for logit 1 they send back -1, 2, -3.
RELU = {
    # z = 2, -1, 7: open, shut, open.
    (Rule.GRADIENT, 0): [1, 0, 1],
    (Rule.DECONVNET, 0): [1, 1, 1],
    (Rule.GUIDED, 0): [1, 0, 1],
    (Rule.GRADIENT, 1): [-1, 0, -3],
    (Rule.DECONVNET, 1): [0, 2, 0],
    (Rule.GUIDED, 1): [0, 0, 0],
}
RELU6 = {
    # z = 2, -1, 7: open, shut, saturated.
    (Rule.GRADIENT, 0): [1, 0, 0],
    (Rule.DECONVNET, 0): [1, 1, 1],
    (Rule.GUIDED, 0): [1, 0, 0],
    (Rule.GRADIENT, 1): [-1, 0, 0],
    (Rule.DECONVNET, 1): [0, 2, 0],
    (Rule.GUIDED, 1): [0, 0, 0],
}
TWICE = {
    # z₁ = 2, -1, 7; z₂ = 1, -1, 6: both shut on the second channel.
    (Rule.GRADIENT, 0): [1, 0, 1],
    (Rule.DECONVNET, 1): [0, 2, 0],
    (Rule.GUIDED, 0): [1, 0, 1],
    (Rule.GUIDED, 1): [0, 0, 0],
}
CASES = [
    (F.relu, 1, RELU),
    (torch.relu, 1, RELU),
    (torch.Tensor.relu, 1, RELU),
    (in_place_method, 1, RELU),
    (functional_in_place, 1, RELU),
    (nn.ReLU(inplace=True), 1, RELU),
    (F.relu6, 1, RELU6),
    (ModuleReLU6(), 1, RELU6),
    (lambda x: F.hardtanh(x, 0.0, 6.0), 1, RELU6),
    (Reused(), 2, TWICE),
]


@pytest.mark.parametrize(("body", "site_count", "expected"), CASES)
def test_rules_on_paper(
    body: Callable[[Tensor], Tensor], site_count: int, expected: dict[tuple[Rule, int], list[int]]
) -> None:
    network = network_of(body)
    assert network.gates.site_count == network.gates.node_count == site_count
    assert network.gates.refusal is None
    cases = sorted(expected)  # by rule, as rows of a batch are
    images = IMAGE.double().view(1, 3, 1, 1).repeat(len(cases), 1, 1, 1).requires_grad_()
    logits = network.forward(images, mode=Gates([rule for rule, _ in cases]))[OUTPUT]
    seed = torch.zeros_like(logits)
    for row, (_, target) in enumerate(cases):
        seed[row, target] = 1
    (gradient,) = torch.autograd.grad(logits, images, seed)
    for row, case in enumerate(cases):
        assert gradient[row].flatten().tolist() == expected[case], case


@pytest.mark.parametrize("activation", [F.relu, F.relu6])
def test_a_shut_gate_stops_an_infinite_gradient(activation: Callable[[Tensor], Tensor]) -> None:
    """inf · 0 would be NaN: gates select."""
    z = torch.full((3, 2), -1.0, dtype=torch.float64, requires_grad=True)
    with Gates([Rule.GRADIENT, Rule.DECONVNET, Rule.GUIDED]):
        out = activation(z)
    reaching = torch.tensor([[torch.inf, -torch.inf]] * 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out, z, reaching)
    assert gradient.tolist() == [[0, 0], [torch.inf, 0], [0, 0]]


@pytest.mark.parametrize(
    ("activation", "named"),
    [(F.gelu, "GELU"), (F.silu, "SiLU"), (F.hardswish, "Hardswish"), (F.leaky_relu, "leaky ReLU")],
)
def test_other_activations_are_refused_by_name(
    activation: Callable[[Tensor], Tensor], named: str
) -> None:
    network = network_of(activation)
    assert network.gates.refusal is not None
    assert named in network.gates.refusal


def test_no_rectifier_at_all_is_refused() -> None:
    network = network_of(torch.tanh)
    assert network.gates.refusal == "the network has no ReLU or ReLU6 for this rule to act on"
