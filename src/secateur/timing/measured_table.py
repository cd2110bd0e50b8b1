"""Making a latency table: the layers of a network at several widths, each alone.

In a runtime here they are timed by turns; in our own code on boards, their kernels are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.codegen.host import family
from secateur.ir import Graph, InputError, Node, Unsupported, Value
from secateur.ir.numeric import random_inputs
from secateur.ir.progress import Progress, quiet

from .runtimes import RUNTIMES, Run, check_runtime, race
from .tables import DEPTHWISE, LAYERS, Row, Shape, Table, shape_of

if TYPE_CHECKING:
    from secateur.codegen import Tracker

WIDTHS = ((1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5), (0.25, 0.25))  # shares of the channels in and out
REPEATS, WARMUPS = 9, 2


def measured_table(graph: Graph, runtime: str, lanes: int, seed: int = 0, progress: Progress = quiet) -> Table:
    """The table of a network's layers in a runtime on this machine and one thread.

    A layer that stands alone pays for the call, which is timed on a network of one addition and taken off. What the
    network takes besides its layers is the ``rest``. Raises InputError where the runtime is not here, and Unsupported
    where it cannot run the network.
    """
    check_runtime(runtime)
    layers = _layers(graph)
    small = Value("x", (1, 1))
    call = Graph("call", (small,), (Node("relu", ("x",), (Value("y", (1, 1)),)),), ("y",), {})
    whole, empty = _times([graph, call], runtime, seed)
    rows: dict[Shape, float] = {}
    for done, (shape, node) in enumerate(layers.items()):
        progress(done, len(layers), str(shape.kind))
        shapes = [s for s in _narrowed(shape, lanes) if s not in rows]
        times = _times([alone(graph, node, s) for s in shapes], runtime, seed)
        rows |= {s: max(t - empty, 1e-4) for s, t in zip(shapes, times, strict=True)}
    source = f"{runtime} on {family() or 'this machine'}, one thread, layers of {graph.name}"
    return _table(graph, rows, whole, source, lanes)


@dataclass(frozen=True)
class Boards:
    """Where kernels are measured: on the boards of a ``tracker``, in code for ``target``, for so many ``seconds``.

    ``records`` is the file that keeps what was measured.
    """

    tracker: Tracker
    target: str
    records: Path
    seconds: float


def board_table(graph: Graph, boards: Boards, lanes: int, progress: Progress = quiet) -> Table:
    """The table of a network's layers in our own code on one thread of a board: the sum of each layer's kernels.

    The ``rest`` is what fused steps add to them; steps of their own (pools, copies) are measured by no tuner and are
    left out. Raises InputError where the time was too short, and as ``codegen.tune`` does.
    """
    from secateur.codegen import kernel_seconds  # loads TVM

    shapes = {s: node for shape, node in _layers(graph).items() for s in _narrowed(shape, lanes)}
    graphs = [graph, *(alone(graph, node, s) for s, node in shapes.items())]
    found, outcome = kernel_seconds(graphs, boards.seconds, boards.records, boards.target, progress, boards.tracker)
    lacking = [s for s, t in zip(shapes, found[1:], strict=True) if t is None]
    if lacking or found[0] is None:
        many = f"{len(lacking)} of {len(shapes)} layers" if lacking else "steps between the layers"
        raise InputError(
            f"the latency table of '{graph.name}' lacks {many}{f', {lacking[0].kind} among them' if lacking else ''}: "
            f"{'; '.join(outcome.notes) or 'they could not be measured'}. What was measured is in '{boards.records}': "
            "run this again, or give it more --time"
        )
    rows = {s: max(1e3 * t, 1e-4) for s, t in zip(shapes, found[1:], strict=True) if t is not None}
    where = f"boards '{boards.tracker.key}' at {boards.tracker}, code for {boards.target}"
    source = f"{where}, one thread, layers of {graph.name}"
    return _table(graph, rows, 1e3 * found[0], source, lanes)


def _layers(graph: Graph) -> dict[Shape, Node]:
    """The layers that differ, each with the first of its shape. Raises InputError for a network without any."""
    found: dict[Shape, Node] = {}
    for node in graph.nodes:
        if node.op in LAYERS:
            found.setdefault(shape_of(graph, node), node)
    if not found:
        raise InputError(
            f"'{graph.name}' has no layer that a latency table could hold: no convolution, no linear layer"
        )
    return found


def _table(graph: Graph, rows: Mapping[Shape, float], whole: float, source: str, lanes: int) -> Table:
    """Rows in milliseconds, and what the ``whole`` network takes besides its layers."""
    layers = sum(rows[shape_of(graph, node)] for node in graph.nodes if node.op in LAYERS)
    return Table(tuple(Row(s, t) for s, t in rows.items()), max(whole - layers, 0.0), source, lanes)


def _times(graphs: Iterable[Graph], runtime: str, seed: int) -> list[float]:
    """Median milliseconds of each, by turns."""
    runs: dict[int, Run] = {i: RUNTIMES[runtime](g, random_inputs(g, seed), 1) for i, g in enumerate(graphs)}
    return [float(np.median(times)) for times in race(runs, REPEATS, WARMUPS, seed).values()]


def _narrowed(shape: Shape, lanes: int) -> list[Shape]:
    """The layer at the widths of a table: multiples of a vector where the layer is wider than one."""

    def part(width: int, share: float) -> int:
        return width if share == 1 else max(min(width, lanes), round(width * share / lanes) * lanes)

    found = dict[Shape, None]()
    for i, o in WIDTHS:
        inputs, outputs = part(shape.inputs, i), part(shape.outputs, o)
        if shape.kind.form == DEPTHWISE:
            times = shape.outputs // shape.inputs
            found[Shape(shape.kind, outputs // times, outputs // times * times, outputs // times)] = None
        elif inputs % shape.groups == 0 and outputs % shape.groups == 0:
            found[Shape(shape.kind, inputs, outputs, shape.groups)] = None
    return list(found)


def alone(graph: Graph, node: Node, shape: Shape) -> Graph:
    """A network of this layer alone, at these widths. Raises Unsupported for a layer whose weight is computed."""
    names = [name for name in node.inputs[1:] if name is not None]
    if any(name not in graph.weights for name in names):
        raise Unsupported(f"'{node.label}' has a weight that is computed: a latency table cannot hold it")
    source = graph.value(str(node.inputs[0]))
    x, weight = list(map(int, source.shape)), list(graph.weights[names[0]].shape)
    out = list(map(int, node.out.shape))
    axis = len(x) - 1 if node.op == "linear" else 1
    x[axis], out[len(out) - 1 if node.op == "linear" else 1] = shape.inputs, shape.outputs
    if node.op == "linear":
        weight = [shape.inputs, shape.outputs] if node.attrs.get("transposed") else [shape.outputs, shape.inputs]
    elif node.op == "conv":
        weight[:2] = shape.outputs, shape.inputs // shape.groups
    else:
        weight[:2] = shape.inputs, shape.outputs // shape.groups
    rng = np.random.default_rng(0)
    sizes = itertools.chain([weight], itertools.repeat([shape.outputs]))
    weights = {n: rng.standard_normal(size).astype(np.float32) for n, size in zip("wb", sizes, strict=False)}
    weights = dict(list(weights.items())[: len(names)])
    attrs = {**node.attrs, "groups": shape.groups} if "groups" in node.attrs else dict(node.attrs)
    layer = Node(node.op, ("x", *weights), (Value("y", tuple(out)),), attrs)
    return Graph("layer", (Value("x", tuple(x)),), (layer,), ("y",), weights)
