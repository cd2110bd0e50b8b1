"""A keep mask in the words of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

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
    mixes = [m for m in coupling.mixing if m.mode not in ("pick", "own") and not survive(m.units).all()]
    placed = (in_file(graph, coupling, m) for m in mixes)
    return Recipe(
        "",
        {name: graph.weights[name].shape for name in weights},
        weights,
        tuple(_mixed(m, survive(m.units)) for m in placed if not survive(m.units).all()),
        names=file_names(graph),
        own=tuple(_own(graph, coupling, survive)),
    )


def _own(graph: Graph, coupling: Coupling, survive: Survivors) -> Iterator[str]:
    """The weights of layers that keep less than what is left of their input."""
    for m in coupling.mixing:
        node = graph.producer[m.node]
        track = coupling.channels.get(node.inputs[m.input] or "")
        if m.mode == "own" and track is not None and not np.array_equal(survive(m.units), survive(track.units)):
            yield str(node.inputs[1])


def _mixed(m: Mixing, live: Array) -> Mixed:
    return Mixed(m.node, m.input, m.axis, tuple(np.flatnonzero(live).tolist()), m.mode == "kept")
