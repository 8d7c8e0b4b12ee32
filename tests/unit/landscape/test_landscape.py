"""The landscape: networks that do not see each other, intervals that are right, honest words."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pellucid.cli import app
from pellucid_server.landscape import digits, measure, report, spread, training
from pellucid_server.landscape.images import SIDE_PX, Climber, Perceptron
from pellucid_server.landscape.training import Shape
from pellucid_server.methods import draws
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

DIGITS = digits.load(3)
SHAPE = Shape(6, 2)
EPOCHS = 3

# Digits.


def test_every_digit_is_in_one_set() -> None:
    pictures, classes = load_digits(return_X_y=True)
    assert (len(DIGITS.train_inputs), len(DIGITS.test_inputs)) == (1198, 599)
    inputs = torch.cat([DIGITS.train_inputs, DIGITS.test_inputs])
    labels = torch.cat([DIGITS.train_classes, DIGITS.test_classes])
    assert (inputs.min(), inputs.max()) == (-1, 1)
    made = np.hstack([(inputs.numpy() + 1) * 8, labels.numpy()[:, None]])
    expected = np.hstack([pictures, classes[:, None]])
    assert np.array_equal(made[np.lexsort(made.T)], expected[np.lexsort(expected.T)])
    assert not torch.equal(digits.load(4).test_inputs, DIGITS.test_inputs)


# Training.


def alone(shape: Shape, seed: int) -> nn.Sequential:
    """One network in a plain loop: torch's own layers, loss and optimizer; one rate a step."""
    sizes = (64, *[shape.width] * shape.depth, 10)
    layers: list[nn.Module] = []
    for number, (into, out) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(into, out, dtype=torch.float64)
        weight = draws.normal(seed, number, (into, out)) * math.sqrt(2 / into)
        layer.weight.data, layer.bias.data = weight.T.contiguous(), torch.zeros_like(layer.bias)
        layers += [layer, nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    batch_count = math.ceil(1198 / 128)
    step, step_count = 0, EPOCHS * batch_count
    for epoch in range(EPOCHS):
        order = draws.permutation(seed, epoch, 1198)
        for batch in range(batch_count):
            chosen = order[128 * batch : 128 * (batch + 1)]
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / step_count))
            optimizer.zero_grad()
            loss = F.cross_entropy(
                network(DIGITS.train_inputs[chosen]), DIGITS.train_classes[chosen]
            )
            loss.backward()
            optimizer.step()
            step += 1
    return network


@pytest.mark.parametrize("shape", [SHAPE, Shape(9, 1)])
def test_a_stack_is_as_networks_trained_alone(shape: Shape) -> None:
    seeds = [11, 5, 7]
    stack = training.train(shape, seeds, DIGITS, EPOCHS)
    for place, seed in enumerate(seeds):
        network = alone(shape, seed)
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(linear, stack.weights, stack.biases, strict=True):
            assert torch.allclose(weight[place].T, layer.weight, rtol=0, atol=1e-9)
            assert torch.allclose(bias[place], layer.bias, rtol=0, atol=1e-9)
        loss = F.cross_entropy(network(DIGITS.train_inputs), DIGITS.train_classes)
        network.zero_grad()
        loss.backward()
        squares = sum(float(p.grad.square().sum()) for p in network.parameters())
        assert float(stack.train_losses[place]) == pytest.approx(float(loss.detach()), abs=1e-9)
        assert float(stack.gradient_norms[place]) == pytest.approx(math.sqrt(squares), abs=1e-9)
        with torch.no_grad():
            logits = network(DIGITS.test_inputs)
        expected = float(F.cross_entropy(logits, DIGITS.test_classes))
        assert float(stack.test_losses[place]) == pytest.approx(expected, abs=1e-9)
        wrong = int((logits.argmax(1) != DIGITS.test_classes).sum())
        assert float(stack.test_errors[place]) == pytest.approx(wrong / 599)
    assert stack.test_losses.unique().numel() == 3


def test_seeds_do_not_see_each_other() -> None:
    together = training.train(SHAPE, [1, 2, 3, 4, 5], DIGITS, EPOCHS)
    for place, seed in enumerate([1, 2, 3, 4, 5]):
        one = training.train(SHAPE, [seed], DIGITS, EPOCHS)
        assert float(one.test_losses) == pytest.approx(float(together.test_losses[place]), abs=1e-9)


# Images.


def test_images_of_a_first_layers_unit_reach_the_one_corner() -> None:
    """It is linear in pixels from -1 to 1: its most is the bias and all weights' magnitudes."""
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(64, 5), (5, 10)]
    ]
    biases = [torch.ones(5, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)]
    with Climber(4) as climber:
        scores = climber.scores(weights, biases, 0, 3, seed=1)
        logits = climber.scores(weights, biases, 1, 3, seed=1)
        assert climber.scores(weights, biases, 1, 3, seed=1) == logits
        assert climber.scores(weights, biases, 1, 3, seed=2) != logits
    assert scores == pytest.approx([1 + float(weights[0][:, 3].abs().sum())] * 4, rel=1e-9)
    assert len(set(logits)) == 4


def test_a_network_of_images_is_the_network_of_digits() -> None:
    stack = training.train(SHAPE, [1], DIGITS, 1)
    network = Perceptron([w[0] for w in stack.weights], [b[0] for b in stack.biases])
    grey = DIGITS.test_inputs.view(-1, 1, 8, 8)
    images = F.interpolate(grey, (SIDE_PX, SIDE_PX)).expand(-1, 3, -1, -1)
    expected = training.logits_of(DIGITS.test_inputs, stack.weights, stack.biases)[0]
    with torch.no_grad():
        assert torch.allclose(network(images), expected, atol=1e-12)


# Spread.

NORMAL = np.random.default_rng(0).normal(5, 2, 4000)


def test_an_interval_of_normal_numbers_is_chi_squares() -> None:
    made = spread.estimate(NORMAL, spread.variance, seed=1)
    squares = 3999 * made.value
    expected = [squares / stats.chi2.ppf(level, 3999) for level in (0.975, 0.025)]
    assert [made.low, made.high] == pytest.approx(expected, rel=0.01)
    assert made == spread.estimate(NORMAL, spread.variance, seed=1)
    assert made != spread.estimate(NORMAL, spread.variance, seed=2)


def test_intervals_hold_the_truth() -> None:
    """Of 24 numbers those of a variance are known to be narrow: 89% in place of 95%."""
    samples = np.random.default_rng(1).normal(0, 1, (200, 24))
    made = [spread.estimate(sample, spread.variance, 0) for sample in samples]
    assert 0.83 < np.mean([one.low <= 1 <= one.high for one in made]) <= 0.98


def test_a_relative_variance_has_no_scale() -> None:
    assert spread.relative_variance(np.array([1.0, 3.0])) == pytest.approx(2 / 4)
    assert spread.relative_variance(7 * NORMAL) == pytest.approx(spread.relative_variance(NORMAL))


def test_no_spread_has_no_interval() -> None:
    assert spread.estimate(np.full(5, 2.0), spread.variance, 0) == spread.Interval(0, 0, 0)


def test_a_slope_and_its_interval() -> None:
    """For n normal numbers a log variance is off by √(2 / (n - 1)): so is a slope, by hand."""
    sizes, count = (1, 10, 100), 2000
    random = np.random.default_rng(2)
    samples = [random.normal(0, size**-1.5, count) for size in sizes]
    made = spread.slope(sizes, samples, spread.variance, seed=0)
    assert made is not None
    variances = [sample.var(ddof=1) for sample in samples]
    assert made.value == pytest.approx(np.polyfit(np.log(sizes), np.log(variances), 1)[0])
    error = math.sqrt(2 / (count - 1)) * math.sqrt(2) / (2 * math.log(10))
    assert made.high - made.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert made.low < -3 < made.high


def test_sizes_without_spread_are_left_out() -> None:
    samples = [np.zeros(9), NORMAL[:9], 2 * NORMAL[:9]]
    made = spread.slope((1, 2, 4), samples, spread.variance, 0)
    assert made is not None
    assert made.value == pytest.approx(2)
    assert spread.slope((1, 2), samples[:2], spread.variance, 0) is None
    assert spread.trend(None) == "cannot be told"


# Words.


def landscape(by: measure.By, power: float) -> measure.Landscape:
    """Of 4, 16 and 64 units; deviations go as the width to a power."""
    settings = measure.Settings(by, (4, 16, 64), 3, 24, 1, 0)
    noise = np.random.default_rng(3).permutation(np.linspace(-1, 1, 24))
    samples = [1 + 0.1 * width**power * noise for width in settings.widths]
    spreads = [
        measure._spread(settings.widths, samples, statistic, 0)
        for statistic in (spread.variance, spread.relative_variance)
    ]
    part = measure.Part(settings.widths, tuple(samples), *spreads, {})
    return measure.Landscape(settings, part, part)


@pytest.mark.parametrize(
    ("power", "trend", "answer", "carried"),
    [
        (-0.5, " falls with width", "agrees with", "holds here"),
        (0.5, " rises with width", "contradicts", "fails here"),
        (0.0, ": whether it falls with width cannot be told", "does not settle", "is not settled"),
    ],
)
def test_what_is_said(power: float, trend: str, answer: str, carried: str) -> None:
    of_weights, of_images = report.sentences(landscape("width", power))
    assert f"the variance of the test loss{trend}" in of_weights
    assert f"That {answer} the published claim (Choromanska and others 2014" in of_weights
    assert f"as width to the power {2 * power:.2f} (95%" in of_weights
    assert f"the relative variance of the score{trend}" in of_images
    assert f"carried over to images, it {carried}" in of_images


def test_of_layers_the_claim_says_nothing() -> None:
    sentences = report.sentences(landscape("layer", -0.5))
    for sentence, size in zip(sentences, ("depth", "layer"), strict=True):
        assert "agrees" not in sentence
        assert f"falls with {size}" in sentence


# The command.

SMALL = ["optimize", "landscape", "--seeds", "3", "--epochs", "1"]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (["--widths", "3,6"], [[3, 6], [3, 6]]),
        (["--by", "layer", "--widths", "5", "--layers", "2"], [[1, 2], [1, 2, 3]]),
    ],
)
def test_the_command(tmp_path: Path, options: list[str], sizes: list[list[int]]) -> None:
    made = []
    for name in ("one", "two"):
        paths = tmp_path / f"{name}.png", tmp_path / f"{name}.json"
        written = ["-o", str(paths[0]), "--json", str(paths[1])]
        result = CliRunner().invoke(app, [*SMALL, *options, *written])
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Weight training" in result.stdout
        assert "Image optimization" in result.stdout
        made.append(json.loads(paths[1].read_text()))
        with Image.open(paths[0]) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
    assert made[0] == made[1]
    assert [made[0][part]["sizes"] for part in ("weights", "images")] == sizes
    assert np.shape(made[0]["weights"]["ends"]) == (len(sizes[0]), 3)
    assert np.shape(made[0]["images"]["ends"]) == (len(sizes[1]), 3, 3)
    if "--by" in options:  # see test_images_of_a_first_layers_unit_reach_the_one_corner
        assert made[0]["images"]["variance"]["estimates"][0]["value"] < 1e-12
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 120)
    assert red[:300, :448].any()
    assert red[:300, 448:].any()
    assert red[300:, :448].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--by depth", "--by: is 'depth'; must be width or layer"),
        ("--widths 4,x", "--widths: has '4,x'; must be numbers such as 4,8,16"),
        ("--widths 8,4", "--widths: has '8,4'; must rise, each number once"),
        ("--widths 0,4", "--widths: is 0; must be 1 to 512"),
        ("--widths 4,8 --by layer", "--widths: has 2 numbers; --by layer is of one width"),
        ("--layers 2", "--layers: is for --by layer"),
        ("--layers 9 --by layer", "--layers: is 9; must be 1 to 8"),
        ("--seeds 2", "--seeds: is 2; must be 3 to 64"),
        ("--epochs 0", "--epochs: is 0; must be 1 to 1000"),
        ("--seed -1", f"--seed: is -1; must be 0 to {2**62}"),
        ("-o plot.jpg", "--output: plot.jpg must end with .png"),
        ("-o nowhere/plot.png", "--output: there is no folder nowhere"),
        ("--json nowhere/all.json", "--json: there is no folder nowhere"),
    ],
)
def test_what_is_refused(options: str, message: str) -> None:
    result = CliRunner().invoke(app, [*SMALL, *options.split()])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"pellucid: {message}\n")
