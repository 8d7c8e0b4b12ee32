"""Every method on every network against independent code, in float64."""

import pytest
import torch
from pellucid_server.engine.rows import ClassTarget, NeuronTarget
from pellucid_server.methods.explain import paths
from pellucid_server.methods.explain.baselines import Baseline
from pellucid_server.methods.explain.gradients import Gradient
from pellucid_server.methods.explain.programs import AttentionRollout

from tests.harness import Runner
from tests.oracle.explanations import ORACLES, compare
from tests.oracle.networks import LAYERS, image_for, seeded, served

BOUND = 1e-9

NETWORKS = ("resnet50", "densenet121", "mobilenet_v3_small", "vit_tiny")
"""One of each kind; the tables have all."""

RECTIFIED = {"resnet50", "vgg16", "googlenet", "densenet121", "efficientnet_lite0"}
REFUSED = {
    "deconvnet": set(LAYERS) - RECTIFIED,
    "guided_backprop": set(LAYERS) - RECTIFIED,
    "guided_grad_cam": set(LAYERS) - RECTIFIED,
    "lrp": {"densenet121", "mobilenet_v3_small", "vit_tiny"},
    "deep_lift": {"mobilenet_v3_small", "vit_tiny"},
    "attention_rollout": set(LAYERS) - {"vit_tiny"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_differ_between_photos(name: str) -> None:
    """Or any method passes."""
    with torch.no_grad():
        cat, coffee = (seeded(name)(image_for(name, p)[None])[0] for p in ("cat", "coffee"))
    assert float((cat - coffee).norm() / cat.norm()) > 0.01


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("name", NETWORKS)
def test_methods_equal_independent_code(runner: Runner, name: str, method: str) -> None:
    error = compare(runner, name, method)
    if name in REFUSED.get(method, ()):
        assert isinstance(error, str)
        assert error.startswith(("the network has", "only ")) or "is not defined for" in error
    else:
        assert not isinstance(error, str), error
        assert error <= BOUND


@pytest.mark.parametrize("statistic", ["mean_square", "variance"])
def test_statistics_of_noisy_gradients(runner: Runner, statistic: str) -> None:
    method = paths.SmoothGrad(sample_count=4, noise_level=0.3, statistic=statistic, seed=9)
    assert compare(runner, "mobilenet_v3_small", "smooth_grad", method) <= BOUND


def test_integrated_gradients_by_trapezoids(runner: Runner) -> None:
    """Without max pooling: all of black would be a tie."""
    method = paths.IntegratedGradients("trapezoid", 5, Baseline(fill="black"))
    assert compare(runner, "mobilenet_v3_small", "integrated_gradients", method) <= BOUND


@pytest.mark.parametrize("layer", ["blocks.0.norm1", "blocks.2"])
def test_attention_is_rolled_out_to_the_end_whatever_the_target(runner: Runner, layer: str) -> None:
    """A neuron early on needs no more than a part of the network; its rollout needs all of it."""
    on, image = served("vit_tiny"), image_for("vit_tiny")
    of_class, of_neuron = (
        runner.run(on, AttentionRollout(), image, target).result
        for target in (ClassTarget(7), NeuronTarget(layer, 3, y=1, x=2))
    )
    assert torch.equal(of_neuron.attribution, of_class.attribution)
    assert of_neuron.attribution.amax() > of_neuron.attribution.amin() > 0
    activation = runner.run(on, Gradient(), image, of_neuron.target).result
    assert of_neuron.score == pytest.approx(activation.score, rel=BOUND)
