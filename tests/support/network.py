"""Small networks for tests: a builder that grows IR graphs, and random keep masks that may be carried out."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.ir import Array, Graph, Node, Source, Value, infer_node, verify
from secateur.passes.notes import Coupling


class Net:
    """Grow a graph node by node; every method takes and returns value names."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = [Value("x", shape, "f32")]
        self.known = {"x": self.inputs[0]}
        self.nodes: list[Node] = []
        self.weights: dict[str, Array] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        return self.known[name].shape

    def node(self, op: str, *inputs: str | None, outs: int = 1, name: str = "", **attrs: Any) -> Any:
        name = name or f"{op}{len(self.nodes)}"
        blank = tuple(Value(name if outs == 1 else f"{name}.{i}", (), "f32") for i in range(outs))
        values = [
            None if i is None else self.known.get(i) or Value(i, self.weights[i].shape, _short(self.weights[i]))
            for i in inputs
        ]
        node = Node(op, inputs, blank, attrs, Source(name))
        made = infer_node(node, values)
        self.nodes.append(Node(op, inputs, made, attrs, Source(name)))
        self.known.update((v.name, v) for v in made)
        return made[0].name if outs == 1 else tuple(v.name for v in made)

    def weight(self, name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> str:
        self.weights[name] = (self.rng.standard_normal(shape) * scale + shift).astype(np.float32)
        return name

    def conv(self, x: str, out: int, k: int = 3, groups: int = 1, stride: int = 1, bias: bool = True) -> str:
        n = f"conv{len(self.nodes)}"
        width = self.shape(x)[1] // groups
        w = self.weight(f"{n}.weight", out, width, k, k, scale=(width * k * k) ** -0.5)
        b = self.weight(f"{n}.bias", out, scale=0.3) if bias else None
        return str(
            self.node(
                "conv", x, w, b, name=n, stride=(stride,) * 2, dilation=(1, 1), pad=(k // 2,) * 4, groups=groups
            )
        )  # fmt: skip

    def bn(self, x: str) -> str:
        n, c = f"bn{len(self.nodes)}", self.shape(x)[1]
        gamma = self.weight(f"{n}.weight", c, scale=0.2, shift=1.0)
        beta, mean = self.weight(f"{n}.bias", c, scale=0.5), self.weight(f"{n}.running_mean", c, scale=0.3)
        self.weights[f"{n}.running_var"] = self.rng.uniform(0.5, 1.5, c).astype(np.float32)
        return str(self.node("batch_norm", x, gamma, beta, mean, f"{n}.running_var", name=n, eps=1e-5, momentum=0.1))

    def relu(self, x: str) -> str:
        return str(self.node("relu", x))

    def linear(self, x: str, out: int, transposed: bool = False) -> str:
        n, width = f"linear{len(self.nodes)}", self.shape(x)[-1]
        shape = (width, out) if transposed else (out, width)
        w = self.weight(f"{n}.weight", *shape, scale=width**-0.5)
        return str(self.node("linear", x, w, self.weight(f"{n}.bias", out, scale=0.3), name=n, transposed=transposed))

    def shuffle(self, x: str, groups: int) -> str:
        n, c, h, w = self.shape(x)
        a = self.node("reshape", x, shape=(n, groups, c // groups, h, w))
        b = self.node("transpose", a, perm=(0, 2, 1, 3, 4))
        return str(self.node("reshape", b, shape=(n, c, h, w)))

    def squeeze_excite(self, x: str) -> str:
        c = self.shape(x)[1]
        p = self.node("reduce_mean", x, axes=(2, 3), keepdims=True)
        gate = self.node("sigmoid", self.conv(self.relu(self.conv(p, max(2, c // 2), 1)), c, 1))
        return str(self.node("mul", x, gate))

    def attention(self, x: str, heads: int) -> str:
        """Multi-head self-attention over the positions of an NCHW value."""
        n, c, h, w = self.shape(x)
        t = self.node("transpose", self.node("reshape", x, shape=(n, c, h * w)), perm=(0, 2, 1))
        q, k, v = (
            self.node(
                "transpose", self.node("reshape", self.linear(t, c), shape=(n, h * w, heads, c // heads)),
                perm=(0, 2, 1, 3),
            )
            for _ in range(3)
        )  # fmt: skip
        score = self.node("matmul", q, self.node("transpose", k, perm=(0, 1, 3, 2)))
        mixed = self.node("matmul", self.node("softmax", score, axis=3), v)
        flat = self.node("reshape", self.node("transpose", mixed, perm=(0, 2, 1, 3)), shape=(n, h * w, c))
        y = self.linear(flat, c)
        return str(self.node("reshape", self.node("transpose", y, perm=(0, 2, 1)), shape=(n, c, h, w)))

    def layer_norm(self, x: str) -> str:
        """Layer norm over the channels of an NCHW value."""
        n, c = f"ln{len(self.nodes)}", self.shape(x)[1]
        last = self.node("transpose", x, perm=(0, 2, 3, 1))
        w, b = self.weight(f"{n}.weight", c, scale=0.2, shift=1.0), self.weight(f"{n}.bias", c)
        return str(
            self.node("transpose", self.node("layer_norm", last, w, b, name=n, dims=1, eps=1e-5), perm=(0, 3, 1, 2))
        )

    def head(self, x: str, out: int = 5) -> str:
        return self.linear(str(self.node("flatten", x, start=1, end=3)), out)

    def graph(self, *outputs: str) -> Graph:
        return verify(Graph("net", tuple(self.inputs), tuple(self.nodes), outputs, self.weights))


def _short(array: Array) -> str:
    from secateur.ir import dtype_of

    return dtype_of(array)


def random_keep(coupling: Coupling, rng: np.random.Generator) -> Array:
    """A mask that satisfies every constraint: cells of one orbit keep equally many units, all or at least one."""
    keep = np.ones(coupling.size, bool)
    for orbit in np.unique(coupling.orbit):
        units = np.flatnonzero(coupling.orbit == orbit)
        if coupling.frozen[units].any():
            continue
        levels = coupling.levels.get(int(orbit))
        if levels is not None:
            counts = levels.counts[rng.integers(len(levels.counts))]
            for cell, count in zip(levels.cells, counts, strict=True):
                keep[rng.permutation(np.flatnonzero(coupling.cell == cell))[count:]] = False
            continue
        cells = [units[coupling.cell[units] == c] for c in np.unique(coupling.cell[units])]
        smallest = min(map(len, cells))
        count = int(rng.integers(1, smallest + 1))
        for cell in cells:
            keep[rng.permutation(cell)[count:]] = False
    for slot in coupling.slots:  # no weight axis may be left empty
        if not coupling.live(slot.units, keep).any():
            keep[:] = True
    for track in coupling.channels.values():
        if not coupling.live(track.units, keep).any():
            keep[:] = True
    return keep


def small(layers: int = 1, batch: int = 1) -> Graph:
    """Convolutions of rising widths, each a kernel of its own, and a classifier."""
    net = Net(batch, 3, 16, 16)
    x = "x"
    for width in range(layers):
        x = net.relu(net.conv(x, 16 * (width + 1), 1 if width else 3))
    return net.graph(net.head(x))
