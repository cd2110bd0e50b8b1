"""Evaluating nodes whose inputs are all known: weights written as nodes, and shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from secateur.ir.graph import Array

LARGEST = 1 << 27  # elements; a folded tensor larger than this stays a node
LITTLE = 1 << 16  # elements in and out, for operators that the evaluator computes one element after the other
WORK = 1 << 32  # multiply-accumulates of a folded product
MADE, SHARE = 1 << 28, 16  # bytes that a conversion may make, and how many times the file's weights beside them

# Operators that NumPy computes in one go.
QUICK = frozenset(
    {"Abs", "Add", "And", "ArgMax", "ArgMin", "BitShift", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Concat",
     "Constant", "ConstantOfShape", "Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
     "Floor", "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity", "IsInf", "IsNaN",
     "Less", "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "OneHot",
     "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
     "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterND", "Shape", "Sigmoid", "Sign",
     "Sin", "Size", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu",
     "Unsqueeze", "Where", "Xor"}
)  # fmt: skip
BY_DATA = frozenset({"NonZero", "Compress", "Unique", "NonMaxSuppression"})  # sizes that only the data say
NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
     "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan", "Optional",
     "SequenceConstruct", "SequenceEmpty", "Dropout", "ImageDecoder", "RegexFullMatch"}
)  # fmt: skip
NEVER_PREFIX = ("QLinear", "Sequence", "Optional", "String")

Ins = Sequence[Array | None]
Fast = Callable[[Mapping[str, Any], Ins], Array]


def _some(ins: Ins, i: int) -> Array:
    found = ins[i]
    assert found is not None
    return found


def _constant(attrs: Mapping[str, Any], ins: Ins) -> Array:
    for key in ("value_float", "value_floats"):
        if key in attrs:
            return np.array(attrs[key], np.float32)
    for key in ("value_int", "value_ints"):
        if key in attrs:
            return np.array(attrs[key], np.int64)
    return np.asarray(attrs["value"].values)


def _constant_of_shape(attrs: Mapping[str, Any], ins: Ins) -> Array:
    value = np.asarray(attrs["value"].values).reshape(-1)[:1] if "value" in attrs else np.zeros(1, np.float32)
    shape = tuple(int(d) for d in _some(ins, 0))
    return np.full(shape, value[0], value.dtype)


def _gather(attrs: Mapping[str, Any], ins: Ins) -> Array:
    return np.asarray(np.take(_some(ins, 0), _some(ins, 1), axis=attrs.get("axis", 0)))


def _concat(attrs: Mapping[str, Any], ins: Ins) -> Array:
    return np.concatenate([_some(ins, i) for i in range(len(ins))], axis=attrs["axis"])


def _identity(attrs: Mapping[str, Any], ins: Ins) -> Array:
    return _some(ins, 0)


# The few that make up nearly all shape arithmetic; the rest goes through onnx's reference evaluator.
FAST: dict[str, Fast] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Gather": _gather, "Concat": _concat,
    "Identity": _identity,
    "Add": lambda a, i: np.asarray(_some(i, 0) + _some(i, 1)),
    "Sub": lambda a, i: np.asarray(_some(i, 0) - _some(i, 1)),
    "Mul": lambda a, i: np.asarray(_some(i, 0) * _some(i, 1)),
}  # fmt: skip


class Overgrown(Exception):
    """Folding would make more than there is room for; the message is the start of a sentence."""


@dataclass
class Room:
    """Bytes that one conversion may still make by folding: a small file must not grow without bound."""

    left: int = MADE

    @staticmethod
    def beside(weights: Iterable[Array]) -> Room:
        """Room for a file with these weights."""
        return Room(MADE + SHARE * sum(w.nbytes for w in weights))

    def take(self, made: int) -> None:
        """Use so many bytes up. Raises Overgrown where there are too few."""
        self.left -= made
        if self.left < 0:
            raise Overgrown(f"it makes a constant of {made} bytes, more than constants of this file may grow to")


def fold(proto: NodeProto, kind: str, attrs: Mapping[str, Any], ins: Ins, opset: int, room: Room) -> list[Array] | None:
    """The node's outputs, or None where it must stay a node.

    Raises Overgrown, and ValueError or IndexError for operands that do not fit.
    """
    if proto.domain not in ("", "ai.onnx") or kind in NEVER or kind.startswith(NEVER_PREFIX):
        return None
    if kind == "Constant" and not {"value", "value_float", "value_floats", "value_int", "value_ints"} & set(attrs):
        return None
    given = [i for i in ins if i is not None]
    if any(i.dtype == object for i in given):
        return None
    size = _size(proto, kind, attrs, ins, opset)
    if size is None or sum(i.size for i in given) > LARGEST:
        return None
    room.take(size * max((i.itemsize for i in given), default=4))
    if size > LARGEST or not _in_time(kind, size, given):
        return None
    with np.errstate(all="ignore"):
        return [FAST[kind](attrs, ins)] if kind in FAST else _evaluate(proto, ins, opset)


def _in_time(kind: str, size: int, given: Sequence[Array]) -> bool:
    """Does the node take a moment only?"""
    if kind in ("MatMul", "Gemm") and given:
        return size * max(given[0].shape, default=1) <= WORK
    return kind in QUICK or size + sum(i.size for i in given) <= LITTLE


def _size(proto: NodeProto, kind: str, attrs: Mapping[str, Any], ins: Ins, opset: int) -> int | None:
    """How many elements the node's outputs have, before they are computed; None where nothing tells."""
    if kind == "Constant":
        return int(np.size(attrs["value"].values)) if "value" in attrs else 1
    if kind == "ConstantOfShape":
        return math.prod(int(d) for d in _some(ins, 0))
    if kind == "Gather":
        x, axis = _some(ins, 0), attrs.get("axis", 0)
        return int(x.size // max(x.shape[axis], 1) * int(_some(ins, 1).size))
    if kind in ("Add", "Sub", "Mul"):
        return math.prod(np.broadcast_shapes(_some(ins, 0).shape, _some(ins, 1).shape))
    if kind in ("Concat", "Identity", *BY_DATA):
        return sum(i.size * max(i.ndim, 1) for i in ins if i is not None)
    return _inferred(proto, ins, opset)


def _inferred(proto: NodeProto, ins: Ins, opset: int) -> int | None:
    """The elements of all outputs by ONNX's own shape inference."""
    types, data = {}, {}
    for name, array in zip(proto.input, ins, strict=True):
        if name and array is not None:
            element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            types[name] = onnx.helper.make_tensor_type_proto(element, array.shape)
            if array.size <= 1024:
                data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
    except Exception:  # inference raises several types of its own; without an answer the node stays
        return None
    total = 0
    for name in filter(None, proto.output):
        tensor = found[name].tensor_type if name in found else None
        if tensor is None or not tensor.HasField("shape"):
            return None
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if any(d < 0 for d in dims):
            return None
        total += math.prod(dims)
    return total


def _evaluate(proto: NodeProto, ins: Ins, opset: int) -> list[Array] | None:
    """The outputs by ONNX's reference evaluator."""
    feeds = {n: a for n, a in zip(proto.input, ins, strict=True) if n and a is not None}
    try:
        graph = onnx.helper.make_graph(
            [proto], "fold",
            [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in feeds],
            [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in proto.output if n],
        )  # fmt: skip
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # the evaluator raises whatever its Python code meets; the node simply stays
        return None
    found = iter(results)
    folded = [np.asarray(next(found)) if n else np.zeros(0) for n in proto.output]
    return folded if all(a.dtype != object for a in folded) else None
