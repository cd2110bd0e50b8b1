"""Group and instance norm: moments of channels, scale and shift of groups, then an element-wise kernel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.accepts import constant_spatial
from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.elementwise.spec import MapSpec
from secateur.codegen.kernels.long_rows import merge
from secateur.codegen.kernels.post_ops.plan import Epilogue, flows, plan_epilogue
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, block_table, strides
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Address, Blocked, Extent

from .spec import GroupNormSpec, MomentSpec


def group_norm(placement: Placement, chain: Chain) -> Blocked:
    """[n, c, h, w], each of the groups of channels to mean 0 and variance 1 over its pixels, then scaled by channel."""
    node = chain.head
    name = node.inputs[0] or ""
    x = placement.compacted(name, placement.get_blocked(name, 1))
    out = placement.new_blocked(chain.last.name, x.channels)
    scale, shift = _statistics(placement, chain, x)
    for_all_pixels = Strides(scale.extent.block, scale.extent.image, 0, 0)
    own = Epilogue(
        tuple(PostOp(op, operand="vector", strides=for_all_pixels) for op in ("mul", "add")), ((scale,), (shift,))
    )
    epilogue = own.then(plan_epilogue(placement, flows(node.name, chain.tail), out))
    spec = merge(MapSpec(
        placement.lanes, out.extent.n, len(out.blocks), out.extent.h, out.extent.w, strides(x.extent),
        strides(out.extent), not x.contiguous, epilogue.post_ops, placement.threads,
    ))  # fmt: skip
    call_window(placement, spec, x, out, [], epilogue, node.label)
    return out


def _statistics(placement: Placement, chain: Chain, x: Blocked) -> tuple[Blocked, Blocked]:
    """Scale and shift of every image and channel, in the lanes of x."""
    node, program, lanes = chain.head, placement.program, placement.lanes
    n, blocks, c = x.extent.n, len(x.blocks), x.width
    moments = program.arena.new(n * blocks * 2 * lanes)
    spec = MomentSpec(lanes, n, blocks, x.extent.h, x.extent.w, strides(x.extent), not x.contiguous, placement.threads)
    table: list[Argument] = [block_table(x, 0, blocks)] if spec.table else []
    source = placement.start if spec.table else x.offset(0)
    program.call(spec, None, [source, *table, Address(moments)], node.label, [b for b, _ in x.blocks])
    both = program.arena.new(2 * n * blocks * lanes, True)
    places = x.places()
    scalars = [_vector(placement, node.inputs[i] if i < len(node.inputs) else None, c, default)
               for i, default in ((1, 1.0), (2, 0.0))]  # fmt: skip
    program.call(
        GroupNormSpec(lanes, n, blocks, c, int(node.attrs.get("groups", c)), float(node.attrs["eps"])), None,
        [Address(moments), Table(places // lanes * 2 * lanes + places % lanes),
         Table(places // lanes * n * lanes + places % lanes), *map(program.weight, scalars), Address(both)], node.label,
    )  # fmt: skip
    extent = Extent(n, 1, 1, 0, lanes)
    scale, shift = (
        Blocked(extent, tuple((both, (half * blocks + b) * extent.block) for b in range(blocks)), x.channels)
        for half in (0, 1)
    )
    return scale, shift


def _vector(
    placement: Placement, name: str | None, width: int, default: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    value = np.float32(default) if name is None else placement.graph.weights[name].reshape(-1).astype(np.float32)
    return np.broadcast_to(value, (width,))


HEADS: Mapping[str, Head] = MappingProxyType(
    dict.fromkeys(("group_norm", "instance_norm"), Head(constant_spatial, group_norm))
)
