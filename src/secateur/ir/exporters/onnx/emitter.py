"""The pen of the ONNX exporter: names, nodes and constants of the model under construction."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from secateur.ir.errors import Unsupported
from secateur.ir.followed import followed_shapes
from secateur.ir.frontends.onnx.sizes import Sizes, Unwritable
from secateur.ir.graph import Array, Graph, Node, Sym, numpy_dtype
from secateur.ir.symbolic import as_size, has_sizes

Rule = Callable[["Emitter", Node], None]


def element_type(short: str) -> int:
    """ONNX's element type of one of the IR's short names."""
    if short == "str":
        return int(onnx.TensorProto.STRING)
    return int(onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(short)))


@dataclass
class Emitter:
    """Collects ONNX nodes for one graph in one operator set.

    ``names`` maps IR names to those in the file; ``taken`` are all names in use; ``extra`` holds the constants
    that the IR keeps in attributes and ONNX in tensors.
    """

    graph: Graph
    opset: int
    names: Mapping[str, str]
    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    extra: dict[str, Array] = field(default_factory=dict)
    pool: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    label: str = ""
    current_outs: frozenset[str] = frozenset()
    verbatim: set[int] = field(default_factory=set)  # positions of nodes that came with the file
    sizes: Sizes | None = None

    # -- asking -----------------------------------------------------------------------------------------------
    def real(self, name: str | None) -> str:
        """The name in the file; absent inputs are the empty string."""
        return "" if name is None else self.names.get(name, name)

    def ins(self, node: Node) -> list[str]:
        return [self.real(i) for i in node.inputs]

    def outs(self, node: Node) -> list[str]:
        return [self.real(v.name) for v in node.outputs]

    def shape(self, node: Node, i: int = 0) -> tuple[int, ...]:
        """The shape of the i-th input."""
        name = node.inputs[i]
        assert name is not None
        return self.graph.value(name).shape

    @cached_property
    def followed(self) -> dict[str, tuple[int, ...]]:
        """Every value's shape with the sizes that follow the inputs as symbols, though the graph has numbers."""
        return followed_shapes(self.graph)

    def dtype(self, node: Node, i: int = 0) -> str:
        name = node.inputs[i]
        assert name is not None
        return self.graph.value(name).dtype

    def static(self, node: Node, dims: Sequence[int], why: str) -> tuple[int, ...]:
        """The dimensions as plain sizes. Raises Unsupported where one of them may vary."""
        if any(isinstance(d, Sym) for d in dims):
            raise self.unsupported(node, f"{why} must be known, and {list(dims)} may vary: export at a fixed size")
        return tuple(int(d) for d in dims)

    def unsupported(self, node: Node, why: str) -> Unsupported:
        return Unsupported(f"{node.op} {node.source} cannot be written as ONNX operator set {self.opset}: {why}")

    def needs(self, node: Node, opset: int, what: str) -> None:
        """Raise Unsupported in operator sets older than ``opset``."""
        if self.opset < opset:
            raise self.unsupported(
                node, f"{what} exists since {opset}: convert the model first (onnx.version_converter)"
            )

    # -- writing ----------------------------------------------------------------------------------------------
    def fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        number = 0
        while (name := f"{base}_{number}") in self.taken:
            number += 1
        self.taken.add(name)
        return name

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] | str | None = None, **attrs: Any) -> str:
        """Append an ONNX node; ``outputs`` defaults to one fresh name. Returns the first output."""
        if outputs is None:
            outputs = [self.fresh(f"{self.label}_{kind}")]
        elif isinstance(outputs, str):
            outputs = [outputs]
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        name = self._node_name(kind, outputs[0])
        kept = {k: v for k, v in attrs.items() if v is not None}
        for key, value in kept.items():
            if has_sizes(tuple(value) if isinstance(value, list) else value):
                raise Unsupported(
                    f"{kind} '{self.label}': its {key} follow the input's size, and this operator takes numbers alone; "
                    "read the model at fixed sizes (--shape, or shapes= in Python)"
                )
        self.nodes.append(onnx.helper.make_node(kind, given, list(outputs), name=name, **kept))
        return outputs[0]

    def _node_name(self, kind: str, output: str) -> str:
        """What the node is called: its layer where it gives the layer's result, else layer and operator."""
        plain = self.label and output in self.current_outs
        return self.label if plain else f"{self.label or output}/{kind}"

    def copy(self, proto: NodeProto) -> None:
        """Append a node as the file had it."""
        self.verbatim.add(len(self.nodes))
        self.nodes.append(proto)

    def name_nodes(self, known: Container[str]) -> None:
        """Number the nodes that share a name, which runtimes refuse; the file's own keep theirs.

        ``known``: outputs that nodes of the file had, however those are written now.
        """
        first = [i in self.verbatim or node.output[0] in known for i, node in enumerate(self.nodes)]
        taken: set[str] = {""}
        for proto, _ in sorted(zip(self.nodes, first, strict=True), key=lambda pair: not pair[1]):
            name, number = proto.name, 1
            while name in taken and proto.name:
                name, number = f"{proto.name}_{number}", number + 1
            taken.add(name)
            if name != proto.name:  # writing an absent name would make it present
                proto.name = name

    def const(self, array: Array) -> str:
        """The name of an initialiser with this content; equal small constants share one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.pool:
            name = self.fresh("secateur.const")
            self.pool[key] = name
            self.extra[name] = array
        return self.pool[key]

    def ints(self, values: Sequence[int]) -> str:
        """An int64 vector: an initialiser, or computed where a number follows the inputs. Raises Unsupported."""
        if not any(isinstance(v, Sym) for v in values):
            return self.numbers(values)
        if self.sizes is None:
            self.sizes = Sizes(self, self.opset)
        try:
            return self.sizes.vector([as_size(v) if isinstance(v, Sym) else v for v in values])
        except (Unwritable, ValueError, KeyError) as error:
            raise Unsupported(
                f"'{self.label}' needs a size that cannot be written as ONNX operator set {self.opset}: {error}; "
                "read the model at fixed sizes (--shape, or shapes= in Python)"
            ) from error

    # What ``Sizes`` writes with.
    def numbers(self, values: Sequence[int]) -> str:
        """An int64 vector as an initialiser."""
        return self.const(np.array([int(v) for v in values], np.int64))

    def write(self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], **attrs: Any) -> str:
        """Append a node that computes sizes. Returns its output."""
        return self.add(kind, inputs, **attrs)

    def where(self, name: str) -> tuple[str, int, int]:
        """An input with a dimension of this name, the axis, and the input's rank. Raises KeyError."""
        for value in self.graph.inputs:
            for axis, dim in enumerate(value.shape):
                if isinstance(dim, Sym) and dim.name == name:
                    return self.real(value.name), axis, len(value.shape)
        raise KeyError(f"no input has the size {name}")

    def alive(self, name: str) -> bool:
        """Nothing that was written goes away."""
        return True

    def scalar(self, value: float, dtype: str) -> str:
        """A rank-0 constant."""
        return self.const(np.array(value, numpy_dtype(dtype)))

    def axes(self, kind: str, x: str, axes: Sequence[int], since: int, out: str | None = None, **attrs: Any) -> str:
        """A node whose axes are an input since operator set ``since`` and an attribute before."""
        if self.opset >= since:
            return self.add(kind, [x, self.ints(axes)], out, **attrs)
        return self.add(kind, [x], out, axes=[int(a) for a in axes], **attrs)

    def unsqueeze(self, x: str, axes: Sequence[int], out: str | None = None) -> str:
        return self.axes("Unsqueeze", x, axes, 13, out) if axes else x

    def cast(self, x: str, have: str, want: str) -> str:
        """``x`` in another element type, if it has another."""
        return x if have == want else self.add("Cast", [x], to=element_type(want))

    def vector(self, node: Node, i: int, width: int, default: float) -> str:
        """The i-th input as a vector of ``width``: filled in where absent, repeated where it has one element."""
        dtype = self.dtype(node)
        name = node.inputs[i] if i < len(node.inputs) else None
        if name is None:
            return self.const(np.full(width, default, numpy_dtype(dtype)))
        if self.graph.value(name).shape == (width,):
            return self.real(name)
        return self.add("Expand", [self.real(name), self.ints([width])])
