"""How many blocks are measured until a time is known, and what noise leaves of a budget."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from secateur.ir import Array, Graph
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Amount, Global, Timed, side_by_side
from secateur.passes.allocate.side_by_side import ENOUGH, FEW, MOST, NEAR, SURE, Measured, SideBySide, interval
from secateur.passes.allocate.timed import at_share
from secateur.passes.analysis.cost import cost
from secateur.passes.context import in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.recipe.mask import mask_of
from secateur.passes.rewrite.slim import slim
from secateur.passes.score import L1
from support.nets import chain
from support.network import Net


class Noisy:
    """10 ms for the whole network; a block is off by ``noise``, drawn anew, and the machine slows down meanwhile."""

    def __init__(self, graph: Graph, noise: float, seed: int = 0, slower: float = 0.0) -> None:
        self.whole, self.noise, self.slower, self.asked = cost(graph).macs, noise, slower, 0
        self.rng = np.random.default_rng(seed)

    def true(self, graph: Graph) -> float:
        """Milliseconds without noise."""
        return 10 * cost(graph).macs / self.whole

    def __call__(self, *graphs: Graph) -> list[float]:
        self.asked += 1
        pace = 1 + self.slower * min(1.0, self.asked / 50)
        return [pace * self.true(graph) * float(np.exp(self.noise * self.rng.standard_normal())) for graph in graphs]

    def layers(self, graph: Graph) -> dict[str, float]:
        return {}


def wide() -> Graph:
    """A chain whose widths are fine enough for any budget."""
    net, x = Net(1, 3, 8, 8), "x"
    for _ in range(4):
        x = net.relu(net.conv(x, 48))
    return Pipeline((Couple(), L1()))(net.graph(net.head(x)))


def timed(graph: Graph, model: Noisy, budget: Amount) -> Graph:
    step = functools.partial(at_share, Global(round_to=1))
    return Timed(budget, step)(in_context(graph, latency=model))


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 0, 0), (5, 0, 4), (6, 0, 5), (8, 0, 7), (9, 1, 7), (12, 2, 9), (20, 5, 14), (32, 9, 22)],
)
def test_the_interval_holds_the_median_at_95_percent(count: int, low: int, high: int) -> None:
    """Of nine throws: P(at most one head) = 10/512 < 0.025 < 46/512 = P(at most two)."""
    values = np.random.default_rng(count).permutation(count).astype(float)
    assert interval(values.tolist()) == (low, high)


def test_an_interval_is_as_sure_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (interval(rng.standard_cauchy(12).tolist()) for _ in range(2000))]
    assert 0.95 <= np.mean(hits) < 0.98


def test_a_budget_is_met_where_the_upper_end_of_the_interval_meets_it() -> None:
    graph = chain()
    for budget, most in ((Amount("speedup", 2.0), 0.5), (Amount("latency_ms", 4.0), 0.4)):
        clock = SideBySide(graph, Noisy(graph, 0.0), budget)
        assert clock.used(most) == pytest.approx(1)
        found = Measured(10 * most, 10.0, 0.98 * most, 0.97 * most, 0.999 * most, 6)
        assert clock.meets(found) and not clock.meets(dataclasses.replace(found, high=1.001 * most))


@pytest.mark.parametrize(("first", "others", "enough"), [(9.9, 10.2, False), (10.2, 9.9, False), (9.8, 9.9, True)])
def test_an_original_near_the_budget_is_measured_until_it_is_known(first: float, others: float, enough: bool) -> None:
    """By one block the first would meet 10 ms; the second may."""
    graph, times = chain(), iter([first, *[others] * (ENOUGH - 1)])
    clock = SideBySide(graph, lambda *graphs: [next(times) for _ in graphs], Amount("latency_ms", 10.0))  # type: ignore[arg-type]
    assert clock.fast_enough == enough
    assert next(times, None) is None


def blocks(model: Noisy, graph: Graph, small: Graph, speedup: float) -> tuple[int, float, float]:
    """(blocks, ratio, half of the interval)."""
    found = SideBySide(graph, model, Amount("speedup", speedup))(small)
    assert model.asked == found.blocks + 1
    return found.blocks, found.ratio, found.off


def test_blocks_end_when_the_answer_is_known() -> None:
    graph = Pipeline((Couple(), L1()))(chain())
    small = slim(graph, mask_of(at_share(Global(round_to=1), 0.5)(graph)))
    left = cost(small).macs / cost(graph).macs
    target = 1 / left
    assert blocks(Noisy(graph, 0.0), graph, small, target) == (2, pytest.approx(left), 0.0)  # a table does not vary
    many, ratio, off = blocks(Noisy(graph, 0.004), graph, small, target)
    assert many == ENOUGH and ratio == pytest.approx(left, rel=0.01) and 0 < off <= SURE
    more, ratio, off = blocks(Noisy(graph, 0.012), graph, small, target / 1.015)
    assert ENOUGH < more < MOST and ratio == pytest.approx(left, rel=0.02) and off <= SURE
    assert blocks(Noisy(graph, 0.02), graph, small, target * 1.3)[0] == FEW  # far over the budget
    assert blocks(Noisy(graph, 0.02), graph, small, target / 1.3)[0] == FEW  # far under
    most, _, off = blocks(Noisy(graph, 0.2), graph, small, target)
    assert most == MOST and off > 2 * SURE  # it says how little it knows


def test_a_measurement_of_a_slow_network_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute is over after the first blocks on a machine that is not quiet: no more follow."""
    graph = Pipeline((Couple(), L1()))(chain())
    small = slim(graph, mask_of(at_share(Global(round_to=1), 0.5)(graph)))
    clock = iter([0.0, 31.0])
    monkeypatch.setattr(side_by_side.time, "monotonic", lambda: next(clock))
    many, _, off = blocks(Noisy(graph, 0.02), graph, small, cost(graph).macs / cost(small).macs)
    assert many == FEW and off > SURE / 2


@pytest.mark.parametrize("kind", ["speedup", "latency_ms"])
@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_machine_that_slows_down_still_meets_the_budget(kind: str, seed: int) -> None:
    """Within 3 % under what was asked, but for what is left of the noise."""
    graph = wide()
    model = Noisy(graph, 0.01, seed, 0.5 if kind == "speedup" else 0.05)
    done = timed(graph, model, Amount(kind, 2.0 if kind == "speedup" else 6.0))
    note = done.note(Allocation)
    assert note is not None
    (taken,) = [trial for trial in note.tried if trial.taken]
    whole, took = model.true(graph), model.true(slim(done, mask_of(done)))
    used = 2 * took / whole if kind == "speedup" else (1 + model.slower) * took / 6.0
    slack = 0.05 if kind == "latency_ms" else SURE / 2  # milliseconds: the machine got slower while it was measured
    assert NEAR - slack <= used <= 1 + slack
    assert taken.off <= 1.5 * SURE
    assert f"known to {taken.off:.1%} up and down at a nominal 95 %" in note.remarks[-1]


def test_a_machine_that_is_not_quiet_is_reported() -> None:
    graph = wide()
    note = timed(graph, Noisy(graph, 0.15), Amount("speedup", 2.0)).note(Allocation)
    assert note is not None
    assert note.remarks[-1].startswith("the machine is not quiet: what is left of the original's time is known to ")


def halves(graph: Graph, whole: float) -> Graph:
    """All channels from a share of ``whole`` on, half of each set below: there is nothing between."""
    coupling = graph.note(Coupling)
    assert coupling is not None
    keep: Array = np.ones(coupling.size, bool)
    for number in np.unique(coupling.domain) if whole < 0.9 else ():
        mine = np.flatnonzero((coupling.domain == number) & ~coupling.frozen.astype(bool))
        keep[mine[len(mine) // 2 :]] = False
    return graph.with_note(KeepMask(keep))


def test_between_two_networks_some_layers_are_as_wide_as_in_one_and_the_others_as_in_the_other() -> None:
    graph = wide()
    model = Noisy(graph, 0.0)
    narrow = model.true(slim(graph, mask_of(halves(graph, 0.0))))
    done = Timed(Amount("latency_ms", 7.0), lambda share: lambda g: halves(g, share))(  # type: ignore[arg-type,return-value]
        in_context(graph, latency=model)
    )
    widths = done.note(Allocation).tried[-1].widths.values()  # type: ignore[union-attr]
    assert {w[1] for w in list(widths)[:4]} == {24, 48}
    assert narrow < 3 < model.true(slim(done, mask_of(done))) <= 7.0


def test_widths_that_leave_much_of_a_budget_are_reported() -> None:
    graph = Pipeline((Couple(), L1()))(chain())
    note = Timed(Amount("latency_ms", 7.0), lambda share: lambda g: halves(g, share))(  # type: ignore[arg-type,return-value]
        in_context(graph, latency=Noisy(graph, 0.0))
    ).note(Allocation)
    assert note is not None
    assert (
        f"the budget is used to {note.reached / 7.0:.1%}: no widths that were tried come nearer to it" in note.remarks
    )
