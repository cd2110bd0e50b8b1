"""Element-wise operators and means over all pixels, planned: channels stay in their lanes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.long_rows import merge
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Forms
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import ELEMENTWISE, Chain, base_input, is_elementwise
from secateur.codegen.plan.placement import Layout, strides
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Node

from .spec import MapSpec, MeanSpec


def mean(layout: Layout, chain: Chain) -> Blocked:
    """A reduction over the whole picture."""
    node = chain.head
    x = layout.get_blocked(node.inputs[0] or "")
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, flows(node.name, chain.tail), out)
    spec = MeanSpec(
        node.op.removeprefix("reduce_"), layout.lanes, x.plane.n, len(x.blocks), x.plane.h, x.plane.w,
        strides(x.plane), strides(out.plane), not x.contiguous, epilogue.steps, layout.threads,
    )  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


def elementwise(layout: Layout, chain: Chain) -> Blocked:
    """Steps on the first input that has the shape of the result."""
    node, which = chain.head, base_input(layout.forms, chain.head)
    base = node.inputs[which or 0] or ""
    x = layout.together(base, layout.get_blocked(base, layout.forms.axes[node.name]))
    out = layout.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(layout, [(node, base), *flows(node.name, chain.tail)], out)
    spec = merge(MapSpec(
        layout.lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, strides(x.plane),
        strides(out.plane), not x.contiguous, epilogue.steps, layout.threads,
    ))  # fmt: skip
    call_window(layout, spec, x, out, [], epilogue, node.label)
    return out


def _applies(forms: Forms, node: Node, shape: tuple[int, ...]) -> bool:
    return is_elementwise(forms, node)


HEADS: Mapping[str, Head] = MappingProxyType(dict.fromkeys(ELEMENTWISE, Head(_applies, elementwise)))
