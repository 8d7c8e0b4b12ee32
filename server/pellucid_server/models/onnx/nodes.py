"""The operators and tensors of an ONNX file, wherever in it they are."""

from collections.abc import Iterator, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

ONNX_DOMAINS = ("", "ai.onnx")
"""Of ONNX's own operators; one is the other."""
DOMAINS = (*ONNX_DOMAINS, "ai.onnx.ml", "com.microsoft")
"""Of what ONNX Runtime has operators for."""

_MOST_NAMED = 4


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """The nodes of the graph and of functions, and those of graphs in their attributes."""
    yield from _nodes_of(model.graph.node)
    for function in model.functions:
        yield from _nodes_of(function.node)


def _nodes_of(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:  # protobuf itself bounds how deep they lie
        yield node
        for graph in graphs_of(node):
            yield from _nodes_of(graph.node)


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a file holds."""
    nodes = list(all_nodes(model))
    for graph in (model.graph, *(graph for node in nodes for graph in graphs_of(node))):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    attributes = [attribute for node in nodes for attribute in node.attribute]
    attributes += [a for function in model.functions for a in function.attribute_proto]
    for attribute in attributes:
        yield from _tensors_of(attribute)


def _tensors_of(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for one in (*sparse, *attribute.sparse_tensors):
        yield from (one.values, one.indices)


def attribute_of(node: NodeProto, name: str) -> AttributeProto | None:
    """An attribute of a node; None: it has none of that name."""
    return next((one for one in node.attribute if one.name == name), None)


def operator_name(node: NodeProto) -> str:
    """As people know it, with its domain where that is not ONNX's own."""
    domain = "" if node.domain in ONNX_DOMAINS else f"{node.domain[:64]}."
    return f"{domain}{node.op_type[:64]}"


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
