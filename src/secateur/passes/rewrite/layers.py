"""What all structural rewrites share: which layers, what was done to each, and the edit itself.

A pass draws up an ``Edit`` for each layer that it can rewrite and a reason for each that it leaves alone;
``rewrite_layers`` applies them and leaves a ``Rewritten`` note, which the report lists.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from secateur.ir import Array, Graph, InputError, Node, Value, prune_dead, reinfer
from secateur.ir.fields import Fields, Json
from secateur.ir.near import did_you_mean
from secateur.passes.analysis.cost import FLOATS, Costs, cost
from secateur.passes.pipeline import Pass, print_pass

LAYERS = frozenset({"conv", "linear"})
Solved = tuple[Mapping[str, Array], float | None]  # weights, and their relative error
BLANK: tuple[int, ...] = ()  # the shape of a value that is inferred when the edit is applied


@dataclass(frozen=True)
class Row(Fields):
    """One layer that a rewrite looked at.

    ``error`` is relative and says by what measure in ``measure``; ``reason`` is why the layer was left alone, None
    where it was rewritten. ``macs`` and ``params`` are before and after; ``pieces`` are the nodes that took its
    place.
    """

    layer: str
    node: str
    spec: str
    macs: tuple[int, int] = (0, 0)
    params: tuple[int, int] = (0, 0)
    error: float | None = None
    measure: str = ""
    pieces: tuple[str, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Json]:
        """The row as the report's JSON has it."""
        return {
            "layer": self.layer, "pass": self.spec, "state": "left" if self.reason else "rewritten",
            "macs": list(self.macs), "params": list(self.params), "error": self.error, "measure": self.measure,
            "reason": self.reason,
        }  # fmt: skip


@dataclass(frozen=True)
class Rewritten:
    """Every layer that rewrites looked at, in order. Outlives what comes after."""

    outlives_rewrites: ClassVar[bool] = True
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, eq=False)
class Edit:
    """Nodes that take a node's place, the last of which makes its value, and their weights.

    ``error`` is relative, by ``measure``; None where nothing can be said before training. ``solve``: weights that take
    work, and their error, for edits that are carried out; until then ``weights`` holds stand-ins of their shapes.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, Array]
    error: float | None = 0.0
    measure: str = ""
    solve: Callable[[], Solved] | None = None

    def solved(self) -> Edit:
        """The edit with its weights as they are to be."""
        if self.solve is None:
            return self
        weights, error = self.solve()
        return replace(self, weights={**self.weights, **weights}, error=error, solve=None)


class Misfit(InputError):
    """An option does not fit a layer: an error if the layer was named, a reason if a glob found it."""


def chosen(graph: Graph, step: Pass, patterns: Sequence[str], ops: Iterable[str] = LAYERS) -> list[Node]:
    """The nodes of these operators whose labels match. Raises InputError for a pattern that matches none."""
    layers = [n for n in graph.nodes if n.op in ops]
    found: dict[str, Node] = {}
    for pattern in map(str, patterns):  # a spec line reads a layer called 3 as a number
        hits = [n for n in layers if fnmatch.fnmatchcase(n.label, pattern) or n.label == pattern]
        if not hits:
            labels = list(dict.fromkeys(n.label for n in layers))
            hint = did_you_mean(pattern, labels) or f"; its layers are {', '.join(labels[:5]) or 'none'}"
            raise InputError(
                f"{step.name}: '{pattern}' matches no {' or '.join(sorted(ops))} layer of '{graph.name}'{hint}. "
                "`secateur inspect` lists them all"
            )
        found.update((n.name, n) for n in hits)
    return [n for n in layers if n.name in found]


def rewrite_layers(
    graph: Graph, step: Pass, nodes: Sequence[Node], edit: Callable[[Node], Edit | str], *, always: bool
) -> Graph:
    """Edit every node that ``edit`` does not answer with a reason, if that costs fewer multiply-accumulates.

    ``always``: whatever it costs. Raises InputError where an option fits none of the layers, or not one that the
    pass's ``layers`` name in full.
    """
    named = {p for p in map(str, getattr(step, "layers", ())) if not any(c in p for c in "*?[")}
    rows: list[Row] = []
    edits: dict[str, Edit] = {}
    misfits: list[tuple[int, str]] = []
    for node in nodes:
        try:
            done = edit(node)
        except Misfit as problem:
            misfits.append((price(graph, (node,), {}).params, f"layer '{node.label}': {problem}"))
            done = str(problem)
        if isinstance(done, str) and node.label in named:
            raise InputError(f"{print_pass(step)}: layer '{node.label}' cannot be rewritten: {done}")
        before = after = price(graph, (node,), {})
        if isinstance(done, Edit):
            after = price(graph, done.nodes, done.weights)
            if after.macs >= before.macs and not always:
                done = f"does not pay: {after.macs / max(1, before.macs):.2f} of its multiply-accumulates afterwards"
        numbers = ((before.macs, after.macs), (before.params, after.params))
        if isinstance(done, str):
            rows.append(Row(node.label, node.name, print_pass(step), *numbers, reason=done))
            continue
        edits[node.name] = done = done.solved()
        pieces = tuple(n.name for n in done.nodes)
        rows.append(Row(node.label, node.name, print_pass(step), *numbers, done.error, done.measure, pieces))
    if misfits and len(misfits) == len(nodes):
        more = f"; and {len(misfits) - 1} more layers" if len(misfits) > 1 else ""
        raise InputError(f"{print_pass(step)} fits no layer of '{graph.name}': {max(misfits)[1]}{more}")
    return noted(apply(graph, edits), rows)


def apply(graph: Graph, edits: Mapping[str, Edit]) -> Graph:
    """The graph with every edited node replaced, shapes derived anew and dead weights gone."""
    if not edits:
        return graph
    weights = dict(graph.weights)
    nodes: list[Node] = []
    for node in graph.nodes:
        done = edits.get(node.name)
        nodes.extend((node,) if done is None else done.nodes)
        weights.update({} if done is None else done.weights)
    return prune_dead(reinfer(graph.rewrite(nodes=nodes, weights=weights)))


def noted(graph: Graph, rows: Sequence[Row]) -> Graph:
    """The graph with these rows added to what rewrites did."""
    known = graph.note(Rewritten) or Rewritten()
    return graph.with_note(Rewritten((*known.rows, *rows)))


def price(graph: Graph, nodes: Sequence[Node], weights: Mapping[str, Array]) -> Costs:
    """What these nodes cost by themselves."""
    made = {v.name for n in nodes for v in n.outputs}
    read = dict.fromkeys(i for n in nodes for i in n.inputs if i is not None and i not in made)
    known = {name: weights.get(name, graph.weights.get(name)) for name in read}
    held = {name: array for name, array in known.items() if array is not None}
    inputs = [graph.value(name) for name in read if name not in held]
    # The layers' own buffers and constants do not count as parameters: the notes say which they are.
    return cost(reinfer(graph.rewrite(inputs=inputs, nodes=nodes, outputs=[nodes[-1].name], weights=held)))


def obstacle(graph: Graph, node: Node) -> str | None:
    """Why a layer's weight cannot be replaced, or None."""
    weight = node.inputs[1]
    if weight is None or weight not in graph.weights:
        return "its weight is computed by the network"
    if len(graph.users[weight]) > 1:
        return f"it shares its weight with {' and '.join(n.label for n in graph.users[weight] if n is not node)}"
    if graph.weights[weight].dtype.name not in FLOATS:
        return f"its weight is {graph.weights[weight].dtype.name}"
    return None


def no_window(graph: Graph, node: Node, why: str) -> str | None:
    """Why a convolution is not one dense window, or None; ``why`` follows where it is 1x1."""
    weight = node.inputs[1]
    found = obstacle(graph, node)
    if found or weight is None:
        return found
    if node.attrs["groups"] > 1:
        return "it is grouped already"
    return f"it is 1x1: {why}" if max(graph.weights[weight].shape[2:]) == 1 else None


class Names:
    """Names of new values and weights that nothing in the graph has."""

    def __init__(self, graph: Graph) -> None:
        self.taken = {*graph.values, *graph.weights}

    def free(self, wanted: str) -> str:
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def weight(self, old: str | None, piece: str, role: str) -> str:
        """``conv1.weight`` -> ``conv1.PIECE.ROLE``: a module of its own within the old one's place."""
        base, dot, last = (old or "").rpartition(".")
        if not dot or last not in ("weight", "bias"):
            base = old or "layer"
        return self.free(f"{base}.{piece}.{role}")


def blank(name: str) -> tuple[Value, ...]:
    """One output whose shape the edit infers."""
    return (Value(name, BLANK, "f32"),)


def stand_in(shape: Sequence[int], like: Array) -> Array:
    """An array of this shape and of the type of ``like`` that takes no memory."""
    return np.broadcast_to(np.zeros((), like.dtype), shape)


def narrow(array: Array, like: Array) -> Array:
    """Back to the type of the weight that it was made from."""
    made: Array = np.ascontiguousarray(array).astype(like.dtype)
    return made
