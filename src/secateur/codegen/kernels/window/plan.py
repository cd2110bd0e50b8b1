"""Pooling, planned: block by block, channels stay in their lanes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.post_ops.plan import flows, plan_epilogue
from secateur.codegen.plan.axes import Axes
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Node

from .spec import WindowSpec


def pool(placement: Placement, chain: Chain) -> Blocked:
    """Max or mean over windows; adaptive ones with even windows too."""
    node, a = chain.head, chain.head.attrs
    name = node.inputs[0] or ""
    x = placement.compacted(name, placement.get_blocked(name, 1))
    out = placement.new_blocked(chain.last.name, x.channels)
    epilogue = plan_epilogue(placement, flows(node.name, chain.tail), out)
    size = (x.extent.h, x.extent.w)
    if node.op == "adaptive_avg_pool":
        kernel = stride = (size[0] // a["size"][0], size[1] // a["size"][1])
        pad, dilation, count_pad = (0, 0, 0, 0), (1, 1), True
    else:
        kernel, stride, pad = tuple(a["kernel"]), tuple(a["stride"]), tuple(a["pad"])
        dilation, count_pad = tuple(a.get("dilation", (1, 1))), bool(a.get("include_pad", True))
    spec = WindowSpec(
        "max" if node.op == "max_pool" else "avg", placement.lanes, out.extent.n, len(out.blocks), out.extent.h,
        out.extent.w, kernel, stride, dilation, pad, size, strides(x.extent), strides(out.extent),
        not x.contiguous, count_pad, epilogue.post_ops, placement.threads,
    )  # fmt: skip
    call_window(placement, spec, x, out, [], epilogue, node.label)
    return out


def _known_divisor(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    a = node.attrs
    known = not a["ceil"] or node.op == "max_pool" or not a["include_pad"]
    return len(shape) == 4 and min(a["pad"]) >= 0 and known


def _even(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    """Adaptive pooling whose windows are all of one size."""
    return len(shape) == 4 and all(s % o == 0 for s, o in zip(shape[2:], node.attrs["size"], strict=True))


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        **dict.fromkeys(("max_pool", "avg_pool"), Head(_known_divisor, pool)),
        "adaptive_avg_pool": Head(_even, pool),
    }
)
