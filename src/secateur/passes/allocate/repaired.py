"""What networks answer once they are repaired, next to the original, on examples that no repair saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.context import Calibration, context_of, in_context
from secateur.passes.pipeline import Pass, Pipeline
from secateur.passes.rewrite.slim import Slim
from secateur.passes.sweep.batches import Batch, batches, classes_of

PARTS = 4  # of the examples, each of which judges once
FEWEST = 2 * PARTS  # examples, below which nobody judges
EXAMPLES = 1024  # that are looked at: they are all in memory
CLEAR = 2.0  # standard errors of the mean difference from the best, beyond which a network is judged no further
SEVERAL = 32  # examples, below which a standard error says too little to give a network up
MOVED, OFF = "of the probability goes to other classes", "of the outputs' size is their error"
Part = Mapping[str, Array]  # some examples, inputs by name


@dataclass(frozen=True)
class Judged:
    """How far each network's outputs are off, on how many examples each, and by what (``MOVED``, ``OFF``).

    ``best`` is the place of the one that is least off, of those that were never given up.
    """

    errors: tuple[float, ...]
    examples: tuple[int, ...]
    best: int
    what: str


@dataclass(frozen=True)
class Repaired:
    """Judges keep masks by what a user gets: the network is cut, repaired by ``repairs``, and run.

    What a mask gives up by its scores foretells badly what is left after a repair. Each quarter of the examples judges
    what the other three repaired, so that all examples judge and none judges what it repaired: by the probability that
    goes to other classes, where the network scores classes, since scores that are wrong where no answer depends on them
    cost nothing; else by the relative error of all outputs. A network that is worse than the best one so far by more
    than examples scatter is repaired no more (a race, Maron and Moore, NIPS 1993).
    """

    repairs: tuple[Pass, ...]

    def __call__(self, graph: Graph, masked: Sequence[Graph]) -> Judged | None:
        """``masked``: the graph with keep masks. None where there are no data or fewer than ``FEWEST`` examples.

        Raises what the repairs raise.
        """
        calibration = context_of(graph).calibration
        known = [] if calibration is None else _first(graph, calibration)
        count = sum(item.examples for item in known)
        if calibration is None or count < FEWEST:
            return None
        by_class = len(graph.outputs) == 1 and classes_of(graph) is not None
        offs: list[list[Array]] = [[] for _ in masked]
        left = list(range(len(masked)))
        for part in range(PARTS):
            fit, judge = _parted(known, part)
            fitting = Calibration(fit, calibration.seed, count - len(range(part, count, PARTS)))
            found = self._offs(in_context(graph, calibration=fitting), [masked[i] for i in left], judge, by_class)
            for i, off in zip(left, found, strict=True):
                offs[i].append(off)
            left = _rivals(left, [np.concatenate(offs[i]) for i in left])
            if len(left) == 1:
                break
        each = [np.concatenate(off) for off in offs]
        errors = tuple(float(off.mean() if by_class else np.sqrt(off.mean())) for off in each)
        best = min(left, key=lambda i: errors[i])
        return Judged(errors, tuple(map(len, each)), best, MOVED if by_class else OFF)

    def _offs(self, graph: Graph, masked: Sequence[Graph], judge: Sequence[Part], by_class: bool) -> list[Array]:
        """f64[examples] for each mask: how far the repaired network is off on each example that judges."""
        from secateur.passes.sweep.outputs import feeds, moved, outputs, squares  # which load torch

        context = context_of(graph)
        fed = feeds(graph, judge, EXAMPLES)
        wanted = outputs(graph, fed)
        found: list[Array] = []
        for one in masked:
            context.progress(len(found), len(masked), "repair and compare")
            repaired = Pipeline(self.repairs)(in_context(Slim()(one), calibration=context.calibration))
            pair = outputs(repaired, fed), wanted
            found.append(moved(*map(np.concatenate, pair)) if by_class else squares(*pair, [x.examples for x in fed]))
        return found


def _rivals(left: Sequence[int], offs: Sequence[Array]) -> list[int]:
    """Those of ``left`` that may yet be the best: not worse on the same examples by more than examples scatter."""
    if len(offs[0]) < SEVERAL:
        return list(left)
    best = min(offs, key=lambda off: float(off.mean()))
    apart = [off - best for off in offs]
    bounds = [CLEAR * float(x.std(ddof=1)) / len(x) ** 0.5 for x in apart]
    return [i for i, x, bound in zip(left, apart, bounds, strict=True) if float(x.mean()) <= bound]


def _first(graph: Graph, calibration: Calibration) -> list[Batch]:
    """The batches of the first ``EXAMPLES`` examples."""
    found: list[Batch] = []
    seen = 0
    for item in batches(graph, calibration.data):
        found.append(Batch(item.inputs, None, min(item.examples, EXAMPLES - seen)))
        seen += found[-1].examples
        if seen == EXAMPLES:
            break
    return found


def _parted(known: Sequence[Batch], part: int) -> tuple[list[Part], list[Part]]:
    """The examples to repair by and those that judge in this part: every fourth, from number ``part`` on."""
    fit: list[Part] = []
    judge: list[Part] = []
    seen = 0
    for item in known:
        rows = np.arange(item.examples)
        held = (seen + rows) % PARTS == part
        for parts, mine in ((fit, rows[~held]), (judge, rows[held])):
            if len(mine):
                parts.append({name: x[mine] if x.ndim else x for name, x in item.inputs.items()})
        seen += item.examples
    return fit, judge
