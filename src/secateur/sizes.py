"""Other sizes at which a network with dynamic axes is run: coprime, no multiples of 32, small and large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from secateur.ir import Array, Error, Graph, Sym, reinfer
from secateur.ir.symbolic import resized
from secateur.ir.torch_origin import TorchOrigin
from secateur.passes.analysis.cost import cost

Shapes = dict[str, tuple[int, ...]]  # of the inputs, by name

BATCHES = (3, 2, 1)  # one for each kind of size below
SMALL, MIDDLE, LARGE = (37,), (227,), (16001, 4001, 1009, 601, 293)  # the first that can be paid for
STEPS = (
    1,
    2,
    4,
    8,
    16,
    32,
)  # networks that halve their input and add it up again take multiples of a power of two only
PRICE = 1e9  # multiply-accumulates that a run may always cost
ELEMENTS = 1 << 26  # of the largest value
SUMMED = 1 << 17  # positions that are added up in single precision: longer sums differ between runtimes by too much
NORMS = frozenset({"instance_norm", "group_norm"})
SUMS = NORMS | {"reduce_sum", "reduce_mean", "reduce_l1", "reduce_l2", "reduce_logsumexp"}
INPUT = 1 << 20  # elements of an input whose values' sizes nobody knows


def other_sizes(graph: Graph) -> Iterator[Iterator[Shapes]]:
    """For each kind of size the choices in order: the first that the network takes is the one."""
    axes = dict.fromkeys(d.name for v in graph.inputs for d in v.shape if isinstance(d, Sym))
    batch = {v.shape[0].name for v in graph.inputs if v.shape and isinstance(v.shape[0], Sym)}
    free = [name for name in axes if name not in batch]
    if not axes:
        return
    for examples, targets in zip(BATCHES, (SMALL, MIDDLE, LARGE) if free else ((0,), (0,)), strict=False):
        yield _choices(graph, dict.fromkeys(batch, examples), free, targets)


def _choices(graph: Graph, many: Mapping[str, int], free: Sequence[str], targets: Sequence[int]) -> Iterator[Shapes]:
    """All axes at once, each at a size of its own or all at one, by larger and larger steps; then one axis alone."""
    for target in targets:
        first = _shapes(graph, {**many, **_spread(free, target, 1)})
        if not _refused(graph, first):
            if not _bearable(graph, first):
                continue
            yield first
        for step in STEPS if free else ():
            sizes = _spread(free, target, step)
            plans = [sizes] if step > 1 else []
            plans += [dict.fromkeys(free, max(sizes.values()))] if len(free) > 1 and step in (1, STEPS[-1]) else []
            for plan in plans:
                shapes = _shapes(graph, {**many, **plan})
                if _bearable(graph, shapes):
                    yield shapes
        for name, size in _spread(free, target, 1).items():
            shapes = _shapes(graph, {name: size})
            if not _refused(graph, shapes):
                yield shapes
        if free and many:
            yield _shapes(graph, many)
        return


def _spread(axes: Sequence[str], target: int, step: int) -> dict[str, int]:
    """For each axis another prime times the step, from the target on."""
    number, sizes = max(2, target // step), dict[str, int]()
    for name in axes:
        while any(number % d == 0 for d in range(2, math.isqrt(number) + 1)):
            number += 1
        sizes[name] = number * step
        number += 1
    return sizes


def _shapes(graph: Graph, plan: Mapping[str, int]) -> Shapes:
    return {
        v.name: tuple(plan.get(d.name, int(d)) if isinstance(d, Sym) else d for d in v.shape) for v in graph.inputs
    }  # fmt: skip


def at_shapes(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph | None:
    """The graph with its inputs at these shapes; None where its own rules do not allow them."""
    pairs = [(d, n) for v in graph.inputs for d, n in zip(v.shape, shapes.get(v.name, v.shape), strict=True)]
    sizes = {d.name: int(n) for d, n in pairs if isinstance(d, Sym)}
    if any(int(d) != n for d, n in pairs if not isinstance(d, Sym)):
        return None
    try:
        return reinfer(resized(graph, sizes))
    except (Error, ValueError, IndexError, KeyError, ZeroDivisionError):
        return None


def _refused(graph: Graph, shapes: Shapes) -> bool:
    """Does a captured network not take these shapes? All its sizes are known, where a file's may follow data."""
    return graph.note(TorchOrigin) is not None and at_shapes(graph, shapes) is None


def _bearable(graph: Graph, shapes: Shapes) -> bool:
    """Can a run at these shapes be paid for, in time and in memory, and is what it sums up still exact?"""
    if _refused(graph, shapes):
        return False
    there = at_shapes(graph, shapes)
    if there is None:
        return all(math.prod(shape) <= INPUT for shape in shapes.values())
    largest = max((math.prod(v.shape) for v in there.values.values()), default=0)
    before, now = cost(graph).totals()["macs"], cost(there).totals()["macs"]
    exact = _longest_sum(there) <= max(SUMMED, _longest_sum(graph))
    return exact and largest <= ELEMENTS and now <= max(PRICE, 2 * before)


def _longest_sum(graph: Graph) -> int:
    """Over how many positions a node adds up at most; products are left out, whose sums follow no input's size."""
    longest = 0
    for node in graph.nodes:
        if node.op in SUMS and node.inputs[0] is not None:
            x = graph.value(node.inputs[0]).shape
            kept = x[:2] if node.op in NORMS else node.out.shape
            longest = max(longest, math.prod(x) // max(math.prod(kept), 1))
    return longest


def is_costly(graph: Graph) -> bool:
    """Does a run at the captured size cost so much that one has to do?"""
    return cost(graph).totals()["macs"] > PRICE


def seconds_of(graph: Graph, feed: Mapping[str, Array]) -> float:
    """Processor seconds that a run may take at the very most, by its multiply-accumulates."""
    there = at_shapes(graph, {name: array.shape for name, array in feed.items()}) or graph
    return cost(there).totals()["macs"] / 1e8
