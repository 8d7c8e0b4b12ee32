"""A photo in the style of paintings in one pass.

Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155; Dumoulin, Shlens and Kudlur 2016,
arXiv:1610.07629; Ghiasi and others 2017, arXiv:1705.06830.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.job import Elsewhere, Priority
from ...engine.rows import Chore, Lane, Program, StyleRows, Target
from ...models.styles.arbitrary import predictor_input
from ...models.styles.library import CodeModel, StyleModel
from ...models.styles.network import StyleNetwork, at_strength
from ..parameters import Parameters, choice, number
from . import colors
from .neural import LEAST_SIDE_PX, MOST_SIDE_PX, at_side

_PREDICTED_AT_ONCE = 1
"""The bucket of predictions: their codes are kept, and must not depend on who else was there."""

_HELD_IMAGES = 8
"""Images of the result's size that a job holds at a time."""

_PAINTING_IMAGES = 25
"""The same for each row of a batch while the network paints: measured, 24 of multistyle26."""

_USUAL_PIXELS = 512 * 512
"""Of a batch that is nobody's own doing; a job answers for what its own has beyond."""


@dataclass(frozen=True, kw_only=True)
class Fast(Parameters):
    """See the contract's Fast."""

    strength: float = number(1.0, 0, 1)
    side_px: int = number(512, LEAST_SIDE_PX, MOST_SIDE_PX)
    original_colors: str = choice("off")

    def size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width of the image, by the photo's."""
        return at_side(self.side_px, height_px, width_px)


@dataclass(frozen=True)
class Painted:
    """What came of a job.

    Attributes:
        picture: 3×H×W, red, green and blue from 0 to 1.
        clipped_share: Of the picture's values that its colours had put out of range.
    """

    picture: Tensor
    clipped_share: float


@dataclass(frozen=True)
class NamedStyles:
    """Styles that the network has, blended.

    Attributes:
        network: Whose.
        weights: By the style's index.
    """

    network: StyleNetwork
    weights: Mapping[int, float]

    elsewhere: ClassVar[tuple[Elsewhere, ...]] = ()

    def code(self, strength: float) -> Program[Tensor]:
        """Says nothing of strength, which is between the photo and the painting."""
        yield from ()
        return self.network.code_of(self.weights)


class Photo(Protocol):
    """A picture that is decoded when it is needed."""

    @property
    def sha256(self) -> str:
        """Of its bytes, in hexadecimal."""
        ...

    def decoded(self) -> NDArray[np.uint8]:
        """Upright, H×W×3; called in a worker."""
        ...


@dataclass(frozen=True)
class PictureStyles:
    """The styles of pictures, by their codes.

    Attributes:
        predictor: Of codes.
        content: The photo, whose own style strength 0 is; None where strength is said in pixels.
        pictures: With their weights.
    """

    predictor: CodeModel
    content: Photo | None
    pictures: Sequence[tuple[Photo, float]]

    @property
    def elsewhere(self) -> tuple[Elsewhere, ...]:
        count = len(self.pictures) + (self.content is not None)
        return (Elsewhere(self.predictor, Lane.FORWARD, count, _PREDICTED_AT_ONCE),)

    def code(self, strength: float) -> Program[Tensor]:
        """The mean of the codes, as far from the photo's own as strength says."""
        total = sum(weight for _, weight in self.pictures)
        code = torch.zeros(())
        for picture, weight in self.pictures:
            code = code + weight / total * (yield from self._code_of(picture))
        if strength < 1 and self.content is not None:
            own = yield from self._code_of(self.content)
            code = at_strength(own[None], code[None], torch.tensor([strength]))[0]
        return code

    def _code_of(self, picture: Photo) -> Program[Tensor]:
        """On the host; those used last are kept."""
        network, sha256 = self.predictor.network, picture.sha256
        kept = network.cache.get(sha256)
        if kept is not None:
            return kept
        seen: np.ndarray = yield Chore(lambda _: predictor_input(picture.decoded()))
        image = torch.from_numpy(seen)[None].to(network.device, network.dtype)
        traces = yield StyleRows(image, self.predictor, bucket_size=_PREDICTED_AT_ONCE)
        return network.cache.put(sha256, traces.made[0].cpu())


class Painting:
    """A picture that is painted in one pass; it costs what its size says."""

    size: tuple[int, int]
    bucket_size: int | None

    priority: ClassVar[Priority] = Priority.EXPLAIN

    def row_counts(self, model: StyleModel, target: Target) -> Mapping[Lane, int]:
        """In rows of the size that costs are measured at."""
        return {Lane.FORWARD: math.ceil(math.prod(self.size) / model.network.pixel_count)}

    def pace(self, model: StyleModel) -> None:
        """There is one row, after its styles' codes."""

    def most_ms(self, model: StyleModel, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: StyleModel) -> int:
        """What an image of the size holds, and while a batch is painted that it fixes."""
        pixels = math.prod(self.size)
        painted = max(0, (self.bucket_size or 1) * pixels - _USUAL_PIXELS)
        held = _HELD_IMAGES * pixels + _PAINTING_IMAGES * painted
        return 3 * held * model.network.dtype.itemsize


@dataclass(frozen=True)
class FastStylize(Painting):
    """A photo that a network paints. Its source is a PlainPhoto.

    Attributes:
        fast: How.
        styles: Which.
        size: Height and width of the result.
        bucket_size: What its batch is padded to, where that is fixed.
    """

    fast: Fast
    styles: NamedStyles | PictureStyles
    size: tuple[int, int]
    bucket_size: int | None = None

    name: ClassVar[str] = "fast_style"

    def program(self, model: StyleModel, image: Tensor, target: Target) -> Program[Painted]:
        """Args are those of every method, but that a mask is the image's fourth channel."""
        photo, mask = image[:3], image[3:]
        code: Tensor = yield from self.styles.code(self.fast.strength)
        fast = self.fast
        if not isinstance(self.styles, NamedStyles):
            fast = replace(fast, strength=1.0)  # the code has said it
        painted = yield from paint(model, photo, code, fast)
        if len(mask):
            painted = replace(painted, picture=torch.lerp(photo, painted.picture, mask))
        return painted


def paint(model: StyleModel, photo: Tensor, code: Tensor, fast: Fast) -> Program[Painted]:
    """A photo, 3×H×W, by a code; strength is between the two, pixel by pixel."""
    traces = yield StyleRows(photo[None], model, code[None].to(photo))
    strengths = photo.new_tensor([fast.strength])
    picture = at_strength(photo[None], traces.made.clamp(0, 1), strengths)[0]
    clipped_share = 0.0
    if fast.original_colors == "luminance":
        exact = colors.with_luminance(photo, picture)
        picture = exact.clamp(0, 1)
        clipped_share = float((exact != picture).double().mean())
    return Painted(picture, clipped_share)
