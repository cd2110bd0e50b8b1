"""Latency tables: milliseconds by the shape of a layer, in a CSV file, as a latency model.

The columns are ``op,inputs,outputs,kernel,stride,groups,size,ms``: channels in and out, the other three as ``3x3`` (one
number stands for all axes), ``groups`` a number or ``depthwise``, ``size`` that of the result (``56x56``, of a linear
layer its rows). A row of op ``rest`` holds what is in no layer. Lines that begin with # say where times are from.

Time falls in steps of a vector, so widths are looked up at the full vectors that they need, and between the widths
that a table has (or beyond them) along a line through their products: such entries are *interpolated*, and counted as
such. The idea is NetAdapt's (ECCV 2018) and HALP's (NeurIPS 2022), whose tables hold every width.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from secateur.ir import Graph, InputError, Node

COLUMNS = ("op", "inputs", "outputs", "kernel", "stride", "groups", "size", "ms")
REST, DEPTHWISE = "rest", "depthwise"
LAYERS = ("conv", "conv_transpose", "linear")
SHOWN = 3  # layers that an error names


@dataclass(frozen=True)
class Kind:
    """What layers have in common that differ in widths alone."""

    op: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    form: str  # dense, grouped or depthwise
    size: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.form} {self.op} {_by(self.kernel)}, stride {_by(self.stride)}, to {_by(self.size)}"


@dataclass(frozen=True)
class Shape:
    """A layer: its kind, channels in and out, and in how many groups."""

    kind: Kind
    inputs: int
    outputs: int
    groups: int = 1

    @property
    def work(self) -> int:
        """What time follows, up to a factor of the kind."""
        return self.inputs * self.outputs // self.groups

    def full(self, lanes: int) -> int:
        """The same at the full vectors that its channels need."""
        inputs, outputs = (-(-width // lanes) * lanes for width in (self.inputs, self.outputs))
        return outputs if self.kind.form == DEPTHWISE else inputs * outputs // self.groups


@dataclass(frozen=True)
class Row:
    """A measured layer."""

    shape: Shape
    ms: float


@dataclass(frozen=True, eq=False)
class Table:
    """Measured layers, and ``rest``: milliseconds of what is in none. ``source``: whose times they are, in words."""

    rows: tuple[Row, ...]
    rest: float = 0.0
    source: str = ""
    lanes: int = 1  # widths are looked up at multiples of this
    how: ClassVar[str] = "by the latency table, next to the original"
    _points: Mapping[Kind, dict[Shape, float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        points: dict[Kind, dict[Shape, float]] = {}
        for row in self.rows:
            points.setdefault(row.shape.kind, {})[row.shape] = row.ms
        object.__setattr__(self, "_points", points)

    def __call__(self, *graphs: Graph) -> tuple[float, ...]:
        """Milliseconds of each graph. Raises InputError where a layer is of a kind that the table has not."""
        return tuple(self.rest + sum(self.layers(graph).values()) for graph in graphs)

    def layers(self, graph: Graph) -> Mapping[str, float]:
        """Milliseconds by the label of each layer. Raises InputError as a call does."""
        found: dict[str, float] = {}
        for node in self._known(graph):
            found[node.label] = found.get(node.label, 0.0) + self.at(shape_of(graph, node))[0]
        return found

    def at(self, shape: Shape) -> tuple[float, bool]:
        """Milliseconds, and whether they are interpolated. Raises KeyError for a kind that the table has not."""
        shape = self._known_as(shape)
        points = self._points[shape.kind]
        if shape in points:
            return points[shape], False
        works, times = zip(*sorted((known.full(self.lanes), ms) for known, ms in points.items()), strict=True)
        return max(_on_line(shape.full(self.lanes), works, times), 0.0), True

    def _known_as(self, shape: Shape) -> Shape:
        """The shape itself, but a depthwise layer where one of which a channel is left looks like a dense one."""
        depthwise = replace(shape.kind, form=DEPTHWISE)
        alone = shape.groups == shape.inputs and shape.kind not in self._points and depthwise in self._points
        return replace(shape, kind=depthwise) if alone else shape

    def remarks(self, graph: Graph) -> tuple[str, ...]:
        """How many of a graph's layers are interpolated, in a sentence; none where all were measured."""
        nodes = self._known(graph)
        guessed = [node.label for node in nodes if self.at(shape_of(graph, node))[1]]
        if not guessed:
            return ()
        source = f" of {self.source}" if self.source else ""
        return (f"the latency table{source} has {len(nodes) - len(guessed)} of {len(nodes)} layers at their widths; "
                f"{len(guessed)} are interpolated between its steps",)  # fmt: skip

    def _known(self, graph: Graph) -> list[Node]:
        nodes = [node for node in graph.nodes if node.op in LAYERS]
        lacking = list(dict.fromkeys(
            f"'{node.label}' ({kind})" for node in nodes
            if (kind := self._known_as(shape_of(graph, node)).kind) not in self._points
        ))  # fmt: skip
        if lacking:
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            raise InputError(
                f"the latency table has no row for {', '.join(lacking[:SHOWN])}{more}: add rows of these kinds, or "
                "make a table of this network with secateur bench --table"
            )
        return nodes

    def text(self) -> str:
        """As a CSV file."""
        out = io.StringIO()
        if self.source:
            out.write(f"# {self.source}\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            shape, kind = row.shape, row.shape.kind
            groups = DEPTHWISE if kind.form == DEPTHWISE else shape.groups
            writer.writerow([kind.op, shape.inputs, shape.outputs, _by(kind.kernel), _by(kind.stride), groups,
                             _by(kind.size), f"{row.ms:.6g}"])  # fmt: skip
        if self.rest:
            writer.writerow([REST, "", "", "", "", "", "", f"{self.rest:.6g}"])
        return out.getvalue()


def read_table(path: str | Path, lanes: int = 1) -> Table:
    """The table in a CSV file; widths are looked up at multiples of ``lanes``. Raises InputError with the line."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the latency table '{path}': {why}; name a CSV file") from error
    source = " ".join(line.lstrip("# ").strip() for line in lines if line.startswith("#"))
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered or tuple(cell.strip() for cell in numbered[0][1].split(",")) != COLUMNS:
        raise InputError(f"the latency table '{path}' does not begin with the columns {','.join(COLUMNS)}: write them")
    rows, rest = [], 0.0
    for number, line in numbered[1:]:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if len(cells) != len(COLUMNS):
                raise ValueError(f"it has {len(cells)} columns, not {len(COLUMNS)}")
            ms = float(cells[-1])
            if not 0 <= ms < math.inf:
                raise ValueError(f"{cells[-1]} is not a time")
            if cells[0] == REST:
                rest += ms
            else:
                rows.append(_row(cells, ms))
        except ValueError as error:
            raise InputError(f"the latency table '{path}', line {number}: {error}; correct it") from error
    if not rows:
        raise InputError(f"the latency table '{path}' holds no layer: add rows")
    return Table(tuple(rows), rest, source, lanes)


def _row(cells: Sequence[str], ms: float) -> Row:
    """Raises ValueError for what is not a layer."""
    op, inputs, outputs, kernel, stride, groups, size, _ = cells
    if op not in LAYERS:
        raise ValueError(f"there is no layer '{op}'; there are {', '.join(LAYERS)} and {REST}")
    where = _numbers(size)
    axes = len(where) if op != "linear" else 1
    count = _count(inputs) if groups == DEPTHWISE else _count(groups)
    kind = Kind(op, _each(kernel, axes), _each(stride, axes), _form(count, _count(inputs)), where)
    return Row(Shape(kind, _count(inputs), _count(outputs), count), ms)


def _form(groups: int, inputs: int) -> str:
    return "dense" if groups == 1 else DEPTHWISE if groups == inputs else "grouped"


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split("x"))


def _each(text: str, axes: int) -> tuple[int, ...]:
    found = _numbers(text)
    if len(found) not in (1, axes):
        raise ValueError(f"'{text}' has {len(found)} axes, not {axes}")
    return found if len(found) == axes else found * axes


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is not a number from 1 up")
    return int(text)


def shape_of(graph: Graph, node: Node) -> Shape:
    """The shape of a layer, one of ``LAYERS``."""
    out = tuple(map(int, node.out.shape))
    if node.op == "linear":
        first = str(node.inputs[0])
        x = graph.weights[first].shape if first in graph.weights else graph.value(first).shape
        return Shape(Kind("linear", (1,), (1,), "dense", (math.prod(out[:-1]),)), int(x[-1]), out[-1])
    name, groups = str(node.inputs[1]), int(node.attrs["groups"])
    weight = [int(n) for n in (graph.weights[name] if name in graph.weights else graph.value(name)).shape]
    wide, narrow = weight[0], weight[1] * groups
    inputs, outputs = (wide, narrow) if node.op == "conv_transpose" else (narrow, wide)
    stride = tuple(int(n) for n in node.attrs["stride"])
    return Shape(Kind(node.op, tuple(weight[2:]), stride, _form(groups, inputs), out[2:]), inputs, outputs, groups)


def _on_line(work: float, works: Sequence[float], times: Sequence[float]) -> float:
    """Between the two nearest points, beyond the ends along the line through the last two, or from nothing."""
    known, taken = np.array(works, float), np.array(times, float)
    if len(known) == 1 or known[0] == known[-1]:
        return float(taken.mean() * work / known[0])
    at = int(np.clip(np.searchsorted(known, work), 1, len(known) - 1))
    while at < len(known) - 1 and known[at] == known[at - 1]:
        at += 1
    low, high = at - 1, at
    while low > 0 and known[low] == known[high]:
        low -= 1
    slope = max((taken[high] - taken[low]) / (known[high] - known[low]), 0.0)
    return float(taken[low] + slope * (work - known[low]))
