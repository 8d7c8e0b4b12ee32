"""What backward programs that pass back something else than gradients have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import OutOfPlace, Undefined, rectifier_of

Back = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, ...]]
"""From a call's inputs, its output in their graph and what arrives there, to what leaves."""

MOVES = (
    *("__getitem__", "__get__", "cat", "chunk", "clone", "contiguous", "flatten", "movedim"),
    *("narrow", "pad", "permute", "reshape", "select", "split", "squeeze", "stack", "to"),
    *("transpose", "unbind", "unflatten", "unsqueeze", "view"),
    *("dropout", "dropout2d"),  # in eval mode the identity
)
"""Names of calls that only move values: their gradient moves anything back just so."""

_NAMES = {
    "batch_norm": "batch normalization, which could not be folded into a convolution",
    "celu": "CELU",
    "elu": "ELU",
    "gelu": "GELU",
    "hardswish": "Hardswish",
    "hardsigmoid": "hard sigmoid",
    "leaky_relu": "leaky ReLU",
    "matmul": "product with a constant matrix",
    "mish": "Mish",
    "mul": "multiplication by a constant",
    "multi_head_attention_forward": "attention",
    "pad": "padding, which is not with zeros",
    "prelu": "PReLU",
    "__rdiv__": "division by an activation",
    "scaled_dot_product_attention": "attention",
    "selu": "SELU",
    "silu": "SiLU",
    "sub": "subtraction",
    "__rsub__": "subtraction",
}
_NAMES_OF_TWO = {
    "bmm": "product of two activations, as in attention",
    "div": "division by an activation",
    "matmul": "product of two activations, as in attention",
    "mul": "multiplication of two activations, as in squeeze-and-excitation",
}


class _PassedBack(torch.autograd.Function):
    """A call that has a graph of its own, and a function that passes back through it."""

    @staticmethod
    def forward(ctx: Any, call: Callable[..., Tensor], back: Back, *inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.inputs = tuple(x.detach().requires_grad_() for x in inputs)
            ctx.out = call(*ctx.inputs)
        ctx.back = back
        out: Tensor = ctx.out.detach()
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.back(ctx.inputs, ctx.out, *upstream)


class Program(OutOfPlace):
    """A forward pass under it meets a handler for each call, which decides its way back.

    Handlers are found by the name of the function, which a function of torch, its method
    and its module share. One instance rules one forward pass.

    Attributes:
        title: As users know the program.
        handlers: By a function's name.
    """

    title: ClassVar[str]
    handlers: ClassVar[Mapping[str, Callable[..., Any]]]

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs one call.

        Raises:
            Undefined: The program is not defined for it.
        """
        image_based = next(attached(args, kwargs), None)
        if image_based is None:
            return func(*args, **kwargs)
        rectifier = rectifier_of(func, args, kwargs)
        if rectifier is not None:
            z, upper = rectifier
            func, args, kwargs = (F.relu, (z,), {}) if upper is None else _hardtanh(z, upper)
        if "input" in kwargs:
            args, kwargs = (kwargs["input"], *args), {k: kwargs[k] for k in kwargs if k != "input"}
        handler = self.handlers.get(_name(func))
        if handler is not None:
            result = handler(self, func, args, kwargs)
        else:
            result = func(*args, **kwargs)
            if next(attached(result), None) is not None:
                raise self.undefined(func, args, kwargs)
        if any(not t.dim() or len(t) != len(image_based) for t in attached(result)):
            raise Undefined(
                f"{self.title} is not defined where an axis other than the first holds the images"
            )
        return result

    def plain(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handles a call whose gradient is what the program passes back."""
        return func(*args, **kwargs)

    def passed_back(
        self,
        func: Callable[..., Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        back: Back,
    ) -> Tensor:
        """Runs a call that passes back by a function, to all of its attached tensors."""
        slots: dict[Any, Any] = dict(enumerate(args)) | kwargs
        open_slots = [
            slot for slot, value in slots.items() if next(attached(value), None) is not None
        ]

        def call(*inputs: Tensor) -> Tensor:
            filled = {**slots, **dict(zip(open_slots, inputs, strict=True))}
            return func(*(filled[i] for i in range(len(args))), **{k: filled[k] for k in kwargs})

        out: Tensor = _PassedBack.apply(call, back, *(slots[slot] for slot in open_slots))
        return out

    def expect_constants(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """All arguments of a call but the first must be constants.

        Raises:
            Undefined: Others depend on the images as well.
        """
        if next(attached(args[1:], kwargs), None) is not None:
            raise self.undefined(func, args, kwargs)

    def undefined(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Undefined:
        """Says of which call the program knows nothing."""
        name = _name(func)
        described = _NAMES.get(name, name.strip("_"))
        if len(list(attached(args, kwargs))) > 1:
            described = _NAMES_OF_TWO.get(name, described)
        return Undefined(f"{self.title} is not defined for the network's {described}")


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", str(func))


def _hardtanh(
    z: Tensor, upper: float
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    return F.hardtanh, (z, 0.0, upper), {}


def tensors(*values: Any) -> Iterator[Tensor]:
    """The tensors among values, and in the lists, tuples and dictionaries among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(*value)
        elif isinstance(value, dict):
            yield from tensors(*value.values())


def attached(*values: Any) -> Iterator[Tensor]:
    """Those that depend on the images."""
    return (tensor for tensor in tensors(*values) if tensor.requires_grad)
