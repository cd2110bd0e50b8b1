"""What a network is: values, nodes and a graph in single assignment form.

A graph is immutable. Edges are names, so a rewrite replaces a node without rebuilding what
follows it; weights stand next to the graph and are shared between its versions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attr = Any  # int, float, bool, str, None, or a tuple of them
N = TypeVar("N")

# Short names of element types, as the text form prints them.
DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16",
        "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "u8",
        "uint16": "u16", "uint32": "u32", "uint64": "u64", "bool": "b1",
        "complex64": "c64", "complex128": "c128", "str": "str", "object": "str",
    }
)  # fmt: skip
NUMPY_NAMES: Mapping[str, str] = MappingProxyType({short: name for name, short in reversed(list(DTYPES.items()))})


class Sym(int):
    """A dimension the caller may change, standing at the size it was captured with.

    ``Sym(1, "N")`` computes as 1 and prints as ``N:1``. Rules hand it on untouched where the
    dimension goes through unchanged, so the batch keeps its name as far as it can be followed.
    """

    name: str

    def __new__(cls, value: int, name: str) -> Sym:
        self = super().__new__(cls, value)
        self.name = name
        return self

    def __repr__(self) -> str:
        return f"{self.name}:{int(self)}"

    def __reduce__(self) -> tuple[type[Sym], tuple[int, str]]:
        return Sym, (int(self), self.name)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that flows through the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "f32"

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(repr, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a node came from: a module path or ONNX node name, and ``file:line`` if known."""

    name: str = ""
    where: str = ""

    def __str__(self) -> str:
        return f"'{self.name}' ({self.where})" if self.where else f"'{self.name}'"


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs`` name values or weights; an absent optional input is None."""

    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    source: Source = Source()

    @property
    def out(self) -> Value:
        """The first output, which for most operators is the only one."""
        return self.outputs[0]

    @property
    def name(self) -> str:
        """The name of the first output: unique in a graph."""
        return self.outputs[0].name

    @property
    def label(self) -> str:
        """What a user calls this node: its source, or the value it defines."""
        return self.source.name or self.outputs[0].name

    def with_attrs(self, **attrs: Attr) -> Node:
        """The same node with some attributes replaced."""
        return dataclasses.replace(self, attrs={**self.attrs, **attrs})


@dataclass(frozen=True, repr=False)
class Graph:
    """A network: nodes in execution order, weights by name, and notes keyed by type."""

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, Array]
    notes: Mapping[type, object] = field(default_factory=dict, compare=False)

    @cached_property
    def values(self) -> dict[str, Value]:
        """Every value by name, inputs included; weights are not values."""
        table = {v.name: v for v in self.inputs}
        for node in self.nodes:
            for value in node.outputs:
                table[value.name] = value
        return table

    @cached_property
    def producer(self) -> dict[str, Node]:
        """The node that defines each value; graph inputs have none."""
        return {v.name: node for node in self.nodes for v in node.outputs}

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value or weight, each once, in order."""
        table: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name is not None:
                    table.setdefault(name, []).append(node)
        return table

    def value(self, name: str) -> Value:
        """The value, or the weight seen as one. Raises KeyError."""
        if name in self.weights:
            array = self.weights[name]
            return Value(name, array.shape, dtype_of(array))
        return self.values[name]

    def note(self, kind: type[N]) -> N | None:
        """The note of this type, if an analysis left one that still holds."""
        found = self.notes.get(kind)
        return found if isinstance(found, kind) else None

    def with_note(self, *notes: object) -> Graph:
        """The same graph carrying these analysis results as well."""
        return dataclasses.replace(self, notes={**self.notes, **{type(n): n for n in notes}})

    def without(self, *kinds: type) -> Graph:
        """The same graph without the notes of these types."""
        return dataclasses.replace(self, notes={k: n for k, n in self.notes.items() if k not in kinds})

    def rewrite(
        self,
        *,
        inputs: Sequence[Value] | None = None,
        nodes: Iterable[Node] | None = None,
        outputs: Sequence[str] | None = None,
        weights: Mapping[str, Array] | None = None,
        keep: Iterable[type] = (),
    ) -> Graph:
        """A new graph. Notes are dropped, except those in ``keep`` and those that outlive rewrites."""
        kept = set(keep)
        notes = {k: n for k, n in self.notes.items() if k in kept or getattr(k, "outlives_rewrites", False)}
        return Graph(
            self.name,
            self.inputs if inputs is None else tuple(inputs),
            self.nodes if nodes is None else tuple(nodes),
            self.outputs if outputs is None else tuple(outputs),
            self.weights if weights is None else weights,
            notes,
        )

    def __repr__(self) -> str:
        inputs = ", ".join(f"{v.name}: {v}" for v in self.inputs)
        count = f"{len(self.nodes)} nodes, {len(self.weights)} weights"
        return f"<Graph {self.name!r}: {inputs} -> {', '.join(self.outputs)}, {count}>"

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)


# By type object, since ``dtype.name`` is put together anew at every call.
_SHORT: Mapping[Any, str] = MappingProxyType(
    {np.dtype(name): short for name, short in DTYPES.items() if name not in ("bfloat16", "str", "object")}
)


def dtype_of(array: Array) -> str:
    """The short name of an array's element type."""
    return _SHORT.get(array.dtype) or DTYPES.get(array.dtype.name, "str")


def numpy_dtype(short: str) -> np.dtype[Any]:
    """The NumPy type of a short name; bfloat16 comes from ml_dtypes."""
    if short == "bf16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(NUMPY_NAMES[short])


def prune_dead(graph: Graph) -> Graph:
    """Drop nodes that no output needs, and weights that no node reads."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v.name in needed for v in node.outputs):
            kept.append(node)
            needed.update(i for i in node.inputs if i is not None)
    if len(kept) == len(graph.nodes) and all(w in needed for w in graph.weights):
        return graph
    weights = {name: w for name, w in graph.weights.items() if name in needed}
    return graph.rewrite(nodes=reversed(kept), weights=weights)
