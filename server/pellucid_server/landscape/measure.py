"""The published claim, measured: train, optimize images, and say what the spread does.

Choromanska and others 2014 (arXiv:1412.0233) trained fully connected networks on small digits
from many seeds: the test losses of larger ones are more alike, their variance falls.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import digits as data
from . import spread
from .images import Climber
from .spread import Array, Interval, Statistic
from .training import Shape, Stack, run_seed, train

By = Literal["width", "layer"]

MOST_NETWORKS = 12
"""Of each shape, whose images are made."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        by: What the spread is measured against: units of one hidden layer, or layers.
        widths: Units of hidden layers; one number by layer.
        layer_count: Hidden layers of the deepest network, by layer.
        seed_count: Networks of each shape, and starts of each unit's images; at least 3.
        epoch_count: Passes through the training set.
        seed: Of everything.
    """

    by: By
    widths: tuple[int, ...]
    layer_count: int
    seed_count: int
    epoch_count: int
    seed: int

    @property
    def shapes(self) -> list[Shape]:
        if self.by == "width":
            return [Shape(width, 1) for width in self.widths]
        return [Shape(self.widths[0], depth) for depth in range(1, self.layer_count + 1)]

    @property
    def units(self) -> list[tuple[Shape, int]]:
        """Whose images are made: shapes, and layers of them from 0."""
        if self.by == "width":
            return [(shape, 1) for shape in self.shapes]
        return [(self.shapes[-1], layer) for layer in range(self.layer_count + 1)]

    @property
    def network_count(self) -> int:
        """Of each shape, whose images are made."""
        return min(self.seed_count, MOST_NETWORKS)


@dataclass(frozen=True)
class Spread:
    """One measure of spread at each size, and how it goes with size.

    Attributes:
        estimates: One a size.
        slope: d log spread / d log size; None where there is no spread to speak of.
    """

    estimates: tuple[Interval, ...]
    slope: Interval | None

    @property
    def trend(self) -> spread.Trend:
        return spread.trend(self.slope)


@dataclass(frozen=True)
class Part:
    """Weight training, or image optimization.

    Attributes:
        sizes: Units of a hidden layer, hidden layers, or layers from 1: the last are logits.
        ends: What was reached, one array a size: of weights a test loss a seed, of images
            networks × starts.
        variance: Of the ends; of images within a network, the mean over networks.
        relative: Likewise, of ends divided by their mean; of images by that of a network.
        more: Further numbers, one list a size.
    """

    sizes: tuple[int, ...]
    ends: tuple[Array, ...]
    variance: Spread
    relative: Spread
    more: dict[str, list[Any]]

    @property
    def shown(self) -> tuple[Array, ...]:
        """The ends as they are plotted: scores of images by the mean of their network."""
        return tuple(e if e.ndim == 1 else (e / _means(e)).ravel() for e in self.ends)


@dataclass(frozen=True)
class Landscape:
    """What came of it."""

    settings: Settings
    weights: Part
    images: Part


def measure(
    settings: Settings, advanced: Callable[[str, int, int], None] = lambda *_: None
) -> Landscape:
    """Trains all networks, and makes all images.

    Args:
        settings: What is measured.
        advanced: Told of what is going on how much is done, and of how much.
    """
    digits = data.load(settings.seed)
    stacks: dict[Shape, Stack] = {}
    epochs = _counter("training, epochs", settings.epoch_count * len(settings.shapes), advanced)
    for shape in settings.shapes:
        seeds = [
            run_seed(settings.seed, shape.width, shape.depth, number)
            for number in range(settings.seed_count)
        ]
        stacks[shape] = train(shape, seeds, digits, settings.epoch_count, lambda: next(epochs))
    scores = list(_images(settings, stacks, advanced))
    trained = list(stacks.values())
    return Landscape(settings, _weights_part(settings, trained), _images_part(settings, scores))


def _counter(what: str, count: int, advanced: Callable[[str, int, int], None]) -> Iterator[None]:
    for done in range(1, count + 1):
        advanced(what, done, count)
        yield


def _images(
    settings: Settings,
    stacks: dict[Shape, Stack],
    advanced: Callable[[str, int, int], None],
) -> Iterator[Array]:
    """Scores, networks × starts, of each of the settings' units."""
    networks = range(settings.network_count)
    made = _counter("images, networks", len(settings.units) * len(networks), advanced)
    with Climber(settings.seed_count) as climber:
        for shape, layer in settings.units:
            stack, scores = stacks[shape], []
            for number in networks:
                scores.append(
                    climber.scores(
                        [weight[number] for weight in stack.weights],
                        [bias[number] for bias in stack.biases],
                        layer,
                        number % shape.lengths[layer + 1],
                        run_seed(settings.seed, "images", shape.width, layer, number),
                    )
                )
                next(made)
            yield np.array(scores)


def _weights_part(settings: Settings, stacks: Sequence[Stack]) -> Part:
    losses = [stack.test_losses.numpy() for stack in stacks]
    sizes = settings.widths
    if settings.by == "layer":
        sizes = tuple(range(1, settings.layer_count + 1))
    return Part(
        sizes,
        tuple(losses),
        _spread(sizes, losses, spread.variance, settings.seed),
        _spread(sizes, losses, spread.relative_variance, settings.seed),
        {
            "train_losses": [stack.train_losses.tolist() for stack in stacks],
            "test_errors": [stack.test_errors.tolist() for stack in stacks],
            "gradient_norms": [stack.gradient_norms.tolist() for stack in stacks],
        },
    )


def _images_part(settings: Settings, scores: Sequence[Array]) -> Part:
    """Networks are what is independent: each is one number, the variance of its starts."""
    sizes = settings.widths
    if settings.by == "layer":
        sizes = tuple(range(1, settings.layer_count + 2))
    variances = [spread.variance(one) for one in scores]
    relative = [spread.variance(one / _means(one)) for one in scores]
    return Part(
        sizes,
        tuple(scores),
        _spread(sizes, variances, np.mean, settings.seed),
        _spread(sizes, relative, np.mean, settings.seed),
        {},
    )


def _means(scores: Array) -> Array:
    """The magnitude of the mean over each network's starts."""
    means: Array = np.abs(scores.mean(1, keepdims=True))
    return np.where(means > 0, means, 1.0)


def _spread(
    sizes: Sequence[int], samples: Sequence[Array], statistic: Statistic, seed: int
) -> Spread:
    return Spread(
        tuple(spread.estimate(sample, statistic, seed) for sample in samples),
        spread.slope(sizes, samples, statistic, seed),
    )
