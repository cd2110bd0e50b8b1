"""How much a node would make of constants, before it makes it: ``SIZES`` gives elements at most, by operator.

What is not in the table is not folded: a small file may ask for any size, and ONNX's own shape inference is a native
library that trusts what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from secateur.ir.graph import Array, Attr
from secateur.ir.infer import broadcast

Ins = Sequence[Array | None]
Size = Callable[[Mapping[str, Attr], Ins], int]

SLOW = frozenset({"Resize", "Upsample", "Unique"})  # the evaluator computes one element after the other
LITTLE = 1 << 16  # elements in and out of these that take a moment only
WORK = 1 << 32  # multiply-accumulates of a product


def given(ins: Ins, i: int) -> Array:
    """The i-th input. Raises ValueError where it is missing."""
    found = ins[i] if i < len(ins) else None
    if found is None:
        raise ValueError(f"input {i} is missing")
    return found


def _ints(ins: Ins, i: int) -> list[int]:
    return [int(v) for v in given(ins, i).reshape(-1)]


def _same(attrs: Mapping[str, Attr], ins: Ins) -> int:
    return int(given(ins, 0).size)


def _broadcast(attrs: Mapping[str, Attr], ins: Ins) -> int:
    return math.prod(broadcast(*(i.shape for i in ins if i is not None)))


def _joined(attrs: Mapping[str, Attr], ins: Ins) -> int:
    return sum(int(i.size) for i in ins if i is not None)


def _places(attrs: Mapping[str, Attr], ins: Ins) -> int:
    """Positions of elements: one number for each axis, or as many outputs of the input's size."""
    x = given(ins, 0)
    return int(x.size) * max(x.ndim, 4)


def _constant(attrs: Mapping[str, Attr], ins: Ins) -> int:
    return int(np.size(attrs["value"].values)) if "value" in attrs else 1


def _gather(attrs: Mapping[str, Attr], ins: Ins) -> int:
    x, axis = given(ins, 0), attrs.get("axis", 0)
    return int(x.size // max(x.shape[axis], 1) * given(ins, 1).size)


def _gather_nd(attrs: Mapping[str, Attr], ins: Ins) -> int:
    x, index = given(ins, 0), given(ins, 1)
    return int(math.prod(index.shape[:-1]) * math.prod(x.shape[index.shape[-1] :]))


def _product(attrs: Mapping[str, Attr], ins: Ins) -> int:
    a, b = given(ins, 0), given(ins, 1)
    rows = a.shape[1 if attrs.get("transA", 0) else -2] if a.ndim > 1 else 1
    columns = b.shape[0 if attrs.get("transB", 0) else -1] if b.ndim > 1 else 1
    return int(math.prod(broadcast(a.shape[:-2], b.shape[:-2], ())) * rows * columns)


def _expand(attrs: Mapping[str, Attr], ins: Ins) -> int:
    return math.prod(broadcast(given(ins, 0).shape, tuple(_ints(ins, 1))))


def _range(attrs: Mapping[str, Attr], ins: Ins) -> int:
    start, limit, step = (given(ins, i).item() for i in range(3))
    if not step or not all(map(math.isfinite, (start, limit, step))):
        raise ValueError(f"a range from {start} to {limit} by {step}")
    return int(max(math.ceil((limit - start) / step), 0))


def _pad(attrs: Mapping[str, Attr], ins: Ins) -> int:
    x = given(ins, 0)
    pads = [int(p) for p in attrs["pads"]] if "pads" in attrs else _ints(ins, 1)
    axes = [a % x.ndim for a in _ints(ins, 3)] if len(ins) > 3 and ins[3] is not None else list(range(x.ndim))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    shape = list(x.shape)
    for i, axis in enumerate(axes):
        shape[axis] += pads[i] + pads[len(axes) + i]
    return math.prod(max(d, 0) for d in shape)


def _resize(attrs: Mapping[str, Attr], ins: Ins) -> int:
    x = given(ins, 0)
    at = 2 if len(ins) > 2 else 1  # before operator set 11 there was no region of interest
    axes = [a % x.ndim for a in attrs.get("axes", range(x.ndim))]
    shape = [float(d) for d in x.shape]
    if len(ins) > 3 and ins[3] is not None and ins[3].size:
        new = [float(v) for v in _ints(ins, 3)]
    else:
        scales = attrs["scales"] if "scales" in attrs else given(ins, at).reshape(-1)
        new = [shape[a] * float(s) for a, s in zip(axes, scales, strict=True)]
    if not all(map(math.isfinite, new)):
        raise ValueError(f"sizes {new}")
    for axis, size in zip(axes, new, strict=True):
        shape[axis] = math.ceil(size)
    return int(math.prod(shape))


def in_time(kind: str, size: int, ins: Ins) -> bool:
    """Does the node take a moment only?"""
    if kind in ("MatMul", "Gemm"):
        return size * max(given(ins, 0).shape, default=1) <= WORK
    return kind not in SLOW or size + _joined({}, ins) <= LITTLE


def _table(size: Size, *kinds: str) -> dict[str, Size]:
    return dict.fromkeys(kinds, size)


SIZES: Mapping[str, Size] = {
    **_table(
        _same, "Abs", "Acos", "Acosh", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization",
        "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "DepthToSpace", "Elu", "Erf",
        "Exp", "EyeLike", "Flatten", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
        "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax",
        "LpNormalization", "Mish", "Neg", "Not", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
        "Reshape", "ReverseSequence", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid",
        "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze",
        "Tan", "Tanh", "ThresholdedRelu", "Transpose", "Trilu", "Unsqueeze",
    ),
    **_table(
        _broadcast, "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
        "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum",
        "Where", "Xor",
    ),
    **_table(_places, "Compress", "NonZero", "TopK", "Unique"),
    **_table(_product, "Gemm", "MatMul"), **_table(_resize, "Resize", "Upsample"),
    "Concat": _joined, "Constant": _constant, "Expand": _expand, "Gather": _gather, "GatherND": _gather_nd, "Pad": _pad,
    "Range": _range,
    "ConstantOfShape": lambda attrs, ins: math.prod(_ints(ins, 0)),
    "GatherElements": lambda attrs, ins: int(given(ins, 1).size),
    "OneHot": lambda attrs, ins: int(given(ins, 0).size) * int(given(ins, 1).reshape(-1)[0]),
    "Shape": lambda attrs, ins: int(given(ins, 0).ndim), "Size": lambda attrs, ins: 1,
    "Tile": lambda attrs, ins: int(given(ins, 0).size) * math.prod(_ints(ins, 1)),
}  # fmt: skip
