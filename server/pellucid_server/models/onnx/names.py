"""Names of a converted network's layers: those that the network had before it was a graph."""

import re
from collections import Counter
from collections.abc import Sequence

from onnx import NodeProto
from torch import nn

_EMPTY = nn.Module()
_MOST_PARTS = 16
"""How deep a name leads, from its end."""


def named(nodes: Sequence[NodeProto]) -> list[str]:
    """Dotted names, one a node, none of which is another's beginning.

    A node called /layer1/layer1.0/conv1/Conv is layer1.0.conv1. Where several nodes share a
    place, those beside its main one carry their operators' names.
    """
    scopes = [_scope(node) for node in nodes]
    containers = {scope[: dot.start()] for scope in scopes for dot in re.finditer(r"\.", scope)}
    crowd = Counter(scopes)
    taken: set[str] = set()
    mains: set[str] = set()
    alike: Counter[str] = Counter()
    names = []
    for node, scope in zip(nodes, scopes, strict=True):
        operator = _plain(node.name.rpartition("/")[2] or node.op_type)
        if scope in containers or not scope:
            name = f"{scope}.{operator}" if scope else operator
        elif crowd[scope] == 1 or (node.op_type in _MAIN and scope not in mains):
            name = scope
            mains.add(scope)
        else:
            name = f"{scope}_{operator}"
        names.append(_free(name, taken, containers, alike))
        taken.add(names[-1])
    return names


_MAIN = frozenset(
    {"BatchNormalization", "Conv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "Silu"}
)
"""Operators that a module of their name is, where it is several."""


def _scope(node: NodeProto) -> str:
    """The dotted name of the module that a node belongs to; empty: of the network itself."""
    path, slash, _ = node.name.rpartition("/")
    if slash:
        scope = ""
        tails = filter(None, map(_dotted, path.split("/")[-_MOST_PARTS:]))
        for tail in tails:
            # A part repeats what leads to it: /layer1/layer1.0
            last = scope.rpartition(".")[2]
            for before in (scope, last):
                if before and tail.startswith(f"{before}."):
                    tail = tail[len(before) + 1 :]
                    break
            scope = f"{scope}.{tail}" if scope else tail
        return scope
    weight = next((name for name in node.input[1:2] if name.endswith(".weight")), "")
    if weight:
        return _dotted(weight.removesuffix(".weight"))
    return _plain(node.name) if node.name else ""


def _dotted(name: str) -> str:
    return ".".join(_plain(part) for part in name.split(".")[-_MOST_PARTS:] if part)


def _plain(name: str) -> str:
    """A name that a module can have; none of its own attributes'."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")[:64]
    return f"{plain}_" if hasattr(_EMPTY, plain) else plain or "layer"


def _free(name: str, taken: set[str], containers: set[str], alike: Counter[str]) -> str:
    free = name
    while free in taken or free in containers:
        alike[name] += 1
        free = f"{name}_{alike[name]}"
    return free
