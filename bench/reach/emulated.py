"""Does arm64 code compute what torch does? Every template and twelve whole networks, run for real under emulation.

    python -m bench.reach.emulated [templates] [networks] [build] [--only GLOB]

Templates are the cases of ``bench/reach/emulated_cases.py``, in one emulated process. Networks are of the zoo on images
of 96x96, two of them pruned to half of their multiply-accumulates, one with four fifths of its weights zero in blocks.
Right means within 1e-4 of the output's largest value. ``build`` times the command from MobileNetV2's ONNX file to a
library for the Cortex-A76. Needs what ``bash .ci/arm64`` assembles.
"""

from __future__ import annotations

import fnmatch
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.lib import common, emulated
from bench.reach.emulated_cases import CASES
from bench.speed.libraries import distance, subject

TARGET = "aarch64:cortex-a76"
SIDE = 96
LIMIT = 1e-4
NETWORKS: dict[str, dict[str, Any]] = {  # what is done to a network before it is built
    "tv/resnet50": {}, "tv/resnext50_32x4d": {}, "tv/mobilenet_v2": {}, "tv/shufflenet_v2_x1_0": {},
    "timm/seresnet18": {}, "tv/densenet121": {}, "tv/squeezenet1_1": {}, "tv/regnet_y_400mf": {},
    "tv/efficientnet_b0": {}, "tv/resnet18, half": {"macs": 0.5}, "tv/mobilenet_v2, half": {"macs": 0.5},
    "tv/resnet18, sparse": {"sparsity": 0.8, "block": (4, 1)},
}  # fmt: skip

Row = common.Row


def network(name: str, options: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """The graph that is built, and an input. Raises secateur's errors."""
    import torch

    import secateur
    from bench.data import zoo
    from secateur.ir.frontends.torch.trace import trace

    kind, _, model = name.partition(",")[0].partition("/")
    module = zoo.build(kind, model, seed)
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    if not options:
        return trace(module, (x,), dynamic_batch=False), x.numpy()
    policy = "l1" if "macs" in options else "none"
    pruned = secateur.compile(module, policy, example_inputs=(x,), target=TARGET, seed=seed, **options)
    return pruned.graph, x.numpy()


def measured(names: dict[str, tuple[Any, tuple[Any, ...]]]) -> Iterator[Row]:
    """Graphs with their inputs, built one by one and run in one emulated process: a row each."""
    from secateur.codegen import build
    from secateur.ir.exporters.torch.module import evaluate

    rows, jobs, wanted = [], [], []
    for name, (graph, inputs) in names.items():
        start = time.perf_counter()
        library = build(graph, TARGET)
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"case": name, "kernels": dict(library.metadata.kernels), "plan_s": seconds})
        jobs.append(emulated.Job(library, inputs))
        wanted.append(evaluate(graph, dict(zip((v.name for v in graph.inputs), inputs, strict=True))))
    with tempfile.TemporaryDirectory() as folder:
        found = emulated.run(jobs, Path(folder))
    for row, got, want in zip(rows, found, wanted, strict=True):
        error = distance(got, want)
        yield row | {"error": error, "status": "right" if error <= LIMIT else "wrong"}


def templates(only: str) -> Iterator[Row]:
    """Every case. One whose library lacks the family that it is there for is wrong."""
    from secateur.ir.frontends.torch.trace import trace

    names = {}
    for name, case in CASES.items():
        if fnmatch.fnmatch(name, only):
            inputs = case.inputs()
            names[name] = trace(case.module(), inputs, name=name), tuple(x.numpy() for x in inputs)
    for row in measured(names) if names else ():
        there = set(CASES[row["case"]].families) <= set(row["kernels"])
        yield row | {"kind": "template"} | ({} if there else {"status": "wrong"})


def networks(only: str, seed: int) -> Iterator[Row]:
    """Every network, each in a process of its own."""
    for name, options in NETWORKS.items():
        if fnmatch.fnmatch(name, only):
            graph, x = network(name, options, seed)
            for row in measured({name: (graph, (x,))}):
                yield row | {"kind": "network", "side": SIDE}


def from_file(seed: int) -> Row:
    """The command from an ONNX file to a library, seconds of wall time and of all processes' CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "mobilenet_v2.onnx", Path(folder) / "out.so"
        source.write_bytes(subject("tv/mobilenet_v2", seed)[2])
        done = common.run(common.secateur("build", source, out, "--target", TARGET))
        size = out.stat().st_size if out.exists() else 0
    row = {"kind": "build", "case": "MobileNetV2, from ONNX file to library", "build_s": round(done.seconds, 1)}
    status = "right" if done.code == 0 else "broken"
    return row | {"cpu_s": round(done.cpu_seconds, 1), "bytes": size, "status": status, "load": _load()}


def _load() -> float:
    return float(Path("/proc/loadavg").read_text().split()[0])


def main() -> int:
    """Run what is asked for, print, append the rows."""
    parser = common.parser(__doc__, "emulated.jsonl")
    parser.add_argument("parts", nargs="*", default=["templates", "networks", "build"])
    parser.add_argument("--only", default="*", metavar="GLOB", help="templates or networks such as 'tv/*'")
    arguments = parser.parse_args()
    emulated.require()
    here = common.circumstances(arguments.seed) | {"target": TARGET}

    def rows() -> Iterator[Row]:
        if "templates" in arguments.parts:
            yield from templates(arguments.only)
        if "networks" in arguments.parts:
            yield from networks(arguments.only, arguments.seed)
        if "build" in arguments.parts:
            yield from_file(arguments.seed)

    wrong = 0
    for row in rows():
        common.append(arguments.output, [row | here])
        wrong += row["status"] != "right"
        figure = f"{row['error']:.1e}" if "error" in row else f"{row['build_s']} s"
        print(f"{row['case']:40} {row['status']:7} {figure:8} {row.get('kernels', '')}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
