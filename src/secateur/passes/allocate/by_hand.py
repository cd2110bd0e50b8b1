"""Widths and channels chosen by hand, layer by layer, in place of a budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, PassError
from secateur.ir.near import did_you_mean
from secateur.passes.coupling.keep import check_keep
from secateur.passes.notes import Coupling, Importance, KeepMask, Slot

from .select import Ladder, climb

LAYERS = frozenset({"conv", "conv_transpose", "linear"})


@dataclass(frozen=True)
class ByHand:
    """Layers keep the widths that ``widths`` gives them, by the criterion's scores, and lose the channels of ``drop``.

    Keys are globs of layer names. A width is the share of the output channels that remains (a float up to 1) or their
    number (an int); ``drop`` lists output channels in the layer's own numbering. What is coupled to them goes with
    them, and layers that nobody names keep all. ``widths`` needs ``Importance``, ``drop`` does not.
    """

    name: ClassVar[str] = "by_hand"
    widths: Mapping[str, float | int] = field(default_factory=dict, repr=False)
    drop: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for layers, channels and widths that do not exist, that are frozen or that conflict."""
        coupling = graph.note(Coupling)
        if coupling is None:
            raise PassError(f"'{self.name}' chooses channels: put 'couple' before it")
        keep = np.ones(coupling.size, bool)
        if self.widths:
            importance = graph.note(Importance)
            if importance is None:
                raise PassError(f"'{self.name}' ranks channels for widths: put a criterion before it")
            keep = _narrowed(graph, coupling, climb(coupling, importance.scores), self.widths)
        for slot, gone, what in _dropped(graph, coupling, self.drop):
            units = slot.units[gone]
            if (~keep[units]).any():
                raise InputError(f"{what}: its width was given as well; give one of the two")
        for slot, gone, _ in _dropped(graph, coupling, self.drop):
            keep[slot.units[gone]] = False
        try:
            check_keep(coupling, keep)
        except PassError as error:
            raise InputError(f"drop: {error}") from error
        return graph.with_note(KeepMask(keep))


def _narrowed(graph: Graph, coupling: Coupling, ladder: Ladder, widths: Mapping[str, float | int]) -> Array:
    """bool[units]: of each layer that is named what its width leaves."""
    kept, said = ladder.length.copy(), dict[int, str]()
    for pattern, width in widths.items():
        for node in _layers(graph, pattern, "widths"):
            what = f"widths: '{node.label}'"
            slot = _outputs(coupling, node, what)
            mine = slot.units[slot.units >= 0]
            orbits = np.unique(ladder.orbit[ladder.rung[mine]])
            free = [o for o in orbits.tolist() if ladder.least[o] < ladder.length[o]]
            wanted = _count(width, len(slot.units), what)
            if wanted < len(slot.units) and not free:
                raise InputError(f"{what} keeps all {len(slot.units)} channels: {_why(coupling, mine, node)}")
            for orbit in free:
                rungs = _rungs(ladder, mine, orbit, wanted / len(slot.units))
                if said.get(orbit, node.label) != node.label and kept[orbit] != rungs:
                    raise InputError(f"{what} and '{said[orbit]}' have the same channels; give them one width")
                kept[orbit], said[orbit] = rungs, node.label
    mask = ladder.mask(kept)
    for pattern, width in widths.items():
        for node in _layers(graph, pattern, "widths"):
            left = int(coupling.live(_outputs(coupling, node, "widths").units, mask).sum())
            if isinstance(width, int) and left != width:
                raise InputError(
                    f"widths: '{node.label}' cannot keep {width} channels, near is {left}: some are frozen, or keep "
                    "equal numbers with others (`secateur inspect` lists its group)"
                )
    return mask


def _rungs(ladder: Ladder, units: Array, orbit: int, share: float) -> int:
    """The rungs of an orbit that leave the layer at most this share of its channels there, but the least that stays."""
    mine = ladder.rung[units]
    ranks = ladder.rank[mine[ladder.orbit[mine] == orbit]]
    counts = np.cumsum(np.bincount(ranks, minlength=int(ladder.length[orbit])))
    fits = int(np.searchsorted(counts, share * len(ranks) + 1e-9, side="right"))
    return max(fits, int(ladder.least[orbit]), 1)


def _count(width: float | int, size: int, what: str) -> int:
    if isinstance(width, bool) or not isinstance(width, int | float):
        raise InputError(f"{what}: a width is a share such as 0.5 or a number of channels, not {width!r}")
    if isinstance(width, float) and not 0 < width <= 1:
        raise InputError(
            f"{what}: a share lies above 0 and is at most 1, not {width:g}; write a number of channels whole"
        )
    if isinstance(width, int) and not 1 <= width <= size:
        raise InputError(f"{what} has {size} channels, so its width is from 1 to {size}, not {width}")
    return width if isinstance(width, int) else max(1, int(width * size + 1e-9))


def _dropped(
    graph: Graph, coupling: Coupling, drop: Mapping[str, Sequence[int]]
) -> list[tuple[Slot, Array, str]]:  # fmt: skip
    """(the layer's outputs, positions that go, words for a message) of each layer that loses channels."""
    found = []
    for pattern, channels in drop.items():
        for node in _layers(graph, pattern, "drop"):
            what = f"drop: '{node.label}'"
            slot = _outputs(coupling, node, what)
            size = len(slot.units)
            wrong = [
                c for c in channels if isinstance(c, bool) or not isinstance(c, int | np.integer) or not 0 <= c < size
            ]
            if wrong:
                raise InputError(f"{what} has channels 0 to {size - 1}, not {wrong[0]!r}")
            gone = np.unique(np.asarray(channels, np.int64))
            units = slot.units[gone]
            frozen = gone[(units < 0) | coupling.frozen.astype(bool)[np.maximum(units, 0)]]
            if len(frozen):
                raise InputError(f"{what} cannot lose channel {frozen[0]}: {_why(coupling, units, node)}")
            if len(gone) == size:
                raise InputError(f"{what} would lose all {size} channels; keep one at least, or use drop_layer")
            found.append((slot, gone, what))
    return found


def _layers(graph: Graph, pattern: str, option: str) -> list[Node]:
    """The layers of this name. Raises InputError where there is none."""
    layers = [n for n in graph.nodes if n.op in LAYERS]
    found = [n for n in layers if n.label == pattern or fnmatch.fnmatchcase(n.label, pattern)]
    if not found:
        labels = list(dict.fromkeys(n.label for n in layers))
        hint = did_you_mean(pattern, labels) or f"; its layers are {', '.join(labels[:5]) or 'none'}"
        raise InputError(f"{option}: '{pattern}' matches no layer of '{graph.name}'{hint}")
    return found


def _outputs(coupling: Coupling, node: Node, what: str) -> Slot:
    """The slot of the layer's output channels. Raises InputError where none can go."""
    for slot in coupling.slots:
        if slot.node == node.name and slot.role == "out" and slot.weight == node.inputs[1]:
            return slot
    reason = coupling.blocked.get(node.name, "its channels depend on its inputs' alone, as in a depthwise layer")
    raise InputError(f"{what} has no output channels of its own that could go: {reason}")


def _why(coupling: Coupling, units: Array, node: Node) -> str:
    """Why these units stay, as the report says it."""
    mine = set(units[units >= 0].tolist())
    for group in coupling.groups:
        if group.frozen and mine & set(group.units.tolist()):
            return group.frozen
    return coupling.blocked.get(node.name, "they are frozen; `secateur inspect` says why")
