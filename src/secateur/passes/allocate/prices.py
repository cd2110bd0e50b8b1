"""What layers take, in nanoseconds, so that widths can be chosen by time in place of multiply-accumulates.

A layer's time is ``a + b * s``, where s is the share of its multiply-accumulates that is left: two networks are timed
layer by layer, the whole one and one of about half the work, and the line through both is taken (the latency tables
of NetAdapt, ECCV 2018, and HALP, NeurIPS 2022, have a measured entry for each width; steps of a vector are in the
widths that allocation stops at, see ``widths``). What is in no layer is part of a.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.ir import Array, Graph
from secateur.passes.analysis.cost import MACS
from secateur.passes.context import LatencyModel
from secateur.passes.notes import Coupling

from .estimate import Prices, shares_of, weight_of, work_of_weights

NANOSECONDS = 1e6  # in a millisecond


def prices(graph: Graph, coupling: Coupling, latency: LatencyModel, slim: Graph, mask: Array) -> Prices | None:
    """From the network and from ``slim``, which ``mask`` leaves of it; None where nobody can time single layers."""
    whole, half = latency.layers(graph), latency.layers(slim)
    if not whole or not half:
        return None
    before, after = _by_weight(graph, whole), _by_weight(graph, half)
    names = [name for name in before if name in after]
    left = dict(zip(names, shares_of(coupling, names)(mask), strict=True))
    slope = {
        name: min(max((before[name] - after[name]) / (1 - left[name]), 0.0), before[name]) if left[name] < 1 else 0.0
        for name in names
    }
    weights = {name: round(b * NANOSECONDS) for name, b in slope.items() if b > 0}
    fixed = sum(whole.values()) * NANOSECONDS - sum(weights.values())
    return Prices(max(0, round(fixed)), MappingProxyType(weights))


def halfway(graph: Graph, found: Prices) -> Prices:
    """Prices of which each is half what was measured, half its layer's share of the multiply-accumulates.

    A layer alone does not take what it takes in a run: runtimes fuse, and caches are warm or cold.
    """
    work = work_of_weights(graph, "macs")
    rate = sum(found.weights.values()) / max(sum(work.values()), 1)
    weights = {name: round((found.weights.get(name, 0) + rate * macs) / 2) for name, macs in work.items()}
    return Prices(found.fixed, MappingProxyType(weights))


def _by_weight(graph: Graph, times: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by the weight of the layers, from those by the layers' labels."""
    found: dict[str, float] = {}
    for node in graph.nodes:
        if node.op in MACS and node.label in times:
            name = weight_of(graph, node)
            found[name] = found.get(name, 0.0) + times[node.label]
    return found
