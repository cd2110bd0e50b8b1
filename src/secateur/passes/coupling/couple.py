"""``couple``: which channels live and die together, which may not die, and why.

One walk over the nodes records ties between atoms (``flow.py``); connected components make
units of them; random 64-bit signatures of the slots each unit appears in make groups of units. Both
are linear in the size of the graph and use no recursion.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, PassError
from secateur.passes.notes import Channels, Constraint, Coupling, Group, Mixing, Slot

from .crowded import crowded, worth
from .flow import SUMS, Flow, Rule, Tracks
from .inner import inside
from .partitions import components, domains, partition
from .rules_compute import COMPUTE
from .rules_constants import push_back
from .rules_elementwise import ELEMENTWISE_RULES
from .rules_movement import MOVEMENT
from .rules_opaque import is_constant

COUPLE: dict[str, Rule] = {**ELEMENTWISE_RULES, **MOVEMENT, **COMPUTE}
_WHOLE = frozenset({"softmax", "log_softmax", "cumsum", "batch_norm"})
_CHAINS = frozenset(ELEMENTWISE_RULES) - _WHOLE | frozenset(MOVEMENT) | {"matmul"}
_WHY_LINES = 6
_LOOKS = 4  # at a graph: what is untied may show further nodes that tie too much


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
    units, found = _looked(graph, protect, frozenset())
    for _ in range(_LOOKS):
        stuck = crowded(units.flow, units.of, units.reason >= 0)
        if not stuck:
            break
        others, other = _looked(graph, protect, units.flow.apart | stuck)
        if worth(graph, other) <= worth(graph, found):
            break
        units, found = others, other
    return found


def _looked(graph: Graph, protect: tuple[str, ...], apart: frozenset[str]) -> tuple[_Units, Coupling]:
    """One look at the graph, in which some nodes read everything at full width."""
    flow = follow(graph, apart)
    _protect(flow, protect)
    for name in graph.outputs:
        flow.freeze_value(name, "graph output")
    flow.settle_full_reads()
    flow.settle_norms()
    flow.settle_partly_used()
    units = _Units(flow)
    return units, units.coupling()


def follow(graph: Graph, apart: frozenset[str] = frozenset()) -> Flow:
    """Apply the rule of every node in order."""
    flow = Flow(graph, push_back, apart)
    for node in graph.nodes:
        inputs = [i for i in node.inputs if i is not None]
        chained = node.op in _CHAINS and all(map(flow.is_const, inputs))
        chained = chained or (node.op in SUMS and inputs[0] in graph.weights)
        if chained or (node.op == "opaque" and is_constant(flow, node)):
            flow.const.update(v.name for v in node.outputs)
            continue
        rule = _apart if node.name in apart else COUPLE.get(node.op)
        if rule is None:
            raise PassError(f"couple has no rule for operator '{node.op}' of {node.source}")
        tracks = inside(flow, node, rule) if node.name in flow.inner else rule(flow, node)
        for value, track in zip(node.outputs, tracks, strict=True):
            if track is not None:
                flow.tracks[value.name] = track
    return flow


def _apart(flow: Flow, node: Node) -> Tracks:
    flow.whole(node)
    return [None] * len(node.outputs)


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


class _Units:
    """Atoms made into units, and everything that is known of a unit."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        atoms = components(flow.atoms, [(t.left, t.right) for t in flow.ties])
        # Atom 0 is alone in its component, padding that nothing is added to is none; others are numbered 0 .. size-1.
        made = np.ones(flow.atoms, bool)
        made[np.concatenate([np.zeros(1, np.int64), *flow.padding])] = False
        kept = np.unique(atoms[made])
        self.size = len(kept)
        self.of = np.full(flow.atoms, -1, np.int64)
        joined = np.isin(atoms, kept)
        self.of[joined] = np.searchsorted(kept, atoms[joined])
        self.reasons: list[str] = []
        self.reason = np.full(self.size, -1, np.int64)
        for freeze in flow.freezes:
            self._freeze(self.of[freeze.atoms], freeze.reason)
        self.units: dict[int, Array] = {}
        self.slots = [
            Slot(s.weight, s.axis, self._of(s.atoms), s.role, s.node, s.groups)
            for s in flow.slots.values()
            if (s.atoms > 0).any()
        ]
        self.constraints = [Constraint(c.node, c.side, self._of(c.atoms), c.block) for c in flow.constraints]
        self._freeze_unproduced()

    def _of(self, atoms: Array) -> Array:
        """The units of these atoms: one array where many values have the same channels."""
        found = self.units.get(id(atoms))
        if found is None:
            found = self.units[id(atoms)] = self.of[atoms]
        return found

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
        domain = domains(self.size, self.slots, self.constraints)
        parts = partition(domain, self.constraints, self.reason >= 0)
        for units, reason in parts.stuck:
            self._freeze(units, reason)
        channels = {}
        for name, track in self.flow.tracks.items():
            channels[name] = Channels(track.axis, self._of(track.atoms))
        seconds = {name: Channels(t.axis, self._of(t.atoms)) for name, t in self.flow.seconds.items()}
        mixing = tuple(
            Mixing(m.node.name, m.node.label, m.input, m.axis, self._of(m.atoms), m.mode) for m in self.flow.mixing
        )
        groups = self._groups()
        return Coupling(
            self.size, channels, tuple(self.slots), groups, tuple(self.constraints), mixing,
            self.reason >= 0, domain, parts.cell, parts.orbit, dict(self.flow.blocked), parts.levels,
            seconds,
        )  # fmt: skip

    # -- groups ------------------------------------------------------------------------------------
    def _groups(self) -> tuple[Group, ...]:
        rng = np.random.default_rng(0)
        marks = rng.integers(1, 1 << 63, len(self.slots) + len(self.reasons) + 1, dtype=np.uint64)
        sign = np.zeros(self.size, np.uint64)
        held = [slot.units[slot.units >= 0] for slot in self.slots]
        if held:
            np.add.at(sign, np.concatenate(held), np.repeat(marks[: len(held)], [len(units) for units in held]))
        sign += marks[len(self.slots) + self.reason]
        _, first, inverse = np.unique(sign, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # number groups by their first unit
        member = rank[inverse]
        names: list[list[str]] = [[] for _ in first]
        for slot, units in zip(self.slots, held, strict=True):
            for g in _distinct(member[units], len(first)):
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
            for g in _distinct(member[self.of[tie.left]], count):
                if len(whys[g]) < _WHY_LINES:
                    whys[g].append(_explain(tie.node))
                elif len(whys[g]) == _WHY_LINES:
                    whys[g].append("...")
        return whys


def _distinct(numbers: Array, count: int) -> list[int]:
    """The numbers below ``count`` that occur, rising."""
    occurs = np.zeros(count, bool)
    occurs[numbers] = True
    return np.flatnonzero(occurs).tolist()


def _explain(node: Node) -> str:
    names = [f"%{i}" for i in node.inputs[:3] if i is not None]
    return f"{node.op} %{node.name} ties {' and '.join(names)}" if len(names) > 1 else f"{node.op} %{node.name}"
