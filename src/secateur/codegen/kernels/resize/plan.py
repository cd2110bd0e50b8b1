"""Linear and cubic resizing. (To the nearest pixel is a copy, see ``plan.moves``.)"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Axes
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.sampling import Taps, taps
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Node

from .spec import ResizeSpec


def resize(placement: Placement, chain: Chain) -> Blocked:
    """[n, c, h, w] to another height and width."""
    node = chain.head
    name = node.inputs[0] or ""
    x = placement.compacted(name, placement.get_blocked(name, 1))
    out = placement.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(placement, flows(node.name, chain.tail), out)
    after = (out.extent.h, out.extent.w)
    steps = (x.extent.row, x.extent.column)
    sizes = tuple(map(int, placement.graph.value(name).shape)), tuple(map(int, node.out.shape))
    by_axis = [one or _same(size) for one, size in zip(taps(node.attrs, *sizes)[2:], after, strict=True)]
    tables: list[Argument] = []
    for axis, step in zip(by_axis, steps, strict=True):
        tables.append(Table(np.array([[at * step for at, _ in one] for one in axis], np.int64).reshape(-1)))
        tables.append(placement.program.weight(np.array([[w for _, w in one] for one in axis], np.float32)))
    spec = ResizeSpec(
        placement.lanes, out.extent.n, len(out.blocks), *after, (len(by_axis[0][0]), len(by_axis[1][0])),
        strides(x.extent), strides(out.extent), not x.contiguous, epilogue.post_ops, placement.threads,
    )  # fmt: skip
    call_window(placement, spec, x, out, tables, epilogue, node.label)
    return out


def _same(size: int) -> Taps:
    return [[(i, 1.0)] for i in range(size)]


def _sums(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    """Resizing by sums of neighbours; to the nearest pixel is a copy."""
    return len(shape) == 4 and node.attrs["mode"] != "nearest" and node.out.shape[:2] == shape[:2]


HEADS: Mapping[str, Head] = MappingProxyType({"resize": Head(_sums, resize)})
