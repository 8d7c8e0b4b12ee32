"""Receptive fields: which pixels each place of a layer can depend on, read off the graph.

A network without numbers is run once. Each tensor on its way knows, for its vertical and its
horizontal axis, which rows and columns of the image every place of it sees. Where an operator
mixes places in a way that is not known, all of what it is given counts: a box may be larger than
what matters, never smaller.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

Places = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Axis:
    """What places along one axis of a layer see of the image, along the same axis.

    Attributes:
        low: The first pixel that each place sees.
        high: The one after the last; not above low where it sees none.
        size_px: What a place sees that is far enough from the border.
        stride_px: From one place to the next.
    """

    low: Places
    high: Places
    size_px: int
    stride_px: int

    def at(self, place: int | None) -> tuple[int, int]:
        """The first pixel and the one after the last of a place; None: of all of them."""
        chosen = slice(None) if place is None or len(self.low) == 1 else slice(place, place + 1)
        low, high = int(self.low[chosen].min()), int(self.high[chosen].max())
        return (low, high) if low < high else (0, 0)

    def nearest(self, pixel: int, place_count: int, length_px: int) -> int:
        """The place whose middle is nearest to a pixel's; of two, the first.

        What a place sees beyond the border counts, as if the image went on there. Places of which
        every one sees all of the image count as evenly spread.

        Args:
            pixel: From 0.
            place_count: Of the layer, of which one may stand for all here.
            length_px: Of the image, along this axis.
        """
        middle_px = pixel + 0.5
        sees = self.low < self.high
        inner = np.flatnonzero(sees & (self.low > 0) & (self.high < length_px))
        middles = (self.low + self.high) / 2
        if len(self.low) == place_count and not len(inner):  # cut off at one end, or at both
            inner = np.flatnonzero(sees & ((self.low > 0) | (self.high < length_px)))
            by_low, by_high = self.low + self.size_px / 2, self.high - self.size_px / 2
            middles = np.where(self.low > 0, by_low, by_high)
        if len(self.low) != place_count or not len(inner):
            return int(middle_px * place_count / length_px)
        places = np.arange(place_count)
        known = inner[np.abs(places[:, None] - inner).argmin(1)]
        middles = middles[known] + (places - known) * self.stride_px
        return int(np.abs(middles - middle_px).argmin())

    def gathered(self, sources: Sequence[Sequence[int]], step: int = 1, reach: int = 1) -> "Axis":
        """Each place sees what those of its sources see, those that are none left out.

        Args:
            sources: For each new place, places along this axis.
            step: Between the sources of neighbours.
            reach: From the first source of a place to the last one, both counted.
        """
        low = np.full(len(sources), np.iinfo(np.int64).max)
        high = np.zeros(len(sources), np.int64)
        for place, of_place in enumerate(sources):
            within = [source for source in of_place if 0 <= source < len(self.low)]
            if within:
                low[place], high[place] = self.low[within].min(), self.high[within].max()
        size_px = self.size_px + (reach - 1) * self.stride_px
        return Axis(low, high, size_px, self.stride_px * step)

    def gathered_all(self, count: int = 1) -> "Axis":
        """Each of so many places sees all of it."""
        low, high = self.at(None)
        return _everywhere(low, high, count)

    def joined(self, other: "Axis") -> "Axis":
        """Each place sees what it sees of either; one place stands for all."""
        return Axis(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            max(self.size_px, other.size_px),
            max(self.stride_px, other.stride_px),
        )


def _everywhere(low: int, high: int, count: int) -> Axis:
    return Axis(np.full(count, low), np.full(count, high), high - low, high - low)


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer.

    Attributes:
        y: Along the height, a place for each row of the layer's maps, or one for all.
        x: Along the width, likewise.
        height_px: Of the image.
        width_px: Of the image.
    """

    y: Axis
    x: Axis
    height_px: int
    width_px: int

    @property
    def whole(self) -> bool:
        """Whether every place sees the whole image."""
        return all(
            (axis.low <= 0).all() and (axis.high >= length).all()
            for axis, length in ((self.y, self.height_px), (self.x, self.width_px))
        )

    def box(self, y: int | None, x: int | None) -> tuple[int, int, int, int]:
        """Top, left, bottom and right in pixels, the last two the first beyond it.

        Args:
            y: The row in the layer's maps; None: any.
            x: The column, likewise.
        """
        (top, bottom), (left, right) = self.y.at(y), self.x.at(x)
        return top, left, bottom, right


@dataclass(frozen=True)
class _Seen:
    """What a tensor sees, and which of its dimensions the axes are: None of one place."""

    y: Axis
    x: Axis
    y_dim: int | None
    x_dim: int | None

    def collapsed(self) -> "_Seen":
        return _Seen(self.y.gathered_all(), self.x.gathered_all(), None, None)

    def moved(self, place_of: Callable[[int], int | None]) -> "_Seen":
        """The same with other dimensions."""
        return replace(
            self,
            y_dim=None if self.y_dim is None else place_of(self.y_dim),
            x_dim=None if self.x_dim is None else place_of(self.x_dim),
        )

    def led_by(self, count: int) -> "_Seen":
        """The same behind so many more dimensions."""
        return self.moved(lambda dim: dim + count)

    def along(self, dim: int, change: Callable[[Axis], Axis]) -> "_Seen":
        """Changed where an axis is that dimension."""
        if dim == self.y_dim:
            return replace(self, y=change(self.y))
        return replace(self, x=change(self.x)) if dim == self.x_dim else self

    def without(self, dims: Sequence[int]) -> "_Seen":
        """Every place along the dimensions sees what any of them does."""
        seen = self
        for dim in dims:
            seen = seen.along(dim, lambda axis: axis.gathered_all(len(axis.low)))
        return seen


class Fields(TorchDispatchMode):
    """Follows what the tensors of a forward pass see of its input.

    Args:
        image: 1×3×H×W, of no memory.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._height_px, self._width_px = int(image.shape[2]), int(image.shape[3])
        self._seen = WeakTensorKeyDictionary()
        self._written: set[int] = set()
        rows, columns = np.arange(self._height_px), np.arange(self._width_px)
        self._seen[image] = _Seen(
            Axis(rows, rows + 1, 1, 1), Axis(columns, columns + 1, 1, 1), 2, 3
        )

    def of(self, activation: Tensor, y_dim: int, x_dim: int) -> Field:
        """That of a tensor of the pass, one of whose dimensions are rows, and one columns."""
        seen = self._of(activation)
        if seen is None:  # a constant
            nothing = Axis(np.zeros(1, np.int64), np.zeros(1, np.int64), 0, 0)
            return Field(nothing, nothing, self._height_px, self._width_px)
        if (seen.y_dim, seen.x_dim) not in ((y_dim, x_dim), (None, None)):
            seen = seen.collapsed()
        return Field(seen.y, seen.x, self._height_px, self._width_px)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        rule = _RULES.get(name)
        pointwise = torch.Tag.pointwise in func.tags
        if rule is None and not pointwise and func.has_kernel_for_dispatch_key(_COMPOSITE):
            with self:
                return func.decompose(*args, **kwargs)
        output = func(*args, **kwargs)
        given = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if _is(one)]
        seen = [found for one in given if (found := self._of(one)) is not None]
        if not seen:
            return output
        outputs = [one for one in torch.utils._pytree.tree_leaves(output) if _is(one)]
        bound = _Call(func, args, kwargs, self._of)
        for place, one in enumerate(outputs):
            found = None
            if pointwise:
                found = _together([(y, self._of(y)) for y in given], one)
            elif rule is not None and len(seen) == 1:
                found = rule(bound, seen[0], one, place)
            elif name == "cat":
                found = _cat(bound, one)
            self._note(one, found or _all_of(seen))
        if func._schema.is_mutable:
            self._write(outputs)
        return output

    def _of(self, tensor: Tensor) -> _Seen | None:
        found: _Seen | None = self._seen.get(tensor)
        if tensor.untyped_storage()._cdata in self._written:
            height, width = self._height_px, self._width_px
            return _Seen(_everywhere(0, height, 1), _everywhere(0, width, 1), None, None)
        return found

    def _note(self, tensor: Tensor, seen: _Seen) -> None:
        for dim, axis in ((seen.y_dim, seen.y), (seen.x_dim, seen.x)):
            if dim is not None and tensor.shape[dim] != len(axis.low):
                seen = seen.collapsed()
        self._seen[tensor] = seen

    def _write(self, outputs: Sequence[Tensor]) -> None:
        """What is written to in part, or known by another name, is not followed any further.

        It counts as the whole image.
        """
        for tensor in outputs:
            storage = tensor.untyped_storage()
            others = (one for one in self._seen if one is not tensor)
            if tensor.numel() * tensor.element_size() != storage.nbytes() or any(
                one.untyped_storage()._cdata == storage._cdata for one in others
            ):
                self._written.add(storage._cdata)


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


class _Call:
    """One call of an operator: its arguments by name, defaults filled in."""

    def __init__(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        seen_of: Callable[[Tensor], _Seen | None],
    ) -> None:
        self.seen_of = seen_of
        self._given = dict(kwargs)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            self._given[argument.name] = value
        for argument in func._schema.arguments:
            if argument.name not in self._given and argument.has_default_value():
                self._given[argument.name] = argument.default_value

    def __getitem__(self, name: str) -> Any:
        return self._given[name]

    def pair(self, name: str, otherwise: tuple[int, int] = (0, 0)) -> tuple[int, int]:
        value = self._given.get(name)
        if value is None or value == []:
            return otherwise
        if isinstance(value, int):
            return value, value
        return (int(value[0]), int(value[-1]))


Rule = Callable[[_Call, _Seen, Tensor, int], _Seen | None]


def _all_of(seen: Sequence[_Seen]) -> _Seen:
    """Everything that any of them sees."""
    made, *rest = (one.collapsed() for one in seen)
    for one in rest:
        made = _Seen(made.y.joined(one.y), made.x.joined(one.x), None, None)
    return made


def _together(given: Sequence[tuple[Tensor, _Seen | None]], output: Tensor) -> _Seen | None:
    """Of an elementwise operator whose arguments are broadcast."""
    made: _Seen | None = None
    for tensor, seen in given:
        if seen is None:
            continue
        seen = _spread(seen.led_by(output.dim() - tensor.dim()), output)
        made = seen if made is None else _both(made, seen)
        if made is None:
            return None
    return made


def _spread(seen: _Seen, output: Tensor) -> _Seen:
    """One place stands for all where an axis is broadcast."""
    if seen.y_dim is not None and len(seen.y.low) == 1:
        seen = replace(seen, y_dim=None)
    if seen.x_dim is not None and len(seen.x.low) == 1:
        seen = replace(seen, x_dim=None)
    return seen


def _both(one: _Seen, other: _Seen) -> _Seen | None:
    dims = []
    for a, b in ((one.y_dim, other.y_dim), (one.x_dim, other.x_dim)):
        if a is not None and b is not None and a != b:
            return None
        dims.append(a if b is None else b)
    return _Seen(one.y.joined(other.y), one.x.joined(other.x), dims[0], dims[1])


def _windows(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    """Convolutions and pooling."""
    if (seen.y_dim, seen.x_dim) != (2, 3) or (place and "kernel_size" not in call._given):
        return None
    if call._given.get("transposed"):
        return None
    kernel = call.pair("kernel_size") if "kernel_size" in call._given else None
    if kernel is None:
        kernel = (int(call["weight"].shape[2]), int(call["weight"].shape[3]))
    stride = call.pair("stride", kernel)
    dilation = call.pair("dilation", (1, 1))
    padding = call._given.get("padding", 0)
    if padding == "valid":
        pads = (0, 0)
    elif padding == "same":
        pads = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    else:
        pads = call.pair("padding")
    axes = []
    for k, axis in enumerate((seen.y, seen.x)):
        sources = [
            [place * stride[k] - pads[k] + tap * dilation[k] for tap in range(kernel[k])]
            for place in range(output.shape[2 + k])
        ]
        axes.append(axis.gathered(sources, stride[k], (kernel[k] - 1) * dilation[k] + 1))
    return _Seen(axes[0], axes[1], 2, 3)


def _adaptive(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    if (seen.y_dim, seen.x_dim) != (2, 3):
        return None
    axes = []
    for axis, count in zip((seen.y, seen.x), output.shape[2:], strict=True):
        length = len(axis.low)
        sources = [
            range(math.floor(i * length / count), math.ceil((i + 1) * length / count))
            for i in range(count)
        ]
        reach = max(map(len, sources))
        axes.append(axis.gathered(sources, max(length // count, 1), reach))
    return _Seen(axes[0], axes[1], 2, 3)


def _dims(call: _Call, name: str, rank: int) -> list[int]:
    value = call[name]
    if value is None or value == []:
        return list(range(rank))
    return [one % rank for one in ([value] if isinstance(value, int) else value)]


def _reduce(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    """Means, sums and extremes over dimensions."""
    rank = call["self"].dim()
    dims = _dims(call, "dim", rank) if "dim" in call._given else list(range(rank))
    keep = bool(call._given.get("keepdim", False))
    for dim in dims:
        seen = seen.along(dim, lambda axis: axis.gathered_all())

    def place_of(dim: int) -> int | None:
        if dim in dims:
            return None
        return dim if keep else dim - sum(gone < dim for gone in dims)

    return seen.moved(place_of)


def _mix(name: str) -> Rule:
    """Softmax and the like: places along a dimension see each other."""

    def rule(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
        return seen.without(_dims(call, name, output.dim()))

    return rule


def _layer_norm(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    if place:
        return None
    count = len(call["normalized_shape"])
    return seen.without(range(output.dim() - count, output.dim()))


def _group_norm(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    return None if place else seen.without(range(1, output.dim()))


def _as_it_is(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    return seen if place == 0 else None


def _batch_norm(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    """By statistics that were learned; those of the image itself mix all places."""
    return None if place or call._given.get("training") else seen


def _linear(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    if call.seen_of(call["input"]) is None:
        return None
    last = output.dim() - 1
    if last not in (seen.y_dim, seen.x_dim):
        return seen
    moved = seen.along(last, lambda axis: axis.gathered_all())
    return moved.moved(lambda dim: None if dim == last else dim)


def _permute(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    order = _dims(call, "dims", output.dim())
    return seen.moved(order.index)


def _transpose(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    a, b = call["dim0"] % output.dim(), call["dim1"] % output.dim()
    return seen.moved(lambda dim: {a: b, b: a}.get(dim, dim))


def _reshape(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    """An axis that stays whole, with as much before it as before, stays an axis."""
    before, after = list(call["self"].shape), list(output.shape)

    def place_of(dim: int) -> int | None:
        lead = math.prod(before[:dim])
        for new, length in enumerate(after):
            if length == before[dim] and math.prod(after[:new]) == lead:
                return new
        return -1

    for dim, axis in ((seen.y_dim, seen.y), (seen.x_dim, seen.x)):
        if dim is not None and len(axis.low) > 1 and place_of(dim) == -1:
            return None
    return seen.moved(lambda dim: None if before[dim] == 1 else place_of(dim))


def _unsqueeze(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    new = call["dim"] % output.dim()
    return seen.moved(lambda dim: dim + (dim >= new))


def _expand(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    return _spread(seen.led_by(output.dim() - call["self"].dim()), output)


def _slice(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    dim = call["dim"] % output.dim()
    length = call["self"].shape[dim]
    taken = range(length)[slice(call["start"], call["end"], call["step"])]
    return seen.along(dim, lambda axis: axis.gathered([[one] for one in taken], call["step"]))


def _select(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
    rank = call["self"].dim()
    gone, index = call["dim"] % rank, call["index"] % call["self"].shape[call["dim"]]
    seen = seen.along(gone, lambda axis: axis.gathered([[index]]))
    return seen.moved(lambda dim: None if dim == gone else dim - (dim > gone))


def _chunk(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    """Parts along a dimension that is no axis."""
    dim = call["dim"] % output.dim()
    return None if dim in (seen.y_dim, seen.x_dim) else seen


def _pad(source_of: Callable[[int, int], int]) -> Rule:
    def rule(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen:
        pads = list(call["pad"] if "pad" in call._given else call["padding"])
        for k in range(len(pads) // 2):
            before, dim = pads[2 * k], output.dim() - 1 - k
            count = output.shape[dim]

            def moved(axis: Axis, before: int = before, count: int = count) -> Axis:
                length = len(axis.low)
                return axis.gathered([[source_of(i - before, length)] for i in range(count)])

            seen = seen.along(dim, moved)
        return seen

    return rule


def _mirrored(place: int, length: int) -> int:
    place = abs(place)
    return min(place, 2 * (length - 1) - place)


def _roll(call: _Call, seen: _Seen, output: Tensor, place: int) -> _Seen | None:
    dims = call["dims"]
    if not dims:
        return None
    for shift, given in zip(call["shifts"], dims, strict=True):
        dim = given % output.dim()

        def moved(axis: Axis, shift: int = shift) -> Axis:
            length = len(axis.low)
            return axis.gathered([[(i - shift) % length] for i in range(length)])

        seen = seen.along(dim, moved)
    return seen


def _cat(call: _Call, output: Tensor) -> _Seen | None:
    dim = call["dim"] % output.dim()
    given = [(one, call.seen_of(one)) for one in call["tensors"]]
    if any(seen is not None and dim in (seen.y_dim, seen.x_dim) for _, seen in given):
        return None
    return _together(given, output)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("conv2d", "convolution", "_convolution", "max_pool2d", "max_pool2d_with_indices"), _windows
    ),
    "avg_pool2d": _windows,
    **dict.fromkeys(
        ("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive
    ),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std"), _reduce),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "cumsum"), _mix("dim")),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "native_group_norm"), _group_norm),
    **dict.fromkeys(
        (*("clone", "detach", "alias", "contiguous", "dropout", "_to_copy", "to", "lift_fresh"),),
        _as_it_is,
    ),
    **dict.fromkeys(
        ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm
    ),
    "linear": _linear,
    "permute": _permute,
    "transpose": _transpose,
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten"),
            "squeeze",
        ),
        _reshape,
    ),
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _chunk),
    **dict.fromkeys(("constant_pad_nd",), _pad(lambda place, length: place)),
    "reflection_pad2d": _pad(_mirrored),
    "replication_pad2d": _pad(lambda place, length: min(max(place, 0), length - 1)),
    "roll": _roll,
}
"""By the names of operators. What has none, and is not elementwise, mixes all that it is given."""
