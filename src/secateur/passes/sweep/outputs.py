"""What a network answers to the first calibration examples, for passes that compare whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from secateur.ir import Array, Graph, InputError
from secateur.ir.exporters.torch.module import flat_module, on_inputs
from secateur.ir.frontends.torch.arrays import to_torch

from .batches import Batch, batches


def feeds(graph: Graph, data: Iterable[object], examples: int) -> list[Batch]:
    """The first batches that hold ``examples`` examples. Raises InputError for unusable data or none."""
    found: list[Batch] = []
    for item in batches(graph, data):
        found.append(item)
        if sum(f.examples for f in found) >= examples:
            break
    if not sum(f.examples for f in found):
        raise InputError("calibration: the data hold no example; give at least one batch")
    return found


def outputs(graph: Graph, fed: Sequence[Batch]) -> list[Array]:
    """f64[..] of every floating output of every batch. Raises InputError where one holds NaN or infinity."""
    return Answers(graph, fed)({})


def apart(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """The norm of the difference over the norm of what is wanted, of all arrays together."""
    off = sum(float(((a - b) ** 2).sum()) for a, b in zip(found, wanted, strict=True))
    energy = sum(float((b**2).sum()) for b in wanted)
    return float(np.sqrt(off / max(energy, np.finfo(np.float64).tiny)))


def squares(found: Sequence[Array], wanted: Sequence[Array], counts: Sequence[int]) -> Array:
    """f64[examples]: of each, the square of all outputs' error over the mean square of the wanted outputs.

    The arrays of batches of ``counts`` examples follow each other; what has no row for each example is shared out.
    """
    offs = [np.zeros(count) for count in counts]
    outs = len(found) // len(counts)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        off, square = offs[number // outs], (a - b) ** 2
        off += square.reshape(len(off), -1).sum(1) if len(square) == len(off) else square.sum() / len(off)
    energy = sum(float((b**2).sum()) for b in wanted) / sum(counts)
    result: Array = np.concatenate(offs) / max(energy, np.finfo(np.float64).tiny)
    return result


def moved(found: Array, wanted: Array) -> Array:
    """f64[examples]: the share of the probability that goes to other classes, which is the total variation distance.

    Both are f64[examples, classes], scores, or probabilities where those that are wanted are.
    """
    given = bool((wanted >= 0).all()) and np.allclose(wanted.sum(1), 1, atol=1e-3)
    one, other = (rows if given else _softmax(rows) for rows in (found, wanted))
    result: Array = 0.5 * np.abs(one - other).sum(1)
    return result


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    result: Array = powers / powers.sum(1, keepdims=True)
    return result


class Answers:
    """What a network answers to some batches where some of its weights are others."""

    def __init__(self, graph: Graph, fed: Sequence[Batch]) -> None:
        self.graph, self.fed = graph, fed
        self.module, places = flat_module(graph)
        known = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        self.weights = {name: known[path] for name, path in places.items() if path in known}

    @torch.no_grad()
    def __call__(self, changed: Mapping[str, Array]) -> list[Array]:
        """f64[..] of every floating output of every batch, with ``changed`` in the place of weights of these names.

        Raises InputError where one holds NaN or infinity.
        """
        before = {name: self.weights[name].data for name in changed}
        for name, array in changed.items():  # another array: the module's are the graph's own memory
            self.weights[name].data = torch.from_numpy(array)
        try:
            return [out for number, item in enumerate(self.fed) for out in self._batch(number, item)]
        finally:
            for name, weight in before.items():
                self.weights[name].data = weight

    def _batch(self, number: int, item: Batch) -> list[Array]:
        with on_inputs(self.graph, f"calibration, batch {number}: "):
            outs = self.module(*(to_torch(x) for x in item.inputs.values()))
        check_finite(self.graph, number, outs)
        floating = [out if out.dim() else out[None] for out in outs if out.is_floating_point()]
        return [out[: item.examples].double().numpy() for out in floating]


def check_finite(graph: Graph, number: int, outs: Sequence[torch.Tensor]) -> None:
    """Raises InputError that names the batch and the output that holds NaN or infinity."""
    for name, out in zip(graph.outputs, outs, strict=True):
        if out.is_floating_point() and not bool(torch.isfinite(out).all()):
            raise InputError(
                f"calibration, batch {number}: the network's output '{name}' holds NaN or infinity on it; check "
                "how the inputs are scaled, and the weights"
            )
