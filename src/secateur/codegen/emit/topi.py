"""Operators on row-major tensors through TVM's operator library (TOPI): correct if slow.

A rule gets the node's spec and its input tensors and returns the output tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import tvm
from tvm import te, tirx, topi

from secateur.codegen.plan.program import TensorSpec
from secateur.ir import Unsupported
from secateur.ir.graph import NUMPY_NAMES

from .builder import private
from .machine_code import BLOCKS
from .topi_compute import COMPUTE
from .topi_math import MATH, Rule
from .topi_moves import MOVES
from .topi_onnx import ONNX
from .types import Function, Tensor


def build_tensor_op(spec: TensorSpec) -> Function:
    """The kernel ``(inputs.., outputs..)``."""
    rule = RULES.get(spec.op)
    if rule is None:
        raise Unsupported(f"operator {spec.op} has no code generation; run this network in ONNX Runtime or torch")
    inputs = [None if i is None else te.placeholder(i[0], _dtype(i[1]), f"in{n}") for n, i in enumerate(spec.inputs)]
    made = rule(spec, inputs, dict(spec.attrs))
    outs = list(made) if isinstance(made, (list, tuple)) else [made]
    outs = [_as(o, shape, _dtype(dtype)) for o, (shape, dtype) in zip(outs, spec.outputs, strict=True)]
    given = [i for i in inputs if i is not None]
    outs = [_copy(o) if any(o is g for g in given) else o for o in outs]
    return _with_pointers(te.create_prim_func([*given, *outs]))


def _dtype(short: str) -> str:
    return "bool" if short == "b1" else NUMPY_NAMES[short]


def _as(tensor: Tensor, shape: tuple[int, ...], dtype: str) -> Tensor:
    tensor = tensor if str(tensor.dtype) == dtype else topi.cast(tensor, dtype)
    return tensor if tuple(int(d) for d in tensor.shape) == shape else topi.reshape(tensor, shape)


def _copy(tensor: Tensor) -> Tensor:
    return te.compute(tensor.shape, lambda *i: tensor(*i), "copy")


def _with_pointers(function: Function) -> Function:
    """Parameters as bare pointers instead of tensor handles, so that ``main`` can call it directly."""
    pointers, declared = [], []
    for i, buffer in enumerate(function.params):
        kind = tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)), "global")
        pointer = tirx.Var(f"p{i}", kind)
        pointers.append(pointer)
        declared.append(tirx.DeclBuffer(buffer, data=pointer))
    return private(pointers, [*declared, function.body]).with_attr(BLOCKS, True)


RULES: Mapping[str, Rule] = MappingProxyType(
    {**COMPUTE, **MOVES, **MATH, **ONNX, "cast": lambda s, x, a: topi.cast(x[0], _dtype(s.outputs[0][1]))}
)
