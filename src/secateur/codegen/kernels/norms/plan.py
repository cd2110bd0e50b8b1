"""Group and instance norm: moments of channels, scale and shift of groups, then an element-wise kernel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.accepts import constant_picture
from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.elementwise.spec import MapSpec
from secateur.codegen.kernels.long_rows import merge
from secateur.codegen.kernels.post_ops.plan import Epilogue, flows, plan_epilogue
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Layout, block_table, strides
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Blocked, Place, Plane

from .spec import GroupSpec, MomentSpec


def group_norm(layout: Layout, chain: Chain) -> Blocked:
    """[n, c, h, w], each of the groups of channels to mean 0 and variance 1 over its pixels, then scaled by channel."""
    node = chain.head
    name = node.inputs[0] or ""
    x = layout.together(name, layout.get_blocked(name, 1))
    out = layout.new_blocked(chain.last.name, x.channels)
    scale, shift = _statistics(layout, chain, x)
    for_all_pixels = Strides(scale.plane.block, scale.plane.image, 0, 0)
    own = Epilogue(
        tuple(PostOp(op, operand="vector", strides=for_all_pixels) for op in ("mul", "add")), ((scale,), (shift,))
    )
    epilogue = own.then(plan_epilogue(layout, flows(node.name, chain.tail), out))
    spec = merge(MapSpec(
        layout.lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, strides(x.plane), strides(out.plane),
        not x.contiguous, epilogue.steps, layout.threads,
    ))  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


def _statistics(layout: Layout, chain: Chain, x: Blocked) -> tuple[Blocked, Blocked]:
    """Scale and shift of every image and channel, in the lanes of x."""
    node, program, lanes = chain.head, layout.program, layout.lanes
    n, blocks, c = x.plane.n, len(x.blocks), x.width
    moments = program.arena.new(n * blocks * 2 * lanes)
    spec = MomentSpec(lanes, n, blocks, x.plane.h, x.plane.w, strides(x.plane), not x.contiguous, layout.threads)
    table: list[Argument] = [block_table(x, 0, blocks)] if spec.table else []
    source = layout.start if spec.table else x.offset(0)
    program.call(spec, None, [source, *table, Place(moments)], node.label, [b for b, _ in x.blocks])
    both = program.arena.new(2 * n * blocks * lanes, True)
    places = x.places()
    scalars = [_vector(layout, node.inputs[i] if i < len(node.inputs) else None, c, default)
               for i, default in ((1, 1.0), (2, 0.0))]  # fmt: skip
    program.call(
        GroupSpec(lanes, n, blocks, c, int(node.attrs.get("groups", c)), float(node.attrs["eps"])), None,
        [Place(moments), Table(places // lanes * 2 * lanes + places % lanes),
         Table(places // lanes * n * lanes + places % lanes), *map(program.weight, scalars), Place(both)], node.label,
    )  # fmt: skip
    plane = Plane(n, 1, 1, 0, lanes)
    scale, shift = (
        Blocked(plane, tuple((both, (half * blocks + b) * plane.block) for b in range(blocks)), x.channels)
        for half in (0, 1)
    )
    return scale, shift


def _vector(
    layout: Layout, name: str | None, width: int, default: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    value = np.float32(default) if name is None else layout.graph.weights[name].reshape(-1).astype(np.float32)
    return np.broadcast_to(value, (width,))


HEADS: Mapping[str, Head] = MappingProxyType(
    dict.fromkeys(("group_norm", "instance_norm"), Head(constant_picture, group_norm))
)
