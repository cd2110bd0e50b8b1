"""Products of two computed tensors, planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from secateur.codegen.kernels.conv.plan import linear
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Axes, broadcast
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Blocked, Extent, natural_channels
from secateur.ir import Node

from .spec import MatmulSpec


def matmul(placement: Placement, chain: Chain) -> Blocked:
    """Left rows times a right operand whose channels are the columns of the result."""
    node, graph = chain.head, placement.graph
    if node.inputs[1] in graph.weights:
        return linear(placement, chain)
    left, right = (_operand(placement, name or "") for name in node.inputs)
    left = left if left.natural else placement.relayout(left, 0, natural_channels(left.width, placement.lanes))
    out = _result(placement, chain, right)
    epilogue = plan_epilogue(placement, flows(node.name, chain.tail), out)
    n, h, m = out.extent.n, out.extent.h, out.extent.w
    shapes = [strides(t.extent) for t in (left, right)]
    x, w = (replace(s, image=0 if t.extent.n == 1 != n else s.image, row=0 if t.extent.h == 1 != h else s.row)
            for s, t in zip(shapes, (left, right), strict=True))  # fmt: skip
    y, post_ops = strides(out.extent), epilogue.post_ops
    if len(node.out.shape) == 2:  # [rows, columns] are batch entries of one pixel
        n, m = 1, n
        x, w, y = _as_column(x), _as_column(w), _as_column(y)
        post_ops = tuple(replace(s, strides=_as_column(s.strides)) if s.strides else s for s in post_ops)
    spec = MatmulSpec(placement.lanes, n, h, m, left.width, len(out.blocks), x, w, y, post_ops, placement.threads)
    more, alive = epilogue.arguments(placement, 0, len(out.blocks))
    placement.program.call(spec, None, [left.offset(0), right.offset(0), *more, out.offset(0)], node.label,
                        [b for t in (left, right) for b, _ in t.blocks] + alive)  # fmt: skip
    return out


def _operand(placement: Placement, name: str) -> Blocked:
    """In blocks with the last axis as channels, the blocks one after another."""
    x = placement.get_blocked(name, len(placement.graph.value(name).shape) - 1)
    return x if x.contiguous else placement.relayout(x, 0, x.channels)


def _as_column(s: Strides) -> Strides:
    return Strides(s.block, 0, 0, s.image)


def _result(placement: Placement, chain: Chain, right: Blocked) -> Blocked:
    """Blocks for the product; those of several heads stand side by side if they are joined after it."""
    name = chain.last.name
    readers = placement.graph.users.get(name, [])
    joined = [r.op == "transpose" and tuple(r.attrs["perm"])[-2:] == (1, 3) for r in readers]
    if not joined or not all(joined) or right.width % placement.lanes or not right.natural:
        return placement.new_blocked(name, right.channels)
    n, c, h, w = placement.axes.nchw(name)
    lanes, count = placement.lanes, c // placement.lanes
    block = n * w * lanes
    buffer = placement.program.arena.new(h * count * block, True)
    extent = Extent(n, h, w, 0, lanes, (block, w * lanes, count * block, lanes))
    return Blocked(extent, tuple((buffer, i * block) for i in range(count)), right.channels)


def operands(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    """Of two computed operands with as many axes as the result, or with a constant matrix on the right."""
    right, rank = node.inputs[1] or "", len(node.out.shape)
    other = axes.graph.value(right).shape
    if right in axes.graph.weights:
        return len(other) == 2 and len(shape) > 1 and axes.graph.value(right).dtype == "f32"
    if not axes.blockable(right) or not len(shape) == len(other) == rank >= 2:
        return False
    batch = node.out.shape[:-2]
    return all(broadcast((*s[:-2], 1, 1), (*batch, 1, 1), rank - 1) is not None for s in (shape, other))


HEADS: Mapping[str, Head] = MappingProxyType({"matmul": Head(operands, matmul)})
