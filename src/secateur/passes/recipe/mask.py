"""A recipe meets a network: names, shapes, and whether it is a removal that the network's coupling allows.

A recipe lists every weight that loses channels. One that leaves out a part of a coupled set, or whose parts drop
different channels, is refused by the slot at fault, so that whatever is accepted says all that was removed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur.ir import Array, Graph, InputError, PassError
from secateur.ir.near import did_you_mean
from secateur.passes.coupling.keep import check_keep
from secateur.passes.coupling.own import readers, untied
from secateur.passes.notes import Coupling, KeepMask, Slot

from . import places
from .build import recipe_of
from .recipe import Indices, Recipe, groups_of

FEW = 5  # channels that a message lists


def check_names(recipe: Recipe, graph: Graph) -> None:
    """Raises InputError where a weight or node that the recipe names is missing or has another shape."""
    for name, stated in recipe.shapes.items():
        if name not in graph.weights:
            raise InputError(
                f"recipe: '{graph.name}' has no weight '{name}'{did_you_mean(name, graph.weights)}; "
                "the recipe was made for another network"
            )
        if graph.weights[name].shape != tuple(stated):
            raise InputError(
                f"recipe: weight '{name}' of '{graph.name}' has shape {graph.weights[name].shape}, "
                f"the recipe was made for {tuple(stated)}"
            )
    for m in recipe.mixing:
        read, found = places.readers(graph, m)
        if not found:
            nodes = [node.name for node in graph.nodes]
            raise InputError(f"recipe: '{graph.name}' has no node '{m.node}'{did_you_mean(m.node, nodes)}")
        shape = () if read is None else graph.value(read).shape
        if m.axis >= len(shape) or max(m.kept) >= shape[m.axis]:
            raise InputError(
                f"recipe: input {m.input} of node '{m.node}' has shape {tuple(map(int, shape))}; there is no "
                f"channel {max(m.kept)} along axis {m.axis}"
            )


def with_mask(recipe: Recipe, graph: Graph) -> Graph:
    """The coupled graph with the ``KeepMask`` that this recipe spells out.

    Its coupling is that in which the readers under ``own`` keep their own channels. Raises InputError where names or
    shapes do not fit, and where the recipe is not all of a removal that the coupling allows.
    """
    coupling = graph.note(Coupling)
    assert coupling is not None
    check_names(recipe, graph)
    coupling = _with_own(recipe, graph, coupling)
    recipe = recipe.rising()
    keep = np.ones(coupling.size, bool)
    slots = {(slot.weight, slot.axis): slot for slot in coupling.slots}
    for name, kept in recipe.weights.items():
        for axis, lists in kept.items():
            dropped = _dropped(slots.get((name, axis)), name, axis, lists, graph)
            keep[dropped] = False
    keep[coupling.size - len(coupling.own) :] &= keep[coupling.own]
    _complete(recipe, recipe_of(graph, coupling, keep), slots, coupling, keep)
    try:
        check_keep(coupling, keep)
    except PassError as error:
        raise InputError(f"recipe: '{graph.name}' does not allow it: {error}") from error
    return graph.with_note(coupling, KeepMask(keep))


def mask_of(graph: Graph) -> Array:
    """bool[units]: the graph's mask. The caller has seen to it that there is one."""
    note = graph.note(KeepMask)
    assert note is not None
    return note.mask


def _with_own(recipe: Recipe, graph: Graph, coupling: Coupling) -> Coupling:
    """The coupling with the readers that the recipe unties. Raises InputError for one that there is not."""
    if not recipe.own:
        return coupling
    known = readers(graph, coupling)
    for name in recipe.own:
        if name not in known:
            raise InputError(
                f"recipe: weight '{name}' stands under 'own', but no layer of '{graph.name}' reads channels with it "
                f"that others need{did_you_mean(name, known)}"
            )
    return untied(coupling, [known[name] for name in dict.fromkeys(recipe.own)])


def _dropped(slot: Slot | None, name: str, axis: int, lists: Indices, graph: Graph) -> Array:
    """The units that this entry drops. Raises InputError where nothing can be removed along that axis."""
    place = f"recipe: weight '{name}', axis {axis}"
    size = graph.weights[name].shape[axis]
    if slot is None:
        if lists == list(range(size)) or all(row == list(range(size)) for row in groups_of(lists) or [[]]):
            return np.zeros(0, np.int64)
        raise InputError(f"{place}: no channel of '{graph.name}' can be removed along it; see `secateur inspect`")
    groups = groups_of(lists)
    if (groups is not None) != (slot.groups > 1) or (groups is not None and len(groups) != slot.groups):
        raise InputError(f"{place}: it has {'no' if groups is None else len(groups)} lists of groups; "
                         f"'{slot.node}' has {slot.groups} group{'s' * (slot.groups > 1)}")  # fmt: skip
    live = np.zeros((slot.groups, len(slot.units) // slot.groups), bool)
    for row, indices in zip(live, [lists] if groups is None else groups, strict=True):
        row[indices] = True
    units = slot.units[~live.reshape(-1)]
    if (units < 0).any():
        at = np.flatnonzero(~live.reshape(-1) & (slot.units < 0))
        raise InputError(f"{place}: channel {_some(at)} cannot be removed; `secateur inspect` says why")
    return units


def _complete(
    recipe: Recipe, whole: Recipe, slots: Mapping[tuple[str, int], Slot], coupling: Coupling, keep: Array
) -> None:
    """Raises InputError where the recipe lists less than what goes, or something else."""
    for name, kept in whole.weights.items():
        for axis, lists in kept.items():
            listed = recipe.weights.get(name, {}).get(axis)
            if listed == lists:
                continue
            slot = slots[name, axis]
            gone = np.flatnonzero(~coupling.live(slot.units, keep))
            if listed is None:
                raise InputError(
                    f"recipe: weight '{name}', axis {axis} is not listed, but loses channel {_some(gone)} with "
                    f"{_partner(recipe, slot, slots, coupling, keep)}; list it, without these"
                )
            raise InputError(
                f"recipe: weight '{name}', axis {axis} keeps channels that it loses with "
                f"{_partner(recipe, slot, slots, coupling, keep)}: without channel {_some(gone)} it would fit"
            )
    if set(recipe.own) != set(whole.own):
        name = sorted(set(recipe.own) ^ set(whole.own))[0]
        raise InputError(
            f"recipe: weight '{name}' stands under 'own', but keeps all that is left of what it reads; take it out of "
            "that list"
        )
    if set(recipe.mixing) != set(whole.mixing):
        nodes = sorted({m.node for m in set(recipe.mixing) ^ set(whole.mixing)})
        raise InputError(
            f"recipe: what node '{nodes[0]}' keeps, under 'mixing', is not what the weights leave; it mixes channels, "
            "and needs an entry with those that are left"
        )


def _partner(recipe: Recipe, slot: Slot, slots: Mapping[tuple[str, int], Slot], coupling: Coupling, keep: Array) -> str:
    """A slot that the recipe lists and that drops some of the same units."""
    gone = set(slot.units[~coupling.live(slot.units, keep)].tolist())
    for name, kept in recipe.weights.items():
        for axis in kept:
            other = slots.get((name, axis))
            if other is not None and other is not slot and gone & set(other.units.tolist()):
                return f"'{name}', axis {axis}"
    return "the rest of the recipe"


def _some(channels: Array) -> str:
    shown = ", ".join(map(str, channels[:FEW].tolist()))
    return f"{shown}, .. ({len(channels)} in all)" if len(channels) > FEW else shown
