"""A small language for ONNX graphs: a net that grows, operators with their arguments, and a table of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
Feeds = Callable[[], Sequence[dict[str, Array]]] | None
Case = tuple[Callable[[], ModelProto], Feeds, str]  # what makes the model, what it is fed (None: drawn), the budget
F, I64 = TensorProto.FLOAT, TensorProto.INT64
FAR = (1 << 63) - 1


class Net:
    """Grows a graph; a call appends a node and returns its output."""

    def __init__(self, opset: int = 17, dtype: Any = np.float32, **inputs: Sequence[int | str]) -> None:
        self.opset, self.dtype, self.rng = opset, dtype, np.random.default_rng(0)
        self.inputs = [(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), s) for name, s in inputs.items()]
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.sparse: list[Any] = []

    def __call__(self, kind: str, *inputs: str, out: str = "", **attrs: Any) -> str:
        return self.several(kind, *inputs, outs=[out or f"t{len(self.nodes)}"], **attrs)[0]

    def several(self, kind: str, *inputs: str, outs: int | Sequence[str], **attrs: Any) -> list[str]:
        """A node with several outputs."""
        n = len(self.nodes)
        names = [f"t{n}_{i}" for i in range(outs)] if isinstance(outs, int) else list(outs)
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{n}", **attrs))
        return names

    def const(self, value: Any, kind: Any = np.int64, name: str = "") -> str:
        name = name or f"k{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values)

    def drawn(self, *shape: int, name: str = "") -> str:
        return self.const(self.rng.standard_normal(shape) * 0.3, self.dtype, name)

    def conv(self, x: str, inside: int, outside: int, k: int = 3, d: int = 2, act: str = "Relu", **attrs: Any) -> str:
        if "auto_pad" not in attrs:
            attrs.setdefault("pads", [k // 2] * (2 * d))
        y = self("Conv", x, self.drawn(outside, inside, *[k] * d), self.drawn(outside), **attrs)
        return self(act, y) if act else y

    def norm(self, x: str, channels: int, **attrs: Any) -> str:
        scale, variance = (self.const(self.rng.random(channels) + 0.5, self.dtype) for _ in "sv")
        return self("BatchNormalization", x, scale, self.drawn(channels), self.drawn(channels), variance, **attrs)

    def model(self, *outputs: str | tuple[str, int]) -> ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        outs = [(o, kind) if isinstance(o, str) else o for o in outputs]
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info(*i) for i in self.inputs],
            [helper.make_tensor_value_info(name, k, None) for name, k in outs], self.tensors,
            sparse_initializer=self.sparse,
        )  # fmt: skip
        version = 8 if self.opset < 19 else 9 if self.opset < 21 else 10
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=version)


Build = Callable[[Net, str], str]
Argument = Callable[[Net], str]


def ints(*values: int) -> Argument:
    """An argument: a vector of integers."""
    return lambda g: g.ints(*values)


def floats(*values: float) -> Argument:
    """An argument: a vector of floats."""
    return lambda g: g.const(values, np.float32)


def number(value: Any, kind: Any = np.float32) -> Argument:
    """An argument: one number, or an array of another type."""
    return lambda g: g.const(value, kind)


def drawn(*shape: int) -> Argument:
    """An argument: a drawn weight."""
    return lambda g: g.drawn(*shape)


def none(g: Net) -> str:
    """An argument that is left out."""
    return ""


def op(kind: str, *arguments: Argument, **attrs: Any) -> Build:
    """One operator on what comes in."""
    return lambda g, y: g(kind, y, *(a(g) for a in arguments), **attrs)


def then(*builds: Build) -> Build:
    """One after the other."""

    def build(g: Net, y: str) -> str:
        for each in builds:
            y = each(g, y)
        return y

    return build


def turned(kind: str, *arguments: Argument, outs: int, axis: int, **attrs: Any) -> Build:
    """A split whose parts are joined the other way round."""

    def build(g: Net, y: str) -> str:
        parts = g.several(kind, y, *(a(g) for a in arguments), outs=outs, axis=axis, **attrs)
        return g("Concat", *reversed(parts), axis=axis)

    return build


class Table:
    """Cases by name."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}

    def add(self, name: str, make: Callable[[], ModelProto], feeds: Feeds = None, budget: str = "60%") -> None:
        if name in self.cases:
            raise ValueError(f"two graphs are called '{name}'")
        self.cases[name] = (make, feeds, budget)

    def between(
        self, name: str, build: Build, opset: int = 17, size: Sequence[int] = (16, 16), channels: int = 8,
        batch: int = 1, budget: str = "60%",
    ) -> None:  # fmt: skip
        """A graph with ``build`` between convolutions; it takes 8 channels and gives ``channels``."""

        def make() -> ModelProto:
            d = len(size)
            g = Net(opset, x=(batch, 3, *size))
            y = build(g, g.conv("x", 3, 8, d=d))
            return g.model(g.conv(g.conv(y, channels, 8, d=d), 8, 4, 1, d, ""))

        self.add(name, make, budget=budget)

    def whole(self, name: str, build: Callable[[Net], ModelProto], opset: int = 17, dtype: Any = np.float32) -> None:
        """A graph that ``build`` makes alone, of a picture of 16 by 16."""
        self.add(name, lambda: build(Net(opset, dtype, x=(1, 3, 16, 16))))

    def sized(
        self, name: str, build: Callable[[Net], ModelProto], shape: Sequence[int | str], sizes: Sequence[Sequence[int]],
        budget: str = "60%",
    ) -> None:  # fmt: skip
        """A graph whose input has open dimensions, fed at several sizes."""

        def feeds() -> Sequence[dict[str, Array]]:
            rng = np.random.default_rng(1)
            return [{"x": rng.standard_normal(s).astype(np.float32)} for s in sizes]

        self.add(name, lambda: build(Net(17, x=shape)), feeds, budget)
