"""How an attacked photo fares: its perturbation, its linear view, its transfer, as messages."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pellucid.v1 import attack_pb2, data_pb2, inference_pb2
from PIL import Image
from torch import Tensor

from ..errors import quoted
from ..methods.attack.linear import LinearView
from ..methods.attack.transfer import Transferred
from ..methods.attack.universal import as_picture, picture_gain
from ..models.registry import Model
from .fields import Violations, find_layer, why_not, write_picture

MOST_LAYERS = 64


def read_layers(found: Violations, names: Sequence[str], model: Model | None) -> tuple[str, ...]:
    """The layers of a linear view, whose activation can be looked at."""
    field = "attack.linear_layers"
    if len(names) > MOST_LAYERS:
        found.invalid(field, f"has {len(names)}; must have at most {MOST_LAYERS}")
        return ()
    for place, name in enumerate(names):
        here = f"{field}[{place}]"
        if name in names[:place]:
            found.invalid(here, f"is {quoted(name)}, which is there already")
            continue
        layer = None if model is None else find_layer(found, here, name, model)
        if layer is not None and not layer.targetable:
            found.refused(here, f"{name} cannot be a target: {why_not(layer)}")
    return tuple(names)


def write_perturbation(change: Tensor) -> tuple[data_pb2.EncodedImage, float]:
    """A change, 3×H×W, as a picture, and the gain that it is drawn with."""
    return write_picture(picture_of(255 * as_picture(change)), "png"), picture_gain(change)


def write_linear(model: Model, views: Sequence[LinearView]) -> Iterator[attack_pb2.LinearView]:
    for view in views:
        yield attack_pb2.LinearView(
            class_index=view.class_index,
            label=model.labels[view.class_index],
            happened=view.happened,
            effects=[
                attack_pb2.LinearEffect(
                    layer=effect.layer,
                    predicted=effect.predicted,
                    relative_change=effect.relative_change,
                )
                for effect in view.effects
            ],
        )


def write_transfer(scores: Sequence[Transferred]) -> Iterator[attack_pb2.TransferScore]:
    for one in scores:
        made = attack_pb2.TransferScore(
            model=one.model.name,
            before=None if one.before is None else write_top(one.model, one.before),
            after=None if one.after is None else write_top(one.model, one.after),
            fooled=one.fooled,
        )
        if one.source is not None and one.before is not None:
            made.source_before = float(one.before.softmax(0)[one.source])
        if one.source is not None and one.after is not None:
            made.source_after = float(one.after.softmax(0)[one.source])
        yield made


def write_top(model: Model, logits: torch.Tensor) -> inference_pb2.Prediction:
    """What a network takes an image for."""
    index = int(logits.argmax())
    return inference_pb2.Prediction(
        class_index=index,
        label=model.labels[index],
        probability=float(logits.double().softmax(0)[index]),
        logit=float(logits[index]),
    )


def picture_of(pixels: Tensor) -> Any:
    """Numbers from 0 to 255, 3×H×W, to the nearest whole ones, as a PIL image."""
    return Image.fromarray(pixels.round().byte().permute(1, 2, 0).contiguous().cpu().numpy())
