"""Other sizes at which a network with dynamic axes is run: coprime, no multiples of 32, small and large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from secateur.ir import Array, Error, Graph, Sym, reinfer
from secateur.passes.analysis.cost import cost

Shapes = dict[str, tuple[int, ...]]  # of the inputs, by name

BATCHES = (3, 2, 5)  # one for each kind of size below
# In the order in which they are tried; axes of one network take neighbours. The last ones of each row are for networks
# that halve their input and add it up again, which take only multiples of their stride.
SMALL = (37, 41, 53, 29, 65, 48, 96, 128)
MIDDLE = (225, 241, 257, 229, 209, 272, 288, 160)
LARGE = (16001, 4001, 4003, 1013, 1009, 613, 617, 397, 301, 307, 288, 352, 320)
PRICE = 2e9  # multiply-accumulates that a run may always cost
ELEMENTS = 1 << 26  # of the largest value
INPUT = 1 << 20  # elements of an input whose values' sizes nobody knows
TRIES = 6  # of each kind


def other_sizes(graph: Graph) -> Iterator[Iterator[Shapes]]:
    """For each kind of size the choices in order: the first that the network takes is the one."""
    axes = dict.fromkeys(d.name for v in graph.inputs for d in v.shape if isinstance(d, Sym))
    batch = {v.shape[0].name for v in graph.inputs if v.shape and isinstance(v.shape[0], Sym)}
    free = [name for name in axes if name not in batch]
    if not axes:
        return
    for kind, sizes in enumerate((SMALL, MIDDLE, LARGE) if free else ((), ())):
        yield _choices(graph, batch, free, BATCHES[kind], sizes)


def _choices(
    graph: Graph, batch: set[str], free: Sequence[str], examples: int, sizes: Sequence[int]
) -> Iterator[Shapes]:
    """All axes at once, each at a size of its own; all at the same one; then one axis after the other."""
    many = dict.fromkeys(batch, examples)
    plans: list[dict[str, int]] = []
    for i in range(len(sizes) - len(free) + 1 if free else 1):
        plans.append({**many, **{name: sizes[i + j] for j, name in enumerate(free)}})
        if len(free) > 1:
            plans.append({**many, **dict.fromkeys(free, sizes[i])})
    plans += [{name: size} for size in sizes[:2] for name in free]
    plans += [many] if free else []
    tried = 0
    for plan in plans:
        shapes = _shapes(graph, plan)
        if tried < TRIES and _bearable(graph, shapes):
            tried += 1
            yield shapes


def _shapes(graph: Graph, plan: Mapping[str, int]) -> Shapes:
    return {
        v.name: tuple(plan.get(d.name, int(d)) if isinstance(d, Sym) else d for d in v.shape) for v in graph.inputs
    }  # fmt: skip


def at_shapes(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph | None:
    """The graph with its inputs at these shapes; None where its own rules do not allow them."""
    inputs = [type(v)(v.name, tuple(shapes.get(v.name, v.shape)), v.dtype) for v in graph.inputs]
    try:
        return reinfer(graph.rewrite(inputs=inputs))
    except (Error, ValueError, IndexError, KeyError, ZeroDivisionError):
        return None


def _bearable(graph: Graph, shapes: Shapes) -> bool:
    """Can a run at these shapes be paid for, in time and in memory?"""
    there = at_shapes(graph, shapes)
    if there is None:
        return all(math.prod(shape) <= INPUT for shape in shapes.values())
    largest = max((math.prod(v.shape) for v in there.values.values()), default=0)
    before, now = cost(graph).totals()["macs"], cost(there).totals()["macs"]
    return largest <= ELEMENTS and now <= max(PRICE, 2 * before)


def seconds_of(graph: Graph, feed: Mapping[str, Array]) -> float:
    """Processor seconds that a run may take at the very most, by its multiply-accumulates."""
    there = at_shapes(graph, {name: array.shape for name, array in feed.items()}) or graph
    return cost(there).totals()["macs"] / 1e8
