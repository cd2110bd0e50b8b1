"""What zeros gain: for each layer with enough of them, the time of its best block-sparse kernel beside the dense ones.

A network is planned and nothing is compiled, so TVM is not needed. Times are estimates, those by which kernels are
chosen that nobody measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from secateur.ir import Graph

from .backends import backend_for
from .plan.family import Workload, family_of
from .plan.lower import lower
from .targets import Target, get_target


def gains(graph: Graph, target: str | Target = "native") -> Mapping[str, float]:
    """How many times as long the fastest dense kernel takes, by the label of each layer that is offered a sparse one.

    A layer of several calls is as fast as these together. Raises InputError for an unknown target, and what planning
    raises.
    """
    chosen = get_target(target)
    backend = backend_for(chosen)
    dense: dict[str, float] = {}
    sparse: dict[str, float] = {}
    program = lower(graph, chosen, 1, None, backend)
    for late in program.open:
        label, best = program.calls[late.call].label, dict[bool, float]()
        for spec in late.specs:
            family = family_of(spec, backend.families)
            kind = family is not None and family.sparse
            best[kind] = min(best.get(kind, float("inf")), cast(Workload, spec).estimate(chosen))
        dense[label] = dense.get(label, 0.0) + best[False]
        sparse[label] = sparse.get(label, 0.0) + best.get(True, best[False])
    return {label: dense[label] / max(sparse[label], 1e-30) for label in dense if sparse[label] != dense[label]}
