"""Rectifier call sites, and the rules by which gradients pass back through them.

A gate is one call of ReLU or ReLU6 in a forward pass, whoever calls it: a module, a
function, in place, twice. A torch-function mode around the forward pass sees every
one, which hooks on modules do not.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Rule(enum.IntEnum):
    """How gradient g leaves a gate with input z; for ReLU6 z > 0 reads 0 < z < 6."""

    GRADIENT = 0
    """g · [z > 0]: plain backpropagation."""
    DECONVNET = 1
    """g · [g > 0] (Zeiler and Fergus 2013, arXiv:1311.2901)."""
    GUIDED = 2
    """g · [z > 0] · [g > 0] (Springenberg and others 2014, arXiv:1412.6806)."""
    LRP_EPSILON = 3
    """Not a gradient: relevance by the epsilon rule everywhere; see relevance."""
    LRP_COMPOSITE = 4
    """Not a gradient: relevance by the rules that are usual for ConvNets; see relevance."""


@dataclass(frozen=True)
class Span:
    """The rows start to stop of a batch, which share one rule."""

    rule: Rule
    start: int
    stop: int


def spans_of(rules: Sequence[Rule]) -> tuple[Span, ...]:
    """Contiguous spans of rows that are already sorted by rule."""
    spans: list[Span] = []
    for row, rule in enumerate(rules):
        if spans and spans[-1].rule is rule:
            spans[-1] = Span(rule, spans[-1].start, row + 1)
        else:
            spans.append(Span(rule, row, row + 1))
    return tuple(spans)


_aten = torch.ops.aten


class _RuledGate(torch.autograd.Function):
    """A gate whose rows pass back by their spans' rules, each span on native kernels.

    Everything is selected, nothing multiplied by a mask, so inf · 0 never occurs.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, upper: float | None, spans: tuple[Span, ...]) -> Tensor:
        ctx.upper, ctx.spans = upper, spans
        out = F.relu(z) if upper is None else F.hardtanh(z, 0.0, upper)
        ctx.save_for_backward(out if upper is None else z)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (g,) = upstream
        (kept,) = ctx.saved_tensors
        passed = torch.empty_like(g)
        for span in ctx.spans:
            rows = slice(span.start, span.stop)
            g_rows, out = g[rows], passed[rows]
            if span.rule is not Rule.GRADIENT:
                torch.clamp_min(g_rows, 0, out=out)
                g_rows = out
            if span.rule is not Rule.DECONVNET:
                if ctx.upper is None:
                    _aten.threshold_backward.grad_input(g_rows, kept[rows], 0, grad_input=out)
                else:
                    _aten.hardtanh_backward.grad_input(
                        g_rows, kept[rows], 0.0, ctx.upper, grad_input=out
                    )
        return passed, None, None


def _hardtanh_upper(
    z: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> float | None:
    return max_val if min_val == 0 and max_val > 0 else None


_RELU: frozenset[Callable[..., Any]] = frozenset(
    {F.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}
)
_RELU6: frozenset[Callable[..., Any]] = frozenset({F.relu6})
_HARDTANH: frozenset[Callable[..., Any]] = frozenset({F.hardtanh, F.hardtanh_})

# In-place operations, run out of place so that a kept activation stays what it was.
_OUT_OF_PLACE: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(torch.Tensor, in_place): getattr(torch.Tensor, out_of_place)
    for in_place, out_of_place in {
        "__iadd__": "add",
        "__isub__": "sub",
        "__imul__": "mul",
        "__itruediv__": "div",
        "add_": "add",
        "sub_": "sub",
        "mul_": "mul",
        "div_": "div",
        "clamp_": "clamp",
        "sigmoid_": "sigmoid",
        "tanh_": "tanh",
    }.items()
}


class Undefined(Exception):
    """A backward program met a call that it is not defined for, and which."""


class OutOfPlace(TorchFunctionMode):
    """A forward pass under it has its in-place operations opened; calls go to run()."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        return self.run(_OUT_OF_PLACE.get(func, func), args, kwargs)

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs one call."""
        return func(*args, **kwargs)


def rectifier_of(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, float | None] | None:
    """The input and the upper bound (None: no bound) of a call that is a ReLU or a ReLU6."""
    if func in _RELU:
        return _input_of(args, kwargs), None
    if func in _RELU6:
        return _input_of(args, kwargs), 6.0
    if func in _HARDTANH:
        upper = _hardtanh_upper(*args, **{k: v for k, v in kwargs.items() if k != "input"})
        if upper is not None:
            return _input_of(args, kwargs), upper
    return None


class Gates(OutOfPlace):
    """A forward pass under it has its gates ruled and its in-place operations opened.

    Rows must be sorted by rule. When all rows pass back plainly, the native kernels
    are used as they are.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        super().__init__()
        spans = spans_of(rules)
        self._spans = () if all(span.rule is Rule.GRADIENT for span in spans) else spans
        self.site_count = 0

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rectifier = rectifier_of(func, args, kwargs)
        if rectifier is None:
            return func(*args, **kwargs)
        self.site_count += 1
        z, upper = rectifier
        if self._spans:
            return _RuledGate.apply(z, upper, self._spans)
        return F.relu(z) if upper is None else F.hardtanh(z, 0.0, upper)


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    z = args[0] if args else kwargs["input"]
    assert isinstance(z, Tensor)
    return z


# Names of autograd nodes, without their number.
_GATE_NODES = frozenset({"ReluBackward", "HardtanhBackward"})
_OTHER_ACTIVATION_NODES = {
    "GeluBackward": "GELU",
    "SiluBackward": "SiLU",
    "HardswishBackward": "Hardswish",
    "LeakyReluBackward": "leaky ReLU",
    "EluBackward": "ELU",
    "CeluBackward": "CELU",
    "MishBackward": "Mish",
    "SoftplusBackward": "softplus",
    "PreluKernelBackward": "PReLU",
    "ThresholdBackward": "threshold",
    "ClampBackward": "clamp",
    "ClampMinBackward": "clamp",
    "MaximumBackward": "maximum",
}


@dataclass(frozen=True)
class GateReport:
    """The gates of a network, as counted by the mode and in the autograd graph."""

    site_count: int
    node_count: int
    other_activations: tuple[str, ...]

    @property
    def refusal(self) -> str | None:
        """Why rules for passing rectifiers back do not apply to the network, if so."""
        if self.other_activations:
            found = ", ".join(self.other_activations)
            return f"the network has activations that this rule is not defined for: {found}"
        if self.node_count == 0:
            return "the network has no ReLU or ReLU6 for this rule to act on"
        if self.site_count != self.node_count:
            return (
                f"only {self.site_count} of the network's {self.node_count} rectifiers "
                "can be reached"
            )
        return None


def graph_nodes(output: Tensor) -> list[Any]:
    """All autograd nodes behind a tensor, each once."""
    seen: set[Any] = set()
    stack: list[Any] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack.extend(parent for parent, _ in node.next_functions)
    return list(seen)


def gate_nodes(output: Tensor) -> list[Any]:
    """The autograd nodes of rectifiers behind a tensor."""
    return [node for node in graph_nodes(output) if _kind(node) in _GATE_NODES]


def report_gates(output: Tensor, site_count: int) -> GateReport:
    """Holds the sites that the mode saw against the graph of an ordinary forward pass."""
    kinds = {_kind(node) for node in graph_nodes(output)}
    others = {name for kind, name in _OTHER_ACTIVATION_NODES.items() if kind in kinds}
    return GateReport(site_count, len(gate_nodes(output)), tuple(sorted(others)))


def _kind(node: Any) -> str:
    name: str = node.name()
    return name.rstrip("0123456789")
