"""Convolutions and linear layers on planes, planned: one call each, whatever its groups, batch norm folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from secateur.codegen.kernels.accepts import constant
from secateur.codegen.kernels.conv.fold import Folded, fold
from secateur.codegen.kernels.conv.plan import as_2d, padded
from secateur.codegen.kernels.conv.transposed import folded, phase_pairs
from secateur.codegen.kernels.matmul.plan import matmul as computed
from secateur.codegen.kernels.matmul.plan import operands
from secateur.codegen.kernels.post_ops.plan import Epilogue, per_lane, plan_epilogue
from secateur.codegen.plan.family import Alternative, Head, Workload, choices
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.strides import Strides
from secateur.codegen.plan.tensors import Address, Blocked

from .packing import pack
from .spec import GpuConvSpec


def conv(placement: Placement, chain: Chain) -> Blocked:
    """Of a signal or an image, in any number of groups."""
    node, a = chain.head, chain.head.attrs
    weight = as_2d(placement.graph.weights[node.inputs[1] or ""].astype(np.float64))
    lone = (1,) * (2 - len(a["stride"]))
    none, half = (0,) * len(lone), len(a["pad"]) // 2
    work = replace(
        fold(placement, chain, weight), groups=int(a["groups"]), stride=(*lone, *a["stride"]),
        dilation=(*lone, *a["dilation"]), pad=(*none, *a["pad"][:half], *none, *a["pad"][half:]),
    )  # fmt: skip
    return _whole(placement, placement.get_blocked(node.inputs[0] or "", 1), work)


def linear(placement: Placement, chain: Chain) -> Blocked:
    """A linear layer, or a product with a constant [i, o]: a 1x1 convolution, all axes but the last are pixels."""
    node, axis = chain.head, len(chain.head.out.shape) - 1
    weight = placement.graph.weights[node.inputs[1] or ""].astype(np.float64)
    weight = (weight.T if node.attrs.get("transposed", True) else weight)[:, :, None, None]
    return _whole(placement, placement.get_blocked(node.inputs[0] or "", axis), fold(placement, chain, weight))


def matmul(placement: Placement, chain: Chain) -> Blocked:
    """A product with a constant, or of two computed operands."""
    known = chain.head.inputs[1] in placement.graph.weights
    return linear(placement, chain) if known else computed(placement, chain)


def conv_transpose(placement: Placement, chain: Chain) -> Blocked:
    """Each phase of the output is a plain convolution, written to every stride-th pixel."""
    node, work = chain.head, folded(placement, chain)
    x, out = placement.get_blocked(node.inputs[0] or "", 1), placement.new_blocked(work.name)
    epilogue = plan_epilogue(placement, work.tail, out)
    stride, pairs = phase_pairs(node, work, out)
    for down, across in pairs:
        taps = work.weight[:, :, list(down.taps)][:, :, :, list(across.taps)]
        start = (down.start, across.start)
        if not taps.size:  # nothing but the bias
            taps, start = np.zeros((*taps.shape[:2], 1, 1), np.float32), (0, 0)
        part = replace(work, weight=taps, dilation=(down.dilation, across.dilation), pad=(-start[0], -start[1], 0, 0))
        first = (down.first, across.first)
        to = out.sampled(first, stride, (down.count, across.count))
        write_dense(placement, x, part, to, epilogue.sampled(first, stride))
    return out


def _whole(placement: Placement, x: Blocked, work: Folded) -> Blocked:
    """A convolution onto fresh planes."""
    out = placement.new_blocked(work.name)
    return write_dense(placement, x, work, out, plan_epilogue(placement, work.tail, out))


def write_dense(placement: Placement, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> Blocked:
    """The call of a convolution onto planes, with what comes after it."""
    co = work.weight.shape[0] // work.groups
    spec = _long(GpuConvSpec(
        out.extent.n, work.groups, work.weight.shape[1], co, out.extent.h, out.extent.w, work.kernel, work.stride,
        work.dilation, work.pad[:2], (x.extent.h, x.extent.w), strides(x.extent), strides(out.extent),
        not x.natural, epilogue.post_ops,
    ))  # fmt: skip
    table: list[Argument] = [Table(tuple(x.offset(int(p)) for p in x.places()))] if spec.table else []
    source = placement.start if spec.table else x.offset(0)
    more, alive = epilogue.arguments(placement, 0, len(out.blocks))
    bias = per_lane(placement, work.bias, out.channels)

    others: dict[Workload, Alternative] = {}
    rounded: list[Workload] = []  # these are taken wherever they are offered
    for family in placement.offering(work.node):
        if family.alternative is not None:
            found = family.alternative.alternatives(spec, x, x.places(), work.weight, placement.target)
            others |= dict.fromkeys(found, family.alternative)
            rounded += found if family.dtype != "f32" else ()
    kinds = choices(placement.families)

    def write(choice: Any) -> tuple[Workload, list[Argument]]:
        kernel = next((s for s in others if kinds[type(s)] is type(choice)), spec)
        if kernel is spec:
            weight = placement.program.weight(pack(work.weight, spec, choice))
            begin: list[Argument] = [source, weight, bias, *table]
        else:
            begin = others[kernel].arguments(placement, kernel, choice, x, x.places(), work.weight, bias, 0)
        room = [Address(placement.program.arena.new(choice.parts * spec.outputs))] if choice.parts > 1 else []
        return kernel, [*begin, *more, out.offset(0), *room]

    placement.program.tiled(rounded or [spec, *others], write, work.node.label, [b for b, _ in x.blocks] + alive)
    return out


def _long(spec: GpuConvSpec) -> GpuConvSpec:
    """A 1x1 convolution whose pixels follow each other takes them as one long row."""
    every = [spec.x, spec.y, *(s.strides for s in spec.post_ops if s.strides is not None)]
    plain = spec.kernel == spec.stride == (1, 1) and spec.pad == (0, 0) and spec.size == (spec.h, spec.w)
    if not plain or any(s.row != spec.w * s.column or s.image != spec.h * s.row for s in every):
        return spec
    w = spec.pixels

    def row(s: Strides) -> Strides:
        return Strides(s.block, w * s.column, w * s.column, s.column)

    post_ops = tuple(replace(p, strides=row(p.strides)) if p.strides else p for p in spec.post_ops)
    return replace(spec, n=1, h=1, w=w, size=(1, w), x=row(spec.x), y=row(spec.y), post_ops=post_ops)


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "conv": Head(padded, conv),
        "linear": Head(constant, linear),
        "conv_transpose": Head(padded, conv_transpose),
        "matmul": Head(operands, matmul),
    }
)
