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
    assert found.compared == "function, after the network as in the reference: roundings decide it"


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


def test_layers_behind_a_choice_among_equals_are_compared_with_the_choice_of_the_reference() -> None:
    net = Net(1, 3, 8, 8)
    mean = net.node("reduce_mean", net.relu(net.conv(net.relu(net.conv("x", 16)), 16)), axes=(2, 3), keepdims=False)
    scores = net.linear(str(mean), 4)
    net.weights[f"{scores}.weight"][:] = net.weights[f"{scores}.weight"][0]  # all alike, as anchors far from anything
    net.weights[f"{scores}.bias"][:] = 0
    place = net.node("cast", str(net.node("argmax", scores, axis=1, keepdims=True)), to="f32")
    graph = net.graph(net.linear(net.relu(net.linear(str(place), 8)), 3))
    coupling = couple(graph)
    keep = np.ones(coupling.size, bool)
    keep[coupling.slots[0].units[:4]] = False
    small = slim(graph.with_note(coupling), keep)
    recipe = small.note(Recipe)
    assert recipe is not None

    def tilted(given: Graph) -> Graph:
        """The slim network as a runtime computes it that adds in another order: another of the equals is largest."""
        weights = dict(given.weights)
        if given.weights.get("conv0.weight", net.weights["conv0.weight"]).shape[0] != 16:
            weights[f"{scores}.bias"] = np.arange(4, dtype=np.float32) * 1e-6
        return given.rewrite(weights=weights)

    found = check(graph, small, recipe, run=lambda given, feed: evaluate(tilted(given), feed))
    assert found.passed, found.reason
    assert found.compared.startswith("function, after argmax '")

    last = next(n.inputs[1] for n in small.nodes if n.name == small.outputs[0])
    wrong = small.rewrite(weights={**small.weights, str(last): small.weights[str(last)] * 1.01})
    assert not check(graph, wrong, recipe, run=lambda given, feed: evaluate(tilted(given), feed)).passed
