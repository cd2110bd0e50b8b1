"""The law's reference: the original with the channels that a recipe drops at zero, where they are read.

Built from the recipe alone: the missing input columns of every listed consumer are set to zero, and at nodes that mix
channels without a weight the missing channels of their input. It shares no code with the cut.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Value, numpy_dtype

from .recipe.places import readers
from .recipe.recipe import Mixed, Recipe, groups_of


def masked(graph: Graph, recipe: Recipe) -> Graph:
    """The original with the dropped channels zeroed where they are consumed."""
    weights = dict(graph.weights)
    for node in graph.nodes:
        _zero_columns(node, recipe, graph, weights)
    nodes: list[Node] = []
    mixing: dict[str, list[Mixed]] = {}
    for m in recipe.mixing:
        _, found = readers(graph, m)
        if not found:
            raise InputError(f"recipe: network '{graph.name}' has no node {m.node!r}")
        for name, place in found:
            mixing.setdefault(name, []).append(dataclasses.replace(m, node=name, input=place))
    for node in graph.nodes:
        entries = mixing.get(node.name)
        if not entries:
            nodes.append(node)
            continue
        for m in entries:
            before, node, after = _mask_input(graph, node, m, weights)
            nodes.extend(before)
        nodes.extend([node, *after])
    return graph.rewrite(nodes=nodes, weights=weights)


def _zero_columns(node: Node, recipe: Recipe, graph: Graph, weights: dict[str, Array]) -> None:
    if node.op in ("lstm", "gru", "rnn"):  # of the input, and of the hidden units that are fed back
        for name in node.inputs[1:3]:
            if name is not None and 2 in recipe.weights.get(name, {}):
                mask = np.zeros(weights[name].shape[2], weights[name].dtype)
                mask[recipe.weights[name][2]] = 1
                weights[name] = weights[name] * mask
        return
    axis = {"conv": 1, "linear": 0 if node.attrs.get("transposed") else 1, "conv_transpose": 0}.get(node.op)
    name = node.inputs[1] if axis is not None else None
    if name is None or name not in recipe.weights or axis not in recipe.weights[name]:
        return
    original = graph.weights[name]
    if node.op == "conv_transpose" and node.attrs["groups"] == original.shape[0]:
        return  # depthwise: the axis counts groups, which go as a whole
    lists = recipe.weights[name][axis]
    mask = np.zeros(original.shape[:2], bool)
    groups = groups_of(lists)
    if groups is not None:
        rows = original.shape[0] // len(groups)
        for g, kept in enumerate(groups):
            mask[g * rows : (g + 1) * rows, kept] = True
    elif axis == 0:
        mask[lists] = True
    else:
        mask[:, lists] = True
    weights[name] = np.where(mask.reshape(*mask.shape, *(1,) * (original.ndim - 2)), original, 0).astype(
        original.dtype, copy=False
    )


def _mask_input(graph: Graph, node: Node, m: Mixed, weights: dict[str, Array]) -> tuple[list[Node], Node, list[Node]]:
    """Nodes before, the node itself and nodes after, so that it sees the missing channels as zero."""
    name = node.inputs[m.input]
    assert name is not None
    value, axis = graph.value(name), m.axis
    if m.statistics:
        return _over_kept(graph, node, m, weights)
    keep = np.zeros(value.shape[axis], numpy_dtype(value.dtype))
    keep[list(m.kept)] = 1
    along = keep.reshape([-1 if i == axis else 1 for i in range(len(value.shape))])
    if name in graph.weights:  # as a quantised layer's
        zeroed = Value(f"{node.name}.masked{m.input}", value.shape, value.dtype)
        weights[zeroed.name] = np.where(along.astype(bool), weights[name], 0).astype(weights[name].dtype)
        inputs = tuple(zeroed.name if i == m.input else n for i, n in enumerate(node.inputs))
        return [], dataclasses.replace(node, inputs=inputs), []
    mask = f"{node.name}.mask{m.input}"
    weights[mask] = along
    zeroed = Value(f"{node.name}.masked{m.input}", value.shape, value.dtype)
    before = [Node("mul", (name, mask), (zeroed,), {}, node.source)]
    inputs = tuple(zeroed.name if i == m.input else n for i, n in enumerate(node.inputs))
    return before, dataclasses.replace(node, inputs=inputs), []


def _over_kept(graph: Graph, node: Node, m: Mixed, weights: dict[str, Array]) -> tuple[list[Node], Node, list[Node]]:
    """A normalisation whose statistics run over the kept channels; the others come out as zero."""
    kept, axis = np.asarray(m.kept, np.int64), m.axis
    name = str(node.inputs[0])
    value = graph.value(name)
    size = value.shape[axis]
    index, spread = f"{node.name}.keptindex", f"{node.name}.spreadindex"
    weights[index] = kept
    back = np.full(size, len(kept), np.int64)
    back[kept] = np.arange(len(kept))
    weights[spread] = back

    def narrow(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
        return (*shape[:axis], width, *shape[axis + 1 :])

    few = Value(f"{node.name}.few", narrow(value.shape, len(kept)), value.dtype)
    before = [Node("gather", (name, index), (few,), {"axis": axis}, node.source)]
    inputs: list[str | None] = [few.name]
    local = axis - (len(value.shape) - node.attrs["dims"]) if "dims" in node.attrs else 0
    for other in node.inputs[1:]:
        if other is None:
            inputs.append(None)
            continue
        shape = graph.value(other).shape
        part = Value(f"{node.name}.{len(inputs)}.few", (*shape[:local], len(kept), *shape[local + 1 :]), value.dtype)
        before.append(Node("gather", (other, index), (part,), {"axis": local}, node.source))
        inputs.append(part.name)
    inner = Value(f"{node.name}.inner", few.shape, value.dtype)
    padded = Value(f"{node.name}.innerpad", narrow(value.shape, len(kept) + 1), value.dtype)
    rank = len(value.shape)
    pads = tuple(1 if i == rank + axis else 0 for i in range(2 * rank))
    after = [
        Node("pad", (inner.name,), (padded,), {"pads": pads, "mode": "constant", "value": 0.0}, node.source),
        Node("gather", (padded.name, spread), node.outputs, {"axis": axis}, node.source),
    ]
    return before, dataclasses.replace(node, inputs=tuple(inputs), outputs=(inner,)), after
