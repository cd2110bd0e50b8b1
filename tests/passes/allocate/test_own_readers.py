"""Readers that keep their own channels of one tensor: which they keep, what it costs, and what it must not do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from secateur.ir import Graph, InputError, PassError
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.numeric import random_inputs, relative_error
from secateur.passes import Pipeline
from secateur.passes.allocate import Knapsack
from secateur.passes.allocate.own_readers import OwnReaders, allocation_of, closed
from secateur.passes.analysis.cost import totals
from secateur.passes.compensate import Refit
from secateur.passes.context import Calibration, in_context
from secateur.passes.coupling.couple import Couple, couple
from secateur.passes.coupling.keep import check_keep
from secateur.passes.coupling.own import readers, untied
from secateur.passes.law import check
from secateur.passes.notes import KeepMask
from secateur.passes.pipeline import print_pass
from secateur.passes.recipe import Recipe
from secateur.passes.recipe.mask import mask_of
from secateur.passes.rewrite.slim import Slim, slim
from secateur.passes.score.obs import OBS
from secateur.passes.score.obs_swaps import repaired
from secateur.passes.score.slots import coupling_of
from secateur.passes.sweep.gather import Gather
from secateur.policy import Policy
from support.network import Net

HALF = Knapsack(macs=0.7, round_to=1, loss="sum", floor=0.0)


def two_readers(outputs: int = 4) -> Graph:
    """Two convolutions of one tensor: the first reads nothing of channels 0 to 3, the second nothing of 4 to 7."""
    net = Net(8, 3, 6, 6, seed=2)
    x = net.relu(net.conv("x", 8))
    a, b = net.conv(x, outputs), net.conv(x, outputs)
    graph = net.graph(net.head(str(net.node("concat", a, b, axis=1))))
    net.weights[f"{a}.weight"][:, :4] = 0
    net.weights[f"{b}.weight"][:, 4:] = 0
    return graph


def scored(graph: Graph, ridge: float = 1e-2) -> Graph:
    data = Calibration([np.random.default_rng(k).standard_normal((8, 3, 6, 6)).astype(np.float32) for k in range(8)])
    step = OBS(ridge)
    return Pipeline((Couple(), Gather((step,)), step))(in_context(graph, calibration=data))


def test_readers_with_opposite_needs_keep_what_they_need() -> None:
    """By hand: every channel is needed by one of two readers. Tied, they lose; each for itself, nothing is lost."""
    graph = scored(two_readers())
    step = OwnReaders(HALF)
    tied, own = HALF(graph), step(graph)
    assert step.lost(tied) > 0.01
    assert step.lost(own) < 1e-9
    slimmed = Slim()(own)
    index = {n.name: slimmed.weights[str(n.inputs[1])].tolist() for n in slimmed.nodes if n.op == "gather"}
    assert set(index["conv2.own0"]) >= {4, 5, 6, 7}
    assert set(index["conv3.own0"]) >= {0, 1, 2, 3}
    assert len(index["conv2.own0"]) + len(index["conv3.own0"]) < 16
    assert totals(slimmed).macs == allocation_of(own).reached <= 0.7 * totals(graph).macs
    feed = random_inputs(graph, 1)
    assert relative_error(evaluate(graph, feed)[0], evaluate(slimmed, feed)[0]) < 1e-5
    assert "2 layers keep their own channels" in allocation_of(own).remarks[-1]


def test_the_tied_network_stays_where_it_loses_less() -> None:
    """Both readers need the same half: nothing is to be had from untying, and an index would be for nothing."""
    graph = two_readers()
    weights = dict(graph.weights)
    for name in ("conv2.weight", "conv3.weight"):
        weights[name] = np.random.default_rng(1).standard_normal((4, 8, 3, 3)).astype(np.float32)
        weights[name][:, :4] = 0
    graph = scored(graph.rewrite(weights=weights))
    found = OwnReaders(HALF)(graph)
    assert not len(coupling_of(found, "test").own)
    np.testing.assert_array_equal(mask_of(found), mask_of(HALF(graph)))


def test_an_index_must_save_more_than_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.passes.allocate.own_readers.COPY", 1000)
    assert not len(coupling_of(OwnReaders(HALF)(scored(two_readers())), "test").own)


@pytest.mark.parametrize(("price", "untied"), [(0.0, True), (2.0, False)])
def test_under_a_budget_of_time_what_loses_less_as_measured_is_taken(price: float, untied: bool) -> None:
    """An index that takes a fifth of the whole network's time costs more than it spares."""
    graph = scored(two_readers())
    whole = totals(graph).macs

    class Machine:
        def __call__(self, *graphs: Graph) -> list[float]:
            return [10 * totals(g).macs / whole + price * sum(n.op == "gather" for n in g.nodes) for g in graphs]

        def layers(self, graph: Graph) -> dict[str, float]:
            return {}

    tied = dataclasses.replace(HALF, macs=None)
    policy = Policy(OBS(), dataclasses.replace(tied, readers="own", round_to="auto"), ("latency_ms", 6.0), round_to=1)
    (step,) = (s for s in policy.passes() if s.name == "timed")
    done = step(in_context(graph, latency=Machine()))
    assert bool(len(coupling_of(done, "test").own)) == untied
    assert Machine()(Slim()(done))[0] == pytest.approx(allocation_of(done).reached)
    assert allocation_of(done).reached <= 6.0


def test_bytes_count_the_index() -> None:
    """The numbers of an index are stored, so a budget of bytes takes further channels for them."""
    graph = scored(two_readers(outputs=16))
    step = Knapsack(bytes=0.7, round_to=1, loss="sum", floor=0.0)
    found = OwnReaders(step)(graph)
    assert len(coupling_of(found, "test").own)
    assert totals(Slim()(found)).bytes == allocation_of(found).reached <= 0.7 * totals(graph).bytes


def test_what_no_reader_keeps_is_gone_for_everybody() -> None:
    graph = two_readers()
    tied = couple(graph)
    coupling = untied(tied, list(readers(graph, tied).values()))
    first = tied.size
    keep = np.ones(coupling.size, bool)
    channel = {m.node: m.units for m in coupling.mixing if m.mode == "own"}
    keep[[channel["conv2"][1], channel["conv3"][1], channel["conv2"][6]]] = False
    found = closed(coupling, keep)
    unit = coupling.own[channel["conv2"][1] - first]
    assert not found[unit]
    assert found[:first].sum() == first - 1  # channel 6 has a reader
    small = slim(graph.with_note(coupling), found)
    assert small.weights["conv0.weight"].shape[0] == 7
    assert [n.name for n in small.nodes if n.op == "gather"] == ["conv2.own0"]  # the other reads all that is left
    lost = np.ones(coupling.size, bool)
    lost[unit] = False
    with pytest.raises(PassError, match=r"conv2.weight\[1\] of conv2 would keep a channel of its own that is gone"):
        check_keep(coupling, lost)


def test_which_readers_there_are() -> None:
    """No grouped layer, none whose input nobody else reads, none that shares its weight."""
    net = Net(1, 3, 4, 4)
    x = net.relu(net.conv("x", 8))
    alone = net.conv(net.conv(x, 6), 4)
    grouped = net.conv(x, 4, groups=2)
    shared = net.weight("both", 4, 8, 1, 1)
    twice = [
        net.node("conv", x, shared, None, stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, groups=1) for _ in range(2)
    ]
    graph = net.graph(net.head(str(net.node("concat", alone, grouped, *twice, axis=1))))
    found = readers(graph, couple(graph))
    assert list(found) == ["conv2.weight"]
    assert found["conv2.weight"].own.all()


def test_the_repair_of_a_choice_is_least_squares() -> None:
    graph = scored(two_readers(), ridge=1e-6)
    for _, read in OBS(1e-6).by_reader(graph):
        left = np.random.default_rng(0).random(len(read.units)) < 0.5
        cost, weight = repaired(read, left)
        root = np.linalg.cholesky(read.damped).T
        wanted, *_ = np.linalg.lstsq(root[:, left], root @ read.weight, rcond=None)
        np.testing.assert_allclose(weight, wanted, atol=1e-6)
        assert cost == pytest.approx(float(((root @ read.weight - root[:, left] @ wanted) ** 2).sum()), rel=1e-6)


def test_refit_repairs_readers_with_their_own_channels() -> None:
    """Of channels that they need, each reader goes without two others: what it has left makes up for some of it."""
    graph = scored(two_readers())
    tied = coupling_of(graph, "test")
    coupling = untied(tied, list(readers(graph, tied).values()))
    keep = np.ones(coupling.size, bool)
    channel = {m.node: m.units for m in coupling.mixing if m.mode == "own"}
    keep[[*channel["conv2"][[4, 5]], *channel["conv3"][[0, 1]]]] = False
    cut = Slim()(graph.with_note(coupling, KeepMask(keep)))
    feed = random_inputs(cut, 3)
    wanted = evaluate(graph, feed)[0]
    before, after = (relative_error(wanted, evaluate(g, feed)[0]) for g in (cut, Refit(examples=64)(cut)))
    assert after < 0.8 * before


def test_a_wrong_index_is_noticed_by_the_law() -> None:
    """Sabotage: the same channels in another order."""
    own = OwnReaders(HALF)(scored(two_readers()))
    small = Slim()(own)
    recipe = small.note(Recipe)
    assert recipe is not None
    assert check(own, small, recipe, run=evaluate).passed
    wrong = {k: w[::-1].copy() if k == "const.conv2.own0" else w for k, w in small.weights.items()}
    assert not check(own, small.rewrite(weights=wrong), recipe, run=evaluate).passed


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            "l1,knapsack{macs=50%,readers=own}",
            r"says what a channel is worth to each layer that reads it \(obs\); 'l1'",
        ),
        ("obs{swaps=true},knapsack{macs=50%,readers=own}", "leave swaps=true out"),
        ("obs,knapsack{macs=50%,readers=own,rounds=2}", "leave rounds= and by= out"),
        ("obs,knapsack{latency_ms=5,readers=own,by=time}", "goes by multiply-accumulates, in one round"),
    ],
)
def test_policies_that_cannot_be_are_refused(policy: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Policy.parse(policy)


def test_a_policy_unties_where_it_says_so() -> None:
    policy = Policy.parse("obs,knapsack{macs=50%,readers=own}")
    assert [print_pass(step) for step in policy.passes()][-2:] == ["own_readers", "slim"]
    assert Policy.parse(policy.spec) == policy
    with pytest.raises(PassError, match="a policy unties them"):
        Knapsack(macs=0.5, readers="own")(scored(two_readers()))
    with pytest.raises(InputError, match=r"readers=loose\}: readers are tied"):
        Knapsack(macs=0.5, readers="loose")(scored(two_readers()))  # type: ignore[arg-type]
