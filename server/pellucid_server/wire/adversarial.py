"""How an attacked photo fares: its perturbation, its linear view, its transfer, as messages."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pellucid.v1 import attack_pb2, data_pb2, inference_pb2, optimize_pb2
from PIL import Image
from torch import Tensor

from ..errors import quoted
from ..inputs import PhotoSource
from ..methods.attack.linear import LinearView
from ..methods.attack.transfer import Transferred
from ..methods.attack.universal import as_picture, picture_gain
from ..models.registry import Model
from .fields import Fields, Violations, find_layer, why_not, write_picture
from .requests import Limits, read_image

MOST_LAYERS = 64


OTHERS = {
    "image": "is for ascend, and attacks of one photo; universal has photos",
    "guide": "is for Guide of ascend",
    "photos": "is for Universal of attack",
    "photo_count": "is for Universal of attack",
}
"""Fields of a request that are not for every method."""


def refuse_others(found: Violations, request: optimize_pb2.OptimizeSpec, *names: str) -> None:
    """What is for other methods is not to be set.

    Args:
        found: Where violations are noted.
        request: What is asked.
        names: Of OTHERS.
    """
    for name in names:
        if Fields(found, "", request).has(name):
            found.invalid(name, OTHERS[name])


def check_format(found: Violations, request: optimize_pb2.OptimizeSpec) -> None:
    """What is attacked is shown to the pixel."""
    if request.format == data_pb2.IMAGE_FORMAT_JPEG:
        found.invalid(
            "format",
            "is IMAGE_FORMAT_JPEG, which would change the attacked pixels; must be "
            "IMAGE_FORMAT_PNG",
        )


def read_attacked(
    found: Violations, field: str, image: data_pb2.Image, model: Model | None, limits: Limits
) -> PhotoSource | None:
    """A photo that can be attacked: at 8 bits."""
    if image.tensor.data_type == data_pb2.DATA_TYPE_FLOAT32:
        found.invalid(
            f"{field}.tensor",
            "is already preprocessed; what is attacked is a photo at 8 bits: send an encoded "
            "image, or uint8 height × width × 3",
        )
        return None
    return read_image(found, image, model, limits, None, field)


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
            before=write_top(one.model, one.before),
            after=write_top(one.model, one.after),
            fooled=one.fooled,
        )
        if one.source is not None:
            made.source_before, made.source_after = (
                float(logits.double().softmax(0)[one.source]) for logits in (one.before, one.after)
            )
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
