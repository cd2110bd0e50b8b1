"""``sparsify``: zeros in networks, by magnitude and by second moments, and what is refused."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from secateur.ir import Array, Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.context import Calibration, in_context
from secateur.passes.sparsify import Sparsified, Sparsify
from secateur.passes.sparsify.budget import Curve, divided
from secateur.passes.sparsify.exchange import exchange
from secateur.passes.sparsify.fit import Quadratic
from secateur.passes.sparsify.irregular import Irregular
from secateur.passes.sparsify.prune import prune
from support.network import Net


def small() -> Graph:
    """Three convolutions, the last one depthwise, and a classifier."""
    net = Net(2, 16, 6, 6)
    y = net.relu(net.bn(net.conv("x", 32)))
    y = net.relu(net.bn(net.conv(y, 32)))
    return net.graph(net.head(y))


def data(count: int = 6) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, 16, 6, 6)).astype(np.float32) for _ in range(count)]


# --- the solver -----------------------------------------------------------------------------------------------------


def test_removing_one_of_two_weights_by_hand() -> None:
    """S = [[2, 1], [1, 2]], its inverse has 2/3 on the diagonal; best are 1 and 3, so the pull is 5 and 7."""
    loss = Quadratic(np.array([[[2.0, 1], [1, 2]]]), np.array([[[5.0, 7]]]))
    weight = np.array([[[1.0, 3]]])
    np.testing.assert_allclose(loss.importance(weight), [[[1.5, 13.5]]])
    found, kept = prune(loss, weight, Irregular(), 0.5, 1)
    np.testing.assert_array_equal(kept, [[[False, True]]])
    np.testing.assert_allclose(found, [[[0, 3.5]]])
    assert loss.loss(found) - loss.loss(weight) == pytest.approx(1.5 / 2)


@given(st.integers(0, 50), st.integers(1, 3), st.integers(2, 6), st.integers(2, 12))
@settings(max_examples=40)
def test_the_solution_is_that_of_the_normal_equations(seed: int, groups: int, outs: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((groups, 3 * columns, columns))
    second = u.transpose(0, 2, 1) @ u / len(u) + 0.1 * np.eye(columns)
    weight = rng.standard_normal((groups, outs, columns))
    loss, mask = Quadratic(second, weight @ second), rng.random(weight.shape) < 0.6
    found = loss.solve(weight, mask)
    assert not found[~mask].any()
    for g, o in np.ndindex(groups, outs):
        kept = mask[g, o]
        exact = np.linalg.solve(second[g][np.ix_(kept, kept)], loss.pull[g, o, kept]) if kept.any() else []
        np.testing.assert_allclose(found[g, o, kept], exact, atol=1e-4)
    assert loss.loss(found) <= loss.loss(np.where(mask, weight, 0)) + 1e-9


@pytest.mark.parametrize("outputs", [1, 4])
def test_exchange_repairs_what_greedy_removal_took(outputs: int) -> None:
    """Inputs 0 and 1 are their sum, input 2, halved: one alone does best, and a mask that has it not finds it."""
    u = np.random.default_rng(3).standard_normal((500, 2))
    x = np.concatenate([u, u.sum(1, keepdims=True)], 1)
    second = (x.T @ x / len(x) + 1e-6 * np.eye(3))[None]
    loss = Quadratic(second, np.ones((1, outputs, 1)) * second[:, 2:])
    before = np.repeat([[[True, False, False]]], outputs, 1)
    after = exchange(loss, before, outputs)
    np.testing.assert_array_equal(after, np.repeat([[[False, False, True]]], outputs, 1))
    assert loss.loss(loss.solve(np.ones(after.shape), after)) < loss.loss(loss.solve(np.ones(after.shape), before))


# --- one budget ---------------------------------------------------------------------------------------------------


def test_a_budget_takes_where_it_costs_least() -> None:
    """By hand: b loses half for nothing, then a loses for less than b's other half; the last step fits the budget."""
    curves = {"a": Curve(100, (0.0, 0.5, 1.0), (0.0, 0.1, 1.0)), "b": Curve(300, (0.0, 0.5, 1.0), (0.0, 0.0, 3.0))}
    shares = divided(curves, 0.45)
    assert shares["b"] == pytest.approx(0.5)
    assert shares["a"] == pytest.approx(0.3)
    with pytest.raises(InputError, match=r"62\.5% at most"):
        divided({"a": Curve(100, (0.0, 0.25), (0.0, 0.1)), "b": Curve(100, (0.0, 1.0), (0.0, 1.0))}, 0.9)


@pytest.mark.parametrize("block", ["auto", "bmwm"])
def test_one_budget_for_all_layers_removes_the_share_and_spares_some(block: str) -> None:
    graph = in_context(small(), calibration=Calibration(data(1)))
    found = Sparsify(0.6, block, "moments", lanes=8, across=True)(graph)
    note = found.note(Sparsified)
    assert note is not None
    sizes = [found.weights[row.weight].size for row in note.rows]
    zeros = sum(row.sparsity * size for row, size in zip(note.rows, sizes, strict=True))
    assert zeros >= 0.6 * sum(sizes) - 1e-6
    assert len({round(row.sparsity, 2) for row in note.rows}) > 1


@pytest.mark.parametrize("block", ["auto", "irregular"])
def test_a_budget_of_work_counts_multiply_accumulates(block: str) -> None:
    """By hand: a weight of the first convolution works at 36 pixels, one of the classifier once."""
    net = Net(2, 16, 6, 6)
    y = net.node("reshape", net.conv("x", 8), shape=(2, 8 * 36))
    graph = in_context(net.graph(net.linear(y, 64)), calibration=Calibration(data(40)))
    work = {"conv": 2 * 36 * 8 * 16 * 9, "linear": 2 * 64 * 8 * 36}
    left = {}
    for count in ("weights", "macs"):
        note = Sparsify(0.6, block, "moments", lanes=8, across=True, count=count)(graph).note(Sparsified)
        assert note is not None
        kept = {row.layer.rstrip("0123456789"): 1 - row.sparsity for row in note.rows}
        left[count] = sum(work[n] * kept[n] for n in work) / sum(work.values())
    assert left["macs"] <= 0.4 + 1e-6 < left["weights"]


# --- how far errors reach -------------------------------------------------------------------------------------------


def test_a_block_keeps_what_the_outputs_need_that_matter() -> None:
    """By hand: seven outputs read inputs 4 to 7, one reads 0 to 3 and is the only one that the network's output has."""
    net = Net(64, 8)
    y = net.linear("x", 8)
    net.weights["linear0.weight"] = np.zeros((8, 8), np.float32)
    net.weights["linear0.weight"][0, :4] = net.weights["linear0.weight"][1:, 4:] = 1
    graph = net.graph(net.linear(y, 2))
    net.weights["linear1.weight"][:, 1:] = 0
    x = np.random.default_rng(2).standard_normal((64, 8)).astype(np.float32)
    graph = in_context(graph, calibration=Calibration([x]))
    for of, kept in (("layers", [4, 5, 6, 7]), ("outputs", [0, 1, 2, 3])):
        found = Sparsify(0.5, "auto", "moments", 8, ("linear1",), of=of)(graph)
        assert np.flatnonzero(found.weights["linear0.weight"].any(0)).tolist() == kept


def test_a_budget_takes_from_the_layer_that_reaches_least() -> None:
    """Two branches, the second of which is divided by a hundred before they meet."""
    net = Net(2, 16, 6, 6)
    net.weights["hundredth"] = np.float32([0.01])
    small_part = net.node("mul", net.conv("x", 16), "hundredth")
    graph = in_context(net.graph(net.node("add", net.conv("x", 16), small_part)), calibration=Calibration(data(2)))
    rows = {}
    for of in ("layers", "outputs"):
        note = Sparsify(0.4, "irregular", "moments", across=True, of=of)(graph).note(Sparsified)
        assert note is not None
        rows[of] = {row.layer: row.sparsity for row in note.rows}
    assert abs(rows["layers"]["conv0"] - rows["layers"]["conv2"]) < 0.2
    assert rows["outputs"]["conv0"] > 0.75 > 0.1 > rows["outputs"]["conv2"]


# --- the pass -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["auto", "kernels", "irregular", "darb", "bmwm", "8x1", "4x4"])
def test_each_layer_loses_its_share(block: str) -> None:
    graph = small()
    found = Sparsify(0.75, block, lanes=8)(graph)
    note = found.note(Sparsified)
    assert note is not None
    assert len(note.rows) == 3
    for row in note.rows:
        w, before = found.weights[row.weight], graph.weights[row.weight]
        assert (w == 0).mean() >= 0.75 - 1e-9
        assert np.all((w == 0) | (w == before))
    assert Sparsify(0.75, block, lanes=8)(found).weights.keys() == graph.weights.keys()


def test_the_share_zero_changes_nothing() -> None:
    graph = small()
    assert Sparsify(0.0)(graph) is graph


def test_columns_that_go_together_cost_what_their_removal_costs() -> None:
    """Against the solution without them; one by one, each of two alike columns would seem to cost nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6))
    x[:, 1] = x[:, 0] + 0.01 * rng.standard_normal(200)
    second, weight = (x.T @ x / 200)[None], rng.standard_normal((1, 3, 6))
    loss = Quadratic(second, weight @ second)
    found = loss.importance(weight, 2)
    for block in range(3):
        mask = np.ones_like(weight, bool)
        mask[..., 2 * block : 2 * block + 2] = False
        rise = loss.loss(loss.solve(weight, mask)) - loss.loss(weight)
        assert found[..., 2 * block : 2 * block + 2].sum() == pytest.approx(2 * rise, rel=1e-6)
    assert loss.importance(weight)[..., :2].sum() < 0.01 * found[..., :2].sum()
    np.testing.assert_allclose(loss.remaining(weight, np.ones_like(weight, bool), 3, 2), found)


@pytest.mark.parametrize("by", ["magnitude", "moments"])
def test_whole_kernels_go_in_as_many_of_each_block(by: str) -> None:
    """Of sixteen inputs of 3x3 kernels each block of eight outputs keeps four, with all nine taps; 1x1 the same."""
    graph = in_context(small(), calibration=Calibration(data()))
    found = Sparsify(0.75, "kernels", by, lanes=8)(graph)
    for node in found.nodes:
        if node.op == "conv":
            w = found.weights[node.inputs[1] or ""]
            kept = (w != 0).reshape(len(w) // 8, 8, w.shape[1], -1)
            assert np.array_equal(kept.any((1, 3)), kept.all((1, 3)))
            assert set(kept.any((1, 3)).sum(1)) == {w.shape[1] // 4}


@pytest.mark.parametrize("block", ["auto", "kernels", "irregular", "2:4"])
def test_second_moments_lose_less_than_magnitude(block: str) -> None:
    """On inputs that were not seen, of which there are more than the classifier has columns."""
    graph = in_context(small(), calibration=Calibration(data(24)))
    fresh = np.random.default_rng(9).standard_normal((8, 16, 6, 6)).astype(np.float32)
    want = evaluate(graph, {"x": fresh})[0]
    errors = {}
    for by in ("magnitude", "moments"):
        found = Sparsify(0.5, block, by, lanes=8)(graph)
        w = found.weights[next(n.inputs[1] or "" for n in found.nodes if n.op == "conv")]
        assert (w == 0).mean() >= 0.5 - 1e-9
        errors[by] = float(((evaluate(found, {"x": fresh})[0] - want) ** 2).sum())
    assert errors["moments"] < errors["magnitude"]


def test_shares_of_a_row_spare_quiet_rows() -> None:
    """By hand: one row is a thousandth of the other; by magnitude it loses all, by shares its least half."""
    net = Net(2, 8)
    graph = net.graph(net.linear("x", 2))
    row = np.arange(1, 9, dtype=np.float32)
    net.weights["linear0.weight"][:] = np.stack([row, row[::-1] / 1000])
    kept = [Sparsify(0.5, "irregular", by)(graph).weights["linear0.weight"] != 0 for by in ("magnitude", "shares")]
    np.testing.assert_array_equal(kept[0], np.stack([np.ones(8, bool), np.zeros(8, bool)]))
    np.testing.assert_array_equal(kept[1], np.stack([row > 4, row[::-1] > 4]))


def test_recurrent_weights_lose_theirs() -> None:
    net = Net(5, 2, 16)
    w, r = net.weight("w", 1, 64, 16), net.weight("r", 1, 64, 16)
    node = net.node("lstm", "x", w, r, None, None, None, hidden=16, direction="forward")
    found = Sparsify(0.75, "darb")(Graph("net", tuple(net.inputs), tuple(net.nodes), (node,), net.weights))
    assert all((found.weights[name] == 0).mean() >= 0.75 for name in ("w", "r"))


def memory(op: str, direction: str, units: int = 16) -> Graph:
    """A recurrent layer of so many units on twelve inputs."""
    net, ways, gates = Net(9, 4, 12), 1 + (direction == "bidirectional"), 4 if op == "lstm" else 3
    w, r = net.weight("w", ways, gates * units, 12), net.weight("r", ways, gates * units, units)
    net.weights.update({name: x * np.float32(0.3) for name, x in net.weights.items()})  # it settles
    more = {"linear_before_reset": True} if op == "gru" else {}
    states = (None, None) if op == "gru" else (None, None, None)
    y = net.node(op, "x", w, r, *states, hidden=units, direction=direction, **more)
    return Graph("net", tuple(net.inputs), tuple(net.nodes), (y,), net.weights)


def sequences(count: int) -> list[Array]:
    """Inputs of which the later half are nearly the earlier one, and the first hardly moves."""
    rng = np.random.default_rng(3)
    found = rng.standard_normal((count, 9, 4, 12)).astype(np.float32)
    found[..., 6:] = found[..., :6] + 0.1 * found[..., 6:]
    found[..., 0] *= 0.01
    return list(found)


@pytest.mark.parametrize("block", ["irregular", "auto", "darb"])
@pytest.mark.parametrize(
    ("op", "direction"), [("lstm", "forward"), ("lstm", "bidirectional"), ("gru", "reverse"), ("gru", "bidirectional")]
)
def test_recurrent_weights_go_by_what_enters_the_gates(op: str, direction: str, block: str) -> None:
    graph = in_context(memory(op, direction), calibration=Calibration(sequences(8)))
    fresh = sequences(9)[-1]
    want, errors = evaluate(graph, {"x": fresh})[0], {}
    for by in ("magnitude", "moments"):
        found = Sparsify(0.5, block, by, lanes=8)(graph)
        assert all((found.weights[name] == 0).mean() >= 0.5 for name in ("w", "r"))
        errors[by] = float(((evaluate(found, {"x": fresh})[0] - want) ** 2).sum())
    assert errors["moments"] < 0.7 * errors["magnitude"]


@pytest.mark.parametrize("by", ["magnitude", "moments"])
def test_blocks_of_recurrent_weights_end_with_each_gate(by: str) -> None:
    """Of twelve units: blocks of eight rows and of four in each gate, each with six of twelve columns."""
    graph = in_context(memory("lstm", "bidirectional", 12), calibration=Calibration(sequences(8)))
    found = Sparsify(0.5, "auto", by, lanes=8)(graph)
    for name in ("w", "r"):
        gates = (found.weights[name] != 0).reshape(2, 4, 12, 12)
        for block in (gates[:, :, :8], gates[:, :, 8:]):
            assert np.array_equal(block.any(2), block.all(2))
            assert set(block.any(2).sum(-1).ravel()) == {6}


def test_the_solution_of_a_recurrent_layer_is_that_of_its_states() -> None:
    """By hand: states from a run step by step; what stays solves the normal equations on its columns."""
    graph = in_context(memory("lstm", "reverse"), calibration=Calibration(sequences(8)))
    found = Sparsify(0.5, "irregular", "moments", ridge=0.0)(graph).weights["r"][0].astype(np.float64)
    y = np.stack([evaluate(graph, {"x": x})[0] for x in sequences(8)])  # [batches, steps, 1, samples, units]
    before = y[:, 1:, 0].reshape(-1, 16).astype(np.float64)
    second = before.T @ before / len(before)
    for row, whole in zip(found[:5], graph.weights["r"][0], strict=False):
        kept = np.flatnonzero(row)
        want = np.linalg.solve(second[np.ix_(kept, kept)], (second @ whole)[kept])
        np.testing.assert_allclose(row[kept], want, rtol=1e-3, atol=1e-4)


def test_what_is_protected_stays() -> None:
    graph = small()
    first = next(n for n in graph.nodes if n.op == "conv")
    found = Sparsify(0.5, protect=(first.name,))(graph)
    name = first.inputs[1] or ""
    assert found.weights[name] is graph.weights[name]


def test_refusals() -> None:
    for wrong, message in (
        ({"sparsity": 1.0}, "below 1"), ({"sparsity": -0.1}, "below 1"), ({"block": "3"}, "not a pattern"),
        ({"by": "taste"}, "shares or moments"), ({"across": True}, "block=darb"),
        ({"across": True, "by": "moments", "block": "2:4"}, "one share"), ({"of": "taste"}, "layers or outputs"),
        ({"of": "outputs"}, "by=moments"), ({"count": "bytes"}, "weights or macs"),
        ({"count": "macs", "by": "moments"}, "across=true"),
        ({"count": "macs", "across": True, "block": "darb"}, "by="),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            Sparsify(**wrong)  # type: ignore[arg-type]
    graph = small()
    name = next(n.inputs[1] or "" for n in graph.nodes if n.op == "conv")
    broken = graph.weights[name].copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        Sparsify(0.5)(graph.rewrite(weights={**graph.weights, name: broken}))
    with pytest.raises(InputError, match="calibration"):
        Sparsify(0.5, by="moments")(graph)
    net = Net(1, 4, 4, 4)
    with pytest.raises(InputError, match="wide enough"):
        Sparsify(0.5)(net.graph(net.relu("x")))
