"""The goals of optimizations, as scores and seeds.

Each kind is computed once for each layer, over all the rows of the batch that use it.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .places import Place, PlaceOf, by_place, chosen_neurons, pooled, upload, upload_tensor
from .rows import (
    CodeTarget,
    CosineTarget,
    DirectionTarget,
    DiversityTarget,
    EnergyTarget,
    GramTarget,
    GuideTarget,
    MarginTarget,
    NeuronTarget,
)

_GOALS = (
    DirectionTarget,
    CodeTarget,
    EnergyTarget,
    GuideTarget,
    DiversityTarget,
    MarginTarget,
    GramTarget,
    CosineTarget,
)


def seed_of_goals(
    activations: Mapping[str, Tensor], targets: Sequence[object], place_of: PlaceOf
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Each kind and layer that rows of a batch are after.

    Args:
        activations: For each tap, n×… .
        targets: One for each row.
        place_of: Where a neuron is in its layer's activation.

    Yields:
        The layer; the rows, int64; the gradient of each row's score by the activation, n×…; and
        the scores, n, float64. Of other rows both are 0.
    """
    groups: dict[tuple[type, str], dict[int, Any]] = defaultdict(dict)
    for row, target in enumerate(targets):
        if isinstance(target, _GOALS):
            groups[type(target), target.layer][row] = target
    for (kind, layer), members in groups.items():
        activation, goals = activations[layer].detach(), list(members.values())
        rows = upload(list(members), activation.device)
        if kind is GramTarget:
            yield layer, rows, *_to_styles(activation, members)
            continue
        if kind is MarginTarget:
            seed, scores = torch.zeros_like(activation), activation.new_zeros(len(targets)).double()
            seed[rows], scores[rows] = _margins(activation[rows], goals)
            yield layer, rows, seed, scores
            continue
        seed, factor = torch.zeros_like(activation), upload([1.0], activation.device)
        other = activation
        if kind is CodeTarget:
            energies = torch.tensor([g.energy for g in goals], dtype=torch.float64)
            energies = upload_tensor(energies, activation.device)
            shape = [-1] + [1] * (activation.dim() - 1)
            codes = torch.stack([g.code for g in goals])
            slope = (2 / energies).to(activation.dtype).view(shape)
            seed[rows] = (codes - activation[rows]) * slope
            other = seed  # -‖2(Φ₀ - Φ)/‖Φ₀‖²‖² · ‖Φ₀‖²/4
            factor = factor.new_ones(len(targets), dtype=torch.float64)
            factor = factor.index_copy(0, rows, -energies / 4)
        elif kind is DirectionTarget:
            seed = _along(activation, members, place_of)
        elif kind is CosineTarget:
            cosines, slope = _alike(activation[rows], goals, place_of)
            seed[rows] = slope
            yield layer, rows, seed, cosines.new_zeros(len(targets)).index_copy(0, rows, cosines)
            continue
        elif kind is GuideTarget:
            features = torch.stack([g.features for g in goals])
            seed[rows] = _best_matches(features, activation[rows])
        elif kind is DiversityTarget:
            likeness, slope = _likeness(activation[rows], goals)
            seed[rows] = -slope
            yield layer, rows, seed, likeness.new_zeros(len(targets)).index_copy(0, rows, -likeness)
            continue
        else:
            seed[rows] = activation[rows]
            factor = factor / 2
        products = torch.where(seed != 0, seed.double() * other.double(), 0)
        yield layer, rows, seed, products.flatten(1).sum(1) * factor


def _margins(logits: Tensor, goals: Sequence[MarginTarget]) -> tuple[Tensor, Tensor]:
    """The gradient of each row's score by its logits, n×classes, and the scores, float64."""
    index = upload([goal.index for goal in goals], logits.device)[:, None]
    confidence = torch.tensor([goal.confidence for goal in goals], dtype=torch.float64)
    sign = torch.tensor([1.0 if goal.sought else -1.0 for goal in goals], dtype=torch.float64)
    sign = upload_tensor(sign, logits.device)
    exact = logits.double()
    own = exact.gather(1, index)[:, 0]
    other, best = exact.scatter(1, index, -torch.inf).max(1)
    margin = sign * (other - own) + upload_tensor(confidence, logits.device)
    slope = torch.where(margin > 0, sign, 0).to(logits)[:, None]
    seed = torch.zeros_like(logits).scatter(1, index, slope).scatter(1, best[:, None], -slope)
    return seed, -margin.clamp_min(0)


def _along(activation: Tensor, members: Mapping[int, DirectionTarget], place_of: PlaceOf) -> Tensor:
    """Each row's vector at every place, or at the one that its target names."""
    goals = list(members.values())
    places = [place_of(NeuronTarget(g.layer, None, g.y, g.x)) for g in goals]
    chosen = chosen_neurons(activation, list(members), places)
    channels = place_of(NeuronTarget(goals[0].layer, -1)).index(-1) + 1
    vectors = activation.new_zeros(len(activation), activation.shape[channels])
    vectors[list(members)] = torch.stack([g.vector for g in goals])
    shape = [1] * activation.dim()
    shape[0], shape[channels] = vectors.shape
    return torch.where(chosen, vectors.view(shape), 0)


def _alike(
    activation: Tensor, goals: Sequence[CosineTarget], place_of: PlaceOf
) -> tuple[Tensor, Tensor]:
    """The cosine of each image's pooled activation a and a code c, and its gradient.

    By a, it is (c/‖c‖ - cos·a/‖a‖)/‖a‖.

    Args:
        activation: n×… of one layer.
        goals: One for each image.
        place_of: Where a neuron is in the layer's activation.

    Returns:
        n, float64; and the gradient by the activation.
    """
    first: Place = (-1,)
    if activation.dim() > 2:
        first = place_of(NeuronTarget(goals[0].layer, -1, 0, 0))
    units, lengths = _unit(pooled(activation.double(), first))
    codes, _ = _unit(torch.stack([goal.code for goal in goals]).double())
    cosines = (units * codes).sum(1)
    slope = torch.where(lengths > 0, (codes - cosines[:, None] * units) / lengths, 0)
    spread = torch.zeros_like(activation)
    places = by_place(spread, first)
    shape = [*slope.shape] + [1] * (places.dim() - 2)
    places.copy_((slope / math.prod(places.shape[2:])).view(shape))
    return cosines, spread


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors, n×K, at length 1, and their lengths, n×1; what has none stays 0."""
    lengths = vectors.square().sum(1, keepdim=True).sqrt()
    return torch.where(lengths > 0, vectors / lengths, 0), lengths


def _best_matches(features: Tensor, activation: Tensor) -> Tensor:
    """For each place the guide's feature that it has most in common with.

    Args:
        features: n×C×places of the guide.
        activation: n×C×H×W.
    """
    best = torch.bmm(features.mT, activation.flatten(2)).argmax(1)
    return features.gather(2, best[:, None].expand(-1, features.shape[1], -1)).view_as(activation)


def gram_matrix(maps: Tensor, places: Tensor | None = None) -> Tensor:
    """F·diag(p)·Fᵀ, N×N, of maps of N×H×W; see GramTarget."""
    flat = maps.flatten(1)
    return torch.mm(flat, flat.mT) / flat.shape[1] if places is None else (flat * places) @ flat.mT


def _to_styles(activation: Tensor, members: Mapping[int, GramTarget]) -> tuple[Tensor, Tensor]:
    """The seed and the scores of all rows: every row by a product of its own.

    Kernels for many products at once may add up in another order where there are more of them.
    """
    seed = torch.zeros_like(activation)
    scores = activation.new_zeros(len(activation), dtype=torch.float64)
    for row, goal in members.items():
        maps = activation[row]
        off = gram_matrix(maps, goal.places) - goal.gram
        scores[row] = -goal.scale * (off.double().square().sum() + goal.spread)
        flat, slope = maps.flatten(1), -4 * goal.scale * off
        if goal.places is None:
            slope /= flat.shape[1]
        # Places before channels, as they lie in memory.
        by_place = torch.mm(flat.mT, slope.mT)
        if goal.places is not None:
            by_place *= goal.places[:, None]
        seed[row] = by_place.mT.view_as(maps)
    return seed, scores


def _likeness(activation: Tensor, goals: Sequence[DiversityTarget]) -> tuple[Tensor, Tensor]:
    """The mean cosine of each image's Gram matrix and those of the others a step before.

    Args:
        activation: n×C×H×W.
        goals: One for each image; each is told what its image is like.

    Returns:
        n, float64; and its gradient by the activation.
    """
    others = torch.stack([goal.siblings.others(goal.place, goal.step) for goal in goals])
    features = activation.flatten(2).to(others.dtype).contiguous()
    grams = torch.bmm(features, features.mT)
    norms = grams.double().square().flatten(1).sum(1).sqrt().to(grams.dtype).view(-1, 1, 1)
    scale = torch.where(norms > 0, norms.reciprocal(), 0)
    grams = grams * scale
    for goal, gram in zip(goals, grams, strict=True):
        goal.siblings.keep(goal.place, goal.step, gram)
    cosines = (grams.double() * others.double()).flatten(1).sum(1)
    by_gram = (others - cosines.to(grams.dtype).view(-1, 1, 1) * grams) * scale
    slope = 2 * torch.bmm(by_gram, features)
    return cosines, slope.view_as(activation).to(activation.dtype)
