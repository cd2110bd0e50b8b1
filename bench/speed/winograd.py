"""What Winograd's convolution gains over the direct template, and what it costs in accuracy.

    python -m bench.speed.winograd errors       which points, how far float32 strays, by channels
    python -m bench.speed.winograd trained
        layers inside of opennsfw's ResNet-50-thin on photos (bench/data/material.py first)
    python -m bench.speed.winograd kernels      single layers: direct and Winograd, untuned and the best of their spaces
    python -m bench.speed.winograd networks     whole networks with and without it, next to other runtimes

Errors are the largest difference from double precision over the largest output, on rectified normal inputs and normal
weights where nothing else is said. Times of a part are taken in one run, by turns; medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data import material
from bench.lib import common
from bench.nets.networks import capture
from secateur import codegen
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.winograd import transform as winograd
from secateur.codegen.kernels.winograd.spec import WinogradSpec
from secateur.codegen.plan.strides import Strides
from secateur.codegen.runtime import use_threads
from secateur.codegen.tune import timing as measure
from secateur.codegen.tune.tuner import candidates
from secateur.ir import Graph, Node, Source, Value
from secateur.ir.exporters.torch.module import evaluate

PAIRS = ((1.0,), (1.0, 2.0), (0.5, 1.0), (0.5**0.5, 2**0.5), (0.625, 1.25), (0.75, 1.5))
CHANNELS = (64, 128, 256, 512)
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7), (48, 56), (96, 28), (96, 56), (48, 28))  # channels, rows
NETWORKS = ("ref/resnet50", "ref/se_resnet50", "tv/resnet18", "tv/vgg11", "tv/densenet121")


def errors(options: Any) -> Iterator[common.Row]:
    """Simulated for each set of points, then the kernels themselves next to the direct ones."""
    rng = np.random.default_rng(options.seed)
    for pairs in PAIRS:
        row: common.Row = {"part": "points", "m": 2 * len(pairs), "pairs": pairs}
        for ci in CHANNELS:
            row[f"{ci}"] = winograd.error(rng.standard_normal((64, ci, 3, 3), np.float32), pairs)
        yield row
    for winograd_too in (False, True):
        row = {"part": "kernels", "m": 4 if winograd_too else "direct", "pairs": None}
        for ci in CHANNELS:
            row[f"{ci}"] = _library_error(ci, 14, winograd_too, options.seed)
        yield row


def _library_error(ci: int, size: int, winograd_too: bool, seed: int) -> float:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((ci, ci, 3, 3), np.float32)
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": (1,) * 4, "groups": 1}
    x, y = (Value(name, (1, ci, size, size), "f32") for name in ("x", "y"))
    node = Node("conv", ("x", "w", None), (y,), attrs, Source("conv"))
    feed = {"x": np.maximum(rng.standard_normal(x.shape, np.float32), 0)}
    graph = Graph("layer", (x,), (node,), ("y",), {"w": weight})
    found = codegen.build(graph, fast=winograd_too)(feed)
    wide = graph.rewrite(weights={"w": weight.astype(np.float64)})
    exact = evaluate(wide, {"x": feed["x"].astype(np.float64)})[0]
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def trained(options: Any) -> Iterator[common.Row]:
    """The largest error over twenty photos at some convolutions of a trained network."""
    import secateur

    graph = secateur.load(material.path("open-nsfw.onnx"))
    three = [n.name for n in graph.nodes if n.op == "conv" and graph.weights[n.inputs[1] or ""].shape[2:] == (3, 3)]
    watched = Graph(graph.name, graph.inputs, graph.nodes, (*three[::3], graph.nodes[-2].name), graph.weights)
    name = graph.inputs[0].name
    wide = watched.rewrite(
        weights={n: w.astype(np.float64) if w.dtype == np.float32 else w for n, w in graph.weights.items()}
    )
    libraries = {f"{k}_error": codegen.build(watched, fast=k == "winograd") for k in ("winograd", "direct")}
    worst = {value: dict.fromkeys(libraries, 0.0) for value in watched.outputs}
    for path, _ in material.photos():
        x = _photo(path)
        exact = evaluate(wide, {name: x.astype(np.float64)})
        for kind, library in libraries.items():
            for value, found, right in zip(watched.outputs, library(x), exact, strict=True):
                error = float(np.abs(found - right).max() / np.abs(right).max())
                worst[value][kind] = max(worst[value][kind], error)
    for value, row in worst.items():
        yield {"part": "trained", "value": value, **row}


def _photo(path: Path) -> Any:
    """As opennsfw wants it: blue, green, red in 224 x 224, less their means."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray((pixels[:, :, ::-1] - np.array([104, 117, 123], np.float32))[None], np.float32)


def kernels(options: Any) -> Iterator[common.Row]:
    """Milliseconds of each layer, and the gain: direct over Winograd, both at their best.

    Weights come from memory, as when a network runs.
    """
    target = codegen.get_target("native")
    use_threads(options.threads)
    for channels, size in LAYERS:
        blocks, row = channels // target.lanes, (size + 2) * target.lanes
        plane = Strides((size + 2) * row, (size + 2) * row, row, target.lanes)
        shape = (target.lanes, 1, channels, blocks, size, size)
        direct = ConvSpec(*shape, (3, 3), (1, 1), (1, 1), plane, plane, False, threads=options.threads)
        fast = WinogradSpec(*shape[:3], blocks, *shape[3:], plane, plane, False, threads=options.threads)
        spaces = {spec: candidates(spec, target) for spec in (direct, fast)}
        jobs = [(spec, choice) for spec, space in spaces.items() for choice in space]
        turns = {spec: measure.arguments(spec, target) for spec in spaces}
        calls: dict[int, Callable[[], None]] = {}
        for i, (spec, choice) in enumerate(jobs):
            calls |= measure.in_turn({i: measure.compiled(spec, choice, target)}, turns[spec])
        times = measure.interleaved(calls, options.rounds)
        first = len(spaces[direct])
        best = [min(range(0, first), key=times.__getitem__), min(range(first, len(jobs)), key=times.__getitem__)]
        yield {
            "part": "kernels", "layer": f"{channels} {size}x{size}", "threads": options.threads,
            "direct_default_ms": times[0] * 1e3, "direct_ms": times[best[0]] * 1e3,
            "winograd_default_ms": times[first] * 1e3, "winograd_ms": times[best[1]] * 1e3,
            "gain_default": times[0] / times[first], "gain": times[best[0]] / times[best[1]],
            "gflops": 2 * fast.macs / times[best[1]] / 1e9, "choice": str(jobs[best[1]][1]),
        }  # fmt: skip


def networks(options: Any) -> Iterator[common.Row]:
    """Milliseconds with and without, and the errors against double precision. Peers are in bench/speed/latency.py."""
    for name in options.networks:
        network = capture(name, options.seed)
        graph, x = network.graph, network.x
        libraries = {
            "winograd": codegen.build(graph, threads=options.threads),
            "direct": codegen.build(graph, threads=options.threads, fast=False),
        }
        times = measure.interleaved({i: partial(lib, x) for i, lib in enumerate(libraries.values())}, options.rounds)
        wide = {n: w.astype(np.float64) if w.dtype == np.float32 else w for n, w in graph.weights.items()}
        exact = evaluate(graph.rewrite(weights=wide), {graph.inputs[0].name: x.astype(np.float64)})[0]
        yield {
            "part": "networks", "network": name, "threads": options.threads,
            **{f"{k}_ms": times[i] * 1e3 for i, k in enumerate(libraries)}, "direct/winograd": times[1] / times[0],
            **{f"{k}_error": float(np.abs(lib(x) - exact).max() / np.abs(exact).max()) for k, lib in libraries.items()},
            "layers": libraries["winograd"].metadata.kernels.get("winograd", 0),
        }  # fmt: skip


PARTS = {"errors": errors, "trained": trained, "kernels": kernels, "networks": networks}


def main() -> None:
    """Measure the parts asked for, append JSON lines, print a table each."""
    parser = common.parser(__doc__, "winograd.jsonl")
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    for part in options.parts:
        rows = []
        for row in PARTS[part](options):
            common.append(options.output, [{**around, **row}])
            rows.append(row)
        print(common.table(list(rows[0]), [list(row.values()) for row in rows]), flush=True)


if __name__ == "__main__":
    main()
