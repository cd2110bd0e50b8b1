"""A runtime that picks another one of equal scores breaks no law where each node is right; a wrong node still does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.coupling.couple import couple
from secateur.passes.law import check
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.slim import slim
from secateur.run import evaluate
from support.network import Net


def pruned() -> tuple[Graph, Graph, Recipe]:
    """A network that ends in the place of its largest score, and the same one narrower."""
    net = Net(1, 3, 8, 8)
    flat = net.node("reshape", net.conv(net.relu(net.conv("x", 16)), 1, 1), shape=(1, 64))
    graph = net.graph(str(net.node("cast", str(net.node("argmax", str(flat), axis=1, keepdims=True)), to="f32")))
    coupling = couple(graph)
    keep = np.ones(coupling.size, bool)
    keep[np.flatnonzero(~coupling.frozen)[:4]] = False
    small = slim(graph.with_note(coupling), keep)
    recipe = small.note(Recipe)
    assert recipe is not None
    return graph, small, recipe


def test_what_a_runtime_picks_when_only_outputs_are_asked_for() -> None:
    graph, small, recipe = pruned()

    def run(given: Graph, feed: Mapping[str, Array]) -> Sequence[Array]:
        found = evaluate(given, feed)
        other = given.nodes == small.nodes and given.outputs[0] == small.outputs[0]
        return [a + np.float32(9) if other and a.shape == (1, 1) else a for a in found]

    found = check(graph, small, recipe, run=run)
    assert found.passed
    assert found.max_rel_err < 1e-5
    assert found.compared == "each node by itself, as roundings decide what the network gives"


def test_a_node_that_is_wrong_by_itself() -> None:
    graph, small, recipe = pruned()

    def run(given: Graph, feed: Mapping[str, Array]) -> Sequence[Array]:
        found = evaluate(given, feed)
        wrong = any(n.op == "cast" for n in given.nodes) and given.weights.keys() <= small.weights.keys()
        wrong = wrong and not any(w.shape[0] == 16 for w in given.weights.values())  # never the reference
        return [a + np.float32(9) if wrong and a.shape == (1, 1) and a.dtype.kind == "f" else a for a in found]

    assert not check(graph, small, recipe, run=run).passed


def test_a_layer_that_is_wrong_where_the_outputs_hide_it() -> None:
    graph, small, recipe = pruned()
    layer = next(n.name for n in small.nodes if n.op == "conv")

    def run(given: Graph, feed: Mapping[str, Array]) -> Sequence[Array]:
        found = evaluate(given, feed)
        other = given.nodes == small.nodes
        return [a * 2 if other and name == layer else a for name, a in zip(given.outputs, found, strict=True)]

    assert not check(graph, small, recipe, run=run).passed
