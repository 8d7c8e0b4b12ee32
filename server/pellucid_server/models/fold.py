"""Folding batch normalization into the convolutions that feed nothing else."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .program import tensors


class _Consumers(TorchFunctionMode):
    """Watches which calls consume the outputs of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_outputs: dict[int, int] = {}  # id of an output -> id of the weight
        self.conv_calls: dict[int, int] = defaultdict(int)  # id of the weight -> calls
        self.norm_inputs: dict[int, int] = {}  # id of running_mean -> id of the input
        self.norm_calls: dict[int, int] = defaultdict(int)
        self.uses: dict[int, int] = defaultdict(int)  # id of a tensor -> calls that read it
        self._alive: list[Tensor] = []  # an id stays taken while its tensor lives

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if next(tensors(result), None) is None:  # a question, such as x.dim()
            return result
        inputs = list(tensors(args, kwargs))
        for tensor in inputs:
            self.uses[id(tensor)] += 1
        self._alive.extend(inputs)
        if func in (F.conv2d, torch.conv2d) and isinstance(result, Tensor):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.conv_calls[id(weight)] += 1
            self.conv_outputs[id(result)] = id(weight)
            self._alive.append(result)
        elif func is F.batch_norm:
            source, mean = args[0], args[1] if len(args) > 1 else kwargs["running_mean"]
            self.norm_calls[id(mean)] += 1
            self.norm_inputs[id(mean)] = id(source)
        return result


class FoldedNorm(nn.Module):
    """What is left of a normalization that carries an activation, once it is folded."""

    def __init__(self, drop: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.drop = drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.drop(x))
        return out


def fold_batch_norms(network: nn.Module, example: Tensor) -> dict[str, str]:
    """Folds, in place, every batch normalization that is its convolution's sole consumer.

    The arithmetic is float64, from the weights as they are.

    Args:
        network: In eval mode; changed in place.
        example: An input, 1×3×H×W, to see the data flow with.

    Returns:
        For each folded convolution's dotted name, the name of its normalization.
    """
    flow = _Consumers()
    with torch.no_grad(), flow:
        output = network(example)
    flow.uses[id(output)] += 1  # the caller of the network reads its output
    named = dict(network.named_modules())
    convolutions = {id(m.weight): (n, m) for n, m in named.items() if isinstance(m, nn.Conv2d)}
    folded: dict[str, str] = {}
    for name, norm in named.items():
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        source = flow.norm_inputs.get(id(norm.running_mean))
        weight = flow.conv_outputs.get(source) if source is not None else None
        if (
            source is None
            or weight not in convolutions
            or flow.norm_calls[id(norm.running_mean)] != 1
            or flow.conv_calls[weight] != 1
            or flow.uses[source] != 1
        ):
            continue
        remainder = _remainder(norm)
        if remainder is None:
            continue
        conv_name, conv = convolutions[weight]
        _fold(conv, norm)
        parent, _, child = name.rpartition(".")
        setattr(named[parent], child, remainder)
        folded[conv_name] = name
    return folded


def _remainder(norm: nn.BatchNorm2d) -> nn.Module | None:
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    if isinstance(getattr(norm, "act", None), nn.Module) and hasattr(norm, "drop"):
        return FoldedNorm(norm.get_submodule("drop"), norm.get_submodule("act"))
    return None


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        gain = torch.rsqrt(variance + norm.eps)
        if norm.affine:
            gain = gain * norm.weight.double()
        bias = (0.0 if conv.bias is None else conv.bias.double()) - mean
        bias = bias * gain + (norm.bias.double() if norm.affine else 0.0)
        weight = conv.weight.double() * gain[:, None, None, None]
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
