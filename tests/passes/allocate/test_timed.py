"""A budget in milliseconds, under a latency model that can be foretold."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

import secateur
from secateur.ir import BudgetError, Graph, InputError
from secateur.passes import Pipeline
from secateur.passes.allocate import Allocation, Amount, Global, Knapsack, Rounds, Timed
from secateur.passes.allocate.estimate import Prices, work_of_weights
from secateur.passes.allocate.prices import halfway, prices
from secateur.passes.allocate.repaired import Repaired
from secateur.passes.allocate.time_search import _kept
from secateur.passes.allocate.timed import HALVES, at_share, by_time
from secateur.passes.analysis.cost import cost
from secateur.passes.compensate.refit import Refit
from secateur.passes.context import LatencyModel, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask, Mixing
from secateur.passes.rewrite.slim import slim
from secateur.passes.score import L1
from secateur.policy import Policy
from secateur.timing import never_slower
from support.nets import chain, residual
from support.network import Net


class Latency:
    """10 ms for the whole network, from ``floor`` up; counts what it is asked."""

    def __init__(self, graph: Graph, floor: float = 0.0, power: float = 1.0) -> None:
        self.whole, self.floor, self.power, self.asked = cost(graph).macs, floor, power, 0

    def __call__(self, *graphs: Graph) -> list[float]:
        self.asked += 1
        shares = [cost(graph).macs / self.whole for graph in graphs]
        return [self.floor + (10 - self.floor) * share**self.power for share in shares]

    def layers(self, graph: Graph) -> dict[str, float]:
        return {}


class ByLayer(Latency):
    """A layer takes a millisecond, and one more for each ``pace`` multiply-accumulates: ``slow`` 20 of them."""

    def __init__(self, graph: Graph, slow: str) -> None:
        super().__init__(graph)
        self.slow, self.pace = slow, self.whole / 10

    def __call__(self, *graphs: Graph) -> list[float]:
        self.asked += 1
        return [sum(self.layers(graph).values()) for graph in graphs]

    def layers(self, graph: Graph) -> dict[str, float]:
        rows = cost(graph).layers
        return {row.label: 1 + row.macs / self.pace * (20 if row.label == self.slow else 1) for row in rows}


class Drifting(Latency):
    """The machine gets slower with each measurement."""

    def __call__(self, *graphs: Graph) -> list[float]:
        return [(1 + 0.1 * self.asked) * ms for ms in super().__call__(*graphs)]


def allocated(graph: Graph, model: LatencyModel, budget: float, rounds: int = 1, kind: str = "latency_ms") -> Graph:
    scored = Pipeline((Couple(), L1()))(in_context(graph, latency=model))
    step = Rounds(rounds, Global(round_to=1), (Couple(), L1())) if rounds > 1 else Global(round_to=1)
    return Timed(Amount(kind, budget), functools.partial(at_share, step))(scored)


@pytest.mark.parametrize(("floor", "power"), [(0, 1), (2, 1), (0, 0.5), (0, 2)])
@pytest.mark.parametrize("budget", [4.0, 5.0, 8.0])
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_budget_is_met_and_used(floor: float, power: float, budget: float, rounds: int) -> None:
    graph = residual()
    model = Latency(graph, floor, power)
    done = allocated(graph, model, budget, rounds).note(Allocation)
    assert done is not None
    assert done.amount.kind == "latency_ms"
    least = 0.8 if rounds == 1 else 0.6  # the shares that rounds leave of so small a network jump
    assert least * budget < done.reached <= budget
    assert done.achieved == done.reached
    assert model.asked <= 200


def test_a_fast_network_is_left_alone() -> None:
    graph = chain()
    model = Latency(graph)
    done = allocated(graph, model, 12.0)
    assert done.note(KeepMask).mask.all()  # type: ignore[union-attr]
    assert done.note(Allocation).remarks == ("the original is fast enough: nothing was removed",)  # type: ignore[union-attr]
    assert model.asked == 1


def test_a_latency_that_never_falls_ends_in_an_error() -> None:
    graph = chain()
    model = Latency(graph, floor=9.0)
    with pytest.raises(BudgetError, match=r"latency_ms=5 is out of reach: the original takes 10 ms, the fastest of"):
        allocated(graph, model, 5.0)
    assert model.asked <= 200
    with pytest.raises(BudgetError, match="smaller networks 10;"):
        allocated(graph, Latency(graph, floor=10.0), 5.0)
    with pytest.raises(
        BudgetError, match=r"smaller networks 9\.0\d*, which is 1\.11 times as fast; .* Ask for less, or"
    ):
        allocated(graph, Latency(graph, floor=9.0), 2.0, kind="speedup")


@pytest.mark.parametrize("model", [Latency, Drifting])
@pytest.mark.parametrize("speedup", [1.3, 2.0, 4.0])
def test_times_as_fast_are_judged_side_by_side(model: type[Latency], speedup: float) -> None:
    graph = residual()
    done = allocated(graph, model(graph), speedup, kind="speedup").note(Allocation)
    assert done is not None
    assert done.amount == Amount("speedup", speedup)
    assert speedup <= done.reached < 1.25 * speedup
    assert done.remarks[0].startswith("measured next to the original: ")


def test_what_was_lucky_once_is_measured_again() -> None:
    graph = residual()
    luck = iter([1.0, 0.5, 0.5, *[1.0] * 99])  # all blocks of the first network: it looks twice as fast as it is

    class Lucky(Latency):
        def __call__(self, *graphs: Graph) -> list[float]:
            factor = next(luck)
            return [super(Lucky, self).__call__(g)[0] * (factor if i else 1) for i, g in enumerate(graphs)]

    done = allocated(graph, Lucky(graph, floor=4.0), 5.0)
    assert 4.0 * 0.97 < Latency(graph, floor=4.0)(slim(done, done.note(KeepMask).mask))[0] <= 5.0  # type: ignore[union-attr]


def test_a_search_that_measured_nothing_of_its_own_is_not_reported() -> None:
    """Another way that leads to the same networks: they are measured once."""
    graph = Pipeline((Couple(), L1()))(in_context(residual(), latency=Latency(residual(), floor=2.0)))
    at = functools.partial(at_share, Global(round_to=1))
    done = Timed(Amount("latency_ms", 5.0), at, others=((at, "MACs again"),))(graph).note(Allocation)
    assert done is not None
    assert [r for r in done.remarks if r.startswith("measured")] == [r for r in done.remarks if " ms against " in r]
    assert len([r for r in done.remarks if " ms against " in r]) == 1


def test_a_machine_that_slowed_down_meanwhile_is_searched_for_again() -> None:
    """It takes 1.3 times as long from the fourth block on, when a network had met the budget."""

    class Slower(Latency):
        def __call__(self, *graphs: Graph) -> list[float]:
            return [(1.3 if self.asked > 3 else 1.0) * ms for ms in super().__call__(*graphs)]

    graph = residual()
    done = allocated(graph, Slower(graph), 5.0)
    took = 1.3 * Latency(graph)(slim(done, done.note(KeepMask).mask))[0]  # type: ignore[union-attr]
    assert 0.9 * 5.0 < took <= 5.0


def test_networks_that_keep_alike_differ_by_readers_with_channels_of_their_own() -> None:
    graph = Pipeline((Couple(), L1(), Global(macs=0.5, round_to=1)))(residual())
    coupling = graph.note(Coupling)
    assert coupling is not None
    own = [Mixing(node, node, 0, 1, np.arange(2), "own") for node in ("one", "other")]
    keys = [
        _kept(graph.with_note(dataclasses.replace(coupling, mixing=(*coupling.mixing, *readers))))
        for readers in ((), own[:1], own[1:], own)
    ]
    assert len({*keys}) == 4
    assert _kept(graph) == keys[0]


@pytest.mark.parametrize("which", [1, 3])
def test_the_knapsack_goes_by_what_layers_take(which: int) -> None:
    net, x = Net(1, 3, 8, 8), "x"
    for _ in range(5):
        x = net.relu(net.conv(x, 16))
    graph = Pipeline((Couple(), L1()))(net.graph(net.head(x)))
    slow = cost(graph).layers[which].label
    model = ByLayer(graph, slow)
    graph = in_context(graph, latency=model)
    found = {}
    for priced in (False, True):
        timed = Timed(Amount("speedup", 1.5), functools.partial(at_share, Knapsack(round_to=1)), priced)
        done = timed(graph)
        allocation = done.note(Allocation)
        assert allocation is not None
        assert allocation.reached >= 1.5
        assert ("time that layers took" in " ".join(allocation.remarks)) == priced
        found[priced] = slim(done, done.note(KeepMask).mask)  # type: ignore[union-attr]
    left = {priced: {row.label: row.macs for row in cost(small).layers} for priced, small in found.items()}
    assert left[True][slow] < left[False][slow]  # what takes long goes first,
    assert cost(found[True]).macs > cost(found[False]).macs  # so that more of the rest may stay


def test_of_networks_within_the_budget_the_one_that_loses_less_is_taken() -> None:
    """Where prices mislead, what multiply-accumulates lead to is found as well."""
    net, x = Net(1, 3, 8, 8), "x"
    for width in (8, 16, 24, 8, 16):
        x = net.relu(net.conv(x, width))
    graph = Pipeline((Couple(), L1()))(net.graph(net.head(x)))
    step = Knapsack(round_to=1, loss="sum")

    class Misleading(ByLayer):
        def __call__(self, *graphs: Graph) -> list[float]:
            return Latency.__call__(self, *graphs)

    slow = cost(graph).layers[1].label
    lost, found = {}, {}
    for by, loss in (("macs", None), ("time", None), ("both", step.lost)):
        given = in_context(graph, latency=Misleading(graph, slow))
        done = Timed(Amount("speedup", 1.5), functools.partial(at_share, step), by != "macs", loss)(given)
        lost[by], found[by] = step.lost(done), done.note(Allocation)
    assert lost["both"] == pytest.approx(min(lost.values())) and lost["macs"] < lost["time"]
    assert [sum("measured next to" in remark for remark in done.remarks) for done in found.values() if done] == [
        1,
        1,
        3,
    ]


def test_prices_are_the_line_through_two_networks() -> None:
    graph = Pipeline((Couple(), L1()))(residual())
    model = ByLayer(graph, "")
    mask = at_share(Global(round_to=1), 0.5)(graph).note(KeepMask).mask  # type: ignore[union-attr]
    coupling = graph.note(Coupling)
    assert coupling is not None
    found = prices(graph, coupling, model, slim(graph, mask), mask)
    assert found is not None
    assert found.whole == pytest.approx(1e6 * model(graph)[0], rel=1e-6)
    paced = {row.label: 1e6 * row.macs / model.pace for row in cost(graph).layers}
    assert sum(found.weights.values()) == pytest.approx(sum(paced.values()), rel=1e-6)
    assert prices(graph, coupling, Latency(graph), slim(graph, mask), mask) is None


def test_prices_halfway_are_half_of_time_and_half_of_work() -> None:
    """200 us of layers: the first took three quarters of them, and does a seventh of the work."""
    net = Net(1, 4, 8, 8)
    graph = net.graph(net.conv(net.conv("x", 8, k=1), 24, k=1))
    first, second = work_of_weights(graph, "macs")
    assert work_of_weights(graph, "macs") == {first: 2048, second: 12288}
    found = halfway(graph, Prices(7, {first: 150_000, second: 50_000}))
    assert found == Prices(7, {first: 89_286, second: 110_714})


def test_without_a_latency_model_it_is_refused() -> None:
    with pytest.raises(InputError, match="nobody measures here"):
        Timed(Amount("latency_ms", 5.0), lambda share: Global(macs=share))(Pipeline((Couple(), L1()))(chain()))


def test_compile_measures_and_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    monkeypatch.setattr(never_slower, "latency_model", lambda seed, runtime: Latency(graph))
    done = secateur.compile(graph, "l1,global{rounds=2},slim", latency_ms=5, round_to=1)
    assert done.report.budget is not None
    assert done.report.budget["kind"] == "latency_ms"
    assert done.report.budget["target"] == 5.0
    assert done.report.budget["achieved"] == pytest.approx(10 * cost(done.graph).macs / cost(graph).macs)
    assert done.report.policy == "l1,global{latency_ms=5.0,round_to=1,rounds=2},slim"
    assert "budget: latency_ms at most 5, reached" in str(done.report)
    x = np.zeros((1, 3, 8, 8), np.float32)
    assert done(x).shape == (1, 5)


def test_another_machine_is_not_measured() -> None:
    with pytest.raises(InputError, match="time is measured on this machine"):
        secateur.compile(chain(), latency_ms=5, target="aarch64-neon")


def test_of_networks_that_are_as_fast_the_larger_is_taken() -> None:
    """Time goes in steps: all networks up to 62 % take 4.9 ms, larger ones 9."""

    class Step(Latency):
        def __call__(self, *graphs: Graph) -> list[float]:
            shares = [cost(graph).macs / self.whole for graph in graphs]
            return [10.0 if share == 1 else 4.9 if share <= 0.62 else 9.0 for share in shares]

    net, x = Net(1, 3, 8, 8), "x"
    for _ in range(4):
        x = net.relu(net.conv(x, 24))
    graph = net.graph(net.head(x))
    done = allocated(graph, Step(graph), 5.0)
    left = cost(slim(done, done.note(KeepMask).mask)).macs / cost(graph).macs  # type: ignore[union-attr]
    assert 0.58 < left <= 0.62


def test_compile_judges_networks_by_what_the_policy_repairs_with(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    monkeypatch.setattr(never_slower, "latency_model", lambda seed, runtime: ByLayer(graph, ""))
    x = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
    policy = "l1,knapsack{loss=sum,by=time},slim,refit,distill{steps=1}"
    done = secateur.compile(graph, policy, speedup=1.2, round_to=1, calibration=[x], holdout=0)
    assert done.report.budget is not None
    assert any("of the MACs, alike in all layers" in remark for remark in done.report.remarks)
    (allocation,) = (p for p in Policy.parse(policy).with_budget("speedup", 1.2).passes() if isinstance(p, Timed))
    assert allocation.judge == Repaired((Refit(),))  # distill takes as long as it may, and is left to the end
    assert [what for _, what in allocation.others] == ["MACs, alike in all layers", "MACs, in halves of vectors"]


def test_widths_of_half_vectors_are_tried_where_the_target_decides() -> None:
    net = Net(1, 3, 8, 8)
    graph = net.graph(net.head(net.relu(net.conv(net.relu(net.conv("x", 32)), 32))))
    graph = Pipeline((Couple(), L1()))(in_context(graph, lanes=8))
    way = {what: at for at, what in by_time(Knapsack(), Amount("speedup", 2.0), ()).others}
    steps = {}
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        halves, whole = (step(graph).note(Allocation) for step in (way[HALVES](share), at_share(Knapsack(), share)))
        assert halves is not None and whole is not None
        steps[share] = halves.round_to, whole.round_to
        assert halves.reached >= whole.reached * 0.9
    assert (4, 8) in steps.values()
    assert all(half <= 4 for half, _ in steps.values())
    assert HALVES not in [what for _, what in by_time(Knapsack(round_to=1), Amount("speedup", 2.0), ()).others]
