"""Shape rules: ``infer[op](node, inputs)`` gives the (shape, dtype) of each output.

``verify`` re-derives every shape with these after every pass, so a rewrite cannot leave a stale
one after. A rule raises ValueError with the reason when the operands do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .graph import Node, Value
from .infer_checks import check_operands, check_sizes
from .infer_movement import MOVEMENT
from .ops import BINARY, COMPARE, REDUCE, UNARY
from .symbolic import least, scaled

Shape = tuple[int, ...]
Result = list[tuple[Shape, str]]
Rule = Callable[[Node, Sequence[Value | None]], Result]


def _x(ins: Sequence[Value | None], i: int = 0) -> Value:
    value = ins[i] if i < len(ins) else None
    if value is None:
        raise ValueError(f"input {i} is missing")
    return value


def _same(node: Node, ins: Sequence[Value | None]) -> Result:
    x = _x(ins)
    return [(x.shape, x.dtype)]


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcasting; a symbolic dimension keeps its name."""
    if len(set(shapes)) == 1 and all(type(d) is int for d in shapes[0]):
        return shapes[0]
    rank = max(map(len, shapes))
    out: list[int] = []
    for axis in range(-rank, 0):
        dims = [s[axis] for s in shapes if len(s) >= -axis]
        wide = [d for d in dims if d != 1]
        if any(d != wide[0] for d in wide):
            raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
        out.append(wide[0] if wide else max(dims, key=lambda d: type(d) is not int))
    return tuple(out)


def _binary(node: Node, ins: Sequence[Value | None]) -> Result:
    a, b = _x(ins, 0), _x(ins, 1)
    dtype = "b1" if node.op in COMPARE else a.dtype
    return [(broadcast(a.shape, b.shape), dtype)]


def _where(node: Node, ins: Sequence[Value | None]) -> Result:
    return [(broadcast(*(_x(ins, i).shape for i in range(3))), _x(ins, 1).dtype)]


def window(size: int, kernel: int, stride: int, dilation: int, pad: int, ceil: bool = False) -> int:
    """How many windows fit along one axis; ``pad`` counts both ends. PyTorch's ceil rule."""
    span = size + pad - dilation * (kernel - 1) - 1
    if span < 0:
        raise ValueError(f"a window of {dilation * (kernel - 1) + 1} is larger than the padded input {size + pad}")
    return (span + (stride - 1 if ceil else 0)) // stride + 1


def _conv(node: Node, ins: Sequence[Value | None]) -> Result:
    x, w, a = _x(ins), _x(ins, 1), node.attrs
    d = len(w.shape) - 2
    if len(x.shape) != d + 2:
        raise ValueError(f"a {d}-d kernel on an input of rank {len(x.shape)}")
    groups = a["groups"]
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(f"groups={groups} of {w.shape[1]} channels do not make the input's {x.shape[1]}")
    if w.shape[0] % groups:
        raise ValueError(f"groups={groups} does not divide {w.shape[0]} output channels")
    _bias(ins, 2, w.shape[0])
    pad = a["pad"]
    spatial = tuple(
        window(x.shape[2 + i], w.shape[2 + i], a["stride"][i], a["dilation"][i], pad[i] + pad[d + i]) for i in range(d)
    )
    return [((x.shape[0], w.shape[0], *spatial), x.dtype)]


def _bias(ins: Sequence[Value | None], i: int, width: int) -> None:
    bias = ins[i] if i < len(ins) else None
    if bias is not None and bias.shape not in ((width,), (1,), ()):
        raise ValueError(f"input {i} has shape {bias.shape}, expected ({width},)")


def _conv_transpose(node: Node, ins: Sequence[Value | None]) -> Result:
    x, w, a = _x(ins), _x(ins, 1), node.attrs
    d, groups, pad = len(w.shape) - 2, a["groups"], a["pad"]
    if x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ValueError(f"weight for {w.shape[0]} channels in {groups} groups, input has {x.shape[1]}")
    _bias(ins, 2, w.shape[1] * groups)
    spatial = tuple(
        (x.shape[2 + i] - 1) * a["stride"][i]
        + a["dilation"][i] * (w.shape[2 + i] - 1) + 1
        + a["output_padding"][i] - pad[i] - pad[d + i]
        for i in range(d)
    )  # fmt: skip
    return [((x.shape[0], w.shape[1] * groups, *spatial), x.dtype)]


def _linear(node: Node, ins: Sequence[Value | None]) -> Result:
    x, w = _x(ins), _x(ins, 1)
    fan_out, fan_in = w.shape[::-1] if node.attrs["transposed"] else w.shape
    if not x.shape or x.shape[-1] != fan_in:
        raise ValueError(f"weight for {fan_in} features, input has {x.shape[-1] if x.shape else 'none'}")
    _bias(ins, 2, fan_out)
    return [((*x.shape[:-1], fan_out), x.dtype)]


def _matmul(node: Node, ins: Sequence[Value | None]) -> Result:
    a, b = _x(ins, 0), _x(ins, 1)
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    if left[-1] != right[-2]:
        raise ValueError(f"contracted sizes {left[-1]} and {right[-2]} differ")
    batch = broadcast(left[:-2], right[:-2]) if len(left) > 2 or len(right) > 2 else ()
    rows = left[-2:-1] if len(a.shape) > 1 else ()
    columns = right[-1:] if len(b.shape) > 1 else ()
    return [((*batch, *rows, *columns), a.dtype)]


def _einsum(node: Node, ins: Sequence[Value | None]) -> Result:
    terms, out = node.attrs["equation"].split("->")
    sizes: dict[str, int] = {}
    for term, i in zip(terms.split(","), range(len(ins)), strict=True):
        shape = _x(ins, i).shape
        if len(term) != len(shape):
            raise ValueError(f"term '{term}' for an operand of rank {len(shape)}")
        for letter, dim in zip(term, shape, strict=True):
            if sizes.setdefault(letter, dim) not in (dim, 1) and dim != 1:
                raise ValueError(f"'{letter}' is {sizes[letter]} and {dim}")
            if dim != 1:
                sizes[letter] = dim
    return [(tuple(sizes[c] for c in out), _x(ins).dtype)]


def _batch_norm(node: Node, ins: Sequence[Value | None]) -> Result:
    x = _x(ins)
    for i in range(1, 5):
        _bias(ins, i, x.shape[1])
    return [(x.shape, x.dtype)]


def _trailing_norm(node: Node, ins: Sequence[Value | None]) -> Result:
    x, dims = _x(ins), node.attrs["dims"]
    for i in range(1, len(ins)):
        weight = ins[i]
        if weight is not None and weight.shape != x.shape[len(x.shape) - dims :]:
            raise ValueError(f"input {i} has shape {weight.shape}, expected {x.shape[len(x.shape) - dims :]}")
    return [(x.shape, x.dtype)]


def _channel_norm(node: Node, ins: Sequence[Value | None]) -> Result:
    x = _x(ins)
    groups = node.attrs.get("groups", 1)
    if x.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide {x.shape[1]} channels")
    _bias(ins, 1, x.shape[1])
    _bias(ins, 2, x.shape[1])
    return [(x.shape, x.dtype)]


def _pool(node: Node, ins: Sequence[Value | None]) -> Result:
    x, a = _x(ins), node.attrs
    d, pad = len(a["kernel"]), a["pad"]
    dilation = a.get("dilation") or (1,) * d
    spatial = []
    for i in range(d):
        size, stride = x.shape[2 + i], a["stride"][i]
        count = window(size, a["kernel"][i], stride, dilation[i], pad[i] + pad[d + i], a["ceil"])
        if a["ceil"]:  # the last window must start inside
            count = least(count, (size + pad[i] - 1) // stride + 1)
        spatial.append(count)
    return [((*x.shape[:2], *spatial), x.dtype)]


def _adaptive(node: Node, ins: Sequence[Value | None]) -> Result:
    x, size = _x(ins), node.attrs["size"]
    return [((*x.shape[: len(x.shape) - len(size)], *size), x.dtype)]


def _resize(node: Node, ins: Sequence[Value | None]) -> Result:
    x, size, scales = _x(ins), node.attrs["size"], node.attrs["scales"]
    d = len(size if size is not None else scales)
    spatial = x.shape[len(x.shape) - d :]
    out = size if size is not None else tuple(scaled(n, s) for n, s in zip(spatial, scales, strict=True))
    return [((*x.shape[: len(x.shape) - d], *out), x.dtype)]


def _reduce(node: Node, ins: Sequence[Value | None]) -> Result:
    x = _x(ins)
    axes = node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)
    if node.attrs["keepdims"]:
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    else:
        shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return [(shape, "i64" if node.op.startswith("arg") else x.dtype)]


def _cast(node: Node, ins: Sequence[Value | None]) -> Result:
    return [(_x(ins).shape, node.attrs["to"])]


def _recurrent(node: Node, ins: Sequence[Value | None]) -> Result:
    x, w, hidden = _x(ins), _x(ins, 1), node.attrs["hidden"]
    if len(x.shape) != 3 or w.shape[2] != x.shape[2]:
        raise ValueError(f"input {x.shape} does not fit weight {w.shape}")
    ways = 2 if node.attrs["direction"] == "bidirectional" else 1
    state = ((ways, x.shape[1], hidden), x.dtype)
    outs = [((x.shape[0], ways, x.shape[1], hidden), x.dtype), state, state]
    return outs[: 3 if node.op == "lstm" else 2][: len(node.outputs)]


def _opaque(node: Node, ins: Sequence[Value | None]) -> Result:
    return [(v.shape, v.dtype) for v in node.outputs]


INFER: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _same), "not": _same, "isnan": lambda n, i: [(_x(i).shape, "b1")],
    **dict.fromkeys(BINARY | COMPARE, _binary),
    **dict.fromkeys(REDUCE | {"argmax", "argmin"}, _reduce),
    **dict.fromkeys(("prelu", "softmax", "log_softmax", "lrn", "cumsum"), _same),
    "where": _where, "conv": _conv, "conv_transpose": _conv_transpose, "linear": _linear,
    "matmul": _matmul, "einsum": _einsum, "batch_norm": _batch_norm,
    "layer_norm": _trailing_norm, "rms_norm": _trailing_norm,
    "group_norm": _channel_norm, "instance_norm": _channel_norm,
    "max_pool": _pool, "avg_pool": _pool, "adaptive_avg_pool": _adaptive, "adaptive_max_pool": _adaptive,
    "resize": _resize, "cast": _cast, "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent, "opaque": _opaque,
    **MOVEMENT,
}  # fmt: skip


def infer_node(node: Node, inputs: Sequence[Value | None]) -> tuple[Value, ...]:
    """The node's outputs with shapes and types derived anew.

    Raises ValueError if the operands do not fit, or if the number of outputs is wrong.
    """
    check_operands(node, inputs)
    derived = INFER[node.op](node, inputs)
    check_sizes([shape for shape, _ in derived])
    if len(derived) != len(node.outputs):
        raise ValueError(f"{node.op} gives {len(derived)} outputs, {len(node.outputs)} are named")
    return tuple(Value(v.name, shape, dtype) for v, (shape, dtype) in zip(node.outputs, derived, strict=True))
