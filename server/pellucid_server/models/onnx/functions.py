"""Functions of an ONNX file: counted as they are called, then put in the place of their calls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx.inliner
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from ...errors import quoted
from .nodes import DOMAINS, ONNX_DOMAINS, all_nodes, graphs_of, some

MOST_DEPTH = 24
"""Calls within calls and graphs within graphs; protobuf reads 33 graphs within each other."""

_Key = tuple[str, str, str]
"""Domain, name, overload."""


class BadFunctions(ValueError):
    """Functions that cannot be put in place; the message says why."""


@dataclass(frozen=True)
class Extent:
    """What a part of a graph amounts to once every function stands where it is called.

    Attributes:
        nodes: How many there are, calls and those of graphs within them included.
        bytes: What they take in a file.
        references: How many attributes are a caller's, and are copied from there.
        depth: How deep calls and graphs lie within each other.
    """

    nodes: int = 0
    bytes: int = 0
    references: int = 0
    depth: int = 0

    def beside(self, other: "Extent", times: int = 1) -> "Extent":
        """Together with another, so many times."""
        return Extent(
            self.nodes + times * other.nodes,
            self.bytes + times * other.bytes,
            self.references + times * other.references,
            max(self.depth, other.depth),
        )

    def below(self) -> "Extent":
        """One level deeper.

        Raises:
            BadFunctions: That is one too many.
        """
        if self.depth >= MOST_DEPTH:
            raise BadFunctions(f"calls functions, or has graphs, more than {MOST_DEPTH} deep")
        return Extent(self.nodes, self.bytes, self.references, self.depth + 1)


def extent_of(model: ModelProto) -> Extent:
    """What a graph amounts to with its functions, or a function that amounts to more.

    Nothing is expanded: every function is counted once, which takes as long as reading it.

    Raises:
        BadFunctions: Functions call each other too deep, or in a circle.
    """
    count = _Count(model.functions)
    most = count.of_nodes(model.graph.node, 0)
    for function in model.functions:  # of those that are never called, too
        found = count.of_function(_key(function), 0)
        most = max(most, found, key=lambda one: one.nodes)
    return most


class _Count:
    def __init__(self, functions: Sequence[FunctionProto]) -> None:
        self._functions: Mapping[_Key, FunctionProto] = {_key(one): one for one in functions}
        self._known: dict[_Key, Extent] = {}

    def of_nodes(self, nodes: Sequence[NodeProto], level: int) -> Extent:
        total = Extent()
        for node in nodes:
            own = Extent(1, node.ByteSize(), sum(1 for a in node.attribute if a.ref_attr_name))
            for graph in graphs_of(node):
                own = own.beside(self.of_nodes(graph.node, level).below())
            total = total.beside(own)
            key = _called(node)
            if key in self._functions:
                body = self.of_function(key, level + 1)
                # What the call gives is copied to wherever the body refers to it.
                total = total.beside(body.below()).beside(own, body.references)
        return total

    def of_function(self, key: _Key, level: int) -> Extent:
        if key not in self._known:
            if level > MOST_DEPTH:  # or in a circle
                raise BadFunctions(f"calls functions more than {MOST_DEPTH} deep, or in a circle")
            function = self._functions[key]
            body = self.of_nodes(function.node, level)
            for default in function.attribute_proto:
                body = body.beside(self._of_default(default, level), 1 + body.references)
            self._known[key] = body
        return self._known[key]

    def _of_default(self, default: AttributeProto, level: int) -> Extent:
        graphs = [*default.graphs, *([default.g] if default.HasField("g") else [])]
        found = Extent(bytes=default.ByteSize())
        for graph in graphs:
            found = found.beside(self.of_nodes(graph.node, level).below())
        return found


def faults_of_functions(model: ModelProto, opset: int) -> Iterator[str]:
    """Functions that would stand for operators that there are, or are of another opset."""
    taken, other = [], []
    for function in model.functions:
        title = quoted(f"{function.domain}.{function.name}".lstrip("."))
        versions = [o.version for o in function.opset_import if o.domain in ONNX_DOMAINS]
        if function.domain in DOMAINS:
            taken.append(title)
        elif any(version != opset for version in versions):
            other.append(title)
    if taken:
        yield f"has functions in domains of ONNX or ONNX Runtime: {some(taken)}"
    if other:
        yield f"has functions of another opset than {opset}: {some(other)}"
    if len({_key(function) for function in model.functions}) < len(model.functions):
        yield "has functions of one name"


def put_in_place(model: ModelProto, light: ModelProto) -> None:
    """Puts functions in the place of their calls, wherever those are; none is left.

    Args:
        model: What is changed.
        light: The same without large weights, which need not be copied for that.

    Raises:
        BadFunctions: Some cannot be put in place.
    """
    own = {_called(node) for node in all_nodes(model)} & {_key(one) for one in model.functions}
    inlined = onnx.inliner.inline_local_functions(light)
    left = sorted({_called(node) for node in all_nodes(inlined)} & own)
    if left:
        raise BadFunctions(f"has functions that cannot be put in place: {quoted(left[0][1])}")
    for field in ("node", "value_info"):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(getattr(inlined.graph, field))
    model.ClearField("opset_import")
    model.opset_import.extend(inlined.opset_import)
    model.ClearField("functions")


def _key(function: FunctionProto) -> _Key:
    return function.domain, function.name, function.overload


def _called(node: NodeProto) -> _Key:
    return node.domain, node.op_type, node.overload
