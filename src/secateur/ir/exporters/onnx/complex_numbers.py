"""Complex numbers in ONNX: pairs of real ones along a last axis, as DFT reads and writes them.

%f = opaque(%x) 'aten.fft_rfft2' : c64[1,8,16,9]          ->  f32[1,8,16,9,2]
%h = mul(%f, @w) : c64[..]                                 ->  four products, a difference and a sum
%y = opaque(%h) 'aten.fft_irfft2' : f32[1,8,16,16]         ->  reads f32[1,8,16,9,2]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Array, Attr, Graph, Node, Value, dtype_of

REAL = {"c64": "f32", "c128": "f64"}
_ALONG = frozenset({"slice", "concat", "split", "gather", "unsqueeze", "squeeze", "roll", "flip", "identity", "neg"})
_SHAPED = frozenset({"reshape", "expand"})


def as_pairs(graph: Graph, part: bool = False) -> Graph:
    """The graph without complex numbers. Raises Unsupported for what has no form, and for complex ends.

    ``part``: of a network, whose ends may be pairs as well, since other parts read and write them.
    """
    if not any(v.dtype in REAL for v in graph.values.values()):
        return graph
    if part:
        inputs = tuple(_pair(v) if v.dtype in REAL else v for v in graph.inputs)
        return _Pairs(graph).graph().rewrite(inputs=inputs)
    ends = [v for v in (*graph.inputs, *(graph.value(n) for n in graph.outputs)) if v.dtype in REAL]
    if ends:
        raise Unsupported(
            f"'{ends[0].name}' is complex, and ONNX files of complex inputs or outputs run nowhere: give and take its "
            "real and imaginary parts (torch.view_as_real)"
        )
    return _Pairs(graph).graph()


class _Pairs:
    """One walk over the nodes."""

    def __init__(self, graph: Graph) -> None:
        self.given = graph
        self.weights = {n: _pair_of(w) if dtype_of(w) in REAL else w for n, w in graph.weights.items()}
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        for node in self.given.nodes:
            kinds = {self.given.value(i).dtype for i in node.inputs if i is not None} | {v.dtype for v in node.outputs}
            if kinds & set(REAL):
                self._node(node)
            else:
                self.nodes.append(node)
        return self.given.rewrite(nodes=self.nodes, weights=self.weights)

    def _node(self, node: Node) -> None:
        target = str(node.attrs.get("target", "")).removeprefix("aten.").partition(".")[0]
        rank = len(self.given.value(str(node.inputs[0])).shape)
        outs = tuple(_pair(v) for v in node.outputs)
        if node.op == "opaque" and (target.startswith("fft_") or target in ("stft", "istft")):
            self.nodes.append(replace(node, outputs=outs))
        elif node.op in _ALONG:
            self.nodes.append(replace(node, outputs=outs))
        elif node.op in _SHAPED:
            self.nodes.append(replace(node, outputs=outs, attrs={**node.attrs, "shape": (*node.attrs["shape"], 2)}))
        elif node.op == "transpose":
            self.nodes.append(replace(node, outputs=outs, attrs={**node.attrs, "perm": (*node.attrs["perm"], rank)}))
        elif node.op == "pad" and node.attrs["mode"] == "constant" and node.attrs["value"] == 0:
            pads = node.attrs["pads"]
            self.nodes.append(
                replace(node, outputs=outs, attrs={**node.attrs, "pads": (*pads[:rank], 0, *pads[rank:], 0)})
            )
        elif node.op == "abs" or target == "abs":
            self._add("reduce_l2", node, node.inputs, node.out, axes=(rank,), keepdims=False)
        elif node.op in ("add", "sub", "mul", "div", "einsum", "matmul"):
            self._arithmetic(node)
        elif target in ("view_as_real", "view_as_complex"):
            self._add("identity", node, node.inputs, outs[0])
        elif target in ("conj", "_conj", "conj_physical"):
            turned = f"{node.name}.turned"
            self.weights[turned] = np.array([1, -1], np.float32 if node.out.dtype == "c64" else np.float64)
            self._add("mul", node, [node.inputs[0], turned], outs[0])
        elif node.op == "cast" and node.out.dtype in REAL:
            self._cast(node)
        elif target == "complex":
            self._joined(node, *map(str, node.inputs))
        elif target == "polar":
            sides = [
                self._add(op, node, [node.inputs[1]], self._fresh(node, op, node.out.shape)) for op in ("cos", "sin")
            ]
            self._joined(node, *(
                self._add("mul", node, [node.inputs[0], side], self._fresh(node, f"{k}", node.out.shape))
                for k, side in enumerate(sides)
            ))  # fmt: skip
        elif target in ("real", "imag"):
            self._part(node, str(node.inputs[0]), int(target == "imag"), node.out)
        else:
            what = node.attrs["target"] if node.op == "opaque" else node.op
            raise Unsupported(f"{node.op} {node.source}: '{what}' of complex numbers has no ONNX form; use .module()")

    def _add(self, op: str, node: Node, inputs: Sequence[str | None], out: Value, **attrs: Attr) -> str:
        self.nodes.append(Node(op, tuple(inputs), (out,), attrs, node.source))
        return out.name

    def _fresh(self, node: Node, name: str, shape: Sequence[int]) -> Value:
        return Value(f"{node.name}.{name}", tuple(shape), REAL.get(node.out.dtype, node.out.dtype))

    def _part(self, node: Node, name: str, which: int, out: Value) -> str:
        """The real or the imaginary part of a pair: an operand of whatever shape."""
        shape = self.given.value(name).shape
        one = Value(f"{out.name}.one", (*shape, 1), out.dtype)
        self._add("slice", node, [name], one, axes=(len(shape),), starts=(which,), ends=(which + 1,), steps=(1,))
        return self._add("squeeze", node, [one.name], out, axes=(len(shape),))

    def _parts(self, node: Node, i: int) -> tuple[str, str | None]:
        """The real and the imaginary part of an operand; None where it has none."""
        name = str(node.inputs[i])
        value = self.given.value(name)
        if value.dtype not in REAL:
            return name, None
        parts = [self._part(node, name, k, self._fresh(node, f"{i}.{k}", value.shape)) for k in range(2)]
        array = self.given.weights.get(name)
        return parts[0], None if array is not None and not np.any(array.imag) else parts[1]

    def _arithmetic(self, node: Node) -> None:
        (a, b), (c, d) = self._parts(node, 0), self._parts(node, 1)
        shape, made = node.out.shape, 0

        def two(op: str, x: str | None, y: str | None) -> str | None:
            nonlocal made
            if x is None or y is None:
                return x if op == "add" and y is None else y if op == "add" else None
            made += 1
            attrs = node.attrs if op == node.op else {}
            return self._add(op, node, [x, y], self._fresh(node, f"part{made}", shape), **attrs)

        if node.op in ("add", "sub"):
            if node.op == "sub" and b is None and d is not None:
                raise Unsupported(f"sub {node.source}: a real less a complex number has no ONNX form; use .module()")
            real, imaginary = two(node.op, a, c), two(node.op, b, d) if b and d else b or d
        elif node.op == "div":
            if d is not None:
                raise Unsupported(f"div {node.source}: division by complex numbers has no ONNX form; use .module()")
            real, imaginary = two("div", a, c), two("div", b, c)
        else:
            minus, plus = two(node.op, b, d), two(node.op, b, c)
            real, imaginary = two(node.op, a, c), two("add", two(node.op, a, d), plus)
            real = two("sub", real, minus) if minus else real
        self._joined(node, real, imaginary)

    def _cast(self, node: Node) -> None:
        """Real numbers become pairs with 0; pairs are cast as they are."""
        given = self.given.value(str(node.inputs[0]))
        kind = REAL[node.out.dtype]
        if given.dtype in REAL:
            self._add("cast", node, node.inputs, _pair(node.out), to=kind)
            return
        real = node.inputs[0]
        if given.dtype != kind:
            real = self._add("cast", node, [real], self._fresh(node, "real", node.out.shape), to=kind)
        self._joined(node, str(real), None)

    def _joined(self, node: Node, real: str | None, imaginary: str | None) -> None:
        shape = node.out.shape
        if imaginary is None:
            zero = f"{node.name}.zero"
            self.weights[zero] = np.zeros((), np.float32 if node.out.dtype == "c64" else np.float64)
            imaginary = self._add("mul", node, [real, zero], self._fresh(node, "none", shape))
        both = [
            self._add("unsqueeze", node, [x], self._fresh(node, f"side{k}", (*shape, 1)), axes=(len(shape),))
            for k, x in enumerate((real, imaginary))
        ]
        self._add("concat", node, both, _pair(node.out), axis=len(shape))


def _pair(value: Value) -> Value:
    return Value(value.name, (*value.shape, 2), REAL[value.dtype]) if value.dtype in REAL else value


def _pair_of(array: Array) -> Array:
    return np.stack([array.real, array.imag], -1)
