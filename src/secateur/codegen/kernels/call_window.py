"""The call of a kernel that reads and writes block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secateur.codegen.plan.placement import Placement, block_table
from secateur.codegen.plan.program import Argument, Frozen
from secateur.codegen.plan.tensors import Blocked

from .post_ops.plan import Epilogue


class Blockwise(Frozen, Protocol):
    """A spec whose kernel reads and writes block by block; ``table``: the blocks that it reads are looked up."""

    @property
    def table(self) -> bool: ...


def call_window(placement: Placement, spec: Blockwise, x: Blocked, out: Blocked,
                extra: Sequence[Argument], epilogue: Epilogue, label: str) -> None:  # fmt: skip
    """The call of a kernel that works block by block."""
    table = [block_table(x, 0, len(x.blocks))] if spec.table else []
    arguments: list[Argument] = [placement.start if spec.table else x.offset(0), *extra, *table]
    more, alive = epilogue.arguments(placement, 0, len(out.blocks))
    arguments += [*more, out.offset(0)]
    placement.program.tiled([spec], lambda choice: (spec, arguments), label, [b for b, _ in x.blocks] + alive)
