"""The original and the slim network, run side by side layer by layer over the same data.

Every layer is computed once for all examples before the next begins, so that a layer that was repaired hands its new
outputs on: errors do not add up unseen. Only values that are still needed are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from secateur.ir import Graph, InputError, Node, PassError
from secateur.ir.exporters.torch.module import flat_module
from secateur.ir.frontends.torch.arrays import to_torch
from secateur.passes.context import context_of
from secateur.passes.sweep.batches import batches

Tensor = torch.Tensor
NOTHING: Mapping[str, str] = MappingProxyType({})


class Stepper:
    """A graph that is run node by node, for all batches; ``weights`` may be changed before a node is reached."""

    def __init__(self, graph: Graph, inputs: list[dict[str, Tensor]]) -> None:
        self.graph, self.weights = graph, dict(graph.weights)
        self.values = inputs
        self.at = 0
        self.last: dict[str, int] = dict.fromkeys(graph.outputs, len(graph.nodes))
        for number, node in enumerate(graph.nodes):
            for name in node.inputs:
                if name is not None and name not in graph.weights:
                    self.last[name] = max(self.last.get(name, 0), number)

    def reach(self, end: int) -> None:
        """Run every node before number ``end``."""
        nodes = self.graph.nodes[self.at : end]
        if not nodes:
            return
        made = {v.name for n in nodes for v in n.outputs}
        read = dict.fromkeys(i for n in nodes for i in n.inputs if i is not None and i not in self.graph.weights)
        needed = [name for name in read if name not in made]
        kept = [name for name in made if self.last.get(name, -1) >= end]
        part = self._part(nodes, needed, kept)
        for values in self.values:
            with torch.no_grad():
                outs = part(*(values[name] for name in needed))
            values.update(zip(kept, outs, strict=True))
            for name in [n for n in values if self.last.get(n, -1) < end]:
                del values[name]
        self.at = end

    def _part(self, nodes: tuple[Node, ...], inputs: list[str], outputs: list[str]) -> Callable[..., Sequence[Tensor]]:
        used = {i for n in nodes for i in n.inputs if i in self.graph.weights}
        weights = {name: self.weights[name] for name in self.graph.weights if name in used}
        graph = self.graph.rewrite(
            inputs=[self.graph.value(n) for n in inputs], nodes=nodes, outputs=outputs, weights=weights
        )
        return flat_module(graph)[0]

    def finish(self) -> list[list[Tensor]]:
        """The outputs of every batch."""
        self.reach(len(self.graph.nodes))
        return [[values[name] for name in self.graph.outputs] for values in self.values]


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of the slim network, reached by both: ``dense`` and ``slim`` hold the values it reads."""

    node: Node
    dense: Stepper
    slim: Stepper
    counts: tuple[int, ...]  # the examples of each batch that count

    def pairs(self, dense: str, slim: str) -> Iterator[tuple[Tensor, Tensor]]:
        """A value of either network, batch by batch, without padding examples.

        Raises InputError where one holds NaN or infinity: weights fitted to it would too.
        """
        yield from zip(self._of(self.dense, dense), self._of(self.slim, slim), strict=True)

    def holds(self, name: str) -> bool:
        """Have both networks computed this value, with as many numbers but for channels?"""
        values = self.dense.values[0].get(name), self.slim.values[0].get(name)
        return values[0] is not None and values[1] is not None and values[0].dim() == values[1].dim()

    @property
    def dense_node(self) -> Node:
        """The same layer of the original."""
        return self.dense.graph.producer[self.node.name]

    def original(self, name: str) -> Iterator[Tensor]:
        """A value of the original alone, as ``pairs``."""
        yield from self._of(self.dense, name)

    def _of(self, network: Stepper, name: str) -> Iterator[Tensor]:
        for number, (count, values) in enumerate(zip(self.counts, network.values, strict=True)):
            x = values[name][:count]
            if not bool(torch.isfinite(x).all()):
                raise InputError(
                    f"calibration, batch {number}: what flows through '{self.node.name}' holds NaN or infinity; check "
                    "how the inputs are scaled, and the weights"
                )
            yield x


def lockstep(
    graph: Graph,
    name: str,
    examples: int,
    wanted: Callable[[Node], bool],
    held: Mapping[str, str] = NOTHING,
    before: Mapping[str, str] = NOTHING,
    given: bool = False,
) -> Iterator[Step]:
    """Stop at every node of the slim graph that is ``wanted`` and stands in the original under the same name.

    At a stop the node's inputs are there in both networks; the original has computed the node too. ``held``: of a node
    by its name, another value that should be there, if it was computed before. ``before``: of a node, an earlier one
    that the slim network has not passed at its stop. ``given``: the original is the network before its rewrites.
    Weights that are changed at a stop are used from then on. Raises PassError where there is no original, InputError
    where there are no data.
    """
    original, fed, counts = pair(graph, name, examples, given)
    known = {n.name: i for i, n in enumerate(original.nodes)}
    at_node = {node.name: number for number, node in enumerate(graph.nodes)}
    dense, slim = Stepper(original, [dict(f) for f in fed]), Stepper(graph, fed)
    wants = [node for node in graph.nodes if node.name in known and wanted(node)]
    stops = sorted(((at_node[before.get(n.name, n.name)], n) for n in wants), key=lambda stop: stop[0])
    reached = 0
    for _, node in stops:  # what the original's layer reads and writes must still be there when it is looked at
        at = known[node.name]
        reached = max(reached, at + 1)
        for name in (node.name, original.nodes[at].inputs[0] or "", *([held[node.name]] if node.name in held else [])):
            dense.last[name] = max(dense.last.get(name, 0), reached)
    for number, node in stops:
        slim.reach(number)
        dense.reach(max(known[node.name] + 1, dense.at))
        if node.name in dense.values[0]:
            yield Step(node, dense, slim, tuple(counts))


def pair(
    graph: Graph, name: str, examples: int, given: bool = False
) -> tuple[Graph, list[dict[str, Tensor]], list[int]]:
    """(the original, so many examples of the data in batches, how many of each batch count). Raises as ``lockstep``."""
    context, calibration = context_of(graph), context_of(graph).calibration
    original = (context.given or context.original) if given else (context.original or context.given)
    if original is None:
        raise PassError(f"'{name}' repairs a slim network by its original: put it after slim")
    if calibration is None:
        raise InputError(
            f"'{name}' compares the slim network with the original on data, so it needs calibration: give "
            "calibration=batches in Python, or --calibration FILE.npz or a folder of images; no labels are needed"
        )
    fed: list[dict[str, Tensor]] = []
    counts: list[int] = []
    for item in batches(graph, calibration.data, 32):
        if sum(counts) >= examples:
            break
        fed.append({k: to_torch(x) for k, x in item.inputs.items()})
        counts.append(min(item.examples, examples - sum(counts)))
    if not sum(counts):
        raise InputError("calibration: the data hold no example; give at least one batch")
    return original, fed, counts
