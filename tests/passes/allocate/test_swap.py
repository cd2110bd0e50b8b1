"""Swaps in the mask of an allocation: what stays, and what may not change."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.ir import PassError
from secateur.passes import Pipeline
from secateur.passes.allocate import Uniform
from secateur.passes.allocate.amount import Allocation
from secateur.passes.allocate.swap import Swap
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.coupling.keep import check_keep
from secateur.passes.notes import Coupling, Importance, KeepMask
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score.obs import OBS
from secateur.passes.sweep.gather import Gather
from secateur.policy import Policy
from support.network import Net


def test_worse_scores_are_put_right_within_groups_and_budget() -> None:
    """Under scores that say the opposite of OBS's, swaps find what is worth most again, equally many in each group."""
    net = Net(3, 3, 6, 6, seed=5)
    x = net.relu(net.conv("x", 8))
    graph = net.graph(net.head(net.relu(net.conv(x, 8, groups=2))))
    data = Calibration([np.random.default_rng(0).standard_normal((32, 3, 6, 6)).astype(np.float32)])
    graph = Pipeline((Couple(), Gather((OBS(),)), OBS()))(in_context(graph, calibration=data))
    coupling, importance = graph.note(Coupling), graph.note(Importance)
    assert coupling is not None
    assert importance is not None
    wrong = graph.with_note(Importance(-importance.scores, "wrong"))
    before = Uniform(channels=0.5, round_to=1)(wrong)
    after = Swap()(before)
    first, second = before.note(KeepMask), after.note(KeepMask)
    assert first is not None
    assert second is not None
    assert (first.mask != second.mask).any()
    for group in coupling.groups:
        assert first.mask[group.units].sum() == second.mask[group.units].sum()
    check_keep(coupling, second.mask)
    done = after.note(Allocation)
    assert done is not None
    assert "channels changed places" in done.remarks[-1]
    assert Swap()(after).note(KeepMask).mask.tolist() == second.mask.tolist()  # type: ignore[union-attr]
    Slim()(after)
    with pytest.raises(PassError, match="an allocation before it"):
        Swap()(graph)


def test_a_policy_swaps_where_it_says_so() -> None:
    names = [[step.name for step in Policy.parse(spec).passes()] for spec in ("obs{swaps=true}", "obs", "l1")]
    assert ["swap" in found for found in names] == [True, False, False]
    assert names[0][-2:] == ["swap", "slim"]
