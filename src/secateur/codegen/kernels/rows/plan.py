"""Softmax, norms and reductions along the channels, planned."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.accepts import any_node, constant
from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.elementwise.plan import mean
from secateur.codegen.kernels.long_rows import merge
from secateur.codegen.kernels.post_ops.plan import Epilogue, flows, per_lane, plan_epilogue
from secateur.codegen.plan.axes import Axes
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.post_ops import PostOp
from secateur.codegen.plan.tensors import Blocked, natural_channels
from secateur.ir import Node

from .spec import RowSpec

AFFINE = (("mul", 1), ("add", 2))  # what a norm does with its inputs after the first


def reduce(placement: Placement, chain: Chain) -> Blocked:
    """A mean, sum or maximum: over the channels of each pixel, or over all pixels."""
    node = chain.head
    axis, rank = placement.axes.channel[node.inputs[0] or ""], len(placement.graph.value(node.inputs[0] or "").shape)
    over = {a % rank for a in node.attrs["axes"]}
    return rows(placement, chain) if axis in over else mean(placement, chain)


def rows(placement: Placement, chain: Chain) -> Blocked:
    """Softmax, layer norm or RMS norm along the value's channels, or one number for all of them."""
    node, weights = chain.head, placement.graph.weights
    x = placement.get_blocked(node.inputs[0] or "", placement.axes.channel[node.name])
    natural = natural_channels(x.width, placement.lanes)
    if not np.array_equal(x.channels >= 0, natural >= 0):
        x = placement.relayout(x, 0, natural)
    out = placement.new_blocked(chain.last.name, None if node.op.startswith("reduce_") else x.channels)
    affine = [(op, node.inputs[i]) for op, i in AFFINE if i < len(node.inputs) and node.inputs[i] is not None]
    own = Epilogue(
        tuple(PostOp(op, operand="const") for op, _ in affine),
        tuple((per_lane(placement, weights[name or ""], out.channels),) for _, name in affine),
    )
    epilogue = own.then(plan_epilogue(placement, flows(node.name, chain.tail), out))
    spec = merge(RowSpec(
        node.op, placement.lanes, out.extent.n, len(out.blocks), out.extent.h, out.extent.w, x.width,
        strides(x.extent), strides(out.extent), not x.contiguous, float(node.attrs.get("eps", 0.0)), epilogue.post_ops,
        placement.threads,
    ))  # fmt: skip
    call_window(placement, spec, x, out, [], epilogue, node.label)
    return out


def _reduced(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    """Over all pixels of each of n, or over the channels."""
    axis = axes.channel[node.inputs[0] or ""]
    rest = [i for i in range(len(shape)) if i != axis]
    over = sorted(a % len(shape) for a in node.attrs["axes"])
    return (len(shape) in (3, 4) and over == rest[1:]) or (over == [axis] and bool(node.attrs["keepdims"]))


def _last_axis(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    return bool(node.attrs["dims"] == 1) and constant(axes, node)


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        **dict.fromkeys(("softmax", "log_softmax"), Head(any_node, rows)),
        **dict.fromkeys(("layer_norm", "rms_norm"), Head(_last_axis, rows)),
        **dict.fromkeys(("reduce_mean", "reduce_sum", "reduce_max"), Head(_reduced, reduce)),
    }
)
