"""What roundings decide: a sort of nearly equal scores, the largest of them, a comparison, a step.

Two right networks part at such a node, and everything after it differs. With the reference's choice put in its place
the rest must agree again, and on the reference's own values the node must give the reference's choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from secateur.ir import Array, Graph, Node
from secateur.ir.alone import agrees
from secateur.ir.numeric import difference

Feed = Mapping[str, Array]
Run = Callable[[Graph, Feed], Sequence[Array]]
MOST = 32  # choices of one network
STEPS = frozenset({"floor", "ceil", "round", "sign"})


def choices(reference: Graph, slim: Graph, feed: Feed, run: Run, tolerance: float) -> list[Node] | None:
    """The nodes of ``slim`` whose results are to be the reference's, so that everything agrees: first to last.

    Compared are all values of one shape in both networks. None where a node differs that is given no agreeing values,
    or that does not give the reference's results on the reference's own values, and where an output cannot be compared.
    """
    shapes = {name: v.shape for name, v in reference.values.items()}
    names = [v.name for n in slim.nodes for v in n.outputs if shapes.get(v.name) == v.shape]
    wants = dict(zip(names, run(reference.rewrite(outputs=names), feed), strict=True))
    if not set(slim.outputs) <= wants.keys():
        return None
    made: list[Node] = []
    while len(made) < MOST:
        haves = _values(slim, made, names, {**feed, **wants}, run)
        node = next((n for n in slim.nodes if _differs(n, wants, haves, tolerance)), None)
        if node is None:
            return made
        known = all(v.name in wants for v in node.outputs)
        if not known or not agrees(slim, node, {**feed, **wants}, run, tolerance):
            return None
        made.append(node)
    return None


def _values(slim: Graph, made: Sequence[Node], names: Sequence[str], known: Feed, run: Run) -> dict[str, Array]:
    """What the slim network gives by these names, its choices ``made`` as they are known."""
    chosen = [v for node in made for v in node.outputs]
    taken = {v.name for v in chosen}
    inputs = [*slim.inputs, *(dataclasses.replace(v, shape=known[v.name].shape) for v in chosen)]
    asked = [name for name in names if name not in taken]
    rest = slim.rewrite(inputs=inputs, nodes=[n for n in slim.nodes if n not in made], outputs=asked)
    return dict(zip(asked, run(rest, {v.name: known[v.name] for v in inputs}), strict=True))


def _differs(node: Node, wants: Feed, haves: Feed, tolerance: float) -> bool:
    found = (v.name for v in node.outputs if v.name in haves)
    return any(difference(wants[name], haves[name]) > tolerance for name in found)


def discrete(node: Node) -> bool:
    """Does the node choose: whole numbers or truths of real ones, a step, or what nobody knows?"""
    chosen = any(v.dtype == "b1" or v.dtype[0] in "iu" for v in node.outputs)
    return chosen or node.op in STEPS or node.op == "opaque"


def behind(graph: Graph, nodes: Sequence[Node]) -> frozenset[str]:
    """The values that follow from these nodes' outputs, those included."""
    found = {v.name for node in nodes for v in node.outputs}
    for node in graph.nodes:
        if any(i in found for i in node.inputs):
            found.update(v.name for v in node.outputs)
    return frozenset(found)
