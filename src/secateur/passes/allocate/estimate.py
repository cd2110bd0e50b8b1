"""A quick guess of what a keep mask costs, so that the real count is asked only near the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.analysis.cost import MACS
from secateur.passes.notes import Coupling, Slot

Count = Callable[[Array], int]  # keep mask -> what the slim graph costs


@dataclass(frozen=True)
class Prices:
    """``fixed`` nanoseconds that no width changes, and what the layers of each weight take besides, at full width."""

    fixed: int
    weights: Mapping[str, int]

    @property
    def whole(self) -> int:
        """Nanoseconds of the network as it is."""
        return self.fixed + sum(self.weights.values())


def estimator(graph: Graph, coupling: Coupling, kind: str) -> Count:
    """Every weight's share of the cost shrinks with each of its axes; what is in no weight stays.

    Off where a rewrite adds nodes or where activations multiply each other; never used as the answer.
    """
    cost = work_of_weights(graph, kind)
    whole, shares, fixed = np.array(list(cost.values()), float), shares_of(coupling, cost), fixed_cost(graph, kind)
    return lambda mask: fixed + int(whole @ shares(mask))


def shares_of(coupling: Coupling, weights: Collection[str]) -> Callable[[Array], Array]:
    """bool[units] -> f64[weights]: the share of each weight's elements that a keep mask leaves."""
    slots: dict[tuple[str, int], Slot] = {(s.weight, s.axis): s for s in coupling.slots if s.weight in weights}
    index = {name: i for i, name in enumerate(weights)}
    rows = [slot.units for slot in slots.values()]
    if not rows:
        return lambda mask: np.ones(len(weights))
    units = np.concatenate(rows)
    lengths = np.array([len(row) for row in rows])
    starts = np.cumsum(lengths) - lengths
    weight = np.array([index[name] for name, _ in slots])

    def shares(mask: Array) -> Array:
        live = np.append(mask, True)[units]  # position -1 reads the True at the end
        found = np.ones(len(weights))
        np.multiply.at(found, weight, np.add.reduceat(live, starts, dtype=np.int64) / lengths)
        return found

    return shares


def fixed_cost(graph: Graph, kind: str) -> int:
    """What no width changes, where this is known: of times alone."""
    found = graph.note(Prices) if kind == "time" else None
    return found.fixed if found is not None else 0


def work_of_weights(graph: Graph, kind: str) -> dict[str, int]:
    """What each weight costs where it is used: its elements, bytes, the multiply-accumulates of its nodes, or time."""
    if kind == "time":
        found = graph.note(Prices)
        return dict(found.weights) if found is not None else {}
    if kind != "macs":
        return {n: int(w.size) * (w.dtype.itemsize if kind == "bytes" else 1) for n, w in graph.weights.items()}
    cost: dict[str, int] = {}
    for node in graph.nodes:
        if node.op in MACS:
            name = weight_of(graph, node)
            cost[name] = cost.get(name, 0) + int(MACS[node.op](graph, node))
    return cost


def weight_of(graph: Graph, node: Node) -> str:
    """The weight of a node that multiplies, stored or what a computed one is made of; of data the node's own name."""
    return next((n for n in node.inputs[1:] if n in graph.weights), None) or _stored(graph, node) or node.name


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
