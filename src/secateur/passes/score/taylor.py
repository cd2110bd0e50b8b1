"""Taylor: Molchanov et al., "Pruning CNNs for Resource Efficient Inference", ICLR 2017, and "Importance Estimation for
Neural Network Pruning", CVPR 2019."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Graph, InputError
from secateur.passes.notes import Importance
from secateur.passes.sweep.needs import Gates, GateSums, Need

from .positions import over_norm
from .slots import coupling_of, statistics_of


@dataclass(frozen=True)
class Taylor:
    """First-order change of the loss when a channel is removed (Molchanov et al. 2017, 2019).

    ``form`` "feature" (2017): the mean over examples of abs(sum of gradient times activation), divided by the layer's
    Euclidean norm; "gate" (2019): the mean square of the derivative by a gate, not normalised. A channel that several
    layers read sums over them. Sums over the picture, where the paper takes means: the layer's norm divides that out.
    Without labels the loss is the network's own most likely class.
    """

    name: ClassVar[str] = "taylor"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no layer reads it"
    form: Literal["feature", "gate"] = "feature"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return (Gates(),)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown form."""
        if self.form not in ("feature", "gate"):
            raise InputError(f"taylor{{form={self.form}}}: the form is feature or gate")
        coupling = coupling_of(graph, self.name)
        gates = statistics_of(graph, self.name).of(Gates(), GateSums)
        sums = gates.absolute if self.form == "feature" else gates.squares
        scores = np.asarray(sums / max(gates.examples, 1.0))
        if self.form == "feature":
            scores = over_norm(coupling, scores)
        return graph.with_note(Importance(scores, self.name))
