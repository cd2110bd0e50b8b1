"""How often the slim network answers like the original, and how often both are right where there are labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.sweep.batches import batches, classes_of
from secateur.report.parts import Quality

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]


def measure(dense: Graph, slim: Graph, data: Iterable[Any], held_out: bool, run: Run) -> Quality | None:
    """How both answer on ``data``; None where the first output is not scores by class.

    Raises InputError where the original answers with NaN or infinity.
    """
    if classes_of(dense) is None:
        return None
    right, same, examples, labelled = np.zeros(2), 0, 0, 0
    for number, batch in enumerate(batches(dense, data)):
        scores = [np.asarray(run(graph, batch.inputs)[0])[: batch.examples] for graph in (dense, slim)]
        if not np.isfinite(scores[0]).all():
            raise InputError(
                f"calibration, batch {number}: the network's output '{dense.outputs[0]}' holds NaN or infinity on it; "
                "check how the inputs are scaled, and the weights"
            )
        before, after = (part.argmax(axis=1) for part in scores)
        same += int((before == after).sum())
        examples += batch.examples
        if batch.labels is not None:
            right += [(before == batch.labels).sum(), (after == batch.labels).sum()]
            labelled += batch.examples
    top1 = None
    if labelled and labelled == examples:
        top1 = float(right[0] / labelled), float(right[1] / labelled)
    return Quality(same / examples, top1, examples, held_out)
