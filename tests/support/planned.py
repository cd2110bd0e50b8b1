"""Eight small networks that between them are computed by every kernel family."""

from __future__ import annotations

from collections.abc import Callable

from secateur.ir import Graph
from support.nets import chain, residual
from support.network import Net


def wide() -> Graph:
    """Layers wide enough for Winograd's and Strassen's algorithms, joined by a residual."""
    net = Net(1, 128, 28, 28)
    y = net.relu(net.conv("x", 128))
    return net.graph(net.relu(net.node("add", net.conv(net.conv(y, 256, 1), 128, 1), y)))


def shuffled() -> Graph:
    """A ShuffleNet unit: grouped, shuffled, depthwise, grouped. The shuffle is not a step of its own."""
    net = Net(1, 48, 14, 14)
    y = net.shuffle(net.relu(net.conv("x", 48, 1, groups=3)), 3)
    y = net.conv(net.conv(y, 48, groups=48), 48, 1, groups=3)
    return net.graph(net.relu(net.node("add", y, "x")))


def gated() -> Graph:
    """A squeeze-excite block after a convolution."""
    net = Net(1, 32, 14, 14)
    return net.graph(net.squeeze_excite(net.relu(net.conv("x", 32))))


def pooled() -> Graph:
    """Two branches that are pooled and joined without a copy, a mean and a classifier."""
    net = Net(1, 16, 16, 16)
    y = net.relu(net.conv("x", 16))
    pool = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0), "ceil": False}
    parts = (net.conv(y, 16, 1), net.conv(y, 32))
    both = net.node("concat", *(net.node("max_pool", part, dilation=(1, 1), **pool) for part in parts), axis=1)
    return net.graph(net.linear(net.node("reduce_mean", both, axes=(2, 3), keepdims=False), 10))


def attentive() -> Graph:
    """Self-attention over positions, and a layer norm along the channels."""
    net = Net(1, 32, 4, 4)
    return net.graph(net.layer_norm(net.attention(net.conv("x", 32, 1), 2)))


def decoded() -> Graph:
    """A transposed convolution in four phases, a resize, and an operator that no family computes."""
    net = Net(1, 16, 7, 7)
    w = net.weight("up.weight", 16, 8, 4, 4, scale=0.1)
    up = net.node("conv_transpose", "x", w, stride=(2, 2), dilation=(1, 1), pad=(1, 1, 1, 1), output_padding=(0, 0),
                  groups=1)  # fmt: skip
    wide = net.node("resize", up, size=(28, 28), scales=None, mode="linear", coordinate="half_pixel", rounding="floor")
    return net.graph(net.node("cumsum", wide, axis=3))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "chain": chain, "residual": residual, "wide": wide, "shuffled": shuffled, "gated": gated, "pooled": pooled,
    "attentive": attentive, "decoded": decoded,
}  # fmt: skip
