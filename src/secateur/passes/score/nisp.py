"""NISP: Yu et al., "NISP: Pruning Networks using Neuron Importance Score Propagation", CVPR 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes.notes import Coupling, Importance
from secateur.passes.sweep.needs import Need, Pooled, ReadSite
from secateur.passes.sweep.read_sites import units_at

from .nisp_rules import back
from .positions import mean_by_unit, over_mean
from .slots import coupling_of, statistics_of

LARGEST = 1e100  # scores beyond it are scaled down, all of them: only ratios matter


@dataclass(frozen=True)
class NISP:
    """Importance of the final responses, handed back through absolute weights to every layer (NISP, Yu et al. 2018).

    The channels that the classifier reads are ranked by Inf-FS (Roffo et al. 2015: all paths in a graph of how much
    features vary and how little they resemble each other); one pass in reverse order gives the others theirs, summed
    over the picture, every tap counted at the border too. A channel that several layers produce gets the mean over
    them. Layers are not comparable, so each is divided by its mean.
    """

    name: ClassVar[str] = "nisp"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no path leads from it to an output"
    alpha: float = 0.5

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return tuple(map(Pooled, response_sites(graph, coupling_of(graph, self.name))))

    def __call__(self, graph: Graph) -> Graph:
        coupling = coupling_of(graph, self.name)
        start: dict[str, Array] = {}
        for site in response_sites(graph, coupling):
            features = statistics_of(graph, self.name).of(Pooled(site), np.ndarray)
            start[graph.producer[site.node].inputs[site.input] or ""] = inf_fs(features, self.alpha)
        reached = propagate(graph, coupling, start)
        outs = {s.node for s in coupling.slots if s.role == "out"}
        parts = [(coupling.channels[n].units, s) for n, s in reached.items() if n in outs]
        return graph.with_note(Importance(over_mean(coupling, mean_by_unit(coupling.size, parts)), self.name))


def response_sites(graph: Graph, coupling: Coupling) -> tuple[ReadSite, ...]:
    """What the last layers before the outputs read: the final response layer."""
    found = []
    seen: set[str] = set()
    work = list(graph.outputs)
    while work:
        name = work.pop()
        node = graph.producer.get(name)
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        inputs = [i for i, n in enumerate(node.inputs) if n is not None and n not in graph.weights]
        if node.op in ("linear", "conv", "matmul", "conv_transpose") or not inputs:
            tracked = [i for i in inputs if node.inputs[i] in coupling.channels]
            sites = (ReadSite(node.name, i) for i in tracked)
            found += [site for site in sites if units_at(graph, coupling, site)[1].size]
        else:
            work += [node.inputs[i] or "" for i in inputs]
    return tuple(sorted(found, key=lambda t: (t.node, t.input)))


def propagate(graph: Graph, coupling: Coupling, start: dict[str, Array]) -> dict[str, Array]:
    """f64[positions] for every value with channels: its importance summed over the picture.

    ``start``: what the final responses are worth; a value that several nodes read sums over them.
    """
    scores = {name: values.astype(np.float64) for name, values in start.items()}
    settled = set(start)
    for node in reversed(graph.nodes):
        if not any(v.name in scores for v in node.outputs):
            continue
        for name, values in back(graph, coupling, node, scores):
            if name in settled or name not in coupling.channels:
                continue
            scores[name] = scores[name] + values if name in scores else values
        top = max((float(s.max(initial=0.0)) for s in scores.values()), default=0.0)
        if top > LARGEST:
            scores = {name: values / top for name, values in scores.items()}
    return scores


def inf_fs(features: Array, alpha: float = 0.5) -> Array:
    """f64[d]: Inf-FS scores of the columns of ``features`` [examples, d]; all equal where there is nothing to compare.

    The graph joins features by alpha * max(deviation) + (1 - alpha) * (1 - abs(rank correlation)); the score sums all
    paths, weighed by r^length with r = 0.9 / spectral radius: rows of (I - r A)^-1 - I.
    """
    from scipy.stats import rankdata

    examples, d = features.shape
    if examples < 2 or d < 2:
        return np.ones(d)
    deviation = features.std(0, dtype=np.float64)
    scaled = deviation / (float(deviation.max()) or 1.0)
    ranks = rankdata(features, axis=0)  # equal values share their mean rank: zeros of a ReLU say nothing
    ranks -= ranks.mean(0)
    norms = np.sqrt((ranks**2).sum(0))
    unit = ranks / np.where(norms > 0, norms, 1.0)
    resemblance = np.abs(unit.T @ unit)
    edges = alpha * np.maximum(scaled[:, None], scaled[None, :]) + (1 - alpha) * (1 - np.minimum(resemblance, 1.0))
    radius = float(np.abs(np.linalg.eigvalsh(edges)).max()) or 1.0
    total = np.linalg.solve(np.eye(d) - 0.9 / radius * edges, np.ones(d)) - 1.0
    return np.asarray(np.maximum(total, 0.0))
