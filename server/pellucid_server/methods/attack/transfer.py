"""Transfer: what every model of a server makes of an image that was made for one of them.

Szegedy and others 2013, arXiv:1312.6199: what fools one network often fools others.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.job import Elsewhere
from ...engine.rows import Chore, Lane, Program, Rows, TopTarget, Want
from ...models.registry import Model
from ..optimize.optimize import Buckets
from .algorithm import Scene


@dataclass(frozen=True)
class Transferred:
    """What a model makes of a photo and of its changed version.

    Attributes:
        model: Which.
        before: Its logits for the photo, float64, on the host; None: they are not finite.
        after: For the changed photo, likewise.
        source: Which of its classes is the source; None: it has no such class.
        fooled: Whether it takes the changed photo for something else than the photo; for the
            goal, where there is one. False where it takes either for nothing.
    """

    model: Model
    before: Tensor | None
    after: Tensor | None
    source: int | None
    fooled: bool


def rows_elsewhere(
    models: Sequence[Model], buckets: Buckets, image_count: int
) -> tuple[Elsewhere, ...]:
    """The rows that transfers asks for, so that their cost can be told."""
    return tuple(
        Elsewhere(model, Lane.FORWARD, 1 + image_count, bucket_of(model, buckets))
        for model in models
    )


def bucket_of(model: Model, buckets: Buckets) -> int:
    """That of optimizations of a model's own size, or the largest that the model may have."""
    network = model.network
    most = model.limits.max_bucket_size
    bucket_size = buckets.of((network.height_px, network.width_px))
    return bucket_size if most is None else min(bucket_size, most)


def transfers(
    scene: Scene, models: Sequence[Model], changed: Tensor, buckets: Buckets
) -> Program[list[tuple[Transferred, ...]]]:
    """Runs 8-bit images through every model.

    They are what the attacked network sees, all of it: each model has them resized to its own
    size where that is another, and does not crop them again.

    Args:
        scene: The photo, and the model that they were made for.
        models: Those that look at them.
        changed: uint8 n×3×H×W, on the host.
        buckets: Of all rows.

    Returns:
        For each changed image, what each model makes of it.
    """
    model, source, goal = scene.model, scene.base.source, scene.base.goal
    original = scene.base.pixels.byte().cpu()
    photos = torch.cat([original[None], changed]).permute(0, 2, 3, 1).contiguous().numpy()
    each: list[list[Transferred]] = [[] for _ in changed]
    for other in models:
        inputs: Tensor = yield Chore(functools.partial(_seen_by, other, photos))
        network = other.network
        traces = yield Rows(
            inputs.to(network.device, network.dtype),
            TopTarget(),
            Want.LOGITS,
            model=other,
            bucket_size=bucket_of(other, buckets),
            may_fail=True,
        )
        assert traces.logits is not None
        before, *after = (
            logits if finite else None
            for logits, finite in zip(traces.logits.double(), traces.finite.tolist(), strict=True)
        )
        of_source = counterpart(model, source, other)
        of_goal = None if goal is None else counterpart(model, goal, other)
        for of_image, logits in zip(each, after, strict=True):
            fooled = False
            if before is not None and logits is not None:
                best = int(logits.argmax())
                fooled = best != int(before.argmax()) if goal is None else best == of_goal
            of_image.append(Transferred(other, before, logits, of_source, fooled))
    return [tuple(of_image) for of_image in each]


def counterpart(model: Model, index: int, other: Model) -> int | None:
    """A model's class that has the label of another model's; None: it has none, or several.

    A class of the same number decides among several.
    """
    found = other.classes_labelled(model.labels[index])
    if index in found:
        return index
    return found[0] if len(found) == 1 else None


def _seen_by(model: Model, photos: NDArray[np.uint8], _host: Tensor) -> Tensor:
    """Photos as a model's inputs, n×3×H×W, float64: stretched to its size, if it is another."""
    whole = replace(model.preprocessing, resize_shorter_side_px=0)
    return torch.from_numpy(np.stack([whole.apply(photo) for photo in photos]))
