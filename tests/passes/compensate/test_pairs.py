"""Two layers that a rewrite made of one: ``refit`` solves them together, for what flows through."""

from __future__ import annotations

import numpy as np
import pytest

import secateur
from secateur.ir import Array, Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes import REWRITES, Pipeline
from secateur.passes.compensate import Refit
from secateur.passes.compensate.lockstep import lockstep
from secateur.passes.compensate.pairs import Matrices, Pair, _directions, could_pair, pair_of
from secateur.passes.context import Calibration, context_of, in_context
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling, KeepMask
from secateur.passes.pipeline import parse_pass
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.low_rank import LowRank
from secateur.passes.rewrite.slim import Slim
from secateur.policy import from_spec, from_toml
from secateur.restructure import restructure
from secateur.run import Runner
from support.network import Net

RNG = np.random.default_rng(0)
MIXED = RNG.standard_normal((12, 12)) * np.geomspace(3, 0.05, 12)  # inputs that vary in few directions


def fed(rows: int, *shape: int) -> Array:
    """f32[rows, *shape]: channels that go together."""
    x = RNG.standard_normal((rows, *shape)) + 0.5
    return np.einsum("nc...,cd->nd...", x, MIXED[: shape[0], : shape[0]]).astype(np.float32)


def rewritten(graph: Graph, spec: str, x: Array) -> Graph:
    """As a policy that only rewrites leaves it for its repairs."""
    start = in_context(graph, calibration=Calibration([x]))
    return restructure(start, (parse_pass(spec, REWRITES),), lambda ran: None, Runner()).graph


def error(one: Graph, two: Graph, x: Array) -> float:
    """The squared error of the first output."""
    return float(((evaluate(one, {"x": x})[0] - evaluate(two, {"x": x})[0]).astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("transposed", [False, True])
def test_a_low_rank_layer_gets_the_best_product_of_its_rank(transposed: bool) -> None:
    """Oracle: outputs less their mean, cut to the rank by their own SVD; the bias keeps the mean."""
    x = fed(200, 12)
    net = Net(200, 12)
    graph = net.graph(net.linear("x", 10, transposed))
    after = rewritten(graph, "low_rank{rank=3}", x)
    fitted = Refit(ridge=0.0, positions=1000)(after)
    y = evaluate(graph, {"x": x})[0].astype(np.float64)
    singular = np.linalg.svd(y - y.mean(0), compute_uv=False)
    best = float((singular[3:] ** 2).sum())
    assert error(graph, fitted, x) == pytest.approx(best, rel=1e-3)
    assert error(graph, after, x) > 3 * best


def test_a_batch_norm_that_was_folded_first_is_part_of_what_the_pair_computes() -> None:
    """The same oracle: outputs of the batch norm."""
    x = fed(40, 8, 4, 4)
    net = Net(40, 8, 4, 4)
    graph = net.graph(net.bn(net.conv("x", 6, 1)))
    steps = tuple(parse_pass(text, REWRITES) for text in ("fold_bn", "low_rank{rank=2}"))
    start = in_context(graph, calibration=Calibration([x]))
    fitted = Refit(ridge=0.0, positions=1000)(restructure(start, steps, lambda ran: None, Runner()).graph)
    y = evaluate(graph, {"x": x})[0].astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 6)
    best = float((np.linalg.svd(y - y.mean(0), compute_uv=False)[2:] ** 2).sum())
    assert error(graph, fitted, x) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("spec", ["separable{rank=1}", "grouped{groups=4,width=50%}"])
def test_a_window_in_groups_and_its_1x1_are_solved_in_turns(spec: str) -> None:
    """Nearer than the window of the weights with the best 1x1 after it, and steps of neither factor help any more."""
    x = fed(16, 8, 6, 6)
    net = Net(16, 8, 6, 6)
    graph = net.graph(net.conv("x", 8))
    after = rewritten(graph, spec, x)
    fitted = Refit(ridge=0.0, positions=1000)(after)
    window = after.nodes[0].name
    assert {str(n.inputs[1]) for n in after.nodes} <= Refit.may_change(after)
    z = evaluate(after.rewrite(outputs=[window]), {"x": x})[0].transpose(0, 2, 3, 1).reshape(16 * 36, -1)
    y = evaluate(graph, {"x": x})[0].transpose(0, 2, 3, 1).reshape(16 * 36, -1)
    ones = np.c_[z, np.ones(len(z))].astype(np.float64)
    alone = float(((y - ones @ np.linalg.lstsq(ones, y, rcond=None)[0]) ** 2).sum())
    found = error(graph, fitted, x)
    assert found < 0.8 * alone
    for name in (str(n.inputs[1]) for n in after.nodes):
        for seed in range(4):
            step = np.random.default_rng(seed).standard_normal(fitted.weights[name].shape) * 1e-2
            nearby = {**fitted.weights, name: (fitted.weights[name] * (1 + step)).astype(np.float32)}
            assert error(graph, fitted.rewrite(weights=nearby), x) > 0.999 * found


def test_factors_that_fit_exactly_are_found_again() -> None:
    """A planted product of groups, begun from factors that are off."""
    first, second = RNG.standard_normal((4, 2, 9)), RNG.standard_normal((10, 8))
    planted = Matrices(first, second).product()
    start = Matrices(first + 0.3 * RNG.standard_normal(first.shape), second)
    u = RNG.standard_normal((400, 36))
    moments = u.T @ u / len(u)

    def off(found: Matrices) -> float:
        gap = found.product() - planted
        return float(np.einsum("oc,cd,od->", gap, moments, gap) / np.einsum("oc,cd,od->", planted, moments, planted))

    assert off(start) > 0.02
    assert off(start.nearest(planted, moments)) < 1e-3


def test_of_a_cut_layer_the_columns_and_rows_that_are_left_are_wanted() -> None:
    """By hand: inputs 0, 2 and outputs 1, 2 are left, so the whole layer would have W[[1, 2]][:, [0, 2]]."""
    x = fed(32, 2, 5, 5)
    net = Net(32, 2, 5, 5)
    middle = net.relu(net.conv("x", 3, 1))
    layer = net.conv(middle, 3)
    graph = net.graph(net.relu(net.conv(layer, 2, 1)))
    after = Couple()(rewritten(graph, f"low_rank{{rank=2,layers=[{layer}]}}", x))
    coupling = after.note(Coupling)
    assert coupling is not None
    keep = np.ones(coupling.size, bool)
    keep[coupling.channels[middle].units[1]] = keep[coupling.channels[layer].units[0]] = False
    slim = Slim()(after.with_note(KeepMask(keep)))
    node = slim.producer[layer]
    pair = pair_of(slim, node, context_of(slim).given)
    assert pair == Pair(slim.producer[f"{layer}.window"], node)
    before = {layer: pair.first.name}
    (step,) = lockstep(slim, "refit", 32, lambda n: n.name == layer, before=before, given=True)
    np.testing.assert_array_equal(
        pair.wanted(step, slim.note(Recipe)), graph.weights[f"{layer}.weight"][[1, 2]][:, [0, 2]]
    )
    assert error(graph, Refit(positions=1000)(slim), x) < error(graph, slim, x)


def test_layers_that_the_two_networks_compute_in_another_order_are_all_reached() -> None:
    """The original has computed both when the first of them is looked at; the second's values are still there."""
    x = fed(8, 4, 5, 5)
    net = Net(8, 4, 5, 5)
    one = net.conv("x", 4)
    active, two = net.relu(one), net.conv("x", 4)
    graph = net.graph(str(net.node("add", active, two)))
    turned = graph.rewrite(nodes=[graph.nodes[i] for i in (2, 0, 1, 3)])
    held = in_context(turned, calibration=Calibration([x]), given=graph)
    assert [s.node.name for s in lockstep(held, "refit", 8, lambda n: n.op == "conv", given=True)] == [two, one]


@pytest.mark.parametrize(("outputs", "columns", "known"), [(24, 6, 6), (24, 6, 4), (6, 24, 6), (8, 8, 8)])
def test_the_directions_of_few_inputs_are_those_of_the_outputs(outputs: int, columns: int, known: int) -> None:
    """Oracle: the eigenvectors of W A W', which is as large as the outputs; beyond ``known`` there is none."""
    wanted = RNG.standard_normal((outputs, known)) @ RNG.standard_normal((known, columns))
    x = RNG.standard_normal((200, columns)) * np.geomspace(1, 0.01, columns)
    second = x.T @ x
    _, vectors = np.linalg.eigh(wanted @ second @ wanted.T)
    found = _directions(wanted, second)
    for rank in range(1, known + 1):
        mine, theirs = (v @ v.T for v in (found[:, :rank], vectors[:, ::-1][:, :rank]))
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.diag([1.0] * known + [0.0] * (found.shape[1] - known)), atol=1e-6)


def test_layers_that_no_rewrite_made_are_no_pair() -> None:
    """Two 1x1 that the user's network has one after the other are solved one by one: each stands in the original."""
    net = Net(1, 4, 5, 5)
    first = net.conv("x", 4, 1, bias=False)
    graph = net.graph(net.conv(first, 4, 1))
    assert could_pair(graph, graph.nodes[1]) == graph.nodes[0]
    assert pair_of(graph, graph.nodes[1], graph) is None
    assert pair_of(graph, graph.nodes[1], graph.rewrite(nodes=graph.nodes[:1], outputs=[first])) is None
    assert pair_of(graph, graph.nodes[1], None) is None


def test_repairs_follow_the_network_before_its_rewrites() -> None:
    """``refit`` and ``distill`` make up for a rewrite; where channels were reordered, they begin after that."""
    x = fed(24, 4, 6, 6)
    net = Net(24, 4, 6, 6)
    graph = net.graph(net.shuffle(net.conv(net.relu(net.conv("x", 8)), 8), 2))
    given = context_of(rewritten(graph, "low_rank{rank=3}", x)).given
    assert given is not None
    assert given.nodes == Canonicalize()(graph).nodes
    steps = tuple(parse_pass(text, REWRITES) for text in ("low_rank{rank=3}", "fold_shuffle", "canonicalize"))
    start = in_context(graph, calibration=Calibration([x]))
    later = context_of(restructure(start, steps, lambda ran: None, Runner()).graph).given
    folded = Pipeline(steps[:2])(start)
    assert later is not None
    assert later.nodes == Canonicalize()(folded).nodes


@pytest.mark.parametrize("spec", ["canonicalize", "fold_bn", "low_rank{ratio=100%,always=true}"])
def test_values_that_keep_their_name_keep_their_meaning(spec: str) -> None:
    """What repairs rely on: of rewrites that are exact, every value of the same name is the same."""
    net = Net(2, 4, 6, 6)
    y = net.relu(net.bn(net.conv(net.shuffle(net.relu(net.bn(net.conv("x", 8, bias=False))), 4), 8, 1, groups=2)))
    graph = net.graph(net.head(str(net.node("add", y, net.conv(y, 8)))))
    after = Pipeline((parse_pass(spec, REWRITES),))(graph)
    shared = [n.name for n in graph.nodes if n.name in after.producer]
    x = fed(2, 4, 6, 6)
    for name, a, b in zip(
        shared, *(evaluate(g.rewrite(outputs=shared), {"x": x}) for g in (graph, after)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_policy_may_rewrite_and_repair_alone() -> None:
    """No criterion: nothing is pruned, the rewrite is made up for, the recipe says both and is verified."""
    x = fed(64, 4, 6, 6)
    net = Net(64, 4, 6, 6)
    graph = net.graph(net.head(net.relu(net.conv(net.relu(net.conv("x", 12)), 12))))
    bare = secateur.compile(graph, "low_rank{macs=60%}", calibration=[x], holdout=0)
    done = secateur.compile(graph, "low_rank{macs=60%},refit{positions=1000}", calibration=[x], holdout=0)
    assert error(graph, done.graph, x) < 0.5 * error(graph, bare.graph, x)
    assert done.report.after is not None
    assert done.report.after["macs"] <= 0.6 * done.report.before["macs"]
    (low, cut, repair) = done.recipe.rewrites
    assert (cut, repair) == ("slim", "refit{positions=1000}")
    again = parse_pass(low, REWRITES)
    assert isinstance(again, LowRank)
    assert again.macs is None
    assert len(again.ranks) == len(again.layers) > 0
    text = "low_rank{macs=60%},refit{positions=1000}"
    assert done.report.policy == from_toml(from_spec(text).to_toml()).spec == text
