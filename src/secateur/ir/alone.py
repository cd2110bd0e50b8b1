"""One node of a graph by itself, on values that come from elsewhere.

Roundings decide what a sort, a choice of the largest or a comparison gives, so that two right networks part there.
On the same values the node must still give the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from .errors import Error
from .graph import Array, Graph, Node
from .numeric import difference

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]
SHARE = 0.1  # of a network's tolerance that one node may use up


def agrees(graph: Graph, node: Node, values: Mapping[str, Array], run: Run, tolerance: float) -> bool:
    """Does the node give these values from these? False where one of them is not known, or it cannot be run.

    ``values``: arrays by name, the node's inputs and outputs among them, of any sizes that fit each other.
    """
    reads = list(dict.fromkeys(i for i in node.inputs if i is not None and i not in graph.weights))
    gives = [v.name for v in node.outputs if v.name in values]
    if not gives or not reads or any(name not in values for name in reads):
        return False
    inputs = [dataclasses.replace(graph.value(name), shape=values[name].shape) for name in reads]
    outputs = tuple(dataclasses.replace(v, shape=values[v.name].shape) if v.name in values else v for v in node.outputs)
    weights = {i: graph.weights[i] for i in node.inputs if i is not None and i in graph.weights}
    lone = graph.rewrite(
        inputs=inputs, nodes=[dataclasses.replace(node, outputs=outputs)], outputs=gives, weights=weights
    )
    try:
        found = run(lone, {name: values[name] for name in reads})
    except Error:
        return False
    return all(difference(values[n], have) <= SHARE * tolerance for n, have in zip(gives, found, strict=True))
