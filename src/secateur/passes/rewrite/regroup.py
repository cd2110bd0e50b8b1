"""``regroup``: find the groups that a dense layer's channels form, and make it a grouped one.

Spectral clustering of the bipartite graph of inputs and outputs whose edges are |W| (Filan et al., 2020, Algorithm 1),
then an exact balanced assignment. The permutations go into the neighbours' weights where ``fold_shuffle`` can put them.

Before::

    %y = conv(%x, @c.weight) groups=1 .. : f32[1, 8, 4, 4]                          @c.weight f32[8, 8, 1, 1]

After ``regroup{groups=2}``, where nothing around could absorb the permutations::

    %y.sorted = gather(%x, @y.sorted.index) axis=1 : f32[1, 8, 4, 4]
    %y.grouped = conv(%y.sorted, @c.weight) groups=2 .. : f32[1, 8, 4, 4]
    %y = gather(%y.grouped, @y.index) axis=1 : f32[1, 8, 4, 4]
    weights @c.weight f32[8, 4, 1, 1]
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Source

from .factor import check_groups
from .fold_shuffle import absorb, permutation
from .layers import Edit, Names, blank, chosen, narrow, obstacle, rewrite_layers

ROUNDS = 20  # alternations of the assignment; it stops when nothing improves, after three or four


@dataclass(frozen=True)
class Regroup:
    """Dense convolutions as grouped ones, in the groups that spectral clustering finds (Filan et al. 2020).

    The share of |W| within the groups is reported with the error; shuffled weights keep about 1/groups. Whatever
    lies between groups is lost: exact for a weight that is block-diagonal in some order. Below ``share`` of |W| a
    layer is left alone. Costs 1/groups of the layer.
    """

    name: ClassVar[str] = "regroup"
    reorders: ClassVar[bool] = True
    groups: int = 2
    share: float = 0.0
    seed: int = 0
    layers: tuple[str, ...] = ("*",)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer, or groups that divide no layer's channels."""
        if self.groups < 2:
            raise InputError(f"regroup{{groups={self.groups}}}: give 2 groups or more")
        names = Names(graph)
        moved: list[str] = []

        def edit(node: Node) -> Edit | str:
            why = obstacle(graph, node) or bias_obstacle(graph, node)
            if why:
                return why
            weight = graph.weights[str(node.inputs[1])]
            if node.attrs["groups"] > 1:
                return "it is grouped already"
            check_groups(self.groups, ("inputs", weight.shape[1]), ("outputs", weight.shape[0]))
            found = balanced_groups(strength(weight), self.groups, self.seed)
            if found.share < self.share:
                return f"its groups hold {found.share:.1%} of |W|, less than {self.share:.4g}"
            return self._edit(graph, node, found, names, moved)

        after = rewrite_layers(graph, self, chosen(graph, self, self.layers, ("conv",)), edit, always=False)
        for name in moved:
            node = after.producer.get(name)
            order = None if node is None else permutation(after, node)
            if node is not None and order is not None:
                done = absorb(after, node, order)
                after = after if isinstance(done, str) else done
        return after

    def _edit(self, graph: Graph, node: Node, found: Blocks, names: Names, moved: list[str]) -> Edit:
        old = str(node.inputs[1])
        weight, bias = graph.weights[old], node.inputs[2] if len(node.inputs) > 2 else None
        ins, outs = (np.argsort(label, kind="stable") for label in (found.inputs, found.outputs))
        cut, error = block_diagonal(weight, ins, outs, self.groups)
        first, middle = names.free(f"{node.name}.sorted"), names.free(f"{node.name}.grouped")
        indices = names.free(f"{first}.index"), names.free(f"{node.name}.index")
        weights = {old: narrow(cut, weight), indices[0]: ins, indices[1]: np.argsort(outs)}
        reads: tuple[str, ...] = (first, old)
        if bias is not None:
            weights[bias] = graph.weights[bias][outs]
            reads = (first, old, bias)
        moved += [first, node.name]
        measure = f"weights, relative Frobenius norm; {found.share:.1%} of |W| within groups"
        nodes = (
            Node("gather", (node.inputs[0], indices[0]), blank(first), {"axis": 1}, Source(f"{node.label}.sorted")),
            Node("conv", reads, blank(middle), {**node.attrs, "groups": self.groups}, node.source),
            Node("gather", (middle, indices[1]), node.outputs, {"axis": 1}, Source(f"{node.label}.order")),
        )
        return Edit(nodes, weights, error, measure)


def bias_obstacle(graph: Graph, node: Node) -> str | None:
    """Why a layer's bias cannot be put in another order, or None."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or (bias in graph.weights and len(graph.users[bias]) == 1):
        return None
    return "its bias is shared or computed by the network"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The group of each input and output, equally many in each, and the share of the edges within groups."""

    inputs: Array
    outputs: Array
    share: float


def strength(weight: Array) -> Array:
    """|W| summed over the window: f64[O, I]."""
    total: Array = np.abs(weight.astype(np.float64)).reshape(*weight.shape[:2], -1).sum(2)
    return total


def balanced_groups(edges: Array, groups: int, seed: int = 0) -> Blocks:
    """Groups of inputs and outputs with as much of ``edges`` f64[O, I] within them as alternation finds.

    Starts from the spectral clusters; then inputs are assigned to the outputs' groups and outputs to the inputs', each
    time the best balanced assignment, until the share no longer grows.
    """
    ins = edges.shape[1]
    inputs = _assign(edges.T @ _member(_spectral(edges, groups, seed)[ins:], groups))
    best = Blocks(inputs, _assign(edges @ _member(inputs, groups)), 0.0)
    for _ in range(ROUNDS):
        outputs = _assign(edges @ _member(best.inputs, groups))
        inputs = _assign(edges.T @ _member(outputs, groups))
        share = float(edges[outputs[:, None] == inputs[None]].sum() / max(edges.sum(), 1e-300))
        if share <= best.share:
            break
        best = Blocks(inputs, outputs, share)
    return best


def _spectral(edges: Array, groups: int, seed: int) -> Array:
    """A cluster for each input, then for each output."""
    from sklearn.cluster import SpectralClustering

    outs, ins = edges.shape
    if not edges.any():
        return np.arange(ins + outs) % groups
    whole = np.zeros((ins + outs, ins + outs))
    whole[ins:, :ins], whole[:ins, ins:] = edges, edges.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "graph is not fully connected": blocks are what is looked for
        model = SpectralClustering(groups, affinity="precomputed", random_state=seed, n_init=4)
        labels: Array = model.fit_predict(whole + 1e-9 * edges.mean())
    return labels


def _member(labels: Array, groups: int) -> Array:
    member: Array = np.eye(groups)[labels]
    return member


def _assign(gain: Array) -> Array:
    """The group of each row, equally many in each, for the largest sum of gain[row, group]."""
    from scipy.optimize import linear_sum_assignment

    count, groups = gain.shape
    seats = np.repeat(np.arange(groups), count // groups)
    rows, columns = linear_sum_assignment(gain[:, seats], maximize=True)
    labels = np.empty(count, np.int64)
    labels[rows] = seats[columns]
    return labels


def block_diagonal(weight: Array, ins: Array, outs: Array, groups: int) -> tuple[Array, float]:
    """The blocks [O, I/g, *k] of the weight in this order of channels, and the Frobenius share of what is left out."""
    w = weight[outs][:, ins].astype(np.float64)
    rows, columns = w.shape[0] // groups, w.shape[1] // groups
    cut = np.concatenate([w[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)])
    total = float((w**2).sum())
    return cut, float(np.sqrt(max(0.0, total - float((cut**2).sum())) / total)) if total else 0.0
