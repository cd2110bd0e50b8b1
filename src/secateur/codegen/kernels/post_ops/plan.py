"""What a kernel does to a vector before it writes it, planned: post_ops, and the arguments they bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.plan.axes import Sizes, broadcast
from secateur.codegen.plan.fusion import Operand, operand
from secateur.codegen.plan.placement import Placement, block_table, strides
from secateur.codegen.plan.post_ops import FUSABLE_BINARY, PostOp
from secateur.codegen.plan.program import Argument, Table, Weight
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import AnyArray, Blocked, Buffer, Ints
from secateur.ir import Graph, Node

Flow = tuple[Node, str | None]  # a node, and the name of the value that flows through it
UNBOUNDED = frozenset({"div", "reciprocal", "rsqrt", "sqrt"})  # may not be finite in lanes that hold nothing
Planned = tuple[PostOp, tuple[Weight | Blocked, ...]]


@dataclass(frozen=True)
class Epilogue:
    """Steps, and the operand of each."""

    post_ops: tuple[PostOp, ...]
    operands: tuple[tuple[Weight | Blocked, ...], ...]

    def then(self, later: Epilogue) -> Epilogue:
        """Both, one after the other."""
        before = len(self.post_ops)
        post_ops = (replace(s, earlier=s.earlier + before) if s.operand == "earlier" else s for s in later.post_ops)
        return Epilogue((*self.post_ops, *post_ops), self.operands + later.operands)

    def sampled(self, first: tuple[int, int], stride: tuple[int, int]) -> Epilogue:
        """What belongs to every ``stride``-th row and column of the result from ``first`` on."""
        post_ops, operands = [], []
        for post_op, others in zip(self.post_ops, self.operands, strict=True):
            s = post_op.strides
            if s is not None:
                shift = first[0] * s.row + first[1] * s.column
                post_op = replace(post_op, strides=replace(s, row=s.row * stride[0], column=s.column * stride[1]))
                others = tuple(_shifted(o, shift) for o in others)
            post_ops.append(post_op)
            operands.append(others)
        return Epilogue(tuple(post_ops), tuple(operands))

    def arguments(self, placement: Placement, first: int, count: int) -> tuple[list[Argument], list[Buffer]]:
        """What they add to the call for a run of output blocks, and the buffers that must stay alive for it."""
        arguments: list[Argument] = []
        alive: list[Buffer] = []
        for post_op, (other, *_) in ((s, o) for s, o in zip(self.post_ops, self.operands, strict=True) if o):
            if isinstance(other, Weight):
                skipped = placement.lanes if post_op.strides is None else post_op.strides.block
                arguments.append(other.at(first * skipped * 4))
                continue
            if post_op.table:
                arguments += [placement.start, block_table(other, first, count)]
            else:
                at = int(other.places()[0]) if post_op.operand == "pixel" else first * placement.lanes
                arguments.append(other.offset(at))
            alive += [b for b, _ in other.blocks]
        return arguments, alive

    def looked_up(self, placement: Placement, places: Ints) -> tuple[tuple[PostOp, ...], list[Argument], list[Buffer]]:
        """For a kernel that looks up where each piece of every tensor begins: post_ops, arguments, buffers."""
        post_ops: list[PostOp] = []
        arguments: list[Argument] = []
        alive: list[Buffer] = []
        for post_op, other in zip(self.post_ops, self.operands, strict=True):
            tensors = [x for x in other if isinstance(x, Blocked)]
            post_ops.append(replace(post_op, table=bool(tensors)))
            arguments += [x for x in other if isinstance(x, Weight)]
            for x in tensors:
                arguments += [placement.start, Table(tuple(x.offset(int(p)) for p in places))]
                alive += [b for b, _ in x.blocks]
        return tuple(post_ops), arguments, alive


def _shifted(x: Weight | Blocked, floats: int) -> Weight | Blocked:
    """The same, seen from a later pixel."""
    if isinstance(x, Weight):
        return x.at(4 * floats)
    return replace(x, blocks=tuple((b, at + floats) for b, at in x.blocks))


def flows(first: str, tail: Sequence[Node]) -> list[Flow]:
    """Each node of a tail with the value that flows into it."""
    return list(zip(tail, [first, *(n.name for n in tail)], strict=False))


def plan_epilogue(placement: Placement, tail: Sequence[Flow], out: Blocked, order: Ints | None = None) -> Epilogue:
    """Steps for the nodes of a tail. ``order``: the channels as the kernel counts them, if not lane by lane."""
    order = out.channels if order is None else order
    planned: list[Planned] = []
    done: dict[str | None, int] = {}  # how many post_ops made each value of the chain
    for node, flow in tail:
        done[flow] = len(planned)
        planned += _post_ops(placement, node, flow, out, done, order)
    if np.any(order < 0) and any(post_op.op in UNBOUNDED for post_op, _ in planned):
        planned.append((PostOp("keep", operand="const"), (per_lane(placement, np.ones(1), order),)))
    return Epilogue(tuple(s for s, _ in planned), tuple(o for _, o in planned))


def others(placement: Placement, tail: Sequence[Flow]) -> list[tuple[str, Operand]]:
    """What a tail joins with the result: names that are not of the chain itself, each with its class."""
    chain = {flow for _, flow in tail}
    found = []
    for node, _ in tail:
        for name in node.inputs if node.op in FUSABLE_BINARY else ():
            how = operand(placement.axes, name, node.out.name)
            if name is not None and name not in chain and how is not None:
                found.append((name, how))
    return found


def partner(placement: Placement, tail: Sequence[Flow]) -> Blocked | None:
    """The first tensor that is joined with the result pixel by pixel: the result may as well lie like it."""
    for name, how in others(placement, tail):
        same = tail[-1][0].out
        if (
            how.kind == "full"
            and name not in placement.graph.weights
            and placement.graph.value(name).shape == same.shape
        ):
            return placement.get_blocked(name, placement.axes.channel[same.name])
    return None


def _post_ops(placement: Placement, node: Node, flow: str | None, out: Blocked, done: dict[str | None, int],
           order: Ints) -> list[Planned]:  # fmt: skip
    weights = placement.graph.weights

    def const(op: str, values: AnyArray, swapped: bool = False) -> Planned:
        return PostOp(op, operand="const", swapped=swapped), (per_lane(placement, values, order),)

    if node.op == "batch_norm":
        scale, shift = affine(placement.graph, node)
        return [const("mul", scale), const("add", shift)]
    if node.op == "prelu":
        return [const("prelu", weights[node.inputs[1] or ""])]
    if len(node.inputs) == 1:
        return [(PostOp(node.op, tuple(sorted(node.attrs.items()))), ())]
    which = node.inputs.index(flow)
    other = node.inputs[1 - which]
    assert other is not None
    if other in done:
        return [(PostOp(node.op, operand="earlier", swapped=which == 1, earlier=done[other]), ())]
    how = operand(placement.axes, other, node.out.name)
    assert how is not None
    if how.kind == "const":
        return [const(node.op, weights[other], which == 1)]
    post_op, operands = _spread(placement, node, other, how, out)
    return [(replace(post_op, swapped=which == 1), operands)]


def _spread(placement: Placement, node: Node, name: str, how: Operand, out: Blocked) -> Planned:
    """An operand with a number for each pixel, or each image."""
    axis = placement.axes.channel[node.out.name]
    if name in placement.graph.weights:
        weight, gaps = constant(placement, placement.graph.weights[name], node.out.shape, axis, how, out)
        return PostOp(node.op, operand=how.kind, strides=gaps), (weight,)
    x = placement.get_blocked(name, axis)
    if how.kind != "pixel" and not np.array_equal(x.channels, out.channels):
        x = placement.relayout(x, x.extent.halo if how.kind == "full" else 0, out.channels)
    gaps = repeated(strides(x.extent), how.sizes, out)
    return PostOp(node.op, operand=how.kind, strides=gaps, table=how.kind != "pixel" and not x.contiguous), (x,)


def repeated(s: Strides, have: Sizes, out: Blocked) -> Strides:
    """The strides of an operand over the extent of the result: 0 where it has one number for many."""
    n, h, w = (a == 1 != b for a, b in zip(have, (out.extent.n, out.extent.h, out.extent.w), strict=True))
    return Strides(s.block, 0 if n else s.image, 0 if h else s.row, 0 if w else s.column)


def constant(placement: Placement, array: AnyArray, shape: tuple[int, ...], axis: int, how: Operand,
             out: Blocked) -> tuple[Weight, Strides]:  # fmt: skip
    """A constant that varies over pixels: in blocks like the result's, or one number a pixel."""
    small = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    small = small if broadcast(small.shape, shape, axis) else np.broadcast_to(small, shape)
    pixels = np.moveaxis(small, axis, -1).reshape(*how.sizes, -1)
    n, h, w = how.sizes
    if how.kind == "pixel":
        return placement.program.weight(pixels), repeated(Strides(0, h * w, w, 1), how.sizes, out)
    lanes = placement.lanes
    wide = np.where(out.channels >= 0, pixels[..., out.channels], 0).astype(np.float32)
    blocks = np.moveaxis(wide.reshape(n, h, w, -1, lanes), 3, 0)
    dense = Strides(n * h * w * lanes, h * w * lanes, w * lanes, lanes)
    return placement.program.weight(blocks), repeated(dense, how.sizes, out)


def affine(graph: Graph, node: Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """BatchNorm as scale and shift per channel, in float64."""
    c = node.out.shape[1]

    def vector(i: int, default: float) -> NDArray[np.float64]:
        name = node.inputs[i]
        value = np.float64(default) if name is None else graph.weights[name].astype(np.float64).reshape(-1)
        return np.broadcast_to(value, (c,))

    scale = vector(1, 1.0) / np.sqrt(vector(4, 1.0) + node.attrs["eps"])
    return scale, vector(2, 0.0) - vector(3, 0.0) * scale


def per_lane(placement: Placement, values: AnyArray, channels: Ints) -> Weight:
    """A number per channel (or one for all) in this order; 0 for lanes that hold nothing."""
    return per_lane_repeated(placement, values, channels, 1)


def per_lane_repeated(placement: Placement, values: AnyArray, channels: Ints, times: int) -> Weight:
    """``per_lane``, each vector so many times in a row."""
    flat = np.asarray(values).reshape(-1)
    flat = np.broadcast_to(flat, (int(channels.max()) + 1,)) if flat.size == 1 else flat
    vectors = np.where(channels >= 0, flat[channels], 0).astype(np.float32).reshape(-1, 1, placement.lanes)
    return placement.program.weight(np.repeat(vectors, times, 1).reshape(-1))
