"""Along the channels: softmax and norms of rows; products of computed tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.fusion import Chain
from secateur.codegen.layout import Layout, strides
from secateur.codegen.packing import merge
from secateur.codegen.specs import PostOp, Strides
from secateur.codegen.specs_fixed import MatmulSpec, RowSpec
from secateur.codegen.tensors import Blocked, Plane, natural_channels

from .conv import linear
from .epilogue import Epilogue, flows, per_lane, plan_epilogue
from .window import call_window, mean

AFFINE = (("mul", 1), ("add", 2))  # what a norm does with its inputs behind the first


def reduce(layout: Layout, chain: Chain) -> Blocked:
    """A mean, sum or maximum: over the channels of each pixel, or over all pixels."""
    node = chain.head
    axis, rank = layout.forms.axes[node.inputs[0] or ""], len(layout.graph.value(node.inputs[0] or "").shape)
    over = {a % rank for a in node.attrs["axes"]}
    return rows(layout, chain) if axis in over else mean(layout, chain)


def rows(layout: Layout, chain: Chain) -> Blocked:
    """Softmax, layer norm or RMS norm along the value's channels, or one number for all of them."""
    node, weights = chain.head, layout.graph.weights
    x = layout.get_blocked(node.inputs[0] or "", layout.forms.axes[node.name])
    natural = natural_channels(x.width, layout.lanes)
    if not np.array_equal(x.channels >= 0, natural >= 0):
        x = layout.relayout(x, 0, natural)
    out = layout.new_blocked(chain.last.name, None if node.op.startswith("reduce_") else x.channels)
    affine = [(op, node.inputs[i]) for op, i in AFFINE if i < len(node.inputs) and node.inputs[i] is not None]
    own = Epilogue(
        tuple(PostOp(op, operand="const") for op, _ in affine),
        tuple((per_lane(layout, weights[name or ""], out.channels),) for _, name in affine),
    )
    epilogue = own.then(plan_epilogue(layout, flows(node.name, chain.tail), out))
    spec = merge(RowSpec(
        node.op, layout.lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, x.width,
        strides(x.plane), strides(out.plane), not x.contiguous, float(node.attrs.get("eps", 0.0)), epilogue.steps,
        layout.threads,
    ))  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


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
