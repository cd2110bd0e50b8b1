"""What each class of layers costs alone: milliseconds of its kernels, and the share of the FMA peak they reach.

A class is named by the layer in the graph (`conv 3x3`, `depthwise 5x5`, `grouped 1x1`), whichever kernels compute it:
every kernel of the plan carries its layer's label. A kernel is timed by itself without its epilogue: ``ms`` with
everything in the cache, which the shares are of, and ``cold_ms`` with weights from memory, as a network finds them.
``macs`` counts the layer's own multiply-accumulates, ``padded`` what the kernels do, lanes that hold nothing and zeros
between groups included; Winograd's count as the convolution they stand for, whose share may pass 1. Kernels that count
none (transforms, copies) add their time where they can be timed, and are counted under ``untimed`` where not. The peak
is what a loop of nothing but fused multiply-adds on registers reaches in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from secateur.codegen import Target, get_target
from secateur.codegen.backends import backend_for
from secateur.codegen.plan.lower import lower
from secateur.codegen.tune import timing as measure
from secateur.codegen.tune.tuner import Tuner, open_records
from secateur.ir import Graph, Node
from secateur.passes.analysis.cost import cost

ROUNDS = 7
FEW = 8  # input channels: fewer make a first layer, whose vectors cannot lie along them


def _conv(graph: Graph, node: Node) -> str:
    weight = graph.weights[node.inputs[1] or ""].shape
    groups, kernel = int(str(node.attrs["groups"])), "x".join(map(str, weight[2:]))
    if groups > 1:
        return f"{'depthwise' if weight[1] == 1 and weight[0] == groups else 'grouped'} {kernel}"
    return f"{'first' if weight[1] < FEW else 'conv'} {kernel}"


def _transposed(graph: Graph, node: Node) -> str:
    return f"transposed {'x'.join(map(str, graph.weights[node.inputs[1] or ''].shape[2:]))}"


NAMES: Mapping[str, Callable[[Graph, Node], str]] = MappingProxyType({"conv": _conv, "conv_transpose": _transposed})


def layer_class(graph: Graph, node: Node) -> str:
    """What the table calls this layer; the operator's name where there is nothing to tell apart."""
    return NAMES[node.op](graph, node) if node.op in NAMES else node.op


def classes(graph: Graph, records: Path | None, threads: int) -> dict[str, dict[str, float]]:
    """By class: macs, padded, ms, share and padded_share of the peak, untimed; and the peak in GFLOP/s."""
    target = get_target("native")
    program = lower(
        graph, target, threads, Tuner(target, threads, open_records(target, records)).choose, backend_for(target)
    )
    nodes = {node.name: node for node in graph.nodes}
    rows: dict[str, dict[str, float]] = {}
    class_of: dict[str, str] = {}
    for layer in cost(graph).layers:
        if layer.macs:
            class_of[layer.label] = name = layer_class(graph, nodes[layer.node])
            row = rows.setdefault(name, {"macs": 0.0, "padded": 0.0, "ms": 0.0, "cold_ms": 0.0, "untimed": 0})
            row["macs"] += layer.macs
    peak = measure.peak(target)
    seconds: dict[Any, tuple[float, float]] = {}
    for call in program.calls:
        if call.label not in class_of:
            continue
        row = rows[class_of[call.label]]
        if not hasattr(call.spec, "workload"):
            row["untimed"] += 1
            continue
        key = (call.spec.workload(), call.choice)
        if key not in seconds:
            seconds[key] = _time(*key, target)
        warm, cold = seconds[key]
        row["padded"] += getattr(call.spec, "macs", 0)
        row["ms"] += warm * 1e3
        row["cold_ms"] += cold * 1e3
    for row in rows.values():
        for share, count in (("share", "macs"), ("padded_share", "padded")):
            row[share] = 2 * row[count] / (row["ms"] * 1e-3) / peak if row["ms"] else 0.0
    return {**rows, "peak": {"gflops": peak / 1e9}}


def _time(spec: Any, choice: Any, target: Target) -> tuple[float, float]:
    """Seconds of a kernel with its weights in the cache, and with weights from memory."""
    runs = [measure.callable_of(spec, choice, target, memory) for memory in (0, measure.MEMORY)]
    warm, cold = (measure.interleaved({0: run}, ROUNDS)[0] for run in runs)
    return warm, cold
