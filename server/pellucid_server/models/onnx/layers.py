"""The layers of a converted network that torch has no module for."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rows(nn.Module):
    """The same values for every image, whatever is in it: a class token, for example.

    Args:
        row: Of one image.
    """

    row: Tensor

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.register_buffer("row", row)

    def forward(self, images: Tensor) -> Tensor:
        return self.row.expand(len(images), *self.row.shape)


class _Joining(nn.Module):
    """A call of several tensors, some of which are constants.

    Args:
        constants: In the order of the operands; None: an activation stands there.
    """

    def __init__(self, constants: Sequence[Tensor | None]) -> None:
        super().__init__()
        self._names = [f"constant_{place}" for place in range(len(constants))]
        for name, constant in zip(self._names, constants, strict=True):
            if constant is not None:
                self.register_buffer(name, constant)

    def operands(self, activations: Sequence[Tensor]) -> list[Tensor]:
        rest = iter(activations)
        return [self.get_buffer(n) if n in self._buffers else next(rest) for n in self._names]


class Add(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        total, *others = self.operands(activations)
        for other in others:
            total = torch.add(total, other)
        return total


class Subtract(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        return torch.sub(*self.operands(activations))


class Multiply(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        return torch.mul(*self.operands(activations))


class Divide(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        return torch.div(*self.operands(activations))


class Power(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        return torch.pow(*self.operands(activations))


class MatMul(_Joining):
    def forward(self, *activations: Tensor) -> Tensor:
        return torch.matmul(*self.operands(activations))


class Concat(_Joining):
    def __init__(self, constants: Sequence[Tensor | None], axis: int) -> None:
        super().__init__(constants)
        self._axis = axis

    def forward(self, *activations: Tensor) -> Tensor:
        return torch.cat(self.operands(activations), self._axis)


class Clip(nn.Module):
    def __init__(self, lower: float | None, upper: float | None) -> None:
        super().__init__()
        self._bounds = lower, upper

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, *self._bounds)


class Pad(nn.Module):
    """Args: widths as F.pad takes them, from the last axis on."""

    def __init__(self, widths: Sequence[int], mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self._options = list(widths), mode, value if mode == "constant" else None

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, *self._options)


class Reshape(nn.Module):
    """Args: shape, with -1 for the axis that is longer for more images."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self._shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return torch.reshape(x, self._shape)


class Transpose(nn.Module):
    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self._order = tuple(order)

    def forward(self, x: Tensor) -> Tensor:
        return torch.permute(x, self._order)


class Slice(nn.Module):
    """Args: one slice, or one index, for each of the first axes."""

    def __init__(self, places: Sequence[slice | int]) -> None:
        super().__init__()
        self._places = tuple(places)

    def forward(self, x: Tensor) -> Tensor:
        return x[self._places]


class Gather(nn.Module):
    indices: Tensor

    def __init__(self, axis: int, indices: Tensor) -> None:
        super().__init__()
        self._axis = axis
        self.register_buffer("indices", indices)

    def forward(self, x: Tensor) -> Tensor:
        return torch.index_select(x, self._axis, self.indices)


class Split(nn.Module):
    def __init__(self, lengths: Sequence[int], axis: int) -> None:
        super().__init__()
        self._lengths, self._axis = list(lengths), axis

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, self._lengths, self._axis)


class Mean(nn.Module):
    def __init__(self, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        self._axes, self._keep = tuple(axes), keep

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, self._axes, keepdim=self._keep)


class Sum(Mean):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sum(x, self._axes, keepdim=self._keep)


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Sqrt(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


class Exp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.neg(x)
