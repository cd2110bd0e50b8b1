"""Libraries without fast algorithms where these are too coarse: in as few layers as that takes.

Each layer that is computed by such an algorithm is run alone, on what it reads in the network, so and directly. The
difference is added to what the network in double precision has there: how far that moves the outputs is what the layer
costs. The dearest are computed directly, so that the others move the outputs by no more than there is room for; the
library is then built and judged as a whole, and does without in all layers if that was not enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir import Array, Error, Graph, Node
from secateur.ir.graph import numpy_dtype
from secateur.ir.numeric import relative_error, worst_slice
from secateur.ir.precision import doubled_feed
from secateur.run import Runner

from .library import FINE, Check

if TYPE_CHECKING:
    from secateur.codegen import Library

NAMED = 4  # layers that a note names
SHIFT = ".shift"  # what is added to a value
Build = Callable[[Graph, Collection[str] | None], "Library"]  # without fast algorithms in these layers; None: in all
Fast = Callable[[Graph], Collection[str]]  # the layers of a graph that are computed by fast algorithms


def refined(library: Library, check: Check, build: Build, fast: Fast) -> Library:
    """A library that passes the check, or is at least no further off than ``library``, with a note of what it lacks."""
    layers, start = fast(check.original), check.verdict(check.outputs(library))
    cost = costs(check, layers, build, fast)
    dear = dearest(cost, room(check)) if cost.keys() >= set(layers) else []
    if 0 < len(dear) < len(layers):
        found = build(check.original, dear)
        if check.passed(check.outputs(found)):
            return _noted(found, dear, len(layers) - len(dear))
    direct = build(check.original, None)
    least = check.verdict(check.outputs(direct))
    return _noted(direct, list(layers), 0) if start.wrong or not start.error <= least.error else library


def room(check: Check) -> float:
    """How far fast algorithms together may move the outputs: half of what direct sums leave of what is allowed."""
    own = check.own or 0.0
    return max(FINE - own, own) / 2


def dearest(cost: Mapping[str, float], room: float) -> list[str]:
    """The fewest layers, the dearest first, without which the others cost no more than ``room`` together."""
    found, total = [], 0.0
    for layer in sorted(cost, key=lambda layer: cost[layer]):
        total += cost[layer]
        if not total <= room:
            found.append(layer)
    return found[::-1]


def costs(check: Check, layers: Collection[str], build: Build, fast: Fast, limit: float = FINE) -> dict[str, float]:
    """By layer: how far its fast algorithm moves the outputs, of their largest number; inf where a slice is off.

    inf as well where a layer by itself is not computed so. ``limit``: by which slices are judged. Nothing where the
    network has no form in double precision; layers are missing that its graph does not name.
    """
    from secateur.codegen import alone

    apart = alone(check.graph, layers)
    if check.double is None or check.exact is None or not apart.labels:
        return {}
    run, inputs = Runner(), doubled_feed(check.feed)
    read = list(dict.fromkeys(apart.reads.values()))
    try:
        known = dict(zip(read, run(check.double.rewrite(outputs=read), inputs), strict=True))
    except Error:  # an operator without code for doubles
        return {}
    feed = [known[apart.reads[v.name]].astype(numpy_dtype(v.dtype)) for v in apart.graph.inputs]
    quick, direct = (_arrays(build(apart.graph, without), feed) for without in ((), None))
    same = fast(apart.graph)
    shifted = _shifted(check.double, list(apart.labels))
    still = {f"{name}{SHIFT}": np.zeros(a.shape) for name, a in zip(apart.labels, quick, strict=True)}
    found: dict[str, float] = {}
    for (name, label), a, b in zip(apart.labels.items(), quick, direct, strict=True):
        change = {f"{name}{SHIFT}": a.astype(np.float64) - b.astype(np.float64)}
        outputs = run(shifted, {**inputs, **still, **change})
        cost = max(map(partial(_moved, limit), check.exact, outputs, check.wants), default=0.0)
        found[label] = found.get(label, 0.0) + (cost if label in same else float("inf"))
    return found


def _moved(limit: float, want: Array, have: Array, near: Array) -> float:
    """By how much an output moved; inf where it is a slice of it that did. ``near``: in float32."""
    error = relative_error(want, have)
    return error if worst_slice(want, have, limit, near) is None and np.isfinite(error) else float("inf")


def _arrays(library: Library, inputs: list[Array]) -> tuple[Array, ...]:
    found = library(*inputs)
    return found if isinstance(found, tuple) else (found,)


def _shifted(graph: Graph, names: Collection[str]) -> Graph:
    """The network with something added to each of these values, an input each."""
    nodes: list[Node] = []
    extra = []
    for node in graph.nodes:
        if node.name not in names:
            nodes.append(node)
            continue
        raw = dataclasses.replace(node.out, name=f"{node.name}.plain")
        shift = dataclasses.replace(node.out, name=f"{node.name}{SHIFT}", shape=tuple(map(int, node.out.shape)))
        nodes.append(dataclasses.replace(node, outputs=(raw, *node.outputs[1:])))
        nodes.append(Node("add", (raw.name, shift.name), (node.out,), {}, node.source))
        extra.append(shift)
    return graph.rewrite(inputs=[*graph.inputs, *extra], nodes=nodes)


def _noted(library: Library, layers: Collection[str], others: int) -> Library:
    """The library with a note of the layers that do without."""
    named = ", ".join(f"'{layer}'" for layer in list(layers)[:NAMED])
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    keep = {0: "no layer keeps one", 1: "1 other layer keeps its own"}.get(others, f"{others} other layers keep theirs")
    note = f"fast algorithms are too coarse for {named}{more}, computed directly; {keep}"
    library.metadata = dataclasses.replace(library.metadata, notes=(*library.metadata.notes, note))
    return library
