"""Element-wise operators and means over all pixels, planned: channels stay in their lanes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.long_rows import merge
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Axes
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import ELEMENTWISE, Chain, base_input, is_elementwise
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Node

from .spec import MapSpec, MeanSpec


def mean(placement: Placement, chain: Chain) -> Blocked:
    """A reduction over all pixels."""
    node = chain.head
    x = placement.get_blocked(node.inputs[0] or "")
    out = placement.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(placement, flows(node.name, chain.tail), out)
    spec = MeanSpec(
        node.op.removeprefix("reduce_"), placement.lanes, x.extent.n, len(x.blocks), x.extent.h, x.extent.w,
        strides(x.extent), strides(out.extent), not x.contiguous, epilogue.post_ops, placement.threads,
    )  # fmt: skip
    call_window(placement, spec, x, out, [], epilogue, node.label)
    return out


def elementwise(placement: Placement, chain: Chain) -> Blocked:
    """Steps on the first input that has the shape of the result."""
    node, which = chain.head, base_input(placement.axes, chain.head)
    base = node.inputs[which or 0] or ""
    x = placement.compacted(base, placement.get_blocked(base, placement.axes.channel[node.name]))
    out = placement.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(placement, [(node, base), *flows(node.name, chain.tail)], out)
    spec = merge(MapSpec(
        placement.lanes, out.extent.n, len(out.blocks), out.extent.h, out.extent.w, strides(x.extent),
        strides(out.extent), not x.contiguous, epilogue.post_ops, placement.threads,
    ))  # fmt: skip
    call_window(placement, spec, x, out, [], epilogue, node.label)
    return out


def _applies(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    return is_elementwise(axes, node)


HEADS: Mapping[str, Head] = MappingProxyType(dict.fromkeys(ELEMENTWISE, Head(_applies, elementwise)))
