"""``modularity``: does a network fall apart into modules? Normalised spectral clustering (Filan et al., 2020).

Vertices are channels: those that `couple` ties, a residual stream's for instance, are one vertex. The weight of an
edge is the sum of |W| over a window, with batch norm folded in first. Algorithm 1 of the paper finds k clusters; the
n-cut says how much of their weight leads out, and shuffled networks say how much it would by chance.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, PassError
from secateur.passes.coupling.couple import couple
from secateur.passes.notes import Coupling
from secateur.passes.rewrite.canonicalize import Canonicalize
from secateur.passes.rewrite.fold_bn import FoldBN

SHUFFLES = ("layer", "layer_nonzero")
TINY = 1e-8  # in the n-cut's denominator, as in the authors' code


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's edges: ``weights`` f64[O, I/g] between its vertices ``outputs`` [O] and ``inputs`` [O, I/g]."""

    name: str
    inputs: Array
    outputs: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class Clusters:
    """The note that ``modularity`` leaves.

    ``layers``: the network as vertices and edges; ``labels`` int[vertices], -1 for those that lie on no path from
    input to output; ``ncut`` of the clusters, in [0, k]; ``null``: the n-cut of each shuffled network; ``p``: the
    share of networks, this one included, that are at least as modular.
    """

    layers: tuple[Layer, ...]
    labels: Array
    ncut: float
    null: Array
    p: float

    def lines(self) -> list[str]:
        """For the text form."""
        sizes = np.bincount(self.labels[self.labels >= 0]).tolist()
        null = f", null {self.null.mean():.4f} sd {self.null.std():.4f}, p {self.p:.3f}" if len(self.null) else ""
        return [f"modularity: n-cut {self.ncut:.4f}{null}, clusters of {sizes}"]


@dataclass(frozen=True)
class Modularity:
    """Add the note ``Clusters``: k clusters of channels, their n-cut, and how it compares with ``shuffles`` networks.

    ``null`` "layer" permutes all of a layer's edges, "layer_nonzero" those that are not zero among their places, so
    that a pruned network keeps its topology. Nothing is changed. Low n-cut means that few weights lead from one
    cluster to another; it does not show that the clusters do different things.
    """

    name: ClassVar[str] = "modularity"
    k: int = 4
    shuffles: int = 0
    null: str = "layer_nonzero"
    seed: int = 0

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown null model or fewer than 2 clusters."""
        if self.null not in SHUFFLES:
            raise InputError(f"modularity{{null={self.null}}}: give one of {', '.join(SHUFFLES)}")
        if self.k < 2 or self.shuffles < 0:
            raise InputError(
                f"modularity{{k={self.k},shuffles={self.shuffles}}}: give 2 clusters or more, 0 shuffles or more"
            )
        layers = edges(graph)
        adjacency = joined(layers)
        labels, observed = clustered(adjacency, layers, self.k, self.seed)
        rng = np.random.default_rng(self.seed)
        null = np.array(
            [
                clustered(joined(shuffled), shuffled, self.k, self.seed)[1]
                for shuffled in (shuffle(layers, self.null, rng) for _ in range(self.shuffles))
            ]
        )
        p = (1 + int((null <= observed).sum())) / (1 + self.shuffles)
        return graph.with_note(Clusters(tuple(layers), labels, observed, null, p))


def edges(graph: Graph) -> list[Layer]:
    """Every convolution and linear layer as edges between channels. Raises PassError where there are none."""
    folded = Canonicalize()(FoldBN()(graph))
    coupling = couple(folded)
    vertices = _Vertices(coupling)
    layers = []
    for node in folded.nodes:
        if node.op not in ("conv", "linear") or node.inputs[1] not in folded.weights:
            continue
        weight = folded.weights[str(node.inputs[1])].astype(np.float64)
        matrix = np.abs(weight.T if node.attrs.get("transposed") else weight)
        matrix = matrix.reshape(*matrix.shape[:2], -1).sum(2)
        groups = int(node.attrs.get("groups", 1))
        if groups == matrix.shape[0] and matrix.shape[1] == 1:
            continue  # depthwise: both ends are one vertex
        inputs = vertices.of(folded, node, str(node.inputs[0]), matrix.shape[1] * groups)
        columns = np.repeat(inputs.reshape(groups, -1), matrix.shape[0] // groups, axis=0)
        layers.append(Layer(node.label, columns, vertices.of(folded, node, node.name, matrix.shape[0]), matrix))
    if not layers:
        raise PassError(f"modularity: '{graph.name}' has no layer with weights")
    return layers


class _Vertices:
    """A number for every channel: its unit's, or one of its own where coupling knows none."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling, self.size = coupling, coupling.size
        self.own: dict[str, Array] = {}

    def of(self, graph: Graph, node: Node, value: str, width: int) -> Array:
        track = self.coupling.channels.get(value)
        axis = 1 if node.op == "conv" else len(graph.value(value).shape) - 1
        if track is not None and track.axis == axis and len(track.units) == width and (track.units >= 0).all():
            return track.units
        if value not in self.own:
            self.own[value] = np.arange(self.size, self.size + width)
            self.size += width
        return self.own[value]


def joined(layers: Sequence[Layer]) -> Any:
    """The symmetric sparse adjacency matrix of all layers."""
    from scipy.sparse import coo_matrix

    size = 1 + max(int(max(layer.inputs.max(), layer.outputs.max())) for layer in layers)
    rows = np.concatenate([np.repeat(layer.outputs, layer.inputs.shape[1]) for layer in layers])
    columns = np.concatenate([layer.inputs.ravel() for layer in layers])
    half = coo_matrix(
        (np.concatenate([layer.weights.ravel() for layer in layers]), (rows, columns)), (size, size)
    ).tocsr()
    half.setdiag(0)
    half.eliminate_zeros()
    return half + half.T


def shuffle(layers: Sequence[Layer], null: str, rng: np.random.Generator) -> list[Layer]:
    """The same network with each layer's edges in another order."""
    found = []
    for layer in layers:
        weights = layer.weights.copy()
        places = np.ones(weights.shape, bool) if null == "layer" else weights != 0
        weights[places] = rng.permutation(weights[places])
        found.append(Layer(layer.name, layer.inputs, layer.outputs, weights))
    return found


def clustered(adjacency: Any, layers: Sequence[Layer], k: int, seed: int) -> tuple[Array, float]:
    """Labels int[vertices], -1 for vertices on no path from the first layer to the last, and the n-cut."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.cluster import SpectralClustering

    _, part = connected_components(adjacency, directed=False)
    through = np.intersect1d(part[layers[0].inputs], part[layers[-1].outputs])
    kept = np.flatnonzero(np.isin(part, through) & (np.asarray(adjacency.sum(1)).ravel() > 0))
    if len(kept) <= k:
        raise PassError(f"modularity: only {len(kept)} channels lie between input and output, too few for {k} clusters")
    inside = adjacency[kept][:, kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "graph is not fully connected": then its parts are the clusters
        model = SpectralClustering(k, affinity="precomputed", random_state=seed, n_init=10)
        found = model.fit_predict(inside)
    labels = np.full(adjacency.shape[0], -1)
    labels[kept] = found
    return labels, ncut(inside, found)


def ncut(adjacency: Any, labels: Array) -> float:
    """The sum over clusters of the weight that leaves one over the weight at its vertices, in [0, k]."""
    degrees = np.asarray(adjacency.sum(1)).ravel()
    total = 0.0
    for label in np.unique(labels):
        inside = labels == label
        within = float(adjacency[inside][:, inside].sum())
        volume = float(degrees[inside].sum())
        total += (volume - within) / (volume + TINY)
    return total
