"""The linear view of a change: what a network's slopes say that it does, and what it did.

Goodfellow, Shlens and Szegedy 2014, arXiv:1412.6572: where a network is about linear, a change η
of the image moves a logit by wᵀη, w being the logit's gradient; so it does at every layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.rows import ClassTarget, EnergyTarget, Program, Rows, SumTarget, Want
from .algorithm import Scene


@dataclass(frozen=True)
class Effect:
    """What a change does to a class's logit, as the network's linear part from a layer on has it.

    Attributes:
        layer: Its name; empty for the image itself.
        predicted: wᵀη: the gradient by the activation at the photo, times its change.
        relative_change: ‖η‖/‖activation‖; infinite where nothing has become something.
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


def row_counts(image_count: int, class_count: int, layer_count: int) -> tuple[int, int]:
    """Rows that linear_views asks for at most, forward and gradient ones.

    Args:
        image_count: Of changed images.
        class_count: Of all classes that are looked at.
        layer_count: Besides the image itself.
    """
    return (1 + image_count) * (1 + layer_count), class_count * (1 + layer_count)


def linear_views(
    scene: Scene, changed: Tensor, classes: Sequence[Sequence[int]], layers: Sequence[str]
) -> Program[list[tuple[LinearView, ...]]]:
    """Views of changed images.

    Gradients are taken once at the photo, however many images there are; activations are looked
    at in chunks of a batch, so that memory does not grow with the images.

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
    traces = yield Rows(inputs, ClassTarget(every[0]), Want.LOGITS, bucket_size=bucket_size)
    assert traces.logits is not None
    logits = traces.logits.double()
    happened = logits[1:] - logits[0]

    photos = inputs[:1].expand(len(every), -1, -1, -1)
    targets = tuple(ClassTarget(index) for index in every)
    traces = yield Rows(photos, targets, Want.GRADIENT, bucket_size=bucket_size)
    assert traces.gradient is not None
    # Of the image, a change in the network's input is that of the pixels, scaled by channel.
    std = torch.tensor(scene.model.preprocessing.std, dtype=torch.float64, device=pixels.device)
    slopes = traces.gradient.double() / (255 * std.view(3, 1, 1))
    by_pixel = dict(zip(every, slopes, strict=True))
    each = [_effects("", pixels[1:], pixels[0], by_pixel, classes)]
    for layer in layers:
        made = yield from _layer_effects(inputs, layer, photos, targets, classes, bucket_size)
        each += [made]
    return [
        tuple(
            LinearView(
                index,
                float(happened[image, index]),
                tuple(effects[image][place] for effects in each),
            )
            for place, index in enumerate(of_one)
        )
        for image, of_one in enumerate(classes)
    ]


def _layer_effects(
    inputs: Tensor,
    layer: str,
    photos: Tensor,
    targets: tuple[ClassTarget, ...],
    classes: Sequence[Sequence[int]],
    bucket_size: int,
) -> Program[list[list[Effect]]]:
    one = (layer,)
    traces = yield Rows(photos, targets, Want.LAYER_GRADIENT, layers=one, bucket_size=bucket_size)
    slopes = traces.layer_gradients[layer].double()
    by_class = {target.index: slope for target, slope in zip(targets, slopes, strict=True)}
    end = SumTarget(((EnergyTarget(layer), 1.0),))  # so that rows go no further than the layer
    before: Tensor | None = None
    made: list[list[Effect]] = []
    for start in range(0, len(inputs), bucket_size):
        part = inputs[start : start + bucket_size]
        traces = yield Rows(part, end, Want.ACTIVATION, layers=one, bucket_size=bucket_size)
        activation = traces.activations[layer].double()
        if before is None:
            before, activation = activation[0], activation[1:]
        of_part = classes[len(made) : len(made) + len(activation)]
        made += _effects(layer, activation, before, by_class, of_part)
    return made


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
        relative = moved / size if size > 0 else (float("inf") if moved else 0.0)
        made.append([Effect(layer, float((by_class[i] * change).sum()), relative) for i in of_one])
    return made
