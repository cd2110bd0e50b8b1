"""Linear and cubic resizing of pictures. (To the nearest pixel is movement, see ``movement``.)"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Forms
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Layout, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.sampling import Taps, taps
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Node

from .spec import ResizeSpec


def resize(layout: Layout, chain: Chain) -> Blocked:
    """[n, c, h, w] to another height and width."""
    node = chain.head
    name = node.inputs[0] or ""
    x = layout.together(name, layout.get_blocked(name, 1))
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, flows(node.name, chain.tail), out)
    after = (out.plane.h, out.plane.w)
    steps = (x.plane.row, x.plane.column)
    sizes = tuple(map(int, layout.graph.value(name).shape)), tuple(map(int, node.out.shape))
    by_axis = [one or _same(size) for one, size in zip(taps(node.attrs, *sizes)[2:], after, strict=True)]
    tables: list[Argument] = []
    for axis, step in zip(by_axis, steps, strict=True):
        tables.append(Table(np.array([[at * step for at, _ in one] for one in axis], np.int64).reshape(-1)))
        tables.append(layout.program.weight(np.array([[w for _, w in one] for one in axis], np.float32)))
    spec = ResizeSpec(
        layout.lanes, out.plane.n, len(out.blocks), *after, (len(by_axis[0][0]), len(by_axis[1][0])), strides(x.plane),
        strides(out.plane), not x.contiguous, epilogue.steps, layout.threads,
    )  # fmt: skip
    call_window(layout, spec, x, out, tables, epilogue, node.label)
    return out


def _same(size: int) -> Taps:
    return [[(i, 1.0)] for i in range(size)]


def _sums(forms: Forms, node: Node, shape: tuple[int, ...]) -> bool:
    """Resizing of pictures by sums of neighbours; to the nearest pixel is movement."""
    return len(shape) == 4 and node.attrs["mode"] != "nearest" and node.out.shape[:2] == shape[:2]


HEADS: Mapping[str, Head] = MappingProxyType({"resize": Head(_sums, resize)})
