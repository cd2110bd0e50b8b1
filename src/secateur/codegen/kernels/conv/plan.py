"""Convolutions and linear layers: batch norm folded, then depthwise, dense or grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.kernels.accepts import constant, constant_spatial
from secateur.codegen.kernels.call_window import call_window
from secateur.codegen.kernels.grouped.plan import estimate, grouped
from secateur.codegen.kernels.long_rows import flatten, long_rows
from secateur.codegen.kernels.partition import assign
from secateur.codegen.kernels.post_ops.plan import Epilogue, partner, per_lane, per_lane_repeated, plan_epilogue
from secateur.codegen.kernels.window.spec import WindowSpec, copies_of_bias
from secateur.codegen.plan.axes import Axes
from secateur.codegen.plan.family import Alternative, Head, Workload, choices
from secateur.codegen.plan.fusion import Chain
from secateur.codegen.plan.placement import Placement, strides
from secateur.codegen.plan.program import Argument, Table
from secateur.codegen.plan.tensors import Address, Blocked, Ints
from secateur.ir import Graph, Node

from .fold import Folded, fold
from .packing import block_channels, dense_weight, groups_of, pack
from .spec import ConvSpec


def conv(placement: Placement, chain: Chain) -> Blocked:
    """Depthwise, dense or grouped; a few channels in row-major order are read as they lie."""
    node, a = chain.head, chain.head.attrs
    weight = as_2d(placement.graph.weights[node.inputs[1] or ""].astype(np.float64))
    lone = (1,) * (2 - len(a["stride"]))
    half = len(a["pad"]) // 2
    pad = (*(0 for _ in lone), *a["pad"][:half], *(0 for _ in lone), *a["pad"][half:])
    work = replace(
        fold(placement, chain, weight), groups=int(a["groups"]), stride=(*lone, *a["stride"]),
        dilation=(*lone, *a["dilation"]), pad=pad, spatial=True,
    )  # fmt: skip
    name, halo = node.inputs[0] or "", max(work.pad)
    per_group, width = weight.shape[1], weight.shape[0] // work.groups
    if per_group * work.groups < placement.lanes and placement.lies_in_rows(name):
        return dense(placement, placement.get_planar(name), work)
    x = placement.get_blocked(name, 1)
    if work.groups > 1 and per_group == width == 1:
        return lane_by_lane(placement, placement.with_halo(placement.compacted(name, x), halo), work)
    x = placement.with_halo(x, halo)
    if work.groups > 1 and per_group == width in (2, 4) and width < placement.lanes and x.natural:
        return lane_by_lane(placement, x, work)
    packed = grouped(placement, x, work) if work.groups > 1 else None
    return packed or dense(placement, x, work)


def as_2d(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """A kernel of signals [.., .., w] as one of images with one row."""
    return weight.reshape(*weight.shape[:2], *(1,) * (4 - weight.ndim), *weight.shape[2:])


def linear(placement: Placement, chain: Chain) -> Blocked:
    """A linear layer, or a product with a constant [i, o]: a 1x1 convolution, all axes but the last spatial."""
    node, axis = chain.head, len(chain.head.out.shape) - 1
    weight = placement.graph.weights[node.inputs[1] or ""].astype(np.float64)
    weight = (weight.T if node.attrs.get("transposed", True) else weight)[:, :, None, None]
    return dense(placement, placement.get_blocked(node.inputs[0] or "", axis), fold(placement, chain, weight))


def dense(placement: Placement, x: Blocked, work: Folded) -> Blocked:
    """A dense or grouped convolution onto fresh blocks, in lanes that save work or that a partner of the result has."""
    lanes = placement.lanes
    like = partner(placement, work.tail)
    channels = block_channels(work.weight.shape[0], work.groups, lanes)
    if like is not None and estimate(like.channels, work, lanes) <= estimate(channels, work, lanes) * 1.05:
        channels = like.channels
    out = placement.new_blocked(work.name, channels)
    return write_dense(placement, x, work, out, plan_epilogue(placement, work.tail, out))


def write_dense(placement: Placement, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> Blocked:
    """One call a run of output blocks that read the same input channels; each for one thread where that is even."""
    runs = _runs(placement, x, work, out, epilogue)
    workers = assign([run.spec.estimate(placement.target) for run in runs], placement.threads, placement.target.sharing)
    for i, run in enumerate(runs):
        threads = placement.threads if workers is None else 1
        _write_run(placement, x, work, out, epilogue, replace(run, spec=replace(run.spec, threads=threads)),
                   None if workers is None else workers[i], run is not runs[-1])  # fmt: skip
    return out


@dataclass(frozen=True)
class _Run:
    """``spec.blocks`` output blocks from ``first`` on read the lanes ``reads`` of x: those of groups ``low``..``high``.

    ``block``: where the lanes are whole blocks, the first of these. ``order``: of the inputs of these groups in
    ``reads``. The spec is that of a single thread, its images one by one.
    """

    spec: ConvSpec
    first: int
    low: int
    high: int
    reads: Ints
    block: int | None
    order: Ints


def _runs(placement: Placement, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> list[_Run]:
    extent, per_group = out.extent, work.weight.shape[1]
    places = x.places()
    reads_of = [groups_of(b, work.weight.shape[0] // work.groups) for b in out.channels.reshape(-1, placement.lanes)]
    runs, first = [], 0
    for (low, high), same in groupby(reads_of):
        count, reads = len(list(same)), places[low * per_group : high * per_group]
        block = _whole_blocks(x, reads)
        order, together = np.arange(len(reads)), 0
        if block is None and placement.target.by_lane and x.extent.lanes == placement.lanes:
            order, together = _blocks_first(reads, placement.lanes)
        spec = long_rows(ConvSpec(
            placement.lanes, extent.n, len(reads), count, extent.h, extent.w, work.kernel, work.stride, work.dilation,
            strides(x.extent), strides(extent), block is None, epilogue.post_ops, True, runs=together,
        ))  # fmt: skip
        runs.append(_Run(spec, first, low, high, reads[order], block, order))
        first += count
    return runs


def _write_run(placement: Placement, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue, run: _Run,
               worker: int | None, more: bool) -> None:  # fmt: skip
    """The call for one run, of the fastest kernel that computes it."""
    lanes, spec, first, count = placement.lanes, flatten(run.spec), run.first, run.spec.blocks
    corner = -(work.pad[0] * x.extent.row + work.pad[1] * x.extent.column)
    channels = out.channels[first * lanes : (first + count) * lanes]
    part = dense_weight(work.weight, channels, run.low, run.high, work.groups)[:, run.order]
    # Algorithms with fewer products sum pixels of an image with each other: they are offered the images one by one, and
    # only where an image is a sample.
    others: dict[Workload, Alternative] = {}
    narrow: list[Workload] = []
    for family in placement.offering(work.node):
        if family.alternative is not None and (work.spatial or not family.sums_pixels):
            whole = run.spec if family.sums_pixels else spec
            found = family.alternative.alternatives(whole, x, run.reads, part, placement.target)
            others |= dict.fromkeys(found, family.alternative)
            narrow += found if family.dtype != "f32" else ()
    operands, alive = epilogue.arguments(placement, first, count)
    kinds = choices(placement.families)

    def write(choice: Any) -> tuple[Workload, list[Argument]]:
        bias = per_lane(placement, work.bias, channels)
        kernel = next((s for s in others if kinds[type(s)] is type(choice)), spec)
        if kernel is spec:
            w = placement.program.weight(pack(part, spec, min(choice.nb, count)))
            arguments = _reading(placement, x, run, [w, bias], corner)
        else:
            arguments = others[kernel].arguments(placement, kernel, choice, x, run.reads, part, bias, corner)
        return kernel, [*arguments, *operands, out.offset(first * lanes)]

    alive += [b for b, _ in x.blocks]
    asked = narrow if placement.precision.mode != "auto" else []
    placement.program.tiled(asked or [spec, *others], write, work.node.label, alive, worker, more)


def _reading(placement: Placement, x: Blocked, run: _Run, constants: Sequence[Argument],
             corner: int) -> list[Argument]:  # fmt: skip
    """Arguments that say where the input is: whole blocks from one on, or an offset for each channel or block."""
    if run.block is None:
        lanes, runs = placement.lanes, run.spec.runs
        looked_up = np.concatenate([run.reads[: runs * lanes : lanes], run.reads[runs * lanes :]])
        entries = tuple(x.offset(int(p)) for p in looked_up)
        return [placement.start, *constants, Table(tuple(Address(e.buffer, e.delta + corner) for e in entries))]
    at = x.offset(run.block * placement.lanes)
    return [Address(at.buffer, at.delta + corner), *constants]


def _whole_blocks(x: Blocked, places: Ints) -> int | None:
    """The first block, if these lanes are whole blocks in order in one buffer."""
    lanes = x.extent.lanes
    if lanes == 1 or len(places) % lanes or places[0] % lanes or np.any(np.diff(places) != 1):
        return None
    first, count = int(places[0]) // lanes, len(places) // lanes
    buffer, at = x.blocks[first]
    run = all(b is buffer and i == at + k * x.extent.block for k, (b, i) in enumerate(x.blocks[first : first + count]))
    return first if run else None


def _blocks_first(reads: Ints, lanes: int) -> tuple[Ints, int]:
    """An order of these lanes in which those that make up whole blocks come first, and how many blocks these are."""
    order = np.argsort(reads, kind="stable")
    blocks = reads[order] // lanes
    whole = np.bincount(blocks)[blocks] == lanes
    return np.concatenate([order[whole], order[~whole]]), int(whole.sum()) // lanes


def lane_by_lane(placement: Placement, x: Blocked, work: Folded) -> Blocked:
    """Depthwise, or groups that lie in neighbouring lanes: the channels stay in the lanes they are in."""
    out = placement.new_blocked(work.name, x.channels)
    return write_depthwise(placement, x, work, out, plan_epilogue(placement, work.tail, out))


def write_depthwise(placement: Placement, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> Blocked:
    """One call for all blocks."""
    lanes, taps, group = placement.lanes, work.kernel[0] * work.kernel[1], work.weight.shape[1]
    used = x.channels >= 0
    packed = np.zeros((len(x.channels), group, taps), np.float32)
    packed[used] = work.weight.reshape(-1, group, taps)[x.channels[used]]
    spec = WindowSpec(
        "conv", lanes, out.extent.n, len(out.blocks), out.extent.h, out.extent.w, work.kernel, work.stride,
        work.dilation, work.pad, (x.extent.h, x.extent.w), strides(x.extent), strides(out.extent),
        not x.contiguous, True, epilogue.post_ops, placement.threads, group,
    )  # fmt: skip
    extra = [
        placement.program.weight(packed.reshape(-1, lanes, group, taps).transpose(0, 3, 2, 1)),
        per_lane_repeated(placement, work.bias, out.channels, copies_of_bias(placement.target)),
    ]
    call_window(placement, spec, x, out, extra, epilogue, work.node.label)
    return out


def padded(axes: Axes, node: Node, shape: tuple[int, ...]) -> bool:
    """A convolution of a signal or an image with known weights, and none that crops."""
    return constant_spatial(axes, node, shape) and min(node.attrs["pad"]) >= 0


def halo(graph: Graph, node: Node) -> int:
    """The zeros that a convolution reads around its input."""
    return int(max(node.attrs["pad"], default=0))


HEADS: Mapping[str, Head] = MappingProxyType({"conv": Head(padded, conv, halo), "linear": Head(constant, linear)})
