"""Independent ways to pass rectifiers: hooks on autograd nodes, and replayed gates."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Rule = Literal["gradient", "deconvnet", "guided_backprop"]


def rectifier_nodes(output: Tensor) -> list[Any]:
    """The ReLU and ReLU6 nodes of an autograd graph."""
    nodes, pending = [], [output.grad_fn]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith(("ReluBackward", "HardtanhBackward")):
            nodes.append(node)
        pending += [parent for parent, _ in node.next_functions]
    return nodes


def hooked_gradient(
    network: nn.Module, image: Tensor, score: Callable[[Tensor], Tensor], rule: Rule
) -> tuple[Tensor, int]:
    """The gradient of a score, with rectifiers hooked; and how many there were.

    guided: what reaches a node is clamped, and the node's own backward pass follows.
    deconvnet: what leaves a node is replaced by the clamped part of what reached it.
    """
    x = image[None].clone().requires_grad_()
    output = network(x)
    nodes = rectifier_nodes(output)
    for node in nodes:
        if rule == "guided_backprop":
            node.register_prehook(lambda reaching: tuple(g.clamp(min=0) for g in reaching))
        elif rule == "deconvnet":
            node.register_hook(lambda leaving, reaching: (reaching[0].clamp(min=0),))
    (gradient,) = torch.autograd.grad(score(output), x)
    return gradient[0], len(nodes)


class GateRecorder(TorchFunctionMode):
    """Notes, call by call, where a rectifier's input lies and where a maximum is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[tuple[Tensor, ...]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (F.relu, F.hardtanh, F.relu6):
            return self.rectify(args[0], 6.0 if func is not F.relu else float("inf"))
        if func is F.max_pool2d:
            return self.pool(*args, **kwargs)
        return func(*args, **kwargs)

    def rectify(self, z: Tensor, upper: float) -> Tensor:
        self.decisions.append(((z > 0) & (z < upper), z >= upper))
        return z.clamp(0, upper)

    def pool(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("return_indices", None)
        pooled, places = F.max_pool2d(x, *args, **kwargs, return_indices=True)
        self.decisions.append((places,))
        return pooled


class GateReplayer(GateRecorder):
    """Makes the decisions of a recorded pass again, whatever its own inputs say."""

    def __init__(self, recorder: GateRecorder) -> None:
        super().__init__()
        self._recorded = iter(recorder.decisions)
        self.flip_count = 0

    def rectify(self, z: Tensor, upper: float) -> Tensor:
        passes, saturates = next(self._recorded)
        self.flip_count += int((((z > 0) & (z < upper)) != passes).sum())
        top = torch.full_like(z, min(upper, 1e300))
        return torch.where(passes, z, torch.where(saturates, top, torch.zeros_like(z)))

    def pool(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (places,) = next(self._recorded)
        kwargs.pop("return_indices", None)
        _, own = F.max_pool2d(x, *args, **kwargs, return_indices=True)
        self.flip_count += int((own != places).sum())
        return x.flatten(2).gather(2, places.flatten(2)).view(places.shape)


def directional_derivative(
    function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor
) -> float | None:
    """Of a piecewise linear function, by central differences inside one linear piece.

    The largest of the steps at which the second difference vanishes beside the first: no kink is
    crossed, and rounding is small. None where kinks are too close for that.

    Args:
        function: Of several arguments at once; the value of each.
        x: Where.
        direction: Which way, as long as the unit of the steps.
    """
    steps = 4e-4 / 2 ** torch.arange(9, dtype=x.dtype)  # down to 1.6e-6
    places = torch.cat([steps.new_zeros(1), steps, -steps])
    values = function(x + places.view(-1, *[1] * x.dim()) * direction)
    at, (above, below) = values[0], values[1:].view(2, -1)
    straight = (above - 2 * at + below).abs() <= 5e-10 * (above - below).abs()
    if not straight.any():
        return None
    first = int(straight.int().argmax())
    return float((above - below)[first] / (2 * steps[first]))
