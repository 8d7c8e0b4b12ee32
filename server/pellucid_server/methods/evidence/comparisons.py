"""Measures that compare a map with others: of noisy images, changed networks, other methods."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...engine.rows import (
    Chore,
    ClassesTarget,
    ClassTarget,
    Lane,
    NeuronTarget,
    PermutedTarget,
    Program,
    Resolved,
    Target,
)
from ...models.network import Classifier, Network
from ...models.registry import Model
from .. import draws
from ..explain.explanation import ExplainMethod, Explanation
from ..parameters import number, seed
from .measure import Measure, Subject, elsewhere, importance, rank_correlation

TOP_SHARE = 0.05


@dataclass(frozen=True)
class Correlations:
    """Of the map with that of each noisy image."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Stability(Measure):
    """The rank correlation of the map with those of slightly noisy images.

    After Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049; the target is the same.

    Attributes:
        sample_count: Noisy images.
        noise_level: Standard deviation of the noise, as a share of the input's range.
        seed: Of the noise.
    """

    sample_count: int = number(4, 1, 100)
    noise_level: float = number(0.02, 0.0001, 1.0)
    seed: int = seed()

    name: ClassVar[str] = "stability"

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        counts = method.row_counts(model, target)
        return {lane: self.sample_count * count for lane, count in counts.items()}

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Correlations]:
        method, target, found = subject.method, subject.explanation.target, []
        for step in range(self.sample_count):
            host: Tensor = yield Chore(functools.partial(self._noisy, step))
            noisy = host.to(image)
            other = yield from elsewhere(method.program(model, noisy, target), host=host)
            found.append(rank_correlation(subject.importance, importance(method, other)))
        return Correlations(tuple(found))

    def _noisy(self, step: int, host: Tensor) -> Tensor:
        deviation = self.noise_level * (host.max() - host.min())
        return host + deviation * draws.normal(self.seed, step, tuple(host.shape)).to(host)


@dataclass(frozen=True)
class Correlation:
    """Of two maps, and of their magnitudes."""

    signed: float
    absolute: float


def correlation(subject: Subject, other: Explanation) -> Correlation:
    """Of an explanation with another one by the same method."""
    ours, theirs = subject.importance, importance(subject.method, other)
    return Correlation(rank_correlation(ours, theirs), rank_correlation(ours.abs(), theirs.abs()))


@dataclass(frozen=True)
class Randomization(Measure):
    """The rank correlation of the map with that of a permuted classifier.

    After Adebayo and others 2018, arXiv:1810.03292: the rows of the target's classes are
    permuted, and the way back starts at what the classifier gets.

    Attributes:
        seed: Of the permutation.
    """

    seed: int = seed()

    name: ClassVar[str] = "randomization"
    looks_inside: ClassVar[bool] = True

    @staticmethod
    def refusal(model: Model) -> str | None:
        if model.network.classifier is None:
            return "the network's logits are not made by a dense layer"
        return None

    @staticmethod
    def target_refusal(target: Target) -> str | None:
        if isinstance(target, NeuronTarget):
            return "the target is a neuron, which no row of the classifier makes"
        return None

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        return method.row_counts(model, target)

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Correlation]:
        classifier = model.network.classifier
        assert classifier is not None
        target = self._permuted(subject.explanation.target, classifier)
        other = yield from elsewhere(subject.method.program(model, image, target))
        return correlation(subject, other)

    def _permuted(self, target: Resolved, classifier: Classifier) -> PermutedTarget:
        assert isinstance(target, (ClassTarget, ClassesTarget))
        features = classifier.weight.shape[1]
        orders = (draws.permutation(self.seed, index, features) for index, _ in target.weights)
        return PermutedTarget(
            target.weights, tuple(tuple(order.tolist()) for order in orders), target.score
        )


@dataclass(frozen=True)
class Stage:
    """A network with some of its last layers redrawn, and what its map is like.

    Attributes:
        layer: The first one that was redrawn.
        layer_count: How many were.
    """

    layer: str
    layer_count: int
    correlation: Correlation


@dataclass(frozen=True)
class Stages:
    """From the fewest layers to all."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Cascade(Measure):
    """The rank correlation of the map with those of networks with redrawn last layers.

    Cascading randomization (Adebayo and others 2018, arXiv:1810.03292). Weights and biases are
    normal with the mean and the standard deviation that they had.

    Attributes:
        stage_count: Stages, at which equal parts of the layers are added.
        seed: Of the weights.
    """

    stage_count: int = number(3, 1, 10)
    seed: int = seed()

    name: ClassVar[str] = "cascade"
    looks_inside: ClassVar[bool] = True

    def contradictions(self, model: Model) -> Mapping[str, str]:
        layer_count = len(model.network.weighted_layers)
        if self.stage_count <= layer_count:
            return {}
        return {
            "stage_count": f"is {self.stage_count}; {model.name} has {layer_count} layers with "
            "weights"
        }

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        counts = method.row_counts(model, target)
        return {lane: self.stage_count * count for lane, count in counts.items()}

    def byte_count(self, model: Model) -> int:
        """The twin's weights, on the host and on the device."""
        network = model.network
        parameters = [network.parameters_of(layer) for layer in network.weighted_layers]
        return 2 * sum(p.nbytes for own in parameters for p in own.values())

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Stages]:
        method, target = subject.method, subject.explanation.target
        layers = model.network.weighted_layers
        twin, stages = model.network, []
        for kept, before in self._parts(len(layers)):
            shapes = [
                (name, tuple(parameter.shape))
                for layer in layers[kept:before]
                for name, parameter in model.network.parameters_of(layer).items()
            ]
            draw = functools.partial(self._drawn, model.network, shapes)
            drawn: Mapping[str, Tensor] = yield Chore(draw)
            twin = twin.redrawn(drawn)
            redrawn = replace(model, network=twin)
            other = yield from elsewhere(method.program(model, image, target), other=redrawn)
            alike = correlation(subject, other)
            stages.append(Stage(layers[kept], len(layers) - kept, alike))
        return Stages(tuple(stages))

    def _parts(self, layer_count: int) -> Iterator[tuple[int, int]]:
        """Which layers each stage adds, from the last ones on."""
        before = layer_count
        for stage in range(1, self.stage_count + 1):
            kept = layer_count - stage * layer_count // self.stage_count
            yield kept, before
            before = kept

    def _drawn(
        self, network: Network, shapes: Sequence[tuple[str, tuple[int, ...]]], _host: Tensor
    ) -> Mapping[str, Tensor]:
        return {
            name: network.like(name, draws.named_normal(self.seed, name, shape))
            for name, shape in shapes
        }


@dataclass(frozen=True)
class Alike:
    """What another method's map has in common with this one."""

    method: str
    correlation: float
    top_overlap: float


@dataclass(frozen=True)
class Agreed:
    """For each of the other methods."""

    methods: tuple[Alike, ...]


@dataclass(frozen=True)
class Agreement(Measure):
    """The rank correlation and the overlap of the map with those of other methods.

    Attributes:
        others: The other methods.
    """

    others: tuple[ExplainMethod, ...]

    name: ClassVar[str] = "agreement"

    def row_counts(self, model: Model, method: ExplainMethod, target: Target) -> Mapping[Lane, int]:
        counts: Counter[Lane] = Counter()
        for other in self.others:
            counts.update(other.row_counts(model, target))
        return counts

    def byte_count(self, model: Model) -> int:
        return max(other.byte_count(model) for other in self.others)

    def program(self, model: Model, image: Tensor, subject: Subject) -> Program[Agreed]:
        ours, found = subject.importance, []
        for other in self.others:
            target = _for(other, subject.explanation.target)
            made = yield from elsewhere(other.program(model, image, target))
            theirs = importance(other, made).to(ours.device)
            found.append(
                Alike(other.name, rank_correlation(ours, theirs), top_overlap(ours, theirs))
            )
        return Agreed(tuple(found))


def _for(method: ExplainMethod, target: Resolved) -> Resolved:
    """The same target with the score that a method explains by default."""
    if isinstance(target, (ClassTarget, ClassesTarget)):
        return replace(target, score=method.score)
    return target


def top_overlap(a: Tensor, b: Tensor) -> float:
    """The share of the twentieth of values that rank highest in one which do so in the other.

    Of equal values, those that come first rank higher.
    """
    count = max(1, round(TOP_SHARE * a.numel()))
    tops = [values.flatten().argsort(descending=True, stable=True)[:count] for values in (a, b)]
    return float(torch.isin(*tops).sum()) / count
