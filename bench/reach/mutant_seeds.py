"""Small valid ONNX files of every form that there is: attributes, subgraphs, functions, packed and sparse weights.

Mutations start from them; ``outside`` has its weights in a file of its own when it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto
from onnx import helper as h
from onnx import numpy_helper as nh


class Net:
    """Builds a small model; weights are drawn from a seed."""

    def __init__(self, name: str, opset: int = 17) -> None:
        self.graph = GraphProto(name=name)
        self.opset = opset
        self.rng = np.random.default_rng(len(name))

    def input(self, name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> str:
        self.graph.input.append(h.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.rng.standard_normal(shape).astype(np.float32) / 3)

    def const(self, values: Any, dtype: Any = None) -> str:
        name = f"w{len(self.graph.initializer)}"
        self.graph.initializer.append(nh.from_array(np.asarray(values, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def node(self, kind: str, *inputs: str, outs: int = 1, **attrs: Any) -> str:
        names = [f"v{len(self.graph.node)}" + (f"_{i}" if i else "") for i in range(outs)]
        self.graph.node.append(h.make_node(kind, inputs, names, name=f"{kind}_{len(self.graph.node)}", **attrs))
        return names[0]

    def conv(self, x: str, i: int, o: int, k: int = 3, groups: int = 1, **attrs: Any) -> str:
        attrs = {"pads": [k // 2] * 4, **attrs}
        w = self.weight(o, i // groups, k, k)
        return self.node("Conv", x, w, self.weight(o), group=groups, kernel_shape=[k, k], **attrs)

    def head(self, x: str, channels: int) -> ModelProto:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.done(self.node("Gemm", pooled, self.weight(5, channels), self.weight(5), transB=1))

    def done(self, *outputs: str, **fields: Any) -> ModelProto:
        for name in outputs:
            info = ValueInfoProto(name=name)
            info.type.tensor_type.elem_type = TensorProto.FLOAT
            self.graph.output.append(info)
        opsets = [h.make_opsetid("", self.opset), *fields.pop("opsets", [])]
        model = h.make_model(self.graph, opset_imports=opsets, ir_version=8 if self.opset < 21 else 10, **fields)
        return onnx.shape_inference.infer_shapes(model)


def plain() -> ModelProto:
    n = Net("plain")
    x = n.node("Relu", n.conv(n.input("x", 1, 3, 8, 8), 3, 8))
    bn = n.node(
        "BatchNormalization", n.conv(x, 8, 8), n.weight(8), n.weight(8), n.weight(8), n.const(np.ones(8, np.float32))
    )
    x = n.node("MaxPool", n.node("Add", n.node("Relu", bn), x), kernel_shape=[2, 2], strides=[2, 2])
    return n.head(x, 8)


def grouped() -> ModelProto:
    n = Net("grouped", 13)
    x = n.node("Clip", n.conv(n.input("x", "N", 3, "H", "W"), 3, 8), n.const(0, np.float32), n.const(6, np.float32))
    x = n.node("Relu", n.conv(x, 8, 8, groups=8))
    x = n.conv(x, 8, 12, 1, groups=4)
    gate = n.node("Sigmoid", n.conv(n.node("GlobalAveragePool", x), 12, 12, 1))
    return n.head(n.node("Mul", x, gate), 12)


def shuffled() -> ModelProto:
    n = Net("shuffled")
    x = n.conv(n.input("x", "N", 4, 8, 8), 4, 8)
    shape = n.node("Shape", x)
    batch = n.node("Unsqueeze", n.node("Gather", shape, n.const(0, np.int64), axis=0), n.ints(0))
    y = n.node("Reshape", x, n.node("Concat", batch, n.ints(2, 4, 8, 8), axis=0))
    y = n.node("Reshape", n.node("Transpose", y, perm=[0, 2, 1, 3, 4]), n.ints(0, 8, 8, 8))
    parts = n.node("Split", y, n.ints(4, 4), outs=2, axis=1)
    y = n.node("Concat", n.conv(parts, 4, 4), f"{parts}_1", axis=1)
    return n.head(n.node("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]), 8)


def recurrent() -> ModelProto:
    n = Net("recurrent")
    x = n.input("x", 5, 2, 6)
    y = n.node(
        "LSTM",
        x,
        n.weight(1, 32, 6),
        n.weight(1, 32, 8),
        n.weight(1, 64),
        "",
        n.weight(1, 2, 8),
        n.weight(1, 2, 8),
        outs=3,
        hidden_size=8,
    )
    y = n.node("Squeeze", y, n.ints(1))
    y = n.node(
        "GRU",
        y,
        n.weight(2, 12, 8),
        n.weight(2, 12, 4),
        n.weight(2, 24),
        outs=2,
        hidden_size=4,
        direction="bidirectional",
        linear_before_reset=1,
    )
    y = n.node(
        "RNN",
        n.node("Reshape", n.node("Transpose", y, perm=[0, 2, 1, 3]), n.ints(0, 0, -1)),
        n.weight(1, 4, 8),
        n.weight(1, 4, 4),
        outs=2,
        hidden_size=4,
        activations=["Relu"],
    )
    return n.done(n.node("MatMul", y, n.weight(4, 3)))


def branching() -> ModelProto:
    n = Net("branching")
    x = n.conv(n.input("x", 1, 3, 8, 8), 3, 8)
    sides = []
    for kind in ("Relu", "Neg"):
        body = [h.make_node(kind, [x], [f"in_{kind}"]), h.make_node("Add", [f"in_{kind}", f"c_{kind}"], [f"o_{kind}"])]
        info = h.make_tensor_value_info(f"o_{kind}", TensorProto.FLOAT, [1, 8, 8, 8])
        sides.append(h.make_graph(body, kind, [], [info], [nh.from_array(np.ones(1, np.float32), f"c_{kind}")]))
    known = n.node("If", n.const(True, bool), then_branch=sides[0], else_branch=sides[1])
    big = n.node("Greater", n.node("ReduceSum", known, keepdims=0), n.const(0, np.float32))
    for side in sides:
        for item in (*side.node, *side.initializer, *side.output):
            item.name = item.name + "2" if item.name else ""
        for node in side.node:
            node.input[:] = [i if i == x else i + "2" for i in node.input]
            node.output[:] = [o + "2" for o in node.output]
    return n.head(n.node("If", big, then_branch=sides[0], else_branch=sides[1]), 8)


def looping() -> ModelProto:
    n = Net("looping")
    x = n.conv(n.input("x", 1, 3, 8, 8), 3, 8)
    t = h.make_tensor_value_info
    body = h.make_graph(
        [
            h.make_node("Identity", ["go"], ["on"]),
            h.make_node("Relu", ["s"], ["s2"]),
            h.make_node("ReduceMean", ["s2"], ["m"], keepdims=0),
        ],
        "body",
        [t("i", TensorProto.INT64, []), t("go", TensorProto.BOOL, []), t("s", TensorProto.FLOAT, [1, 8, 8, 8])],
        [t("on", TensorProto.BOOL, []), t("s2", TensorProto.FLOAT, [1, 8, 8, 8]), t("m", TensorProto.FLOAT, [])],
    )
    x = n.node("Loop", n.const(3, np.int64), n.const(True, bool), x, outs=2, body=body)
    return n.head(x, 8)


def quantised() -> ModelProto:
    n = Net("quantised")

    def pair(x: str, scale: float) -> str:
        s, z = n.const(scale, np.float32), n.const(0, np.int8)
        return n.node("DequantizeLinear", n.node("QuantizeLinear", x, s, z), s, z)

    x = pair(n.input("x", 1, 3, 8, 8), 0.02)
    w = n.const(n.rng.integers(-99, 99, (8, 3, 3, 3)), np.int8)
    w = n.node("DequantizeLinear", w, n.const(np.full(8, 0.01), np.float32), n.const(np.zeros(8), np.int8), axis=0)
    x = n.node("Relu", n.node("Conv", x, w, n.weight(8), kernel_shape=[3, 3]))
    return n.head(pair(x, 0.05), 8)


def packed() -> ModelProto:
    n = Net("packed", 21)
    x = n.node("Flatten", n.node("GlobalAveragePool", n.conv(n.input("x", "N", 3, 8, 8), 3, 8)))
    small = h.make_tensor("four", TensorProto.INT4, [8, 6], n.rng.integers(-8, 7, 48))
    n.graph.initializer.append(small)
    w = n.node("DequantizeLinear", "four", n.const(np.full((2, 6), 0.1), np.float32), axis=0, block_size=4)
    typed = h.make_tensor("typed", TensorProto.FLOAT, [6], n.rng.standard_normal(6).tolist())
    half = h.make_tensor("half", TensorProto.FLOAT16, [6], n.rng.standard_normal(6).astype(np.float16))
    n.graph.initializer.extend([typed, half])
    y = n.node("Add", n.node("MatMul", x, w), "typed")
    return n.done(n.node("Mul", y, n.node("Cast", "half", to=TensorProto.FLOAT)))


def resized() -> ModelProto:
    n = Net("resized")
    x = n.conv(n.input("x", 1, 3, 8, 8), 3, 8)
    y = n.node(
        "Resize", x, "", n.const([1, 1, 2, 2], np.float32), mode="linear", coordinate_transformation_mode="half_pixel"
    )
    y = n.node("Resize", n.conv(y, 8, 8), "", "", n.ints(1, 8, 8, 8), mode="nearest", nearest_mode="floor")
    up = n.node("ConvTranspose", y, n.weight(8, 4, 2, 2), n.weight(4), kernel_shape=[2, 2], strides=[2, 2])
    y = n.node("SpaceToDepth", n.node("Pad", up, n.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"), blocksize=2)
    y = n.node("DepthToSpace", n.node("InstanceNormalization", y, n.weight(16), n.weight(16)), blocksize=2, mode="CRD")
    return n.head(n.node("LRN", y, size=3), 4)


def attention() -> ModelProto:
    n = Net("attention")
    x = n.node("Reshape", n.conv(n.input("x", "N", 3, 4, 4), 3, 8), n.ints(0, 8, 16))
    x = n.node("LayerNormalization", n.node("Transpose", x, perm=[0, 2, 1]), n.weight(8), n.weight(8), axis=-1)
    q, k, v = (n.node("MatMul", x, n.weight(8, 8)) for _ in range(3))
    weights = n.node(
        "Softmax",
        n.node("Div", n.node("MatMul", q, n.node("Transpose", k, perm=[0, 2, 1])), n.const(2.8, np.float32)),
        axis=-1,
    )
    y = n.node("Add", x, n.node("Einsum", weights, v, equation="bij,bjk->bik"))
    y = n.node("Slice", y, n.ints(0), n.ints(4), n.ints(1), n.ints(1))
    y = n.node("Gather", n.node("Erf", y), n.const([0, 2], np.int64), axis=1)
    return n.done(
        n.node("ReduceMean", y, axes=[1], keepdims=0),
        n.node("Cast", n.node("ArgMax", y, axis=-1), to=TensorProto.FLOAT),
    )


def calling() -> ModelProto:
    n = Net("calling")
    x = n.conv(n.input("x", 1, 3, 8, 8), 3, 8)
    imports = [h.make_opsetid("", 17), h.make_opsetid("own", 1)]
    inner = h.make_function(
        "own",
        "Gate",
        ["a"],
        ["b"],
        [h.make_node("Sigmoid", ["a"], ["g"]), h.make_node("Mul", ["a", "g"], ["b"])],
        imports,
    )
    leaky = h.make_node("LeakyRelu", ["c"], ["d"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    outer = h.make_function(
        "own", "Block", ["a"], ["d"], [h.make_node("Gate", ["a"], ["c"], domain="own"), leaky], imports, ["slope"]
    )
    y = n.node("Block", x, domain="own", slope=0.1)
    y = n.node("Flatten", n.node("GlobalAveragePool", n.conv(y, 8, 8)))
    y = n.node("Gemm", y, n.weight(5, 8), n.weight(5), transB=1)
    return n.done(y, functions=[inner, outer], opsets=[h.make_opsetid("own", 1)])


def sparse() -> ModelProto:
    n = Net("sparse")
    x = n.node("Flatten", n.node("GlobalAveragePool", n.conv(n.input("x", 1, 3, 8, 8), 3, 8)))
    values = nh.from_array(n.rng.standard_normal(5).astype(np.float32), "sparse")
    n.graph.sparse_initializer.append(h.make_sparse_tensor(values, nh.from_array(np.array([0, 7, 9, 20, 31])), [8, 4]))
    model = n.done(n.node("Softmax", n.node("MatMul", x, "sparse"), axis=1))
    for size in (1, 4):  # shape inference knows nothing of sparse weights
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    return model


def old() -> ModelProto:
    n = Net("old", 9)
    x = n.node("Clip", n.conv(n.input("x", 1, 3, 8, 8), 3, 8), min=0.0, max=6.0)
    x = n.node("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="edge")
    x = n.node("Upsample", n.node("PRelu", x, n.weight(8, 1, 1)), n.const([1, 1, 2, 2], np.float32), mode="nearest")
    x = n.node(
        "Unsqueeze", n.node("Squeeze", n.node("ReduceMean", x, axes=[2, 3], keepdims=1), axes=[2, 3]), axes=[2, 3]
    )
    return n.done(n.node("Softmax", n.node("Flatten", n.conv(x, 8, 8, 1)), axis=1))


def folding() -> ModelProto:
    n = Net("folding")
    x = n.conv(n.input("x", 1, 3, 8, 8), 3, 8)
    grid = n.node("Range", n.const(0, np.int64), n.const(8, np.int64), n.const(1, np.int64))
    grid = n.node("Expand", n.node("Unsqueeze", n.node("Cast", grid, to=TensorProto.FLOAT), n.ints(1)), n.ints(8, 8))
    ones = n.node("ConstantOfShape", n.ints(2, 4, 8), value=nh.from_array(np.ones(1, np.float32)))
    tiled = n.node("Reshape", n.node("Tile", ones, n.ints(1, 1, 2)), n.ints(2, 8, 8))
    tiled = n.node("Concat", tiled, n.node("Pad", tiled, n.ints(0, 0, 0, 0, 0, 0)), axis=0)
    hot = n.node("OneHot", n.ints(0, 3, 5), n.const(8, np.int64), n.const([0, 1], np.float32), axis=-1)
    y = n.node("Add", n.node("Mul", x, grid), n.node("ReduceSum", tiled, n.ints(0), keepdims=0))
    y = n.node("Add", n.node("MatMul", y, n.node("Transpose", hot)), n.node("Constant", value_float=0.5))
    return n.head(y, 8)


def outside() -> ModelProto:
    model = plain()
    model.graph.name = "outside"
    return model


SEEDS: tuple[Callable[[], ModelProto], ...] = (
    plain, grouped, shuffled, recurrent, branching, looping, quantised, packed, resized, attention, calling, sparse,
    old, folding, outside,
)  # fmt: skip


@cache
def seeds() -> tuple[bytes, ...]:
    """The valid files, serialised; deterministic."""
    return tuple(make().SerializeToString() for make in SEEDS)
