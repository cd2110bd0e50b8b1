"""Agreement and top-1, where the calibration data carry labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from secateur.ir import Array, Graph, InputError, Sym

Run = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]


def measure(dense: Graph, slim: Graph, batches: Iterable[Any], run: Run) -> dict[str, Any] | None:
    """``{"agreement": .., "top1": [before, after], "examples": n}``, or None where no batch is ``(x, y)``.

    ``y`` holds class indices. Raises InputError where the network is no classifier of one input.
    """
    right, same, examples = np.zeros(2), 0, 0
    for number, (x, labels) in enumerate(_labelled(batches)):
        if len(x) != len(labels):
            raise InputError(f"calibration, batch {number}: {len(x)} inputs and {len(labels)} labels")
        before, after = _classes(dense, x, run), _classes(slim, x, run)
        right += [(before == labels).sum(), (after == labels).sum()]
        same += int((before == after).sum())
        examples += len(labels)
    if not examples:
        return None
    return {"agreement": same / examples, "top1": (right / examples).tolist(), "examples": examples}


def _labelled(batches: Iterable[Any]) -> Iterator[tuple[Array, Array]]:
    for batch in batches:
        if isinstance(batch, tuple | list) and len(batch) == 2:
            x, y = (np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in batch)
            yield x, y.reshape(-1)


def _classes(graph: Graph, x: Array, run: Run) -> Array:
    """The class of each example, run in batches of the captured size where that is fixed."""
    if len(graph.inputs) != 1:
        raise InputError(f"calibration with labels: '{graph.name}' takes {len(graph.inputs)} inputs, (x, y) has one")
    (value,) = graph.inputs
    size = len(x) if isinstance(value.shape[0], Sym) else value.shape[0]
    found = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        short = size - len(part)
        full = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
        scores = run(graph, {value.name: full})[0]
        if scores.ndim != 2:
            raise InputError(f"calibration with labels: '{graph.name}' gives {scores.shape}, not scores by class")
        found.append(scores.argmax(axis=1)[: len(part)])
    return np.concatenate(found)
