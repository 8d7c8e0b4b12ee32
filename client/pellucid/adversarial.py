"""How an attacked photo fares: its linear view, its transfer to other models, a sheet of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .types import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

    from .optimizing import OptimizeResult


@dataclass(frozen=True)
class LinearEffect:
    """What a change does to a class's logit, as the network's linear part from a layer on has it.

    Attributes:
        layer: The layer; "" for the image itself.
        predicted: The predicted change of the logit, wᵀη: w is the gradient of the logit by the
            layer's activation at the photo, η the change of that activation.
        relative_change: ‖η‖/‖activation‖: how large the change has become on its way.
    """

    layer: str
    predicted: float
    relative_change: float


@dataclass(frozen=True)
class LinearView:
    """What was predicted for a class, and what happened.

    Attributes:
        class_index: The class: the source, the goal, or what the image is taken for now.
        label: Its label.
        happened: The change of its logit.
        effects: Of the image first, then of the layers that were asked for.
    """

    class_index: int
    label: str
    happened: float
    effects: tuple[LinearEffect, ...]


@dataclass(frozen=True)
class TransferScore:
    """What a model of the server makes of a photo and of its attacked version.

    Attributes:
        model: Its name.
        before: What it takes the photo for.
        after: What it takes the attacked photo for.
        source_before: The source's probability for the photo; None where it has no such class.
        source_after: The same for the attacked photo.
        fooled: Whether it takes it for something else than before; for the goal, where there is
            one.
    """

    model: str
    before: Prediction
    after: Prediction
    source_before: float | None
    source_after: float | None
    fooled: bool


def sheet(result: "OptimizeResult", *, cell_px: int = 320) -> "Image":
    """The photo, what was added to it, and what came of that, side by side; a row an image.

    Args:
        result: Of an attack on one photo.
        cell_px: Width of a picture.
    """
    from .render import contact_sheet

    attacked, rows, captions = result.attack, [], []
    assert attacked is not None
    for image in result.images:
        how = image.adversarial
        assert how is not None
        rows.append([attacked.original, how.perturbation, image.image])
        drawn = f"drawn {how.perturbation_gain:.3g} times as large"
        sizes = f"at most {how.linf:g} of 255, L2 {how.l2:.4g}"
        captions.append([_words(attacked.prediction), f"{drawn}: {sizes}", _words(how.prediction)])
    titles = ("photo", "perturbation", "attacked photo")
    return contact_sheet(rows, column_labels=titles, cell_px=cell_px, captions=captions)


def _words(prediction: Prediction) -> str:
    return f"{prediction.label} {prediction.probability:.1%}"
