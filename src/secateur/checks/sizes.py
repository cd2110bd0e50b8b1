"""Other sizes at which a network with dynamic axes is run: coprime, no multiples of 32, small and large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from secateur.ir import Array, Error, Graph, Sym, reinfer
from secateur.ir.symbolic import resized
from secateur.ir.torch_origin import TorchOrigin
from secateur.passes.analysis.cost import cost

Shapes = dict[str, tuple[int, ...]]  # of the inputs, by name

BATCHES = (3, 2, 1)  # one for each kind of size below
SMALL, MIDDLE, LARGE = (37,), (227,), (16001, 4001, 1009, 601, 293)  # the first that can be paid for
STEPS = (1, 2, 4, 8, 16, 32)  # who halves its input and adds it up again takes multiples of a power of two only
PRICE = 1e9  # multiply-accumulates that a run may always cost
ELEMENTS = 1 << 23  # of the largest value, or twice what it has at the captured size
SUMMED = 1 << 17  # positions that are added up in single precision: longer sums differ between runtimes by too much
POSITIONS = 1 << 10  # along an axis that is resized by interpolation: runtimes compute them in single precision, too
NORMS = frozenset({"instance_norm", "group_norm"})
SUMS = NORMS | {"reduce_sum", "reduce_mean", "reduce_l1", "reduce_l2", "reduce_logsumexp"}
INPUT = 1 << 20  # elements of an input whose values' sizes nobody knows


class Resizing:
    """A graph at the sizes that are asked for: each is derived once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._found: dict[tuple[tuple[int, ...], ...], Graph | None] = {}

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates at the sizes that the graph states."""
        return cost(self.graph).totals()["macs"]

    def at(self, shapes: Mapping[str, Sequence[int]]) -> Graph | None:
        """The graph with its inputs at these shapes; None where its own rules do not allow them."""
        key = tuple(tuple(map(int, shapes.get(v.name, v.shape))) for v in self.graph.inputs)
        if key not in self._found:
            self._found[key] = _at_shapes(self.graph, shapes)
        return self._found[key]

    def is_costly(self) -> bool:
        """Does a run at the captured size cost so much that one has to do?"""
        return self.macs > PRICE

    def seconds_of(self, feed: Mapping[str, Array]) -> float:
        """Processor seconds that a run may take at the very most, by its multiply-accumulates."""
        there = self.at({name: array.shape for name, array in feed.items()})
        return (self.macs if there is None else cost(there).totals()["macs"]) / 1e8

    def others(self) -> Iterator[Iterator[Shapes]]:
        """For each kind of size the choices in order: the first that the network takes is the one."""
        graph = self.graph
        axes = dict.fromkeys(d.name for v in graph.inputs for d in v.shape if isinstance(d, Sym))
        batch = {v.shape[0].name for v in graph.inputs if v.shape and isinstance(v.shape[0], Sym)}
        free = [name for name in axes if name not in batch]
        if not axes:
            return
        for examples, targets in zip(BATCHES, (SMALL, MIDDLE, LARGE) if free else ((0,), (0,)), strict=False):
            yield self._choices(dict.fromkeys(batch, examples), free, targets)

    def _choices(self, many: Mapping[str, int], free: Sequence[str], targets: Sequence[int]) -> Iterator[Shapes]:
        """All plans of the first target that can be paid for; then the batch alone."""
        for target in targets:
            first = self._shapes({**many, **_spread(free, target, 1)})
            if not self._refused(first) and not self._bearable(first):
                continue
            found = False
            for shapes in (first, *self._plans(many, free, target)):
                if self._bearable(shapes):
                    found = True
                    yield shapes
            if found:
                break
        if free and many:
            yield self._shapes(many)

    def _plans(self, many: Mapping[str, int], free: Sequence[str], target: int) -> Iterator[Shapes]:
        """Each axis at its own size or all at one, by larger and larger steps; then one axis alone."""
        for step in STEPS if free else ():
            sizes = _spread(free, target, step)
            plans = [sizes] if step > 1 else []
            plans += [dict.fromkeys(free, max(sizes.values()))] if len(free) > 1 and step in (1, STEPS[-1]) else []
            yield from (self._shapes({**many, **plan}) for plan in plans)
        yield from (self._shapes({name: size}) for name, size in _spread(free, target, 1).items())

    def _shapes(self, plan: Mapping[str, int]) -> Shapes:
        return {
            v.name: tuple(plan.get(d.name, int(d)) if isinstance(d, Sym) else d for d in v.shape)
            for v in self.graph.inputs
        }

    def _refused(self, shapes: Shapes) -> bool:
        """Does a captured network not take these shapes? All its sizes are known, where a file's may follow data."""
        return self.graph.note(TorchOrigin) is not None and self.at(shapes) is None

    def _bearable(self, shapes: Shapes) -> bool:
        """Can a run at these shapes be paid for, in time and in memory, and is what it sums up still exact?"""
        if self._refused(shapes):
            return False
        there = self.at(shapes)
        if there is None:
            return all(math.prod(shape) <= INPUT for shape in shapes.values())
        most = max(ELEMENTS, 2 * _largest(self.graph))
        exact = _longest_sum(there) <= max(SUMMED, _longest_sum(self.graph))
        exact &= _most_positions(there) <= max(POSITIONS, _most_positions(self.graph))
        return exact and _largest(there) <= most and cost(there).totals()["macs"] <= max(PRICE, 2 * self.macs)


def _spread(axes: Sequence[str], target: int, step: int) -> dict[str, int]:
    """For each axis another prime times the step, from the target on."""
    number, sizes = max(2, target // step), dict[str, int]()
    for name in axes:
        while any(number % d == 0 for d in range(2, math.isqrt(number) + 1)):
            number += 1
        sizes[name] = number * step
        number += 1
    return sizes


def _at_shapes(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph | None:
    pairs = [(d, n) for v in graph.inputs for d, n in zip(v.shape, shapes.get(v.name, v.shape), strict=True)]
    sizes = {d.name: int(n) for d, n in pairs if isinstance(d, Sym)}
    if any(int(d) != n for d, n in pairs if not isinstance(d, Sym)):
        return None
    try:
        return reinfer(resized(graph, sizes))
    except (Error, ValueError, IndexError, KeyError, ZeroDivisionError):
        return None


def _largest(graph: Graph) -> int:
    """Elements of the largest value."""
    return max((math.prod(v.shape) for v in graph.values.values()), default=0)


def _longest_sum(graph: Graph) -> int:
    """Over how many positions a node adds up at most; products are left out, whose sums follow no input's size."""
    longest = 0
    for node in graph.nodes:
        if node.op in SUMS and node.inputs[0] is not None:
            x = graph.value(node.inputs[0]).shape
            kept = x[:2] if node.op in NORMS else node.out.shape
            longest = max(longest, math.prod(x) // max(math.prod(kept), 1))
    return longest


def _most_positions(graph: Graph) -> int:
    """The largest size of an axis that is resized by interpolation."""
    most = 0
    for node in graph.nodes:
        if node.op == "resize" and node.attrs["mode"] != "nearest" and node.inputs[0] is not None:
            most = max(most, *map(int, (*node.out.shape[2:], *graph.value(node.inputs[0]).shape[2:])))
    return most
