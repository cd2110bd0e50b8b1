"""Transposed convolutions: each phase of the output is a plain convolution, written to every stride-th pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from types import MappingProxyType

import numpy as np

from secateur.codegen.kernels.conv.fold import Folded, fold
from secateur.codegen.kernels.conv.plan import as_2d, padded, write_dense, write_depthwise
from secateur.codegen.kernels.post_ops.plan import plan_epilogue
from secateur.codegen.plan.family import Head
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement
from secateur.codegen.plan.tensors import Blocked
from secateur.ir import Graph, Node

from .phases import Phase, phases, reach


def conv_transpose(placement: Placement, chain: Chain) -> Blocked:
    """``w`` [i, o / groups, kh, kw]; depthwise, dense or grouped."""
    node, work = chain.head, replace(folded(placement, chain), spatial=True)
    deep = work.groups == len(work.weight) and work.weight.shape[1] == 1
    name = node.inputs[0] or ""
    x = placement.get_blocked(name, 1)
    x = placement.with_halo(placement.compacted(name, x) if deep else x, halo(placement.graph, node))
    out = placement.new_blocked(work.name, x.channels if deep else None)
    epilogue = plan_epilogue(placement, work.tail, out)
    stride, pairs = phase_pairs(node, work, out)
    for down, across in pairs:
        taps = work.weight[:, :, list(down.taps)][:, :, :, list(across.taps)]
        if not taps.size:  # nothing but the bias: the first pixel times 0, again and again
            taps = np.zeros((*taps.shape[:2], 1, 1), np.float32)
            start, step = (0, 0), (0, 0)
        else:
            start, step = (down.start, across.start), (1, 1)
        part = replace(
            work, weight=taps, stride=step, dilation=(down.dilation, across.dilation), pad=(-start[0], -start[1], 0, 0)
        )
        first = (down.first, across.first)
        to = out.sampled(first, stride, (down.count, across.count))
        write = write_depthwise if deep else write_dense
        write(placement, x, part, to, epilogue.sampled(first, stride))
    return out


def folded(placement: Placement, chain: Chain) -> Folded:
    """The layer with its weight as a convolution has it, [groups * o, i / groups, kh, kw]."""
    node = chain.head
    groups = int(node.attrs["groups"])
    weight = as_2d(placement.graph.weights[node.inputs[1] or ""].astype(np.float64))
    i, o, kh, kw = weight.shape
    weight = weight.reshape(groups, i // groups, o, kh, kw).swapaxes(1, 2).reshape(groups * o, i // groups, kh, kw)
    return replace(fold(placement, chain, weight), groups=groups)


def phase_pairs(node: Node, work: Folded, out: Blocked) -> tuple[tuple[int, int], Iterator[tuple[Phase, Phase]]]:
    """(the stride, the phases of rows with those of columns) of a layer onto ``out``."""
    lone, a = 4 - len(node.out.shape), node.attrs
    stride, dilation, pad = ((*(d,) * lone, *a[key]) for key, d in (("stride", 1), ("dilation", 1), ("pad", 0)))
    size = (out.extent.h, out.extent.w)
    down, across = (phases(stride[j], dilation[j], pad[j], work.weight.shape[2 + j], size[j]) for j in (0, 1))
    return (stride[0], stride[1]), product(down, across)


def halo(graph: Graph, node: Node) -> int:
    """How far outside of its input a transposed convolution reads."""
    return reach(node.attrs, graph.value(node.inputs[1] or "").shape, graph.value(node.inputs[0] or "").shape,
                 node.out.shape)  # fmt: skip


HEADS: Mapping[str, Head] = MappingProxyType({"conv_transpose": Head(padded, conv_transpose, halo)})
