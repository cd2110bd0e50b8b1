"""How far what a layer gets wrong reaches: by that its outputs count, and by that layers compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.context import context_of
from secateur.passes.coupling.couple import couple
from secateur.passes.notes import Coupling
from secateur.passes.sweep.needs import Reach, Statistics

from .layers import Place

FLOOR = 1e-2  # of the mean over a layer's outputs: an output that moves nothing on these data still counts so much


def scales(reach: Array) -> Array:
    """What the outputs of a layer are multiplied by, so that squares of errors count as they reach; the mean of the
    squares is about 1. Ones for a layer that reaches nothing.
    """  # fmt: skip
    mean = float(reach.mean()) if reach.size else 0.0
    found: Array = np.sqrt(reach / mean + FLOOR) if mean > 0 else np.ones(reach.shape)
    return found


def reaches(graph: Graph, chosen: Sequence[Place], examples: int) -> Mapping[str, Array]:
    """By weight, f64[outputs]: errors of mean square e in an output move the network's by e times this (``Reach``).

    Over the first so many examples of the calibration data; labels are not looked at. Raises InputError where there are
    none, or where sums are not finite.
    """
    from secateur.passes.sweep.outputs import feeds
    from secateur.passes.sweep.run import sweep

    context = context_of(graph)
    assert context.calibration is not None, "lockstep has asked for data"
    coupled = graph if graph.note(Coupling) is not None else graph.with_note(couple(graph))
    fed = [
        {name: x[: batch.examples] for name, x in batch.inputs.items()}
        for batch in feeds(graph, context.calibration.data, examples)
    ]
    needs = {place.weight: Reach(place.node.name) for place in chosen}
    found = sweep(coupled, fed, needs.values(), progress=context.progress).note(Statistics)
    assert found is not None
    return {weight: found.of(need, np.ndarray) for weight, need in needs.items()}
