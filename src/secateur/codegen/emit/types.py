"""What TVM calls the pieces that kernels are written of. TVM brings no types for checkers: these are for readers."""

from __future__ import annotations

from typing import TypeAlias

import tvm
from tvm import te, tirx

Expr: TypeAlias = tvm.ir.Expr  # a number or a vector
Stmt: TypeAlias = tirx.Stmt
Var: TypeAlias = tirx.Var
Buffer: TypeAlias = tirx.Buffer
Function: TypeAlias = tirx.PrimFunc
Tensor: TypeAlias = te.Tensor  # of TVM's operator library
