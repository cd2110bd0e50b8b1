"""Layers of torch that stay opaque in the IR, as compositions of ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import onnx
from onnx import helper

from secateur.ir.graph import Node

from .calls import arguments
from .emitter import Emitter, Rule, element_type


def _lstm(e: Emitter, node: Node) -> None:
    """``aten.lstm.input(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)``.

    ONNX's LSTM has no projections: a Scan for each layer and direction, which takes any number of steps.
    """
    e.needs(node, 13, "Split by an input")
    a = arguments(node, "input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional",
                  "batch_first")  # fmt: skip
    if a["train"]:
        raise e.unsupported(node, "it is in train mode")
    names = e.ins(node)
    x, states, params = names[a["input"]], [names[i] for i in a["hx"]], [names[i] for i in a["params"]]
    ways, each = 1 + a["bidirectional"], len(a["params"]) // (a["num_layers"] * (1 + a["bidirectional"]))
    x = e.add("Transpose", [x], perm=[1, 0, 2]) if a["batch_first"] else x
    finals: list[tuple[str, str]] = []
    for layer in range(a["num_layers"]):
        rows = []
        for way in range(ways):
            at = layer * ways + way
            weights = params[at * each : (at + 1) * each]
            first = [e.add("Gather", [s, e.scalar(at, "i64")], axis=0) for s in states]
            hidden = e.shape(node, a["params"][at * each])[0] // 4
            y, h, c = _scan(e, x, first, weights, hidden, a["has_biases"], bool(way), e.dtype(node))
            rows.append(y)
            finals.append((e.unsqueeze(h, [0]), e.unsqueeze(c, [0])))
        x = rows[0] if ways == 1 else e.add("Concat", rows, axis=2)
    outs = e.outs(node)
    e.add("Transpose", [x], outs[:1], perm=[1, 0, 2] if a["batch_first"] else [0, 1, 2])
    for out, found in zip(outs[1:], zip(*finals, strict=True), strict=False):
        e.add("Concat", list(found), [out], axis=0)


def _scan(e: Emitter, x: str, first: list[str], weights: list[str], hidden: int, biases: bool, back: bool,
          dtype: str) -> tuple[str, str, str]:  # fmt: skip
    """One direction of a layer of ``[T, B, I]``: its rows ``[T, B, P]`` and the last states. Gates i, f, g, o."""

    def turned(name: str) -> str:
        return e.add("Transpose", [name], perm=[1, 0])

    w, r, *rest = weights
    given = e.add("MatMul", [x, turned(w)])
    for bias in rest[:2] if biases else ():
        given = e.add("Add", [given, bias])
    recurrent, projection = turned(r), rest[2 if biases else 0 :]
    down = turned(projection[0]) if projection else ""
    names = {k: e.fresh(f"{e.label}_{k}") for k in ("h", "c", "x", "i", "f", "g", "o", "hn", "cn", "y")}

    def add(kind: str, *inputs: str) -> str:
        out = e.fresh(f"{e.label}_step")
        nodes.append(helper.make_node(kind, list(inputs), [out]))
        return out

    nodes: list[onnx.NodeProto] = []
    gates = add("Add", names["x"], add("MatMul", names["h"], recurrent))
    quarters = e.numbers([hidden] * 4)
    nodes.append(helper.make_node("Split", [gates, quarters], [names[k] for k in "ifgo"], axis=1))
    i, f, o = (add("Sigmoid", names[k]) for k in "ifo")
    c = add("Add", add("Mul", f, names["c"]), add("Mul", i, add("Tanh", names["g"])))
    h = add("Mul", o, add("Tanh", c))
    h = add("MatMul", h, down) if down else h
    nodes += [helper.make_node("Identity", [v], [names[k]]) for v, k in ((h, "hn"), (c, "cn"), (h, "y"))]
    values = [
        helper.make_tensor_value_info(names[k], element_type(dtype), None) for k in ("h", "c", "x", "hn", "cn", "y")
    ]
    body = helper.make_graph(nodes, e.fresh(f"{e.label}_body"), values[:3], values[3:])
    outs = [e.fresh(f"{e.label}_{k}") for k in ("last", "cell", "rows")]
    e.add("Scan", [*first, given], outs, body=body, num_scan_inputs=1, scan_input_directions=[int(back)],
          scan_output_directions=[int(back)])  # fmt: skip
    return outs[2], outs[0], outs[1]


def _indices(rank: int) -> Rule:
    """``aten.max_pool*d_with_indices(self, kernel, stride, padding, dilation, ceil_mode)``: places in each plane."""

    def form(e: Emitter, node: Node) -> None:
        e.needs(node, 10, "Mod")
        a = arguments(node, "self", "kernel", "stride", "padding", "dilation", "ceil")

        def each(name: str, default: int) -> list[int]:
            found = a.get(name) or [default]
            found = [found] if isinstance(found, int) else list(found)
            return found * rank if len(found) == 1 else found

        x, outs = e.ins(node)[0], e.outs(node)
        lead = rank + 2 - len(e.shape(node))
        if lead:
            raise e.unsupported(node, "a picture without a batch")
        kernel, pad = each("kernel", 1), each("padding", 0)
        places = e.fresh(f"{e.label}_places")
        e.add("MaxPool", [x], [outs[0], places], kernel_shape=kernel, pads=[*pad, *pad], dilations=each("dilation", 1),
              strides=each("stride", 1) if a.get("stride") else kernel, ceil_mode=int(bool(a.get("ceil"))))  # fmt: skip
        plane = e.add("Slice", [e.add("Shape", [x]), e.numbers([2]), e.numbers([rank + 2]), e.numbers([0])])
        e.add("Mod", [places, e.axes("ReduceProd", plane, [0], 18, keepdims=0)], outs[1:])

    return form


def _average(rank: int) -> Rule:
    """``aten.avg_pool*d(self, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)``, sums that are
    divided by one number: of a picture with zeros after it, without the windows that would stand in them alone."""

    def form(e: Emitter, node: Node) -> None:
        e.needs(node, 11, "Pad by an input")
        a = arguments(node, "self", "kernel", "stride", "padding", "ceil", "include", "divisor")
        divisor = a.get("divisor")
        if not divisor or len(e.shape(node)) != rank + 2:
            raise e.unsupported(node, "a mean over windows, or a picture without a batch")

        def each(name: str) -> list[int]:
            found = a.get(name) or (a["kernel"] if name == "stride" else [0])
            found = [found] if isinstance(found, int) else list(found)
            return found * rank if len(found) == 1 else found

        kernel, stride, pad = each("kernel"), each("stride"), each("padding")
        behind = [p + s - 1 for p, s in zip(pad, stride, strict=True)]
        x = e.add("Pad", [e.ins(node)[0], e.numbers([0, 0, *pad, 0, 0, *behind])])
        y = e.add("AveragePool", [x], kernel_shape=kernel, strides=stride)
        y = e.add("Mul", [y, e.scalar(math.prod(kernel) / divisor, e.dtype(node))])
        axes = range(2, rank + 2)
        e.add("Slice", [y, e.numbers([0] * rank), e.ints(node.out.shape[2:]), e.numbers(axes)], e.outs(node))

    return form


def _unpool(e: Emitter, node: Node) -> None:
    """``aten.max_unpool*d(self, indices, output_size, ..)``: zeros, but for the maxima at their places."""
    e.needs(node, 11, "ScatterElements")
    a = arguments(node, "self", "indices", "output_size")
    x, index = e.ins(node)[:2]
    lead = len(e.shape(node)) - len(a["output_size"])
    head = e.add("Slice", [e.add("Shape", [x]), e.numbers([0]), e.numbers([lead]), e.numbers([0])])
    flat = e.add("Concat", [head, e.numbers([-1])], axis=0)
    shape = e.add("Concat", [head, e.ints(a["output_size"])], axis=0)
    zero = helper.make_tensor("zero", element_type(e.dtype(node)), [1], [0.0])
    zeros = e.add("Reshape", [e.add("ConstantOfShape", [shape], value=zero), flat])
    put = e.add("ScatterElements", [zeros, e.add("Reshape", [index, flat]), e.add("Reshape", [x, flat])], axis=lead)
    e.add("Reshape", [put, shape], e.outs(node))


def _bag(e: Emitter, node: Node) -> None:
    """``aten.embedding_bag(weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights,
    include_last_offset, padding_idx)``: rows added to the bags that their positions lie in."""
    e.needs(node, 16, "ScatterND that adds")
    a = arguments(node, "weight", "indices", "offsets", "scale", "mode", "sparse", "per_sample_weights", "last",
                  "padding")  # fmt: skip
    padding = -1 if a.get("padding") is None else a["padding"]
    if a.get("mode", 0) == 2 or padding >= 0:
        raise e.unsupported(node, "bags of maxima, or with padding")
    names, dtype = e.ins(node), e.dtype(node)
    weight, indices, offsets = (names[a[k]] for k in ("weight", "indices", "offsets"))
    if a.get("last"):
        offsets = e.add("Slice", [offsets, e.numbers([0]), e.numbers([-1])])
    rows = e.add("Gather", [weight, indices], axis=0)
    if a.get("per_sample_weights") is not None:
        rows = e.add("Mul", [rows, e.unsqueeze(names[a["per_sample_weights"]], [1])])
    count = e.add("Squeeze", [e.add("Shape", [indices]), e.numbers([0])])
    place = e.add("Range", [e.scalar(0, "i64"), count, e.scalar(1, "i64")])
    offsets = e.cast(offsets, e.dtype(node, a["offsets"]), "i64")
    begun = e.add("GreaterOrEqual", [e.unsqueeze(place, [1]), e.unsqueeze(offsets, [0])])
    bag = e.axes("ReduceSum", e.cast(begun, "b1", "i64"), [1], 13, keepdims=1)
    bag = e.add("Sub", [bag, e.scalar(1, "i64")])
    bags, wide = e.add("Shape", [offsets]), e.numbers([e.shape(node)[1]])

    def summed(values: str, shape: str) -> str:
        return e.add("ScatterND", [e.add("Expand", [e.scalar(0, dtype), shape]), bag, values], reduction="add")

    total = summed(rows, e.add("Concat", [bags, wide], axis=0))
    if a.get("mode", 0) == 1:
        ones = e.add("Expand", [e.scalar(1, dtype), e.add("Shape", [indices])])
        share = e.add("Max", [summed(ones, bags), e.scalar(1, dtype)])
        total = e.add("Div", [total, e.unsqueeze(share, [1])])
    e.add("Identity", [total], e.outs(node)[:1])


FORMS: Mapping[str, Rule] = MappingProxyType(
    {
        "aten.lstm.input": _lstm,
        **{f"aten.avg_pool{rank}d.default": _average(rank) for rank in (2, 3)},
        "aten.max_pool2d_with_indices.default": _indices(2), "aten.max_pool3d_with_indices.default": _indices(3),
        **dict.fromkeys(("aten.max_unpool2d.default", "aten.max_unpool3d.default"), _unpool),
        **dict.fromkeys(("aten.embedding_bag.default", "aten.embedding_bag.padding_idx"), _bag),
    }
)  # fmt: skip
