"""What must hold of operands and attributes before a shape is derived: ``check_operands(node, inputs)``.

Shape rules say what comes out; this says what may go in, so that neither a shape rule nor a native library behind it is
handed sizes that contradict each other. The verifier asks after every pass too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .graph import DTYPES, Node, Value
from .ops import REDUCE

Ins = Sequence[Value | None]
Check = Callable[[Node, Ins], None]

LARGEST = 1 << 33  # elements of one tensor: beyond any network, and any machine that runs one
INTEGERS = frozenset({"i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64"})
COORDINATES = frozenset(
    {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"}
)


def _x(ins: Ins, i: int = 0) -> Value:
    found = ins[i] if i < len(ins) else None
    if found is None:
        raise ValueError(f"input {i} is missing")
    return found


def _whole(node: Node, key: str, least: int, count: int | None = None) -> None:
    """The attribute is so many whole numbers, each at least ``least``."""
    given = node.attrs[key]
    values = given if isinstance(given, tuple | list) else (given,)
    if count is not None and len(values) != count:
        raise ValueError(f"{key} is {given}, {count} numbers are needed")
    if any(v < least for v in values):
        raise ValueError(f"{key} is {given}, but the least is {least}")


def _inside(node: Node, key: str, rank: int, distinct: bool = True) -> None:
    """The attribute names axes of a tensor of this rank."""
    given = node.attrs[key]
    axes = given if isinstance(given, tuple | list) else (given,)
    if any(not 0 <= a < rank for a in axes) or (distinct and len(set(axes)) != len(axes)):
        raise ValueError(f"{key} {given} of a tensor of rank {rank}")


def _vector(ins: Ins, i: int, size: int, optional: bool = True) -> None:
    found = ins[i] if i < len(ins) else None
    if found is None and not optional:
        raise ValueError(f"input {i} is missing")
    if found is not None and found.shape != (size,):
        raise ValueError(f"input {i} has shape {found.shape}, expected ({size},)")


MOST_PADDING = 64  # times what a window and its input extend over


def _windows(node: Node, rank: int, dims: int) -> None:
    if not 1 <= dims <= 3 or rank != dims + 2:
        raise ValueError(f"windows over {dims} axes of a tensor of rank {rank}")
    _whole(node, "stride", 1, dims)
    _whole(node, "pad", 0, 2 * dims)
    if "dilation" in node.attrs:
        _whole(node, "dilation", 1, dims)


def _padding(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> None:
    """Padding that makes almost all that a window sees is damage, and takes minutes to compute."""
    pads, dims = node.attrs["pad"], len(kernel)
    dilation = node.attrs.get("dilation", (1,) * dims)
    for i, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
        extent = int(size) + (int(k) - 1) * int(dilation[i]) + 1
        if pads[i] + pads[dims + i] > MOST_PADDING * extent:
            raise ValueError(f"a padding of {pads[i]} and {pads[dims + i]} around {int(size)} positions")


def _conv(node: Node, ins: Ins) -> None:
    x, w = _x(ins).shape, _x(ins, 1).shape
    _windows(node, len(x), len(w) - 2)
    _padding(node, x[2:], w[2:])
    _whole(node, "groups", 1, 1)
    if 0 in w:
        raise ValueError(f"a weight of shape {w}")
    _vector(ins, 2, w[0])


def _conv_transpose(node: Node, ins: Ins) -> None:
    x, w = _x(ins).shape, _x(ins, 1).shape
    _windows(node, len(x), len(w) - 2)
    _whole(node, "groups", 1, 1)
    _whole(node, "output_padding", 0, len(w) - 2)
    if 0 in w:
        raise ValueError(f"a weight of shape {w}")
    for i, extra in enumerate(node.attrs["output_padding"]):
        if extra >= max(node.attrs["stride"][i], node.attrs["dilation"][i]):
            raise ValueError(f"output_padding {extra} is not less than stride and dilation")
    _vector(ins, 2, w[1] * node.attrs["groups"])


def _pool(node: Node, ins: Ins) -> None:
    kernel = node.attrs["kernel"]
    _windows(node, len(_x(ins).shape), len(kernel))
    _whole(node, "kernel", 1)
    _padding(node, _x(ins).shape[2:], kernel)


def _adaptive(node: Node, ins: Ins) -> None:
    _whole(node, "size", 1)
    if not 1 <= len(node.attrs["size"]) <= len(_x(ins).shape):
        raise ValueError(f"size {node.attrs['size']} of a tensor of rank {len(_x(ins).shape)}")


def _rank(least: int, i: int = 0) -> Check:
    def check(node: Node, ins: Ins) -> None:
        if len(_x(ins, i).shape) < least:
            raise ValueError(f"input {i} has rank {len(_x(ins, i).shape)}, the least is {least}")

    return check


def _linear(node: Node, ins: Ins) -> None:
    _rank(1)(node, ins)
    if len(_x(ins, 1).shape) != 2:
        raise ValueError(f"a weight of shape {_x(ins, 1).shape}")


def _matmul(node: Node, ins: Ins) -> None:
    _rank(1)(node, ins)
    _rank(1, 1)(node, ins)


def _einsum(node: Node, ins: Ins) -> None:
    terms, arrow, out = node.attrs["equation"].partition("->")
    letters = terms.replace(",", "")
    if not arrow or any(not (c.isascii() and c.isalpha()) for c in letters + out):
        raise ValueError(f"equation '{node.attrs['equation']}'")
    if terms.count(",") + 1 != len(ins) or len(set(out)) != len(out) or not set(out) <= set(letters):
        raise ValueError(f"equation '{node.attrs['equation']}' for {len(ins)} operands")


def _batch_norm(node: Node, ins: Ins) -> None:
    _rank(2)(node, ins)
    for i in range(1, 5):
        _vector(ins, i, _x(ins).shape[1], optional=i < 3)


def _channel_norm(node: Node, ins: Ins) -> None:
    _rank(2)(node, ins)
    if "groups" in node.attrs:
        _whole(node, "groups", 1, 1)
    for i in (1, 2):
        _vector(ins, i, _x(ins).shape[1])


def _trailing_norm(node: Node, ins: Ins) -> None:
    if not 1 <= node.attrs["dims"] <= len(_x(ins).shape):
        raise ValueError(f"dims {node.attrs['dims']} of a tensor of rank {len(_x(ins).shape)}")


def _lrn(node: Node, ins: Ins) -> None:
    _rank(3)(node, ins)
    _whole(node, "size", 1, 1)


def _prelu(node: Node, ins: Ins) -> None:
    x, slope = _x(ins).shape, _x(ins, 1).shape
    if len(slope) == 1 and slope[0] in (1, x[1] if len(x) > 1 else 1):
        return
    if len(slope) > len(x) or any(s not in (1, d) for s, d in zip(slope[::-1], x[::-1], strict=False)):
        raise ValueError(f"a slope of shape {slope} for an input of shape {x}")


def _axis(key: str = "axis") -> Check:
    return lambda node, ins: _inside(node, key, len(_x(ins).shape))


def _concat(node: Node, ins: Ins) -> None:
    if not ins or any(i is None for i in ins):
        raise ValueError("an input is missing")
    _inside(node, "axis", len(_x(ins).shape))


def _split(node: Node, ins: Ins) -> None:
    _inside(node, "axis", len(_x(ins).shape))
    _whole(node, "sizes", 0)


def _slice(node: Node, ins: Ins) -> None:
    _inside(node, "axes", len(_x(ins).shape))
    if 0 in node.attrs["steps"]:
        raise ValueError("a step of 0")


def _gather(node: Node, ins: Ins) -> None:
    _inside(node, "axis", len(_x(ins).shape))
    if _x(ins, 1).dtype not in INTEGERS:
        raise ValueError(f"an index of type {_x(ins, 1).dtype}")


def _reshape(node: Node, ins: Ins) -> None:
    _whole(node, "shape", -1)
    if list(node.attrs["shape"]).count(-1) > 1:
        raise ValueError(f"shape {node.attrs['shape']} leaves two sizes open")
    for i, size in enumerate(node.attrs["shape"]):
        if size == 0 and i >= len(_x(ins).shape):
            raise ValueError(f"shape {node.attrs['shape']} copies size {i} of a tensor of rank {len(_x(ins).shape)}")


def _flatten(node: Node, ins: Ins) -> None:
    start, end = node.attrs["start"], node.attrs["end"]
    if not 0 <= start <= end < len(_x(ins).shape):
        raise ValueError(f"axes {start} to {end} of a tensor of rank {len(_x(ins).shape)}")


def _unsqueeze(node: Node, ins: Ins) -> None:
    _inside(node, "axes", len(_x(ins).shape) + len(node.attrs["axes"]))


def _expand(node: Node, ins: Ins) -> None:
    _whole(node, "shape", -1)


def _tile(node: Node, ins: Ins) -> None:
    _whole(node, "repeats", 0, len(_x(ins).shape))


def _pad(node: Node, ins: Ins) -> None:
    s, pads, mode = _x(ins).shape, node.attrs["pads"], node.attrs["mode"]
    if mode not in ("constant", "reflect", "edge", "wrap") or len(pads) != 2 * len(s):
        raise ValueError(f"mode '{mode}' with {len(pads)} pads for rank {len(s)}")
    for i, size in enumerate(s):
        begin, end = pads[i], pads[len(s) + i]
        if mode == "reflect" and max(begin, end) >= size and max(begin, end) > 0:
            raise ValueError(f"pads of {begin} and {end} reflect more than axis {i} of size {size} has")


def _roll(node: Node, ins: Ins) -> None:
    _inside(node, "axes", len(_x(ins).shape), distinct=False)
    if len(node.attrs["shifts"]) != len(node.attrs["axes"]):
        raise ValueError(f"{len(node.attrs['shifts'])} shifts for {len(node.attrs['axes'])} axes")


def _blocks(node: Node, ins: Ins) -> None:
    if len(_x(ins).shape) != 4:
        raise ValueError(f"a tensor of rank {len(_x(ins).shape)} instead of 4")
    _whole(node, "block", 1, 1)


def _resize(node: Node, ins: Ins) -> None:
    a, rank = node.attrs, len(_x(ins).shape)
    given = a["size"] if a["size"] is not None else a["scales"]
    if given is None or not 0 < len(given) <= rank:
        raise ValueError(f"size {a['size']} and scales {a['scales']} of a tensor of rank {rank}")
    if any(not (math.isfinite(v) and v > 0) for v in given):
        raise ValueError(f"sizes or scales {given}")
    if a["mode"] not in ("nearest", "linear", "cubic") or a["coordinate"] not in COORDINATES:
        raise ValueError(f"mode '{a['mode']}' with coordinates '{a['coordinate']}'")


def _cast(node: Node, ins: Ins) -> None:
    if node.attrs["to"] not in DTYPES.values():
        raise ValueError(f"element type {node.attrs['to']}")


def _three(node: Node, ins: Ins) -> None:
    for i in range(3):
        _x(ins, i)


def _recurrent(node: Node, ins: Ins) -> None:
    x, hidden = _x(ins).shape, node.attrs["hidden"]
    if node.attrs["direction"] not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction '{node.attrs['direction']}'")
    ways = 2 if node.attrs["direction"] == "bidirectional" else 1
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[node.op]
    if node.op == "rnn" and node.attrs["activation"] not in ("tanh", "relu"):
        raise ValueError(f"activation '{node.attrs['activation']}'")
    _whole(node, "hidden", 1, 1)
    if len(x) != 3:
        raise ValueError(f"an input of rank {len(x)} instead of 3")
    expected = {1: (ways, gates * hidden, x[2]), 2: (ways, gates * hidden, hidden), 3: (ways, 2 * gates * hidden)}
    expected.update(dict.fromkeys((4, 5), (ways, x[1], hidden)))
    for i, shape in expected.items():
        found = ins[i] if i < len(ins) else None
        if found is not None and found.shape != shape:
            what = {1: "weight", 2: "recurrent weight", 3: "bias"}.get(i, "initial state")
            raise ValueError(f"the {what} has shape {found.shape}, expected {shape}")
        if found is not None and found.dtype != _x(ins).dtype:
            raise ValueError(f"input {i} is {found.dtype}, the input is {_x(ins).dtype}")
    if len(ins) > (6 if node.op == "lstm" else 5):
        raise ValueError(f"{len(ins)} inputs")
    _x(ins, 1)
    _x(ins, 2)


CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(REDUCE, _axis("axes")), "argmax": _axis(), "argmin": _axis(), "cumsum": _axis(),
    "softmax": _axis(), "log_softmax": _axis(), "flip": _axis("axes"), "squeeze": _axis("axes"),
    "conv": _conv, "conv_transpose": _conv_transpose, "max_pool": _pool, "avg_pool": _pool,
    "adaptive_avg_pool": _adaptive, "adaptive_max_pool": _adaptive, "linear": _linear, "matmul": _matmul,
    "einsum": _einsum, "batch_norm": _batch_norm, "group_norm": _channel_norm, "instance_norm": _channel_norm,
    "layer_norm": _trailing_norm, "rms_norm": _trailing_norm, "lrn": _lrn, "prelu": _prelu, "concat": _concat,
    "split": _split, "slice": _slice, "gather": _gather, "reshape": _reshape, "flatten": _flatten,
    "unsqueeze": _unsqueeze, "expand": _expand, "tile": _tile, "pad": _pad, "roll": _roll,
    "depth_to_space": _blocks, "space_to_depth": _blocks, "resize": _resize, "cast": _cast, "where": _three,
    "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
}  # fmt: skip


def check_operands(node: Node, inputs: Ins) -> None:
    """Raise ValueError with the reason where operands or attributes contradict each other or their operator."""
    check = CHECKS.get(node.op)
    if check is not None:
        check(node, inputs)


def check_sizes(shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError where a result has a negative size, or more elements than any machine holds."""
    for shape in shapes:
        if any(d < 0 for d in shape):
            raise ValueError(f"it makes a tensor of shape {shape}")
        elements = math.prod(map(int, shape))  # as numbers: how they follow the inputs' sizes is not the question
        if elements > LARGEST:
            raise ValueError(f"it makes a tensor of {elements} elements")
