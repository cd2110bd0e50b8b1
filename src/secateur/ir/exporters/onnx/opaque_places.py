"""Calls of torch that write to places that tensors tell, or go along an axis step by step, as ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnx import helper

from secateur.ir.graph import Node

from .calls import arguments
from .emitter import Emitter, Rule, element_type

REDUCTIONS: Mapping[str, str] = MappingProxyType(
    {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}
)
NEUTRAL: Mapping[str, float] = MappingProxyType({"add": 0.0, "mul": 1.0, "max": float("-inf"), "min": float("inf")})


def _scatter(e: Emitter, node: Node) -> None:
    """``aten.scatter*(self, dim, index, src or value, reduce, include_self)``."""
    a = arguments(node, "self", "dim", "index", "src", "reduce")
    target = str(node.attrs["target"])
    kind = "sum" if "scatter_add" in target else a.get("reduce")
    how = None if kind is None else REDUCTIONS.get(kind)
    if kind is not None and how is None:
        raise e.unsupported(node, f"a reduction by {kind}")
    e.needs(node, 18 if how in ("max", "min") else 16 if how else 11, "ScatterElements")
    names = e.ins(node)
    x, index = names[a["self"]], names[a["index"]]
    if "value" in target:
        number = e.scalar(float(a["value"] if "value" in a else a["src"]), e.dtype(node))
        source = e.add("Expand", [number, e.add("Shape", [index])])
    else:
        source = names[a["src"]]
        if e.shape(node, a["src"]) != e.shape(node, a["index"]):
            raise e.unsupported(node, "its source is larger than its index")
    _elements(e, node, x, index, source, a["dim"], how, bool(a.get("include_self", True)))


def _elements(e: Emitter, node: Node, x: str, index: str, source: str, axis: int, how: str | None,
              own: bool = True) -> None:  # fmt: skip
    """ScatterElements; without what stood there before where it is not to count: that becomes neutral first."""
    if how and not own:
        neutral = e.add("Expand", [e.scalar(NEUTRAL[how], e.dtype(node)), e.add("Shape", [index])])
        x = e.add("ScatterElements", [x, index, neutral], axis=axis)
    e.add("ScatterElements", [x, index, source], e.outs(node), axis=axis, reduction=how)


def _index_add(e: Emitter, node: Node) -> None:
    """``aten.index_add(self, dim, index, source, alpha)``: rows added to those that an index names."""
    e.needs(node, 16, "ScatterElements that adds")
    a = arguments(node, "self", "dim", "index", "source")
    if a.get("alpha", 1) != 1:
        raise e.unsupported(node, "alpha")
    names, rank = e.ins(node), len(e.shape(node))
    axis = a["dim"] % rank
    x, source = names[a["self"]], names[a["source"]]
    standing = e.add("Reshape", [names[a["index"]], e.numbers([-1 if i == axis else 1 for i in range(rank)])])
    _elements(e, node, x, e.add("Expand", [standing, e.add("Shape", [source])]), source, axis, "add")


def _index_put(e: Emitter, node: Node) -> None:
    """``aten.index_put(self, indices, values, accumulate)`` by tensors of integers for the leading axes."""
    a = arguments(node, "self", "indices", "values", "accumulate")
    e.needs(node, 16 if a.get("accumulate") else 11, "ScatterND")
    if any(i is None or e.dtype(node, i) == "b1" for i in a["indices"]):
        raise e.unsupported(node, "an assignment by a mask, or after whole axes")
    names = e.ins(node)
    index = [e.cast(names[i], e.dtype(node, i), "i64") for i in a["indices"]]
    total = index[0]
    for one in index[1:]:  # what they broadcast to
        total = e.add("Add", [total, one])
    shape = e.add("Shape", [total])
    places = [e.unsqueeze(e.add("Expand", [one, shape]), [-1]) for one in index]
    where = places[0] if len(places) == 1 else e.add("Concat", places, axis=-1)
    rest = e.add("Slice", [e.add("Shape", [names[a["self"]]]), e.numbers([len(index)]), e.numbers([1 << 31]),
                           e.numbers([0])])  # fmt: skip
    values = e.add("Expand", [names[a["values"]], e.add("Concat", [shape, rest], axis=0)])
    how = "add" if a.get("accumulate") else None
    e.add("ScatterND", [names[a["self"]], where, values], e.outs(node), reduction=how)


def _cumprod(e: Emitter, node: Node) -> None:
    """``aten.cumprod(self, dim)``: a Scan that hands the product on."""
    e.needs(node, 9, "Scan")
    axis = arguments(node, "self", "dim")["dim"] % len(e.shape(node))
    x, kind = e.ins(node)[0], element_type(e.dtype(node))
    first = e.add("Gather", [x, e.scalar(0, "i64")], axis=axis)
    ones = e.add("Expand", [e.scalar(1, e.dtype(node)), e.add("Shape", [first])])
    upto, step, after, row = (e.fresh(f"{e.label}_{k}") for k in ("upto", "step", "after", "row"))
    nodes = [helper.make_node("Mul", [upto, step], [after]), helper.make_node("Identity", [after], [row])]
    values = [helper.make_tensor_value_info(name, kind, None) for name in (upto, step, after, row)]
    body = helper.make_graph(nodes, e.fresh(f"{e.label}_body"), values[:2], values[2:])
    outs = [e.fresh(f"{e.label}_product"), *e.outs(node)]
    e.add("Scan", [ones, x], outs, body=body, num_scan_inputs=1, scan_input_axes=[axis], scan_output_axes=[axis])


def _ordered(middle: bool) -> Rule:
    """``aten.median(self, dim, keepdim)``, the lower of two, or ``aten.kthvalue(self, k, dim, keepdim)``."""

    def form(e: Emitter, node: Node) -> None:
        e.needs(node, 11, "TopK of the smallest")
        a = arguments(node, "self", "dim", "keepdim") if middle else arguments(node, "self", "k", "dim", "keepdim")
        axis = a.get("dim", -1) % len(e.shape(node))
        (size,) = e.static(node, [e.shape(node)[axis]], "how many it orders")
        count = (size - 1) // 2 + 1 if middle else a["k"]
        found = [e.fresh(f"{e.label}_least"), e.fresh(f"{e.label}_places")]
        e.add("TopK", [e.ins(node)[0], e.numbers([count])], found, axis=axis, largest=0, sorted=1)
        last = e.numbers([count - 1]) if a.get("keepdim") else e.scalar(count - 1, "i64")
        for name, out in zip(found, e.outs(node), strict=False):
            e.add("Gather", [name, last], [out], axis=axis)

    return form


def _col2im(e: Emitter, node: Node) -> None:
    """``aten.col2im(self, output_size, kernel_size, dilation, padding, stride)``: windows added up."""
    e.needs(node, 18, "Col2Im")
    a = arguments(node, "self", "output_size", "kernel_size", "dilation", "padding", "stride")
    e.add("Col2Im", [e.ins(node)[0], e.ints(a["output_size"]), e.ints(a["kernel_size"])], e.outs(node),
          dilations=list(a["dilation"]), pads=[*a["padding"], *a["padding"]], strides=list(a["stride"]))  # fmt: skip


PLACES: Mapping[str, Rule] = MappingProxyType(
    {
        **{f"aten.{name}": _scatter for name in (
            "scatter.src", "scatter.value", "scatter_add.default", "scatter_reduce.two")},
        "aten.index_add.default": _index_add,
        **dict.fromkeys(("aten.index_put.default", "aten.index_put_.default"), _index_put),
        "aten.cumprod.default": _cumprod, "aten.median.dim": _ordered(True), "aten.kthvalue.default": _ordered(False),
        "aten.col2im.default": _col2im,
    }
)  # fmt: skip
