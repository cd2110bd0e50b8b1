"""Rewrites: exact where they say so, the best of their kind elsewhere, and everything can go on from there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secateur
from secateur.ir import Graph, InputError, verify
from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.exporters.torch.module import evaluate, to_module
from secateur.ir.frontends.onnx.load import load
from secateur.ir.numeric import random_inputs, relative_error
from secateur.passes import PASSES, REWRITES, Pipeline, parse_spec
from secateur.passes.coupling.couple import couple
from secateur.passes.law import check
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.layers import Rewritten, Row
from secateur.passes.rewrite.slim import slim
from support.network import Net, random_keep

EXACT = 2e-5  # float32, sums in another order


def _residual(net: Net, x: str) -> str:
    c = net.shape(x)[1]
    return net.relu(str(net.node("add", net.bn(net.conv(net.relu(net.bn(net.conv(x, 12))), c)), x)))


def _stride(net: Net, x: str) -> str:
    return net.relu(net.conv(x, 8, stride=2))


def _depthwise(net: Net, x: str) -> str:
    c = net.shape(x)[1]
    return net.relu(net.bn(net.conv(net.relu(net.bn(net.conv(x, c, groups=c))), 16, 1, bias=False)))


def _shuffle(net: Net, x: str) -> str:
    return net.relu(net.bn(net.shuffle(net.conv(net.shuffle(net.conv(x, 16, 1, groups=4), 4), 16, groups=2), 2)))


def _half_and_half(net: Net, x: str) -> str:
    c = net.shape(x)[1]
    a, b = net.node("split", x, outs=2, axis=1, sizes=(c // 2, c // 2))
    return net.shuffle(str(net.node("concat", a, net.relu(net.bn(net.conv(b, c // 2))), axis=1)), 2)


def _dead(net: Net, x: str) -> str:
    """A batch norm that has switched channels off, before a layer without padding and one with."""
    y = net.bn(net.conv(x, 12))
    scale = net.nodes[-1].inputs[1] or ""
    net.weights[scale][::3] = 0
    return net.conv(net.conv(net.relu(y), 8, 1), 8)


def _gates(net: Net, x: str) -> str:
    return net.squeeze_excite(x)


BLOCKS = (_residual, _stride, _depthwise, _shuffle, _half_and_half, _dead, _gates)
NETS = st.tuples(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3), st.integers(0, 99))


def network(drawn: tuple[list[Callable[[Net, str], str]], int]) -> Graph:
    """A network of these blocks after a first convolution, with a classifier."""
    blocks, seed = drawn
    net = Net(2, 3, 9, 9, seed=seed)
    x = net.relu(net.bn(net.conv("x", 8)))
    for block in blocks:
        x = block(net, x)
    pooled = net.node("reduce_mean", x, axes=(2, 3), keepdims=True)
    return net.graph(net.head(str(pooled)))


def run(graph: Graph, spec: str) -> Graph:
    return Pipeline(parse_spec(spec, PASSES))(graph)


def difference(one: Graph, two: Graph) -> float:
    feed = random_inputs(one, 3)
    return max(relative_error(a, b) for a, b in zip(evaluate(one, feed), evaluate(two, feed), strict=True))


def rows(graph: Graph) -> tuple[Row, ...]:
    note = graph.note(Rewritten)
    return () if note is None else note.rows


@given(
    NETS,
    st.sampled_from(["fold_bn", "fold_constants", "fold_shuffle", "canonicalize", "low_rank{ratio=100%,always=true}"]),
)
@settings(max_examples=60)
def test_what_says_exact_is_the_identity(drawn: tuple[list[Callable[[Net, str], str]], int], spec: str) -> None:
    graph = network(drawn)
    assert difference(graph, run(graph, spec)) < EXACT


def test_a_shuffle_that_is_an_output_goes_into_the_layer_before_it() -> None:
    """The output keeps its name, and what else reads the shuffled channels reads the same."""
    net = Net(2, 4, 6, 6)
    shuffled = net.shuffle(net.conv("x", 8), 2)
    graph = net.graph(shuffled, net.relu(shuffled))
    after = run(graph, "fold_shuffle")
    assert after.outputs == graph.outputs
    assert [n.op for n in after.nodes] == ["conv", "identity", "relu"]
    assert difference(graph, after) < EXACT


@given(NETS, st.integers(1, 8))
@settings(max_examples=25)
def test_squeeze_excite_changes_no_bit(drawn: tuple[list[Callable[[Net, str], str]], int], reduction: int) -> None:
    graph = network(drawn)
    gated = run(graph, f"squeeze_excite{{reduction={reduction},limit=10.0}}")
    feed = random_inputs(graph, 1)
    assert any(r.reason is None for r in rows(gated))
    for before, after in zip(evaluate(graph, feed), evaluate(gated, feed), strict=True):
        assert np.array_equal(before, after)


@given(st.integers(1, 6), st.integers(1, 14), st.sampled_from([1, 2]), st.booleans(), st.integers(0, 99))
@settings(max_examples=25)
def test_separable_at_full_rank_is_exact(ins: int, outs: int, stride: int, bias: bool, seed: int) -> None:
    net = Net(1, ins, 7, 7, seed=seed)
    graph = net.graph(net.conv("x", outs, stride=stride, bias=bias))
    after = run(graph, f"separable{{rank={min(outs, 9)},always=true}}")
    assert difference(graph, after) < EXACT
    assert [n.attrs["groups"] for n in after.nodes] == [ins, 1]


@given(st.sampled_from([2, 3, 4]), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=25)
def test_grouped_is_exact_for_a_block_diagonal_weight(groups: int, ins: int, outs: int, seed: int) -> None:
    net = Net(1, groups * ins, 7, 7, seed=seed)
    graph = net.graph(net.conv("x", groups * outs))
    (weight, *_) = [n for n in graph.weights if n.endswith("weight")]
    block = np.kron(np.eye(groups), np.ones((outs, ins)))[:, :, None, None]
    graph = graph.rewrite(weights={**graph.weights, weight: (graph.weights[weight] * block).astype(np.float32)})
    after = run(graph, f"grouped{{groups={groups},always=true}}")
    assert difference(graph, after) < EXACT
    assert rows(after)[0].error == pytest.approx(0, abs=1e-6)
    assert after.nodes[0].attrs["groups"] == groups


@given(st.sampled_from([2, 4]), st.integers(0, 99))
@settings(max_examples=15)
def test_regroup_finds_hidden_blocks(groups: int, seed: int) -> None:
    """A weight that is block-diagonal in a drawn order comes back exactly, with permutations where they must be."""
    net = Net(1, 8, 7, 7, seed=seed)
    y = net.conv(net.relu(net.conv("x", 16, 1)), 16)
    graph = net.graph(str(net.node("relu", y)))
    weight = str(graph.nodes[2].inputs[1])
    rng = np.random.default_rng(seed)
    block = np.kron(np.eye(groups), np.ones((16 // groups, 16 // groups)))[rng.permutation(16)][:, rng.permutation(16)]
    graph = graph.rewrite(
        weights={**graph.weights, weight: graph.weights[weight] * block[:, :, None, None].astype("f4")}
    )
    after = run(graph, f"regroup{{groups={groups},layers=[{graph.nodes[2].label}]}}")
    assert difference(graph, after) < EXACT
    assert "100.0% of |W|" in rows(after)[0].measure
    gathers = [n for n in after.nodes if n.op == "gather"]
    assert len(gathers) <= 1  # the first layer's rows took the other one


@pytest.mark.parametrize("spec", ["low_rank{rank=3}", "separable{rank=2}", "grouped{groups=4}"])
def test_the_error_is_that_of_the_weight_and_best_of_its_kind(spec: str) -> None:
    """The two layers' product, by NumPy, differs from the weight by the reported error; more rank, less error."""
    net = Net(1, 8, 9, 9)
    graph = net.graph(net.conv("x", 12))
    after = run(graph, spec)
    first, second = (after.weights[str(n.inputs[1])].astype(np.float64) for n in after.nodes)
    groups, old = after.nodes[0].attrs["groups"], graph.weights[str(graph.nodes[0].inputs[1])]
    joined = np.zeros(old.shape)
    middle, ins = first.shape[0] // groups, 8 // groups
    for g in range(groups):
        part = slice(g * middle, (g + 1) * middle)
        joined[:, g * ins : (g + 1) * ins] = np.einsum("om,mikl->oikl", second[:, part, 0, 0], first[part])
    assert rows(after)[0].error == pytest.approx(np.linalg.norm(joined - old) / np.linalg.norm(old), rel=1e-4)
    assert 0 < (rows(after)[0].error or 0) < 1


def test_shuffled_reports_the_error_of_its_weight() -> None:
    """The unit's kernel is read off its answers to impulses."""
    net = Net(1, 4, 7, 7)
    graph = net.graph(net.conv("x", 8, bias=False))
    after = run(graph, "shuffled{width=200%,always=true}")
    old = graph.weights[str(graph.nodes[0].inputs[1])]
    kernel = np.zeros(old.shape)
    for channel in range(4):
        x = np.zeros((1, 4, 7, 7), np.float32)
        x[0, channel, 3, 3] = 1
        kernel[:, channel] = evaluate(after, {"x": x})[0][0, :, 2:5, 2:5][:, ::-1, ::-1]
    error = np.linalg.norm(kernel - old) / np.linalg.norm(old)
    assert rows(after)[0].error == pytest.approx(error, rel=1e-4)
    assert error < 0.6


def test_drop_layer_is_exact_for_a_branch_of_zeros_and_takes_that_first() -> None:
    graph = network(([_residual, _residual], 0))
    joins = [n for n in graph.nodes if n.op == "add"]
    norm = graph.producer[str(joins[1].inputs[0])]
    silent = {str(norm.inputs[1]): 0, str(norm.inputs[2]): 0}
    graph = graph.rewrite(weights={k: w * np.float32(silent.get(k, 1)) for k, w in graph.weights.items()})
    after = run(graph, "drop_layer{count=1}")
    assert difference(graph, after) == 0
    assert [n.op for n in after.nodes].count("add") == 1
    assert {r.error for r in rows(after)} == {0.0}
    assert [n.op for n in run(graph, "drop_layer{count=2}").nodes].count("add") == 0


EVERY = (
    "squeeze_excite{limit=1000%,reduction=4}", "low_rank{ratio=40%}", "separable", "separable{norm=true}",
    "grouped{groups=4}",
    "grouped{groups=2,norm=true}", "shuffled", "shuffled{norm=true,width=100%}", "regroup", "drop_layer", "fold_bn",
    "fold_constants", "fold_shuffle", "canonicalize", "separable,fold_bn,fold_shuffle", "grouped{groups=2},regroup",
)  # fmt: skip


def test_every_rewrite_is_among_those_tested() -> None:
    assert {s.name for spec in EVERY for s in parse_spec(spec, PASSES)} == set(REWRITES)


@pytest.mark.parametrize("spec", EVERY)
def test_what_comes_out_verifies_exports_both_ways_and_is_pruned_under_the_law(spec: str) -> None:
    net = Net(2, 3, 9, 9)
    x = net.relu(net.bn(net.conv("x", 8)))
    for block in (_residual, _shuffle, _half_and_half, _dead):
        x = block(net, x)
    graph = net.graph(net.head(str(net.node("reduce_mean", x, axes=(2, 3), keepdims=True))))
    names = ",".join(n.label for n in graph.nodes if n.op == "conv" and n.attrs["groups"] == 1 and n.out.shape[1] == 12)
    spec = spec.replace("regroup", f"regroup{{layers=[{names}]}}") if "regroup" in spec else spec
    after = verify(run(graph, spec), interface=graph)
    model = to_onnx(after)
    onnx.checker.check_model(model)
    again = load(model)
    feed = random_inputs(after, 0)
    expected = evaluate(after, feed)
    assert relative_error(expected[0], evaluate(again, feed)[0]) < EXACT
    module = to_module(after)
    assert all(p.requires_grad for p in module.parameters())
    names_of = {n for n, _ in module.named_parameters()}
    assert {w for w in graph.weights if w in after.weights and w.endswith(("weight", "bias"))} <= names_of
    plain = Canonicalize()(after)
    coupling = couple(plain)
    coupled = plain.with_note(coupling)
    small = slim(coupled, random_keep(coupling, np.random.default_rng(5)))
    recipe = small.note(Recipe)
    assert recipe is not None
    assert recipe.weights
    found = check(coupled, small, recipe, run=evaluate)
    assert found.passed, found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("separable{layers=[conv99]}", ["'conv99' matches no conv layer", "did you mean", "secateur inspect"]),
        ("separable{rank=20}", ["separable{rank=20} fits no layer", "rank 20", "give 1 to"]),
        ("separable{rank=0}", ["rank 0", "give 1 to"]),
        ("low_rank{rank=1000}", ["rank 1000", "full rank", "give 1 to"]),
        ("low_rank{ratio=1.5}", ["the ratio is a share"]),
        ("grouped{groups=5}", ["groups=5 does not divide", "near are"]),
        ("grouped{groups=1}", ["give 2 groups or more"]),
        ("grouped{groups=2,width=0.0}", ["width=0", "share of the outputs"]),
        ("grouped{groups=4,width=300.0,layers=[conv3]}", ["asks for", "give at most"]),
        (
            "grouped{groups=4,layers=[conv0]}",
            ["layer 'conv0' cannot be rewritten", "groups=4 does not divide its 3 inputs"],
        ),
        ("shuffled{groups=7}", ["groups=7 does not divide"]),
        ("shuffled{groups=4,width=0.334,layers=[conv3]}", ["cannot join each of 4 groups", "larger width"]),
        ("regroup{groups=3}", ["groups=3 does not divide", "near are"]),
        ("squeeze_excite{reduction=0}", ["reduction=0", "give 1 or more"]),
        ("squeeze_excite{layers=[conv0],limit=0.0}", ["layer 'conv0' cannot be gated", "does not pay"]),
        ("drop_layer{layers=[conv0]}", ["no shortcut leads around layer 'conv0'", "residual branch"]),
        ("drop_layer{count=9}", ["has 1 residual branches that could go"]),
        ("fold_bn{layers=[nothing*]}", ["'nothing*' matches no"]),
    ],
)
def test_mistakes_are_named(spec: str, words: list[str]) -> None:
    net = Net(2, 3, 9, 9)
    graph = net.graph(net.head(_residual(net, net.relu(net.bn(net.conv("x", 8))))))
    with pytest.raises(InputError) as caught:
        run(graph, spec)
    for word in words:
        assert word in str(caught.value)


def test_what_does_not_pay_is_left_alone_and_says_so() -> None:
    graph = network(([_residual], 0))
    after = run(graph, "separable{rank=8}")
    reasons = {r.layer: r.reason for r in rows(after)}
    assert "does not pay: 1." in str(reasons["conv3"])
    kept = dataclasses.replace(after, notes={})
    assert str(kept) == str(graph)


def test_shared_weights_and_leaking_branches_stay() -> None:
    net = Net(2, 8, 9, 9)
    x = net.relu(net.conv("x", 8))
    first = net.nodes[0]
    y = str(net.node("conv", x, *first.inputs[1:], name="twice", **first.attrs))
    s = net.node("add", x, net.relu(y))
    graph = net.graph(str(s), str(y))
    assert {r.reason for r in rows(run(graph, "separable"))} == {
        "it shares its weight with twice", f"it shares its weight with {first.label}",
    }  # fmt: skip
    with pytest.raises(InputError, match="has 0 residual branches"):
        run(graph, "drop_layer")
    with pytest.raises(InputError, match="is read by 'twice' as well"):
        run(graph, "drop_layer{layers=[twice]}")


def test_top_level_names() -> None:
    assert secateur.Policy is not None
    assert set(REWRITES) == {
        "separable", "grouped", "shuffled", "squeeze_excite", "low_rank", "regroup", "drop_layer", "fold_bn",
        "fold_constants", "fold_shuffle", "canonicalize",
    }  # fmt: skip
