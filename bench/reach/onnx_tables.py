"""Some hundreds of small ONNX graphs: an operator, in every form that files hold, between two convolutions.

They are of the kinds that public bug reports of ONNX tools are about, each kind as a table of attributes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from bench.reach.onnx_net import FAR, Build, Net, Table, drawn, floats, ints, none, number, op, then, turned

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
GOALS = ((none, floats(1, 1, 1.5, 1.5)), (none, floats(1, 1, 2, 2)), (none, floats(1, 1, 0.6, 0.6)),
         (none, none, ints(1, 8, 23, 9)))  # fmt: skip


def resizing(t: Table) -> None:
    """Every way to count pixels, up, down and to a size; then the odd ones."""
    for place, (number_, goal) in itertools.product(COORDINATES, enumerate(GOALS)):
        for how in ("linear", "cubic"):
            attrs = {"mode": how, "coordinate_transformation_mode": place}
            t.between(f"resize {how} {place} {number_}", op("Resize", *goal, **attrs), 19, (10, 10))
        for edge in ROUNDINGS:
            attrs = {"mode": "nearest", "coordinate_transformation_mode": place, "nearest_mode": edge}
            t.between(f"resize nearest {place} {number_} {edge}", op("Resize", *goal, **attrs), 19, (10, 10))
    aspect = {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    t.between("resize axes", op("Resize", none, floats(2, 0.5), mode="linear", axes=[3, 2]), 18)
    t.between("resize smooth", op("Resize", none, floats(1, 1, 0.5, 0.5), mode="linear", antialias=1), 18, budget="80%")
    t.between("resize aspect", op("Resize", none, none, ints(20, 30), **aspect), 18, budget="80%")
    t.between("resize channels", op("Resize", none, floats(1, 2, 1, 1), mode="nearest"), channels=16, budget="80%")
    t.between(
        "resize cubic", op("Resize", none, floats(1, 1, 1.7, 1.7), mode="cubic", cubic_coeff_a=-0.5), budget="80%"
    )
    t.between("resize opset 10", op("Resize", floats(1, 1, 1.5, 1.5), mode="linear"), 10)
    t.between("upsample opset 7", op("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]), 7)
    t.between("upsample opset 9", op("Upsample", floats(1, 1, 2, 2), mode="linear"), 9)
    t.between("resize 1d", op("Resize", none, floats(1, 1, 2.5), mode="linear"), size=(16,))
    t.between("resize 3d", op("Resize", none, floats(1, 1, 2, 2, 1.5), mode="linear"), size=(4, 4, 4))


SPOTS = {
    "space": (0, 0, 1, 2, 0, 0, 3, 1), "crop": (0, 0, -1, 2, 0, 0, 1, -3), "channels": (0, 2, 0, 0, 0, 3, 0, 0),
    "fewer": (0, -2, 0, 0, 0, 1, 0, 0), "last": (0, 0, 0, 0, 0, -3, 0, 0), "batch": (1, 0, 0, 0, 0, 0, 0, 0),
}  # fmt: skip


def padding(t: Table) -> None:
    """In space, along channels and the batch, by positive and negative amounts, in every mode."""
    for spot, pads in SPOTS.items():
        kept = 8 + pads[1] + pads[5]
        for mode in ("constant", "reflect", "edge", "wrap"):
            t.between(f"pad {spot} {mode}", op("Pad", ints(*pads), mode=mode), 19, channels=kept, budget="80%")
        t.between(f"pad {spot} value", op("Pad", ints(*pads), number(0.7)), channels=kept)
    t.between("pad axes", op("Pad", ints(1, 2, 3, 4), none, ints(3, -2)), 18)
    t.between("pad attribute", op("Pad", mode="reflect", pads=[0, 0, 1, 2, 0, 0, 2, 1]), 7)
    infinite = op("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), number(-np.inf))
    t.between("pad minus infinity", then(infinite, op("MaxPool", kernel_shape=[3, 3])))


SLICES = {
    "reversed space": ((-1, 14), (-1000, 0), (2, 3), (-1, -3)), "reversed channels": ((7,), (-FAR,), (1,), (-1,)),
    "odd channels": ((1,), (100,), (1,), (2,)), "some channels": ((6,), (0,), (-3,), (-2,)),
    "outside": ((-100, 3), (5, 1000), (2, 3), (1, 1)), "rows": ((0, 2, 1, 1), (1, 7, 12, 13), (0, 1, 2, 3), (1,) * 4),
}  # fmt: skip
WIDTHS = {"odd channels": 4, "some channels": 3, "rows": 5}
INDICES: dict[str, Any] = {"behind": [-1, 0, -3], "twice": [1, 1, 1, 7, 0], "grid": [[0, 1, 2], [5, 6, 7]], "one": 3}


def _focus(g: Net, y: str) -> str:
    quarters = itertools.product((0, 1), (0, 1))
    parts = [g("Slice", y, g.ints(*q), g.ints(FAR, FAR), g.ints(2, 3), g.ints(2, 2)) for q in quarters]
    return g("Concat", *parts, axis=1)


def cutting(t: Table) -> None:
    """Slices, splits and gathers."""
    for cut, parts in SLICES.items():
        t.between(f"slice {cut}", op("Slice", *(ints(*p) for p in parts)), channels=WIDTHS.get(cut, 8))
    t.between("slice attribute", op("Slice", starts=[1, -9], ends=[FAR, -1], axes=[1, 2]), 7, channels=7)
    t.between("focus", _focus, channels=32)
    for axis, sizes in ((1, (1, 2, 5)), (-3, (3, 5)), (3, (7, 9)), (2, (1, 15))):
        t.between(f"split {axis} {sizes}", turned("Split", ints(*sizes), outs=len(sizes), axis=axis), 13)
    t.between("split evenly", turned("Split", outs=3, axis=1, num_outputs=3), 18)
    t.between("split attribute", turned("Split", outs=2, axis=1, split=[3, 5]), 11)
    t.between("split batch", lambda g, y: g("Add", *g.several("Split", y, outs=2, axis=0)), 13, batch=2)
    for pick, index in INDICES.items():
        n = np.asarray(index).size
        channels = op("Gather", number(index, np.int64), axis=1), op("Reshape", ints(1, n, 16, 16))
        rows = op("Gather", number(index, np.int32), axis=-2), op("Reshape", ints(1, 8, n, 16))
        t.between(f"gather channels {pick}", then(*channels), channels=n, budget="80%")
        t.between(f"gather rows {pick}", then(*rows))
    places = np.full((1, 8, 16, 4), -2)
    t.between("gather elements", lambda g, y: g("GatherElements", y, g.const(places), axis=3), budget="80%")
    t.between("scatter", op("ScatterND", number([[0, 1], [0, -2]], np.int64), drawn(2, 16, 16)), budget="80%")


def _unpool(g: Net, y: str) -> str:
    pooled = g.several("MaxPool", y, outs=2, kernel_shape=[2, 2], strides=[2, 2])
    return g("MaxUnpool", *pooled, kernel_shape=[2, 2], strides=[2, 2])


def _two_norms(g: Net, y: str) -> str:
    c = g.conv(y, 8, 8, act="")
    return g("Add", g.norm(c, 8), g.norm(c, 8))


MOVES: dict[str, Build] = {
    "shuffle": then(op("Reshape", ints(1, 2, 4, 16, 16)), op("Transpose", perm=[0, 2, 1, 3, 4]),
                    op("Reshape", ints(1, -1, 16, 16))),
    "spread": then(op("Reshape", ints(0, -1, 4, 16)), op("Reshape", ints(0, 8, 16, 16))),
    "pixels": then(op("Flatten", axis=2), op("Reshape", ints(1, 8, 16, 16))),
    "flat": then(op("Flatten", axis=0), op("Reshape", ints(1, 8, 16, 16))),
    "squeeze all": then(op("Squeeze"), op("Unsqueeze", ints(0))),
    "squeeze behind": then(op("Unsqueeze", ints(-1, 0)), op("Squeeze", ints(-1, 0))),
    "depth to space": then(op("DepthToSpace", blocksize=2, mode="CRD"), op("SpaceToDepth", blocksize=2)),
    "clip below": op("Clip", number(0.1)), "clip above": op("Clip", none, number(0.3)),
    "clip to nothing": op("Clip", none, none), "clip turned": op("Clip", number(2), number(1)),
    "clip infinite": op("Clip", number(-np.inf), number(np.inf)),
    "clip by itself": lambda g, y: g("Clip", y, g("ReduceMin", y, keepdims=0), g("ReduceMean", y, keepdims=0)),
    "expand": lambda g, y: g("Expand", g("ReduceMean", y, axes=[2, 3]), g("Shape", y)),
    "tile": then(op("ReduceMax", axes=[3]), op("Tile", ints(1, 1, 1, 16))),
    "mean of three": lambda g, y: g("Mean", y, g("Abs", y), g("Neg", y)),
    "slope": lambda g, y: g("PRelu", g.conv(y, 8, 8, act=""), g.drawn(8, 1, 1)),
    "where": lambda g, y: g("Where", g("Greater", y, g("ReduceMean", y)), y, g.const(0.1, np.float32)),
    "gate": lambda g, y: g("Mul", y, g("Sigmoid", g.conv(g("GlobalAveragePool", y), 8, 8, 1, act=""))),
    "unpool": _unpool, "two norms": _two_norms, "norm before": lambda g, y: g.norm(y, 8, epsilon=0.1),
    "instance norm": op("InstanceNormalization", drawn(8), drawn(8)), "lrn": op("LRN", size=3, alpha=0.1),
}  # fmt: skip
KINDS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def moving(t: Table) -> None:
    """Shapes and bounds, softmax of old and new operator sets, and reductions of all kinds and of nothing."""
    for move, body in MOVES.items():
        t.between(move, body, 13, budget="80%")
    for axis, opset in itertools.product((1, 2, 3, -1), (11, 13)):
        t.between(f"softmax {axis} opset {opset}", op("Softmax", axis=axis), opset, (4, 4))
    for kind, (axes, noop) in itertools.product(KINDS, (((2, 3), 0), ((), 1), ((-1,), 0), ((1,), 0))):
        body = then(op("Sigmoid"), op(f"Reduce{kind}", ints(*axes), noop_with_empty_axes=noop))
        t.between(f"reduce {kind} {axes}", body, 18, (4, 4), 1 if axes == (1,) else 8, budget="90%")


WINDOWS = ((3, 2, 1, 16), (3, 2, 0, 16), (2, 2, 1, 17), (2, 3, 0, 10), (5, 4, 2, 15), (1, 2, 0, 6), (3, 3, 1, 13))
TRANSPOSED: dict[str, dict[str, Any]] = {
    "more": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    "shape": {"strides": [2, 2], "output_shape": [14, 12]},
    "shape upper": {"strides": [2, 2], "output_shape": [14, 12], "auto_pad": "SAME_UPPER"},
    "shape lower": {"strides": [2, 2], "output_shape": [14, 12], "auto_pad": "SAME_LOWER"},
    "same": {"strides": [3, 3], "auto_pad": "SAME_UPPER"},
    "dilated": {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 1, 0, 2]},
    "uneven": {"strides": [2, 2], "pads": [0, 1, 2, 1]},
}


def windows(t: Table) -> None:
    """Pools that round up, automatic padding, transposed convolutions."""
    for (kernel, stride, margin, wide), opset in itertools.product(WINDOWS, (10, 11, 19, 22)):
        a: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [margin] * 4}
        named = f"{kernel} {stride} {margin} {wide} opset {opset}"
        t.between(f"max pool up {named}", op("MaxPool", ceil_mode=1, **a), opset, (wide, wide))
        for pad in (0, 1):
            average = op("AveragePool", ceil_mode=1, count_include_pad=pad, **a)
            t.between(f"average pool up {named} counting {pad}", average, opset, (wide, wide))
    for auto, wide in itertools.product(("SAME_UPPER", "SAME_LOWER", "VALID"), (15, 16)):
        for k, s in ((3, 2), (4, 2), (2, 3), (7, 2)):
            conv = op("Conv", drawn(8, 8, k, k), auto_pad=auto, strides=[s, s])
            t.between(f"conv {auto} {wide} {k} {s}", conv, size=(wide, wide))
        for pool in ("MaxPool", "AveragePool"):
            body = op(pool, kernel_shape=[3, 2], strides=[2, 2], auto_pad=auto)
            t.between(f"{pool} {auto} {wide}", body, size=(wide, wide))
        dilated = op("MaxPool", kernel_shape=[3, 3], dilations=[2, 2], auto_pad=auto)
        t.between(f"MaxPool dilated {auto} {wide}", dilated, size=(wide, wide))
    for (shape, attrs), groups in itertools.product(TRANSPOSED.items(), (1, 4, 8)):
        body = op("ConvTranspose", drawn(8, 16 // groups, 3, 3), drawn(16), group=groups, **attrs)
        t.between(f"transposed {shape} {groups}", body, 13, (7, 6), 16)


def tables() -> Table:
    """All of them."""
    t = Table()
    for add in (resizing, padding, cutting, moving, windows):
        add(t)
    return t
