"""The call of a kernel that reads and writes block by block."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.codegen.plan.placement import Layout, block_table
from secateur.codegen.plan.program import Argument
from secateur.codegen.plan.tensors import Blocked

from .elementwise.spec import MapSpec, MeanSpec
from .post_ops.plan import Epilogue
from .resize.spec import ResizeSpec
from .rows.spec import RowSpec
from .window.spec import WindowSpec


def call_window(layout: Layout, spec: WindowSpec | MapSpec | MeanSpec | ResizeSpec | RowSpec, x: Blocked, out: Blocked,
                extra: Sequence[Argument], epilogue: Epilogue, label: str) -> None:  # fmt: skip
    """The call of a kernel that works block by block."""
    table = [block_table(x, 0, len(x.blocks))] if spec.table else []
    arguments: list[Argument] = [layout.start if spec.table else x.offset(0), *extra, *table]
    more, alive = epilogue.arguments(layout, 0, len(out.blocks))
    arguments += [*more, out.offset(0)]
    layout.program.call(spec, layout.choose(spec), arguments, label, [b for b, _ in x.blocks] + alive)
