"""Small ONNX graphs that are more than an operator between convolutions.

Open sizes, scopes, loops, outputs that no node makes, names, shared and odd weights, element types, quantised,
recurrent ones and functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from bench.reach.onnx_net import FAR, I64, Build, F, Net, Table, ints, op, then

Whole = Callable[[Net], ModelProto]
info = helper.make_tensor_value_info


def _dims(g: Net, x: str, first: int, last: int) -> str:
    return g("Slice", g("Shape", x), g.ints(first), g.ints(last))


def _to(size: Callable[[Net, str], str]) -> Build:
    """Halved by a convolution, and resized to what ``size`` computes."""

    def build(g: Net, x: str) -> str:
        small = g.conv(x, 8, 8, strides=[2, 2])
        return g("Resize", small, "", "", g("Concat", _dims(g, small, 0, 2), size(g, x), axis=0), mode="linear")

    return build


def _by_floats(g: Net, x: str) -> str:
    wide = g("Mul", g("Cast", _dims(g, x, 2, 4), to=F), g.const(1.5, np.float32))
    return g("Cast", g("Floor", wide), to=I64)


def _shuffle(g: Net, x: str) -> str:
    parted = g("Reshape", x, g("Concat", _dims(g, x, 0, 1), g.ints(2, 4), _dims(g, x, 2, 4), axis=0))
    return g("Reshape", g("Transpose", parted, perm=[0, 2, 1, 3, 4]), g("Shape", x))


def _pixels(g: Net, x: str) -> str:
    rows = g("Transpose", g("Reshape", x, g.ints(0, 8, -1)), perm=[0, 2, 1])
    mixed = g("Relu", g("MatMul", rows, g.drawn(8, 8)))
    return g("Reshape", g("Transpose", mixed, perm=[0, 2, 1]), g("Shape", x))


def _columns(g: Net, x: str) -> str:
    wide = g("Gather", g("Shape", x), g.const(3))
    steps = g("Cast", g("Range", g.const(0), wide, g.const(1)), to=F)
    return g("Add", x, g("Div", steps, g("Cast", wide, to=F)))


def _branch(g: Net, x: str) -> str:
    sides = {
        f"{side}_branch": helper.make_graph([helper.make_node(kind, [x], ["r"])], side, [], [info("r", F, None)])
        for side, kind in (("then", "Neg"), ("else", "Abs"))
    }
    return g("If", g("Squeeze", g("Greater", _dims(g, x, 2, 3), g.ints(64))), **sides)


def _tile(g: Net, x: str) -> str:
    return g("Tile", g("ReduceMax", x, axes=[3]), g("Concat", g.ints(1, 1, 1), _dims(g, x, 3, 4), axis=0))


OPEN: dict[str, Build] = {
    "resize to the skip": _to(lambda g, x: _dims(g, x, 2, 4)),
    "resize to more": _to(lambda g, x: g("Add", g("Mul", _dims(g, x, 2, 4), g.ints(2)), g.ints(1))),
    "resize by floats": _to(_by_floats), "shuffle": _shuffle, "pixels": _pixels, "columns": _columns,
    "expand": lambda g, x: g("Expand", g("ReduceMean", x, axes=[2, 3]), g("Shape", x)), "tile": _tile,
    "crop": lambda g, x: g("Slice", x, g.ints(0), g("Div", _dims(g, x, 2, 3), g.ints(2)), g.ints(2)),
    "strided": op("Slice", ints(1), ints(FAR), ints(3), ints(2)),
    "pools up": op("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1] * 4),
    "same": lambda g, x: g.conv(x, 8, 8, auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower": op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "last row": lambda g, x: g("Add", x, g("Gather", x, g.ints(-1), axis=2)), "branch": _branch,
    "by the count": lambda g, x: g("Div", x, g("Cast", g("ReduceProd", _dims(g, x, 2, 4), keepdims=0), to=F)),
    "by the root": lambda g, x: g("Div", x, g("Sqrt", g("Cast", _dims(g, x, 3, 4), to=F))),
}  # fmt: skip


def _picture(build: Build) -> Whole:
    return lambda g: g.model(g.conv(g.conv(build(g, g.conv("x", 3, 8)), 8, 8), 8, 4, 1, act=""))


def _frames(g: Net) -> ModelProto:
    length = g("Gather", g("Shape", "x"), g.const(2))
    y = g.conv(g.conv("x", 8, 16, d=1), 16, 4, 1, 1)
    return g.model(y, (g("Div", length, g.const(320)), I64))


def _recurrent(kind: str, gates: int, **attrs: Any) -> Whole:
    def build(g: Net) -> ModelProto:
        ways = 2 if attrs["direction"] == "bidirectional" else 1
        steps = g("Transpose", g.conv("x", 8, 8, d=1), perm=[2, 0, 1])
        weights = g.drawn(ways, gates * 6, 8), g.drawn(ways, gates * 6, 6), g.drawn(ways, gates * 12)
        y = g(kind, steps, *weights, hidden_size=6, **attrs)
        flat = g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
        return g.model(g("MatMul", flat, g.drawn(ways * 6, 4)))

    return build


def open_sizes(t: Table) -> None:
    """What follows the size of the input, at sizes that are no multiples of each other."""
    for name, body in OPEN.items():
        t.sized(f"open {name}", _picture(body), ("N", 3, "H", "W"), ((1, 3, 64, 64), (2, 3, 65, 33), (1, 3, 147, 90)))
    series = ((1, 8, 300), (2, 8, 37), (1, 8, 1601))
    t.sized("open frames", _frames, ("N", 8, "T"), series)
    for (kind, gates), way in itertools.product(
        (("LSTM", 4), ("GRU", 3), ("RNN", 1)), ("forward", "reverse", "bidirectional")
    ):
        t.sized(f"open {kind} {way}", _recurrent(kind, gates, direction=way), ("N", 8, "T"), series, "100%")


def _scopes(*choices: bool) -> Whole:
    """Branches with weights of one name; the conditions are known."""

    def side(g: Net, x: str) -> Any:
        weight = numpy_helper.from_array((g.rng.standard_normal((8, 8, 1, 1)) * 0.3).astype(np.float32), "weight")
        node = helper.make_node("Conv", [x, "weight"], ["r"])
        return helper.make_graph([node], "side", [], [info("r", F, None)], [weight])

    def build(g: Net) -> ModelProto:
        y = g.conv("x", 3, 8)
        for choice in choices:
            y = g("Relu", g("If", g.const(choice, bool), then_branch=side(g, y), else_branch=side(g, y)))
        return g.model(g.conv(y, 8, 4))

    return build


def _loop(g: Net) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Mul", ["v", "half"], ["v2"])], "body",
        [info("i", I64, []), info("c", TensorProto.BOOL, []), info("v", F, None)],
        [info("c2", TensorProto.BOOL, []), info("v2", F, None)],
        [numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )  # fmt: skip
    y = g("Loop", g.const(3), g.const(True, bool), g.conv("x", 3, 8), body=body)
    return g.model(g.conv(g.conv(y, 8, 8), 8, 4))


ONES = numpy_helper.from_array(np.ones(3, np.float32))
OUTPUTS: dict[str, Build] = {
    "a weight": lambda g, y: "k0", "an unread weight": lambda g, y: g.const([1.0, 2.0], np.float32, "table"),
    "the input": lambda g, y: "x", "a constant": lambda g, y: g("Constant", value=ONES), "inside": lambda g, y: y,
    "a copy of the input": lambda g, y: g("Identity", "x"), "a number": op("ReduceMean", keepdims=0),
}  # fmt: skip


def _with_output(extra: Build) -> Whole:
    def build(g: Net) -> ModelProto:
        y = g.conv(g.conv("x", 3, 8), 8, 8)
        return g.model(g.conv(g.conv(y, 8, 8), 8, 4), extra(g, y))

    return build


def _twice(g: Net) -> ModelProto:
    y = g.conv(g.conv("x", 3, 8), 8, 4)
    return g.model(y, y)


def _shape_out(g: Net) -> ModelProto:
    y = g.conv("x", 3, 8)
    return g.model(g.conv(y, 8, 4), (g("Shape", y), I64))


def outputs(t: Table) -> None:
    """Scopes, loops and outputs."""
    for choices in itertools.product((True, False), (True, False)):
        t.whole(f"scopes {choices}", _scopes(*choices))
    t.whole("loop", _loop)
    for name, extra in OUTPUTS.items():
        t.whole(f"output {name}", _with_output(extra))
    t.whole("output twice", _twice)
    t.whole("output a shape", _shape_out)


def _odd_names(g: Net) -> ModelProto:
    y = g("Conv", "x", g.drawn(8, 3, 3, 3, name="a b,(c)=#'\"d"), out="%1 = {x} [y]; z")
    return g.model(g("Conv", g("Relu", y, out="@w"), g.drawn(4, 8, 1, 1, name="д"), out="out\tput"))


def _shared(g: Net) -> ModelProto:
    weight, bias, y = g.drawn(8, 8, 3, 3), g.drawn(8), g.conv("x", 3, 8)
    for _ in range(2):
        y = g("Relu", g("Conv", y, weight, bias, pads=[1] * 4))
    return g.model(g.conv(y, 8, 4))


def _sparse(grid: bool) -> Whole:
    def build(g: Net) -> ModelProto:
        drawn = g.rng.standard_normal((8, 3, 3, 3))
        full = np.where(g.rng.random(drawn.shape) < 0.3, drawn, 0).astype(np.float32)
        places = np.asarray(np.argwhere(full) if grid else np.flatnonzero(full), np.int64)
        values = numpy_helper.from_array(full[full != 0], "w")
        g.sparse.append(helper.make_sparse_tensor(values, numpy_helper.from_array(places, "at"), full.shape))
        return g.model(g.conv(g("Relu", g("Conv", "x", "w")), 8, 4))

    return build


def _of_nodes(g: Net) -> ModelProto:
    first = g("Transpose", g.drawn(3, 3, 3, 8), perm=[3, 0, 1, 2])
    second = g("Mul", g.drawn(4, 8, 1, 1), g.drawn(4, 1, 1, 1))
    return g.model(g("Conv", g("Relu", g("Conv", "x", first)), second))


def _cast(kind: Any) -> Whole:
    def build(g: Net) -> ModelProto:
        first, second = (
            g("Cast", g.const(g.rng.standard_normal(s) * 0.3, kind), to=F) for s in ((8, 3, 3, 3), (4, 8, 1, 1))
        )
        return g.model(g("Conv", g("Relu", g("Conv", "x", first)), second))

    return build


def _packed(kind: int, count: int) -> Whole:
    def build(g: Net) -> ModelProto:
        g.tensors.append(helper.make_tensor("q", kind, [16, count], [i % 7 for i in range(16 * count)]))
        y = g("Flatten", g("GlobalAveragePool", g.conv(g.conv("x", 3, 8), 8, 16)))
        y = g("MatMul", y, g("DequantizeLinear", "q", g.const(0.1, np.float32)))
        return g.model(g("MatMul", g("Relu", y), g.drawn(count, 4)))

    return build


def _quantised(channels: bool) -> Whole:
    def weight(g: Net, outer: int, inner: int) -> str:
        scale = np.asarray(g.rng.random(outer) * 0.01 + 0.002 if channels else 0.004, np.float32)
        array, zero = g.const(g.rng.integers(-127, 127, (outer, inner, 3, 3)), np.int8), np.zeros_like(scale)
        return g("DequantizeLinear", array, g.const(scale, np.float32), g.const(zero, np.int8), axis=0)

    def through(g: Net, x: str) -> str:
        scale, zero = g.const(0.05, np.float32), g.const(128, np.uint8)
        return g("DequantizeLinear", g("QuantizeLinear", x, scale, zero), scale, zero)

    def build(g: Net) -> ModelProto:
        y = through(g, "x")
        for inner, outer in ((3, 8), (8, 16)):
            y = through(g, g("Relu", g("Conv", y, weight(g, outer, inner), pads=[1] * 4)))
        return g.model(g("Conv", y, weight(g, 4, 16), pads=[1] * 4))

    return build


def _function(g: Net) -> ModelProto:
    """A function of the file with an attribute, called twice."""
    leaky = helper.make_node("LeakyRelu", ["c"], ["Y"])
    leaky.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    body = [helper.make_node("Conv", ["X", "W"], ["c"], pads=[1] * 4), leaky]
    made = helper.make_function("own", "Block", ["X", "W"], ["Y"], body, [helper.make_opsetid("", 17)], ["slope"])
    y = g("Block", "x", g.drawn(8, 3, 3, 3), domain="own", slope=0.3)
    model = g.model(g.conv(g("Block", y, g.drawn(8, 8, 3, 3), domain="own", slope=0.1), 8, 4))
    model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def weights(t: Table) -> None:
    """Names, weights of every kind, element types, quantised graphs, functions."""
    t.whole("odd names", _odd_names)
    t.whole("shared weight", _shared)
    t.whole("sparse weight", _sparse(False))
    t.whole("sparse weight by coordinates", _sparse(True))
    t.whole("weights of nodes", _of_nodes)
    t.whole("half precision weights", _cast(np.float16))
    t.whole("bfloat16 weights", _cast(ml_dtypes.bfloat16))
    t.whole("half precision", lambda g: g.model(g.conv(g.conv("x", 3, 8), 8, 4)), dtype=np.float16)
    for kind, count in itertools.product((int(TensorProto.INT4), int(TensorProto.UINT4)), (7, 8)):
        t.whole(f"four bits {kind} {count}", _packed(kind, count), 21)
    t.whole("quantised", _quantised(False), 13)
    t.whole("quantised by channel", _quantised(True), 13)
    t.whole("function", _function)
    t.whole("old softmax", lambda g: _picture(then(op("Softmax", axis=1)))(g), 11)


def extend(t: Table) -> Table:
    """The table with all of these too."""
    for add in (open_sizes, outputs, weights):
        add(t)
    return t
