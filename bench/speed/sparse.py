"""What zeros in blocks gain over our fastest dense kernel, layer by layer.

    python -m bench.speed.sparse layers        1x1 layers of ResNet-50 and MobileNet v1 with 256 channels or more
    python -m bench.speed.sparse layers3       3x3 layers of ResNet-50 with 128 channels or more
    python -m bench.speed.sparse irregular     the same 1x1 layers with zeros that make no blocks
    python -m bench.speed.sparse irregular3    and those of the 3x3 layers that have eight columns or more
    python -m bench.speed.sparse kernels3      3x3 layers with zeros in whole kernels, for a block of outputs
    python -m bench.speed.sparse lstm          LSTM layers at batch 1: balanced blocks, DARB's rows, irregular zeros
    python -m bench.speed.sparse linear        the same in linear layers on one row or a few
    python -m bench.speed.sparse networks      whole networks with zeros in blocks, over our dense libraries; with
                                               --block 9999x1 whole columns of kernels (an input's tap, for all outputs)

Of each layer and density all choices of all kernels are timed in one run, by turns: the dense ones (direct, Strassen's,
Winograd's) and the sparse ones: for blocks in place or copied, and from panels; for single weights from panels; for
whole kernels Winograd's as well. A row
states the best of each kind, the gain over the fastest dense kernel, and the share of the machine's peak of fused
multiply-adds, counted on what is multiplied; of layers with irregular zeros also what the estimates, by which kernels
are chosen that nobody measured, say of the gain. Weights come from memory, as when a network runs. ``--least``: the
minimum of the rounds instead of the median, for machines that others use at the same time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.lib import common
from bench.nets.networks import capture
from secateur import codegen
from secateur.codegen.kernels.block_sparse.spec import BlockSparseSpec, PanelSpec, UnstructuredSpec
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.sparse_winograd.spec import SparseWinogradSpec
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan.family import Workload
from secateur.codegen.plan.strides import Strides
from secateur.codegen.runtime import use_threads
from secateur.codegen.targets import Target
from secateur.codegen.tune import timing
from secateur.codegen.tune.tuner import candidates
from secateur.ir import Array, Graph, Node, Source, Value
from secateur.ir.exporters.torch.module import evaluate
from secateur.passes.sparsify import Sparsify

POINTWISE = (  # inputs, outputs, rows
    (256, 64, 56), (256, 512, 28), (512, 128, 28), (512, 256, 28), (512, 512, 14), (256, 1024, 14), (1024, 256, 14),
    (1024, 512, 14), (512, 2048, 7), (2048, 512, 7), (1024, 1024, 7),
)  # fmt: skip
THREE = ((128, 128, 28), (256, 256, 14), (512, 512, 7))
LSTMS = ((3, 256), (1, 1500))  # layers, and their width
LINEARS = ((1, 256, 1024), (1, 1500, 6000), (1, 4096, 4096), (20, 1500, 6000))  # rows, inputs, outputs
LSTM_BLOCKS = ("auto", "darb", "irregular")
NETWORKS = ("ref/mobilenet_v1", "ref/resnet50")
DENSITIES = (90, 70, 50, 40, 30, 20, 10, 5)  # per cent of the blocks that are kept


def dense_specs(size: tuple[int, int, int], kernel: int, target: Target, threads: int) -> list[Workload]:
    """The dense kernels of a layer."""
    ci, co, rows = size
    v, plane, (h, w) = target.lanes, plane_of(rows, kernel, target), extent_of(rows, kernel)
    shape = (co // v, h, w)
    found: list[Workload] = [
        ConvSpec(v, 1, ci, *shape, (kernel, kernel), (1, 1), (1, 1), plane, plane, False, threads=threads)
    ]
    if kernel == 1 and ci % (2 * v) == co % (2 * v) == 0:
        found.append(StrassenSpec(v, 1, ci // v, *shape, plane, plane, False, threads=threads))
    if kernel == 3:
        found.append(WinogradSpec(v, 1, ci, ci // v, *shape, plane, plane, False, threads=threads))
    return found


def sparse_specs(size: tuple[int, int, int], kernel: int, percent: int, target: Target, threads: int) -> list[Workload]:
    """The block-sparse kernels of a layer."""
    ci, co, rows = size
    v, plane, (h, w) = target.lanes, plane_of(rows, kernel, target), extent_of(rows, kernel)
    found: list[Workload] = [BlockSparseSpec(
        v, 1, ci, ci // v, co // v, h, w, (kernel, kernel), (1, 1), (1, 1), plane, plane, percent, threads=threads
    )]  # fmt: skip
    return [*found, *([_panels(PanelSpec, size, kernel, percent, target, threads)] if w >= v else [])]


def kernel_specs(size: tuple[int, int, int], kernel: int, percent: int, target: Target, threads: int) -> list[Workload]:
    """The kernels of a layer of which whole kernels are zero for a block of outputs: these are blocks, too."""
    (ci, co, rows), v = size, target.lanes
    plane = plane_of(rows, kernel, target)
    shape = (v, 1, ci, ci // v, co // v, *extent_of(rows, kernel), plane, plane, False)
    winograd = SparseWinogradSpec(*shape, threads=threads, percent=percent)
    return [winograd, *sparse_specs(size, kernel, percent, target, threads)]


def single_specs(size: tuple[int, int, int], kernel: int, percent: int, target: Target, threads: int) -> list[Workload]:
    """The kernel of a layer of which ``percent`` of the single weights are kept."""
    return [_panels(UnstructuredSpec, size, kernel, percent, target, threads)]


def _panels(kind: type[PanelSpec], size: tuple[int, int, int], kernel: int, percent: int, target: Target,
            threads: int) -> PanelSpec:  # fmt: skip
    (ci, co, rows), v, plane = size, target.lanes, plane_of(size[2], kernel, target)
    shape = (ci // v, co // v, *extent_of(rows, kernel), (kernel, kernel))
    return kind(v, 1, *shape, (1, 1), plane, plane, False, percent, threads=threads)


def extent_of(rows: int, kernel: int) -> tuple[int, int]:
    """Rows and columns as the planner sees them: a 1x1 has one long row."""
    return (1, rows * rows) if kernel == 1 else (rows, rows)


def plane_of(rows: int, kernel: int, target: Target) -> Strides:
    """Blocks with the halo that the kernel reads."""
    wide = rows + kernel - 1
    if kernel == 1:
        return Strides(rows * rows * target.lanes, rows * rows * target.lanes, rows * rows * target.lanes, target.lanes)
    return Strides(wide * wide * target.lanes, wide * wide * target.lanes, wide * target.lanes, target.lanes)


def measured(specs: list[Workload], target: Target, rounds: int, least: bool) -> dict[Workload, tuple[float, str]]:
    """Seconds and choice of the best of each spec's space, all by turns."""
    calls: dict[int, Callable[[], None]] = {}
    jobs: list[tuple[Workload, object]] = []
    for spec in specs:
        space = candidates(spec, target)
        functions = {len(jobs) + i: timing.compiled(spec, choice, target) for i, choice in enumerate(space)}
        jobs += [(spec, choice) for choice in space]
        calls |= timing.in_turn(functions, timing.arguments(spec, target))
    times = minima(calls, rounds) if least else timing.interleaved(calls, rounds)
    found: dict[Workload, tuple[float, str]] = {}
    for i, (spec, choice) in enumerate(jobs):
        if spec not in found or times[i] < found[spec][0]:
            found[spec] = times[i], str(choice)
    return found


def minima(calls: Mapping[int, Callable[[], None]], rounds: int) -> dict[int, float]:
    """The fastest of all rounds of each call, the second of two in a row: a layer's input was just written.

    Arrays of another kernel are in the cache before the first, which costs it up to a fifth.
    """
    found = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for i, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            found[i] = min(found[i], time.perf_counter() - start)
    return found


def rows_of(options: Any, kernel: int, sizes: Sequence[tuple[int, int, int]], zeros: str = "") -> Iterator[common.Row]:
    """A row for each layer and density; of ``zeros`` in balanced blocks, unless they are named."""
    target = codegen.get_target("native")
    use_threads(options.threads)
    for size in sizes[:: 3 if options.quick else 1]:
        dense = dense_specs(size, kernel, target, options.threads)
        sparse = {p: OFFERED[zeros](size, kernel, p, target, options.threads) for p in options.densities}
        every = [*dense, *(s for each in sparse.values() for s in each)]
        peak = max(timing.peak(target) for _ in range(3)) * options.threads
        found = measured(every, target, options.rounds, options.least)
        seconds = {type(s).__name__: found[s][0] for s in dense}
        fastest = min(seconds.values())
        for percent, each in sparse.items():
            best = min(each, key=lambda s: found[s][0])
            taken = found[best][0]
            yield {
                "part": f"{kernel}x{kernel}", "layer": f"{size[0]}>{size[1]} {size[2]}x{size[2]}",
                "threads": options.threads, "density": percent / 100, "dense_ms": fastest * 1e3,
                "direct_ms": seconds["ConvSpec"] * 1e3, "sparse_ms": taken * 1e3, "gain": fastest / taken,
                "gain_direct": seconds["ConvSpec"] / taken, "share_of_peak": 2 * best.macs / taken / peak,
                "direct_share": 2 * dense[0].macs / seconds["ConvSpec"] / peak, "least": options.least,
                "load": os.getloadavg()[0], "choice": found[best][1],
                **({"zeros": zeros, "estimated": _estimated(dense, best, target)} if zeros else {}),
            }  # fmt: skip


OFFERED = {"": sparse_specs, "irregular": single_specs, "whole kernels": kernel_specs}


def _estimated(dense: Sequence[Workload], sparse: Workload, target: Target) -> float:
    return min(spec.estimate(target) for spec in dense) / sparse.estimate(target)


def means(rows: list[common.Row]) -> str:
    """Geometric means by density."""
    shown = []
    for density in sorted({row["density"] for row in rows}, reverse=True):
        mine = [row for row in rows if row["density"] == density]
        mean = [float(np.exp(np.mean([np.log(r[k]) for r in mine]))) for k in ("gain", "gain_direct", "share_of_peak")]
        shown.append([f"{density:.2f}", len(mine), *(f"{m:.2f}" for m in mean)])
    return common.table(["density", "layers", "gain", "over direct", "share of peak"], shown)


def whole(rows: list[common.Row]) -> str:
    """A line for each network."""
    columns = ("network", "block", "dense_ms", "sparse_ms", "gain", "error")
    return common.table(list(columns), [[row.get(column, "auto") for column in columns] for row in rows])


def layers(options: Any) -> Iterator[common.Row]:
    """1x1 layers."""
    yield from rows_of(options, 1, POINTWISE)


def layers3(options: Any) -> Iterator[common.Row]:
    """3x3 layers."""
    yield from rows_of(options, 3, THREE)


def irregular(options: Any) -> Iterator[common.Row]:
    """1x1 layers with zeros that make no blocks."""
    yield from rows_of(options, 1, POINTWISE, "irregular")


def irregular3(options: Any) -> Iterator[common.Row]:
    """3x3 layers with zeros that make no blocks."""
    lanes = codegen.get_target("native").lanes
    yield from rows_of(options, 3, [size for size in THREE if size[2] >= lanes], "irregular")


def kernels3(options: Any) -> Iterator[common.Row]:
    """3x3 layers with zeros in whole kernels."""
    yield from rows_of(options, 3, THREE, "whole kernels")


def networks(options: Any) -> Iterator[common.Row]:
    """Milliseconds of dense and sparse libraries, kernels chosen by their estimates and shipped records."""
    target = codegen.get_target("native")
    for name in options.networks:
        network = capture(name, options.seed)
        sparse = Sparsify(options.sparsity, options.block, lanes=target.lanes if options.block == "auto" else 0)(
            network.graph
        )
        libraries = [codegen.build(g, threads=options.threads) for g in (network.graph, sparse)]
        calls = {i: partial(library, network.x) for i, library in enumerate(libraries)}
        times = minima(calls, options.rounds) if options.least else timing.interleaved(calls, options.rounds)
        want = evaluate(sparse, {network.graph.inputs[0].name: network.x})[0]
        yield {
            "part": "networks", "network": name, "block": options.block, "threads": options.threads,
            "sparsity": options.sparsity, "dense_ms": times[0] * 1e3, "sparse_ms": times[1] * 1e3,
            "gain": times[0] / times[1],
            "error": float(np.abs(libraries[1](network.x) - want).max() / np.abs(want).max()),
            "kernels": dict(libraries[1].metadata.kernels), "dense_kernels": dict(libraries[0].metadata.kernels),
            "least": options.least, "load": os.getloadavg()[0],
        }  # fmt: skip


def lstm(options: Any) -> Iterator[common.Row]:
    """Recurrent layers at batch 1, twenty steps, in several patterns; the sums of all steps' inputs are part of it."""
    steps = 20
    for layers, hidden in LSTMS:
        graph = recurrent(layers, hidden, steps, options.seed)
        yield from in_patterns("lstm", f"{layers} x {hidden}", graph, (steps, 1, hidden), options)


def linear(options: Any) -> Iterator[common.Row]:
    """Linear layers on one row or a few, in several patterns."""
    rng = np.random.default_rng(options.seed)
    for rows, inputs, outputs in LINEARS:
        weight = (rng.standard_normal((outputs, inputs)) / inputs**0.5).astype(np.float32)
        y = Value("y", (rows, outputs), "f32")
        node = Node("linear", ("x", "w", None), (y,), {"transposed": False}, Source("y"))
        graph = Graph("linear", (Value("x", (rows, inputs), "f32"),), (node,), ("y",), {"w": weight})
        yield from in_patterns("linear", f"{inputs}>{outputs}, {rows} rows", graph, (rows, inputs), options)


def in_patterns(part: str, name: str, graph: Graph, shape: tuple[int, ...], options: Any) -> Iterator[common.Row]:
    """A row for each pattern of zeros in the weights of a graph, all timed by turns with the dense library."""
    target, share = codegen.get_target("native"), options.lstm_sparsity
    made = {block: Sparsify(share, block, lanes=target.lanes)(graph) for block in LSTM_BLOCKS}
    libraries = {"dense": codegen.build(graph), **{block: codegen.build(g) for block, g in made.items()}}
    x = np.random.default_rng(options.seed).standard_normal(shape).astype(np.float32)
    calls = {i: partial(library, x) for i, library in enumerate(libraries.values())}
    times = minima(calls, options.rounds) if options.least else timing.interleaved(calls, options.rounds)
    for i, (block, sparse) in enumerate(made.items(), 1):
        want = evaluate(sparse, {"x": x})[0]
        yield {
            "part": part, "network": name, "block": block, "threads": 1, "sparsity": share,
            "dense_ms": times[0] * 1e3, "sparse_ms": times[i] * 1e3, "gain": times[0] / times[i],
            "error": float(np.abs(libraries[block](x) - want).max() / np.abs(want).max()),
            "kernels": dict(libraries[block].metadata.kernels),
            "weights_mb": sum(w.nbytes for w in graph.weights.values()) / 2**20, "least": options.least,
            "load": os.getloadavg()[0],
        }  # fmt: skip


def recurrent(layers: int, hidden: int, steps: int, seed: int) -> Graph:
    """LSTM layers as wide as their inputs, with random weights."""
    rng, names, nodes = np.random.default_rng(seed), ["x"], list[Node]()
    weights: dict[str, Array] = {}
    for i in range(layers):
        for kind in "wr":
            weights[f"{kind}{i}"] = (rng.standard_normal((1, 4 * hidden, hidden)) / hidden**0.5).astype(np.float32)
        y, flat = Value(f"y{i}", (steps, 1, 1, hidden), "f32"), Value(f"f{i}", (steps, 1, hidden), "f32")
        inputs = (names[-1], f"w{i}", f"r{i}", None, None, None)
        nodes.append(Node("lstm", inputs, (y,), {"hidden": hidden, "direction": "forward"}, Source(y.name)))
        nodes.append(Node("reshape", (y.name,), (flat,), {"shape": flat.shape}, Source(flat.name)))
        names.append(flat.name)
    return Graph("lstm", (Value("x", (steps, 1, hidden), "f32"),), tuple(nodes), (names[-1],), weights)


PARTS = {
    "layers": layers,
    "layers3": layers3,
    "irregular": irregular,
    "irregular3": irregular3,
    "kernels3": kernels3,
    "networks": networks,
    "lstm": lstm,
    "linear": linear,
}


def main() -> None:
    """Measure the parts asked for, append JSON lines, print a table each."""
    parser = common.parser(__doc__, "sparse.jsonl")
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--densities", type=int, nargs="*", default=list(DENSITIES), help="per cent that are kept")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--sparsity", type=float, default=0.8, help="of whole networks")
    parser.add_argument("--block", default="auto", help="of whole networks; 9999x1: whole columns, as SSL leaves them")
    parser.add_argument("--lstm-sparsity", type=float, default=0.9, help="of recurrent and linear layers")
    parser.add_argument("--quick", action="store_true", help="every third layer")
    parser.add_argument("--least", action="store_true", help="minima instead of medians")
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    for part in options.parts:
        rows = []
        for row in PARTS[part](options):
            common.append(options.output, [{**around, **row}])
            rows.append(row)
        print(whole(rows) if part in ("networks", "lstm", "linear") else means(rows), flush=True)


if __name__ == "__main__":
    main()
