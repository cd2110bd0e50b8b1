"""Where every value of a graph lies while its program is written, and the calls that move it elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from secateur.ir import Graph
from secateur.ir.graph import numpy_dtype

from .fusion import margins, moves, picture
from .program import Argument, Port, Program, Table
from .specs import CopySpec, FillSpec, Strides
from .targets import Target
from .tensors import Blocked, Buffer, Ints, Place, Plain, Plane, natural_channels

Choose = Callable[..., Any]


class Layout:
    """Values in blocks and row by row, converted when a reader asks for the other form. Writes into ``program``.

    ``choose`` says how to tile a kernel; given several specs that compute the same, it picks one by its choice.
    """

    def __init__(self, graph: Graph, target: Target, threads: int, choose: Choose) -> None:
        self.graph, self.target, self.threads, self.choose = graph, target, threads, choose
        self.lanes = target.lanes
        self.program = Program()
        self.start = Place(Buffer(0, 0, 0, 0))  # the beginning of the arena: what tables count from
        self.moves = moves(graph)
        self.margins = margins(graph, self.moves)
        self.blocked: dict[str, Blocked] = {}
        self.plain: dict[str, Plain] = {}
        for value in graph.inputs:
            self.plain[value.name] = Plain(value.shape, value.dtype, port=value.name)

    # --- in blocks --------------------------------------------------------------------------------------------------

    def new_blocked(self, name: str, channels: Ints | None = None) -> Blocked:
        """Blocks for a value, margins as its readers need them; its margin is zeroed by a call."""
        shape = picture(self.graph.value(name).shape)
        assert shape is not None
        n, c, h, w = shape
        plane = Plane(int(n), int(h), int(w), self.margins.get(name, 0), self.lanes)
        channels = natural_channels(c, self.lanes) if channels is None else channels
        return self._blocks(plane, channels)

    def _blocks(self, plane: Plane, channels: Ints) -> Blocked:
        count = len(channels) // plane.lanes
        buffer = self.program.arena.new(count * plane.block)
        if plane.margin:
            fill = FillSpec(plane.lanes, plane.n, count, plane.h, plane.w, plane.margin)
            self.program.call(fill, None, [Place(buffer)], "margin")
        return Blocked(plane, tuple((buffer, i) for i in range(count)), channels)

    def get_blocked(self, name: str) -> Blocked:
        """The value in blocks, converted if it lies row by row."""
        if name not in self.blocked:
            source, out = self.plain[name], self.new_blocked(name)
            shape = picture(source.shape)
            assert shape is not None
            n, c, h, w = shape
            x = Strides(0, c * h * w, w, 1)
            entries = tuple(int(ch) * h * w if ch >= 0 else -1 for ch in out.channels)
            y = [out.offset(lane) for lane in range(len(out.channels))]
            self.program.call(
                CopySpec(len(out.channels), n, h, w, x, strides(out.plane), "channels"), None,
                [address(source), Table(entries), relative(y), y[0]], f"to blocks {name}",
            )  # fmt: skip
            self.blocked[name] = out
        return self.blocked[name]

    def get_planar(self, name: str) -> Blocked:
        """A value with few channels, one a block of one lane: read as it lies, or copied where a margin is needed."""
        source, margin = self.plain[name], self.margins.get(name, 0)
        n, c, h, w = (int(d) for d in source.shape)
        out = self._blocks(Plane(n, h, w, margin, 1), np.arange(c, dtype=np.int64))
        y = [out.offset(i) for i in range(c)]
        self.program.call(
            CopySpec(c, n, h, w, Strides(0, c * h * w, w, 1), strides(out.plane), "pixels"), None,
            [address(source), Table(tuple(i * h * w for i in range(c))), relative(y), y[0]], f"pad {name}",
        )  # fmt: skip
        return out

    def compact(self, name: str) -> Blocked:
        """The value in blocks, moved together if it is spread over more blocks than it fills."""
        x = self.get_blocked(name)
        channels = natural_channels(x.width, self.lanes)
        if len(x.channels) > len(channels):
            x = self.relayout(x, x.plane.margin, channels)
            self.blocked[name] = x
        return x

    def relayout(self, x: Blocked, margin: int, channels: Ints) -> Blocked:
        """The same tensor with its channels in other lanes."""
        out = self._blocks(replace(x.plane, margin=margin), channels)
        places = x.places()
        entries = tuple(x.offset(int(places[c])) if c >= 0 else -1 for c in channels)
        y = [out.offset(lane) for lane in range(len(channels))]
        self.program.call(
            CopySpec(len(channels), x.plane.n, x.plane.h, x.plane.w, strides(x.plane), strides(out.plane), "channels"),
            None, [self.start, Table(entries), relative(y), y[0]], "relayout",
        )  # fmt: skip
        return out

    # --- row by row -------------------------------------------------------------------------------------------------

    def get_plain(self, name: str) -> Plain:
        """The value row by row, converted if it lies in blocks."""
        if name not in self.plain:
            out = self.new_plain(name)
            self.unpack(name, out)
            self.plain[name] = out
        return self.plain[name]

    def new_plain(self, name: str) -> Plain:
        """Memory for a value row by row."""
        value = self.graph.value(name)
        shape = tuple(map(int, value.shape))
        words = max(1, -(-math.prod(shape) * numpy_dtype(value.dtype).itemsize // 4))
        return Plain(shape, value.dtype, self.program.arena.new(words))

    def unpack(self, name: str, out: Plain) -> None:
        """Write a value that lies in blocks row by row."""
        x, shape = self.blocked[name], picture(out.shape)
        assert shape is not None
        n, c, h, w = (int(d) for d in shape)
        entries = tuple(x.offset(int(p)) for p in x.places())
        y = Strides(0, c * h * w, w, 1)
        order = "pixels" if h * w > 1 else "channels"
        self.program.call(
            CopySpec(c, n, h, w, strides(x.plane), y, order), None,
            [self.start, Table(entries), Table(tuple(i * h * w for i in range(c))), address(out)],
            f"from blocks {name}",
        )  # fmt: skip


def address(x: Plain) -> Argument:
    """Where a value row by row begins."""
    if x.port is not None:
        return Port(x.port)
    assert x.buffer is not None
    return Place(x.buffer)


def strides(plane: Plane) -> Strides:
    """The strides of a picture in blocks."""
    return Strides(plane.block, plane.image, plane.row, plane.column)


def relative(places: Sequence[Place]) -> Table:
    """Offsets from the first place."""
    return Table(tuple(places), base=places[0])


def block_table(x: Blocked, first: int, count: int) -> Table:
    """Where each of a run of blocks begins."""
    return Table(tuple(x.offset(b * x.plane.lanes) for b in range(first, first + count)))
