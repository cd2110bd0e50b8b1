"""What networks answer once they are repaired, next to the original, on examples that no repair saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.context import Calibration, context_of, in_context
from secateur.passes.pipeline import Pass, Pipeline
from secateur.passes.rewrite.slim import Slim
from secateur.passes.sweep.batches import batches, classes_of

HELD = 4  # of so many examples one judges
FEWEST = 2 * HELD  # examples, below which nobody judges
EXAMPLES = 512  # that are looked at, of both kinds: they are all in memory
MOVED, OFF = "of the probability goes to other classes", "of the outputs' size is their error"
Part = Mapping[str, Array]  # some examples, inputs by name


@dataclass(frozen=True)
class Judged:
    """How far each network's outputs are off, on how many examples, and by what (``MOVED``, ``OFF``)."""

    errors: tuple[float, ...]
    examples: int
    what: str


@dataclass(frozen=True)
class Repaired:
    """Judges keep masks by what a user gets: the network is cut, repaired by ``repairs``, and run.

    What a mask gives up by its scores foretells badly what is left after a repair. Three of four examples are there to
    repair by, the fourth judges: by the probability that goes to other classes, where the network scores classes, since
    scores that are wrong where no answer depends on them cost nothing; else by the relative error of all outputs.
    """

    repairs: tuple[Pass, ...]

    def __call__(self, graph: Graph, masked: Sequence[Graph]) -> Judged | None:
        """``masked``: the graph with keep masks. None where there are no data or fewer than ``FEWEST`` examples.

        Raises what the repairs raise.
        """
        from secateur.passes.sweep.outputs import apart, feeds, moved, outputs  # which load torch

        calibration = context_of(graph).calibration
        if calibration is None:
            return None
        known, judge = _parted(graph, calibration)
        if not judge:
            return None
        fed = feeds(graph, judge, EXAMPLES)
        wanted = outputs(graph, fed)
        errors: list[float] = []
        by_class = len(graph.outputs) == 1 and classes_of(graph) is not None
        for one in masked:
            context_of(graph).progress(len(errors), len(masked), "repair and compare")
            repaired = Pipeline(self.repairs)(in_context(Slim()(one), calibration=known))
            found = outputs(repaired, fed)
            errors.append(moved(*map(np.concatenate, (found, wanted))) if by_class else apart(found, wanted))
        return Judged(tuple(errors), sum(item.examples for item in fed), MOVED if by_class else OFF)


def _parted(graph: Graph, calibration: Calibration) -> tuple[Calibration, list[Part]]:
    """The examples to repair by and those that judge, of the first ``EXAMPLES``; none judges where there are few."""
    fit: list[Part] = []
    judge: list[Part] = []
    seen = 0
    for item in batches(graph, calibration.data):
        rows = np.arange(min(item.examples, EXAMPLES - seen))
        held = (seen + rows) % HELD == HELD - 1
        for parts, mine in ((fit, rows[~held]), (judge, rows[held])):
            if len(mine):
                parts.append({name: x[mine] if x.ndim else x for name, x in item.inputs.items()})
        seen += len(rows)
        if seen == EXAMPLES:
            break
    return Calibration(fit, calibration.seed, seen - seen // HELD), judge if seen >= FEWEST else []
