"""Convolutions and linear layers: batch norm folded, then depthwise, dense or grouped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.fusion import Chain
from secateur.codegen.layout import Layout, strides
from secateur.codegen.packing import block_channels, dense_weight, flatten, groups_of, pack
from secateur.codegen.program import Argument, Table, Weight
from secateur.codegen.specs import ConvChoice, ConvSpec, WindowSpec
from secateur.codegen.tensors import Blocked, Ints, Place

from .epilogue import partner, per_lane, plan_epilogue
from .fold import Folded, fold
from .grouped import cost, grouped
from .window import call_window


def conv(layout: Layout, chain: Chain) -> Blocked:
    """Depthwise, dense or grouped; a few channels that lie row by row are read as they lie."""
    node, a = chain.head, chain.head.attrs
    weight = layout.graph.weights[node.inputs[1] or ""].astype(np.float64)
    work = replace(
        fold(layout, chain, weight), groups=int(a["groups"]), stride=tuple(a["stride"]),
        dilation=tuple(a["dilation"]), pad=tuple(a["pad"]),
    )  # fmt: skip
    x_name = node.inputs[0] or ""
    per_group, width = weight.shape[1], weight.shape[0] // work.groups
    if work.groups > 1 and per_group == width == 1:
        return lane_by_lane(layout, layout.compact(x_name), work)
    few = x_name in layout.plain and x_name not in layout.blocked and per_group * work.groups < layout.lanes
    if few:
        return dense(layout, layout.get_planar(x_name), work)
    x = layout.get_blocked(x_name)
    if work.groups > 1 and per_group == width in (2, 4) and width < layout.lanes and x.natural:
        return lane_by_lane(layout, x, work)
    return grouped(layout, x, work) or dense(layout, x, work)


def linear(layout: Layout, chain: Chain) -> Blocked:
    """A 1x1 convolution of a picture of one pixel."""
    node = chain.head
    weight = layout.graph.weights[node.inputs[1] or ""].astype(np.float64)
    weight = (weight.T if node.attrs["transposed"] else weight)[:, :, None, None]
    return dense(layout, layout.get_blocked(node.inputs[0] or ""), fold(layout, chain, weight))


def dense(layout: Layout, x: Blocked, work: Folded) -> Blocked:
    """One call a run of output blocks that read the same input channels."""
    lanes, per_group = layout.lanes, work.weight.shape[1]
    like = partner(layout, work.tail)
    channels = block_channels(work.weight.shape[0], work.groups, lanes)
    if like is not None and cost(like.channels, work, lanes) <= cost(channels, work, lanes) * 1.05:
        channels = like.channels
    out = layout.new_blocked(work.name, channels)
    epilogue = plan_epilogue(layout, work.tail, out)
    plane, blocks = out.plane, len(out.blocks)
    biases = per_lane(layout, work.bias, channels)
    places = x.places()
    from_first = -(work.pad[0] * x.plane.row + work.pad[1] * x.plane.column)
    reads_of = [groups_of(b, work.weight.shape[0] // work.groups) for b in channels.reshape(-1, lanes)]
    first = 0
    while first < blocks:
        low, high = reads_of[first]
        count = 1
        while first + count < blocks and reads_of[first + count] == (low, high):
            count += 1
        reads = places[low * per_group : high * per_group]
        part = dense_weight(work.weight, channels[first * lanes : (first + count) * lanes], low, high, work.groups)
        whole = _whole_blocks(x, reads)
        spec = flatten(ConvSpec(
            lanes, plane.n, len(reads), count, plane.h, plane.w, work.kernel, work.stride, work.dilation,
            strides(x.plane), strides(plane), whole is None, epilogue.steps, True, layout.threads,
        ))  # fmt: skip
        choice: ConvChoice = layout.choose(spec)
        w = layout.program.weight(pack(part, spec, min(choice.nb, count)))
        bias = Weight(biases.offset + first * lanes * 4)
        arguments: list[Argument]
        if whole is None:
            entries = tuple(x.offset(int(p)) for p in reads)
            table = tuple(Place(e.buffer, e.delta + from_first) for e in entries)
            arguments = [layout.start, w, bias, Table(table)]
        else:
            at = x.offset(whole * lanes)
            arguments = [Place(at.buffer, at.delta + from_first), w, bias]
        more, alive = epilogue.arguments(layout, first, count)
        arguments += [*more, out.offset(first * lanes)]
        layout.program.call(spec, choice, arguments, work.node.label, [b for b, _ in x.blocks] + alive)
        first += count
    return out


def _whole_blocks(x: Blocked, places: Ints) -> int | None:
    """The first block, if these lanes are whole blocks in order in one buffer."""
    lanes = x.plane.lanes
    if lanes == 1 or len(places) % lanes or places[0] % lanes or np.any(np.diff(places) != 1):
        return None
    first, count = int(places[0]) // lanes, len(places) // lanes
    buffer, index = x.blocks[first]
    run = all(b is buffer and i == index + k for k, (b, i) in enumerate(x.blocks[first : first + count]))
    return first if run else None


def lane_by_lane(layout: Layout, x: Blocked, work: Folded) -> Blocked:
    """Depthwise, or groups that lie in neighbouring lanes: the channels stay in the lanes they are in."""
    out = layout.new_blocked(work.name, x.channels)
    epilogue = plan_epilogue(layout, work.tail, out)
    lanes, taps, group = layout.lanes, work.kernel[0] * work.kernel[1], work.weight.shape[1]
    used = x.channels >= 0
    packed = np.zeros((len(x.channels), group, taps), np.float32)
    packed[used] = work.weight.reshape(-1, group, taps)[x.channels[used]]
    spec = WindowSpec(
        "conv", lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, work.kernel, work.stride,
        work.dilation, work.pad, (x.plane.h, x.plane.w), strides(x.plane), strides(out.plane),
        not x.contiguous, True, epilogue.steps, layout.threads, group,
    )  # fmt: skip
    extra = [
        layout.program.weight(packed.reshape(-1, lanes, group, taps).transpose(0, 3, 2, 1)),
        per_lane(layout, work.bias, out.channels),
    ]
    call_window(layout, spec, x, out, extra, epilogue, work.node.label)
    return out
