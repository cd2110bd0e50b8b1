"""Constants that follow the inputs become nodes where something reads them as a tensor."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from secateur.ir.expr import Expr
from secateur.ir.graph import Node, Source, Value, dtype_of
from secateur.ir.symbolic import size

from .follow import Following
from .names import Odd, Op
from .sizes import Sizes, Unwritable

if TYPE_CHECKING:
    from .builder import Builder


class Computed:
    """Writes nodes into one conversion; see ``Pen``."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.writer = Sizes(self, builder.opset)

    def read(self, name: str) -> str:
        """The name of what a node can read: a constant that follows the inputs is computed from them first."""
        b = self.builder
        if name not in b.follows or name in b.values:
            return name
        found, before = b.follows[name], len(b.nodes)
        try:
            if not found.known:
                raise Unwritable(name)
            self._compute(name, found)
        except Unwritable as error:
            if name not in b.folded:
                raise Odd("it follows a size that only a run reveals") from error
            self._keep(b.folded[name])
        b.computed.update(n.name for n in b.nodes[before:])
        return name

    def _compute(self, name: str, found: Following) -> None:
        """Nodes that compute a constant from the shapes of the inputs."""
        b = self.builder
        entries = [Expr.of(e) for e in found.entries.reshape(-1)]
        below = [e.denominator for e in entries]
        pairs = zip(entries, below, found.array.reshape(-1), strict=True)
        vector = self.writer.vector([size(int(v.item() * d), e * d) for e, d, v in pairs])
        shape = found.array.shape
        if len(shape) != 1:
            vector = self.write("Reshape", [vector, self.numbers(shape)], shape)
        kind, short = onnx.helper.np_dtype_to_tensor_dtype(found.array.dtype), dtype_of(found.array)
        if any(d != 1 for d in below):
            vector = self._node("Cast", [vector], Value(b.fresh(), shape, short), to=kind)
            divisor = b.constant(np.array(below, found.array.dtype).reshape(shape))
            self._node("Div", [vector, divisor], Value(name, shape, short))
        else:
            self._node("Cast", [vector], Value(name, shape, short), to=kind)

    def _keep(self, op: Op) -> None:
        """The file's own node, though it was folded."""
        b = self.builder
        before, b.current = b.current, op
        b.opaque(op)
        b.current = before

    def write(self, kind: str, inputs: Sequence[str], shape: tuple[int, ...], **attrs: Any) -> str:
        """Append a node that computes sizes. Returns its output."""
        b = self.builder
        return self._node(kind, inputs, Value(b.fresh(), shape, "i64"), **attrs)

    def _node(self, kind: str, inputs: Sequence[str], out: Value, **attrs: Any) -> str:
        b = self.builder
        label = b.current.label if b.current else ""
        proto = onnx.helper.make_node(kind, list(inputs), [out.name], name=f"{label}/{out.name}", **attrs)
        payload = base64.b64encode(proto.SerializeToString()).decode()
        kept = {"kind": "onnx", "target": f"ai.onnx::{kind}", "payload": payload}
        b.append(Node("opaque", tuple(inputs), (out,), kept, Source(label)))
        return out.name

    def numbers(self, values: Sequence[int]) -> str:
        """An int64 vector as a constant."""
        b = self.builder
        return b.constant(np.array(values, np.int64))

    def where(self, name: str) -> tuple[str, int, int]:
        """An input with a dimension of this name, the axis, and the input's rank."""
        b = self.builder
        found, axis = b.sources[name]
        return found, axis, len(b.values[found].shape)

    def alive(self, name: str) -> bool:
        """Whether a node or a constant of this name is there."""
        b = self.builder
        return name in b.values or name in b.consts
