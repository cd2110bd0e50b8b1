"""Why a layer's output channels stay, in the words of the passes that left them."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array, Graph
from secateur.passes import CRITERIA
from secateur.passes.notes import Coupling, Importance, KeepMask

LAYERS = frozenset({"conv", "conv_transpose", "linear", "lstm", "gru", "rnn"})  # what a report lists


class Reasons:
    """Why a layer's output channels stay, looked up by node."""

    def __init__(self, graph: Graph) -> None:
        coupling = graph.note(Coupling)
        self.outs: dict[str, list[Array]] = {}
        self.frozen_units = np.zeros(0, bool)
        self.group_of = np.zeros(0, np.int64)
        self.coupling = coupling
        self.importance = graph.note(Importance)
        self.unchosen = None if graph.note(KeepMask) is None else "not chosen"
        if coupling is None:
            return
        self.frozen_units = coupling.frozen.astype(bool)
        self.group_of = np.zeros(coupling.size, np.int64)
        for number, group in enumerate(coupling.groups):
            self.group_of[group.units] = number
        for slot in coupling.slots:
            if slot.role == "out":
                self.outs.setdefault(slot.node, []).append(slot.units)
        for node in graph.nodes:  # layers without a producing slot of their own (depthwise): what they put out
            followed = node.op in LAYERS and node.name in coupling.channels and node.name not in coupling.blocked
            if node.name not in self.outs and followed:
                self.outs[node.name] = [coupling.channels[node.name].units]

    def frozen(self, node: str) -> str | None:
        """The reason if none of the node's output channels may go."""
        coupling = self.coupling
        if coupling is None:
            return None
        blocked = coupling.blocked.get(node)
        units = self._units(node)
        if not len(units):
            return str(blocked) if blocked else "its channels cannot be followed"
        if not self.frozen_units[units].all():
            return None
        for number in dict.fromkeys(self.group_of[units].tolist()):
            why: str | None = coupling.groups[number].frozen
            if why:
                return why
        return "frozen"

    def unscored(self, node: str) -> str | None:
        """The reason if the criterion has no score for any of them."""
        units = self._units(node)
        if self.importance is None or not len(units) or not np.isnan(self.importance.scores[units]).all():
            return None
        name = self.importance.criterion.partition("{")[0]
        why = getattr(CRITERIA.get(name), "unscored", "")
        return f"'{name}' has no score for it" + (f": {why}" if why else "")

    def _units(self, node: str) -> Array:
        found = [np.ravel(u)[np.ravel(u) >= 0] for u in self.outs.get(node, ())]
        return np.concatenate(found) if found else np.zeros(0, np.int64)
