"""The sweep: run a network over calibration data once, and gather what all criteria asked for.

The only part of the passes that runs a network for a criterion. Under ``torchrun`` every process takes its share of
the batches, and the sums are joined at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from secateur.ir import Graph, InputError, PassError
from secateur.ir.exporters.torch import flat_module
from secateur.ir.frontends.torch_arrays import to_torch
from secateur.passes.analysis.notes import Coupling

from .accumulate import Accumulator, Frame, accumulator
from .batches import Batch, batches
from .loss import loss_of
from .needs import GRADIENTS, Gates, Need, Statistics, Tap, WeightGradients
from .outputs import check_finite
from .parallel import joined, share
from .taps import tapped, taps

Progress = Callable[[int], None]


def sweep(
    graph: Graph,
    data: Iterable[Any],
    needs: Iterable[Need],
    *,
    seed: int = 0,
    batch: int = 8,
    progress: Progress | None = None,
) -> Graph:
    """The graph with the note ``Statistics``: the results of ``needs`` over ``data``.

    ``graph`` carries its coupling. ``batch``: examples that are run at a time, which bounds the memory.
    ``progress(examples)`` is told how many are done. Raises InputError for empty or unusable data, PassError without
    coupling, and Unsupported where torch cannot run the graph.
    """
    coupling = graph.note(Coupling)
    if coupling is None:
        raise PassError("a sweep needs to know which channels belong together: put 'couple' before it")
    wanted = list(dict.fromkeys(needs))
    found: dict[Need, Accumulator] = {need: accumulator(need, graph, coupling, seed) for need in wanted}
    runner = _Runner(graph, coupling, wanted)
    done, loss = 0, None
    for number, item in share(batches(graph, data, batch)):
        frame, loss = runner.frame(number, item)
        for each in found.values():
            each.add(frame)
        done += item.examples
        if progress is not None:
            progress(done)
    total, results = joined(done, list(found.values()))
    if not total:
        raise InputError("calibration: the data hold no example; give at least one batch")
    for need, result in zip(wanted, results, strict=True):
        _usable(need, result)
    return graph.with_note(Statistics(dict(zip(wanted, results, strict=True)), total, loss))


def _usable(need: Need, result: Any) -> None:
    """Raises InputError where sums hold NaN or infinity, whether or not the network's outputs do."""
    arrays = vars(result).values() if dataclasses.is_dataclass(result) else [result]
    for array in arrays:
        for part in array.values() if isinstance(array, dict) else [array]:
            if not np.isfinite(part).all():
                where = getattr(getattr(need, "tap", None), "node", getattr(need, "weight", "the gates"))
                raise InputError(
                    f"calibration: the sums at '{where}' ({type(need).__name__}) hold NaN or infinity; check how the "
                    "inputs are scaled, and the weights"
                )


class _Runner:
    """The graph in torch with its taps as outputs, and one backward pass where a need asks for gradients."""

    def __init__(self, graph: Graph, coupling: Coupling, needs: Sequence[Need]) -> None:
        self.graph = graph
        self.gradients = any(isinstance(n, GRADIENTS) for n in needs)
        gated = taps(graph, coupling) if any(isinstance(n, Gates) for n in needs) else ()
        self.gated = gated
        self.taps: tuple[Tap, ...] = tuple(dict.fromkeys([*(n.tap for n in needs if hasattr(n, "tap")), *gated]))
        self.weights = [n.weight for n in needs if isinstance(n, WeightGradients)]
        self.module, places = flat_module(tapped(graph, self.taps))
        parameters: dict[str, torch.Tensor] = {
            **dict(self.module.named_parameters()),
            **dict(self.module.named_buffers()),
        }
        self.parameters = {name: parameters[places[name]] for name in self.weights}
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        for weight in self.parameters.values():
            weight.requires_grad_(True)

    def frame(self, number: int, item: Batch) -> tuple[Frame, str | None]:
        """One batch. Raises InputError where the network answers with NaN."""
        count = len(self.graph.outputs)
        with torch.set_grad_enabled(self.gradients):
            inputs = [to_torch(x) for x in item.inputs.values()]
            if self.gated and not self.weights:
                inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
            outs = self.module(*inputs)
            seen = dict(zip(self.taps, outs[count:], strict=True))
            check_finite(self.graph, number, outs[:count])
            gradients: dict[Tap, torch.Tensor] = {}
            weights: dict[str, torch.Tensor] = {}
            loss = None
            if self.gradients:
                total, loss = loss_of(outs[:count], item.labels, item.examples)
                asked = [seen[t] for t in self.gated] + list(self.parameters.values())
                found = torch.autograd.grad(total, asked, allow_unused=True)
                zeroed = [torch.zeros_like(a) if g is None else g for a, g in zip(asked, found, strict=True)]
                cut = len(self.gated)
                gradients = {t: g[: item.examples] for t, g in zip(self.gated, zeroed[:cut], strict=True)}
                weights = dict(zip(self.parameters, zeroed[cut:], strict=True))
        values = {t: x.detach()[: item.examples] for t, x in seen.items()}
        return Frame(number, item.examples, values, gradients, weights), loss
