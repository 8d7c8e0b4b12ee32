"""How an attacked photo fares: its linear view, its transfer to other models, a sheet of it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from .types import Prediction, opened

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
        before: What it takes the photo for; None where its output for it is not finite.
        after: What it takes the attacked photo for, likewise.
        source_before: The source's probability for the photo; None where it has no such class, or
            with before.
        source_after: The same for the attacked photo.
        fooled: Whether it takes it for something else than before; for the goal, where there is
            one.
    """

    model: str
    before: Prediction | None
    after: Prediction | None
    source_before: float | None
    source_after: float | None
    fooled: bool


@dataclass(frozen=True)
class Adversarial:
    """How an attacked photo fares, at 8 bits.

    Attributes:
        success: Whether the network takes it for something else than the source; for the goal,
            where there is one.
        success_unrounded: The same before its pixels were rounded to 8 bits.
        prediction: What it takes it for.
        source_probability: The source's probability.
        goal_probability: The goal's; None where there is none.
        linf: The largest change of any pixel's red, green or blue: 0 to 255.
        l2: The root of the sum of all changes' squares.
        picture: The change as a PNG file: grey where nothing changed, scaled to be seen.
        perturbation_gain: What it is scaled by.
        linear: For the source, and for the goal or else for what it is taken for.
        transfer: What each model of the server makes of it, where that was asked for.
    """

    success: bool
    success_unrounded: bool
    prediction: Prediction
    source_probability: float
    goal_probability: float | None
    linf: float
    l2: float
    picture: bytes = field(repr=False)
    perturbation_gain: float
    linear: tuple[LinearView, ...] = field(repr=False)
    transfer: tuple[TransferScore, ...] = field(repr=False)

    @cached_property
    def perturbation(self) -> "Image":
        """The change as a PIL image."""
        return opened(self.picture)


@dataclass(frozen=True)
class Attacked:
    """The photo that was attacked.

    Attributes:
        encoded: A PNG file: the photo as the network sees it, at 8 bits.
        prediction: What the network takes it for.
        label: Of the source.
        goal_label: Of the goal; empty where there is none.
        source_probability: The source's probability for the photo.
    """

    encoded: bytes = field(repr=False)
    prediction: Prediction
    label: str
    goal_label: str
    source_probability: float

    @cached_property
    def original(self) -> "Image":
        """The photo as the network sees it, as a PIL image."""
        return opened(self.encoded)


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
        change = f"{how.linf:g} of 255 at most, drawn {how.perturbation_gain:.3g} times as large"
        captions.append([_words(attacked.prediction), change, _words(how.prediction)])
    titles = ("photo", "perturbation", "attacked photo")
    return contact_sheet(rows, column_labels=titles, cell_px=cell_px, captions=captions)


def _words(prediction: Prediction) -> str:
    return f"{prediction.label} {prediction.probability:.1%}"
