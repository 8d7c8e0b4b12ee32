"""Gradient, deconvnet and guided backpropagation against independent computations."""

import copy
import warnings

import captum.attr
import pytest
import torch
from pellucid_server.engine.rows import ClassTarget, NeuronTarget
from pellucid_server.methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from pellucid_server.models.registry import Precision
from torch import Tensor, nn

from tests.harness import NETWORKS, Runner, model, photo_input, relative_error, untouched
from tests.oracle.graph import directional_derivative, hooked_gradient

BOUND = 1e-9
GATE_COUNTS = {
    "efficientnet_lite0": 33,
    "resnet18": 17,
    "vgg11": 10,
    "googlenet": 57,
    "densenet121": 121,
}
METHODS = {"gradient": Gradient(), "deconvnet": Deconvnet(), "guided_backprop": GuidedBackprop()}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_differ_between_photos(name: str) -> None:
    """Otherwise every method would pass on any photo."""
    network = untouched(name)
    cat, coffee = (network(photo_input(photo, name)[None])[0] for photo in ("cat", "coffee"))
    assert relative_error(cat, coffee) > 1e-2


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_rules_equal_hooks_on_autograd_nodes(runner: Runner, name: str, rule: str) -> None:
    image, target = photo_input("cat", name), 285
    served = model(name, Precision.FLOAT64)
    done = runner.run(served, METHODS[rule], image, ClassTarget(target))
    expected, node_count = hooked_gradient(
        untouched(name), image, lambda logits: logits[0, target], rule
    )
    assert node_count == served.network.gates.site_count
    assert node_count == GATE_COUNTS[name]
    assert relative_error(done.result.attribution, expected) <= BOUND


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_equals_autograd(runner: Runner, name: str) -> None:
    image = photo_input("coffee", name)
    done = runner.run(model(name, Precision.FLOAT64), Gradient(), image)
    x = image[None].clone().requires_grad_()
    logits = untouched(name)(x)[0]
    assert done.result.target == ClassTarget(int(logits.argmax()))
    (expected,) = torch.autograd.grad(logits.max(), x)
    assert relative_error(done.result.attribution, expected[0]) <= BOUND
    assert done.result.score == pytest.approx(float(logits.max().detach()), rel=BOUND)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_equals_finite_differences(runner: Runner, name: str) -> None:
    """Along directions that each follow the gradient on a random half of the pixels."""
    side_px = 32
    generator = torch.Generator().manual_seed(1)
    image = photo_input("cat", name, side_px)
    done = runner.run(model(name, Precision.FLOAT64, side_px), Gradient(), image, ClassTarget(285))
    gradient, network = done.result.attribution, untouched(name, side_px)
    expected, actual = [], []
    with torch.no_grad():
        for _ in range(12):
            half = torch.rand(image.shape, generator=generator) < 0.5
            direction = gradient.where(half, 0)
            direction = direction / direction.norm()
            derivative = directional_derivative(
                lambda images: network(images)[:, 285], image, direction
            )
            if derivative is not None:
                expected.append(derivative)
                actual.append(float((gradient * direction).sum()))
            if len(expected) == 4:
                break
    assert len(expected) == 4
    assert relative_error(torch.tensor(actual), torch.tensor(expected)) <= BOUND


@pytest.mark.parametrize(
    ("name", "layer", "whole_map"),
    [
        ("efficientnet_lite0", "blocks.2.0.bn2", True),
        ("efficientnet_lite0", "blocks.4.1.conv_pw", False),
        ("resnet18", "layer2.0.relu", False),
        ("resnet18", "layer2.0.relu#1", False),
        ("googlenet", "inception4a", False),
        ("densenet121", "features.denseblock2.denselayer3.norm1", True),
        ("vgg11", "classifier.0", True),
    ],
)
def test_neuron_gradients_equal_autograd(
    runner: Runner, name: str, layer: str, whole_map: bool
) -> None:
    image = photo_input("coffee", name)
    x = image[None].clone().requires_grad_()
    activation = _activation(name, layer, x)
    strongest = int(activation.reshape(len(activation), -1).sum(1).argmax())
    y = x_ = None
    if not whole_map:
        y, x_ = divmod(int(activation[strongest].argmax()), activation.shape[2])
    target = NeuronTarget(layer, strongest, y, x_)
    score = (activation[strongest] if y is None else activation[strongest, y, x_]).sum()
    (expected,) = torch.autograd.grad(score, x)
    done = runner.run(model(name, Precision.FLOAT64), Gradient(), image, target)
    assert relative_error(done.result.attribution, expected[0]) <= BOUND
    assert done.result.score == pytest.approx(float(score.detach()), rel=1e-9)


def _activation(name: str, layer: str, x: Tensor) -> Tensor:
    """The output of a layer of the untouched network, in x's graph."""
    network, kept = untouched(name), []
    module_name, _, call = layer.partition("#")
    act = None
    if module_name.endswith("conv_pw"):
        # A folded convolution's tap is its normalization's output, before the activation.
        norm = network.get_submodule(module_name.replace("conv_pw", "bn1"))
        act, norm.act = norm.act, nn.Identity()
        module_name = module_name.replace("conv_pw", "bn1")
    module = network.get_submodule(module_name)
    # In place, what is kept would be overwritten by what comes after it.
    hook = module.register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    network(x)
    hook.remove()
    if act is not None:
        module.act = act
    return kept[int(call or 0)][0]


def _separate_rectifiers(network: nn.Module) -> nn.Module:
    """Captum hooks modules, each of which it needs to be called once, out of place."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if type(module).__name__ == "BasicBlock":
            module.second_relu = nn.ReLU()
            module.forward = _basic_block(module)
    return network


def _basic_block(block: nn.Module):
    def forward(x: Tensor) -> Tensor:
        out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
        return block.second_relu(out + (x if block.downsample is None else block.downsample(x)))

    return forward


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        ("gradient", captum.attr.Saliency),
        ("deconvnet", captum.attr.Deconvolution),
        ("guided_backprop", captum.attr.GuidedBackprop),
    ],
)
@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_rules_equal_captum(runner: Runner, name: str, rule: str, reference: type) -> None:
    image = photo_input("coffee", name)
    done = runner.run(model(name, Precision.FLOAT64), METHODS[rule], image, ClassTarget(967))
    network = _separate_rectifiers(copy.deepcopy(untouched(name)))
    options = {"abs": False} if rule == "gradient" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that hooks are set
        x = image[None].clone().requires_grad_()
        expected = reference(network).attribute(x, target=967, **options)
    assert relative_error(done.result.attribution, expected[0].detach()) <= BOUND
