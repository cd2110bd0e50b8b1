"""Which axes of the inputs stay dynamic: converting a model at several sizes, and comparing.

At every size a conversion says how its shapes and attributes follow the inputs. Where all say the same, and their
numbers are those of the expressions, the axis stays free; otherwise it is fixed, and the origin says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

from secateur.ir.errors import InputError, Unsupported
from secateur.ir.expr import Expr
from secateur.ir.followed import said
from secateur.ir.graph import Node, Sym, Value
from secateur.ir.symbolic import Size, as_sym, has_sizes, map_sizes

from .builder import Builder
from .dims import Axis, input_values
from .names import Misfit

if TYPE_CHECKING:
    from .load import Parsed

# Sizes tried for dynamic axes other than the batch, in this order.
SIZES = (224, 48, 64, 320, 640, 32, 512, 96, 128, 256, 16, 8, 576, 288, 1024, 299, 4, 1)
# Other sizes at which a network is converted as well: no multiples of each other, and then such as strides divide.
# Those of one round are tried in turn until one is accepted; each axis takes another of them, or all take the first.
ROUNDS = (
    ((61, 67, 71, 73, 79, 83), (96, 160, 192, 224, 288, 32), (40, 56, 72, 88, 104, 120), (7, 11, 13, 17, 19, 23)),
    ((353, 359, 367, 373, 379, 383), (352, 416, 448, 480, 544, 576), (200, 232, 264, 296, 328, 360)),
    ((997, 1009, 1013, 1019, 1021, 1031), (1056, 992, 928, 864, 800, 736), (416, 448, 384, 256, 512, 320)),
)
NEAR = (32, 64, 96, 224, 256, 320, 512, 16, 128, -16, -32, -64, 8, -8, 4, 1, -1)  # steps, where none of these fits
BATCHES = (3, 2, 5)
# What may hold sizes that follow the inputs, and the operator set since which that can be written.
WRITTEN = {"reshape": 7, "expand": 8, "slice": 10, "pad": 11, "tile": 7, "split": 13, "resize": 11, "conv": 11}


class Disagree(Exception):
    """A node depends on the input's size in a way that cannot be said."""


@dataclass(frozen=True)
class Converted:
    """The outcome of converting at one size and comparing with others."""

    builder: Builder
    nodes: Sequence[Node]
    inputs: Sequence[Value]
    specialised: tuple[str, ...] = ()
    probes: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True)
class Prober:
    """Converts one model at chosen sizes of its dynamic axes."""

    parsed: Parsed
    infos: Sequence[onnx.ValueInfoProto]
    axes: Sequence[Axis]
    given: Mapping[str, int] = field(default_factory=dict)  # sizes that the caller chose

    def convert(self) -> Converted:
        """Convert at one size, then at others to make sure of what follows the input."""
        first, sizes = self._first()
        free = [a.name for a in _unique(self.axes)]
        texts: list[str] = []
        while free:
            base = first if len(free) == len(_unique(self.axes)) else None
            found = self._free(sizes, free, base)
            if isinstance(found, Converted):
                return dataclasses.replace(found, specialised=tuple(texts))
            alone = {n: self._free(sizes, [n], None) for n in free} if len(free) > 1 else {}
            culprits = {n: r for n, r in alone.items() if isinstance(r, str)} or {free[-1]: found}
            for name, why in culprits.items():
                free.remove(name)
                axis = next(a for a in self.axes if a.name == name)
                texts.append(f"axis {axis.axis} of input '{axis.input}' ('{name}') is fixed at {sizes[name]}: {why}")
        builder = self._build(sizes, ()) if self.axes or first is None else first
        return Converted(builder, builder.nodes, self._inputs(sizes, ()), tuple(texts))

    def _build(self, sizes: Mapping[str, int], free: Sequence[str]) -> Builder:
        known = {n: Size(sizes[n], Expr.size(n)) for n in free}
        inputs = input_values(self.infos, self.axes, known, self.parsed.names, sizes)
        return self.parsed.build(inputs, sizes)

    def _inputs(self, sizes: Mapping[str, int], free: Sequence[str]) -> list[Value]:
        return input_values(self.infos, self.axes, {n: Sym(sizes[n], n) for n in free}, self.parsed.names, sizes)

    def _accepts(self, sizes: Mapping[str, int]) -> bool:
        """Can the network be converted with all axes fixed at these sizes?"""
        try:
            self._build(sizes, ())
        except (Misfit, Unsupported):
            return False
        return True

    def _first(self) -> tuple[Builder | None, dict[str, int]]:
        """The first choice of sizes that the network accepts; no conversion where it does so with fixed axes alone.

        Raises InputError where none is found.
        """
        failure, refusal = "", None
        free = [a.name for a in _unique(self.axes)]
        fixed = all(a.batch or a.name in self.given for a in self.axes)
        lead = {a.name for a in self.axes if a.input == self.infos[0].name} if self.infos else set()
        for size, others in ((1, 1),) if fixed else ((s, o) for o in (None, 1) for s in SIZES):
            small = others is not None and not fixed  # second round: only the first input is large
            sizes = {a.name: 1 if a.batch or (small and a.name not in lead) else size for a in self.axes}
            sizes |= self.given
            try:
                return self._build(sizes, free), sizes
            except Misfit as error:
                failure = failure or str(error)
            except Unsupported as error:
                refusal, failure = error, failure or str(error)
                if self._accepts(sizes):
                    return None, sizes
        if refusal is not None and failure == str(refusal):
            raise refusal
        if fixed:
            raise InputError(failure)
        tried = ", ".join(map(str, SIZES))
        open_axes = [a for a in self.axes if not a.batch and a.name not in self.given]
        names = ", ".join(f"'{a.name}' (axis {a.axis} of '{a.input}')" for a in open_axes)
        raise InputError(
            f"{failure}. The sizes {names} are dynamic and none of {tried} fits: export the model with fixed sizes, or "
            "give them (--shape NAME:1,3,320,320, or shapes= in Python)"
        )

    def _free(self, sizes: Mapping[str, int], free: Sequence[str], base: Builder | None) -> Converted | str:
        """The conversion with these axes free; the reason where that cannot be."""
        probes: list[dict[str, int]] = []
        reason = ""
        try:
            base = base or self._build(sizes, free)
            _check(base)
            for number in range(len(ROUNDS)):
                for other in self._choices(sizes, free, number, bool(probes)):
                    try:
                        builder = self._build(other, free)
                    except (Misfit, Unsupported, InputError) as error:
                        reason = reason or str(error)
                        continue
                    _compare(base, builder)
                    probes.append(other)
                    break
        except (Disagree, Misfit, Unsupported) as error:
            return str(error)
        if not probes:
            return reason
        nodes = [_plain(n) for n in base.nodes]
        return Converted(base, nodes, self._inputs(sizes, free), (), tuple(probes))

    def _choices(
        self, sizes: Mapping[str, int], free: Sequence[str], number: int, enough: bool
    ) -> Iterator[dict[str, int]]:
        """Sizes to try in one round; where something was found before, only the better ones."""
        batches = {a.name for a in self.axes if a.batch}
        spatial = [n for n in free if n not in batches]
        batch = dict.fromkeys((n for n in free if n in batches), BATCHES[number % len(BATCHES)])
        if not spatial:
            yield {**sizes, **batch}
            if not enough:
                yield from ({**sizes, n: b} for n in batch for b in (2, 3))
            return
        for choice in ROUNDS[number]:
            yield {**sizes, **batch, **{n: choice[i % len(choice)] for i, n in enumerate(spatial)}}
            if len(spatial) > 1:
                yield {**sizes, **batch, **dict.fromkeys(spatial, choice[0])}
        if not enough:
            for step in NEAR:
                if all(sizes[n] + step >= 1 for n in spatial):
                    yield {**sizes, **batch, **{n: sizes[n] + step for n in spatial}}


def guessed(axes: Sequence[Axis], sizes: Mapping[str, int], given: Mapping[str, int]) -> tuple[str, ...]:
    """What to tell about sizes that nobody gave, a sentence for each input. ``sizes``: those that were taken."""
    texts = []
    for name in dict.fromkeys(a.input for a in axes):
        own = [a for a in axes if a.input == name and not a.batch and a.name in sizes and a.name not in given]
        for size in dict.fromkeys(sizes[a.name] for a in own):
            named = ", ".join(a.name for a in own if sizes[a.name] == size)
            texts.append(f"{named} of '{name}' taken as {size} for counting and timing; --shape gives another size")
    return tuple(texts)


def _unique(axes: Sequence[Axis]) -> list[Axis]:
    return list({a.name: a for a in axes}.values())


def _check(base: Builder) -> None:
    """Raise Disagree where an attribute follows the inputs and could not be written."""
    for node in base.nodes:
        if not any(map(has_sizes, node.attrs.values())) or node.name in base.originals:
            continue
        if base.opset < WRITTEN.get(node.op, 1 << 30):
            raise Disagree(f"'{node.label}' ({node.op}) has attributes that depend on it")


def _compare(a: Builder, b: Builder) -> None:
    """Raise Disagree unless two conversions say the same."""
    if len(a.nodes) != len(b.nodes):
        raise Disagree("the number of nodes depends on it")
    for x, y in zip(a.nodes, b.nodes, strict=True):
        if x.op != y.op or x.inputs != y.inputs or [v.name for v in x.outputs] != [v.name for v in y.outputs]:
            raise Disagree(f"the structure at '{x.label}' depends on it")
        for name in x.inputs:
            if name in a.consts and not _same_constant(a, b, name):
                raise Disagree(f"'{x.label}' ({x.op}) reads the constant '{name}', which depends on it")
        if {k: said(v) for k, v in x.attrs.items()} != {k: said(v) for k, v in y.attrs.items()}:
            raise Disagree(f"'{x.label}' ({x.op}) has attributes that depend on it")
        for u, v in zip(x.outputs, y.outputs, strict=True):
            if said(u.shape) != said(v.shape) or not (_fits(u, a) and _fits(v, b)):
                raise Disagree(f"'{x.label}' ({x.op}) gives shapes that depend on it")
    for name in a.outputs:
        if name in a.consts and not _same_constant(a, b, name):
            raise Disagree(f"output '{name}' depends on it")


def _same_constant(a: Builder, b: Builder, name: str) -> bool:
    x, y = a.consts[name], b.consts.get(name)
    return x is y or (
        y is not None and x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))
    )


def _fits(value: Value, builder: Builder) -> bool:
    """Whether the dimensions are what their expressions give, as far as that can be computed."""
    found = [(d, d.expr.at(builder.sizes)) for d in value.shape if isinstance(d, Size)]
    return all(want is None or want == int(d) for d, want in found)


def _plain(node: Node) -> Node:
    """The node as a graph holds it: sizes are named."""
    attrs = {k: map_sizes(v, as_sym) for k, v in node.attrs.items()}
    if node.op != "opaque":
        return dataclasses.replace(node, attrs=attrs)
    outputs = tuple(Value(v.name, map_sizes(v.shape, _named), v.dtype) for v in node.outputs)
    return dataclasses.replace(node, attrs=attrs, outputs=outputs)


def _named(dim: Sym) -> int:
    known = not isinstance(dim, Size) or dim.expr.known
    return Sym(int(dim), dim.name if known else "any")
