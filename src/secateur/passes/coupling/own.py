"""Selection without ties that no tensor needs: readers that keep their own channels of what they read.

Wan et al., "UPSCALE: Unconstrained Channel Pruning", ICML 2023. Where a tensor has several readers, each may go without
channels that the others need: the tensor keeps the union, and what a reader keeps is picked by an index before it. Here
such a reader has units of its own in place of those that flow in. They may go by themselves, and go where what they
stand for is gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.notes import Coupling, Group, Mixing, Slot


@dataclass(frozen=True, eq=False)
class Reader:
    """A convolution or linear layer that may keep its own channels of its input.

    ``own`` bool[positions]: where the unit that is read has another reader, or may not go. Elsewhere a unit that this
    layer alone reads goes as a whole.
    """

    node: Node
    slot: Slot
    axis: int
    own: Array

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return self.slot.weight


def readers(graph: Graph, coupling: Coupling) -> Mapping[str, Reader]:
    """By the name of its weight, every layer that may keep its own channels.

    Its columns are one group's, its weight is stored and nobody else's, and what flows in is what its columns are for.
    """
    slots = {slot.node: slot for slot in coupling.slots if slot.role == "in"}
    mixing = {m.node for m in coupling.mixing}
    count = _readings(coupling)
    found = {}
    for node in graph.nodes:
        slot, track = slots.get(node.name), coupling.channels.get(node.inputs[0] or "") if node.inputs else None
        if slot is None or track is None or node.name in mixing or node.op not in ("conv", "linear"):
            continue
        alone = node.inputs[1] == slot.weight and len(graph.users[slot.weight]) == 1
        if slot.groups != 1 or not alone or not np.array_equal(slot.units, track.units):
            continue
        read = slot.units >= 0
        own = read & (coupling.frozen[slot.units] | (count[slot.units] > 1))
        if own.any():
            found[slot.weight] = Reader(node, slot, track.axis, own)
    return found


def _readings(coupling: Coupling) -> Array:
    """int[units]: how many nodes read each."""
    count, sites = np.zeros(coupling.size, np.int64), dict[str, list[Array]]()
    read = [(s.node, s.units) for s in coupling.slots if s.role == "in"]
    for node, units in (*read, *((m.node, m.units) for m in coupling.mixing)):
        sites.setdefault(node, []).append(np.ravel(units))
    for parts in sites.values():
        found = np.unique(np.concatenate(parts))
        count[found[found >= 0]] += 1
    return count


def untied(coupling: Coupling, which: Collection[Reader]) -> Coupling:
    """The coupling in which these readers have units of their own, after all others (``Coupling.own``)."""
    size, own, slots, groups = coupling.size, list[Array](), dict[int, Slot](), list[Group](coupling.groups)
    mixing, domain = list(coupling.mixing), list[Array]()
    for number, reader in enumerate(which):
        parents, place = np.unique(reader.slot.units[reader.own], return_inverse=True)
        units = reader.slot.units.copy()
        units[reader.own] = size + place
        node, slot = reader.node, str(reader.slot)
        slots[id(reader.slot)] = dataclasses.replace(reader.slot, units=units)
        mixing.append(Mixing(node.name, node.label, 0, reader.axis, units, "own"))
        why = (f"{node.op} %{node.name} keeps its own channels of %{node.inputs[0]}",)
        groups = [_without(group, slot, parents) for group in groups]
        groups.append(Group(f"g{len(groups)}", np.arange(size, size + len(parents)), (slot,), why, None))
        own.append(parents)
        domain.append(np.full(len(parents), number))
        size += len(parents)
    more = np.concatenate(domain) if domain else np.zeros(0, np.int64)

    def numbered(old: Array) -> Array:
        found: Array = np.concatenate([old, int(old.max(initial=-1)) + 1 + more])
        return found

    return dataclasses.replace(
        coupling,
        size=size,
        slots=tuple(slots.get(id(slot), slot) for slot in coupling.slots),
        groups=tuple(groups),
        mixing=tuple(mixing),
        frozen=np.concatenate([coupling.frozen, np.zeros(len(more), coupling.frozen.dtype)]),
        domain=numbered(coupling.domain),
        cell=numbered(coupling.cell),
        orbit=numbered(coupling.orbit),
        own=np.concatenate([coupling.own, *own]).astype(np.int64),
    )


def _without(group: Group, slot: str, parents: Array) -> Group:
    """A group without a slot in which none of its units stands any more."""
    if slot not in group.slots or not np.isin(group.units, parents).all():
        return group
    return dataclasses.replace(group, slots=tuple(s for s in group.slots if s != slot))
