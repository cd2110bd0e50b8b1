"""What is done to a vector before a kernel writes it: plain frozen data, part of the kernel's spec."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.ir.graph import Attr

from .strides import Strides

# Element-wise operators the templates can apply to a vector (``maths`` holds a row for each).
FUSABLE_UNARY = frozenset(
    {"relu", "clip", "sigmoid", "tanh", "silu", "mish", "erf", "exp", "sqrt", "rsqrt", "neg", "abs", "floor", "ceil",
     "reciprocal", "softsign", "hard_swish", "hard_sigmoid", "gelu", "elu", "celu", "selu", "leaky_relu"}
)  # fmt: skip
FUSABLE_BINARY = frozenset({"add", "sub", "mul", "div", "minimum", "maximum"})


@dataclass(frozen=True)
class PostOp:
    """One operator on what a kernel is about to write: ``op(value)``, ``op(value, operand)`` or swapped.

    ``operand``: "" none; "full" a tensor of the same spatial extent with ``strides`` (0 where it is repeated); "vector"
    one number per batch entry and channel with ``strides``; "pixel" one number per pixel for all channels; "const" one
    weight per channel; "earlier" what the value was after ``earlier`` post-ops. ``table``: the operand's blocks are
    looked up.
    """

    op: str
    attrs: tuple[tuple[str, Attr], ...] = ()
    operand: str = ""
    strides: Strides | None = None
    table: bool = False
    swapped: bool = False
    earlier: int = 0
