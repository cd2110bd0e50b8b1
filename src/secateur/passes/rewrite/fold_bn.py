"""``fold_bn``: a batch norm that follows a layer, in the layer's own weights (Jacob et al., CVPR 2018, section 3.2).

Before::

    %c = conv(%x, @c.weight) .. : f32[1, 16, 8, 8]
    %y = batch_norm(%c, @n.weight, @n.bias, @n.running_mean, @n.running_var) eps=1e-05 .. : f32[1, 16, 8, 8]

After::

    %y = conv(%x, @c.weight, @c.bias) .. : f32[1, 16, 8, 8]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, Node, prune_dead
from secateur.passes.pipeline import print_pass

from .layers import Names, Row, chosen, narrow, noted, obstacle, price

ROWS = {"conv": 0, "linear": 0, "conv_transpose": 1}  # the weight's axis of outputs


@dataclass(frozen=True)
class FoldBN:
    """Batch norms in the weights of the convolutions and linear layers before them (Jacob et al. 2018); exact.

    In float64, rounded once. A layer whose result is read by others too, or whose weight is shared, is left alone. Do
    this to a network that is not trained any more: batch norms whose scale a criterion reads are gone afterwards.
    """

    name: ClassVar[str] = "fold_bn"
    layers: tuple[str, ...] = ("*",)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer."""
        names = Names(graph)
        weights = dict(graph.weights)
        made: dict[str, Node | None] = {}
        rows: list[Row] = []
        for layer in chosen(graph, self, self.layers, ROWS):
            norm = next((u for u in graph.users.get(layer.name, ()) if u.op == "batch_norm"), None)
            if norm is None:
                continue
            why = _obstacle(graph, layer, norm)
            before = price(graph, (layer, norm), {}) if why is None else price(graph, (layer,), {})
            after = before
            if why is None:
                made[layer.name], folded = None, _fold(graph, layer, norm, names, weights)
                made[norm.name] = folded
                after = price(graph, (folded,), weights)
            pieces = (norm.name,) if why is None else ()
            costs = ((before.macs, after.macs), (before.params, after.params))
            rows.append(
                Row(layer.label, layer.name, print_pass(self), *costs, 0.0, "exact up to rounding", pieces, why)
            )
        nodes = [new for n in graph.nodes if (new := made.get(n.name, n)) is not None]
        return noted(prune_dead(graph.rewrite(nodes=nodes, weights=weights)), rows)


def _obstacle(graph: Graph, layer: Node, norm: Node) -> str | None:
    if len(graph.users[layer.name]) > 1 or layer.name in graph.outputs:
        return "what it puts out before its batch norm is read by others too"
    if layer.op == "conv_transpose" and layer.attrs["groups"] > 1:
        return "it is transposed and grouped"
    if layer.op == "linear" and len(layer.out.shape) != 2:
        return "the batch norm after it runs along another axis"
    if any(name is not None and name not in graph.weights for name in (*norm.inputs[1:], *layer.inputs[2:])):
        return "its batch norm or bias is computed by the network"
    return obstacle(graph, layer)


def _fold(graph: Graph, layer: Node, norm: Node, names: Names, weights: dict[str, Array]) -> Node:
    """The layer that does both; its weights are put into ``weights``."""
    gamma, beta, mean, var = (
        None if n is None else graph.weights[n].astype(np.float64).reshape(-1) for n in norm.inputs[1:5]
    )
    assert mean is not None and var is not None
    scale = (1.0 if gamma is None else gamma) / np.sqrt(var + norm.attrs["eps"])
    weight = str(layer.inputs[1])
    old = graph.weights[weight]
    axis = 1 if layer.op == "linear" and layer.attrs["transposed"] else ROWS[layer.op]
    shape = [-1 if i == axis else 1 for i in range(old.ndim)]
    weights[weight] = narrow(old * scale.reshape(shape), old)
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    shift = (0.0 if bias is None else graph.weights[bias].astype(np.float64)) - mean
    shift = shift * scale + (0.0 if beta is None else beta)
    stem = weight[: -len("weight")] + "bias" if weight.endswith("weight") else f"{weight}.bias"
    name = bias if bias is not None and len(graph.users[bias]) == 1 else names.free(stem)
    weights[name] = narrow(shift, old)
    return Node(layer.op, (layer.inputs[0], weight, name), norm.outputs, layer.attrs, layer.source)
