"""Which inputs a network takes besides its own size, told without computing anything."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .fields import Field, Fields

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
        self._trying = threading.Lock()  # one at a time: the network's hooks are shared

    def at(self, height_px: int, width_px: int) -> Shapes:
        """The shapes of all layers at an input's size.

        Raises:
            UnfitSize: The network does not take it.
        """
        size = (height_px, width_px)
        found = self._known(size)
        if found is None:
            with self._trying:
                found = self._known(size) or self._try(size)
            with self._lock:
                self._kept[size] = found
                if len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        if isinstance(found, UnfitSize):
            raise found
        return found

    def fields(
        self, height_px: int, width_px: int, axes: Mapping[str, tuple[int, int]]
    ) -> Mapping[str, Field]:
        """What the places of layers see of an input; as slow as a forward pass on the CPU.

        Args:
            height_px: Of the input, which the network takes.
            width_px: Likewise.
            axes: By layer: which dimensions of its output, the batch's counted, are rows and
                columns; two that it does not have where it has neither.
        """
        found: dict[str, Field] = {}
        image = torch.zeros(1, 3, height_px, width_px, dtype=self._dtype, device="meta")

        def note(name: str, output: Tensor) -> None:
            if name in axes:
                found[name] = following.of(output, *axes[name])

        # Inference mode, in which operators are seen before they are taken to pieces.
        with self._trying, torch.inference_mode(), self._noting(note):
            following = Fields(image)
            with following:
                self._module(image)
        return found

    def _known(self, size: tuple[int, int]) -> Shapes | UnfitSize | None:
        """What was found before: whoever asks for that waits for no other size to be tried."""
        with self._lock:
            return self._kept.get(size)

    def _try(self, size: tuple[int, int]) -> Shapes | UnfitSize:
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str, output: Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        image = torch.zeros(1, 3, *size, dtype=self._dtype, device="meta")
        try:
            with torch.no_grad(), self._noting(note):
                output = self._module(image)
        except Exception:  # whatever a network raises, it does not run
            return UnfitSize(*list(shapes.items())[-1]) if shapes else UnfitSize()
        for name, shape in shapes.items():
            if 0 in shape:
                return UnfitSize(name, shape)
        return shapes if output.shape == (1, self._class_count) else UnfitSize()

    @contextmanager
    def _noting(self, note: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Tells the outputs of layers, by the names of their calls."""
        calls: dict[str, int] = {}

        def hook_for(name: str) -> Any:
            def tell(_module: nn.Module, _inputs: Any, output: Any) -> None:
                call = calls[name] = calls.get(name, -1) + 1
                if isinstance(output, Tensor) and output.dim():
                    note(f"{name}#{call}" if call else name, output)

            return tell

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
