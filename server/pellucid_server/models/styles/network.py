"""A network that stylizes in one pass, every row of a batch in a style of its own.

All published networks of this kind (Johnson 2016, Dumoulin 2017, Ghiasi 2017) are one: three
convolutions that contract, residual blocks, three that expand, and between them instance norms
whose scale and shift are the style. Here scale and shift are an affine function of a row's style
code, so that the convolutions are shared and callers' styles ride together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_SIDE_PX = 32
"""Of a photo: reflected borders need as much, and nothing smaller shows a style."""
_EPSILON = 1e-5
"""Of every instance norm."""
SHRINK = 4
"""Sides are multiples of it inside: two convolutions halve them."""


class BadStyle(ValueError):
    """A style network that cannot be used; the message says why."""


@dataclass(frozen=True)
class Norm:
    """An instance norm of C channels whose scale and shift follow from a code of K numbers.

    Attributes:
        scales: K × C: what each number of a code adds to the scale, once.
        shifts: K × C.
        scale: C: the scale of a code of zeros.
        shift: C.
    """

    scales: Tensor
    shifts: Tensor
    scale: Tensor
    shift: Tensor


class Framed:
    """Rows with room around them for the border that the next convolution reads.

    What makes rows writes them where they are read, so that none is copied to get a border.

    Args:
        like: Gives the type and the device.
        shape: Of the rows, n × C × h × w.
        margin: The border's width.

    Attributes:
        rows: The part without the border.
        whole: All of it, n × C × (h + 2 margin) × (w + 2 margin).
        scratch: Of the rows' shape, in the same memory, to use before they are written: sums over
            rows that lie close together are several times as fast.
    """

    def __init__(self, like: Tensor, shape: Sequence[int], margin: int) -> None:
        count, channels, height, width = shape
        self._margin = margin
        memory = like.new_empty(count, height + 2 * margin, width + 2 * margin, channels)
        self.whole = memory.permute(0, 3, 1, 2)
        self.rows = self.whole[:, :, margin : margin + height, margin : margin + width]
        scratch = memory.flatten()[: count * height * width * channels]
        self.scratch = scratch.view(count, height, width, channels).permute(0, 3, 1, 2)

    def reflected(self) -> Tensor:
        """All of it, the border what a mirror at the outermost pixels shows."""
        return self._bordered(lambda at: 2 * self._margin - at)

    def repeated(self) -> Tensor:
        """All of it, the border the outermost pixels."""
        return self._bordered(lambda _: self._margin)

    def _bordered(self, source: Callable[[int], int]) -> Tensor:
        for axis in (2, 3):  # the second over whole lines: corners come of both
            for at in range(self._margin):
                near, far = source(at), -1 - source(at)
                self.whole.select(axis, at).copy_(self.whole.select(axis, near))
                self.whole.select(axis, -1 - at).copy_(self.whole.select(axis, far))
        return self.whole


class Convolution(nn.Module):
    """A convolution over reflected borders, then an instance norm by row or a bias.

    Args:
        weight: out × in × k × k, k odd.
        then: The norm; or a bias, where no norm would take it out again.
        stride: Of the convolution.

    Attributes:
        margin: The width of the border that it reads.
    """

    weight: Tensor
    table: Tensor
    base: Tensor

    def __init__(self, weight: Tensor, then: Norm | Tensor, *, stride: int = 1) -> None:
        super().__init__()
        self.margin, self._stride = weight.shape[-1] // 2, stride
        self._is_normed = isinstance(then, Norm)
        self.register_buffer("weight", self._arranged(weight))
        if isinstance(then, Norm):
            self.register_buffer("table", torch.cat((then.scales, then.shifts), 1))
            self.register_buffer("base", torch.cat((then.scale, then.shift)))
        else:
            self.register_buffer("base", then)

    def forward(self, framed: Framed, codes: Tensor, margin: int) -> Framed:
        """From n × in × h × w and n × K codes to rows in such a margin; no activation."""
        made = self._convolved(framed)
        result = Framed(made, made.shape, margin)
        if self._is_normed:
            # Summed one by one: a matrix product may sum a row as its neighbours let it.
            affine = (codes[:, :, None] * self.table).sum(1) + self.base
            scale, shift = affine[..., None, None].chunk(2, 1)
            _normalize(made, scale, shift, result)
        else:
            torch.add(made, self.base[:, None, None], out=result.rows)
        return result

    def _arranged(self, weight: Tensor) -> Tensor:
        return weight

    def _convolved(self, framed: Framed) -> Tensor:
        return F.conv2d(framed.reflected(), self.weight, stride=self._stride)


class DoubledConvolution(Convolution):
    """Each pixel doubled, 3 × 3 convolved: worked out of the small picture.

    An output's three taps a side fall on two pixels of the small picture, so that four kernels,
    one for each place in a square of 2 × 2, take the place of one, and no large picture is made
    but the result. At the border, reflecting doubled pixels is repeating small ones.
    """

    def _arranged(self, weight: Tensor) -> Tensor:
        out, depth, side, _ = weight.shape
        made = weight.new_zeros(out, 2, 2, depth, 3, 3)
        for row, column in _places():
            for y in range(side):
                for x in range(side):
                    at = (row + y + 1) // 2, (column + x + 1) // 2
                    made[:, row, column, :, at[0], at[1]] += weight[:, :, y, x]
        return made.flatten(0, 2)

    def _convolved(self, framed: Framed) -> Tensor:
        return F.pixel_shuffle(F.conv2d(framed.repeated(), self.weight), 2)


class SquaresConvolution(Convolution):
    """A large kernel of few channels, over squares of 2 × 2 pixels taken as channels.

    The same sums with some zeros between them, at a width that vector units fill.
    """

    def _arranged(self, weight: Tensor) -> Tensor:
        out, depth, side, _ = weight.shape
        made = weight.new_zeros(out, 2, 2, depth, 2, 2, side // 2 + 1, side // 2 + 1)
        for row, column in _places():
            for y in range(side):
                for x in range(side):
                    (down, below), (across, right) = divmod(row + y, 2), divmod(column + x, 2)
                    made[:, row, column, :, below, right, down, across] = weight[:, :, y, x]
        return made.flatten(3, 5).flatten(0, 2)

    def _convolved(self, framed: Framed) -> Tensor:
        squares = F.pixel_unshuffle(framed.reflected(), 2)
        return F.pixel_shuffle(F.conv2d(squares, self.weight), 2)


def _places() -> list[tuple[int, int]]:
    return [(row, column) for row in range(2) for column in range(2)]


def _normalize(rows: Tensor, scale: Tensor, shift: Tensor, result: Framed) -> None:
    """An instance norm of n × C × h × w, by n × C × 1 × 1; rows do not keep their values.

    In two passes, as squares that are not of what is left around the mean lose digits. Sums go
    over one row's pixels alone.
    """
    rows -= rows.mean((2, 3), keepdim=True)
    variance = torch.mul(rows, rows, out=result.scratch).mean((2, 3), keepdim=True)
    torch.addcmul(shift, rows, scale * torch.rsqrt(variance + _EPSILON), out=result.rows)


class _Residual(nn.Module):
    """What two convolutions make of rows, added to them."""

    def __init__(self, first: Convolution, second: Convolution) -> None:
        super().__init__()
        self._first, self._second = first, second
        self.margin = first.margin

    def forward(self, framed: Framed, codes: Tensor, margin: int) -> Framed:
        between: Framed = self._first(framed, codes, self._second.margin)
        between.rows.relu_()
        made: Framed = self._second(between, codes, margin)
        made.rows.add_(framed.rows)
        return made


class RowNetwork(nn.Module):
    """A network of fast style, as far as the engine knows it.

    Attributes:
        side_px: Of the square that its costs are measured at.
        tf32: Whether a CUDA device may round factors.
        code_length: The numbers of the code that a row has besides its image; None: it has none.
    """

    side_px = 256
    tf32 = False
    code_length: int | None = None

    @property
    def height_px(self) -> int:
        return self.side_px

    @property
    def width_px(self) -> int:
        return self.side_px

    @property
    def pixel_count(self) -> int:
        return self.side_px**2

    @property
    def dtype(self) -> torch.dtype:
        """Of its arithmetic."""
        return next(self.buffers()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device


class StyleNetwork(RowNetwork):
    """Photos and style codes in, paintings out; without gradients.

    Args:
        contracting: Three convolutions, the second and third of stride 2.
        residual: Pairs of convolutions.
        expanding: Two that double, and the last.
        code_length: The numbers of a style's code.
        squashed: Whether a sigmoid ends it. Without one, outputs may leave 0-1.
        styles: Names by index, of codes that are 1 at the index and 0 elsewhere. Where there is
            one style, its code has no numbers. Empty: codes are made of pictures.
        licence: SPDX identifier of the weights', or "" where nothing says.
    """

    code_length: int

    def __init__(
        self,
        contracting: Sequence[Convolution],
        residual: Sequence[tuple[Convolution, Convolution]],
        expanding: Sequence[Convolution],
        *,
        code_length: int,
        squashed: bool,
        styles: tuple[str, ...],
        licence: str,
    ) -> None:
        super().__init__()
        blocks = [_Residual(*pair) for pair in residual]
        layers: list[Convolution | _Residual] = [*contracting, *blocks, *expanding]
        self._layers = nn.ModuleList(layers)
        self._margins = [layer.margin for layer in layers]
        self._squashed = squashed
        self.to(memory_format=torch.channels_last)
        self.code_length, self.styles, self.licence = code_length, styles, licence

    def code_of(self, weights: Mapping[int, float]) -> Tensor:
        """The code of one of the network's own styles, or of a blend of them.

        Args:
            weights: By style's index, not negative, not all 0; they are divided by their sum.

        Returns:
            The code, code_length numbers in float32.
        """
        assert weights.keys() <= set(range(len(self.styles)))
        assert min(weights.values()) >= 0
        code, total = torch.zeros(self.code_length), sum(weights.values())
        for index, weight in weights.items() if self.code_length else ():
            code[index] = weight / total
        return code

    @torch.no_grad()
    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """Stylizes.

        Args:
            images: n × 3 × H × W, 0-1, sides of SMALLEST_SIDE_PX or more. Sides that are no
                multiples of 4 are filled up with reflected pixels and cut off again.
            codes: n × code_length, a row's own each.

        Returns:
            n × 3 × H × W; to be clipped to 0-1.
        """
        height, width = images.shape[2:]
        photos = F.pad(images, (0, -width % SHRINK, 0, -height % SHRINK), mode="reflect")
        *layers, last = self._layers
        framed = Framed(photos, photos.shape, self._margins[0])
        framed.rows.copy_(photos)
        for layer, margin in zip(layers, self._margins[1:], strict=True):
            framed = layer(framed, codes, margin)
            if isinstance(layer, Convolution):
                framed.rows.relu_()
        painted: Tensor = last(framed, codes, 0).rows
        if self._squashed:
            painted.sigmoid_()
        return painted[:, :, :height, :width]


def at_strength(own: Tensor, full: Tensor, strengths: Tensor) -> Tensor:
    """Rows between two, by each row's strength.

    Of a network with styles of its own, whose codes say nothing of no style, these are pixels:
    between photos and paintings clipped to 0-1. Where codes are made of pictures, they are codes:
    between that of the photo itself and that of the style, which fades a style and not the
    picture.

    Args:
        own: n × …, what strength 0 is.
        full: n × …, what strength 1 is.
        strengths: n, 0-1.
    """
    return own.lerp(full, strengths.view(-1, *[1] * (own.dim() - 1)))
