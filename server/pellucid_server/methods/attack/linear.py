"""The linear view of a change: what a network's slopes say that it does, and what it did.

Goodfellow, Shlens and Szegedy 2014, arXiv:1412.6572: where a network is about linear, a change η
of the image moves a logit by wᵀη, w being the logit's gradient; so it does at every layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.rows import (
    Ask,
    ClassTarget,
    EnergyTarget,
    Lane,
    Program,
    Rows,
    SumTarget,
    Want,
)
from .algorithm import Scene
from .lens import Lens


@dataclass(frozen=True)
class Effect:
    """What a change does to a class's logit, as the network's linear part from a layer on has it.

    Attributes:
        layer: Its name; empty for the image itself.
        predicted: wᵀη: the gradient by the activation at the photo, times its change. NaN where
            one of them is not finite.
        relative_change: ‖η‖/‖activation‖; infinite where nothing has become something. NaN where
            an activation is not finite.
    """

    layer: str
    predicted: float
    relative_change: float


@dataclass(frozen=True)
class LinearView:
    """The same of the image first, then of layers, beside what happened to the logit."""

    class_index: int
    happened: float
    effects: tuple[Effect, ...]


def asks(image_count: int, class_count: int, layer_count: int, bucket_size: int) -> list[Ask]:
    """The rows of linear_views, at most.

    Args:
        image_count: Of changed images.
        class_count: Of all classes that are looked at.
        layer_count: Besides the image itself.
        bucket_size: Of its batches.
    """
    looks, slopes = Ask(Lane.FORWARD, 1 + image_count), Ask(Lane.GRADIENT, class_count)
    if not layer_count:
        return [looks, slopes]
    full, rest = divmod(1 + image_count, bucket_size)
    parts = [Ask(Lane.FORWARD, bucket_size, full), Ask(Lane.FORWARD, rest)]
    return [looks, slopes, *parts]


def linear_views(
    scene: Scene, changed: Tensor, classes: Sequence[Sequence[int]], layers: Sequence[str]
) -> Program[list[tuple[LinearView, ...]]]:
    """Views of changed images.

    Gradients are taken once at the photo, however many images there are; activations are looked
    at in chunks of a batch, so that memory does not grow with the images. A row brings all layers.

    Args:
        scene: The photo, and the network that sees it.
        changed: n×3×H×W, pixels from 0 to 255, on the device.
        classes: For each changed image, whose logits.
        layers: Their names, targetable ones, in the order of the effects.

    Returns:
        For each changed image, a view of each of its classes.
    """
    every = sorted({index for of_one in classes for index in of_one})
    pixels = torch.cat([scene.base.pixels[None].double(), changed.double()])
    inputs, bucket_size = scene.inputs_of(pixels), scene.bucket_size
    traces = yield Rows(
        inputs, ClassTarget(every[0]), Want.LOGITS, bucket_size=bucket_size, may_fail=True
    )
    logits = _known(traces.logits)
    happened = logits[1:] - logits[0]

    names = tuple(layers)
    want = Want.GRADIENT | Want.LAYER_GRADIENT if names else Want.GRADIENT
    photos = inputs[:1].expand(len(every), -1, -1, -1)
    targets = tuple(ClassTarget(index) for index in every)
    traces = yield Rows(photos, targets, want, layers=names, bucket_size=bucket_size, may_fail=True)
    scored = traces.scores.isfinite()
    by_pixel = Lens.of(scene.model).slopes(_known(traces.gradient, scored), torch.float64)
    slopes = dict(traces.layer_gradients)

    each = {
        "": _effects("", pixels[1:], pixels[0], dict(zip(every, by_pixel, strict=True)), classes)
    }
    each |= yield from _layer_effects(inputs, names, slopes, scored, every, classes, bucket_size)
    return [
        tuple(
            LinearView(
                index,
                float(happened[image, index]),
                tuple(each[layer][image][place] for layer in ("", *names)),
            )
            for place, index in enumerate(of_one)
        )
        for image, of_one in enumerate(classes)
    ]


def _layer_effects(
    inputs: Tensor,
    layers: tuple[str, ...],
    slopes: Mapping[str, Tensor],
    scored: Tensor,
    every: Sequence[int],
    classes: Sequence[Sequence[int]],
    bucket_size: int,
) -> Program[dict[str, list[list[Effect]]]]:
    """By layer, for each image but the first and each of its classes."""
    if not layers:
        return {}
    end = SumTarget(((EnergyTarget(layers[0]), 1.0),))  # so that rows go no further than layers
    before: dict[str, Tensor] = {}
    made: dict[str, list[list[Effect]]] = {layer: [] for layer in layers}
    for start in range(0, len(inputs), bucket_size):
        part = inputs[start : start + bucket_size]
        traces = yield Rows(
            part, end, Want.ACTIVATION, layers=layers, bucket_size=bucket_size, may_fail=True
        )
        for layer in layers:  # one after another: float64 of one layer at a time
            activation = traces.activations[layer]
            if not start:
                before[layer], activation = activation[:1].clone(), activation[1:]
            after, photo = _known(activation), _known(before[layer])[0]
            by_class = dict(zip(every, _known(slopes[layer], scored), strict=True))
            done = len(made[layer])
            of_part = classes[done : done + len(after)]
            made[layer] += _effects(layer, after, photo, by_class, of_part)
    return made


def _known(rows: Tensor | None, scored: Tensor | None = None) -> Tensor:
    """What came of rows, n×…, in float64; NaN of those that are not finite, or have no score."""
    assert rows is not None
    finite = rows.isfinite().flatten(1).all(1)
    if scored is not None:
        finite &= scored.to(rows.device)
    return rows.double().where(finite.view(-1, *[1] * (rows.dim() - 1)), math.nan)


def _effects(
    layer: str,
    after: Tensor,
    before: Tensor,
    by_class: dict[int, Tensor],
    classes: Sequence[Sequence[int]],
) -> list[list[Effect]]:
    """For each image and each of its classes; all float64."""
    size = float(before.norm())
    made: list[list[Effect]] = []
    for activation, of_one in zip(after, classes, strict=True):
        change = activation - before
        moved = float(change.norm())
        relative = moved / size if size else (math.inf * moved if moved else 0.0)
        made.append([Effect(layer, float((by_class[i] * change).sum()), relative) for i in of_one])
    return made
