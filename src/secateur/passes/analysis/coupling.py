"""``couple``: which channels live and die together, which may not die, and why.

One forward sweep over the nodes records ties between atoms (``flow.py``); connected components make
units of them; random 64-bit signatures of the slots each unit appears in make groups of units. Both
are linear in the size of the graph and use no recursion.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from secateur.ir import Array, Graph, InputError, Node, PassError

from .flow import Flow, Rule
from .flow_compute import COMPUTE
from .flow_elementwise import ELEMENTWISE_RULES
from .flow_movement import MOVEMENT
from .notes import Channels, Constraint, Coupling, Group, Mixing, Slot

COUPLE: dict[str, Rule] = {**ELEMENTWISE_RULES, **MOVEMENT, **COMPUTE}
_CHAINS = frozenset(ELEMENTWISE_RULES) - {"softmax", "log_softmax", "cumsum", "batch_norm"} | frozenset(MOVEMENT)
_WHY_LINES = 6


@dataclass(frozen=True, slots=True)
class Couple:
    """Follow channels through the graph and leave a ``Coupling`` note.

    ``protect``: layer name patterns (shell globs) whose output channels all stay.
    Raises InputError if a pattern matches no layer.
    """

    name: ClassVar[str] = "couple"
    protect: tuple[str, ...] = ()

    def __call__(self, graph: Graph) -> Graph:
        return graph.with_note(couple(graph, self.protect))


def couple(graph: Graph, protect: tuple[str, ...] = ()) -> Coupling:
    """The coupling of a graph; see ``Couple``."""
    flow = sweep(graph)
    _protect(flow, protect)
    for name in graph.outputs:
        flow.freeze_value(name, "graph output")
    flow.freeze_partly_used()
    return _Units(flow).coupling()


def sweep(graph: Graph) -> Flow:
    """Apply the rule of every node in order."""
    flow = Flow(graph)
    for node in graph.nodes:
        inputs = [i for i in node.inputs if i is not None]
        if node.op in _CHAINS and all(flow.is_const(i) for i in inputs):
            flow.const.update(v.name for v in node.outputs)
            continue
        rule = COUPLE.get(node.op)
        if rule is None:
            raise PassError(f"couple has no rule for operator '{node.op}' of {node.source}")
        for value, track in zip(node.outputs, rule(flow, node), strict=True):
            if track is not None:
                flow.tracks[value.name] = track
    return flow


def _protect(flow: Flow, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        hits = [n for n in flow.graph.nodes if fnmatch.fnmatchcase(n.label, pattern)]
        if not hits:
            layers = [n.label for n in flow.graph.nodes if n.op in ("conv", "linear", "conv_transpose")]
            shown = ", ".join(layers[:5]) + (", ..." if len(layers) > 5 else "")
            raise InputError(f"protect pattern '{pattern}' matches no layer; layers are named {shown}")
        for node in hits:
            for value in node.outputs:
                flow.freeze_value(value.name, f"protected by '{pattern}'")


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Edges (row, column) of a bipartite or plain graph, for connected components."""

    rows: list[Array]
    columns: list[Array]

    def components(self, size: int) -> Array:
        rows = np.concatenate([np.zeros(0, np.int64), *self.rows])
        columns = np.concatenate([np.zeros(0, np.int64), *self.columns])
        graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
        return np.asarray(connected_components(graph, directed=False)[1], np.int64)


class _Units:
    """Atoms made into units, and everything that is known of a unit."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        atoms = _Pairs([t.left for t in flow.ties], [t.right for t in flow.ties]).components(flow.atoms)
        # Atom 0 is alone in its component; the others are numbered 0 .. size-1.
        atoms[0] = -1
        kept = np.unique(atoms[1:])
        self.size = len(kept)
        self.of = np.full(flow.atoms, -1, np.int64)
        self.of[1:] = np.searchsorted(kept, atoms[1:])
        self.reasons: list[str] = []
        self.reason = np.full(self.size, -1, np.int64)
        for freeze in flow.freezes:
            self._freeze(self.of[freeze.atoms], freeze.reason)
        self.slots = [
            Slot(s.weight, s.axis, self.of[s.atoms], s.role, s.node, s.groups)
            for s in flow.slots.values()
            if (s.atoms > 0).any()
        ]
        self.constraints = [Constraint(c.node, c.side, self.of[c.atoms], c.block) for c in flow.constraints]
        self._freeze_unproduced()

    def _freeze(self, units: Array, reason: str) -> None:
        units = units[units >= 0]
        fresh = units[self.reason[units] < 0]
        if len(fresh):
            self.reasons.append(reason)
            self.reason[fresh] = len(self.reasons) - 1

    def _freeze_unproduced(self) -> None:
        produced = np.zeros(self.size, bool)
        for slot in self.slots:
            if slot.role == "out":
                produced[slot.units[slot.units >= 0]] = True
        self._freeze(np.flatnonzero(~produced), "no layer produces it that could be made narrower")

    def coupling(self) -> Coupling:
        pool, cell, orbit = self._pools()
        channels = {}
        for name, track in self.flow.tracks.items():
            channels[name] = Channels(track.axis, self.of[track.atoms])
        mixing = tuple(
            Mixing(m.node.name, m.node.label, m.input, m.axis, self.of[m.atoms], m.mode) for m in self.flow.mixing
        )
        groups = self._groups()
        blocked = dict(self.flow.blocked)
        return Coupling(
            self.size, channels, tuple(self.slots), groups, tuple(self.constraints), mixing,
            self.reason >= 0, pool, cell, orbit, blocked,
        )  # fmt: skip

    # -- groups ------------------------------------------------------------------------------------
    def _groups(self) -> tuple[Group, ...]:
        rng = np.random.default_rng(0)
        marks = rng.integers(1, 1 << 63, len(self.slots) + len(self.reasons) + 1, dtype=np.uint64)
        sign = np.zeros(self.size, np.uint64)
        for mark, slot in zip(marks, self.slots, strict=False):
            _add(sign, slot.units, mark)
        sign += marks[len(self.slots) + self.reason]
        _, first, inverse = np.unique(sign, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # number groups by their first unit
        member = rank[inverse]
        names: list[list[str]] = [[] for _ in first]
        for slot in self.slots:
            for g in np.unique(member[slot.units[slot.units >= 0]]):
                names[g].append(str(slot))
        whys = self._why(member, len(first))
        order = np.argsort(member, kind="stable")
        bounds = np.searchsorted(member[order], np.arange(len(first) + 1))
        out = []
        for g in range(len(first)):
            units = order[bounds[g] : bounds[g + 1]]
            reason = self.reason[units[0]]
            frozen = self.reasons[reason] if reason >= 0 else None
            out.append(Group(f"g{g}", units, tuple(names[g]), tuple(whys[g]), frozen))
        return tuple(out)

    def _why(self, member: Array, count: int) -> list[list[str]]:
        """What ties each group together, a few lines of it."""
        whys: list[list[str]] = [[] for _ in range(count)]
        for tie in self.flow.ties:
            for g in np.unique(member[self.of[tie.left]]):
                if len(whys[g]) < _WHY_LINES:
                    whys[g].append(_explain(tie.node))
                elif len(whys[g]) == _WHY_LINES:
                    whys[g].append("...")
        return whys

    # -- pools, cells and orbits -------------------------------------------------------------------
    def _pools(self) -> tuple[Array, Array, Array]:
        edges = _Pairs([], [])
        for slot in self.slots:
            if slot.role == "out":
                _star(edges, slot.units)
        for constraint in self.constraints:
            _star(edges, constraint.units)
        pool = edges.components(self.size)
        if not self.constraints:
            return pool, pool.copy(), pool.copy()
        rng = np.random.default_rng(1)
        cell_sign, orbit_sign = np.zeros(self.size, np.uint64), np.zeros(self.size, np.uint64)
        for c in self.constraints:
            marks = rng.integers(1, 1 << 63, int(c.block.max()) + 2, dtype=np.uint64)
            np.add.at(cell_sign, c.units, marks[c.block])
            np.add.at(orbit_sign, c.units, np.broadcast_to(marks[-1], c.units.shape))
        # Frozen units stay whatever happens, so they do not count among those that may go.
        cell = _number(pool, cell_sign, self.reason >= 0)
        orbit = _number(pool, orbit_sign, self.reason >= 0)
        self._check_cells(pool, cell, orbit)
        return pool, cell, orbit

    def _check_cells(self, pool: Array, cell: Array, orbit: Array) -> None:
        """Equal counts per cell must give equal counts per block; freeze the pools where they do not."""
        frozen = self.reason >= 0
        for c in self.constraints:
            units = c.units
            if frozen[units].any():
                if not frozen[units].all():
                    self._freeze(units, f"groups of {c.node}: some of its channels must stay")
                continue
            pairs, counts = np.unique(np.stack([orbit[units], c.block, cell[units]]), axis=1, return_counts=True)
            sizes = np.bincount(cell, minlength=int(cell.max()) + 1)[pairs[2]]
            # Positions per unit of a cell in a block, summed over the cells that the block holds.
            share = counts / sizes
            blocks = int(c.block.max()) + 1
            total: dict[int, Array] = {}
            for o in np.unique(pairs[0]):
                mine = pairs[0] == o
                total[int(o)] = np.bincount(pairs[1][mine], share[mine], minlength=blocks)
            if any(t.min() != t.max() for t in total.values()):
                self._freeze(units, f"the groups of {c.node} cannot keep equally many channels")


def _star(edges: _Pairs, units: Array) -> None:
    """Edges that join all of these units."""
    units = units[units >= 0]
    if len(units) > 1:
        edges.rows.append(np.broadcast_to(units[:1], (len(units) - 1,)))
        edges.columns.append(units[1:])


def _add(total: Array, units: Array, mark: np.uint64) -> None:
    units = units[units >= 0]
    if len(units):
        np.add.at(total, units, np.broadcast_to(mark, units.shape))


def _number(pool: Array, sign: Array, frozen: Array) -> Array:
    keys = np.stack([pool.astype(np.uint64), sign, frozen.astype(np.uint64)])
    return np.asarray(np.unique(keys, axis=1, return_inverse=True)[1]).reshape(-1)


def _explain(node: Node) -> str:
    names = [f"%{i}" for i in node.inputs[:3] if i is not None]
    return f"{node.op} %{node.name} ties {' and '.join(names)}" if len(names) > 1 else f"{node.op} %{node.name}"
