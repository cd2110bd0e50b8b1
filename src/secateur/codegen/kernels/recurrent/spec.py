"""LSTM and GRU, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.codegen.plan.strides import Strides


@dataclass(frozen=True)
class RecurrentSpec:
    """The steps of an LSTM or GRU in one direction; ``gates`` is what the input adds, of all steps.

    ``first``, ``y`` and ``state`` are the strides of the first state, the results (images are steps) and the last
    state. ``reset_after``: a GRU's reset gate scales the products, not the state. ``sparse``: recurrent weights that
    are zero are left out, in "blocks" (``packing.Kept``) or in any pattern in "rows" (``row_sparse.packing.Rows``), of
    which some lie by ``powers``.
    """

    kind: str
    lanes: int
    steps: int
    batch: int
    hidden: int
    blocks: int
    gates: Strides
    first: Strides
    y: Strides
    state: Strides
    reverse: bool = False
    reset_after: bool = False
    sparse: Literal["", "blocks", "rows"] = ""
    powers: tuple[int, ...] = ()
