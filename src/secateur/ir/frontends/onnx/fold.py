"""Evaluating nodes whose inputs are all known: weights written as nodes, and shape arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from secateur.ir.graph import Array, Attr

from .fold_sizes import SIZES, Ins, given, in_time

LARGEST = 1 << 27  # elements; a folded tensor larger than this stays a node
MADE, SHARE = 1 << 28, 16  # bytes that a conversion may make, and how many times the file's weights besides them


Fast = Callable[[Mapping[str, Attr], Ins], Array]


def _constant(attrs: Mapping[str, Attr], ins: Ins) -> Array:
    for key in ("value_float", "value_floats"):
        if key in attrs:
            return np.array(attrs[key], np.float32)
    for key in ("value_int", "value_ints"):
        if key in attrs:
            return np.array(attrs[key], np.int64)
    return np.asarray(attrs["value"].values)


def _constant_of_shape(attrs: Mapping[str, Attr], ins: Ins) -> Array:
    value = np.asarray(attrs["value"].values).reshape(-1)[:1] if "value" in attrs else np.zeros(1, np.float32)
    shape = tuple(int(d) for d in given(ins, 0))
    return np.full(shape, value[0], value.dtype)


def _gather(attrs: Mapping[str, Attr], ins: Ins) -> Array:
    return np.asarray(np.take(given(ins, 0), given(ins, 1), axis=attrs.get("axis", 0)))


def _concat(attrs: Mapping[str, Attr], ins: Ins) -> Array:
    return np.concatenate([given(ins, i) for i in range(len(ins))], axis=attrs["axis"])


def _identity(attrs: Mapping[str, Attr], ins: Ins) -> Array:
    return given(ins, 0)


# The few that make up nearly all shape arithmetic; the rest goes through onnx's reference evaluator.
FAST: dict[str, Fast] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Gather": _gather, "Concat": _concat,
    "Identity": _identity,
    "Add": lambda a, i: np.asarray(given(i, 0) + given(i, 1)),
    "Sub": lambda a, i: np.asarray(given(i, 0) - given(i, 1)),
    "Mul": lambda a, i: np.asarray(given(i, 0) * given(i, 1)),
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


def fold(
    proto: NodeProto, kind: str, attrs: Mapping[str, Attr], ins: Ins, opset: int, room: Room
) -> list[Array] | None:
    """The node's outputs, or None where it must stay a node.

    Raises Overgrown, and ValueError or IndexError for operands that do not fit.
    """
    if proto.domain not in ("", "ai.onnx") or kind not in SIZES:
        return None
    if kind == "Constant" and not {"value", "value_float", "value_floats", "value_int", "value_ints"} & set(attrs):
        return None
    known = [i for i in ins if i is not None]
    if any(i.dtype == object for i in known) or sum(i.size for i in known) > LARGEST:
        return None
    size = max(SIZES[kind](attrs, ins), 0)
    room.take(size * max((i.itemsize for i in known), default=4))
    if size > LARGEST or not in_time(kind, size, ins):
        return None
    with np.errstate(all="ignore"):
        return [FAST[kind](attrs, ins)] if kind in FAST else _evaluate(proto, ins, opset)


def _evaluate(proto: NodeProto, ins: Ins, opset: int) -> list[Array] | None:
    """The outputs by ONNX's reference evaluator."""
    from onnx.reference import ReferenceEvaluator  # every operator of ONNX in Python, and few files need any

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
