"""How fast networks run on this machine's CPU: secateur's libraries beside ONNX Runtime, OpenVINO and torch.compile.

    python bench/latency.py                                     all networks, one thread
    python bench/latency.py tv/resnet50 --threads 2 --tune 60   one network, tuned for at most a minute
    python bench/latency.py tv/resnet50@50%                     pruned to half of its work, beside the dense network

All runtimes take turns, one sample each a round, so that what else the machine does hits them alike; medians are shown,
and ratios are medians of the ratios in a round. f32, batch 1. The peak is what a loop of nothing but fused multiply-
adds reaches in the same run; the shares of it are those of single kernels with warm caches, padding lanes counted as
work.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import common
import light_models
import secateur
import zoo
from reference_nets import REFERENCES
from secateur import codegen
from secateur.ir import Graph

NETWORKS = (
    "ref/resnet50", "ref/resnext50_32x4d", "ref/se_resnet50", "ref/mobilenet_v1", "tv/mobilenet_v2",
    "timm/efficientnet_lite0", "ref/shufflenet_v1_g3", "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0",
    "tv/densenet121", "ref/resnet50@50%", "tv/mobilenet_v2@50%", "ref/shufflenet_v1_g3@50%",
    "tv/shufflenet_v2_x1_0@50%",
)  # fmt: skip
RUNTIMES = ("onnxruntime", "openvino", "torch.compile")
Call = Callable[[], Any]


def network(name: str, seed: int) -> tuple[Graph, nn.Module | None, np.ndarray[Any, Any]]:
    """The graph, its module where it comes from torch, and an input."""
    kind, _, model = name.partition("/")
    generator = torch.Generator().manual_seed(seed)
    if kind == "light":
        from secateur.ir.frontends.onnx import load

        graph = load(light_models.light(model, seed))
        shape = tuple(map(int, graph.inputs[0].shape))
        return graph, None, torch.randn(shape, generator=generator).numpy()
    from secateur.ir.frontends.torch import trace

    torch.manual_seed(seed)
    module = (REFERENCES[model].make() if kind == "ref" else zoo.BUILDERS[kind](model)).eval()
    x = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.no_grad():
        zoo.redraw(module, generator)
        zoo.calibrate(module, torch.randn(2, 3, 224, 224, generator=generator), generator)
    return trace(module, (x,), name=model), module, x.numpy()


def peers(graph: Graph, module: nn.Module | None, x: Any, threads: int, wanted: Sequence[str]) -> dict[str, Call]:
    """The other runtimes on the same network and input, ready to call."""
    from secateur.ir.exporters.onnx import to_onnx
    from secateur.ir.exporters.torch import to_module

    calls: dict[str, Call] = {}
    name = graph.inputs[0].name
    data = to_onnx(graph).SerializeToString()
    if "onnxruntime" in wanted:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        calls["onnxruntime"] = lambda: session.run(None, {name: x})[0]
    if "openvino" in wanted:
        import openvino

        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(openvino.Core().read_model(data), "CPU", config)
        request = compiled.create_infer_request()
        calls["openvino"] = lambda: request.infer([x])[compiled.output(0)]
    if "torch.compile" in wanted:
        torch.set_num_threads(threads)
        compiled_module = torch.compile(module if module is not None else to_module(graph))
        tensor = torch.from_numpy(x)

        def run() -> Any:
            with torch.no_grad():
                return compiled_module(tensor)

        calls["torch.compile"] = run
    return calls


def take_turns(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, ``rounds`` samples after a warm-up."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 3:
                samples[name].append((time.perf_counter() - start) * 1e3)
    return samples


def classes(graph: Graph, records: Path | None, threads: int) -> dict[str, dict[str, float]]:
    """Each layer class's multiply-accumulates, milliseconds and share of the peak measured beside it."""
    from secateur.codegen import measure
    from secateur.codegen.plan import plan
    from secateur.codegen.specs import ConvSpec, WindowSpec
    from secateur.codegen.tune import Tuner, open_records

    target = codegen.get_target("native")
    tuner = Tuner(target, threads, open_records(target, records))
    counted: dict[Any, int] = {}
    for call in plan(graph, target, threads, tuner.choose).calls:
        if isinstance(call.spec, ConvSpec) or (isinstance(call.spec, WindowSpec) and call.spec.kind == "conv"):
            work = call.spec.workload()
            counted[work] = counted.get(work, 0) + 1
    peak = measure.peak(target)
    found: dict[str, dict[str, float]] = {}
    for spec, count in counted.items():
        run = measure.callable_of(spec, tuner.choose(spec), target)
        seconds = measure.interleaved({0: run}, 7)[0]
        row = found.setdefault(layer_class(spec), {"macs": 0.0, "ms": 0.0})
        row["macs"] += count * spec.macs
        row["ms"] += count * seconds * 1e3
    for row in found.values():
        row["share"] = 2 * row["macs"] / (row["ms"] * 1e-3) / peak
    found["peak"] = {"gflops": peak / 1e9}
    return found


def layer_class(spec: Any) -> str:
    """What a kernel is called in the table."""
    kernel = "x".join(map(str, spec.kernel))
    if not hasattr(spec, "ci"):
        return f"depthwise {kernel}"
    if spec.ci < spec.lanes:
        return f"first {kernel}"
    return "linear" if spec.h * spec.w * spec.n == 1 else f"conv {kernel}"


def measure_one(name: str, options: Any) -> dict[str, Any]:
    """One network: a JSON row. A name that ends in ``@50%`` is pruned to that share of its multiply-accumulates."""
    base, _, share = name.partition("@")
    graph, module, x = network(base, options.seed)
    dense: dict[str, Call] = {}
    if share:
        whole = codegen.build(graph, tune=options.tune, threads=options.threads, records=options.records)
        dense["dense"] = lambda: whole(x)
        graph, module = secateur.compile(graph, macs=share, round_to=16).graph, None
    start = time.perf_counter()
    lib = codegen.build(graph, tune=options.tune, threads=options.threads, records=options.records)
    seconds = time.perf_counter() - start
    calls = {"secateur": lambda: lib(x), **dense, **peers(graph, module, x, options.threads, options.runtimes)}
    reference = np.asarray(next(iter(peers(graph, None, x, 1, ["onnxruntime"]).values()))())
    mine = lib(x)
    error = float(np.abs((mine[0] if isinstance(mine, tuple) else mine) - reference).max() / np.abs(reference).max())
    samples = take_turns(calls, options.rounds)
    medians = {k: statistics.median(v) for k, v in samples.items()}
    ratios = {
        k: statistics.median(b / a for a, b in zip(samples["secateur"], v, strict=True)) for k, v in samples.items()
    }
    best = min((r for k, r in ratios.items() if k not in ("secateur", "dense")), default=math.nan)
    return {
        "network": name, "threads": options.threads, "build_s": seconds, "error": error, "median_ms": medians,
        "of_dense": 1 / ratios["dense"] if dense else None,
        "min_ms": {k: min(v) for k, v in samples.items()}, "ratio": ratios, "best_peer_ratio": best,
        "classes": classes(graph, options.records, options.threads) if options.classes else {},
        "notes": list(lib.metadata.notes),
    }  # fmt: skip


def show(row: dict[str, Any]) -> None:
    """A row for people."""
    times = "  ".join(f"{k} {v:.2f} ({row['ratio'][k]:.2f})" for k, v in row["median_ms"].items())
    if row["of_dense"] is not None:
        times += f"  {row['of_dense']:.2f} of the dense time"
    print(
        f"{row['network']:26} {times}  best peer/ours {row['best_peer_ratio']:.2f}  error {row['error']:.0e}",
        flush=True,
    )
    for kind, found in row["classes"].items():
        share = f"{found['gflops']:.0f} GFLOP/s" if kind == "peak" else f"{found['share']:.0%}, {found['ms']:.2f} ms"
        print(f"    {kind:16} {share}")


def main() -> None:
    """Measure the networks given, print a table, append JSON lines."""
    parser = common.parser(__doc__, "latency.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tune", type=float, default=None, help="seconds a network (default: do not tune)")
    parser.add_argument("--records", type=Path, default=None, help="tuning records to use and to extend")
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--no-classes", dest="classes", action="store_false", help="do not time single kernels")
    options = parser.parse_args()
    if options.tune is not None and options.records is None:
        options.records = Path(tempfile.mkdtemp()) / "records.jsonl"
    rows = []
    around = common.circumstances(options.seed)
    for name in options.networks:
        row = {**around, "rounds": options.rounds, "tune": options.tune, **measure_one(name, options)}
        common.append(options.output, [row])
        show(row)
        rows.append(row)
    ratios = [r["best_peer_ratio"] for r in rows if not math.isnan(r["best_peer_ratio"])]
    if ratios:
        print(f"geometric mean of best peer/ours: {statistics.geometric_mean(ratios):.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
