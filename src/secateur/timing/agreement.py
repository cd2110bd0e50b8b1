"""How both networks answer on data: the same class, the right one, and how far outputs differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secateur.goals import Z
from secateur.ir import Array, Graph, InputError
from secateur.passes.sweep.batches import Batch, batches, classes_of
from secateur.report.parts import Deviation, Quality

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]


def measure(
    dense: Graph, slim: Graph, data: Iterable[Any], held_out: bool, run: Run
) -> tuple[Quality | None, Deviation | None]:
    """How both answer on ``data``, and how far their outputs are apart.

    No quality where the first output is not scores by class, no deviation where no output is real numbers. Raises
    InputError where the scores of the original are NaN or infinite.
    """
    classes, answers, apart = classes_of(dense) is not None, _Answers(), list[Array]()
    real = [i for i, name in enumerate(dense.outputs) if dense.value(name).dtype in ("f32", "f64", "f16", "bf16")]
    for number, batch in enumerate(batches(dense, data) if classes or real else ()):
        before, after = ([np.asarray(a) for a in run(graph, batch.inputs)] for graph in (dense, slim))
        if classes:
            if not np.isfinite(before[0][: batch.examples]).all():
                raise InputError(
                    f"calibration, batch {number}: the network's output '{dense.outputs[0]}' holds NaN or infinity on "
                    "it; check how the inputs are scaled, and the weights"
                )
            answers.add(before[0], after[0], batch)
        if real:
            apart.append(np.max([_apart(before[i], after[i], batch.examples) for i in real], axis=0))
    quality = answers.quality(held_out) if classes and answers.examples else None
    return quality, _deviation(np.concatenate(apart), held_out) if apart else None


@dataclass
class _Answers:
    """Counts of examples, of those with the same answer, and of right ones before and after."""

    examples: int = 0
    same: int = 0
    labelled: int = 0
    right: Array = field(default_factory=lambda: np.zeros(2))

    def add(self, before: Array, after: Array, batch: Batch) -> None:
        old, new = (scores[: batch.examples].argmax(axis=1) for scores in (before, after))
        self.same += int((old == new).sum())
        self.examples += batch.examples
        if batch.labels is not None:
            self.right += [(old == batch.labels).sum(), (new == batch.labels).sum()]
            self.labelled += batch.examples

    def quality(self, held_out: bool) -> Quality:
        top1 = None
        if self.labelled == self.examples:
            top1 = float(self.right[0] / self.labelled), float(self.right[1] / self.labelled)
        return Quality(self.same / self.examples, top1, self.examples, held_out)


def _apart(before: Array, after: Array, examples: int) -> Array:
    """f64[examples]: the norm of the difference over the norm of the original's output, for each example.

    Rows of axis 0 are examples where there are as many; else all of a batch are as far apart as the whole output. What
    is not finite in the original is left out.
    """
    if before.shape != after.shape:
        return np.full(examples, math.inf)  # as many boxes as were found
    rows = examples if before.ndim and before.shape[0] >= examples else 1
    old, new = (a[:rows].reshape(rows, -1).astype(np.float64) for a in (before, after))
    known = np.isfinite(old)
    old, new = np.where(known, old, 0), np.where(known, new, 0)
    difference, size = np.linalg.norm(new - old, axis=1), np.linalg.norm(old, axis=1)
    share = np.where(difference == 0, 0.0, difference / np.maximum(size, np.finfo(np.float32).tiny))
    return np.broadcast_to(np.where(np.isnan(share), math.inf, share), examples)


def _deviation(apart: Array, held_out: bool) -> Deviation:
    mean = float(apart.mean())
    spread = (
        Z * float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 and math.isfinite(mean) else math.inf
    )
    return Deviation(mean, max(0.0, mean - spread), mean + spread, len(apart), held_out)
