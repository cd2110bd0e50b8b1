"""How often the slim network answers like the original, and how often both are right where there are labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.sweep.batches import batches, classes_of

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]


def measure(dense: Graph, slim: Graph, data: Iterable[Any], held_out: bool, run: Run) -> dict[str, Any] | None:
    """``{"agreement": .., "top1": [before, after] | None, "examples": n, "held_out": bool}``.

    None where the first output is not scores by class. ``agreement`` is the share of examples whose most likely class
    is the same, ``top1`` None without labels. Raises InputError where the original answers with NaN or infinity.
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
    top1 = (right / labelled).tolist() if labelled and labelled == examples else None
    return {"agreement": same / examples, "top1": top1, "examples": examples, "held_out": held_out}
