"""Which operators become one kernel: a producer and the element-wise operators on its way to memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.ir import Node

from .axes import Axes, Sizes, broadcast
from .post_ops import FUSABLE_BINARY, FUSABLE_UNARY

ELEMENTWISE = FUSABLE_UNARY | FUSABLE_BINARY | {"batch_norm", "prelu"}  # what templates may apply to vectors
LONGEST = 8  # operators looked ahead for where a value's uses come together again


@dataclass(frozen=True)
class Chain:
    """A head and what is applied to its result before it is written."""

    head: Node
    tail: tuple[Node, ...] = ()

    @property
    def last(self) -> Node:
        """The node whose result the kernel writes."""
        return self.tail[-1] if self.tail else self.head


@dataclass(frozen=True)
class Operand:
    """How a binary operator's other input spreads over the result: as ``PostOp.operand`` says, and its n, h and w."""

    kind: str
    sizes: Sizes = (1, 1, 1)


def operand(axes: Axes, name: str | None, result: str) -> Operand | None:
    """The class of an input of an element-wise operator, or None where a kernel cannot read it."""
    graph, axis = axes.graph, axes.channel[result]
    shape = graph.value(result).shape
    if name is None:
        return None
    small = graph.value(name).shape
    if name in graph.weights:
        small = (1,) * (len(shape) - len(small)) + tuple(small)
        if graph.value(name).dtype != "f32" or len(small) != len(shape):
            return None
    elif not axes.blockable(name):
        return None
    found = broadcast(small, shape, axis)
    if found is None and name in graph.weights and all(a in (1, b) for a, b in zip(small, shape, strict=True)):
        found = broadcast(shape, shape, axis)  # repeated when it is stored
    if found is None:
        return None
    (n, h, w), channels = found
    if name in graph.weights and (n, h, w) == (1, 1, 1):
        return Operand("const")
    if not channels:
        return Operand("pixel", (n, h, w))
    vector = (h, w) == (1, 1) and small != shape and name not in graph.weights
    return Operand("vector" if vector else "full", (n, h, w))


def is_elementwise(axes: Axes, node: Node) -> bool:
    """Can the templates apply this node to vectors?"""
    graph, name = axes.graph, node.out.name
    if not axes.blockable(name):
        return False
    if node.op in FUSABLE_UNARY:
        return axes.blockable(node.inputs[0])
    if node.op == "batch_norm":
        return axes.blockable(node.inputs[0]) and all(
            n is None or (n in graph.weights and graph.weights[n].size in (1, node.out.shape[1]))
            for n in node.inputs[1:]
        )
    if node.op == "prelu":
        return axes.blockable(node.inputs[0]) and _is_slope(axes, node)
    if node.op not in FUSABLE_BINARY:
        return False
    base = base_input(axes, node)
    return base is not None and all(i == base or operand(axes, n, name) for i, n in enumerate(node.inputs))


def _is_slope(axes: Axes, node: Node) -> bool:
    weight = axes.graph.weights.get(node.inputs[1] or "")
    if weight is None or axes.channel[node.out.name] != 1 or len(node.out.shape) < 2:
        return False
    found = operand(axes, node.inputs[1], node.out.name)
    return weight.shape in ((node.out.shape[1],), (1,)) or (found is not None and found.kind == "const")


def base_input(axes: Axes, node: Node) -> int | None:
    """Which input of an element-wise operator has the shape of the result, and if possible its axis of channels."""
    same = [
        i for i, name in enumerate(node.inputs)
        if name is not None and axes.blockable(name) and axes.graph.value(name).shape == node.out.shape
    ]  # fmt: skip
    axis = axes.channel[node.out.name]
    return min(same, key=lambda i: axes.channel[node.inputs[i] or ""] != axis) if same else None


def is_head(axes: Axes, node: Node) -> bool:
    """Is there a kernel family that computes this node?"""
    x = node.inputs[0] if node.inputs else None
    accepts = axes.accepts.get(node.op)
    if accepts is None or len(node.outputs) != 1 or not (axes.blockable(x) and axes.blockable(node.out.name)):
        return False
    return accepts(axes, node, axes.graph.value(x or "").shape)


def chains(axes: Axes) -> dict[str, Chain]:
    """The kernels, by the name of the value each writes.

    A value flows into a chain if nobody else reads it, or if all that read it are in the chain. Of two producers the
    later one takes the operator that joins them: what the other has computed is then there.
    """
    graph = axes.graph
    outputs = set(graph.outputs)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    elementwise = {node.name for node in graph.nodes if is_elementwise(axes, node)}
    heads = {node.name for node in graph.nodes if is_head(axes, node)} | elementwise
    previous: dict[str, Node] = {}
    for node in graph.nodes:
        if node.name in heads and node.name not in outputs:
            path = _together(axes, node, elementwise, outputs)
            if not any(later.name in previous for later in path):
                previous.update({b.name: a for a, b in zip([node, *path], path, strict=False)})
    for node in graph.nodes:
        if node.name not in elementwise or node.name in previous:
            continue
        candidates = [
            graph.producer[name] for name in dict.fromkeys(node.inputs)
            if name is not None and name in graph.producer and name in heads and name not in outputs
            and graph.users[name] == [node] and follows(axes, graph.producer[name], node)
        ]  # fmt: skip
        if candidates:
            previous[node.name] = max(candidates, key=lambda n: order[n.name])
    following = {before.name: graph.producer[name] for name, before in previous.items()}
    found: dict[str, Chain] = {}
    for node in graph.nodes:
        if node.name not in heads or node.name in previous:
            continue
        tail: list[Node] = []
        at = node
        while at.name in following:
            at = following[at.name]
            tail.append(at)
        chain = Chain(node, tuple(tail))
        found[chain.last.name] = chain
    return found


def follows(axes: Axes, before: Node, node: Node) -> bool:
    """Does an element-wise node take this producer's result as it is, vector by vector?"""
    same = before.out.shape == node.out.shape and axes.channel[before.name] == axes.channel[node.name]
    return same and len(before.outputs) == 1


def _together(axes: Axes, node: Node, elementwise: set[str], outputs: set[str]) -> Sequence[Node]:
    """The operators on the way from a value with several readers to where all of them have been met, if that is near.

    Written-out activations are of this kind: x * sigmoid(x), x * clip(x + 3) / 6.
    """
    users = axes.graph.users
    if len(users.get(node.name, [])) < 2:
        return ()
    path: list[Node] = []
    waiting = {n.name for n in users[node.name]}
    at = node
    while waiting and len(path) < LONGEST:
        ready = [n for n in users.get(at.name, []) if n.name in elementwise and follows(axes, at, n)]
        if not ready or any(n.name in outputs for n in path):
            return ()
        at = ready[0]
        waiting.discard(at.name)
        path.append(at)
        if not waiting:
            return path
        waiting |= {n.name for n in users.get(at.name, [])}
    return ()
