"""What a kernel does to a vector before it writes it, planned: steps, and the arguments they bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.fusion import is_vector
from secateur.codegen.layout import Layout, block_table, strides
from secateur.codegen.program import Argument, Table, Weight
from secateur.codegen.specs import FUSABLE_BINARY, Step
from secateur.codegen.tensors import Blocked, Buffer, Ints
from secateur.ir import Graph, Node

Flow = tuple[Node, str | None]  # a node, and the name of the value that flows through it
Planned = tuple[Step, tuple[Weight | Blocked, ...]]


@dataclass(frozen=True)
class Epilogue:
    """Steps, and the operand of each."""

    steps: tuple[Step, ...]
    operands: tuple[tuple[Weight | Blocked, ...], ...]

    def arguments(self, layout: Layout, first: int, count: int) -> tuple[list[Argument], list[Buffer]]:
        """What they add to the call for a run of output blocks, and the buffers that must stay alive for it."""
        arguments: list[Argument] = []
        alive: list[Buffer] = []
        for step, (operand, *_) in ((s, o) for s, o in zip(self.steps, self.operands, strict=True) if o):
            if isinstance(operand, Weight):
                arguments.append(Weight(operand.offset + first * layout.lanes * 4))
                continue
            if step.table:
                arguments += [layout.start, block_table(operand, first, count)]
            else:
                arguments.append(operand.offset(first * layout.lanes))
            alive += [b for b, _ in operand.blocks]
        return arguments, alive

    def looked_up(self, layout: Layout, places: Ints) -> tuple[tuple[Step, ...], list[Argument], list[Buffer]]:
        """For a kernel that looks up where each piece of every tensor begins: steps, arguments, buffers."""
        steps: list[Step] = []
        arguments: list[Argument] = []
        alive: list[Buffer] = []
        for step, operand in zip(self.steps, self.operands, strict=True):
            tensors = [x for x in operand if isinstance(x, Blocked)]
            steps.append(replace(step, table=bool(tensors)))
            arguments += [x for x in operand if isinstance(x, Weight)]
            for x in tensors:
                arguments += [layout.start, Table(tuple(x.offset(int(p)) for p in places))]
                alive += [b for b, _ in x.blocks]
        return tuple(steps), arguments, alive


def flows(first: str, tail: Sequence[Node]) -> list[Flow]:
    """Each node of a tail with the value that flows into it."""
    return list(zip(tail, [first, *(n.name for n in tail)], strict=False))


def plan_epilogue(layout: Layout, tail: Sequence[Flow], out: Blocked, order: Ints | None = None) -> Epilogue:
    """Steps for the nodes of a tail. ``order``: the channels as the kernel counts them, if not lane by lane."""
    order = out.channels if order is None else order
    planned = [p for node, flow in tail for p in _steps(layout, node, flow, out, order)]
    return Epilogue(tuple(s for s, _ in planned), tuple(o for _, o in planned))


def partner(layout: Layout, tail: Sequence[Flow]) -> Blocked | None:
    """The first tensor that is joined with the result pixel by pixel: the result may as well lie like it."""
    for node, flow in tail:
        for name in node.inputs if node.op in FUSABLE_BINARY else ():
            if name != flow and name is not None and name not in layout.graph.weights:
                if layout.graph.value(name).shape == node.out.shape:
                    return layout.get_blocked(name)
    return None


def _steps(layout: Layout, node: Node, flow: str | None, out: Blocked, order: Ints) -> list[Planned]:
    weights = layout.graph.weights

    def const(op: str, values: NDArray[Any], swapped: bool = False) -> Planned:
        return Step(op, operand="const", swapped=swapped), (per_lane(layout, values, order),)

    if node.op == "batch_norm":
        scale, shift = affine(layout.graph, node)
        return [const("mul", scale), const("add", shift)]
    if node.op == "prelu":
        return [const("prelu", weights[node.inputs[1] or ""])]
    if len(node.inputs) == 1:
        return [(Step(node.op, tuple(sorted(node.attrs.items()))), ())]
    which = node.inputs.index(flow)
    other = node.inputs[1 - which]
    assert other is not None
    if other in weights:
        return [const(node.op, weights[other], which == 1)]
    x = layout.get_blocked(other)
    kind = "vector" if is_vector(layout.graph, other, node.out.shape) else "full"
    if not np.array_equal(x.channels, out.channels):
        x = layout.relayout(other, out.channels)
    step = Step(node.op, operand=kind, strides=strides(x.plane), table=not x.contiguous, swapped=which == 1)
    return [(step, (x,))]


def affine(graph: Graph, node: Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """BatchNorm as scale and shift per channel, in float64."""
    c = node.out.shape[1]

    def vector(i: int, default: float) -> NDArray[np.float64]:
        name = node.inputs[i]
        value = np.float64(default) if name is None else graph.weights[name].astype(np.float64).reshape(-1)
        return np.broadcast_to(value, (c,))

    scale = vector(1, 1.0) / np.sqrt(vector(4, 1.0) + node.attrs["eps"])
    return scale, vector(2, 0.0) - vector(3, 0.0) * scale


def per_lane(layout: Layout, values: NDArray[Any], channels: Ints) -> Weight:
    """A number per channel (or one for all) in this order; 0 for lanes that hold nothing."""
    flat = np.asarray(values).reshape(-1)
    flat = np.broadcast_to(flat, (int(channels.max()) + 1,)) if flat.size == 1 else flat
    return layout.program.weight(np.where(channels >= 0, flat[channels], 0).astype(np.float32))
