"""The sweep: run a network over calibration data once, and gather what all criteria asked for.

The only part of the passes that runs a network for a criterion. Under ``torchrun`` every process takes its share of
the batches, and the sums are joined at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import torch

from secateur.ir import Graph, InputError, PassError
from secateur.ir.exporters.torch.module import on_inputs
from secateur.ir.frontends.torch.arrays import to_torch
from secateur.ir.progress import Progress, quiet
from secateur.passes.notes import Coupling

from .accumulate import Accumulator, accumulator
from .batches import Batch, batches
from .loss import loss_of, projected
from .needs import (
    Examples,
    Gates,
    InputMoments,
    Need,
    Pooled,
    Ranks,
    Reach,
    ReadSite,
    Result,
    Statistics,
    WeightGradients,
)
from .outputs import check_finite
from .parallel import joined, share
from .read_sites import channel_axis, read_sites, units_at
from .watch import Gate, Squares, watched

PROJECTIONS = 4  # of the outputs, random ones, of each batch


def sweep(
    graph: Graph,
    data: Iterable[object],
    needs: Iterable[Need],
    *,
    seed: int = 0,
    batch: int = 8,
    progress: Progress = quiet,
    examples: int | None = None,
) -> Graph:
    """The graph with the note ``Statistics``: the results of ``needs`` over ``data``.

    ``graph`` carries its coupling. ``batch``: examples that are run at a time, which bounds the memory.
    ``progress`` is told how many are done, of all ``examples`` if somebody counted them. Raises InputError for empty or
    unusable data, PassError without coupling, and Unsupported where torch cannot run the graph.
    """
    coupling = graph.note(Coupling)
    if coupling is None:
        raise PassError("a sweep needs to know which channels belong together: put 'couple' before it")
    wanted = list(dict.fromkeys(needs))
    found: dict[Need, Accumulator] = {need: accumulator(need, graph, coupling, seed) for need in wanted}
    runner = _Runner(graph, coupling, found, seed)
    done, loss = 0, None
    for number, item in share(batches(graph, data, batch)):
        loss = runner.run(number, item)
        done += item.examples
        progress(done, examples, "calibrate")
    total, results = joined(done, list(found.values()))
    if not total:
        raise InputError("calibration: the data hold no example; give at least one batch")
    for need, result in zip(wanted, results, strict=True):
        _usable(need, result)
    return graph.with_note(Statistics(dict(zip(wanted, results, strict=True)), total, loss))


def _usable(need: Need, result: Result) -> None:
    """Raises InputError where sums hold NaN or infinity, whether or not the network's outputs do."""
    arrays = vars(result).values() if dataclasses.is_dataclass(result) else [result]
    for array in arrays:
        for part in array.values() if isinstance(array, dict) else array if isinstance(array, tuple) else [array]:
            if not np.isfinite(part).all():
                where = getattr(getattr(need, "site", None), "node", getattr(need, "weight", "the gates"))
                raise InputError(
                    f"calibration: the sums at '{where}' ({type(need).__name__}) hold NaN or infinity; check how the "
                    "inputs are scaled, and the weights"
                )


class _Runner:
    """The graph in torch with listeners at its read sites, and one backward pass where a need asks for gradients."""

    def __init__(self, graph: Graph, coupling: Coupling, found: Mapping[Need, Accumulator], seed: int) -> None:
        self.graph, self.found = graph, found
        self.gated = {}
        if Gates() in found:
            self.gated = {site: units_at(graph, coupling, site) for site in read_sites(graph, coupling)}
        self.listeners: dict[ReadSite, list[Accumulator]] = {site: [] for site in self.gated}
        for need, each in found.items():
            if isinstance(need, Examples | Pooled | Ranks | InputMoments):
                self.listeners.setdefault(need.site, []).append(each)
        self.reached = {ReadSite(n.node, -1): channel_axis(graph, n.node) for n in found if isinstance(n, Reach)}
        for site in self.reached:
            self.listeners.setdefault(site, [])
        self.module, places = watched(graph, tuple(self.listeners), self._hear)
        self.module.requires_grad_(False)
        known = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        self.weights = {n: known[places[n.weight]] for n in found if isinstance(n, WeightGradients)}
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.number = self.examples = 0
        self.gates: dict[ReadSite, torch.Tensor] = {}
        self.beside: dict[ReadSite, torch.Tensor] = {}
        self.seed = seed

    def _hear(self, site: ReadSite, x: torch.Tensor) -> torch.Tensor:
        for each in self.listeners[site]:
            each.add(self.number, self.examples, x.detach()[: self.examples])
        if site in self.reached:
            self.beside[site] = torch.zeros(len(x), x.shape[self.reached[site]], requires_grad=True)
            x = cast("torch.Tensor", Squares.apply(x, self.beside[site], self.reached[site]))  # type: ignore[no-untyped-call]
        if site not in self.gated or not x.is_floating_point():
            return x
        axis, units = self.gated[site]
        self.gates[site] = torch.ones(len(x), len(units), requires_grad=True)
        return cast("torch.Tensor", Gate.apply(x, self.gates[site], axis))  # type: ignore[no-untyped-call]

    def run(self, number: int, item: Batch) -> str | None:
        """One batch; the name of its loss, if it has one. Raises InputError where the network answers with NaN."""
        self.number, self.examples = number, item.examples
        asked = bool(self.gated or self.weights)
        with_gradients = asked or bool(self.reached)
        with (
            torch.set_grad_enabled(with_gradients),
            np.errstate(invalid="ignore"),
        ):  # NaN is told below, by its output's name
            with on_inputs(self.graph, f"calibration, batch {number}: "):
                outs = self.module(*map(to_torch, item.inputs.values()))
            check_finite(self.graph, number, outs)
            if self.reached:
                self._reach(outs)
            if not asked:
                return None
            total, loss = loss_of(outs, item.labels, item.examples)
            del outs
            gradients = _gradients(total, [*self.gates.values(), *self.weights.values()])
        if self.gated:
            seen = {site: gradient[: item.examples] for site, gradient in zip(self.gates, gradients, strict=False)}
            self.found[Gates()].add(number, item.examples, seen)
        for need, gradient in zip(self.weights, gradients[len(self.gates) :], strict=True):
            self.found[need].add(number, item.examples, gradient)
        self.gates = {}
        return loss

    def _reach(self, outs: Sequence[torch.Tensor]) -> None:
        """Add up the squares that this batch's projections give."""
        more = bool(self.gated or self.weights)
        for k in range(PROJECTIONS):
            total, energy = projected(outs, self.examples, (self.seed, self.number, k))
            squares = _gradients(total, list(self.beside.values()), more or k + 1 < PROJECTIONS)
            for site, found in zip(self.beside, squares, strict=True):
                self.found[Reach(site.node)].add(self.number, self.examples, (found[: self.examples], energy))
        self.beside = {}


def _gradients(total: torch.Tensor, by: Sequence[torch.Tensor], again: bool = False) -> list[torch.Tensor]:
    """Of ``total`` by each of these; zeros where it does not depend on one. ``again``: more will be asked for."""
    if not by or not total.requires_grad:
        return [torch.zeros_like(each) for each in by]
    found = torch.autograd.grad(total, by, allow_unused=True, retain_graph=again)
    return [torch.zeros_like(each) if g is None else g for each, g in zip(by, found, strict=True)]
