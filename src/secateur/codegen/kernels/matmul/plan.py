"""Products of two computed tensors, planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from secateur.codegen.kernels.conv.plan import linear
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Forms, broadcast
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Layout, strides
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Blocked, Plane, natural_channels
from secateur.ir import Node

from .spec import MatmulSpec


def matmul(layout: Layout, chain: Chain) -> Blocked:
    """Left rows times a right operand whose channels are the columns of the result."""
    node, graph = chain.head, layout.graph
    if node.inputs[1] in graph.weights:
        return linear(layout, chain)
    left, right = (_operand(layout, name or "") for name in node.inputs)
    left = left if left.natural else layout.relayout(left, 0, natural_channels(left.width, layout.lanes))
    out = _result(layout, chain, right)
    epilogue = plan_epilogue(layout, flows(node.name, chain.tail), out)
    n, h, m = out.plane.n, out.plane.h, out.plane.w
    shapes = [strides(t.plane) for t in (left, right)]
    x, w = (replace(s, image=0 if t.plane.n == 1 != n else s.image, row=0 if t.plane.h == 1 != h else s.row)
            for s, t in zip(shapes, (left, right), strict=True))  # fmt: skip
    y, steps = strides(out.plane), epilogue.steps
    if len(node.out.shape) == 2:  # the pictures of [rows, columns] are images of one pixel
        n, m = 1, n
        x, w, y = _as_column(x), _as_column(w), _as_column(y)
        steps = tuple(replace(s, strides=_as_column(s.strides)) if s.strides else s for s in steps)
    spec = MatmulSpec(layout.lanes, n, h, m, left.width, len(out.blocks), x, w, y, steps, layout.threads)
    more, alive = epilogue.arguments(layout, 0, len(out.blocks))
    layout.program.call(spec, None, [left.offset(0), right.offset(0), *more, out.offset(0)], node.label,
                        [b for t in (left, right) for b, _ in t.blocks] + alive)  # fmt: skip
    return out


def _operand(layout: Layout, name: str) -> Blocked:
    """In blocks with the last axis as channels, the blocks one after another."""
    x = layout.get_blocked(name, len(layout.graph.value(name).shape) - 1)
    return x if x.contiguous else layout.relayout(x, 0, x.channels)


def _as_column(s: Strides) -> Strides:
    return Strides(s.block, 0, 0, s.image)


def _result(layout: Layout, chain: Chain, right: Blocked) -> Blocked:
    """Blocks for the product; those of several heads stand side by side if they are joined behind it."""
    name = chain.last.name
    readers = layout.graph.users.get(name, [])
    joined = [r.op == "transpose" and tuple(r.attrs["perm"])[-2:] == (1, 3) for r in readers]
    if not joined or not all(joined) or right.width % layout.lanes or not right.natural:
        return layout.new_blocked(name, right.channels)
    n, c, h, w = layout.forms.picture(name)
    lanes, count = layout.lanes, c // layout.lanes
    block = n * w * lanes
    buffer = layout.program.arena.new(h * count * block, True)
    plane = Plane(n, h, w, 0, lanes, (block, w * lanes, count * block, lanes))
    return Blocked(plane, tuple((buffer, i * block) for i in range(count)), right.channels)


def _operands(forms: Forms, node: Node, shape: tuple[int, ...]) -> bool:
    """Of two computed operands with as many axes as the result, or with a constant matrix on the right."""
    right, rank = node.inputs[1] or "", len(node.out.shape)
    other = forms.graph.value(right).shape
    if right in forms.graph.weights:
        return len(other) == 2 and len(shape) > 1 and forms.graph.value(right).dtype == "f32"
    if not forms.blockable(right) or not len(shape) == len(other) == rank >= 2:
        return False
    batch = node.out.shape[:-2]
    return all(broadcast((*s[:-2], 1, 1), (*batch, 1, 1), rank - 1) is not None for s in (shape, other))


HEADS: Mapping[str, Head] = MappingProxyType({"matmul": Head(_operands, matmul)})
