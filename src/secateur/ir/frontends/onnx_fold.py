"""Evaluating nodes whose inputs are all known: weights written as nodes, and shape arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from secateur.ir.graph import Array

LARGEST = 1 << 27  # elements; a folded tensor larger than this stays a node
NEVER = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
     "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan", "Optional",
     "SequenceConstruct", "SequenceEmpty", "Dropout"}
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


def fold(proto: NodeProto, kind: str, attrs: Mapping[str, Any], ins: Ins, opset: int) -> list[Array] | None:
    """The node's outputs, or None where it must stay a node."""
    if proto.domain not in ("", "ai.onnx") or kind in NEVER or kind.startswith(NEVER_PREFIX):
        return None
    if kind == "ConstantOfShape" and np.prod(_some(ins, 0), dtype=np.float64) > LARGEST:
        return None
    if kind == "Constant" and not {"value", "value_float", "value_floats", "value_int", "value_ints"} & set(attrs):
        return None
    if kind in FAST:
        return [FAST[kind](attrs, ins)]
    if sum(i.size for i in ins if i is not None) > LARGEST:
        return None
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
