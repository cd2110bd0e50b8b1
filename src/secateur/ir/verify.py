"""``verify``: is this graph one that the rest of secateur may trust?

Names are defined once and before use; shapes and types are re-derived and compared; weights exist
and fit their operators; attributes are those that ``ops`` lists. Runs after every pass.
"""

from __future__ import annotations

import math

from .errors import VerifyError
from .graph import Graph, Node, Value, dtype_of
from .infer import infer_node
from .ops import ATTRS, OPS, OPTIONAL
from .text import print_node

# By operator: the attributes that it may have, and those that it must.
_ATTRS = {op: (frozenset(names), frozenset(names) - OPTIONAL.get(op, frozenset())) for op, names in ATTRS.items()}


def verify(graph: Graph, *, interface: Graph | None = None) -> Graph:
    """Return the graph if it is sound.

    ``interface``: a graph whose input names, shapes and types and whose output shapes must be the same.
    Raises VerifyError with the IR around the culprit and a caret line that says what is wrong.
    """
    known: dict[str, Value] = {}
    for value in graph.inputs:
        if value.name in known or value.name in graph.weights:
            raise VerifyError(f"graph '{graph.name}': input %{value.name} is defined twice")
        known[value.name] = value
    weights = {name: Value(name, w.shape, dtype_of(w)) for name, w in graph.weights.items()}
    for index, node in enumerate(graph.nodes):
        problem = _check(node, known, weights)
        if problem:
            raise VerifyError(_show(graph, index, problem))
        for value in node.outputs:
            known[value.name] = value
    for name in graph.outputs:
        if name not in known and name not in weights:
            raise VerifyError(f"graph '{graph.name}': output %{name} is not defined by any node")
    if interface is not None:
        _same_interface(graph, interface)
    return graph


def _check(node: Node, known: dict[str, Value], weights: dict[str, Value]) -> str | None:
    if node.op not in OPS:
        return f"unknown operator '{node.op}'"
    if not node.outputs:
        return "it defines nothing"
    listed, needed = _ATTRS[node.op]
    if not needed <= node.attrs.keys() <= listed:
        unknown, missing = node.attrs.keys() - listed, needed - node.attrs.keys()
        return f"attributes: unknown {sorted(unknown)}, missing {sorted(missing)}"
    inputs: list[Value | None] = []
    for name in node.inputs:
        found = None if name is None else known.get(name) or weights.get(name)
        if name is not None and found is None:
            return f"%{name} is used before it is defined"
        inputs.append(found)
    for value in node.outputs:
        if value.name in known or value.name in weights:
            return f"%{value.name} is defined twice"
        if value.shape and min(value.shape) < 0:
            return f"%{value.name} has a negative dimension"
    try:
        derived = infer_node(node, inputs)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return str(error) or type(error).__name__
    for have, want in zip(node.outputs, derived, strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"%{have.name} is recorded as {have}, recomputes to {want}"
    if node.op == "reshape" and math.prod(node.out.shape) == 0:
        return "it makes an empty tensor"
    return None


def _show(graph: Graph, index: int, problem: str) -> str:
    node = graph.nodes[index]
    lines = [f"graph '{graph.name}', {node.op} {node.source}: {problem}"]
    for i in range(max(0, index - 3), min(len(graph.nodes), index + 3)):
        lines.append(f"  {'>' if i == index else ' '} {print_node(graph, graph.nodes[i])}")
        if i == index:
            lines.append(f"    ^^^ {problem}")
    return "\n".join(lines)


def _same_interface(graph: Graph, other: Graph) -> None:
    have = [(v.name, v.shape, v.dtype) for v in graph.inputs]
    want = [(v.name, v.shape, v.dtype) for v in other.inputs]
    if have != want:
        raise VerifyError(f"graph '{graph.name}': inputs changed from {want} to {have}")
    for mine, theirs in zip(graph.outputs, other.outputs, strict=True):
        if graph.value(mine).shape != other.value(theirs).shape:
            raise VerifyError(
                f"graph '{graph.name}': output %{mine} changed from {other.value(theirs)} to {graph.value(mine)}"
            )
