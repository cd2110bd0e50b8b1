"""Builds IR nodes while the rules walk a torch graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx

from secateur.ir.errors import VerifyError
from secateur.ir.graph import Array, Attr, Node, Source, Value, dtype_of, numpy_dtype
from secateur.ir.infer import infer_node

from .arrays import COMPLEX, short_name

Result = Any  # a Value, or a (nested) sequence of Values
Argument = Any  # of a call: a Value, a number, a string, a torch type, None, or a (nested) sequence of them
Rule = Callable[["Builder", "Args"], Result]


class Skip(Exception):
    """A rule cannot express this call; the node becomes opaque."""


# Arguments that say where and how a result lies in memory or is computed, and never what its elements are.
_WITHOUT_EFFECT = frozenset(
    {"memory_format", "layout", "device", "pin_memory", "non_blocking", "copy", "implicit", "inplace", "cudnn_enabled",
     "benchmark", "deterministic", "allow_tf32", "generator"}
)  # fmt: skip


class Args:
    """The arguments of an ATen call by their schema names, tensors as Values.

    ``meta`` is the recorded result: a (fake) tensor or a sequence of them. Which arguments a rule
    has asked for is remembered: see ``ignored``.
    """

    def __init__(
        self, values: Mapping[str, Argument], meta: Argument, target: Argument, defaults: Mapping[str, Argument]
    ) -> None:
        self._values = values
        self._defaults = defaults
        self._asked: set[str] = set(_WITHOUT_EFFECT)
        self.meta = meta
        self.target = target

    def __getattr__(self, name: str) -> Argument:
        if name not in self._values:
            raise Skip(f"{self.target} has no argument {name}")
        self._asked.add(name)
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str, default: Argument = None) -> Argument:
        """An argument that not every overload has."""
        self._asked.add(name)
        return self._values.get(name, default)

    def peek(self, name: str) -> Argument:
        """An argument without having asked for it."""
        return self._values.get(name)

    def with_values(self, values: Mapping[str, Argument]) -> Args:
        """The same call with these arguments in the place of its own."""
        return Args({**self._values, **values}, self.meta, self.target, self._defaults)

    def first(self) -> Argument:
        """The first argument, whatever this overload calls it."""
        return self.get(next(iter(self._values)))

    def shown(self, *names: str) -> None:
        """These arguments have done their work in the recorded shape or type of the result."""
        self._asked.update(names)

    def ignored(self) -> list[str]:
        """Arguments that the rule never asked for and that say something: they differ from the schema's default."""
        return [
            name
            for name, value in self._values.items()
            if name not in self._asked and not (name in self._defaults and _same(value, self._defaults[name]))
        ]

    @property
    def dtype(self) -> str:
        """The element type of the (first) result."""
        self.shown("dtype")
        meta = self.meta[0] if isinstance(self.meta, list | tuple) else self.meta
        return short_name(meta.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The recorded shape of the (first) result."""
        meta = self.meta[0] if isinstance(self.meta, list | tuple) else self.meta
        return tuple(int(d) for d in meta.shape)


def _same(value: Argument, default: Argument) -> bool:
    if isinstance(value, Value) or isinstance(default, Value):
        return value is default
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return type(value) is type(default) and bool(value == default)


class Builder:
    """Collects nodes and weights; every emitted node gets its shapes from the IR's own rules.

    ``reserved`` are the names of the module's own weights, read or not yet read: no other value or
    weight is ever given one of them.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._reserved = frozenset(reserved)
        self.nodes: list[Node] = []
        self.weights: dict[str, Array] = {}
        self.values: dict[str, Value] = {}
        self.made: dict[str, Node] = {}
        self.now: dict[str, Array] = {}  # what values that follow sizes alone are at those of the capture
        self.source = Source()
        self.prefix = ""
        self.open_sizes = False  # build what follows a size of nodes, not as a constant
        self.train_as = ""  # set by a rule whose operator is another one in train mode
        self._count = 0
        self._constants = 0
        self._scalars: dict[tuple[str, bytes], str] = {}

    def start(self, prefix: str, source: Source) -> None:
        """Nodes emitted from now on belong to this torch node."""
        self.prefix, self.source, self._count, self.train_as = prefix, source, 0, ""

    def emit(self, op: str, inputs: Sequence[Value | None], count: int = 1, /, **attrs: Attr) -> Value:
        """Append a node with one output."""
        return self.emit_many(op, inputs, count, **attrs)[0]

    def emit_many(self, op: str, inputs: Sequence[Value | None], count: int, /, **attrs: Attr) -> tuple[Value, ...]:
        """Append a node; shapes and types are inferred. Raises ValueError if operands do not fit."""
        names = []
        for _ in range(count):
            names.append(self.fresh(f"{self.prefix}.{self._count}"))
            self._count += 1
        blank = tuple(Value(n, ()) for n in names)
        node = Node(op, tuple(None if i is None else i.name for i in inputs), blank, attrs, self.source)
        return self.append(Node(op, node.inputs, infer_node(node, inputs), attrs, self.source))

    def append(self, node: Node) -> tuple[Value, ...]:
        """Append a finished node."""
        self.nodes.append(node)
        for value in node.outputs:
            self.values[value.name] = value
            self.made[value.name] = node
        return node.outputs

    def taken(self, name: str) -> bool:
        """Does this name belong to a value, or to a weight of the module whether or not it was read yet?"""
        return name in self._reserved or name in self.values or name in self.weights

    def fresh(self, wanted: str) -> str:
        """The wanted name, with underscores after it until nothing else is called so."""
        while self.taken(wanted):
            wanted += "_"
        return wanted

    def add_weight(self, name: str, array: Array) -> Value:
        """Register a weight (the same array again under its name is the same weight).

        Raises VerifyError where the name stands for something else already.
        """
        known = self.weights.setdefault(name, array)
        if known is not array and not _equal(known, array):
            raise VerifyError(f"weight @{name} would stand for two different arrays; this is a fault in secateur")
        value = Value(name, array.shape, dtype_of(array))
        self.values[name] = value
        return value

    def const(self, array: Array) -> Value:
        """A constant as a weight with a generated name; equal scalars share one."""
        key = (array.dtype.name, array.tobytes()) if array.ndim == 0 else None
        if key is not None and key in self._scalars:
            return self.values[self._scalars[key]]
        while self.taken(f"const.{self._constants}"):
            self._constants += 1
        value = self.add_weight(f"const.{self._constants}", array)
        if key is not None:
            self._scalars[key] = value.name
        return value

    def scalar(self, number: Argument, dtype: str) -> Value:
        """A 0-d constant of this type."""
        return self.const(np.array(number).astype(numpy_dtype(dtype)))

    def lift(self, item: Argument, dtype: str) -> Value:
        """A tensor, or a Python number as a constant, in this element type."""
        if isinstance(item, Value):
            return self.cast(item, dtype)
        if not isinstance(item, int | float | bool) and not (isinstance(item, complex) and dtype in COMPLEX):
            raise Skip(f"{item!r} is not a number")
        return self.scalar(item, dtype)

    def cast(self, value: Value, dtype: str) -> Value:
        """The value in this element type. Raises Skip for complex numbers that would lose their imaginary part."""
        if value.dtype == dtype:
            return value
        if value.dtype in COMPLEX and dtype not in COMPLEX:
            raise Skip(f"{value.dtype} as {dtype} drops the imaginary part")
        array = self.weights.get(value.name)
        if array is not None and array.ndim == 0:
            return self.const(array.astype(numpy_dtype(dtype)))
        return self.emit("cast", [value], to=dtype)

    def array(self, value: Value) -> Array | None:
        """The data of a weight; None for a value that flows."""
        return self.weights.get(value.name)

    def depends_on_none(self, value: Value) -> bool:
        """Is this computed from weights alone?"""
        work, seen = [value.name], set()
        while work:
            name = work.pop()
            if name in self.weights or name in seen:
                continue
            seen.add(name)
            if name not in self.made:
                return False
            work += [i for i in self.made[name].inputs if i is not None]
        return True

    # Small compositions that several rules share.

    def binary(self, op: str, a: Argument, b: Argument, dtype: str) -> Value:
        """An element-wise operator of two operands in this type."""
        return self.emit(op, [self.lift(a, dtype), self.lift(b, dtype)])

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """A reshape, or nothing where the shape is the same already."""
        shape = tuple(int(d) for d in shape)
        maker = self.made.get(x.name)
        if maker is not None and maker.op == "reshape":  # there and back
            before = self.values[maker.inputs[0] or ""]
            if before.shape == shape and before.name not in self.weights:
                return before
        return x if shape == x.shape else self.emit("reshape", [x], shape=shape)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """A transposition, or nothing where the order is the same already."""
        perm = tuple(perm)
        return x if perm == tuple(range(len(perm))) else self.emit("transpose", [x], perm=perm)

    def slice(self, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
        """A slice of one axis."""
        return self.emit("slice", [x], axes=(axis,), starts=(start,), ends=(end,), steps=(step,))


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def following(b: Builder, number: float) -> Value:
    """A number that follows a size: what a sum over so many ones is, or its reciprocal. Raises Skip for others."""
    if number == int(number) and number:
        ones = b.emit("expand", [b.const(np.ones(1, np.int64))], shape=(abs(int(number)),))
        size = b.emit("reduce_sum", [ones], axes=(0,), keepdims=False)
        size = size if number > 0 else b.emit("neg", [size])
        return b.cast(size, "f32") if isinstance(number, float) else size
    turned = round(1 / number) if number else 0
    if turned and 1 / turned == number:
        return b.emit("reciprocal", [b.cast(following(b, turned), "f32")])
    raise Skip(f"{number} follows no size")


def positions(b: Builder, count: int) -> Value:
    """0, 1, .. as integers."""
    ones = b.emit("expand", [b.const(np.ones(1, np.int64))], shape=(count,))
    return b.emit("sub", [b.emit("cumsum", [ones], axis=0), b.scalar(1, "i64")])


def size_of(b: Builder, x: Value, axis: int) -> Value:
    """The size of an axis as a value, which follows it where sizes are open."""
    return size_value(b, x.shape[axis])


def size_value(b: Builder, number: int) -> Value:
    """A size as a value, which follows the inputs where sizes are open."""
    return following(b, number) if b.open_sizes and number else b.scalar(number, "i64")


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def axes_of(axes: Argument, rank: int) -> tuple[int, ...]:
    """Non-negative axes; None and the empty list mean all."""
    if axes is None or (isinstance(axes, list | tuple) and not axes):
        return tuple(range(rank))
    if isinstance(axes, int):
        axes = [axes]
    return tuple(axis_of(a, rank) for a in axes)


def ints(value: Argument, count: int) -> tuple[int, ...]:
    """A tuple of ``count`` ints from an int or a list that may hold one for all."""
    if isinstance(value, int):
        return (value,) * count
    items = tuple(int(v) for v in value)
    return items * count if len(items) == 1 else items


def optional(*values: Value | None) -> list[Value | None]:
    """Inputs without the absent ones at the end."""
    items = list(values)
    while items and items[-1] is None:
        items.pop()
    return items


def bind(node: fx.Node, args: Sequence[Argument], kwargs: Mapping[str, Argument]) -> Args:
    """Arguments by schema name with defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    values: dict[str, Argument] = {}
    positional = list(args)
    for i, argument in enumerate(schema.arguments):
        if i < len(positional):
            values[argument.name] = positional[i]
        elif argument.name in kwargs:
            values[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            values[argument.name] = argument.default_value
        else:
            values[argument.name] = None
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return Args(values, node.meta.get("val"), node.target, defaults)
