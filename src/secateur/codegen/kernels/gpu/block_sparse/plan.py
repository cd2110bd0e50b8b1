"""Block-sparse weights as an alternative to a dense convolution on planes: where they fit, arguments of the call."""

from __future__ import annotations

import numpy as np

from secateur.codegen.kernels.block_sparse.packing import PIECES, nonzero_blocks, pack_blocks
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.tensors import Blocked, Floats, Ints
from secateur.codegen.targets import Target

from .spec import AHEAD, HEIGHTS, SHARED, GpuSparseChoice, GpuSparseSpec

SURE = 1.25  # times as fast must counting promise to be, since no GPU was measured
MOST = 0.9  # of the blocks: with more, nothing is gained
BITS = 31  # taps of which a work item knows which lie inside of the image


def alternatives(spec: GpuConvSpec, x: Blocked, reads: Ints, weight: Floats,
                 target: Target) -> tuple[GpuSparseSpec, ...]:  # fmt: skip
    """The spec with the height of blocks that is counted fastest, if it is surely faster than the dense one."""
    if spec.groups > 1 or not weight.size or (any(spec.checks) and spec.taps > BITS):
        return ()
    works = []
    for height in (h for h in HEIGHTS if not spec.few or h * spec.pixels <= SHARED):
        kept = nonzero_blocks(_whole(weight, height), height).reshape(-(-spec.co // height), -1)
        if kept.mean() <= MOST:
            works.append(GpuSparseSpec.of(spec, height, int(kept.sum()), int(kept.sum(1).max())))
    best = min(works, key=lambda work: work.estimate(target), default=None)
    return () if best is None or SURE * best.estimate(target) > spec.estimate(target) else (best,)


def arguments(placement: Placement, spec: GpuSparseSpec, choice: GpuSparseChoice, x: Blocked, reads: Ints,
              weight: Floats, bias: Weight, corner: int) -> list[Argument]:  # fmt: skip
    """What the call begins with: the arena, weights of kept blocks, bias, and tables (``template.tables``).

    Of each row of blocks, the longest first, its number and where its blocks begin and end; of each block where in the
    arena its input lies, and where taps may lie outside of the image its tap.
    """
    packed = pack_blocks(_whole(weight, spec.height), spec.height)
    rows, order = in_fours(packed.starts[::PIECES])
    tap, channel = packed.tap[order], packed.channel[order]
    row, column = np.divmod(tap, spec.kernel[1])
    x_at = spec.x
    inside = row * spec.dilation[0] * x_at.row + column * spec.dilation[1] * x_at.column
    places = tuple(x.offset(int(p)) for p in reads)
    tables = [Table(rows.reshape(-1)), Table(inside, None, places, channel)]
    if any(spec.checks):
        tables.append(Table(tap))
    if not len(order):  # tables are not empty
        tables = [tables[0], *(Table((0,)) for _ in tables[1:])]
    kept = packed.weight[order]
    kept[1:][order[1:] == order[:-1]] = 0  # a row is filled up with its last block
    w = placement.program.weight(kept.reshape(-1) if kept.size else np.zeros(spec.height, np.float32))
    return [placement.start, w, bias, *tables]


def in_fours(edges: Ints) -> tuple[Ints, Ints]:
    """Rows of blocks between these edges, filled up to whole fours by repeating the last of each.

    Returns [rows, 3], the longest first: the number of a row, where its blocks begin and end; and by place the block.
    """
    counts = np.diff(edges)
    whole = -(-counts // AHEAD) * AHEAD
    ends = np.cumsum(whole)
    inside = np.arange(int(whole.sum())) - np.repeat(ends - whole, whole)
    order = np.repeat(edges[:-1], whole) + np.minimum(inside, np.repeat(counts - 1, whole))
    first = np.argsort(-whole, kind="stable")
    return np.stack([first, (ends - whole)[first], ends[first]], 1), order


def _whole(weight: Floats, height: int) -> Floats:
    """With outputs filled up to whole blocks."""
    return np.pad(weight, ((0, -len(weight) % height), (0, 0), (0, 0), (0, 0)))
