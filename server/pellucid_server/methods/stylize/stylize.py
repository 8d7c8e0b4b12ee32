"""An image with the content of a photo and the style of paintings, by optimization.

Gatys, Ecker and Bethge 2015, arXiv:1508.06576.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.goals import gram_matrix
from ...engine.job import Priority
from ...engine.lockstep import Climb, Pace, in_step
from ...engine.rows import (
    Ask,
    Chore,
    CodeTarget,
    EnergyTarget,
    Goal,
    GramTarget,
    Lane,
    Program,
    Rows,
    SumTarget,
    Target,
    Want,
    counted,
)
from ...errors import InvalidArgument, Violation
from ...models.registry import Model
from ..optimize import prelude
from ..optimize.optimize import (
    STACKED,
    Buckets,
    dtype_of,
    grown,
    resized,
    scoring_bytes,
    stepper_of,
)
from ..optimize.snapshot import Declared, Snapshot, held_bytes
from ..optimize.stepper import STATE, AscentStepper, End, Start, end_of, numbers_of
from ..optimize.updates import HISTORY
from . import colors
from .neural import Layers, Neural, same_area


@dataclass(frozen=True)
class Picture:
    """A photo or a painting, as it came.

    Attributes:
        sha256: Of its bytes, in hexadecimal.
        height_px: Of the whole, upright.
        width_px: Likewise.
        weight: Of a style, among others; more than 0.
    """

    sha256: str
    height_px: int
    width_px: int
    weight: float = 1.0


@dataclass(frozen=True)
class Stylized:
    """What came of a job.

    Attributes:
        picture: 3×H×W, red, green and blue from 0 to 1.
        end: The image before its colours and what the mask spares were put back; its progress
            has the losses of content layers, then of style layers, as negative terms.
        clipped_share: Of the picture's values that its colours had put out of range.
    """

    picture: Tensor
    end: End
    clipped_share: float


@dataclass(frozen=True)
class _Place:
    """Where a job is at one scale.

    Attributes:
        model: Whose network it looks through.
        size: Of the image.
        bucket_size: Of its batches.
        std: Of the model's preprocessing, times 255, 3×1×1.
    """

    model: Model
    size: tuple[int, int]
    bucket_size: int
    std: Tensor


@dataclass(frozen=True)
class Stylize:
    """An image that descends the losses of content and of style.

    Its source has everything as one row of numbers, all in the network's input frame: the content,
    the styles, then the mask and the start where there are any, of the sizes that sizes tells.

    Attributes:
        neural: How.
        content_layers: With their weights.
        style_layers: Likewise.
        content: The photo.
        styles: At least one.
        masked: Whether there is a mask.
        buckets: Of its batches.
        states: Where it goes on from: one, or none.
    """

    neural: Neural
    content_layers: Layers
    style_layers: Layers
    content: Picture
    styles: tuple[Picture, ...]
    masked: bool
    buckets: Buckets
    states: tuple[Snapshot, ...] = ()

    name: ClassVar[str] = "stylize"
    priority: ClassVar[Priority] = Priority.OPTIMIZE

    @property
    def scales(self) -> list[tuple[int, int]]:
        """Height and width of the image at each scale."""
        return self.neural.sizes(self.content.height_px, self.content.width_px)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.scales[-1]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of all pictures of its source."""
        others = self.masked + (self.neural.start == "image")
        return [
            self.size,
            *(self.style_size(s, self.size) for s in self.styles),
            *[self.size] * others,
        ]

    @staticmethod
    def style_size(style: Picture, size: tuple[int, int]) -> tuple[int, int]:
        """A style's own size where the image is of a size: as large in area."""
        return same_area(size, style.height_px, style.width_px)

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        """In rows of the network's own size that cost as much."""
        return counted(self._asks(model))

    def _asks(self, model: Model) -> list[Ask]:
        own, steps = model.network.pixel_count, self.neural.step_count
        scales = [height * width for height, width in self.scales]
        ascent = steps * sum(scales) / own
        for state in self.states:  # what is done need not be paid for
            done = steps * sum(scales[: state.octave]) + state.step * scales[state.octave]
            ascent -= ascent if state.ended else done / own
        looks = len(self.content_layers) + len(self.styles) * len(self.style_layers)
        targets = looks * sum(scales) / own
        climb = in_step(max(1, math.ceil(ascent)), 1, self.buckets.of(self.size))
        return [climb, Ask(Lane.FORWARD, math.ceil(targets))]

    def pace(self, model: Model) -> Pace:
        return Pace(self._asks(model), self.size, Neural)

    def most_ms(self, model: Model, row_ms: float) -> float:
        """No time ends it."""
        return math.inf

    def byte_count(self, model: Model) -> int:
        itemsize = dtype_of(model).itemsize
        held = STACKED + (2 * HISTORY if self.neural.update == "lbfgs" else 0)
        slot = held * prelude.parameter_count(*self.size) * itemsize
        pictures = 3 * sum(map(math.prod, self.sizes)) * itemsize
        layers = [layer for layer, _ in (*self.content_layers, *self.style_layers)]
        looked = scoring_bytes(model, self.size, layers)
        shapes = model.network.shapes_at(*self.size)
        map_counts = [shapes[layer][0] for layer, _ in self.style_layers]
        grams = (len(self.styles) + 1) * sum(count**2 for count in map_counts) * itemsize
        shown = held_bytes(self, model, self.neural)
        twos = 2 * (slot + pictures)  # slots come in twos of what there was
        return twos + looked + grams + shown

    @property
    def image_count(self) -> int:
        return 1

    def declared(self, model: Model) -> Sequence[Declared]:
        dtype = dtype_of(model)
        numbers = frozenset(numbers_of(len(self.content_layers) + len(self.style_layers)))
        return [
            Declared({name: ((prelude.parameter_count(*size),), dtype) for name in STATE}, numbers)
            for size in self.scales
        ]

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Stylized]:
        """Args are those of every method, but that the image is the row of numbers."""
        neural, steps, dtype = self.neural, model.preprocessing, dtype_of(model)
        mean, std = (
            255 * torch.tensor(values, dtype=dtype, device=image.device).view(3, 1, 1)
            for values in (steps.mean, steps.std)
        )
        pictures = [one * std for one in self._apart(image.to(dtype))]
        photo = (pictures[0] + mean) / 255
        if neural.original_colors != "off":
            host: Tensor = yield Chore(functools.partial(self._recolored, steps.mean, steps.std))
            pictures = [one * std for one in self._apart(host.to(image.device, dtype))]
        content, styles = pictures[0], pictures[1 : 1 + len(self.styles)]
        mask = None
        if self.masked:
            mask = ((pictures[1 + len(self.styles)] + mean) / 255).mean(0, True).clamp(0, 1)
            if not mask.any():
                found = Violation("mask", "is black everywhere: it leaves no place for the style")
                raise InvalidArgument(f"mask: {found.description}", violations=[found])
        finished = functools.partial(self._finished, photo, mask, mean)
        looking = model
        if neural.pooling == "average":
            looking = replace(model, network=model.network.averaged)
        first = {"content": content, "image": pictures[-1]}.get(neural.start)
        end: End | None = None
        for scale, size in enumerate(self.scales):
            state = next(iter(self.states), None)
            if state is not None and scale < state.octave:
                continue
            if state is not None and scale > state.octave:
                state = None
            place = _Place(looking, size, self.buckets.of(size), std)
            aim = yield from self._target(model, place, content, styles, mask)
            start = Start(
                neural.ascent(size),
                aim,
                None if first is None else resized(first[None], size)[0],
                0,
                scale,
                scale == len(self.scales) - 1,
                state,
                moment_steps=scale * neural.step_count,
                shown=lambda image: finished(image)[0],
            )
            if end is not None:
                start = _carried(start, end, first)
            make = functools.partial(stepper_of, model, size, place.bucket_size)
            through = None if looking is model else looking
            if state is not None and (
                state.ended or (state.step == neural.step_count and not start.last)
            ):
                end = end_of(make(), start)
            else:
                [end] = yield Climb(
                    size, place.bucket_size, AscentStepper, make, [start], model=through
                )
            assert end is not None
            if not end.finite:
                break
        assert end is not None
        picture, clipped_share = finished(end.image)
        return Stylized(picture, end, clipped_share)

    def _finished(
        self, photo: Tensor, mask: Tensor | None, mean: Tensor, image: Tensor
    ) -> tuple[Tensor, float]:
        """With what original colours and the mask put back, and the share that was clipped for it.

        Args:
            photo: 3×H×W, red, green and blue from 0 to 1.
            mask: 1×H×W.
            mean: Of the model's preprocessing, times 255, 3×1×1.
            image: Of any scale, in the prelude's frame.
        """
        size = (image.shape[1], image.shape[2])
        photo, exact, clipped_share = resized(photo[None], size)[0], (image + mean) / 255, 0.0
        if self.neural.original_colors == "luminance":
            exact = colors.with_luminance(photo, exact)
            clipped_share = float((exact != exact.clamp(0, 1)).double().mean())
        picture = exact.clamp(0, 1)
        if mask is not None:
            picture = torch.lerp(photo.clamp(0, 1), picture, resized(mask[None], size)[0])
        return picture, clipped_share

    def _apart(self, numbers: Tensor) -> list[Tensor]:
        """The pictures of a source, 3×H×W each."""
        sizes = self.sizes
        parts = numbers.split([3 * height * width for height, width in sizes])
        return [part.view(3, *size) for part, size in zip(parts, sizes, strict=True)]

    def _recolored(self, mean: Sequence[float], std: Sequence[float], numbers: Tensor) -> Tensor:
        """The numbers of a source with what original colours change before; in a worker."""
        means, stds = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
        pictures = [one * stds + means for one in self._apart(numbers.double())]
        photo, count = pictures[0], len(self.styles)
        styles = pictures[1 : 1 + count]
        if self.neural.original_colors == "luminance":
            styles = [colors.matched_grey(style, photo) for style in styles]
            pictures[0] = colors.luminance(photo).expand_as(photo)
        else:
            styles = [colors.matched(style, photo) for style in styles]
        pictures[1 : 1 + count] = styles
        return torch.cat([((one - means) / stds).flatten() for one in pictures])

    def _target(
        self,
        model: Model,
        place: _Place,
        content: Tensor,
        styles: Sequence[Tensor],
        mask: Tensor | None,
    ) -> Program[SumTarget]:
        """The negative loss of an image of a size."""
        neural, gatys = self.neural, self.neural.normalization == "gatys"
        terms: list[tuple[Goal, float]] = []
        photo = resized(content[None], place.size)
        # A sum over places: for the balance that it ends with at every scale before.
        larger = math.prod(self.size) / math.prod(place.size) if gatys else 1.0
        for layer, weight in self.content_layers:
            code = yield from _look(place, photo, layer)
            energy = 2.0 if gatys else float(code.numel())
            scaled = neural.content_weight * weight * larger
            terms.append((CodeTarget(layer, code, energy), scaled))
        total = sum(style.weight for style in self.styles)
        shares = [style.weight / total for style in self.styles]
        for layer, weight in self.style_layers:
            grams: list[Tensor] = []
            for which, style in enumerate(styles):
                grams.append((yield from self._gram(model, place, layer, which, style)))
            gram, spread = _mean(grams, shares)
            count = len(gram)
            goal = GramTarget(
                layer,
                gram,
                spread,
                1 / (4 * count**2) if gatys else 1 / count**4,
                None if mask is None else _weighed(mask, model, layer, place.size).to(gram),
            )
            terms.append((goal, neural.style_weight * weight))
        return SumTarget(tuple(terms))

    def _gram(
        self, model: Model, place: _Place, layer: str, which: int, style: Tensor
    ) -> Program[Tensor]:
        """A style's Gram matrix; those used last are kept with the model."""
        picture, neural = self.styles[which], self.neural
        size = self.style_size(picture, place.size)
        looks = (
            layer,
            size,
            place.bucket_size,
            neural.pooling,
            self.style_size(picture, self.size),
        )
        colors_of = None if neural.original_colors == "off" else (self.content.sha256, self.size)
        key = ("gram", picture.sha256, looks, neural.original_colors, colors_of)
        kept = model.network.cache.get(key)
        if kept is not None:
            return kept
        seen = yield from _look(place, resized(style[None], size), layer)
        return model.network.cache.put(key, gram_matrix(seen))


def _look(place: _Place, images: Tensor, layer: str) -> Program[Tensor]:
    """A layer's activation for one image, 1×3×H×W."""
    traces = yield Rows(
        (images / place.std).to(place.model.network.dtype),
        SumTarget(((EnergyTarget(layer), 1.0),)),
        Want.ACTIVATION,
        layers=(layer,),
        model=place.model,
        bucket_size=place.bucket_size,
    )
    seen: Tensor = traces.activations[layer][0]
    return seen


def _mean(grams: Sequence[Tensor], shares: Sequence[float]) -> tuple[Tensor, float]:
    """The weighted mean of Gram matrices, and how far they are from it: see GramTarget."""
    mean = (torch.stack(list(grams)) * grams[0].new_tensor(shares).view(-1, 1, 1)).sum(0)
    spread = sum(
        share * float((gram - mean).double().square().sum())
        for gram, share in zip(grams, shares, strict=True)
    )
    return mean, spread


def _weighed(mask: Tensor, model: Model, layer: str, size: tuple[int, int]) -> Tensor:
    """How much each of a layer's places counts: what of the mask lies there; M, the sum is 1."""
    _, height, width = model.network.shapes_at(*size)[layer]
    shares = F.adaptive_avg_pool2d(mask[None].double(), (height, width)).flatten()
    return shares / shares.sum()


def _carried(start: Start, end: End, base: Tensor | None) -> Start:
    """A start from the end of a smaller scale, with its moments.

    What the image has become is added to what it began as, whose detail was not there before. A
    loss that is a mean over places has so much less of a slope at each pixel where there are more
    of them.

    Args:
        start: As the first scale would start.
        end: Of the scale before.
        base: What the first scale starts from, 3×H×W of any size, unless it is noise.
    """
    assert end.moments is not None
    old: tuple[int, int] = (end.image.shape[1], end.image.shape[2])
    size = (start.ascent.height_px, start.ascent.width_px)
    share = math.prod(old) / math.prod(size)
    first, second = (
        prelude.from_pixels(resized(prelude.pixels_of(moment[None], old), size), size)[0]
        for moment in end.moments
    )
    before = None if base is None else resized(base[None], old)[0]
    image = grown(end, before, start.image, size)
    return replace(start, image=image, moments=(first * share, second * share**2))
