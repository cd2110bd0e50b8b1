"""Convolutions whose groups are narrower than a vector, in quads of channels, where that saves work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.conv.fold import Folded
from secateur.codegen.kernels.conv.packing import block_channels, groups_of
from secateur.codegen.kernels.post_ops.plan import others, partner, per_lane, plan_epilogue
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.tensors import Address, Blocked, Floats, Ints

from .packing import pack_quads, quad_channels
from .spec import QUAD, GroupedConvChoice, GroupedConvSpec

LEAST = 7  # rows and columns of an image in which two tiles of 4x4 save something


def grouped(placement: Placement, x: Blocked, work: Folded) -> Blocked | None:
    """One call for all groups; None if whole vectors of outputs are computed faster."""
    lanes, outputs = placement.lanes, work.weight.shape[0]
    if lanes < QUAD or not _can_look_up(placement, work) or _has_fewer_products(placement, work):
        return None
    inputs = _input_quads(x, work)
    like = partner(placement, work.tail)
    channels = quad_channels(outputs, work.groups, lanes)
    places = _output_quads(channels, outputs // work.groups, work.groups)
    assert places is not None
    if like is not None:
        found = _output_quads(like.channels, outputs // work.groups, work.groups)
        if found is not None and found.size <= 1.1 * places.size:
            channels, places = like.channels, found
    n, _, h, w = placement.axes.nchw(work.name)
    spec = GroupedConvSpec(
        lanes, n, work.groups, inputs.shape[1] * QUAD, places.shape[1], h, w, work.kernel, work.stride,
        work.dilation, strides(x.extent), strides(x.extent), (), placement.threads,
    )  # fmt: skip
    plain = block_channels(outputs, work.groups, lanes)
    if like is not None:
        plain = min(plain, like.channels, key=lambda c: estimate(c, work, lanes))
    if spec.estimate(placement.target) >= estimate(plain, work, lanes) * n * h * w:
        return None
    return _call(placement, x, work, spec, channels, inputs, places)


def _has_fewer_products(placement: Placement, work: Folded) -> bool:
    """May Winograd's algorithm take each group, whole vectors? It multiplies less than any direct kernel.

    In small images its tiles hang over, and a call for each group is not worth it.
    """
    lanes, (_, _, *size) = placement.lanes, placement.axes.nchw(work.name)
    plain = work.kernel == (3, 3) and work.stride == work.dilation == (1, 1) and min(size) >= LEAST
    return lanes == QUAD and plain and min(work.weight.shape[1], work.weight.shape[0] // work.groups) >= 2 * lanes


def estimate(channels: Ints, work: Folded, lanes: int) -> float:
    """Multiply-accumulates at the peak, a pixel, if whole blocks with these channels are computed and written."""
    width, taps = work.weight.shape[0] // work.groups, work.kernel[0] * work.kernel[1]
    blocks = [groups_of(b, width) for b in channels.reshape(-1, lanes)]
    reads = sum(high - low for low, high in blocks) * work.weight.shape[1]
    return float(reads * taps * lanes / 0.93 + 3 * lanes * len(blocks))


def _can_look_up(placement: Placement, work: Folded) -> bool:
    """Is the result joined only with tensors in blocks and numbers per channel?"""
    weights = placement.graph.weights
    return all(
        how.kind == "const" or (how.kind in ("full", "vector") and name not in weights)
        for name, how in others(placement, work.tail)
    )


def _input_quads(x: Blocked, work: Folded) -> Ints:
    """The quads of lanes that each group reads, [group, quad]; the last one again where a group needs fewer."""
    per_group = work.weight.shape[1]
    found = [np.unique(x.places()[g * per_group : (g + 1) * per_group] // QUAD) for g in range(work.groups)]
    return _filled(found)


def _output_quads(channels: Ints, width: int, groups: int) -> Ints | None:
    """The quads of lanes that each group writes; None if a quad holds channels of two groups."""
    found: list[list[int]] = [[] for _ in range(groups)]
    empty = []
    for quad, channel in enumerate(channels.reshape(-1, QUAD)):
        group = np.unique(channel[channel >= 0] // width)
        if group.size > 1:
            return None
        if group.size:
            found[int(group[0])].append(quad)
        else:
            empty.append(quad)
    for quad in empty:  # zeros are written there
        min(found, key=len).append(quad)
    return _filled([np.array(quads) for quads in found])


def _filled(rows: list[Ints]) -> Ints:
    most = max(map(len, rows))
    return np.stack([np.concatenate([row, np.full(most - len(row), row[-1])]) for row in rows])


def _weights(x: Blocked, work: Folded, channels: Ints, inputs: Ints, outputs: Ints) -> Floats:
    """[group, output, input, kh, kw] for these quads; 0 where a lane holds nothing of the group."""
    o, per_group, kh, kw = work.weight.shape
    width = o // work.groups
    places = x.places()
    packed = np.zeros((work.groups, outputs.shape[1] * QUAD, inputs.shape[1] * QUAD, kh, kw), np.float32)
    for g in range(work.groups):
        lane = places[g * per_group : (g + 1) * per_group]
        column = np.searchsorted(np.unique(lane // QUAD), lane // QUAD) * QUAD + lane % QUAD
        rows = channels.reshape(-1, QUAD)[outputs[g]].reshape(-1)
        used = np.flatnonzero((rows >= 0) & (rows // width == g))
        packed[g, used[:, None], column] = work.weight[rows[used]]
    return packed


def _call(placement: Placement, x: Blocked, work: Folded, spec: GroupedConvSpec, channels: Ints, inputs: Ints,
          outputs: Ints) -> Blocked:  # fmt: skip
    out = placement.new_blocked(work.name, channels)
    order = channels.reshape(-1, QUAD)[outputs.reshape(-1)].reshape(-1)
    places = outputs.reshape(-1) * QUAD
    post_ops, more, alive = plan_epilogue(placement, work.tail, out, order).looked_up(placement, places)
    spec = replace(spec, y=strides(out.extent), post_ops=post_ops)
    from_first = -(work.pad[0] * x.extent.row + work.pad[1] * x.extent.column)
    taps = [x.offset(int(q) * QUAD) for q in inputs.reshape(-1)]
    start = Table(tuple(Address(p.buffer, p.delta + from_first) for p in taps))
    to = Table(tuple(out.offset(int(p)) for p in places))

    def write(choice: GroupedConvChoice) -> tuple[GroupedConvSpec, list[Argument]]:
        w = pack_quads(_weights(x, work, channels, inputs, outputs), min(choice.quads, spec.quads))
        constants = placement.program.weight(w), per_lane(placement, work.bias, order)
        return spec, [placement.start, *constants, start, *more, to, placement.start]

    placement.program.tiled([spec], write, work.node.label, [b for b, _ in (*x.blocks, *out.blocks)] + alive)
    return out
