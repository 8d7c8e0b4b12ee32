"""Operators that exporters write as several: found in the graph and made one again."""

import math
from collections.abc import Callable, Iterator, Sequence

from onnx import NodeProto, helper

from .nodes import operator_name
from .operators import Array

Constants = Callable[[str], Array | None]


def fused(nodes: Sequence[NodeProto], constant_of: Constants) -> list[NodeProto]:
    """The nodes, with GELU, SiLU, Hardswish and dense layers with their biases as one each."""
    return _Patterns(nodes, constant_of).fused()


class _Patterns:
    def __init__(self, nodes: Sequence[NodeProto], constant_of: Constants) -> None:
        self._nodes = list(nodes)
        self._makers = {name: node for node in nodes for name in node.output}
        self._users: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in set(node.input):
                self._users.setdefault(name, []).append(node)
        self._constants = constant_of

    def fused(self) -> list[NodeProto]:
        """Each pattern stands where its last node stood."""
        dropped: set[str] = set()
        instead: dict[str, NodeProto] = {}
        for node in self._nodes:
            for found in (self._gelu(node), self._gated(node), self._dense(node)):
                if found is None:
                    continue
                parts, whole = found
                if dropped.isdisjoint(part.output[0] for part in parts):
                    dropped |= {part.output[0] for part in parts}
                    instead[parts[-1].output[0]] = whole
        return list(self._kept(dropped, instead))

    def _kept(self, dropped: set[str], instead: dict[str, NodeProto]) -> Iterator[NodeProto]:
        for node in self._nodes:
            if node.output[0] in instead:
                yield instead[node.output[0]]
            elif node.output[0] not in dropped:
                yield node

    def _number(self, name: str) -> float | None:
        array = self._constants(name)
        return float(array.item()) if array is not None and array.size == 1 else None

    def _only_user(self, node: NodeProto, op_type: str) -> NodeProto | None:
        users = self._users.get(node.output[0], [])
        return users[0] if len(users) == 1 and operator_name(users[0]) == op_type else None

    def _other(self, node: NodeProto, name: str) -> str:
        return next((other for other in node.input if other != name), name)

    def _gelu(self, erf: NodeProto) -> tuple[list[NodeProto], NodeProto] | None:
        """X / √2, erf, + 1, times x, times 1/2."""
        scaled = self._makers.get(erf.input[0]) if operator_name(erf) == "Erf" else None
        if scaled is None or operator_name(scaled) != "Div":
            return None
        plus = self._only_user(erf, "Add")
        times = self._only_user(plus, "Mul") if plus else None
        half = self._only_user(times, "Mul") if times else None
        if plus is None or times is None or half is None:
            return None
        x = scaled.input[0]
        numbers = (
            self._number(scaled.input[1]),
            self._number(self._other(plus, erf.output[0])),
            self._number(self._other(half, times.output[0])),
        )
        if x not in times.input or not _close(numbers, (math.sqrt(2), 1.0, 0.5)):
            return None
        parts = [erf, plus, times, half]
        if self._only_user(scaled, "Erf"):  # others may take x / √2, too
            parts.insert(0, scaled)
        return parts, _one("Gelu", half, [x])

    def _gated(self, gate: NodeProto) -> tuple[list[NodeProto], NodeProto] | None:
        """Times a sigmoid of itself."""
        kind = {"Sigmoid": "Silu", "HardSigmoid": "HardSwish"}.get(operator_name(gate))
        times = self._only_user(gate, "Mul") if kind else None
        if kind is None or times is None or set(times.input) != {gate.input[0], gate.output[0]}:
            return None
        if kind == "HardSwish":
            alpha = next((a.f for a in gate.attribute if a.name == "alpha"), 0.2)
            if not math.isclose(alpha, 1 / 6, rel_tol=1e-6):
                return None
        return [gate, times], _one(kind, times, [gate.input[0]])

    def _dense(self, product: NodeProto) -> tuple[list[NodeProto], NodeProto] | None:
        """A product with a constant matrix, plus a constant row."""
        plus = self._only_user(product, "Add") if operator_name(product) == "MatMul" else None
        if plus is None:
            return None
        bias = self._other(plus, product.output[0])
        row, matrix = self._constants(bias), self._constants(product.input[1])
        if row is None or matrix is None or matrix.ndim != 2 or row.shape != matrix.shape[1:]:
            return None
        return [product, plus], _one("MatMul", plus, [*product.input, bias])


def _one(op_type: str, last: NodeProto, inputs: Sequence[str]) -> NodeProto:
    return helper.make_node(op_type, inputs, list(last.output), last.name)


def _close(numbers: Sequence[float | None], wanted: Sequence[float]) -> bool:
    return all(
        n is not None and math.isclose(n, w, rel_tol=1e-6)
        for n, w in zip(numbers, wanted, strict=True)
    )
