"""A quick guess of what a keep mask costs, so that the real count is asked only near the answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.analysis.cost import MACS
from secateur.passes.notes import Coupling, Slot

Count = Callable[[Array], int]  # keep mask -> what the slim graph costs


def estimator(graph: Graph, coupling: Coupling, kind: str) -> Count:
    """Every weight's share of the cost shrinks with each of its axes; what is in no weight stays.

    Off where a rewrite adds nodes or where activations multiply each other; never used as the answer.
    """
    cost = work_of_weights(graph, kind)
    slots: dict[tuple[str, int], Slot] = {(s.weight, s.axis): s for s in coupling.slots if s.weight in cost}
    index = {name: i for i, name in enumerate(cost)}
    rows = [slot.units for slot in slots.values()]
    whole = np.array(list(cost.values()), float)
    if not rows:
        return lambda mask: int(whole.sum())
    units = np.concatenate(rows)
    lengths = np.array([len(row) for row in rows])
    starts = np.cumsum(lengths) - lengths
    weight = np.array([index[name] for name, _ in slots])

    def count(mask: Array) -> int:
        live = np.append(mask, True)[units]  # position -1 reads the True at the end
        shares = np.ones(len(whole))
        np.multiply.at(shares, weight, np.add.reduceat(live, starts, dtype=np.int64) / lengths)
        return int(whole @ shares)

    return count


def work_of_weights(graph: Graph, kind: str) -> dict[str, int]:
    """What each weight costs where it is used: its elements, bytes, or the multiply-accumulates of its nodes."""
    if kind != "macs":
        return {n: int(w.size) * (w.dtype.itemsize if kind == "bytes" else 1) for n, w in graph.weights.items()}
    cost: dict[str, int] = {}
    for node in graph.nodes:
        if node.op in MACS:
            name = next((n for n in node.inputs[1:] if n in graph.weights), None) or _stored(graph, node) or node.name
            cost[name] = cost.get(name, 0) + int(MACS[node.op](graph, node))
    return cost


def _stored(graph: Graph, node: Node) -> str | None:
    """The largest stored weight that a computed one, the node's second input, is made of; None where it is data."""
    found, work, inputs = dict[str, int](), list(node.inputs[1:2]), {v.name for v in graph.inputs}
    while work:
        name = work.pop()
        if name in inputs:
            return None
        if name is not None and name in graph.weights:
            found[name] = int(graph.weights[name].size)
        elif name in graph.producer:
            work.extend(graph.producer[name].inputs)
    return max(found, key=lambda n: found[n], default=None)
