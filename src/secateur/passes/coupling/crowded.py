"""Nodes whose ties would keep most of what they tie, so that reading at full width leaves more to remove.

A filter bank's spectrum next to copies of itself, shifted and padded: position by position all bands would live and die
together with padding that nothing can remove. A gather that makes overlapping windows ties neighbour to neighbour.
Zeros put back in front of such a node are exact as well, and what it gives has all its channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from secateur.ir import ELEMENTWISE, Array, Graph
from secateur.passes.notes import Coupling

from .flow import Flow
from .partitions import components
from .recorded import Tie

_MOVES = frozenset({"concat", "gather", "reshape", "flatten", "matmul", "einsum"})


def crowded(flow: Flow, unit: Array, frozen: Array) -> frozenset[str]:
    """The nodes more than half of whose atoms stay, or become half as many units, because of their own ties.

    ``unit`` is int[atoms], -1 for none; ``frozen`` bool[units].
    """
    ties: dict[str, list[Tie]] = defaultdict(list)
    loose: dict[str, list[Array]] = defaultdict(list)
    for tie in flow.ties:
        if tie.node.op in ELEMENTWISE or tie.node.op in _MOVES:
            ties[tie.node.name].append(tie)
    for freeze in flow.freezes:
        if freeze.node and (flow.graph.producer[freeze.node].op in ELEMENTWISE | _MOVES):
            loose[freeze.node].append(freeze.atoms)
    others = np.concatenate([np.zeros(0, np.int64), *(f.atoms for f in flow.freezes if not f.node)])
    needed = np.zeros(len(frozen) + 1, bool)  # frozen for another reason, too
    needed[unit[others]] = True
    found = set()
    joining = _joining(flow, ties)
    for name in {**joining, **loose}:  # other nodes tie one track to another: nothing is lost by that
        mine = ties.get(name, [])
        touched = np.unique(np.concatenate([*(a for t in mine for a in (t.left, t.right)), *loose.get(name, [])]))
        units = unit[touched]
        kept = frozen[units] & ~needed[units]
        stuck = name in loose and 2 * kept.sum() > len(touched)
        if stuck or (name in joining and _collapsed(flow, name, touched, units)):
            found.add(name)
    return frozenset(found) - flow.apart


def _joining(flow: Flow, ties: Mapping[str, list[Tie]]) -> dict[str, None]:
    """The nodes one of whose ties joins positions of one track with each other."""
    last = np.full(flow.atoms, -1)  # the last tie on whose left each atom stood
    found: dict[str, None] = {}
    number = 0
    for name, mine in ties.items():
        for tie in mine:
            last[tie.left] = number
            if (last[tie.right] == number).any():
                found[name] = None
            number += 1
    return found


def _collapsed(flow: Flow, name: str, touched: Array, units: Array) -> bool:
    """Do the node's ties leave less than half as many units as there would be without them?"""
    rest = components(flow.atoms, [(t.left, t.right) for t in flow.ties if t.node.name != name])
    return 2 * len(np.unique(units)) < len(np.unique(rest[touched]))


def worth(graph: Graph, coupling: Coupling) -> float:
    """Elements of weights that can be removed, less where only many at once can."""
    total = 0.0
    for slot in coupling.slots:
        units = slot.units[slot.units >= 0]
        free = units[~coupling.frozen[units].astype(bool)]
        if len(free):
            weight = graph.weights[slot.weight]
            total += weight.size / weight.shape[slot.axis] * len(free) / slot.groups * (1 - 1 / len(np.unique(free)))
    return total
