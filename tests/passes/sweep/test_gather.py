"""``gather``: what one sweep found serves whoever asks the same of the same network, and nobody else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from secateur.ir import Graph
from secateur.passes.context import Calibration, in_context
from secateur.passes.score import ThiNet
from secateur.passes.score.obs import OBS
from secateur.passes.sweep import Statistics
from secateur.passes.sweep.gather import Gather
from support.swept import coupling_of, data, found, network


def gathered(graph: Graph, calibration: Calibration, step: Gather) -> Statistics:
    return found(step(in_context(graph, calibration=calibration)))


def copied(graph: Graph) -> Graph:
    """Read once more: equal weights, and none of them the same array."""
    return dataclasses.replace(graph, weights={name: w.copy() for name, w in graph.weights.items()})


def other_weight(graph: Graph) -> Graph:
    name = next(iter(graph.weights))
    return dataclasses.replace(graph, weights={**graph.weights, name: graph.weights[name] + np.float32(1)})


def other_units(graph: Graph) -> Graph:
    frozen = coupling_of(graph).frozen.copy()
    frozen[0] = not frozen[0]
    return graph.with_note(dataclasses.replace(coupling_of(graph), frozen=frozen))


ASKED = Gather((OBS(),))


def test_the_same_question_is_answered_by_the_first_sweep() -> None:
    calibration = Calibration(data(8))
    first = gathered(network(), calibration, ASKED)
    assert gathered(copied(network()), calibration, ASKED) is first
    assert gathered(network(), Calibration(data(8)), ASKED) is not first


@pytest.mark.parametrize(
    ("change", "step"),
    [(copied, Gather((OBS(),), 4)), (copied, Gather((ThiNet(),))), (other_weight, ASKED), (other_units, ASKED)],
)
def test_another_question_is_swept_for(change: Callable[[Graph], Graph], step: Gather) -> None:
    calibration = Calibration(data(8))
    first = gathered(network(), calibration, ASKED)
    assert gathered(change(network()), calibration, step) is not first
