"""The state of the abstract interpretation that follows channels through a graph.

Every value carries at most one *track*: the axis its channels lie along and, for each position, the
atom that lives there (0 where nothing can be removed). Data movement does to the atoms exactly what
it does to the data; where a movement would spread them over two axes, they are tied along all but one,
so that survivors always form a dense tensor. The rules only *record* ties, freezes and slots; one
pass of connected components at the end makes units of them, which keeps the whole analysis linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.ir import ELEMENTWISE, Array, Graph, Node
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.torch_origin import TorchOrigin

from .recorded import Freeze, FullRead, RawConstraint, RawMixing, RawSlot, Tie, Track

# Sums over a constant's axes, in which what is zero does not count.
SUMS = frozenset({"reduce_sum", "reduce_l1", "reduce_l2"})
PushBack = Callable[["Flow", str, int, Array, Node, str], None]
Tracks = list["Track | None"]
Rule = Callable[["Flow", Node], Tracks]


@dataclass(eq=False)
class Flow:
    """What has been recorded so far, and the helpers that the rules share."""

    graph: Graph
    push_back: PushBack  # gives a constant operand atoms, back to its weights: see rules_constants
    apart: frozenset[str] = frozenset()  # nodes that read all at full width, as their ties would keep too much
    tracks: dict[str, Track] = field(default_factory=dict)
    const: set[str] = field(default_factory=set)
    pushed: set[str] = field(default_factory=set)  # values that were given the channels they meet
    seconds: dict[str, Track] = field(
        default_factory=dict
    )  # channels along another axis, too: see rules_constants, inner
    inner: frozenset[str] = frozenset()  # nodes between layers over another axis than that of the channels
    atoms: int = 1
    padding: list[Array] = field(default_factory=list)  # atoms of channels that a padding adds
    ties: list[Tie] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    slots: dict[tuple[str, int], RawSlot] = field(default_factory=dict)
    constraints: list[RawConstraint] = field(default_factory=list)
    mixing: list[RawMixing] = field(default_factory=list)
    full: list[FullRead] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    uses: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    # -- looking things up ---------------------------------------------------------------------
    def shape(self, name: str | None) -> tuple[int, ...]:
        assert name is not None
        weight = self.graph.weights.get(name)
        return self.graph.values[name].shape if weight is None else weight.shape

    def track(self, name: str | None) -> Track | None:
        return None if name is None else self.tracks.get(name)

    def is_const(self, name: str) -> bool:
        """Does this depend on weights alone, through movement and element-wise operators?"""
        return name in self.graph.weights or name in self.const

    def replaced(self, weight: str, node: Node) -> bool:
        """Has what the user brought no layer whose weight has this name?

        The front end computed it from the user's module, or the file's node is a fused one, of another domain.
        """
        origin, file = self.graph.note(TorchOrigin), self.graph.note(OnnxOrigin)
        if file is not None:
            return any(part.fused and node.name in part.nodes for part in file.parts.values())
        return origin is not None and weight not in origin.parameters and weight not in origin.buffers

    def takes(self, name: str, axis: int) -> bool:
        """Can this operand be given the channels it meets along ``axis``?

        A constant can; so can a value computed element by element from constants and from operands
        that only broadcast along the axis (a class token repeated for every image of the batch).
        """
        work = [(name, axis)]
        while work:
            name, axis = work.pop()
            if self.is_const(name):
                continue
            if name in self.pushed and self.tracks[name].axis == axis:
                continue  # it has been given some already
            maker = self.graph.producer.get(name)
            if maker is None or maker.op not in ELEMENTWISE or name in self.tracks:
                return False
            for operand in maker.inputs:
                if operand is not None:
                    local = axis - len(maker.out.shape) + len(self.shape(operand))
                    if local >= 0 and self.shape(operand)[local] != 1:
                        work.append((operand, local))
        return True

    # -- recording -----------------------------------------------------------------------------
    def fresh(self, count: int) -> Array:
        first = self.atoms
        self.atoms += count
        return np.arange(first, first + count)

    def tie(self, left: Array, right: Array, node: Node) -> None:
        """Position by position, these atoms live and die together."""
        differ = left != right
        if not differ.any():
            return
        left, right = left[differ], right[differ]
        loose = (left == 0) | (right == 0)
        if loose.any():
            stuck = np.maximum(left[loose], right[loose])
            self.freeze(stuck, f"{_name(node)} combines it with channels that nothing can remove", node.name)
            left, right = left[~loose], right[~loose]
        if len(left):
            self.ties.append(Tie(left, right, node))

    def freeze(self, atoms: Array, reason: str, node: str = "") -> None:
        atoms = atoms[atoms > 0]
        if len(atoms):
            self.freezes.append(Freeze(atoms, reason, node))

    def freeze_value(self, name: str | None, reason: str) -> None:
        track = self.track(name)
        if track is not None:
            self.freeze(track.atoms, reason)

    def slot(
        self, weight: str, axis: int, atoms: Array, role: str, node: Node, groups: int = 1, user: str = ""
    ) -> None:
        """Weight positions along ``axis`` belong to these atoms; a second use couples the two.

        ``user`` is the node that reads the weight, if a chain of constants lies between it and ``node``.
        """
        self.used(weight, axis, user or node.name)
        known = self.slots.get((weight, axis))
        if known is None:
            self.slots[weight, axis] = RawSlot(weight, axis, atoms, role, node.name, groups)
        elif known.groups == groups and len(known.atoms) == len(atoms):
            self.tie(known.atoms, atoms, node)
        else:
            reason = f"weight {weight} is shared by {_name(node)} and another use with a different channel map"
            self.freeze(known.atoms, reason)
            self.freeze(atoms, reason)

    def part(self, weight: str, axis: int, atoms: Array, node: Node, role: str, user: str) -> None:
        """Some of the weight's positions belong to these atoms; where they are 0 other readers say what they hold."""
        known = self.slots.get((weight, axis))
        if known is None or known.groups > 1:
            self.slot(weight, axis, atoms, role, node, user=user)
            return
        self.used(weight, axis, user)
        both = (known.atoms > 0) & (atoms > 0)
        self.tie(known.atoms[both], atoms[both], node)
        self.slots[weight, axis] = replace(known, atoms=np.where(known.atoms > 0, known.atoms, atoms))

    def used(self, constant: str, axis: int, user: str) -> None:
        """This user has said what the constant's axis holds; other users may need all of it."""
        self.uses.setdefault((constant, axis), set()).add(user)

    def reads_full(self, node: Node, weight: str, axis: int, at: int) -> None:
        """The layer's input has all channels along ``at``, which its weight takes along ``axis``."""
        self.full.append(FullRead(node, weight, axis, at))

    def settle_full_reads(self) -> None:
        """A weight that another use cuts takes fewer channels everywhere: full inputs are cut or picked from."""
        for read in self.full:
            atoms = self._atoms_of(read.weight, read.axis)
            if atoms is not None:
                self.used(read.weight, read.axis, read.node.name)
                self.meet(atoms, str(read.node.inputs[0]), read.at, read.node)

    def settle_norms(self) -> None:
        """A filter is as long as the columns that stay make it: the masked original sees the others at zero."""
        for node in self.graph.nodes:
            if node.name not in self.const or node.inputs[0] not in self.graph.weights or "axes" not in node.attrs:
                continue
            for axis in node.attrs["axes"]:
                slot = self.slots.get((str(node.inputs[0]), axis))
                if slot is None or node.op not in SUMS:
                    continue
                self.used(slot.weight, axis, node.name)
                if slot.role == "in":
                    self.mixing.append(RawMixing(node, 0, axis, slot.atoms, "sum"))
                else:
                    self.freeze(slot.atoms, f"{_name(node)} takes a sum over channels that another layer makes")

    def settle_partly_used(self) -> None:
        """A constant that one use cuts is filled up with zeros for another that reads it whole."""
        taken = {(m.node.name, m.input) for m in self.mixing}
        for (name, axis), users in list(self.uses.items()):
            atoms = self._atoms_of(name, axis)
            rest = [n for n in self.graph.users.get(name, ()) if n.name not in users]
            if atoms is None or not (rest or name in self.graph.outputs):
                continue
            places = [(n, i) for n in rest for i, operand in enumerate(n.inputs) if operand == name]
            fits = len(atoms) == self.shape(name)[axis] and not any((n.name, i) in taken for n, i in places)
            if name in self.graph.outputs:
                self.freeze(atoms, f"constant {name} is a graph output")
            elif not fits:
                self.freeze(atoms, f"constant {name} is also used whole by {_name(rest[0])}")
            else:
                taken |= {(n.name, i) for n, i in places}
                self.mixing += [RawMixing(n, i, axis, atoms, "expand") for n, i in places]

    def _atoms_of(self, name: str, axis: int) -> Array | None:
        """The atoms of a constant along an axis, where something has given it such."""
        slot = self.slots.get((name, axis))
        if slot is not None:
            return slot.atoms
        tracks = (self.tracks.get(name), self.seconds.get(name))
        return next((t.atoms for t in tracks if t is not None and t.axis == axis), None)

    def assign(self, name: str, axis: int, atoms: Array, node: Node, role: str = "tied") -> None:
        """Give a constant operand the atoms it meets, back through its chain to the weights."""
        self.push_back(self, name, axis, atoms, node, role)

    def meet(self, atoms: Array, name: str, axis: int, node: Node) -> None:
        """The operand ``name`` is full along ``axis``, where these atoms lie: tie it, cut it, or pick from it."""
        track = self.track(name)
        if track is not None and track.axis == axis:
            if self.is_const(name) or name in self.pushed:
                self.used(name, axis, node.name)
            self.tie(atoms, track.atoms, node)
        elif self.takes(name, axis):
            self.assign(name, axis, atoms, node)
        elif track is None:
            self.pick(node, name, axis, atoms)
        else:
            self.freeze(atoms, f"{_name(node)} combines it with %{name}, whose channels lie along another axis")

    def constrain(self, node: Node, side: str, atoms: Array, blocks: int) -> None:
        if (atoms == 0).any():
            self.freeze(atoms, f"{_name(node)} has groups, some of whose channels nothing can remove")
            return
        block = np.arange(len(atoms)) // (len(atoms) // blocks)
        self.constraints.append(RawConstraint(node.name, side, atoms, block))

    def mix(self, node: Node, index: int, mode: str) -> None:
        """The node reads across the channels of input ``index``."""
        name = node.inputs[index]
        track = self.track(name)
        if track is not None:
            self.mixing.append(RawMixing(node, index, track.axis, track.atoms, mode))

    def whole(self, node: Node, *indices: int) -> None:
        """The node reads these inputs, or all, at full width: zeros take the places of channels that are gone."""
        for index in indices or range(len(node.inputs)):
            name = node.inputs[index]
            if name in self.pushed:
                self.used(str(name), self.tracks[str(name)].axis, node.name)
            self.mix(node, index, "expand")

    def pick(self, node: Node, name: str, axis: int, atoms: Array) -> None:
        """The operand ``name`` has all channels where only some of these live: the node reads those alone."""
        for index, operand in enumerate(node.inputs):
            if operand == name:
                self.mixing.append(RawMixing(node, index, axis, atoms, "pick"))

    def single_axis(self, array: Array, node: Node, offset: int) -> Track | None:
        """The track of atoms spread over a block of axes, tied along all axes but the longest.

        ``array`` holds the atoms of the output axes ``offset ..``; returns None if it holds none.
        """
        varying = [k for k in range(array.ndim) if array.shape[k] > 1 and _varies(array, k)]
        if not varying:
            self.freeze(array.reshape(-1)[:1], f"{_name(node)} leaves it a single channel")
            return None
        axis = max(varying, key=lambda k: (array.shape[k], k))
        rest = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        if len(varying) > 1:
            first = np.repeat(rest[:, :1], rest.shape[1] - 1, axis=1)
            self.tie(first.reshape(-1), rest[:, 1:].reshape(-1), node)
        atoms = np.ascontiguousarray(rest[:, 0])
        return Track(offset + axis, atoms) if atoms.any() else None


def _varies(array: Array, axis: int) -> bool:
    head = np.take(array, [0], axis=axis)
    return bool((array != head).any())


def _name(node: Node) -> str:
    return f"{node.op} {node.label}"
