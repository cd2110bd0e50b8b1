"""One layer as two: a narrower or grouped window, then a 1x1 that mixes what it gives.

The closed form of ``low_rank``, ``grouped`` and ``separable``. A weight W[O, I, *k] is cut by groups of inputs into
matrices W_g[O, I/g * k]; the best rank-r product P_g G_g of each is its truncated SVD (Eckart-Young), and since the
groups share no input, together they are the best factors of this form::

    W[:, group] ~ P[:, r of the group] G[r of the group]        G: conv in g groups, g*r channels; P: 1x1 [O, g*r]

One group is a low-rank layer (Zhang et al., TPAMI 2016), as many groups as inputs is the network decoupling of Guo et
al. (BMVC 2018, section 3), which is exact at rank min(O, k); what lies between is ResNeXt's pair of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph, Node, Source

from .layers import Edit, Misfit, Names, Solved, blank, narrow, stand_in

MEASURE = "weights, relative Frobenius norm"


@dataclass(frozen=True, eq=False)
class Factors:
    """``first`` f64[g*r, I/g, *k], ``second`` f64[O, g*r], and the relative Frobenius error of their product."""

    first: Array
    second: Array
    error: float


def full_rank(shape: tuple[int, ...], groups: int) -> int:
    """The rank at which factors of a weight [O, I, *k] in so many groups are exact."""
    return min(shape[0], int(np.prod(shape[1:])) // groups)


def factor(weight: Array, groups: int, rank: int) -> Factors:
    """The best factors of W[O, I, *k], whose groups have rank ``rank`` each, at most ``full_rank``."""
    outs, ins, *kernel = weight.shape
    matrices = weight.astype(np.float64).reshape(outs, groups, -1).transpose(1, 0, 2)
    u, s, v = np.linalg.svd(matrices, full_matrices=False)
    root = np.sqrt(s[:, :rank])  # half of each singular value on either side: a training's steps then have one scale
    first = root[:, :, None] * v[:, :rank]
    second = (u[:, :, :rank] * root[:, None]).transpose(1, 0, 2)
    total, lost = float((s**2).sum()), float((s[:, rank:] ** 2).sum())
    return Factors(
        first.reshape(groups * rank, ins // groups, *kernel), second.reshape(outs, groups * rank),
        float(np.sqrt(lost / total)) if total else 0.0,
    )  # fmt: skip


def factored(
    graph: Graph, node: Node, names: Names, groups: int, rank: int, piece: tuple[str, str], norm: bool
) -> Edit:
    """The edit that puts the two layers in the place of a convolution or linear layer.

    ``piece`` names the two; ``norm`` puts batch norm and ReLU between them, for a network that will be trained.
    """
    name = str(node.inputs[1])
    weight = graph.weights[name]
    transposed = bool(node.attrs.get("transposed", False))
    outs, ins, *kernel = weight.shape[::-1] if transposed else weight.shape
    between = groups * rank
    mid = names.free(f"{node.name}.{piece[0]}")
    one, two = names.weight(name, piece[0], "weight"), names.weight(name, piece[1], "weight")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shapes = ((between, ins // groups, *kernel), (outs, between, *(1,) * len(kernel)))
    if transposed:
        shapes = (shapes[0][::-1], shapes[1][::-1])
    weights: dict[str, Array] = {n: stand_in(shape, weight) for n, shape in zip((one, two), shapes, strict=True)}

    def solve() -> Solved:
        made = factor(weight.T if transposed else weight, groups, rank)
        arrays = (made.first.T, made.second.T) if transposed else (made.first, made.second)
        found = {n: narrow(a.reshape(s), weight) for n, a, s in zip((one, two), arrays, shapes, strict=True)}
        return found, None if norm else made.error

    if node.op == "linear":
        attrs: dict[str, object] = {"transposed": transposed}
        after = attrs
    else:
        attrs, after = {**node.attrs, "groups": groups}, plain_1x1(len(kernel))
    nodes = [Node(node.op, (node.inputs[0], one), blank(mid), attrs, Source(f"{node.label}.{piece[0]}"))]
    if norm:
        nodes += batch_norm_relu(names, nodes[-1], name, piece[0], between, weight, weights)
    if bias in graph.weights:  # next to the weight, so that a module holds both
        weights[names.weight(name, piece[1], "bias")] = graph.weights[str(bias)]
        bias = next(reversed(weights))
    last = (nodes[-1].name, two) if bias is None else (nodes[-1].name, two, bias)
    nodes.append(Node(node.op, last, node.outputs, after, node.source))
    return Edit(tuple(nodes), weights, None, "" if norm else MEASURE, solve)


def plain_1x1(axes: int, groups: int = 1) -> dict[str, object]:
    """Attributes of a 1x1 convolution over so many spatial axes."""
    return {"stride": (1,) * axes, "dilation": (1,) * axes, "pad": (0,) * (2 * axes), "groups": groups}


def batch_norm_relu(
    names: Names,
    before: Node,
    weight: str,
    piece: str,
    width: int,
    like: Array,
    weights: dict[str, Array],
    relu: bool = True,
) -> list[Node]:
    """A batch norm that changes nothing yet, and a ReLU; its weights are added to ``weights``."""
    roles = ("weight", "bias", "running_mean", "running_var")
    own = [names.weight(weight, f"{piece}_norm", role) for role in roles]
    for name, value in zip(own, (1.0, 0.0, 0.0, 1.0), strict=True):
        weights[name] = np.full(width, value, like.dtype)
    made = [names.free(f"{before.name}_norm"), names.free(f"{before.name}_relu")]
    norm = Node(
        "batch_norm",
        (before.name, *own),
        blank(made[0]),
        {"eps": 1e-5, "momentum": 0.1},
        Source(f"{before.label}_norm"),
    )
    act = Node("relu", (made[0],), blank(made[1]), {}, Source(f"{before.label}_relu"))
    return [norm, act] if relu else [norm]


def check_rank(rank: int, full: int, what: str) -> int:
    """The rank if it makes sense. Raises Misfit."""
    if rank < 1 or rank > full:
        raise Misfit(f"rank {rank} for {what}; give 1 to {full}, at which it is exact")
    return rank


def check_groups(groups: int, *widths: tuple[str, int]) -> None:
    """Raises Misfit where the groups do not divide a width."""
    for what, width in widths:
        if width % groups:
            near = [d for d in range(1, width + 1) if width % d == 0]
            few = sorted(sorted(near, key=lambda d: abs(d - groups))[:4])
            raise Misfit(f"groups={groups} does not divide its {width} {what}; near are {', '.join(map(str, few))}")
