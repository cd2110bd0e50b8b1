"""The graph as the planners like it: the same function with fewer and plainer nodes. Nothing here costs accuracy.

%m = reduce_mean(%x) axes=[2]; %d = sub(%x, %m); .. %y = div(%d, %s)      ->  %y = layer_norm(%x)
%e = expand(%gate) shape=[1,64,56,56]; %y = mul(%x, %e)                   ->  %y = mul(%x, %gate)
%s = mul(%q, @scale); %y = matmul(%s, %k)                                 ->  %y = mul(matmul(%q, %k), @scale)
%y = resize(%x) mode=nearest, of a torch module                           ->  %y = resize(%x) inverse=True
%c = concat(%a, %b); %y = relu(%c)                                        ->  %y = concat(relu(%a), relu(%b))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from secateur.ir import Graph, Node, Value
from secateur.ir.graph import dtype_of, prune_dead
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.ops import BINARY, REDUCE

from .moves import MOVE, move
from .post_ops import FUSABLE_UNARY
from .sampling import INVERSE

SHORT = 8  # slices that a sum is taken apart into at most
JOINS = MappingProxyType({"reduce_sum": "add", "reduce_max": "maximum", "reduce_min": "minimum"})
Rewrite = Callable[[Graph, Node], "list[Node] | None"]


def prepare(graph: Graph) -> Graph:
    """The same function; inputs, outputs and their names stay."""
    graph = _fold_constants(graph)
    for rewrite in (_layer_norm, _power, _keep_axis, _by_slices, _without_expand, _scale_after, _before_concat,
                    _same_rank, _as_torch_rounds):  # fmt: skip
        nodes: list[Node] = []
        for node in graph.nodes:
            nodes += rewrite(graph, node) or [node]
        graph = graph.rewrite(nodes=nodes)
    return prune_dead(graph)


def _fold_constants(graph: Graph) -> Graph:
    """Copies of weights are made here."""
    weights, nodes = dict(graph.weights), []
    for node in graph.nodes:
        known = [weights[i] for i in node.inputs if i is not None and i in weights]
        outside = any(v.name in graph.outputs for v in node.outputs)
        if outside or node.op not in MOVE or node.op in {"pad", "resize"} or len(known) < len(node.inputs):
            nodes.append(node)
        else:
            weights |= {v.name: np.ascontiguousarray(move(node, known, v.name)) for v in node.outputs}
    return graph.rewrite(nodes=nodes, weights=weights)


def _made_by(graph: Graph, name: str | None, op: str) -> Node | None:
    node = graph.producer.get(name or "")
    return node if node is not None and node.op == op else None


def _scalar(graph: Graph, name: str | None) -> float | None:
    array = graph.weights.get(name or "")
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and dtype_of(array) == "f32" else None


def _layer_norm(graph: Graph, node: Node) -> list[Node] | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) over the last axis, spelt out."""
    if node.op != "div" or not node.out.shape or node.out.dtype != "f32":
        return None
    centred, root = _made_by(graph, node.inputs[0], "sub"), _made_by(graph, node.inputs[1], "sqrt")
    total = _made_by(graph, root.inputs[0], "add") if root else None
    if centred is None or total is None:
        return None
    eps = [e for e in (_scalar(graph, i) for i in total.inputs) if e is not None]
    variance = [v for v in (_made_by(graph, i, "reduce_mean") for i in total.inputs) if v is not None]
    if len(eps) != 1 or len(variance) != 1 or not _is_square(graph, variance[0].inputs[0], centred.name):
        return None
    x = centred.inputs[0] or ""
    mean = _made_by(graph, centred.inputs[1], "reduce_mean")
    last = len(node.out.shape) - 1
    if mean is None or mean.inputs[0] != x or graph.value(x).shape != node.out.shape:
        return None
    if any(tuple(a % (last + 1) for a in m.attrs["axes"]) != (last,) for m in (mean, variance[0])):
        return None
    return [Node("layer_norm", (x, None, None), node.outputs, {"dims": 1, "eps": eps[0]}, node.source)]


def _is_square(graph: Graph, name: str | None, of: str) -> bool:
    power, product = _made_by(graph, name, "pow"), _made_by(graph, name, "mul")
    if power is not None:
        return power.inputs[0] == of and _scalar(graph, power.inputs[1]) == 2.0
    return product is not None and product.inputs == (of, of)


def _power(graph: Graph, node: Node) -> list[Node] | None:
    """Squares and roots that are spelt as powers."""
    if node.op != "pow":
        return None
    exponent, x = _scalar(graph, node.inputs[1]), node.inputs[0]
    if x in graph.weights or graph.value(x or "").shape != node.out.shape or node.out.dtype != "f32":
        return None
    if exponent == 2.0:
        return [Node("mul", (x, x), node.outputs, {}, node.source)]
    return [Node("sqrt", (x,), node.outputs, {}, node.source)] if exponent == 0.5 else None


def _keep_axis(graph: Graph, node: Node) -> list[Node] | None:
    """A reduction over one axis keeps it, and it is squeezed after."""
    if node.op not in REDUCE or node.attrs["keepdims"] or len(node.attrs["axes"]) != 1 or node.out.dtype != "f32":
        return None
    shape = graph.value(node.inputs[0] or "").shape
    axis = node.attrs["axes"][0] % len(shape)
    kept = Value(f"{node.name}.kept", (*shape[:axis], 1, *shape[axis + 1 :]), node.out.dtype)
    return [
        Node(node.op, node.inputs, (kept,), {**node.attrs, "axes": (axis,), "keepdims": True}, node.source),
        Node("squeeze", (kept.name,), node.outputs, {"axes": (axis,)}, node.source),
    ]


def _by_slices(graph: Graph, node: Node) -> list[Node] | None:
    """A sum over a short leading axis is a sum of slices: of a stack of branches, the branches themselves."""
    if node.op not in JOINS or not node.attrs["keepdims"] or len(node.attrs["axes"]) != 1:
        return None
    x, axis = node.inputs[0] or "", node.attrs["axes"][0]
    shape = graph.value(x).shape
    if x in graph.weights or len(shape) < 4 or not 2 <= shape[axis] <= SHORT or axis != 1:
        return None
    made: list[Node] = []
    total = ""
    for i in range(shape[axis]):
        part = _slice(graph, x, axis, i, node, made, node)
        if total:
            last = i == shape[axis] - 1
            out = node.out if last else Value(f"{node.name}.upto{i}", node.out.shape, node.out.dtype)
            made.append(Node(JOINS[node.op], (total, part), (out,), {}, node.source))
            part = out.name
        total = part
    return made


def _slice(graph: Graph, name: str, axis: int, i: int, node: Node, made: list[Node], reader: Node) -> str:
    """Append the nodes for slice ``i`` of a value; arithmetic that only ``reader`` needs is done on slices."""
    value, by = graph.value(name), graph.producer.get(name)
    if value.shape[axis] == 1:
        return name
    shape = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
    out = Value(f"{node.name}.{name}.{i}", shape, value.dtype)
    if by is not None and by.op in BINARY and graph.users[name] == [reader] and name not in graph.outputs:
        ranks = {len(graph.value(n or "").shape) for n in by.inputs}
        if ranks == {len(shape)} and not any(n in graph.weights for n in by.inputs):
            parts = tuple(_slice(graph, n or "", axis, i, node, made, by) for n in by.inputs)
            made.append(Node(by.op, parts, (out,), by.attrs, by.source))
            return out.name
    made.append(Node("slice", (name,), (out,), {"axes": (axis,), "starts": (i,), "ends": (i + 1,), "steps": (1,)},
                     node.source))  # fmt: skip
    return out.name


def _without_expand(graph: Graph, node: Node) -> list[Node] | None:
    """Arithmetic broadcasts by itself."""
    if node.op not in BINARY:
        return None
    inputs = list(node.inputs)
    for i, name in enumerate(inputs):
        spread = _made_by(graph, name, "expand")
        if spread is None or len(graph.value(spread.inputs[0] or "").shape) != len(node.out.shape):
            continue
        shapes = [graph.value(n or "").shape for n in (*inputs[:i], spread.inputs[0], *inputs[i + 1 :])]
        if np.broadcast_shapes(*shapes) == node.out.shape:
            inputs[i] = spread.inputs[0]
    return [replace(node, inputs=tuple(inputs))] if tuple(inputs) != node.inputs else None


def _scale_after(graph: Graph, node: Node) -> list[Node] | None:
    """A number that scales an operand of a product scales the product instead, where it costs nothing."""
    if node.op != "matmul":
        return None
    for i, name in enumerate(node.inputs):
        scaled = _made_by(graph, name, "mul")
        if scaled is None or graph.users[scaled.name] != [node] or scaled.name in graph.outputs:
            continue
        for which, other in ((0, 1), (1, 0)):
            x = scaled.inputs[other]
            if _scalar(graph, scaled.inputs[which]) is None or graph.value(x or "").shape != scaled.out.shape:
                continue
            inputs = tuple(x if k == i else n for k, n in enumerate(node.inputs))
            product = Value(f"{node.name}.unscaled", node.out.shape, node.out.dtype)
            return [
                Node("matmul", inputs, (product,), node.attrs, node.source),
                Node("mul", (product.name, scaled.inputs[which]), node.outputs, {}, scaled.source),
            ]
    return None


def _before_concat(graph: Graph, node: Node) -> list[Node] | None:
    """An activation of joined values is applied where each is made: it costs nothing there, nor does joining."""
    joined = _made_by(graph, node.inputs[0], "concat") if node.op in FUSABLE_UNARY else None
    if joined is None or graph.users[joined.name] != [node] or joined.name in graph.outputs:
        return None
    parts = [graph.producer.get(name or "") for name in joined.inputs]
    if any(p is None or p.op in MOVE or graph.users[n or ""] != [joined] or n in graph.outputs
           for p, n in zip(parts, joined.inputs, strict=True)):  # fmt: skip
        return None
    made = [
        replace(node, inputs=(name,), outputs=(replace(graph.value(name or ""), name=f"{node.name}.of{i}"),))
        for i, name in enumerate(joined.inputs)
    ]
    return [*made, replace(joined, inputs=tuple(m.name for m in made), outputs=node.outputs)]


def _same_rank(graph: Graph, node: Node) -> list[Node] | None:
    """Computed operands of arithmetic and products get their leading axes of size 1."""
    rank, least = len(node.out.shape), 2 if node.op == "matmul" else 1
    if node.op not in BINARY and node.op != "matmul":
        return None
    made: list[Node] = []
    inputs = list(node.inputs)
    for i, name in enumerate(node.inputs):
        if name is None or name in graph.weights or not least <= len(graph.value(name).shape) < rank:
            continue
        value = graph.value(name)
        lead = rank - len(value.shape)
        wide = Value(f"{node.name}.in{i}", (1,) * lead + value.shape, value.dtype)
        made.append(Node("unsqueeze", (name,), (wide,), {"axes": tuple(range(lead))}, node.source))
        inputs[i] = wide.name
    return [*made, replace(node, inputs=tuple(inputs))] if made else None


def _as_torch_rounds(graph: Graph, node: Node) -> list[Node] | None:
    """A resize to the nearest pixel rounds as the runtime does that the graph is compared with."""
    if node.op != "resize" or graph.note(OnnxOrigin) is not None:
        return None
    kinds = {("nearest", "asymmetric", "floor"), ("nearest", "half_pixel", "round_prefer_ceil")}
    if tuple(node.attrs[k] for k in ("mode", "coordinate", "rounding")) not in kinds:
        return None
    return [replace(node, attrs={**node.attrs, INVERSE: True})]
