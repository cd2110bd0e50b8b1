"""A small coupled network, its data, and all that a sweep can gather of it, for tests of sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.coupling.couple import Couple
from secateur.passes.notes import Coupling
from secateur.passes.sweep import Examples, Gates, InputMoments, Pooled, Reach, Statistics, WeightGradients, consumers
from secateur.passes.sweep.read_sites import read_sites
from support.network import Net


def network(batch: int = 4) -> Graph:
    """A stem, a residual block with a grouped convolution, a flattened classifier."""
    net = Net(batch, 3, 6, 6, seed=3)
    stem = net.relu(net.bn(net.conv("x", 8)))
    body = net.conv(net.relu(net.conv(stem, 12, groups=2, stride=2)), 8)
    skip = net.conv(stem, 8, 1, stride=2)
    joined = net.relu(net.node("add", body, skip))
    return Couple()(net.graph(net.head(net.conv(joined, 6, 1))))


def data(examples: int, batch: int = 4) -> list[Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((examples, 3, 6, 6)).astype(np.float32)
    return [x[i : i + batch] for i in range(0, examples, batch)]


def coupling_of(graph: Graph) -> Coupling:
    found = graph.note(Coupling)
    assert found is not None
    return found


def found(graph: Graph) -> Statistics:
    note = graph.note(Statistics)
    assert note is not None
    return note


def all_needs(graph: Graph) -> list[Any]:
    places = read_sites(graph, coupling_of(graph))
    weights = [n.inputs[1] for n in graph.nodes if n.op in ("conv", "linear")]
    reads = consumers(graph, coupling_of(graph))
    of_taps = [*map(Examples, places), *map(Pooled, places), *map(InputMoments, reads)]
    reach = [Reach(site.node) for site in reads]
    return [*of_taps, Gates(), *map(WeightGradients, weights), *reach]
