"""What the output of a layer is: its axes, its places, its channels."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


class Layout(enum.Enum):
    """What the axes of a layer's output are, for one image."""

    CHANNELS = "channels"
    MAPS = "maps"
    """Channels × height × width."""
    MAPS_CHANNELS_LAST = "maps_channels_last"
    """Height × width × channels."""
    TOKENS = "tokens"
    """Tokens × channels: those of the patches, row by row, come last."""
    OTHER = "other"


_CHANNELS_LAST = (Layout.MAPS_CHANNELS_LAST, Layout.TOKENS)

_MOST_PREFIX_TOKENS = 16
"""Class, distillation and register tokens."""


@dataclass(frozen=True)
class Layer:
    """One call of one layer; see the contract's Layer message.

    Attributes:
        grid: Height and width of its maps, or of its patches; None where it has none.
        decisive: Whether what its places hold reaches the logits. In a transformer, the last
            patches do not where a class token answers.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    targetable: bool
    note: str
    layout: Layout
    grid: tuple[int, int] | None = None
    decisive: bool = True

    @property
    def channel_count(self) -> int:
        return self.shape[-1 if self.layout in _CHANNELS_LAST else 0]

    @property
    def spatial(self) -> bool:
        """Whether it has maps of more than one place that matter."""
        return self.targetable and self.decisive and self.grid is not None and max(self.grid) > 1

    def at(self, shape: tuple[int, ...]) -> "Layer":
        """The same layer where its output is of another shape, for another input."""
        if self.layout is Layout.MAPS:
            return replace(self, shape=shape, grid=(shape[1], shape[2]))
        if self.layout is Layout.MAPS_CHANNELS_LAST:
            return replace(self, shape=shape, grid=(shape[0], shape[1]))
        return self

    @property
    def axes(self) -> tuple[int, int]:
        """Which dimensions of its output are rows and columns, the batch's counted."""
        return (1, 2) if self.layout is Layout.MAPS_CHANNELS_LAST else (2, 3)

    def place(self, channel: int | None, y: int | None, x: int | None) -> tuple[int | None, ...]:
        """Where a neuron is along each axis of the output; None: everywhere."""
        match self.layout:
            case Layout.MAPS_CHANNELS_LAST:
                return (y, x, channel)
            case Layout.TOKENS:
                assert self.grid is not None
                if y is None or x is None:
                    return (None, channel)
                return (self._prefix_count + y * self.grid[1] + x, channel)
            case _:
                return (channel, y, x)

    def maps(self, activation: Tensor) -> Tensor:
        """An activation of it, n×…, as n×channels×height×width; other tokens are left out."""
        assert self.grid is not None
        if self.layout is Layout.TOKENS:
            patches = activation[:, self._prefix_count :].unflatten(1, self.grid)
            moved: Tensor = patches.permute(0, 3, 1, 2)
            return moved
        return activation.permute(0, 3, 1, 2) if self.layout in _CHANNELS_LAST else activation

    def peaks(self, activation: Tensor) -> tuple[Tensor, Tensor]:
        """The largest number of each channel, n×channels, and its first place, row by row, int32.

        Args:
            activation: Of it, n×… .
        """
        if self.grid is None:
            return activation, torch.zeros_like(activation, dtype=torch.int32)
        # Row by row first: indices of all places at once take four times as long on a CPU.
        maps = self.maps(activation).permute(0, 2, 3, 1)  # as they lie in memory
        width = maps.shape[2]
        largest, row = maps.amax(2).max(1)
        of_row = maps.gather(1, row[:, None, None].expand(-1, 1, width, -1))[:, 0]
        return largest, (row * width + of_row.max(1).indices).int()

    def by_channel(self, activation: Tensor) -> Tensor:
        """An activation of it, of one image, as channels × places, other tokens counted."""
        moved = activation.movedim(-1, 0) if self.layout in _CHANNELS_LAST else activation
        return moved.reshape(len(moved), -1)

    @property
    def _prefix_count(self) -> int:
        assert self.grid is not None
        return self.shape[0] - self.grid[0] * self.grid[1]


def default_spatial_layer(fitting: Sequence[Layer]) -> Layer:
    """The last of layers with maps; of layers with tokens, the last as wide as the first.

    Narrower and wider ones hold queries, keys, values or the inside of a block's perceptron, not
    what the tokens are.
    """
    last = fitting[-1]
    if last.layout is not Layout.TOKENS:
        return last
    tokens = [layer for layer in fitting if layer.layout is Layout.TOKENS]
    return [layer for layer in tokens if layer.channel_count == tokens[0].channel_count][-1]


class Layouts:
    """Tells the axes of outputs, seen in the order of the forward pass, by their lengths."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self._input = (height_px, width_px)
        self._patches: tuple[int, int] | None = None
        self._maps = Layout.MAPS

    def of(
        self, module: nn.Module, shape: tuple[int, ...]
    ) -> tuple[Layout, tuple[int, int] | None]:
        match shape:
            case (_,):
                return Layout.CHANNELS, None
            case (token_count, _) if self._patches is not None:
                patch_count = self._patches[0] * self._patches[1]
                if 0 <= token_count - patch_count <= _MOST_PREFIX_TOKENS:
                    return Layout.TOKENS, self._patches
            case (a, b, c):
                fitting = {
                    layout: grid
                    for layout, grid in (
                        (Layout.MAPS, (b, c)),
                        (Layout.MAPS_CHANNELS_LAST, (a, b)),
                    )
                    if self._is_grid(grid)
                }
                if fitting:
                    if self._maps not in fitting:
                        self._maps = next(iter(fitting))
                    grid = fitting[self._maps]
                    if isinstance(module, nn.Conv2d) and _cuts_patches(module):
                        self._patches = grid
                    return self._maps, grid
        return Layout.OTHER, None

    def _is_grid(self, grid: tuple[int, int]) -> bool:
        """Whether maps of that size can be the input, scaled down: within a pixel of its shape."""
        (height, width), (down, across) = grid, self._patches or self._input
        return (
            height <= down and width <= across and abs(height * across - width * down) <= 2 * across
        )


def _cuts_patches(module: nn.Conv2d) -> bool:
    return module.kernel_size == module.stride and min(module.stride) > 1
