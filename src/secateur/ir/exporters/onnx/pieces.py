"""Shuffles that are no regular grid: what reads channels is given pieces of what made them, in its own order.

A unit of ShuffleNet v2 joins, shuffles and splits; the half that goes by is joined, shuffled and split again. Where
such a shuffle is not written as the grid that it was, nothing in between is copied: Split takes each layer's result
apart once, and Concat puts together what the next layer reads. Runtimes crash on the Gather in its place or leave it
out, and DeepSparse (1.8) miscomputes a convolution that reads a part of what Concat put together in another order, or
a part of a shuffle that is not one of equal parts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from secateur.ir.graph import Graph, Node, Sym, Value
from secateur.ir.shuffles import few_enough, grid_of, is_permutation, parts_of, read_whole, runs_of


@dataclass(frozen=True, slots=True)
class Piece:
    """Channels ``start`` to ``end`` of a value that a layer made."""

    value: str
    start: int
    end: int


Pieces = tuple[Piece, ...]


def in_pieces(graph: Graph) -> Graph:
    """The graph with split and concat in place of irregular shuffles and of what moves channels around them."""
    shuffles = {node.name for node in graph.nodes if _irregular(graph, node)}
    while shuffles:
        found = _Pieces(graph, frozenset(shuffles))
        for node in graph.nodes:
            found.follow(node)
        if not found.too_many:
            return found.applied()
        shuffles -= found.too_many
    return graph


def _irregular(graph: Graph, node: Node) -> bool:
    """A permutation by an index that is not a grid, or is read in parts that are not of one size."""
    if node.op != "gather" or node.inputs[0] in graph.weights:
        return False
    axis, order = node.attrs["axis"], graph.weights.get(str(node.inputs[1]))
    size = graph.value(str(node.inputs[0])).shape[axis]
    if order is None or isinstance(size, Sym) or not is_permutation(order, size):
        return False
    return grid_of(order) is None or not read_whole(graph, node)


@dataclass
class _Pieces:
    """What each value that is not computed as it stands is made of, along which axis."""

    graph: Graph
    shuffles: frozenset[str]
    known: dict[str, tuple[int, Pieces]] = field(default_factory=dict)
    too_many: set[str] = field(default_factory=set)

    def follow(self, node: Node) -> None:
        """Say what a node's results are made of, where it only moves what is known, or joins what will be shuffled."""
        if node.name in self.shuffles:
            self._shuffle(node)
        elif node.op in ("split", "slice") and node.inputs[0] in self.known:
            axis, given = self.known[str(node.inputs[0])]
            for name, (start, end) in (parts_of(self.graph, node, axis) or {}).items():
                self._keep(name, axis, _cut(given, start, end))
        elif node.op == "concat" and not any(i in self.graph.weights for i in node.inputs):
            axis = node.attrs["axis"]
            axes = {self.known[str(i)][0] for i in node.inputs if i in self.known}
            axes |= {u.attrs["axis"] for u in self.graph.users.get(node.name, ()) if u.name in self.shuffles}
            sizes = [self.graph.value(str(i)).shape[axis] for i in node.inputs]
            if axes == {axis} and not any(isinstance(size, Sym) for size in sizes):
                self._keep(node.name, axis, (p for i in node.inputs for p in self._of(str(i), axis)))

    def _shuffle(self, node: Node) -> None:
        axis, source = node.attrs["axis"], str(node.inputs[0])
        order = self.graph.weights[str(node.inputs[1])]
        given = self._of(source, axis)
        self._keep(node.name, axis, (p for start, end in runs_of(order) for p in _cut(given, start, end)))
        many = not few_enough(len(self.known[node.name][1]), len(order))
        if many or self.known.get(source, (axis,))[0] != axis:
            self.too_many.add(node.name)

    def _of(self, name: str, axis: int) -> Pieces:
        if name in self.known:
            return self.known[name][1]
        return (Piece(name, 0, int(self.graph.value(name).shape[axis])),)

    def _keep(self, name: str, axis: int, pieces: Iterable[Piece]) -> None:
        self.known[name] = (axis, _joined(pieces))

    def applied(self) -> Graph:
        """The graph with a split after each layer that is taken apart, and a concat before each that reads pieces."""
        graph = self.graph
        moving = {graph.producer[name].name for name in self.known}
        read = {i for node in graph.nodes if node.name not in moving for i in node.inputs} | set(graph.outputs)
        wanted = {name: pieces for name, (_, pieces) in self.known.items() if name in read}
        axes = {piece.value: self.known[name][0] for name, pieces in wanted.items() for piece in pieces}
        bounds = {name: self._bounds(name, axis, wanted.values()) for name, axis in axes.items()}
        alias: dict[str, str] = {}
        nodes = [n for v in graph.inputs for n in self._split(v, axes, bounds)]
        for node in graph.nodes:
            if node.name in moving:
                for value in node.outputs:
                    if value.name in wanted:
                        nodes.extend(self._concat(node, value, wanted[value.name], bounds, alias))
                continue
            nodes.append(dataclasses.replace(node, inputs=tuple(alias.get(i, i) if i else i for i in node.inputs)))
            nodes.extend(n for v in node.outputs for n in self._split(v, axes, bounds))
        used = {i for node in nodes for i in node.inputs}
        unused = {i for name in self.shuffles for i in graph.producer[name].inputs[1:] if i not in used}
        weights = {name: array for name, array in graph.weights.items() if name not in unused}
        return graph.rewrite(nodes=nodes, weights=weights, keep=graph.notes)

    def _bounds(self, name: str, axis: int, wanted: Iterable[Pieces]) -> list[int]:
        edges = {0, int(self.graph.value(name).shape[axis])}
        edges |= {at for pieces in wanted for p in pieces if p.value == name for at in (p.start, p.end)}
        return sorted(edges)

    def _split(self, value: Value, axes: dict[str, int], bounds: dict[str, list[int]]) -> Iterator[Node]:
        edges = bounds.get(value.name, [])
        if len(edges) > 2:
            axis, sizes = axes[value.name], tuple(b - a for a, b in itertools.pairwise(edges))
            shape = value.shape
            outputs = tuple(
                Value(self._name(value.name, start), (*shape[:axis], size, *shape[axis + 1 :]), value.dtype)
                for start, size in zip(edges, sizes, strict=False)
            )
            made = self.graph.producer.get(value.name)
            extra = {} if made is None else {"source": made.source}
            yield Node("split", (value.name,), outputs, {"axis": axis, "sizes": sizes}, **extra)

    def _concat(
        self, node: Node, value: Value, pieces: Pieces, bounds: dict[str, list[int]], alias: dict[str, str]
    ) -> Iterator[Node]:
        names = [
            self._name(p.value, at) if len(bounds[p.value]) > 2 else p.value
            for p in pieces for at in bounds[p.value] if p.start <= at < p.end
        ]  # fmt: skip
        if len(names) == 1 and value.name not in self.graph.outputs:
            alias[value.name] = names[0]
        else:
            yield Node("concat", tuple(names), (value,), {"axis": self.known[value.name][0]}, node.source)

    def _name(self, value: str, start: int) -> str:
        name = f"{value}.{start}"
        while name in self.graph.values or name in self.graph.weights:
            name += "_"
        return name


def _cut(pieces: Pieces, start: int, end: int) -> Iterator[Piece]:
    """What lies between two positions of what the pieces make."""
    at = 0
    for piece in pieces:
        first, last = max(start, at), min(end, at + piece.end - piece.start)
        if first < last:
            yield Piece(piece.value, piece.start + first - at, piece.start + last - at)
        at += piece.end - piece.start


def _joined(pieces: Iterable[Piece]) -> Pieces:
    """The same with neighbours as one piece."""
    found: list[Piece] = []
    for piece in pieces:
        if found and (found[-1].value, found[-1].end) == (piece.value, piece.start):
            found[-1] = dataclasses.replace(found[-1], end=piece.end)
        else:
            found.append(piece)
    return tuple(found)
