"""ONNX networks with dynamic axes: what exporters compute of sizes, each on the way of a network's channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

F, INT = TensorProto.FLOAT, TensorProto.INT64


class Net:
    """Grows an ONNX graph; every method returns the name of what it made. ``x`` is the input."""

    def __init__(self, *shape: int | str, opset: int = 17) -> None:
        self.shape, self.opset = shape, opset
        self.nodes: list[Any] = []
        self.tensors: list[TensorProto] = []
        self.rng = np.random.default_rng(3)

    def __call__(self, kind: str, *inputs: str, **attrs: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{kind}_{len(self.nodes)}", **attrs))
        return out

    def const(self, value: Any, kind: Any = np.int64) -> str:
        self.tensors.append(numpy_helper.from_array(np.array(value, kind), f"k{len(self.tensors)}"))
        return self.tensors[-1].name

    def drawn(self, *shape: int) -> str:
        return self.const(self.rng.standard_normal(shape) * 0.4, np.float32)

    def conv(self, x: str, inside: int, outside: int, kernel: int = 3, **attrs: Any) -> str:
        attrs = {"pads": [kernel // 2] * 4} | attrs if "auto_pad" not in attrs else attrs
        return self("Relu", self("Conv", x, self.drawn(outside, inside, kernel, kernel), **attrs))

    def dim(self, x: str, axis: int) -> str:
        """A size as a vector of one element."""
        return self("Gather", self("Shape", x), self.const([axis]))

    def dims(self, x: str, first: int, last: int) -> str:
        return self("Slice", self("Shape", x), self.const([first]), self.const([last]))

    def join(self, *parts: str) -> str:
        return self("Concat", *parts, axis=0)

    def model(self, *outputs: str, kinds: Sequence[int] = ()) -> ModelProto:
        types = [*kinds, *[F] * (len(outputs) - len(kinds))]
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", F, self.shape)],
            [helper.make_tensor_value_info(o, t, None) for o, t in zip(outputs, types, strict=True)], self.tensors,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


IMAGE: tuple[int | str, ...] = ("N", 3, "H", "W")
Made = Callable[[], ModelProto]


def picture(build: Callable[[Net, str], str], opset: int = 17) -> Made:
    """A layer before and one after what is tried; 8 channels go through it."""

    def make() -> ModelProto:
        g = Net(*IMAGE, opset=opset)
        return g.model(g.conv(build(g, g.conv("x", 3, 8)), 8, 4, 1))

    return make


def series(build: Callable[[Net], Sequence[str]], kinds: Sequence[int] = ()) -> Made:
    def make() -> ModelProto:
        g = Net("N", 8, "T")
        return g.model(*build(g), kinds=kinds)

    return make


# -- what is tried ---------------------------------------------------------------------------------------------
def _resize(size: Callable[[Net, str], str]) -> Callable[[Net, str], str]:
    """Resize to what ``size`` computes as a vector of height and width."""

    def build(g: Net, x: str) -> str:
        small = g.conv(x, 8, 8, strides=[2, 2])
        target = g.join(g.dims(small, 0, 2), size(g, x))
        return g("Resize", small, "", "", target, mode="linear")

    return build


def _halved(g: Net, x: str) -> str:
    wide = g("Cast", g.dims(x, 2, 4), to=F)
    return g("Cast", g("Floor", g("Mul", wide, g.const(0.5, np.float32))), to=INT)


def _shuffle(g: Net, x: str) -> str:
    target = g.join(g.dim(x, 0), g.const([2, 4]), g.dims(x, 2, 4))
    return g("Reshape", g("Transpose", g("Reshape", x, target), perm=[0, 2, 1, 3, 4]), g("Shape", x))


def _tokens(g: Net, x: str) -> str:
    """Pixels as rows and back."""
    pixels = g("Mul", g.dim(x, 2), g.dim(x, 3))
    rows = g("Transpose", g("Reshape", x, g.join(g.dim(x, 0), g.const([8]), pixels)), perm=[0, 2, 1])
    mixed = g("Relu", g("MatMul", rows, g.drawn(8, 8)))
    return g("Reshape", g("Transpose", mixed, perm=[0, 2, 1]), g.join(g.dim(x, 0), g.const([8]), g.dims(x, 2, 4)))


def _windows(g: Net, x: str) -> str:
    """Pad to whole windows of 4, part, join, and cut what was added."""
    four, zero = g.const([4]), g.const([0])
    more = g("Mod", g("Sub", four, g("Mod", g.dims(x, 2, 4), four)), four)
    padded = g("Pad", x, g.join(zero, zero, zero, zero, zero, zero, more))
    n, c = g.dim(x, 0), g.const([8])
    high, wide = g("Div", g.dim(padded, 2), four), g("Div", g.dim(padded, 3), four)
    parts = g("Reshape", padded, g.join(n, c, high, four, wide, four))
    parts = g("Transpose", parts, perm=[0, 2, 4, 1, 3, 5])
    parts = g("Relu", g("Reshape", parts, g.join(g("Mul", g("Mul", n, high), wide), c, four, four)))
    whole = g("Transpose", g("Reshape", parts, g.join(n, high, wide, c, four, four)), perm=[0, 3, 1, 4, 2, 5])
    whole = g("Reshape", whole, g("Shape", padded))
    return g("Slice", whole, g.const([0, 0]), g.dims(x, 2, 4), g.const([2, 3]))


def _grid(g: Net, x: str) -> str:
    """Columns are told where they are."""
    steps = g("Range", g.const(0), g("Squeeze", g.dim(x, 3), g.const([0])), g.const(1))
    places = g("Div", g("Cast", steps, to=F), g("Cast", g.dim(x, 3), to=F))
    return g("Add", x, g("Reshape", places, g.const([1, 1, 1, -1])))


def _expanded(g: Net, x: str) -> str:
    """As PyTorch writes ``expand(-1, -1, h, w)``."""
    mean = g("ReduceMean", x, axes=[2, 3])
    wanted = g.join(g.const([-1, -1]), g.dims(x, 2, 4))
    ones = g("ConstantOfShape", g.const([4]), value=helper.make_tensor("one", INT, [1], [1]))
    return g("Expand", mean, g("Where", g("Equal", wanted, g("Mul", ones, g.const(-1))), ones, wanted))


def _branch(g: Net, x: str) -> str:
    sides = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, [x], [name])], name, [], [helper.make_tensor_value_info(name, F, None)]
        )
        for name, kind in (("then", "Neg"), ("else", "Abs"))
    }
    return g("If", g("Squeeze", g("Greater", g.dim(x, 2), g.const([40])), g.const([0])), **sides)


def _scores(g: Net) -> Sequence[str]:
    """A product scaled by the root of how many steps there are."""
    root = g("Sqrt", g("Cast", g.dim("x", 2), to=F))
    return [g("Div", g("MatMul", g("Transpose", "x", perm=[0, 2, 1]), "x"), root)]


def _state(g: Net) -> Sequence[str]:
    """A recurrent layer whose initial state is as wide as the batch."""
    steps = g("Transpose", "x", perm=[2, 0, 1])
    zeros = g("ConstantOfShape", g.join(g.const([1]), g.dim(steps, 1), g.const([5])))
    hidden = g("GRU", steps, g.drawn(1, 15, 8), g.drawn(1, 15, 5), g.drawn(1, 30), "", zeros, hidden_size=5)
    return [g("MatMul", g("Squeeze", hidden, g.const([1])), g.drawn(5, 3))]


def _frames(g: Net) -> Sequence[str]:
    length = g("Gather", g("Shape", "x"), g.const(2))
    return [g("Div", length, g.const(320)), g("Add", g("Div", length, g.const(7)), g.const(1)), g("Relu", "x")]


def _table(g: Net) -> Sequence[str]:
    """As many rows of a table of 4096 as there are steps."""
    rows = g("Slice", g.drawn(1, 8, 4096), g.const([0]), g.dim("x", 2), g.const([2]))
    return [g("Add", "x", rows)]


def _cut(starts: list[int], ends: list[int], steps: list[int]) -> Callable[[Net], Sequence[str]]:
    def build(g: Net) -> Sequence[str]:
        taken = g("Slice", "x", g.const(starts), g.const(ends), g.const([2]), g.const(steps))
        return [g("Reshape", taken, g.join(g.dim(taken, 0), g.const([4, 2]), g.dim(taken, 2))), g("Shape", taken)][::-1]

    return build


END = (1 << 63) - 1
NETS: dict[str, Made] = {
    "resize to the skip": picture(_resize(lambda g, x: g.dims(x, 2, 4))),
    "resize to twice and one": picture(
        _resize(lambda g, x: g("Add", g("Mul", g.dims(x, 2, 4), g.const([2])), g.const([1])))
    ),
    "resize to half in floating point": picture(_resize(_halved)),
    "resize to 0.7 of it": picture(
        _resize(lambda g, x: g("Cast", g("Mul", g("Cast", g.dims(x, 2, 4), to=F), g.const(0.7, np.float32)), to=INT))
    ),
    "resize to at most 50": picture(_resize(lambda g, x: g("Min", g.dims(x, 2, 4), g.const([50, 50])))),
    "resize by 1.5": picture(lambda g, x: g("Resize", x, "", g.const([1, 1, 1.5, 1.5], np.float32), mode="linear")),
    "resize in operator set 11": picture(
        lambda g, x: g("Resize", x, g.const([], np.float32), g.const([], np.float32), g("Shape", x), mode="nearest"), 11
    ),
    "shuffle": picture(_shuffle),
    "shuffle in operator set 9": picture(
        lambda g, x: g("Reshape", g("Reshape", x, g.const([0, 2, 4, -1])), g("Shape", x)), 9
    ),
    "tokens": picture(_tokens),
    "windows": picture(_windows),
    "grid": picture(_grid),
    "expand": picture(_expanded),
    "expand to a shape": picture(lambda g, x: g("Expand", g("ReduceMean", x, axes=[2, 3]), g("Shape", x))),
    "branch by size": picture(_branch),
    "tile": picture(lambda g, x: g("Tile", g("ReduceMax", x, axes=[3]), g.join(g.const([1, 1, 1]), g.dim(x, 3)))),
    "halves": picture(lambda g, x: g("Concat", *_parts(g, x), axis=3)),
    "crop by its size": picture(
        lambda g, x: g("Slice", x, g.const([0]), g("Sub", g.dim(x, 2), g.const([3])), g.const([2]))
    ),
    "crop to a third": picture(
        lambda g, x: g("Slice", x, g.const([0]), g("Div", g.dim(x, 3), g.const([3])), g.const([3]))
    ),
    "automatic padding": picture(lambda g, x: g.conv(x, 8, 8, auto_pad="SAME_UPPER", strides=[2, 2])),
    "automatic padding of pools": picture(
        lambda g, x: g("AveragePool", x, kernel_shape=[3, 2], auto_pad="SAME_LOWER", strides=[2, 3])
    ),
    "pools that round up": picture(
        lambda g, x: g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])
    ),
    "flatten": picture(lambda g, x: g("Reshape", g("Flatten", x, axis=2), g("Shape", x))),
    "softmax over rows": picture(lambda g, x: g("Softmax", x, axis=2), 11),
    "count of pixels": picture(
        lambda g, x: g("Div", x, g("Cast", g("ReduceProd", g.dims(x, 2, 4), keepdims=0), to=F))
    ),
    "last row": picture(lambda g, x: g("Add", x, g("Unsqueeze", g("Gather", x, g.const(-1), axis=2), g.const([2])))),
    "rows by an index from the end": picture(lambda g, x: g("Add", x, g("Gather", x, g.const([-2]), axis=2))),
    "frames": series(_frames, (INT, INT)),
    "scores": series(_scores),
    "state": series(_state),
    "rows of a table": series(_table),
    "cut the last": series(_cut([0], [-1], [1]), (INT,)),
    "cut the first": series(_cut([2], [END], [1]), (INT,)),
    "cut at 300": series(_cut([0], [300], [1]), (INT,)),
    "the last 100": series(_cut([-100], [END], [1]), (INT,)),
    "every third": series(_cut([1], [END], [3]), (INT,)),
    "backwards": series(_cut([-1], [-END], [-1]), (INT,)),
    "backwards by two from 50": series(_cut([50], [-END], [-2]), (INT,)),
}  # fmt: skip


def _parts(g: Net, x: str) -> list[str]:
    """The right half, then the left."""
    half = g("Div", g.dim(x, 3), g.const([2]))
    axis = g.const([3])
    return [g("Slice", x, half, g.const([END]), axis), g("Slice", x, g.const([0]), half, axis)]
