"""Scores whose sums are what leaving units out does to the outputs."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import Pipeline
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, Importance
from secateur.passes.score.measured import SHARES, _scaled, without
from secateur.passes.score.obs import OBS
from secateur.passes.sweep.gather import Gather
from secateur.passes.sweep.needs import Statistics
from support.network import Net


def test_scores_between_two_shares_add_up_to_what_was_measured_there() -> None:
    scores = np.array([1.0, 1, 2, 4, 4])
    np.testing.assert_allclose(_scaled(scores, {2: 0.1, 4: 0.7}), [0.05, 0.05, 0.2, 0.4, 0.4])
    assert np.all(np.diff(_scaled(scores, {2: 0.5, 4: 0.4})) >= 0), "an error that falls again takes nothing back"


def test_sums_of_scores_are_errors_of_the_network() -> None:
    """Of a layer's channels in order, what half of them cost is how far the repaired network is off without them."""
    net = Net(8, 3, 6, 6, seed=4)
    inner = net.relu(net.conv("x", 16))
    graph = Couple()(net.graph(net.head(net.relu(net.conv(inner, 8, groups=2)))))
    x = np.random.default_rng(0).standard_normal((32, 3, 6, 6)).astype(np.float32)
    graph = in_context(graph, calibration=Calibration([x]))
    criterion = OBS(of="outputs")
    scored = Pipeline((Gather((criterion,)), criterion))(graph)
    coupling, importance, statistics = (scored.note(kind) for kind in (Coupling, Importance, Statistics))
    assert coupling is not None and importance is not None and statistics is not None
    units = np.flatnonzero(coupling.domain == coupling.domain[0])
    order = units[np.argsort(importance.scores[units], kind="stable")]
    count = round(SHARES[2] * len(order))
    changed = without(scored, coupling, statistics, order[:count], criterion.ridge)
    less = scored.rewrite(weights={**scored.weights, **changed})
    parts = np.split(x, 4)
    want, have = (np.concatenate([evaluate(g, {"x": part})[0] for part in parts]) for g in (graph, less))
    error = float(((want - have) ** 2).sum() / (want**2).sum())
    assert importance.scores[order[:count]].sum() == pytest.approx(error, rel=0.05)  # scores rise, which costs a little
    plain = Pipeline((Gather((OBS(),)), OBS()))(graph).note(Importance)
    assert plain is not None
    assert plain.scores[order[:count]].sum() != pytest.approx(error, rel=0.1)
