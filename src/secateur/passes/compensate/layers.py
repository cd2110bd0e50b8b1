"""Which layers can be repaired, and where a constant in what they put out can go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph, Node

FLAT = 1e-3  # a batch norm's scale, of its largest, below which nothing is asked of the layer before it


def bias_of(node: Node) -> str | None:
    """The name of a layer's bias, if it has one."""
    return node.inputs[2] if len(node.inputs) > 2 else None


def solvable(graph: Graph, node: Node, depthwise: bool = False) -> bool:
    """A convolution or linear layer with weights of its own that mixes channels (a depthwise one cannot make up).

    ``depthwise``: or one that does not mix them.
    """
    if node.op not in ("conv", "linear") or node.inputs[1] not in graph.weights:
        return False
    weight = graph.weights[node.inputs[1] or ""]
    own = all(len(graph.users[n]) == 1 for n in node.inputs[1:] if n is not None)
    given = all(n is None or n in graph.weights for n in node.inputs[1:])
    mixes = depthwise or node.op != "conv" or weight.shape[1] > 1 or node.attrs["groups"] == 1
    return own and given and mixes and weight.dtype.kind == "f"


def sink(graph: Graph, node: Node) -> list[tuple[str, float]]:
    """Where a constant in the layer's output can go: (weight, sign) of its bias or of the batch norm that reads it."""
    bias = bias_of(node)
    if bias is not None:
        return [(bias, 1.0)]
    users = graph.users.get(node.name, ())
    if len(users) != 1 or users[0].op != "batch_norm" or node.name in graph.outputs:
        return []
    mean = users[0].inputs[3] or ""
    return [(mean, -1.0)] if mean in graph.weights and len(graph.users[mean]) == 1 else []


@dataclass(frozen=True)
class Join:
    """Where a layer's output, after a batch norm ``norm`` or none, is added to the value ``other``."""

    other: str
    norm: Node | None

    def scale(self, weights: Mapping[str, Array]) -> Array:
        """f32[channels]: by how much the layer's output must move for a unit of the sum; 0 where it hardly counts."""
        assert self.norm is not None
        gamma, variance = (weights[self.norm.inputs[i] or ""].astype(np.float64) for i in (1, 4))
        factor = gamma / np.sqrt(variance + float(self.norm.attrs["eps"]))
        usable = np.abs(factor) > FLAT * np.abs(factor).max(initial=0.0)
        found: Array = np.divide(1, factor, where=usable, out=np.zeros_like(factor)).astype(np.float32)
        return found


def join_of(graph: Graph, node: Node) -> Join | None:
    """The sum that a layer's output goes into, and nowhere else, not even on its way there; None without one."""
    norm: Node | None = None
    at = node
    while True:
        users = graph.users.get(at.name, ())
        if len(users) != 1 or at.name in graph.outputs:
            return None
        (reader,) = users
        if reader.op == "batch_norm" and norm is None and all(i in graph.weights for i in reader.inputs[1:]):
            norm = at = reader
            continue
        values = [i for i in reader.inputs if i is not None and i != at.name and i not in graph.weights]
        if reader.op != "add" or len(reader.inputs) != 2 or len(values) != 1:
            return None
        same = graph.value(values[0]).shape == node.out.shape
        return Join(values[0], norm) if same else None
