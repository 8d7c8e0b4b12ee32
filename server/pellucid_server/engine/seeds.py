"""From the tapped activations of a batch to scores, and to the seeds of one backward pass.

A seed is dL/dA of the sum of the batch's scores, for one tapped activation A. Each kind
of target is handled once over all the rows that use it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.network import OUTPUT, PENULTIMATE, Classifier
from .goals import seed_of_goals
from .places import PlaceOf, channels_first, chosen_neurons, upload, upload_tensor
from .rows import (
    Aim,
    ClassesTarget,
    ClassTarget,
    Goal,
    NeuronTarget,
    PermutedTarget,
    Score,
    SumTarget,
    TopTarget,
)


@dataclass(frozen=True)
class Scores:
    """The scores of a batch's rows, and what their gradients start from.

    Attributes:
        values: n, float64: the score of each row's target.
        classes: n, int64: the class of each row's target; -1 for a neuron or a sum.
        seeds: For each tap that targets need, a tensor of the activation's shape.
        terms: n×terms, float64: of each row that is a sum, the scores that it is the sum of, not
            weighted, then zeros; None where no row is one.
    """

    values: Tensor
    classes: Tensor
    seeds: dict[str, Tensor]
    terms: Tensor | None = None


def score(
    activations: Mapping[str, Tensor],
    targets: Sequence[Aim | None],
    place_of: PlaceOf = channels_first,
    classifier: Classifier | None = None,
) -> Scores:
    """Scores every row; a row without a target (padding) scores 0 and seeds nothing.

    Args:
        activations: For each tap, n×… .
        targets: One for each row.
        place_of: Where a neuron is in its layer's activation.
        classifier: The network's last layer, for targets of which rows are permuted.
    """
    plain = [target for target in targets if not isinstance(target, SumTarget)]
    if len(plain) == len(targets):
        return _score(activations, plain, place_of, classifier)
    count, device = len(targets), next(iter(activations.values())).device
    term_count = max(len(target.terms) for target in targets if isinstance(target, SumTarget))
    classes = torch.full((count,), -1, device=device)
    terms = torch.zeros(count, term_count, dtype=torch.float64, device=device)
    weights, seeds = terms.clone(), dict[str, Tensor]()
    for tap, members in _rounds(targets):
        goals: list[_Plain] = [None] * count
        weight = torch.zeros(count, dtype=torch.float64)
        for row, (_, goal, share) in members.items():
            goals[row], weight[row] = goal, share
        weight = upload_tensor(weight, device)
        each = _score({tap: activations[tap]}, goals, place_of, classifier)
        rows = upload(list(members), device)
        at = rows, upload([place for place, *_ in members.values()], device)
        terms, weights = terms.index_put(at, each.values[rows]), weights.index_put(at, weight[rows])
        seed = each.seeds[tap]
        seed *= weight.to(seed.dtype).view([-1] + [1] * (seed.dim() - 1))
        seeds[tap] = seeds[tap] + seed if tap in seeds else seed
        whole = upload([not isinstance(target, SumTarget) for target in targets], device)
        classes = torch.where(whole & (each.classes >= 0), each.classes, classes)
    values = terms.new_zeros(count)
    for place in range(term_count):
        values = values + weights[:, place] * terms[:, place]
    return Scores(values, classes, seeds, terms)


def _rounds(
    targets: Sequence[Aim | None],
) -> Iterator[tuple[str, Mapping[int, tuple[int, "_Plain", float]]]]:
    """Layer by layer, the first terms of all rows, then the second ones, and so on.

    However many terms there are, no more than the rows' activations is worked on at once.

    Yields:
        The layer; and by row a term of it: its place in the row's sum, its goal and its weight.
    """
    by_tap: dict[str, dict[int, list[tuple[int, _Plain, float]]]] = {}
    for row, target in enumerate(targets):
        terms = target.terms if isinstance(target, SumTarget) else ((target, 1.0),)
        for place, (goal, weight) in enumerate(terms):
            if goal is not None:
                of_rows = by_tap.setdefault(goal.tap, defaultdict(list))
                of_rows[row].append((place, goal, weight))
    for tap, of_rows in by_tap.items():
        for turn in range(max(len(terms) for terms in of_rows.values())):
            yield tap, {row: terms[turn] for row, terms in of_rows.items() if turn < len(terms)}


_Plain = Goal | TopTarget | None


def _score(
    activations: Mapping[str, Tensor],
    targets: Sequence[_Plain],
    place_of: PlaceOf,
    classifier: Classifier | None,
) -> Scores:
    """As score, of rows that are no sums."""
    some = next(iter(activations.values()))
    values = some.new_zeros(len(targets), dtype=torch.float64)
    classes = torch.full((len(targets),), -1, device=some.device)
    seeds: dict[str, Tensor] = {}
    if any(target is not None and target.tap == OUTPUT for target in targets):
        logits = activations[OUTPUT].detach()
        weights, classes = _class_weights(logits, targets)
        values, seed = _class_scores(logits.double(), weights, targets)
        seeds[OUTPUT] = seed.to(logits.dtype)
    permuted = [(row, t) for row, t in enumerate(targets) if isinstance(t, PermutedTarget)]
    if permuted:
        assert classifier is not None
        features = activations[PENULTIMATE].detach()
        seeds[PENULTIMATE] = torch.zeros_like(features)
        values, weight = values.clone(), classifier.weight.double()
        for row, scrambled in permuted:
            values[row], seed = _permuted_score(
                features[row].double(), scrambled, weight, classifier.bias
            )
            seeds[PENULTIMATE][row] = seed.to(features.dtype)
    rows_by_layer: dict[str, list[int]] = defaultdict(list)
    for row, target in enumerate(targets):
        if isinstance(target, NeuronTarget):
            rows_by_layer[target.layer].append(row)
    for layer, rows in rows_by_layer.items():
        places = [place_of(t) for row in rows if isinstance(t := targets[row], NeuronTarget)]
        activation = activations[layer].detach()
        chosen = chosen_neurons(activation, rows, places)
        values = values + torch.where(chosen, activation, 0).double().flatten(1).sum(1)
        seeds[layer] = chosen.to(activation.dtype)
    for layer, used, seed, scores in seed_of_goals(activations, targets, place_of):
        if layer in seeds:
            seeds[layer][used] = seed[used]
        else:
            seeds[layer] = seed
        values = values.index_copy(0, used, scores[used])
    return Scores(values, classes, seeds)


def _class_weights(logits: Tensor, targets: Sequence[_Plain]) -> tuple[Tensor, Tensor]:
    """How much of each class's score is in each row's, n×classes; and the class of each row."""
    weights = torch.zeros(logits.shape, dtype=torch.float64)
    single = [-1] * len(targets)
    is_top = [isinstance(target, TopTarget) for target in targets]
    for row, target in enumerate(targets):
        match target:
            case TopTarget(against=int(against)):
                weights[row, against] -= 1
            case ClassTarget() | ClassesTarget():
                for index, weight in target.weights:
                    weights[row, index] += weight
        if isinstance(target, ClassTarget):
            single[row] = target.index
    weights = upload_tensor(weights, logits.device)
    top_rows, best = upload(is_top, logits.device), logits.argmax(1)
    positions = torch.arange(logits.shape[1], device=logits.device)
    best_weights = (top_rows[:, None] & (positions == best[:, None])).double()
    classes = torch.where(top_rows, best, upload(single, logits.device))
    return weights + best_weights, classes


def _class_scores(
    logits: Tensor, weights: Tensor, targets: Sequence[_Plain]
) -> tuple[Tensor, Tensor]:
    """The weighted scores of classes and their gradient by the logits; all float64."""
    kinds: list[Score] = [getattr(target, "score", Score.LOGIT) for target in targets]
    scores, seed = logits, weights
    if any(kind is not Score.LOGIT for kind in kinds):
        kind = upload([int(k) for k in kinds], logits.device)[:, None]
        logarithms = logits.log_softmax(1)
        probabilities = logarithms.exp()
        logarithmic = weights - weights.sum(1, keepdim=True) * probabilities
        mean = torch.where(weights != 0, weights * probabilities, 0).sum(1, keepdim=True)
        probable = probabilities * (weights - mean)
        for which, of_score, of_seed in (
            (Score.LOG_PROBABILITY, logarithms, logarithmic),
            (Score.PROBABILITY, probabilities, probable),
        ):
            scores = torch.where(kind == which, of_score, scores)
            seed = torch.where(kind == which, of_seed, seed)
    return torch.where(weights != 0, weights * scores, 0).sum(1), seed


def _permuted_score(
    features: Tensor, target: PermutedTarget, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The score of one row's target, and its gradient by what the classifier gets; float64."""
    orders = {
        index: upload(list(order), weight.device)
        for (index, _), order in zip(target.weights, target.orders, strict=True)
    }
    moved = {index: weight[index, order] - weight[index] for index, order in orders.items()}
    logits = torch.mv(weight, features)
    if bias is not None:
        logits = logits + bias.double()
    for index, change in moved.items():
        logits[index] += change.dot(features)
    plain = ClassesTarget(target.weights, target.score)
    weights, _ = _class_weights(logits[None], [plain])
    values, seed = _class_scores(logits[None], weights, [plain])
    by_features = torch.mv(weight.T, seed[0])
    for index, change in moved.items():
        by_features = by_features + seed[0, index] * change
    return values[0], by_features
