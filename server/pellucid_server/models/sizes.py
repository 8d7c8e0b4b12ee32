"""Which inputs a network takes besides its own size, told without computing anything."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MOST_KEPT = 64

Shapes = Mapping[str, tuple[int, ...]]
"""Of layers' outputs, for one image."""


class UnfitSize(ValueError):
    """The network does not take an input of that size.

    Attributes:
        layer: The last one that it gets through, or the first one that is empty; None where it
            gets through none, or all.
        shape: Of that layer's output.
    """

    def __init__(self, layer: str | None = None, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.layer, self.shape = layer, shape


class Sizes:
    """A network without its numbers, which shapes go through. Safe between threads.

    Args:
        module: The network.
        layers: The names of its layers: their calls in order, as Network lists them.
        class_count: Of its logits.
        dtype: The precision that it computes in.
    """

    def __init__(
        self, module: nn.Module, layers: Sequence[str], class_count: int, dtype: torch.dtype
    ) -> None:
        self._module = _hollow(module)
        self._modules = {name.partition("#")[0] for name in layers}
        self._class_count, self._dtype = class_count, dtype
        self._kept: OrderedDict[tuple[int, int], Shapes | UnfitSize] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, height_px: int, width_px: int) -> Shapes:
        """The shapes of all layers at an input's size.

        Raises:
            UnfitSize: The network does not take it.
        """
        size = (height_px, width_px)
        with self._lock:
            if size not in self._kept:
                self._kept[size] = self._try(size)
                if len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
            found = self._kept[size]
        if isinstance(found, UnfitSize):
            raise found
        return found

    def _try(self, size: tuple[int, int]) -> Shapes | UnfitSize:
        shapes: dict[str, tuple[int, ...]] = {}
        image = torch.zeros(1, 3, *size, dtype=self._dtype, device="meta")
        try:
            with torch.no_grad(), self._noting(shapes):
                output = self._module(image)
        except Exception:  # whatever a network raises, it does not run
            return UnfitSize(*list(shapes.items())[-1]) if shapes else UnfitSize()
        for name, shape in shapes.items():
            if 0 in shape:
                return UnfitSize(name, shape)
        return shapes if output.shape == (1, self._class_count) else UnfitSize()

    @contextmanager
    def _noting(self, shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
        calls: dict[str, int] = {}

        def hook_for(name: str) -> Any:
            def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
                call = calls[name] = calls.get(name, -1) + 1
                if isinstance(output, Tensor) and output.dim():
                    shapes[f"{name}#{call}" if call else name] = tuple(output.shape[1:])

            return note

        with ExitStack() as hooks:
            for name in self._modules:
                module = self._module.get_submodule(name)
                hooks.callback(module.register_forward_hook(hook_for(name)).remove)
            yield


def _hollow(module: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no memory."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.to("meta"), requires_grad=False)
        for parameter in module.parameters()
    }
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo)
