"""One conversion of an ONNX model at one choice of input sizes.

The builder walks the nodes in order. Whatever depends on constants and shapes alone is evaluated on the spot,
so shape arithmetic never reaches the IR; everything else goes through the rule table or becomes opaque.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto

from secateur.ir.expr import Expr
from secateur.ir.graph import NUMPY_NAMES, Array, Attr, Node, Source, Value, dtype_of
from secateur.ir.infer import infer_node
from secateur.ir.infer_checks import check_sizes
from secateur.ir.onnx_origin import Original, Part
from secateur.ir.symbolic import has_sizes

from .check_nodes import check_types
from .check_tensors import Damage
from .computed import Computed
from .fold import Overgrown, Room, fold
from .follow import Following, entries, follow
from .names import Branch, Misfit, Names, Odd, Op, operands
from .read import DEFAULT_DOMAINS
from .shapes import Observer, opaque_types
from .spell import spelled, told

Rule = Callable[["Builder", "Op"], None]


@dataclass
class Builder:
    """The state of one conversion. ``consts`` holds weights and everything folded, ``follows`` what was folded and yet
    depends on the sizes of the inputs, ``sources`` an input and axis for each name of such a size."""

    label: str
    opset: int
    model: ModelProto
    names: Names
    rules: Mapping[str, Rule]
    consts: dict[str, Array]
    observer: Observer
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    originals: dict[str, Original] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)  # values whose size depends on data, not on shapes
    generated: int = 0
    constants: int = 0
    exact: bool = True
    current: Op | None = None
    sources: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    follows: dict[str, Following] = field(default_factory=dict)
    folded: dict[str, Op] = field(default_factory=dict)  # the nodes that gave what follows
    computed: set[str] = field(default_factory=set)  # values that compute what follows
    used: Mapping[str, int] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    room: Room = field(default_factory=Room)

    def __post_init__(self) -> None:
        self.pen = Computed(self)

    # -- what rules ask ---------------------------------------------------------------------------------------
    def value(self, name: str) -> Value:
        """The value or constant of this name."""
        if name in self.values:
            return self.values[name]
        array = self.follows[name].array if name in self.follows else self.consts[name]
        return Value(name, array.shape, dtype_of(array))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.value(name).shape

    def const(self, name: str | None) -> Array | None:
        """The array behind a name if it is known before any run, and the same at every size."""
        return None if name is None else self.consts.get(name)

    def array(self, op: Op, i: int, what: str) -> Array:
        """The i-th input as an array. Raises Odd where it is computed at run time."""
        found = self.const(op.input(i))
        if found is None:
            raise Odd(f"its {what} is computed at run time")
        return found

    def ints(self, op: Op, i: int, what: str) -> tuple[int, ...]:
        """The i-th input as integers, which may follow the inputs. Raises Odd where it is computed at run time."""
        if op.input(i) in self.follows:
            return self.follows[op.input(i)].numbers()
        return tuple(int(v) for v in self.array(op, i, what).reshape(-1))

    def floats(self, op: Op, i: int, what: str) -> tuple[float, ...]:
        """The i-th input as floats. Raises Odd where it is computed at run time."""
        return tuple(float(v) for v in self.array(op, i, what).reshape(-1))

    def is_used(self, op: Op, i: int) -> bool:
        """Whether anything reads the i-th output."""
        name = op.outputs[i] if i < len(op.outputs) else None
        return name is not None and (self.used.get(name, 0) > 0 or name in self.outputs)

    # -- what rules do ----------------------------------------------------------------------------------------
    def fresh(self) -> str:
        """A name for a value that the file does not have."""
        assert self.current is not None
        base = next(o for o in self.current.outputs if o)
        self.generated += 1
        name = f"{base}.{self.generated}"
        return name if name not in self.names.original else self.fresh()

    def constant(self, array: Array) -> str:
        """A new weight. Returns its name."""
        while f"const.{self.constants}" in self.names.original:
            self.constants += 1
        name = f"const.{self.constants}"
        self.constants += 1
        self.consts[name] = array
        return name

    def follow(self, numbers: Array, dtype: np.dtype[Any]) -> str:
        """A new constant of integers, some of which follow the inputs. Returns its name."""
        entry = np.empty(numbers.shape, object)
        entry.reshape(-1)[:] = [Expr.of(v) for v in numbers.reshape(-1)]
        name = self.fresh()
        self.follows[name] = Following(numbers.astype(np.int64).astype(dtype), entry)
        return name

    def emit(self, op: str, inputs: Sequence[str | None], outputs: Sequence[str] | None = None, **attrs: Attr) -> str:
        """Append a node. ``outputs`` defaults to one fresh name. Returns the first output. Raises Misfit."""
        names = [self.fresh()] if outputs is None else list(outputs)
        ins = [None if i is None else self.read(i) for i in inputs]
        while ins and ins[-1] is None:
            ins.pop()
        source = Source(self.current.label if self.current else "")
        draft = Node(op, tuple(ins), tuple(Value(n, ()) for n in names), attrs, source)
        try:
            derived = infer_node(draft, [None if i is None else self.value(i) for i in ins])
        except (ValueError, IndexError, TypeError) as error:
            raise Misfit(str(error)) from error
        empty = any(i is not None and 0 in self.shape(i) for i in ins)  # made without data, for a Concat to leave out
        if not empty and any(0 in v.shape for v in derived):
            raise Misfit(f"it makes a tensor of size zero, {derived[0]}")
        if any(map(has_sizes, attrs.values())):
            attrs = spelled(op, attrs, self.shape(ins[0] or ""), derived[0].shape)
            if not all(map(told, attrs.values())):
                raise Odd("it follows a size that only a run reveals")
        self.append(Node(op, tuple(ins), derived, attrs, source))
        return names[0]

    def read(self, name: str) -> str:
        """The name of what a node can read: a constant that follows the inputs is computed from them first."""
        return self.pen.read(name)

    def append(self, node: Node) -> None:
        self.nodes.append(node)
        for value in node.outputs:
            self.values[value.name] = value

    def result(self, op: str, inputs: Sequence[str | None], current: Op, **attrs: Attr) -> None:
        """Emit the node that gives the ONNX node's own (first) output."""
        out = current.outputs[0]
        assert out is not None
        self.emit(op, inputs, [out], **attrs)

    # -- the walk ---------------------------------------------------------------------------------------------
    def convert(self, op: Op) -> None:
        """Fold, convert or keep one node. Raises Unsupported, or Misfit that names the node."""
        seen = tuple(None if i is None else self.alias.get(i, i) for i in op.inputs)
        if seen != op.inputs:
            op = dataclasses.replace(op, inputs=seen)
        if op.kind == "If" and op.inputs[0] in self.consts:
            self._take_branch(op)
            return
        try:
            self._convert(op)
        except Misfit as error:
            raise Misfit(self.failure(op, error)) from error

    def _take_branch(self, op: Op) -> None:
        """An If whose condition is known is the branch that it takes."""
        taken = bool(self.consts[op.input(0)].reshape(-1)[0])
        branch: Branch = op.attrs["then_branch" if taken else "else_branch"]
        self.consts.update(branch.weights)
        for inner in branch.ops:
            self.convert(inner)
        self.current = op
        for out, inner_name in zip(op.outputs, branch.outputs, strict=True):
            source = self.alias.get(inner_name, inner_name)
            if out in self.outputs:
                self.emit("identity", [source], [out])
            elif out is not None:
                self.alias[out] = source

    def _convert(self, op: Op) -> None:
        self.current, self.exact = op, True
        try:
            if op.proto.domain in DEFAULT_DOMAINS:
                check_types(op.proto, op.opset, self._kinds(op))
            if self._fold(op):
                return
        except (Damage, Overgrown, IndexError, ValueError, TypeError) as error:
            raise Misfit(str(error)) from error
        start, before = len(self.nodes), (self.generated, self.constants)
        own = op.proto.domain in DEFAULT_DOMAINS
        rule = self.rules.get(op.kind if own else f"{op.proto.domain}::{op.kind}")
        try:
            if rule is None:
                raise Odd("no rule")
            rule(self, op)
        except Odd:
            self._undo(start)
            self.generated, self.constants = before
            self.opaque(op)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Misfit(f"unexpected operands ({type(error).__name__}: {error})") from error
        if any(i in self.loose for i in op.inputs if i):
            self.loose.update(v.name for n in self.nodes[start:] for v in n.outputs)
        self._remember(op, [n for n in self.nodes[start:] if n.name not in self.computed])

    def _undo(self, start: int) -> None:
        for node in self.nodes[start:]:
            for value in node.outputs:
                del self.values[value.name]
            self.computed.discard(node.name)
        del self.nodes[start:]

    def _kinds(self, op: Op) -> dict[int, str]:
        """ONNX's names of the element types of the inputs, where they are known."""
        found = {}
        for i, name in enumerate(op.inputs):
            dtype = self.value(name).dtype if name is not None else "str"
            if dtype != "str":  # also what an element type is called that has no name here
                kind = NUMPY_NAMES.get(dtype, dtype)
                found[i] = {"float32": "float", "float64": "double"}.get(kind, kind)
        return found

    def _fold(self, op: Op) -> bool:
        out = op.outputs[0] if op.outputs else None
        if out is None:
            return False
        if op.kind == "Identity" and op.inputs and op.inputs[0] in self.consts and out not in self.outputs:
            self.alias[out] = op.inputs[0]
            return True
        if op.kind in ("Shape", "Size") and op.proto.domain in DEFAULT_DOMAINS:
            return self._fold_shape(op, out)
        if any(i is not None and i not in self.consts and i not in self.follows for i in op.inputs):
            return False
        known = [self.follows.get(i or "") for i in op.inputs]
        arrays = [
            None if i is None else f.array if f else self.consts[i] for i, f in zip(op.inputs, known, strict=True)
        ]
        found = self._again(op, arrays)
        if found is None:
            return False
        entries: Sequence[Array | None] = [None] * len(found)
        if any(known):
            given = [None if f is None else f.entries for f in known]
            made = follow(op.kind, op.attrs, arrays, given, found, lambda places: self._again(op, places))
            if made is None:
                return False
            entries = made
        for name, array, entry in zip(op.outputs, found, entries, strict=False):
            if name is not None and not self._settle(op, name, array, entry):
                return False
        return True

    def _again(self, op: Op, arrays: Sequence[Array | None]) -> list[Array] | None:
        return fold(op.proto, op.kind, op.attrs, arrays, op.opset, self.room)

    def _fold_shape(self, op: Op, out: str) -> bool:
        name = op.input(0)
        if name in self.loose:
            return False
        shape: Sequence[int] = self.shape(name)
        if op.kind == "Shape":
            shape = shape[op.attrs.get("start", 0) : op.attrs.get("end", None)]
        else:
            shape = (math.prod(shape),)
        entry, array = entries(shape), np.array([int(d) for d in shape], np.int64)
        if op.kind == "Size":
            array, entry = array.reshape(()), None if entry is None else entry.reshape(())
        return self._settle(op, out, array, entry)

    def _settle(self, op: Op, name: str, array: Array, entry: Array | None) -> bool:
        """Note what a node was folded to. False where it is not what its expressions say."""
        if entry is None:
            self.consts[name] = array
            return True
        found = Following(array, entry)
        if found.fits(self.sizes):
            self.follows[name], self.folded[name] = found, op
            return True
        return False

    def opaque(self, op: Op) -> None:
        """Keep a node word for word."""
        read = (*op.inputs, *(self.alias.get(n, n) for n in op.outer))
        inputs = tuple(None if i is None else self.read(i) for i in read)
        found = opaque_types(op.proto, [None if i is None else self.value(i) for i in op.inputs], self)
        outputs = []
        for name, proto_name in zip(op.outputs, op.proto.output, strict=True):
            if name is None:
                outputs.append(Value(self.fresh(), (), "f32"))
                continue
            shape, dtype, loose = found[proto_name]
            outputs.append(Value(name, shape, dtype))
            if loose:
                self.loose.add(name)
        try:
            check_sizes([v.shape for v in outputs])
        except ValueError as error:
            raise Misfit(str(error)) from error
        domain = op.proto.domain or "ai.onnx"
        payload = base64.b64encode(op.proto.SerializeToString()).decode()
        attrs = {"kind": "onnx", "target": f"{domain}::{op.kind}", "payload": payload}
        self.append(Node("opaque", inputs, tuple(outputs), attrs, Source(op.label)))

    def _remember(self, op: Op, made: Sequence[Node]) -> None:
        """Note the file's own node where one IR node stands for it, so that export can write it back verbatim."""
        if len(made) > 1 and op.outputs[0] is not None:
            fused = op.proto.domain not in DEFAULT_DOMAINS
            self.parts[op.outputs[0]] = Part(tuple(n.name for n in made), op.inputs, fused)
        if len(made) != 1 or made[0].op == "opaque" or not self.exact:
            return
        node = made[0]
        if [v.name for v in node.outputs] != list(op.outputs[: len(node.outputs)]):
            return
        taken = operands(op, node, self.consts)
        if taken is not None:
            self.originals[node.name] = Original(op.proto.SerializeToString(), node, taken)

    def failure(self, op: Op, error: Misfit) -> str:
        """What a user reads when a node does not fit."""
        shapes = ", ".join(str(self.value(i)) for i in op.inputs if i and (i in self.values or i in self.consts))
        return (
            f"{self.label}: {op.kind} '{op.label}' does not fit its inputs ({shapes}): {error}; "
            "the file is damaged or made for other input sizes: check it with onnx.checker and export it again"
        )
