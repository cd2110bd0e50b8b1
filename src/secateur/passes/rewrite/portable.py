"""``portable``: channels of a slim network in an order in which its shuffles are regular again.

What survives of a shuffle is an irregular index, on which runtimes crash or miscompute. The order of channels is free
wherever what reads them can be told: the columns of a layer's weight, parameters that are applied channel by channel.
So the result of each shuffle, and its source where layers make it for nothing else, are put into an order in which it
is nothing at all, or a grid turned over as before (where equally many channels survive), or else few pieces that change
places: then ONNX needs no Gather. Where results are split again, as in ShuffleNet v2, the rows of each layer stand in
the order in which others read them, so that each is taken apart once (exporters/onnx/pieces.py). Weights change the
order of their entries and no value, and the recipe lists kept channels as they stand.

Before::

    %s = gather(%c, @s.index) axis=1 : f32[1, 6, 4, 4]
    %y = conv(%s, @d.weight) groups=1 .. : f32[1, 8, 4, 4]
    weights @s.index i64[6] = [0, 3, 1, 2, 4, 5]

After, with the columns of ``@d.weight`` in that order::

    %y = conv(%c, @d.weight) groups=1 .. : f32[1, 8, 4, 4]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, Node, prune_dead
from secateur.ir.shuffles import few_enough, grid_of, is_permutation, read_whole, runs_of
from secateur.passes.recipe.recipe import Indices, Kept, Recipe, groups_of

from .channel_order import OWN, Columns, Rows, destinations, freedom, made_by, passage


@dataclass(frozen=True, slots=True)
class Portable:
    """Put channels into an order in which shuffles are written without an index; exact, and weights keep their values.

    A permutation whose readers need its order stays as it is. Policies have this pass after ``slim`` without naming it;
    with ``on=false`` channels keep the original's order.
    """

    name: ClassVar[str] = "portable"
    on: bool = True

    def __call__(self, graph: Graph) -> Graph:
        """The same graph where no shuffle is irregular; else the recipe lists channels as they stand, and this pass."""
        if not self.on:
            return graph
        orders = _Orders(graph)
        for node in graph.nodes:
            orders.follow(node)
        if not orders.moved and not orders.alias:
            return graph
        recipe = graph.note(Recipe)
        made = orders.applied()
        return made if recipe is None else made.with_note(_listed(recipe, orders, self))


@dataclass
class _Orders:
    """The order of channels of each value so far: position j holds what stood at ``order[j]``."""

    graph: Graph
    orders: dict[str, tuple[int, Array]] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    moved: dict[Columns, Array] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)  # of gathers: the weight that it is now

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each node stands in the graph."""
        return {node.name: at for at, node in enumerate(self.graph.nodes)}

    def follow(self, node: Node) -> None:
        """Carry the orders of a node's operands on, and choose that of a shuffle's result."""
        if node.op == "gather":
            self._gather(node)
            return
        for index, name in enumerate(node.inputs):
            if name not in self.orders:
                continue
            axis, order = self.orders[name]
            found = passage(self.graph, node, index, axis)
            assert found is not None, f"{node.op} {node.label} cannot take channels in another order"
            for columns in found.weights:
                self._take(columns, order)
            for run in found.runs:
                size = int(self.graph.value(run.value).shape[run.axis])
                _, whole = self.orders.setdefault(run.value, (run.axis, np.arange(size)))
                part = order[run.start : run.start + run.length]
                whole[run.place : run.place + run.length] = part - run.start + run.place

    def _take(self, columns: Columns, order: Array) -> None:
        """A weight in this order. Of a grouped one, each group of rows has its own columns."""
        old = self.weights.get(columns.weight, self.graph.weights[columns.weight])
        if columns.groups == 1:
            self.weights[columns.weight] = np.take(old, order, axis=columns.axis)
        else:
            local = order.reshape(columns.groups, -1) % (len(order) // columns.groups)
            rows = old.reshape(columns.groups, -1, *old.shape[1:])
            turned = [part[:, place] for part, place in zip(rows, local, strict=True)]
            self.weights[columns.weight] = np.stack(turned).reshape(old.shape)
        self.moved[columns] = order

    def _gather(self, node: Node) -> None:
        source, axis = str(node.inputs[0]), node.attrs["axis"]
        known = self.orders.get(source)
        index = self.graph.weights.get(node.inputs[1] or "")
        if index is None or source in self.graph.weights:
            return
        assert known is None or known[0] == axis, f"gather {node.label} cannot take channels in another order"
        size = self.graph.value(source).shape[axis]
        place = index if known is None else np.argsort(known[1])[index % int(size)]
        if type(size) is int and is_permutation(place, size):
            place, chosen = self._best(node, place)
            if not np.array_equal(chosen, np.arange(size)):
                self.orders[node.name] = (axis, chosen)
            place = place[chosen]
            if np.array_equal(place, np.arange(size)) and node.name not in self.graph.outputs:
                self.alias[node.name] = self.alias.get(source, source)
        if not np.array_equal(place, index):
            name = f"{OWN}{node.name}.order"
            while name in self.graph.weights or name in self.graph.values:
                name += "_"
            self.weights[name], self.index[node.name] = place, name

    def _best(self, node: Node, place: Array) -> tuple[Array, Array]:
        """The source of each position and the order of the result in which a permutation is written best.

        Layers that make the source for nothing else may have their rows in another order: then nothing may be left.
        """
        axis, stay = node.attrs["axis"], np.arange(len(place))
        block, grids = freedom(self.graph, node.name, axis), read_whole(self.graph, node)
        rows = made_by(self.graph, str(node.inputs[0]), axis)
        found = []
        journeys = destinations(self.graph, str(node.inputs[0]), axis, self.places)
        for source in (stay, *_sources(place, block, journeys, rows)):
            moved = np.argsort(source)[place]
            chosen = _chosen(moved, block, grids)
            found.append((_price(moved[chosen], grids), source, moved, chosen))
        _, source, moved, chosen = min(found, key=lambda f: f[0])
        if not np.array_equal(source, stay):
            for made in rows:
                order = source[made.start : made.start + len(made.block)] - made.start
                for columns in made.weights:
                    self._take(columns, order)
        return moved, chosen

    def applied(self) -> Graph:
        """The graph with the new weights, without the shuffles that became nothing."""
        nodes = []
        for node in self.graph.nodes:
            if node.name in self.alias:
                continue
            inputs = tuple(self.alias.get(i, i) if i else i for i in node.inputs)
            if node.name in self.index:
                inputs = (inputs[0], self.index[node.name])
            nodes.append(dataclasses.replace(node, inputs=inputs) if inputs != node.inputs else node)
        return prune_dead(self.graph.rewrite(nodes=nodes, weights={**self.graph.weights, **self.weights}))


def _sources(place: Array, block: Array, journeys: Array, rows: Sequence[Rows]) -> Iterator[Array]:
    """Orders of a permutation's source that its layers may give it.

    By who reads channels in the end (i64[size] ``journeys``), as the result has them, and as its blocks have them.
    """
    back = np.argsort(place)
    first = np.unique(block, return_index=True)[1][np.unique(block, return_inverse=True)[1]]
    for keys in ((back, journeys), (back,), (back, first[back])):
        order: Array = np.arange(len(place))
        for made in rows:
            here = slice(made.start, made.start + len(made.block))
            order[here] = made.start + np.lexsort((*(key[here] for key in keys), made.block))
        yield order


def _price(place: Array, grids: bool) -> int:
    """How many pieces a permutation is written in: none where it moves nothing, one where it is a grid."""
    if np.array_equal(place, np.arange(len(place))):
        return 0
    return 1 if grids and grid_of(place) is not None else len(runs_of(place))


def _chosen(place: Array, block: Array, grids: bool) -> Array:
    """The order of a permutation's result in which it is written best: positions of the result as it was.

    ``place``: the source of each position; ``block``: positions with the same number may change places; ``grids``: may
    the result be a grid turned over?
    """
    size = len(place)
    stay, back = np.arange(size), np.argsort(place)
    if np.array_equal(place, stay) or (grids and grid_of(place) is not None):
        return stay
    # Of one row: nothing moves.
    targets = (stay.reshape(g, -1).T.reshape(-1) for g in range(1, size // 2 + 1 if grids else 2) if size % g == 0)
    for target in targets:
        if np.array_equal(block[back[target]], block):
            return back[target]
    pieces: Array = np.empty(size, np.int64)
    pieces[np.argsort(block, kind="stable")] = np.lexsort((place, block))
    return pieces if few_enough(len(runs_of(place[pieces])), size) else stay


def _listed(recipe: Recipe, orders: _Orders, step: Portable) -> Recipe:
    """The recipe with kept channels in the order in which they stand now."""
    weights: dict[str, Kept] = {name: dict(kept) for name, kept in recipe.weights.items()}
    shapes = dict(recipe.shapes)
    for columns, order in orders.moved.items():
        name, axis = columns.weight, columns.axis
        shapes.setdefault(name, orders.graph.weights[name].shape)
        kept = weights.setdefault(name, {})
        kept[axis] = _turned(kept.get(axis), columns.groups, order)
    steps = dataclasses.replace(recipe.steps, after=(*recipe.steps.after, step))
    return dataclasses.replace(recipe, weights=weights, shapes=shapes, steps=steps)


def _turned(kept: Indices | None, groups: int, order: Array) -> Indices:
    """Kept channels in another order; all of them where none was listed."""
    size = len(order) // groups
    if groups == 1:
        plain = list(range(size)) if kept is None else _plain(kept)
        return [plain[j] for j in order]
    lists = [list(range(size))] * groups if kept is None else groups_of(kept) or []
    local = order.reshape(groups, size) % size
    return [[row[j] for j in places] for row, places in zip(lists, local, strict=True)]


def _plain(kept: Indices) -> Sequence[int]:
    return [k for k in kept if isinstance(k, int)]
