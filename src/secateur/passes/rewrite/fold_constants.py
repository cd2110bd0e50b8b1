"""The exact half of ``fold_constants``: what is constant whatever the input, folded without any data.

* A node that reads weights alone becomes a weight.
* A channel whose batch norm scale or whole filter is zero holds one number everywhere. Layers that see nothing but that
  number take what it contributes into their bias, and its column becomes zero, so that pruning takes it for nothing.

Before (scale of channel 1 is zero, its shift 0.5)::

    %n = batch_norm(%c, @n.weight, @n.bias, ..) : f32[1, 2, 4, 4]     @n.weight f32[2] = [1.0, 0.0]
    %r = relu(%n) : f32[1, 2, 4, 4]
    %y = conv(%r, @d.weight, @d.bias) .. : f32[1, 1, 4, 4]            @d.weight f32[1, 2, 1, 1] = [2.0, 3.0], bias [1.0]

After::

    the same nodes                                                    @d.weight = [2.0, 0.0], @d.bias = [2.5]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from secateur.ir import UNARY, Array, Graph, Node, Value, prune_dead
from secateur.ir.symbolic import has_sizes

from .layers import Names, Row, narrow, noted

Held = tuple[Array, Array]  # which channels are constant: bool[C]; at what: f64[C]
LARGEST = 1 << 20  # elements: a constant that an operator blows up stays an operator
SPREAD = frozenset({"max_pool", "adaptive_avg_pool", "adaptive_max_pool", "reduce_mean", "flatten"})


def fold_exact(graph: Graph) -> Graph:
    """The graph with constant nodes and channels folded; it computes what it did, up to rounding."""
    graph = compute_constants(graph)
    weights, names = dict(graph.weights), Names(graph)
    held: dict[str, Held] = {}
    nodes: list[Node] = []
    rows: list[Row] = []
    for node in graph.nodes:
        known = held.get(node.inputs[0] or "") if node.inputs else None
        if known is not None and _sees_it_alone(graph, node, known):
            node = _fold(graph, node, known, weights, names)
            rows.append(
                Row(
                    node.label,
                    node.name,
                    "fold_constants",
                    error=0.0,
                    measure="exact up to rounding",
                    pieces=(node.name,),
                )
            )
        found = _constant_channels(graph, node, held)
        if found is not None and found[0].any():
            held[node.name] = found
        nodes.append(node)
    return noted(prune_dead(graph.rewrite(nodes=nodes, weights=weights)), rows)


def compute_constants(graph: Graph) -> Graph:
    """Nodes that read nothing but weights, computed."""
    weights = dict(graph.weights)
    kept: list[Node] = []
    for node in graph.nodes:
        read = [i for i in node.inputs if i is not None]
        fixed = bool(read) and all(i in weights for i in read) and node.op not in ("opaque", "dropout")
        fixed = fixed and not any(map(has_sizes, node.attrs.values()))  # else it follows the inputs
        size = sum(int(np.prod(v.shape)) for v in node.outputs)
        if not fixed or size > max(LARGEST, sum(weights[i].size for i in read)):
            kept.append(node)
            continue
        from secateur.ir.exporters.torch.module import evaluate

        held = {i: weights[i] for i in read}
        names = tuple(v.name for v in node.outputs)
        alone = graph.rewrite(inputs=(), nodes=(node,), outputs=names, weights=held)
        weights.update(zip(names, evaluate(alone, {}), strict=True))
    return graph if len(kept) == len(graph.nodes) else prune_dead(graph.rewrite(nodes=kept, weights=weights))


def _constant_channels(graph: Graph, node: Node, held: dict[str, Held]) -> Held | None:
    """Channels (axis 1) of the node's value that hold one number, whatever the input."""
    rank = len(node.out.shape)
    if rank < 2 or len(node.outputs) > 1:
        return None
    reads = [held.get(i or "") for i in node.inputs]
    rule = _RULES.get(node.op)
    if rule is not None:
        return rule(graph, node, reads[0])
    if node.op in UNARY and node.op != "dropout" and reads[0] is not None:
        return reads[0][0], _apply(graph, node, reads[0][1])
    if node.op == "add" and all(r is not None for r in reads):
        one, two = (r for r in reads if r is not None)
        return (one[0] & two[0], one[1] + two[1]) if len(one[0]) == len(two[0]) == node.out.shape[1] else None
    return reads[0] if node.op in SPREAD and reads[0] is not None and _keeps_channels(graph, node) else None


def _keeps_channels(graph: Graph, node: Node) -> bool:
    shape = graph.value(str(node.inputs[0])).shape
    if node.op == "flatten":
        return node.attrs["start"] == 1 and int(np.prod(shape[2:])) == 1
    return node.op != "reduce_mean" or all(a % len(shape) > 1 for a in node.attrs["axes"])


def _apply(graph: Graph, node: Node, numbers: Array) -> Array:
    """An element-wise operator on these numbers."""
    from secateur.ir.exporters.torch.module import evaluate

    x = Value("x", (1, len(numbers)), node.out.dtype)
    alone = graph.rewrite(
        inputs=(x,), nodes=(dataclasses.replace(node, inputs=("x",), outputs=(Value("y", x.shape, x.dtype),)),),
        outputs=("y",), weights={},
    )  # fmt: skip
    found: Array = evaluate(alone, {"x": numbers[None].astype(np.float32)})[0][0].astype(np.float64)
    return found


def _batch_norm(graph: Graph, node: Node, known: Held | None) -> Held | None:
    if any(w is not None and w not in graph.weights for w in node.inputs[1:]):
        return None
    width = node.out.shape[1]
    gamma, beta, mean, var = (
        np.full(width, default) if w is None else graph.weights[w].astype(np.float64).reshape(-1)
        for w, default in zip(node.inputs[1:5], (1.0, 0.0, 0.0, 1.0), strict=True)
    )
    off, number = known if known is not None else (np.zeros(width, bool), np.zeros(width))
    scale = gamma / np.sqrt(var + node.attrs["eps"])
    dead: Array = np.logical_or(off, gamma == 0)
    return dead, np.where(gamma == 0, beta, (number - mean) * scale + beta)


def _conv(graph: Graph, node: Node, known: Held | None) -> Held | None:
    """Rows of zeros give their bias, padded or not."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if weight not in graph.weights or (bias is not None and bias not in graph.weights):
        return None
    if node.op == "linear" and len(node.out.shape) != 2:
        return None
    matrix = graph.weights[str(weight)]
    rows = (matrix.T if node.attrs.get("transposed") else matrix).reshape(node.out.shape[1], -1)
    numbers = np.zeros(len(rows)) if bias is None else graph.weights[bias].astype(np.float64)
    empty: Array = np.logical_not(rows.any(1))
    return empty, numbers


_RULES: dict[str, Callable[[Graph, Node, Held | None], Held | None]] = {
    "batch_norm": _batch_norm, "conv": _conv, "linear": _conv,
}  # fmt: skip


def _sees_it_alone(graph: Graph, node: Node, known: Held) -> bool:
    """Does the layer read a constant channel without zeros of a padding next to it, through weights of its own?"""
    if node.op not in ("conv", "linear") or node.inputs[1] not in graph.weights or any(node.attrs.get("pad", ())):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if len(graph.users[str(node.inputs[1])]) > 1 or (bias is not None and bias not in graph.weights):
        return False
    if node.op == "linear" and len(node.out.shape) != 2:
        return False
    read = _matrix(graph, node).any(2)
    return bool((read & known[0].reshape(read.shape)).any())


def _matrix(graph: Graph, node: Node) -> Array:
    """The weight summed over its window, by group: f64[groups, inputs of a group, outputs of a group]."""
    weight = graph.weights[str(node.inputs[1])].astype(np.float64)
    if node.attrs.get("transposed"):
        weight = weight.T
    groups = node.attrs.get("groups", 1)
    summed: Array = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).sum(3)
    return summed.transpose(0, 2, 1)


def _fold(graph: Graph, node: Node, known: Held, weights: dict[str, Array], names: Names) -> Node:
    """Constant channels' part of the layer's outputs, in its bias."""
    name, groups = str(node.inputs[1]), node.attrs.get("groups", 1)
    old = graph.weights[name]
    mask, numbers = (k.reshape(groups, -1) for k in known)
    shift = np.einsum("gio,gi->go", _matrix(graph, node), np.where(mask, numbers, 0)).reshape(-1)
    matrix = old.T.copy() if node.attrs.get("transposed") else old.copy()
    rows = matrix.reshape(groups, -1, *matrix.shape[1:])
    for group, dead in enumerate(mask):
        rows[group][:, dead] = 0
    weights[name] = np.ascontiguousarray(matrix.T) if node.attrs.get("transposed") else matrix
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    before = 0.0 if bias is None else graph.weights[bias].astype(np.float64)
    own = bias if bias is not None and len(graph.users[bias]) == 1 else names.weight(name, "folded", "bias")
    if bias is None and name.endswith(".weight"):
        own = names.free(name[: -len("weight")] + "bias")
    weights[own] = narrow(before + shift, old)
    return dataclasses.replace(node, inputs=(*node.inputs[:2], own))
