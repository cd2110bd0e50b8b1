"""``canonicalize``: say the same thing with fewer and plainer operators.

* A chain of reshape and transpose that only permutes channels becomes one ``gather`` along them, so
  that a channel shuffle is an index map whatever survives of it.
* Permutations one after another become one, and one that changes nothing goes away.
* An ``expand`` that only feeds broadcasting element-wise operators goes away.

Before::

    %a = reshape(%x) shape=[1,2,4,8,8] : f32[1, 2, 4, 8, 8]
    %b = transpose(%a) perm=[0,2,1,3,4] : f32[1, 4, 2, 8, 8]
    %y = reshape(%b) shape=[1,8,8,8] : f32[1, 8, 8, 8]

After::

    %y = gather(%x, @y.index) axis=1 : f32[1, 8, 8, 8]
    weights @y.index i64[8] = [0, 4, 1, 5, 2, 6, 3, 7]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import BINARY, COMPARE, Array, Graph, Node, prune_dead
from secateur.ir.followed import followed_shapes
from secateur.ir.shuffles import shuffle_ending_in


@dataclass(frozen=True, slots=True)
class Canonicalize:
    """Chains of movement operators to one permutation or none, needless expands away; exact."""

    name: ClassVar[str] = "canonicalize"

    def __call__(self, graph: Graph) -> Graph:
        weights = dict(graph.weights)
        shapes = followed_shapes(graph)
        nodes = [_shuffle(graph, node, weights, shapes) for node in graph.nodes]
        if any(new is not old for new, old in zip(nodes, graph.nodes, strict=True)):
            graph = graph.rewrite(nodes=nodes, weights=weights)
        return prune_dead(_drop_expands(_compose(graph, shapes)))


def _shuffle(graph: Graph, node: Node, weights: dict[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Node:
    """The gather that stands for the movement chain which ends in this node, if that is one that nothing else reads."""
    found = shuffle_ending_in(graph, node, shapes)
    if found is None or any(len(graph.users.get(n, ())) != 1 or n in graph.outputs for n in found.inner):
        return node
    name = f"{node.name}.index"
    weights[name] = found.order
    return dataclasses.replace(node, op="gather", inputs=(found.source, name), attrs={"axis": found.axis})


def _compose(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Gathers along one axis and transposes, each merged with the one it reads; identities are left out."""
    weights, nodes = dict(graph.weights), {n.name: n for n in graph.nodes}
    alias: dict[str, str] = {}
    changed = False
    for old in graph.nodes:
        if old.op not in ("gather", "transpose"):
            continue
        node = dataclasses.replace(old, inputs=tuple(alias.get(i, i) if i else i for i in old.inputs))
        maker = nodes.get(node.inputs[0] or "")
        if node.op == "transpose" and maker is not None and maker.op == "transpose":
            perm = tuple(maker.attrs["perm"][p] for p in node.attrs["perm"])
            node = dataclasses.replace(node, inputs=maker.inputs, attrs={"perm": perm})
        elif node.op == "gather" and maker is not None and maker.op == "gather" and _same_axis(weights, node, maker):
            name = f"{node.name}.composed"
            if name in weights or name in graph.values:
                continue
            weights[name] = weights[str(maker.inputs[1])][weights[str(node.inputs[1])]]
            node = dataclasses.replace(node, inputs=(maker.inputs[0], name))
        source = node.inputs[0]
        if source is not None and _changes_nothing(graph, weights, node, shapes) and node.name not in graph.outputs:
            alias[node.name] = source
        nodes[node.name] = node
        changed = changed or node.inputs != old.inputs or node.attrs != old.attrs or node.name in alias
    if not changed:
        return graph
    kept = (nodes[n.name] for n in graph.nodes if n.name not in alias)
    renamed = [dataclasses.replace(n, inputs=tuple(alias.get(i, i) if i else i for i in n.inputs)) for n in kept]
    return graph.rewrite(nodes=renamed, weights=weights)


def _same_axis(weights: Mapping[str, Array], node: Node, maker: Node) -> bool:
    """Can two gathers be one? Only positions of one axis, all counted from its beginning."""
    index, first = weights.get(node.inputs[1] or ""), weights.get(maker.inputs[1] or "")
    if index is None or first is None or index.ndim != 1 or first.ndim != 1:
        return False
    return bool(node.attrs["axis"] == maker.attrs["axis"] and (index >= 0).all() and (first >= 0).all())


def _changes_nothing(
    graph: Graph, weights: Mapping[str, Array], node: Node, shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    if node.inputs[0] in graph.weights:
        return False
    if node.op == "transpose":
        return list(node.attrs["perm"]) == list(range(len(node.attrs["perm"])))
    index = weights.get(node.inputs[1] or "")
    source = str(node.inputs[0])
    size = shapes.get(source, graph.value(source).shape)[node.attrs["axis"]]
    return index is not None and index.ndim == 1 and type(size) is int and np.array_equal(index, np.arange(size))


def _drop_expands(graph: Graph) -> Graph:
    """Rename an expand's uses to its operand where every user broadcasts it to the same shape."""
    alias: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "expand" and node.inputs[0] is not None and _broadcasts(graph, node):
            alias[node.name] = alias.get(node.inputs[0], node.inputs[0])
    if not alias:
        return graph
    nodes = [
        dataclasses.replace(n, inputs=tuple(alias.get(i, i) if i else i for i in n.inputs))
        for n in graph.nodes
        if n.name not in alias
    ]
    return graph.rewrite(nodes=nodes)


def _broadcasts(graph: Graph, node: Node) -> bool:
    if node.name in graph.outputs:
        return False
    for user in graph.users.get(node.name, ()):
        if user.op not in BINARY | COMPARE:
            return False
        other = [i for i in user.inputs if i != node.name]
        if not other or other[0] is None:
            return False
        shape = graph.value(other[0]).shape
        maker = graph.producer.get(other[0])
        if shape != user.out.shape or (maker is not None and maker.op == "expand"):
            return False
    return True
