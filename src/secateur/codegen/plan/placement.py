"""Where every value of a graph lies while its program is written, and the calls that move it elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from secateur.codegen.targets import Target
from secateur.ir import RESHAPES, Graph, Node
from secateur.ir.graph import numpy_dtype

from .aliases import aliases, halos
from .axes import Axes, default_axis, nchw
from .copies import CopyEmitter, Memories, as_matrix, view
from .copy_specs import CopySpec, FillSpec, MoveSpec
from .family import Family, Head, accepted, heads
from .fusion import is_head
from .moves import move
from .precision import F32, Precision
from .program import Argument, Choose, Port, Program, Table, Weight
from .strides import Strides
from .tensors import Address, Arena, Blocked, Buffer, Dense, Extent, Ints, natural_channels

LOOSE = 2  # times the blocks that a value needs: from there on it is compacted before it is read block by block


class Placement:
    """Values in blocks (NCHWc) and row-major, converted when a reader asks for the other form. Writes into ``program``.

    ``deferred`` are values that nobody has asked for yet and that only move others. ``choose`` says how to tile
    kernels, None that the program leaves it open (see ``Program``). ``memory`` is the backend's: every address is an
    offset in it. Layers whose labels are in ``direct`` are computed by exact families alone.
    """

    def __init__(
        self,
        graph: Graph,
        target: Target,
        threads: int,
        choose: Choose | None,
        families: tuple[Family, ...],
        memory: Arena,
        direct: frozenset[str] = frozenset(),
        precision: Precision = F32,
    ) -> None:
        self.graph, self.target, self.threads = graph, target, threads
        self.families, self.direct, self.precision = families, direct, precision
        self.lanes = target.lanes
        self.program = Program(choose, arena=memory)
        self.start = Address(Buffer(0, offset=0))  # the beginning of the arena: what tables count from
        self.axes = Axes(graph, accepted(families))
        self.aliases = aliases(self.axes)
        self.halos = halos(self.axes, self.aliases, self._read_around(heads(families)))
        self.memories = Memories()
        self.blocked: dict[str, Blocked] = {}
        self.turned: dict[tuple[str, int], Blocked] = {}  # in blocks, but along another axis than the value's own
        self.dense: dict[str, Dense] = {}
        self.deferred: dict[str, Node] = {}
        self.constants: dict[str, Weight] = {}  # that were copied into a value
        for value in graph.inputs:
            self.dense[value.name] = Dense(value.shape, value.dtype, port=value.name)

    def offering(self, node: Node) -> list[Family]:
        """The families that may compute a dense convolution in place of the direct one."""
        exact, takes = node.label in self.direct, self.precision.takes
        return [
            family
            for family in self.families
            if family.alternative is not None and (family.exact or not exact) and takes(family.dtype, node.label)
        ]

    def _read_around(self, rows: Mapping[str, Head]) -> Iterator[tuple[str, int]]:
        """What kernels read outside of a value: its name, and how many zeros around it."""
        for node in self.graph.nodes:
            row = rows.get(node.op)
            if row is not None and row.halo is not None and is_head(self.axes, node):
                yield node.inputs[0] or "", row.halo(self.graph, node)

    # --- NCHWc ------------------------------------------------------------------------------------------------------

    def new_blocked(self, name: str, channels: Ints | None = None) -> Blocked:
        """Blocks for a value, halos as its readers need them; its halo is zeroed by a call."""
        n, c, h, w = self.axes.nchw(name)
        extent = Extent(n, h, w, self.halos.get(name, 0), self.lanes)
        return self.new_blocks(extent, natural_channels(c, self.lanes) if channels is None else channels)

    def new_blocks(self, extent: Extent, channels: Ints) -> Blocked:
        """Fresh blocks, one after another."""
        count = len(channels) // extent.lanes
        buffer = self.program.arena.new(count * extent.block, extent.lanes == self.lanes)
        if extent.halo:
            fill = FillSpec(extent.lanes, extent.n, count, extent.h, extent.w, extent.halo, self.threads)
            self.program.call(fill, None, [Address(buffer)], "halo", more=True)  # who comes next writes inside of it
        return Blocked(extent, tuple((buffer, i * extent.block + extent.origin) for i in range(count)), channels)

    def get_blocked(self, name: str, axis: int | None = None) -> Blocked:
        """The value in blocks, its channels along its own axis or the one given; converted if it does not lie so."""
        if axis is not None and axis != self.axes.channel[name]:
            if (name, axis) not in self.turned:
                self.turned[name, axis] = self._from_addresses(name, axis, 0)
            return self.turned[name, axis]
        if name not in self.blocked:
            own = self.axes.channel[name]
            rows = self.dense.get(name)
            simple = rows is not None and own == default_axis(len(rows.shape)) and len(rows.shape) <= 4
            self.blocked[name] = (
                self._from_rows(name, rows) if simple and rows else
                self._from_addresses(name, own, self.halos.get(name, 0))
            )  # fmt: skip
        return self.blocked[name]

    def _from_rows(self, name: str, source: Dense) -> Blocked:
        out = self.new_blocked(name)
        axis = self.axes.channel[name]
        x, step = row_strides(source.shape, axis)
        entries = tuple(int(ch) * step if ch >= 0 else -1 for ch in out.channels)
        y = [out.offset(lane) for lane in range(len(out.channels))]
        extent = out.extent
        spec = CopySpec(len(y), extent.n, extent.h, extent.w, x, strides(extent), "channels", self.threads)
        arguments = [address(source), Table(entries), relative(y), y[0]]
        self.program.call(spec, None, arguments, f"to blocks {name}")
        return out

    def _from_addresses(self, name: str, axis: int, halo: int) -> Blocked:
        """A view, or a copy by tables."""
        addresses = self.addresses(name)
        seen = view(self.memories, addresses, axis, self.lanes)
        if seen is not None and not halo:
            return seen
        n, c, h, w = nchw(addresses.shape, axis)
        return self._copied(addresses, axis, self.new_blocks(
            Extent(n, h, w, halo, self.lanes), natural_channels(c, self.lanes)), name)  # fmt: skip

    def _copied(self, addresses: Ints, axis: int, out: Blocked, name: str) -> Blocked:
        CopyEmitter(self.program, self.memories, self.threads, f"move {name}", out.offset(0)).to_blocked(
            as_matrix(addresses, axis), out)  # fmt: skip
        return out

    def lies_in_rows(self, name: str) -> bool:
        """Is this a row-major value, or one that only copies such?"""
        while name in self.deferred and name not in self.blocked and name not in self.dense:
            name = self.deferred[name].inputs[0] or ""
        return name in self.dense and name not in self.blocked

    def get_planar(self, name: str) -> Blocked:
        """A value [n, c, h, w] with few channels, one a block of one lane, copied for the halo."""
        n, c, h, w = self.axes.nchw(name, 1)
        out = self.new_blocks(Extent(n, h, w, self.halos.get(name, 0), 1), np.arange(c, dtype=np.int64))
        if name not in self.dense:
            return self._copied(self.addresses(name), 1, out, name)
        y = [out.offset(i) for i in range(c)]
        self.program.call(
            CopySpec(c, n, h, w, Strides(0, c * h * w, w, 1), strides(out.extent), "pixels", self.threads), None,
            [address(self.dense[name]), Table(tuple(i * h * w for i in range(c))), relative(y), y[0]], f"pad {name}",
        )  # fmt: skip
        return out

    def compacted(self, name: str, x: Blocked) -> Blocked:
        """The same, compacted if it is spread over far more blocks than it fills."""
        channels = natural_channels(x.width, self.lanes)
        if len(x.channels) > LOOSE * len(channels):
            x = self.relayout(x, x.extent.halo, channels)
            if name in self.blocked:
                self.blocked[name] = x
        return x

    def with_halo(self, x: Blocked, halo: int) -> Blocked:
        """The same tensor with at least this halo."""
        return x if x.extent.halo >= halo else self.relayout(x, halo, x.channels)

    def relayout(self, x: Blocked, halo: int, channels: Ints) -> Blocked:
        """The same tensor with its channels in other lanes."""
        out = self.new_blocks(replace(x.extent, halo=halo, strides=None), channels)
        places, lanes = x.places(), x.extent.lanes
        sources: list[Address] = []
        picks = []
        for block in channels.reshape(-1, lanes):
            lane = np.where(block >= 0, places[block], -1)
            used = np.unique(lane[lane >= 0] // lanes)
            pick = np.where(lane >= 0, np.searchsorted(used, lane // lanes) * lanes + lane % lanes, -1)
            picks.append(tuple(map(int, pick)))
            sources += [x.offset(int(b) * lanes) for b in used]
        spec = MoveSpec(lanes, x.extent.n, x.extent.h, x.extent.w, strides(x.extent), strides(out.extent), tuple(picks),
                        self.threads)  # fmt: skip
        self.program.call(
            spec, None, [self.start, Table(tuple(sources)), out.offset(0)], "relayout",
            [b for b, _ in x.blocks],
        )  # fmt: skip
        return out

    # --- row-major --------------------------------------------------------------------------------------------------

    def get_dense(self, name: str) -> Dense:
        """The value in row-major order, converted if it lies in blocks."""
        if name not in self.dense:
            self.dense[name] = self._alias_of(name) or self._unpacked(name)
        return self.dense[name]

    def _alias_of(self, name: str) -> Dense | None:
        """A value that is another row-major one under another shape."""
        node = self.deferred.get(name)
        source = node.inputs[0] if node is not None and node.op in SAME_ROWS else None
        if source is None or source in self.graph.weights or (source in self.blocked and source not in self.dense):
            return None
        rows = self.get_dense(source)
        return Dense(tuple(map(int, self.graph.value(name).shape)), rows.dtype, rows.buffer, rows.port)

    def _unpacked(self, name: str) -> Dense:
        out = self.new_dense(name)
        self.unpack(name, out)
        return out

    def new_dense(self, name: str) -> Dense:
        """Memory for a row-major value."""
        value = self.graph.value(name)
        shape = tuple(map(int, value.shape))
        words = max(1, -(-math.prod(shape) * numpy_dtype(value.dtype).itemsize // 4))
        return Dense(shape, value.dtype, self.program.arena.new(words))

    def unpack(self, name: str, out: Dense) -> None:
        """Write a value that lies in blocks, or only copies others, in row-major order."""
        axis = self.axes.channel[name]
        x = self.blocked.get(name)
        if x is None or axis != default_axis(len(out.shape)) or len(out.shape) > 4:
            self._rows_from_addresses(name, out, axis)
            return
        y, step = row_strides(out.shape, axis)
        entries = tuple(x.offset(int(p)) for p in x.places())
        order = "pixels" if x.extent.h * x.extent.w > 1 and y.column == 1 else "channels"
        self.program.call(
            CopySpec(len(entries), x.extent.n, x.extent.h, x.extent.w, strides(x.extent), y, order, self.threads), None,
            [self.start, Table(entries), Table(tuple(i * step for i in range(len(entries)))), address(out)],
            f"from blocks {name}",
        )  # fmt: skip

    def _rows_from_addresses(self, name: str, out: Dense, axis: int) -> None:
        rows = as_matrix(np.arange(math.prod(out.shape), dtype=np.int64).reshape(out.shape), axis)
        emitter = CopyEmitter(self.program, self.memories, self.threads, f"move {name}", address(out))
        emitter.scattered(as_matrix(self.addresses(name), axis), rows[:, 0] - rows[0, 0], rows[0])

    # --- where things lie ---------------------------------------------------------------------------------------------

    def addresses(self, name: str) -> Ints:
        """The address of each element of a value, as ``memories`` counts."""
        shape = tuple(map(int, self.graph.value(name).shape))
        if name in self.blocked:
            return self.memories.of_blocked(self.blocked[name], shape, self.axes.channel[name])
        if name in self.dense:
            return self.memories.of_dense(self.dense[name])
        if name in self.graph.weights:
            if name not in self.constants:
                self.constants[name] = self.program.weight(self.graph.weights[name])
            return self.memories.of_weight(self.constants[name], shape)
        node = self.deferred[name]
        known = node.inputs[:1] if node.op == "gather" else node.inputs
        arrays = [self.addresses(i or "") for i in known]
        return move(node, [*arrays, *(self.graph.weights[i or ""] for i in node.inputs[len(known) :])], name)


SAME_ROWS = RESHAPES | {"identity", "dropout"}


def row_strides(shape: Sequence[int], axis: int) -> tuple[Strides, int]:
    """The strides of a row-major value of at most rank 4, and how far its channels are apart."""
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    step = steps.pop(axis)
    n, row, column = {0: [0, 0, 0], 1: [*steps, 0, 0], 2: [*steps[:1], 0, *steps[1:]]}.get(len(steps), steps)
    return Strides(0, n, row, column), step


def address(x: Dense) -> Argument:
    """Where a row-major value begins."""
    if x.port is not None:
        return Port(x.port)
    assert x.buffer is not None
    return Address(x.buffer)


def strides(extent: Extent) -> Strides:
    """The strides of a spatial extent in blocks."""
    return Strides(extent.block, extent.image, extent.row, extent.column)


def relative(places: Sequence[Address]) -> Table:
    """Offsets from the first place."""
    return Table(tuple(places), base=places[0])


def block_table(x: Blocked, first: int, count: int) -> Table:
    """Where each of a run of blocks begins."""
    return Table(tuple(x.offset(b * x.extent.lanes) for b in range(first, first + count)))
