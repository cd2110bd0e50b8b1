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
    """Change of the loss when a channel is removed, by its derivatives (Molchanov et al. 2017, 2019).

    ``form`` "feature" (2017): the mean over examples of abs(sum of gradient times activation), divided by the layer's
    Euclidean norm; "gate" (2019): the mean square of the derivative by a gate, not normalised; "second" (2019, equation
    5): the square of that derivative's mean less half of the second derivative, for which stands the mean square, as in
    optimal brain damage on groups with Fisher's approximation. A channel that several
    layers read sums over them. Sums over the picture, where the paper takes means: the layer's norm divides that out.
    Without labels the loss is the network's own most likely class.
    """

    name: ClassVar[str] = "taylor"
    data: ClassVar[bool] = True
    unscored: ClassVar[str] = "no layer reads it"
    form: Literal["feature", "gate", "second"] = "feature"

    def needs(self, graph: Graph) -> tuple[Need, ...]:
        return (Gates(),)

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown form."""
        if self.form not in ("feature", "gate", "second"):
            raise InputError(f"taylor{{form={self.form}}}: the form is feature, gate or second")
        coupling = coupling_of(graph, self.name)
        gates = statistics_of(graph, self.name).of(Gates(), GateSums)
        total, absolute, squares = (
            np.asarray(sums / max(gates.examples, 1.0)) for sums in (gates.total, gates.absolute, gates.squares)
        )
        if self.form == "feature":
            scores = over_norm(coupling, absolute)
        else:
            scores = squares if self.form == "gate" else (total - squares / 2) ** 2
        return graph.with_note(Importance(scores, self.name))
