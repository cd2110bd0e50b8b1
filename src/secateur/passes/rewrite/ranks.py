"""The ranks of all layers together: what each gives up, and which share of the multiply-accumulates may remain.

Zhang et al. (TPAMI 2016, rank selection for a whole model) take ranks whose kept energies have a great product. Here
what a layer gives up at a rank is what its responses then lack, channel by channel as far as errors there move the
network's outputs (``Reach``), so that layers compare and their losses add up; without data, the share of the weights'
energy. Each layer walks down the lower hull of its losses over its costs, from whole to rank 1, and the step that
gives up least for what it saves is taken next, until the budget is met.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.ir import Array, Graph, Node
from secateur.passes.context import context_of

EXAMPLES = 256  # that responses are looked at on
TOGETHER = 8  # examples that are run at a time
POSITIONS = 64  # places of each example's output, drawn anew for each batch


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A layer's choices: what it costs whole, what each rank costs, and ``lost`` f64[full + 1], what each gives up."""

    whole: int
    each: int
    lost: Array

    @property
    def most(self) -> int:
        """The highest rank that costs less than the layer whole."""
        return min(len(self.lost) - 1, (self.whole - 1) // max(self.each, 1))

    def hull(self, multiple: int) -> list[tuple[float, int, int | None]]:
        """(what is given up for each multiply-accumulate saved, cost, rank) of the steps from whole to the least rank.

        Ranks are multiples; the first step begins at ``whole``.
        """
        ranks = [*range(multiple, self.most + 1, multiple)][::-1]
        points: list[tuple[int, float, int | None]] = [(self.whole, 0.0, None)]
        for rank in ranks:
            point = (self.each * rank, float(self.lost[rank]), rank)
            while len(points) > 1 and _slope(points[-2], point) <= _slope(points[-2], points[-1]):
                points.pop()
            points.append(point)
        return [(_slope(a, b), b[0], b[2]) for a, b in itertools.pairwise(points)]


def _slope(a: tuple[int, float, int | None], b: tuple[int, float, int | None]) -> float:
    return (b[1] - a[1]) / max(a[0] - b[0], 1)


def ranks_within(spectra: Mapping[str, Spectrum], limit: int, multiple: int) -> dict[str, int]:
    """The rank of each layer that does not stay whole, under a limit that all together meet at their least ranks."""
    left = {name: spectrum.hull(multiple)[::-1] for name, spectrum in spectra.items()}
    now = {name: spectrum.whole for name, spectrum in spectra.items()}
    total, ranks = sum(now.values()), dict[str, int]()
    heap = [(steps[-1][0], name) for name, steps in left.items() if steps]
    heapq.heapify(heap)
    while total > limit:
        _, name = heapq.heappop(heap)
        _, costs, rank = left[name].pop()
        assert rank is not None
        total, now[name], ranks[name] = total - now[name] + costs, costs, rank
        if left[name]:
            heapq.heappush(heap, (left[name][-1][0], name))
    return _filled(spectra, ranks, limit - total, multiple)


def _filled(spectra: Mapping[str, Spectrum], ranks: dict[str, int], slack: int, multiple: int) -> dict[str, int]:
    """The ranks raised as long as that fits into what the last step left, where it gains most for what it costs."""
    while True:
        fits: list[tuple[float, str]] = []
        for name, rank in ranks.items():
            spectrum, higher = spectra[name], rank + multiple
            dear = multiple * spectrum.each
            if dear <= slack and higher <= spectrum.most:
                fits.append(((spectrum.lost[rank] - spectrum.lost[higher]) / max(dear, 1), name))
        if not fits:
            return ranks
        _, best = max(fits)
        ranks[best], slack = ranks[best] + multiple, slack - multiple * spectra[best].each


def spectra_of(graph: Graph, nodes: Sequence[Node], costs: Mapping[str, tuple[int, int]]) -> dict[str, Spectrum]:
    """Of each node by its name, from ``costs``: its multiply-accumulates whole, and those of each rank."""
    seen = _responses(graph, nodes)
    found = {}
    for node in nodes:
        weight = graph.weights[str(node.inputs[1])].astype(np.float64)
        weight = weight.T if node.attrs.get("transposed", False) else weight
        matrix = weight.reshape(len(weight), -1)
        if seen is None:
            energies = np.linalg.svd(matrix, compute_uv=False) ** 2
            energies = energies / max(float(energies.sum()), np.finfo(np.float64).tiny)
        else:
            energies = np.maximum(np.linalg.eigvalsh(seen[node.name])[::-1], 0.0)[: min(matrix.shape)]
        lost = np.append(energies[::-1].cumsum()[::-1], 0.0)
        found[node.name] = Spectrum(*costs[node.name], lost)
    return found


def _responses(graph: Graph, nodes: Sequence[Node]) -> dict[str, Array] | None:
    """Of each layer the moments of what it puts out, in units in which errors move the outputs; None without data.

    Those of a layer with a bias are about the mean, which the bias keeps.
    """
    import torch

    from secateur.ir.exporters.torch.module import flat_module
    from secateur.ir.frontends.torch.arrays import to_torch
    from secateur.passes.coupling.couple import Couple
    from secateur.passes.sweep.batches import Batch, batches
    from secateur.passes.sweep.needs import Reach, Statistics
    from secateur.passes.sweep.read_sites import channel_axis
    from secateur.passes.sweep.run import sweep
    from secateur.passes.sweep.unfold import draw_places, points

    calibration = context_of(graph).calibration
    if calibration is None or not nodes:
        return None
    items: list[Batch] = []
    for item in batches(graph, calibration.data, TOGETHER):
        items.append(item)
        if sum(x.examples for x in items) >= EXAMPLES:
            break
    data = [{name: x[: item.examples] if x.ndim else x for name, x in item.inputs.items()} for item in items]
    swept = sweep(Couple()(graph), data, [Reach(n.name) for n in nodes], seed=calibration.seed, batch=TOGETHER)
    statistics = swept.note(Statistics)
    assert statistics is not None
    module = flat_module(graph.rewrite(outputs=[n.name for n in nodes]))[0]
    sums: dict[str, tuple[Array, Array, int]] = {}
    for number, item in enumerate(items):
        with torch.inference_mode():
            outs = module(*(to_torch(item.inputs[v.name]) for v in graph.inputs))
        for node, out in zip(nodes, outs, strict=True):
            axis = channel_axis(graph, node.name)
            sizes = tuple(size for a, size in enumerate(out.shape) if a not in (0, axis))
            places = draw_places(sizes, POSITIONS, np.random.default_rng(number))
            y = points(out[: item.examples], axis, places).numpy()
            second, first, count = sums.get(node.name, (np.zeros((y.shape[1],) * 2), np.zeros(y.shape[1]), 0))
            sums[node.name] = (second + y.T @ y, first + y.sum(0, np.float64), count + len(y))
    found = {}
    for node in nodes:
        second, first, count = sums[node.name]
        mean = first / count if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros_like(first)
        root = np.sqrt(statistics.of(Reach(node.name), np.ndarray))
        found[node.name] = (second / count - np.outer(mean, mean)) * np.outer(root, root)
    return found
