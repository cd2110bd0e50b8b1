"""A keep mask in the words of a recipe."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling, Mixing, Survivors

from .places import file_names, in_file
from .recipe import Kept, Mixed, Recipe


def recipe_of(graph: Graph, coupling: Coupling, keep: Array) -> Recipe:
    """What this mask does to the graph, in terms of its weights."""
    survive = Survivors(keep)
    weights: dict[str, Kept] = {}
    for slot in coupling.slots:
        live = survive(slot.units)
        if live.all():
            continue
        if slot.groups > 1:
            rows: list[list[int]] = [np.flatnonzero(row).tolist() for row in live.reshape(slot.groups, -1)]
            weights.setdefault(slot.weight, {})[slot.axis] = rows
        else:
            weights.setdefault(slot.weight, {})[slot.axis] = np.flatnonzero(live).tolist()
    # What picks channels out of a full operand leaves others than the kept ones unread: nothing is to be masked there.
    mixes = [m for m in coupling.mixing if m.mode != "pick" and not survive(m.units).all()]
    placed = (in_file(graph, coupling, m) for m in mixes)
    return Recipe(
        "",
        {name: graph.weights[name].shape for name in weights},
        weights,
        tuple(_mixed(m, survive(m.units)) for m in placed if not survive(m.units).all()),
        names=file_names(graph),
    )


def _mixed(m: Mixing, live: Array) -> Mixed:
    return Mixed(m.node, m.input, m.axis, tuple(np.flatnonzero(live).tolist()), m.mode == "kept")
