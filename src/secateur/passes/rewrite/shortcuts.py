"""Shortcuts: additions of a value and of something computed from it alone."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.ir import Graph, Node


@dataclass(frozen=True)
class Shortcut:
    """``join = add(start, last)``, where ``branch`` (its nodes in order, ``last`` the final one's value) reads
    ``start``.

    A branch whose nodes are read by others as well cannot be taken out: ``leak`` names such a reader, else it is None.
    """

    join: Node
    start: str
    last: str
    branch: tuple[Node, ...]
    leak: str | None = None


def shortcuts(graph: Graph, identity: bool = False) -> list[Shortcut]:
    """Every addition that joins a branch with its beginning; ``identity``: only where the beginning is added as it is.

    Otherwise the shortcut may hold a layer of its own (a projection): then ``start`` is the other operand, and the
    branch is the longer of the two.
    """
    place = {n.name: i for i, n in enumerate(graph.nodes)}
    found = []
    for join in graph.nodes:
        if join.op != "add" or any(i is None or i in graph.weights for i in join.inputs) or len(set(join.inputs)) < 2:
            continue
        ends = [str(i) for i in join.inputs]
        cones = [_cone(graph, end) for end in ends]
        plain = [
            (start, last, cone)
            for (start, last), cone in zip(((ends[1], ends[0]), (ends[0], ends[1])), cones, strict=True)
            if start in cone
        ]
        if plain:
            start, last, cone = plain[0]
        elif not identity and all(end in graph.producer for end in ends):
            longer = 0 if len(cones[0] - cones[1]) >= len(cones[1] - cones[0]) else 1
            start, last, cone = ends[1 - longer], ends[longer], cones[longer]
        else:
            continue
        other = _cone(graph, start) | {start}
        branch = sorted(
            (graph.producer[n] for n in (cone | {last}) - other if n in graph.producer), key=lambda n: place[n.name]
        )
        if graph.value(start).shape != join.out.shape or not branch:
            continue
        inside = {v.name for n in branch for v in n.outputs}
        leaks = [u.label for n in branch for v in n.outputs for u in graph.users.get(v.name, ())
                 if u.name not in inside and u is not join]  # fmt: skip
        outs = [n.label for n in branch if any(v.name in graph.outputs for v in n.outputs)]
        found.append(Shortcut(join, start, last, tuple(branch), next(iter([*leaks, *outs]), None)))
    return found


def _cone(graph: Graph, name: str) -> set[str]:
    """Every value that this one is computed from."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        node = graph.producer.get(todo.pop())
        for read in node.inputs if node is not None else ():
            if read is not None and read not in graph.weights and read not in seen:
                seen.add(read)
                todo.append(read)
    return seen
