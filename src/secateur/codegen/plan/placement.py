"""Where every value of a graph lies while its program is written, and the calls that move it elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from secateur.codegen.targets import Target
from secateur.ir import RESHAPES, Graph, Node
from secateur.ir.graph import numpy_dtype

from .aliases import margins, moves
from .axes import Forms, default_axis, picture
from .copies import Memories, Writer, as_matrix, view
from .copy_specs import CopySpec, FillSpec, MoveSpec
from .family import Family, Head, accepted, heads
from .fusion import is_head
from .moves import move
from .program import Argument, Choose, Port, Program, Table, Weight
from .strides import Strides
from .tensors import Blocked, Buffer, Ints, Place, Plain, Plane, natural_channels

LOOSE = 2  # times the blocks that a value needs: from there on it is moved together before it is read block by block


class Layout:
    """Values in blocks and row by row, converted when a reader asks for the other form. Writes into ``program``.

    ``moved`` are values that nobody has asked for yet and that only move others. ``choose`` says how to tile
    kernels, None that the program leaves it open (see ``Program``).
    """

    def __init__(
        self, graph: Graph, target: Target, threads: int, choose: Choose | None, families: tuple[Family, ...]
    ) -> None:
        self.graph, self.target, self.threads = graph, target, threads
        self.families = families
        self.lanes = target.lanes
        self.program = Program(choose)
        self.start = Place(Buffer(0, offset=0))  # the beginning of the arena: what tables count from
        self.forms = Forms(graph, accepted(families))
        self.moves = moves(self.forms)
        self.margins = margins(self.forms, self.moves, self._read_around(heads(families)))
        self.memories = Memories()
        self.blocked: dict[str, Blocked] = {}
        self.turned: dict[tuple[str, int], Blocked] = {}  # in blocks, but along another axis than the value's own
        self.plain: dict[str, Plain] = {}
        self.moved: dict[str, Node] = {}
        self.constants: dict[str, Weight] = {}  # that were moved into a value
        for value in graph.inputs:
            self.plain[value.name] = Plain(value.shape, value.dtype, port=value.name)

    def _read_around(self, rows: Mapping[str, Head]) -> Iterator[tuple[str, int]]:
        """What kernels read outside of a value: its name, and how many zeros around it."""
        for node in self.graph.nodes:
            row = rows.get(node.op)
            if row is not None and row.halo is not None and is_head(self.forms, node):
                yield node.inputs[0] or "", row.halo(self.graph, node)

    # --- in blocks --------------------------------------------------------------------------------------------------

    def new_blocked(self, name: str, channels: Ints | None = None) -> Blocked:
        """Blocks for a value, margins as its readers need them; its margin is zeroed by a call."""
        n, c, h, w = self.forms.picture(name)
        plane = Plane(n, h, w, self.margins.get(name, 0), self.lanes)
        return self.new_blocks(plane, natural_channels(c, self.lanes) if channels is None else channels)

    def new_blocks(self, plane: Plane, channels: Ints) -> Blocked:
        """Fresh blocks, one after another."""
        count = len(channels) // plane.lanes
        buffer = self.program.arena.new(count * plane.block, plane.lanes == self.lanes)
        if plane.margin:
            fill = FillSpec(plane.lanes, plane.n, count, plane.h, plane.w, plane.margin, self.threads)
            self.program.call(fill, None, [Place(buffer)], "margin", more=True)  # who comes next writes inside of it
        return Blocked(plane, tuple((buffer, i * plane.block + plane.origin) for i in range(count)), channels)

    def get_blocked(self, name: str, axis: int | None = None) -> Blocked:
        """The value in blocks, its channels along its own axis or the one given; converted if it does not lie so."""
        if axis is not None and axis != self.forms.axes[name]:
            if (name, axis) not in self.turned:
                self.turned[name, axis] = self._from_addresses(name, axis, 0)
            return self.turned[name, axis]
        if name not in self.blocked:
            own = self.forms.axes[name]
            rows = self.plain.get(name)
            simple = rows is not None and own == default_axis(len(rows.shape)) and len(rows.shape) <= 4
            self.blocked[name] = (
                self._from_rows(name, rows) if simple and rows else
                self._from_addresses(name, own, self.margins.get(name, 0))
            )  # fmt: skip
        return self.blocked[name]

    def _from_rows(self, name: str, source: Plain) -> Blocked:
        out = self.new_blocked(name)
        axis = self.forms.axes[name]
        x, step = row_strides(source.shape, axis)
        entries = tuple(int(ch) * step if ch >= 0 else -1 for ch in out.channels)
        y = [out.offset(lane) for lane in range(len(out.channels))]
        plane = out.plane
        spec = CopySpec(len(y), plane.n, plane.h, plane.w, x, strides(plane), "channels", self.threads)
        arguments = [address(source), Table(entries), relative(y), y[0]]
        self.program.call(spec, None, arguments, f"to blocks {name}")
        return out

    def _from_addresses(self, name: str, axis: int, margin: int) -> Blocked:
        """A view, or a copy by tables."""
        addresses = self.addresses(name)
        seen = view(self.memories, addresses, axis, self.lanes)
        if seen is not None and not margin:
            return seen
        n, c, h, w = picture(addresses.shape, axis)
        return self._copied(addresses, axis, self.new_blocks(
            Plane(n, h, w, margin, self.lanes), natural_channels(c, self.lanes)), name)  # fmt: skip

    def _copied(self, addresses: Ints, axis: int, out: Blocked, name: str) -> Blocked:
        Writer(self.program, self.memories, self.threads, f"move {name}", out.offset(0)).to_blocked(
            as_matrix(addresses, axis), out)  # fmt: skip
        return out

    def lies_in_rows(self, name: str) -> bool:
        """Is this a value row by row, or one that was only moved from such?"""
        while name in self.moved and name not in self.blocked and name not in self.plain:
            name = self.moved[name].inputs[0] or ""
        return name in self.plain and name not in self.blocked

    def get_planar(self, name: str) -> Blocked:
        """A value [n, c, h, w] with few channels, one a block of one lane, copied for the margin."""
        n, c, h, w = self.forms.picture(name, 1)
        out = self.new_blocks(Plane(n, h, w, self.margins.get(name, 0), 1), np.arange(c, dtype=np.int64))
        if name not in self.plain:
            return self._copied(self.addresses(name), 1, out, name)
        y = [out.offset(i) for i in range(c)]
        self.program.call(
            CopySpec(c, n, h, w, Strides(0, c * h * w, w, 1), strides(out.plane), "pixels", self.threads), None,
            [address(self.plain[name]), Table(tuple(i * h * w for i in range(c))), relative(y), y[0]], f"pad {name}",
        )  # fmt: skip
        return out

    def together(self, name: str, x: Blocked) -> Blocked:
        """The same, moved together if it is spread over far more blocks than it fills."""
        channels = natural_channels(x.width, self.lanes)
        if len(x.channels) > LOOSE * len(channels):
            x = self.relayout(x, x.plane.margin, channels)
            if name in self.blocked:
                self.blocked[name] = x
        return x

    def with_margin(self, x: Blocked, margin: int) -> Blocked:
        """The same tensor with at least this margin."""
        return x if x.plane.margin >= margin else self.relayout(x, margin, x.channels)

    def relayout(self, x: Blocked, margin: int, channels: Ints) -> Blocked:
        """The same tensor with its channels in other lanes."""
        out = self.new_blocks(replace(x.plane, margin=margin, steps=None), channels)
        places, lanes = x.places(), x.plane.lanes
        sources: list[Place] = []
        picks = []
        for block in channels.reshape(-1, lanes):
            lane = np.where(block >= 0, places[block], -1)
            used = np.unique(lane[lane >= 0] // lanes)
            pick = np.where(lane >= 0, np.searchsorted(used, lane // lanes) * lanes + lane % lanes, -1)
            picks.append(tuple(map(int, pick)))
            sources += [x.offset(int(b) * lanes) for b in used]
        spec = MoveSpec(lanes, x.plane.n, x.plane.h, x.plane.w, strides(x.plane), strides(out.plane), tuple(picks),
                        self.threads)  # fmt: skip
        self.program.call(
            spec, None, [self.start, Table(tuple(sources)), out.offset(0)], "relayout",
            [b for b, _ in x.blocks],
        )  # fmt: skip
        return out

    # --- row by row -------------------------------------------------------------------------------------------------

    def get_plain(self, name: str) -> Plain:
        """The value row by row, converted if it lies in blocks."""
        if name not in self.plain:
            self.plain[name] = self._renamed(name) or self._unpacked(name)
        return self.plain[name]

    def _renamed(self, name: str) -> Plain | None:
        """A value that is another one row by row under another shape."""
        node = self.moved.get(name)
        source = node.inputs[0] if node is not None and node.op in SAME_ROWS else None
        if source is None or source in self.graph.weights or (source in self.blocked and source not in self.plain):
            return None
        rows = self.get_plain(source)
        return Plain(tuple(map(int, self.graph.value(name).shape)), rows.dtype, rows.buffer, rows.port)

    def _unpacked(self, name: str) -> Plain:
        out = self.new_plain(name)
        self.unpack(name, out)
        return out

    def new_plain(self, name: str) -> Plain:
        """Memory for a value row by row."""
        value = self.graph.value(name)
        shape = tuple(map(int, value.shape))
        words = max(1, -(-math.prod(shape) * numpy_dtype(value.dtype).itemsize // 4))
        return Plain(shape, value.dtype, self.program.arena.new(words))

    def unpack(self, name: str, out: Plain) -> None:
        """Write a value that lies in blocks, or was only moved, row by row."""
        axis = self.forms.axes[name]
        x = self.blocked.get(name)
        if x is None or axis != default_axis(len(out.shape)) or len(out.shape) > 4:
            self._rows_from_addresses(name, out, axis)
            return
        y, step = row_strides(out.shape, axis)
        entries = tuple(x.offset(int(p)) for p in x.places())
        order = "pixels" if x.plane.h * x.plane.w > 1 and y.column == 1 else "channels"
        self.program.call(
            CopySpec(len(entries), x.plane.n, x.plane.h, x.plane.w, strides(x.plane), y, order, self.threads), None,
            [self.start, Table(entries), Table(tuple(i * step for i in range(len(entries)))), address(out)],
            f"from blocks {name}",
        )  # fmt: skip

    def _rows_from_addresses(self, name: str, out: Plain, axis: int) -> None:
        rows = as_matrix(np.arange(math.prod(out.shape), dtype=np.int64).reshape(out.shape), axis)
        writer = Writer(self.program, self.memories, self.threads, f"move {name}", address(out))
        writer.scattered(as_matrix(self.addresses(name), axis), rows[:, 0] - rows[0, 0], rows[0])

    # --- where things lie ---------------------------------------------------------------------------------------------

    def addresses(self, name: str) -> Ints:
        """The address of each element of a value, as ``memories`` counts."""
        shape = tuple(map(int, self.graph.value(name).shape))
        if name in self.blocked:
            return self.memories.of_blocked(self.blocked[name], shape, self.forms.axes[name])
        if name in self.plain:
            return self.memories.of_plain(self.plain[name])
        if name in self.graph.weights:
            if name not in self.constants:
                self.constants[name] = self.program.weight(self.graph.weights[name])
            return self.memories.of_weight(self.constants[name], shape)
        node = self.moved[name]
        known = node.inputs[:1] if node.op == "gather" else node.inputs
        arrays = [self.addresses(i or "") for i in known]
        return move(node, [*arrays, *(self.graph.weights[i or ""] for i in node.inputs[len(known) :])], name)


SAME_ROWS = RESHAPES | {"identity", "dropout"}


def row_strides(shape: Sequence[int], axis: int) -> tuple[Strides, int]:
    """How the picture of a value of at most rank 4 lies row by row, and how far its channels are apart."""
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    step = steps.pop(axis)
    n, row, column = {0: [0, 0, 0], 1: [*steps, 0, 0], 2: [*steps[:1], 0, *steps[1:]]}.get(len(steps), steps)
    return Strides(0, n, row, column), step


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
