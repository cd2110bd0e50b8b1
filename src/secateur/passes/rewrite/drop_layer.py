"""``drop_layer``: take a residual branch out; its shortcut hands the value on (stochastic depth, Huang et al., ECCV
2016).

Before::

    %f = conv(%x, @c.weight) .. : f32[1, 16, 8, 8]
    %s = add(%x, %f) : f32[1, 16, 8, 8]
    %y = relu(%s) : f32[1, 16, 8, 8]

After ``drop_layer{layers=[c]}``::

    %y = relu(%x) : f32[1, 16, 8, 8]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, prune_dead
from secateur.ir.numeric import random_inputs
from secateur.passes.context import context_of
from secateur.passes.pipeline import print_pass

from .layers import LAYERS, Row, chosen, noted, price
from .shortcuts import Shortcut, shortcuts

DATA, DRAWN = "branch over sum, on the calibration data", "branch over sum, on random inputs"


@dataclass(frozen=True)
class DropLayer:
    """Remove whole residual branches and keep their shortcuts (Huang et al. 2016).

    Those that hold one of ``layers``, or the ``count`` that add least, or, with ``below``, all that add at most this
    share: at 0 those that training has set to zero (depth-wise group lasso), and none where there is none. How much a
    branch adds is ||f(x)|| / ||x + f(x)|| over calibration data, or over random inputs where there are none, measured
    in the network as it is; the same number is the reported error. Only a branch that leads back to what it read,
    unchanged, and that nothing else reads can go. Exact for a branch that is zero.
    """

    name: ClassVar[str] = "drop_layer"
    data: ClassVar[bool] = True
    layers: tuple[str, ...] = ()
    count: int = 1
    examples: int = 32
    below: float | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer, one that no shortcut spans, or more branches than there are."""
        found = shortcuts(graph, identity=True)
        free = [s for s in found if s.leak is None]
        spec = print_pass(self)
        if self.layers:
            picked = self._named(graph, found)
        elif self.below is not None:
            picked = free
        elif not 1 <= self.count <= len(free):
            raise InputError(f"{spec}: '{graph.name}' has {len(free)} residual branches that could go; give 1 to that")
        else:
            picked = free
        shares, measure = self._shares(graph, picked)
        if not self.layers:
            order = sorted(range(len(picked)), key=lambda i: shares[i])
            order = order[: self.count] if self.below is None else [i for i in order if shares[i] <= self.below]
            picked, shares = [picked[i] for i in sorted(order)], [shares[i] for i in sorted(order)]
            if not picked:
                return graph
            spec = print_pass(dataclasses.replace(self, layers=_names(picked, found), below=None))
        rows = []
        for shortcut, share in zip(picked, shares, strict=True):
            for node in (n for n in shortcut.branch if n.op in LAYERS):
                costs = price(graph, (node,), {})
                rows.append(Row(node.label, node.name, spec, (costs.macs, 0), (costs.params, 0), share, measure))
        return noted(_without(graph, picked), rows)

    def _named(self, graph: Graph, found: list[Shortcut]) -> list[Shortcut]:
        picked: dict[str, Shortcut] = {}
        for node in chosen(graph, self, self.layers):
            around = [s for s in found if node in s.branch]
            if not around:
                raise InputError(
                    f"drop_layer: no shortcut leads around layer '{node.label}' of '{graph.name}', so nothing would "
                    "hand on what it reads; name a layer of a residual branch"
                )
            inner = min(around, key=lambda s: len(s.branch))
            if inner.leak is not None:
                raise InputError(
                    f"drop_layer: the branch around layer '{node.label}' is read by '{inner.leak}' as well, "
                    "so it has to stay"
                )
            picked[inner.join.name] = inner
        return list(picked.values())

    def _shares(self, graph: Graph, picked: Sequence[Shortcut]) -> tuple[list[float], str]:
        """What share of each sum its branch is."""
        from secateur.ir.exporters.torch.module import evaluate
        from secateur.passes.sweep.batches import batches

        watched = graph.rewrite(outputs=[v for s in picked for v in (s.last, s.join.name)])
        given = context_of(graph).calibration
        feeds: list[dict[str, Array]] = [random_inputs(graph, 0)]
        if given is not None:
            feeds, seen = [], 0
            for batch in batches(graph, given.data):
                feeds.append(dict(batch.inputs))
                seen += batch.examples
                if seen >= self.examples:
                    break
        squares = np.zeros(2 * len(picked))
        for feed in feeds:
            squares += [float((np.asarray(y, np.float64) ** 2).sum()) for y in evaluate(watched, feed)]
        parts, sums = squares[::2], squares[1::2]
        shares = np.sqrt(np.divide(parts, sums, out=np.where(parts > 0, np.inf, 0.0), where=sums > 0))
        return shares.tolist(), DRAWN if given is None else DATA


def _names(picked: Sequence[Shortcut], found: Sequence[Shortcut]) -> tuple[str, ...]:
    """A layer for each branch that stands in no smaller one."""
    names = []
    for shortcut in picked:
        inner = {n.name for s in found if len(s.branch) < len(shortcut.branch) for n in s.branch}
        own = [n for n in shortcut.branch if n.op in LAYERS]
        names += [n.label for n in own if n.name not in inner][:1] or [own[0].label] if own else []
    return tuple(names)


def _without(graph: Graph, picked: Sequence[Shortcut]) -> Graph:
    """Whoever read a sum reads its shortcut."""
    alias: dict[str, str] = {}
    for shortcut in picked:
        alias[shortcut.join.name] = shortcut.start
    for name in alias:  # shortcuts that were dropped one after another
        while alias[name] in alias:
            alias[name] = alias[alias[name]]
    gone = set(alias)
    nodes = [
        dataclasses.replace(n, inputs=tuple(alias.get(i, i) if i else i for i in n.inputs))
        for n in graph.nodes
        if n.name not in gone
    ]
    nodes = [*nodes, *_outputs(graph, alias)]
    return prune_dead(graph.rewrite(nodes=nodes))


def _outputs(graph: Graph, alias: dict[str, str]) -> list[Node]:
    """An output keeps its name: an identity gives it the value that is left."""
    return [
        Node("identity", (alias[name],), graph.producer[name].outputs, {}, graph.producer[name].source)
        for name in dict.fromkeys(graph.outputs)
        if name in alias
    ]
