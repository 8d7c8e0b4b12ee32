"""Occlusion against a brute-force loop and against Captum."""

import itertools

import captum.attr
import numpy as np
import pytest
import torch
from pellucid_server.engine.rows import ClassTarget, NeuronTarget, Score
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.models.registry import Precision
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from tests.harness import Runner, model, photo, photo_input, untouched

BOUND = 1e-9
SIDE_PX = 96


def brute_force(
    name: str, image: torch.Tensor, method: Occlusion, cover: torch.Tensor, target: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The mean fall over the windows that cover a pixel, one window at a time."""
    network = untouched(name)
    with torch.no_grad():
        score = network(image[None])[0, target]
        starts = range(0, SIDE_PX - method.window_px + method.stride_px, method.stride_px)
        falls = torch.zeros(len(starts), len(starts), dtype=torch.float64)
        total, count = torch.zeros(2, SIDE_PX, SIDE_PX, dtype=torch.float64)
        for (i, top), (j, left) in itertools.product(enumerate(starts), repeat=2):
            window = slice(top, top + method.window_px), slice(left, left + method.window_px)
            covered = image.clone()
            covered[:, *window] = cover[:, *window]
            falls[i, j] = score - network(covered[None])[0, target]
            total[window] += falls[i, j]
            count[window] += 1
    assert count.min() >= 1
    return total / count, falls, float(falls.abs().max())


def cover_of(name: str, image: torch.Tensor, fill: str, sigma_px: float) -> torch.Tensor:
    steps = model(name, Precision.FLOAT64).preprocessing
    if fill == "blur":
        blurred = image.numpy()
        for axis in (1, 2):
            radius = int(-(-3 * sigma_px // 1))
            blurred = gaussian_filter1d(blurred, sigma_px, axis, mode="nearest", radius=radius)
        return torch.from_numpy(blurred)
    grey = {"black": (0.0,) * 3, "white": (1.0,) * 3, "mean": steps.mean}[fill]
    normalized = [(g - m) / s for g, m, s in zip(grey, steps.mean, steps.std, strict=True)]
    return torch.tensor(normalized, dtype=torch.float64)[:, None, None].expand_as(image)


@pytest.mark.parametrize(
    ("name", "window_px", "stride_px", "fill"),
    [
        ("resnet18", 32, 16, "mean"),
        ("resnet18", 37, 23, "black"),  # windows that are cut off at the edge
        ("googlenet", 32, 16, "white"),
        ("resnet18", 32, 32, "blur"),
        ("efficientnet_lite0", 48, 24, "mean"),
    ],
)
def test_occlusion_equals_a_loop(
    runner: Runner, name: str, window_px: int, stride_px: int, fill: str
) -> None:
    image, method = photo_input("cat", name), Occlusion(window_px, stride_px, fill, 4.0)
    done = runner.run(model(name, Precision.FLOAT64), method, image, ClassTarget(285))
    cover = cover_of(name, image, fill, 4.0)
    expected, falls, scale = brute_force(name, image, method, cover, 285)
    assert done.result.attribution.shape == (1, SIDE_PX, SIDE_PX)
    assert scale > 0
    assert float((done.result.attribution[0] - expected).abs().max()) <= BOUND * scale
    assert float((done.result.falls.values - falls).abs().max()) <= BOUND * scale


@pytest.mark.parametrize(
    ("name", "window_px", "stride_px"),
    [
        ("vgg11", 48, 24),
        ("resnet18", 37, 23),  # windows that are cut off at the edge
    ],
)
def test_occlusion_equals_captum(runner: Runner, name: str, window_px: int, stride_px: int) -> None:
    image, method = photo_input("coffee", name), Occlusion(window_px, stride_px, "mean", 1.0)
    done = runner.run(model(name, Precision.FLOAT64), method, image, ClassTarget(967))
    reference = captum.attr.Occlusion(untouched(name))
    reference.use_weights = False  # it would divide by the counts in float32
    with torch.no_grad():
        total = reference.attribute(
            image[None],
            sliding_window_shapes=(3, window_px, window_px),
            strides=(3, stride_px, stride_px),
            baselines=0,
            target=967,
            perturbations_per_eval=16,
        )[0]
    starts = torch.arange(0, SIDE_PX - window_px + stride_px, stride_px)
    pixels = torch.arange(SIDE_PX)
    count = ((pixels >= starts[:, None]) & (pixels < starts[:, None] + window_px)).sum(0)
    expected = total / torch.outer(count, count)
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((done.result.attribution - expected[:1]).abs().max()) <= BOUND * scale


def test_the_top_prediction_is_resolved_once(runner: Runner) -> None:
    image, method = photo_input("cat", "resnet18"), Occlusion(32, 32, "mean", 1.0)
    done = runner.run(model("resnet18", Precision.FLOAT64), method, image, bucket_size=4)
    top = int(untouched("resnet18")(image[None]).argmax())
    assert done.result.target == ClassTarget(top)
    chosen = runner.run(
        model("resnet18", Precision.FLOAT64), method, image, ClassTarget(top), bucket_size=4
    )
    assert torch.equal(done.result.attribution, chosen.result.attribution)


def test_occlusion_of_a_neuron(runner: Runner) -> None:
    image, method = photo_input("cat", "resnet18"), Occlusion(48, 48, "mean", 1.0)
    target = NeuronTarget("layer3", 4)
    done = runner.run(model("resnet18", Precision.FLOAT64), method, image, target)
    network = untouched("resnet18")
    kept = []
    handle = network.layer3.register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        covered = image.clone()
        covered[:, :48, :48] = 0
        network(image[None])
        network(covered[None])
    handle.remove()
    whole, without = (activation[0, 4].sum() for activation in kept)
    assert float(done.result.falls.values[0, 0]) == pytest.approx(float(whole - without), rel=1e-9)


def test_the_windows_of_the_largest_fall_and_rise(runner: Runner) -> None:
    image, method = photo_input("cat", "resnet18"), Occlusion(40, 32, "mean")
    falls = runner.run(model("resnet18", Precision.FLOAT64), method, image).result.falls
    starts = (0, 32, 64)  # the last window is cut off at 96
    for place, (ys, xs) in (
        (int(falls.values.argmax()), falls.largest_fall),
        (int(falls.values.argmin()), falls.largest_rise),
    ):
        top, left = starts[place // 3], starts[place % 3]
        assert (ys, xs) == (slice(top, min(top + 40, 96)), slice(left, min(left + 40, 96)))


def test_covering_the_other_object_raises_the_labelled_ones_probability(runner: Runner) -> None:
    """A cat on the left, a cup on the right: each label's strongest rise is on the other."""
    halves = [
        np.asarray(Image.fromarray(photo(name)).crop(box).resize((300, 300)))
        for name, box in (("cat", (60, 0, 360, 300)), ("coffee", (150, 0, 450, 330)))
    ]
    on = model("efficientnet_lite0", side_px=224)
    image = torch.from_numpy(on.preprocessing.apply(np.concatenate(halves, 1))).float()
    for index, others_half in ((285, range(112, 224)), (967, range(112))):
        target = ClassTarget(index, Score.PROBABILITY)
        result = runner.run(on, Occlusion(64, 32, "mean"), image, target).result
        assert result.falls.largest_rise is not None
        xs = result.falls.largest_rise[1]
        assert xs.start in others_half
        assert xs.stop - 1 in others_half
        raised = result.score - float(result.falls.values.min())
        assert raised > 1.3 * result.score
        # Seen by the network alone, without any of ours:
        ys = result.falls.largest_rise[0]
        covered = image.double().clone()
        covered[:, ys, xs] = 0
        with torch.no_grad():
            alone = untouched("efficientnet_lite0")(covered[None]).softmax(1)[0, index]
        assert raised == pytest.approx(float(alone), rel=1e-3)
