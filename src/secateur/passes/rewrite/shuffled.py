"""``shuffled``: a dense window as a ShuffleNet unit (Zhang et al., CVPR 2018): grouped 1x1, shuffle, depthwise,
grouped 1x1.

Before::

    %y = conv(%x, @c.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 32, 8, 8]          @c.weight f32[32, 16, 3, 3]

After ``shuffled{groups=2,width=50%}``::

    %y.squeeze = conv(%x, @c.squeeze.weight) groups=2 pad=[0,0,0,0] .. : f32[1, 16, 8, 8]
    %y.shuffle = gather(%y.squeeze, @y.shuffle.index) axis=1 : f32[1, 16, 8, 8]
    %y.depthwise = conv(%y.shuffle, @c.depthwise.weight) groups=16 pad=[1,1,1,1] .. : f32[1, 16, 8, 8]
    %y = conv(%y.depthwise, @c.expand.weight) groups=2 pad=[0,0,0,0] .. : f32[1, 32, 8, 8]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Source

from .factor import MEASURE, batch_norm_relu, check_groups, plain_1x1
from .layers import Edit, Misfit, Names, Solved, blank, chosen, narrow, no_window, rewrite_layers, stand_in


@dataclass(frozen=True)
class Shuffled:
    """Dense convolutions as grouped 1x1, shuffle, depthwise, grouped 1x1 (ShuffleNet, Zhang et al. 2018).

    ``width`` is the number of channels in the middle as a share of the outputs; the paper's is 25%. Of the weight
    only a sum of w/g^2 rank-one terms for each pair of groups remains, fitted by ``sweeps`` rounds of alternating
    least squares; the error is large on most trained layers, and reported. A layer that would cost more afterwards is
    left alone, unless ``always``. ``norm`` adds batch norm after the squeeze (with ReLU) and the depthwise, as the
    paper has them: for networks that will be trained.
    """

    name: ClassVar[str] = "shuffled"
    groups: int = 2
    width: float = 0.25
    norm: bool = False
    sweeps: int = 20
    layers: tuple[str, ...] = ("*",)
    always: bool = False

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer, or groups that divide no layer's channels."""
        if self.groups < 1 or self.width <= 0 or self.sweeps < 1:
            raise InputError(f"shuffled{{groups={self.groups},width={self.width:g},sweeps={self.sweeps}}}: all above 0")
        names = Names(graph)

        def edit(node: Node) -> Edit | str:
            why = no_window(graph, node, "there is no window for the depthwise step")
            if why:
                return why
            outs, ins = graph.weights[str(node.inputs[1])].shape[:2]
            middle = round(self.width * outs)
            what = f"channels in the middle (width {self.width:.4g})"
            check_groups(self.groups, ("inputs", ins), ("outputs", outs), (what, middle))
            if middle < self.groups**2:
                raise Misfit(f"{middle} {what} cannot join each of {self.groups} groups with each; give a larger width")
            return self._unit(graph, node, names, middle)

        return rewrite_layers(graph, self, chosen(graph, self, self.layers, ("conv",)), edit, always=self.always)

    def _unit(self, graph: Graph, node: Node, names: Names, middle: int) -> Edit:
        old = str(node.inputs[1])
        weight = graph.weights[old]
        outs, ins, *kernel = weight.shape
        axes = len(kernel)
        one, groups = (1,) * axes, self.groups
        shapes = {
            "squeeze": (middle, ins // groups, *one), "depthwise": (middle, 1, *kernel),
            "expand": (outs, middle // groups, *one),
        }  # fmt: skip
        own = {piece: names.weight(old, piece, "weight") for piece in shapes}
        weights = {own[piece]: stand_in(shape, weight) for piece, shape in shapes.items()}

        def solve() -> Solved:
            fit = fit_unit(weight, groups, middle, 1 if self.norm else self.sweeps)
            arrays = {"squeeze": fit.squeeze, "depthwise": fit.depthwise, "expand": fit.expand}
            found = {own[piece]: narrow(arrays[piece].reshape(shapes[piece]), weight) for piece in own}
            return found, None if self.norm else fit.error

        index = names.free(f"{node.name}.shuffle.index")
        weights[index] = shuffle_order(middle, self.groups)
        at = {piece: names.free(f"{node.name}.{piece}") for piece in ("squeeze", "shuffle", "depthwise")}

        def step(op: str, piece: str, x: str, w: str, **attrs: object) -> Node:
            return Node(op, (x, w), blank(at[piece]), attrs, Source(f"{node.label}.{piece}"))

        nodes = [step("conv", "squeeze", str(node.inputs[0]), own["squeeze"], **plain_1x1(axes, self.groups))]
        if self.norm:
            nodes += batch_norm_relu(names, nodes[-1], old, "squeeze", middle, weight, weights)
        nodes.append(step("gather", "shuffle", nodes[-1].name, index, axis=1))
        nodes.append(step("conv", "depthwise", nodes[-1].name, own["depthwise"], **{**node.attrs, "groups": middle}))
        if self.norm:
            nodes += batch_norm_relu(names, nodes[-1], old, "depthwise", middle, weight, weights, relu=False)
        rest = node.inputs[2:]
        if rest and rest[0] in graph.weights:
            bias = names.weight(old, "expand", "bias")
            weights[bias] = graph.weights[str(rest[0])]
            rest = (bias,)
        last = (nodes[-1].name, own["expand"], *rest)
        nodes.append(Node("conv", last, node.outputs, plain_1x1(axes, self.groups), node.source))
        return Edit(tuple(nodes), weights, None, "" if self.norm else MEASURE, solve)


def shuffle_order(width: int, groups: int) -> Array:
    """Where each channel after the shuffle comes from: channel j of group g goes to place j * groups + g."""
    order: Array = np.arange(width, dtype=np.int64).reshape(groups, -1).T.reshape(-1)
    return order


@dataclass(frozen=True, eq=False)
class Unit:
    """``squeeze`` [M, I/g], ``depthwise`` [M, k] after the shuffle, ``expand`` [O, M/g], and the relative error."""

    squeeze: Array
    depthwise: Array
    expand: Array
    error: float


def fit_unit(weight: Array, groups: int, middle: int, sweeps: int) -> Unit:
    """Each pair of groups (inputs a, outputs b) as a sum of rank-one terms, one for each channel that joins them."""
    outs, ins = weight.shape[:2]
    w = weight.astype(np.float64).reshape(groups, outs // groups, groups, ins // groups, -1)
    order = shuffle_order(middle, groups)
    squeeze, expand = np.zeros((middle, ins // groups)), np.zeros((outs, middle // groups))
    depthwise = np.zeros((middle, w.shape[-1]))
    size = middle // groups
    lost = 0.0
    for b in range(groups):
        places = np.arange(b * size, (b + 1) * size)  # after the shuffle
        for a in range(groups):
            mine = places[order[places] // size == a]
            part = w[b, :, a]
            p, q, d = rank_one_terms(part, len(mine), sweeps)
            expand[b * (outs // groups) : (b + 1) * (outs // groups), mine - b * size] = p
            squeeze[order[mine]], depthwise[mine] = q.T, d.T
            lost += float(((part - np.einsum("or,ir,kr->oik", p, q, d)) ** 2).sum())
    total = float((w**2).sum())
    return Unit(squeeze, depthwise, expand, float(np.sqrt(lost / total)) if total else 0.0)


def rank_one_terms(tensor: Array, rank: int, sweeps: int) -> tuple[Array, Array, Array]:
    """A[O, I, K] as a sum of ``rank`` outer products: factors [O, r], [I, r], [K, r], by alternating least squares.

    Starts from the singular vectors of A with inputs and window taken together, each one's best rank-one matrix.
    """
    outs, ins, taps = tensor.shape
    if rank == 0:
        return np.zeros((outs, 0)), np.zeros((ins, 0)), np.zeros((taps, 0))
    rng = np.random.default_rng(0)
    u, s, v = np.linalg.svd(tensor.reshape(outs, -1), full_matrices=False)
    left, _, right = np.linalg.svd(v[:rank].reshape(-1, ins, taps), full_matrices=False)
    p, q, d = u[:, :rank] * s[:rank], left[:, :, 0].T, right[:, 0].T
    if p.shape[1] < rank:  # more terms than singular vectors: the rest starts anywhere
        p, q, d = (np.concatenate([f, rng.standard_normal((len(f), rank - f.shape[1])) * 1e-2], 1) for f in (p, q, d))
    for _ in range(sweeps):
        for mode, (first, second) in enumerate((("q", "d"), ("p", "d"), ("p", "q"))):
            factors = {"p": p, "q": q, "d": d}
            x, y = factors[first], factors[second]
            gram = (x.T @ x) * (y.T @ y)
            gram += (1e-9 * np.trace(gram) / rank + 1e-12) * np.eye(rank)
            wanted = np.einsum(("oik,ir,kr->or", "oik,or,kr->ir", "oik,or,ir->kr")[mode], tensor, x, y, optimize=True)
            solved = np.linalg.solve(gram, wanted.T).T
            p, q, d = (solved if m == mode else f for m, f in enumerate((p, q, d)))
    norms = [np.linalg.norm(f, axis=0) for f in (p, q, d)]
    scale = np.cbrt(norms[0] * norms[1] * norms[2])
    p, q, d = (
        np.divide(f * scale, n, out=np.zeros_like(f), where=n > 0) for f, n in zip((p, q, d), norms, strict=True)
    )
    return p, q, d
