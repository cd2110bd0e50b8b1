"""Convolutions and linear layers: batch norm folded, then depthwise, dense or grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.codegen.fusion import Chain
from secateur.codegen.layout import Layout, strides
from secateur.codegen.packing import Floats, block_weight, flatten, groups_of, pack
from secateur.codegen.program import Argument, Table, Weight
from secateur.codegen.specs import ConvChoice, ConvSpec, WindowSpec, WinogradChoice, WinogradSpec
from secateur.codegen.tensors import Blocked, Ints, Place
from secateur.ir import Node

from .epilogue import Epilogue, Flow, affine, flows, per_lane, plan_epilogue
from .window import call_window
from .winograd import arguments as winograd_arguments
from .winograd import rivals


@dataclass(frozen=True)
class Folded:
    """A convolution with the batch norms behind it folded in: what is left to do is ``tail``.

    ``weight`` [o, i / groups, kh, kw], ``bias`` [o].
    """

    node: Node
    name: str  # the value that is written
    weight: Floats
    bias: NDArray[np.float64]
    tail: Sequence[Flow]
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def kernel(self) -> tuple[int, int]:
        """Its rows and columns."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])


def fold(layout: Layout, chain: Chain, weight: NDArray[np.float64]) -> Folded:
    """The chain with its batch norms folded in float64; ``weight`` [o, i / groups, kh, kw]."""
    node, tail, flow = chain.head, list(chain.tail), chain.head.name
    name = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(1) if name is None else layout.graph.weights[name].astype(np.float64).reshape(-1)
    bias = np.broadcast_to(bias, (weight.shape[0],))
    while tail and tail[0].op == "batch_norm" and not any(flow in n.inputs for n in tail[1:]):
        scale, shift = affine(layout.graph, tail[0])
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        flow = tail.pop(0).name
    return Folded(node, chain.last.name, weight.astype(np.float32), bias, flows(flow, tail))


def conv(layout: Layout, chain: Chain) -> Blocked:
    """Depthwise, dense or grouped; a few channels that lie row by row are read as they lie."""
    node, a = chain.head, chain.head.attrs
    weight = as_picture(layout.graph.weights[node.inputs[1] or ""].astype(np.float64))
    lone = (1,) * (2 - len(a["stride"]))
    half = len(a["pad"]) // 2
    pad = (*(0 for _ in lone), *a["pad"][:half], *(0 for _ in lone), *a["pad"][half:])
    work = replace(
        fold(layout, chain, weight), groups=int(a["groups"]), stride=(*lone, *a["stride"]),
        dilation=(*lone, *a["dilation"]), pad=pad,
    )  # fmt: skip
    name, margin = node.inputs[0] or "", max(work.pad)
    if weight.shape[1] * work.groups < layout.lanes and layout.lies_in_rows(name):
        return dense(layout, layout.get_planar(name), work)
    x = layout.get_blocked(name, 1)
    if work.groups > 1 and weight.shape[1] == 1 and weight.shape[0] == work.groups:
        return depthwise(layout, layout.with_margin(layout.together(name, x), margin), work)
    return dense(layout, layout.with_margin(x, margin), work)


def as_picture(weight: NDArray[Any]) -> NDArray[Any]:
    """A kernel of signals [.., .., w] as one of pictures with one row."""
    return weight.reshape(*weight.shape[:2], *(1,) * (4 - weight.ndim), *weight.shape[2:])


def linear(layout: Layout, chain: Chain) -> Blocked:
    """A linear layer, or a product with a constant [i, o]: a 1x1 convolution, all axes but the last its picture."""
    node, axis = chain.head, len(chain.head.out.shape) - 1
    weight = layout.graph.weights[node.inputs[1] or ""].astype(np.float64)
    weight = (weight.T if node.attrs.get("transposed", True) else weight)[:, :, None, None]
    return dense(layout, layout.get_blocked(node.inputs[0] or "", axis), fold(layout, chain, weight))


def dense(layout: Layout, x: Blocked, work: Folded) -> Blocked:
    """A dense or grouped convolution onto fresh blocks."""
    out = layout.new_blocked(work.name)
    return write_dense(layout, x, work, out, plan_epilogue(layout, work.tail, out))


def write_dense(layout: Layout, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> Blocked:
    """One call a run of output blocks that read the same input channels."""
    lanes, plane = layout.lanes, out.plane
    biases = per_lane(layout, work.bias, out)
    o, per_group = work.weight.shape[0], work.weight.shape[1]
    places, blocks = x.places(), len(out.blocks)
    corner = -(work.pad[0] * x.plane.row + work.pad[1] * x.plane.column)
    first = 0
    while first < blocks:
        low, high = groups_of(first, lanes, o, work.groups)
        count = 1
        while first + count < blocks and groups_of(first + count, lanes, o, work.groups) == (low, high):
            count += 1
        reads = places[low * per_group : high * per_group]
        part = block_weight(work.weight, first * lanes, (first + count) * lanes, low, high, work.groups)
        whole = _whole_blocks(x, reads)
        spec = flatten(ConvSpec(
            lanes, plane.n, len(reads), count, plane.h, plane.w, work.kernel, work.stride, work.dilation,
            strides(x.plane), strides(plane), whole is None, epilogue.steps, True, layout.threads,
        ))  # fmt: skip
        others = rivals(spec, x, reads, part)
        choice: ConvChoice | WinogradChoice = layout.choose(spec, *others)
        bias = Weight(biases.offset + first * lanes * 4)
        kernel: ConvSpec | WinogradSpec = spec
        if isinstance(choice, WinogradChoice):
            (kernel,) = others
            arguments = winograd_arguments(layout, kernel, choice, x, reads, part, bias, corner)
        else:
            w = layout.program.weight(pack(part, spec, min(choice.nb, count)))
            arguments = _reading(layout, x, reads, whole, [w, bias], corner)
        more, alive = epilogue.arguments(layout, first, count)
        arguments += [*more, out.offset(first * lanes)]
        layout.program.call(kernel, choice, arguments, work.node.label, [b for b, _ in x.blocks] + alive)
        first += count
    return out


def _reading(layout: Layout, x: Blocked, reads: Ints, whole: int | None, constants: Sequence[Argument],
             corner: int) -> list[Argument]:  # fmt: skip
    """Arguments that say where the input is: whole blocks from ``whole`` on, or an offset for each channel."""
    if whole is None:
        entries = tuple(x.offset(int(p)) for p in reads)
        return [layout.start, *constants, Table(tuple(Place(e.buffer, e.delta + corner) for e in entries))]
    at = x.offset(whole * layout.lanes)
    return [Place(at.buffer, at.delta + corner), *constants]


def _whole_blocks(x: Blocked, places: Ints) -> int | None:
    """The first block, if these lanes are whole blocks in order in one buffer."""
    lanes = x.plane.lanes
    if lanes == 1 or len(places) % lanes or places[0] % lanes or np.any(np.diff(places) != 1):
        return None
    first, count = int(places[0]) // lanes, len(places) // lanes
    buffer, at = x.blocks[first]
    run = all(b is buffer and i == at + k * x.plane.block for k, (b, i) in enumerate(x.blocks[first : first + count]))
    return first if run else None


def depthwise(layout: Layout, x: Blocked, work: Folded) -> Blocked:
    """Lane by lane; the channels stay in the lanes they are in."""
    out = layout.new_blocked(work.name, x.channels)
    return write_depthwise(layout, x, work, out, plan_epilogue(layout, work.tail, out))


def write_depthwise(layout: Layout, x: Blocked, work: Folded, out: Blocked, epilogue: Epilogue) -> Blocked:
    """One call for all blocks."""
    lanes, taps = layout.lanes, work.kernel[0] * work.kernel[1]
    used = x.channels >= 0
    packed = np.zeros((len(x.channels), taps), np.float32)
    packed[used] = work.weight.reshape(-1, taps)[x.channels[used]]
    spec = WindowSpec(
        "conv", lanes, out.plane.n, len(out.blocks), out.plane.h, out.plane.w, work.kernel, work.stride,
        work.dilation, work.pad, (x.plane.h, x.plane.w), strides(x.plane), strides(out.plane),
        not x.contiguous, True, epilogue.steps, layout.threads,
    )  # fmt: skip
    extra = [
        layout.program.weight(packed.reshape(-1, lanes, taps).transpose(0, 2, 1)),
        per_lane(layout, work.bias, out),
    ]
    call_window(layout, spec, x, out, extra, epilogue, work.node.label)
    return out
