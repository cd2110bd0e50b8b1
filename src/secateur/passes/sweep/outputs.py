"""What a network answers to the first calibration examples, for passes that compare whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    module = flat_module(graph)[0]
    found: list[Array] = []
    for number, item in enumerate(fed):
        with torch.inference_mode(), on_inputs(graph, f"calibration, batch {number}: "):
            outs = module(*(to_torch(x) for x in item.inputs.values()))
        check_finite(graph, number, outs)
        floating = [out if out.dim() else out[None] for out in outs if out.is_floating_point()]
        found += [out[: item.examples].double().numpy() for out in floating]
    return found


def check_finite(graph: Graph, number: int, outs: Sequence[torch.Tensor]) -> None:
    """Raises InputError that names the batch and the output that holds NaN or infinity."""
    for name, out in zip(graph.outputs, outs, strict=True):
        if out.is_floating_point() and not bool(torch.isfinite(out).all()):
            raise InputError(
                f"calibration, batch {number}: the network's output '{name}' holds NaN or infinity on it; check "
                "how the inputs are scaled, and the weights"
            )
