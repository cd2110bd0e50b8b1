"""How fast networks run on this machine's CPU: secateur's libraries next to the runtimes that people use.

    python -m bench.speed.latency                                    all networks, threads 1 and 2, all runtimes
    python -m bench.speed.latency ref/resnet50 --threads 1 --tune 60 one network, tuned for at most a minute
    python -m bench.speed.latency ref/resnet50@50%               pruned to half of its work, and the unpruned network
    python -m bench.speed.latency tv/mobilenet_v2 --batch 8          eight pictures a run
    python -m bench.speed.latency --precision bf16                   our libraries in bfloat16, if this machine has it
    python -m bench.speed.latency --resume                           leave out what this commit's rows have already
    python -m bench.speed.latency --runtimes installed               next to every engine as users install it
    python -m bench.speed.latency --prepare                          only build, convert and fill caches

Each runtime runs in a process of its own (serving.py), and the processes take turns, stopped while others run
(turns.py). Medians over the rounds are shown, and ratios are medians of the ratios within a round, of the wall's clock
(``ms``, ``ratio``) and of the processor's (``cpu_ms``, ``cpu_ratio``). Who takes more than ten times our time has a
turn every fifth round. float32 and one picture, unless asked otherwise: rows of several go to latency_batch.jsonl,
those in bfloat16 to latency_bf16.jsonl, those with engines of environments of their own (engines.py; made where they
are missing) to latency_engines.jsonl. Who is further from ONNX Runtime than names.WRONG is not a best peer, nor is
``openvino-default``, OpenVINO as it is installed, which may compute in bfloat16. MetaSchedule's schedules come from
metaschedule.py, which must have run on a network before; a runtime that fails or is not prepared stands in the row
under ``failed``. ``cores`` is what the machine gave of its cores before and after (cores.py).

Everything that is prepared lies in bench/.material/latency: libraries are built anew when sources changed, what peers
convert and compile is kept. Runtimes besides ONNX Runtime come with the extra `bench`, or by engines.py:
`pip install -c constraints.txt 'secateur[tvm,bench]'`.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib import alone, common, cores, engines
from bench.lib.turns import Worker, WorkerError, kept, summary, take_turns
from bench.reach.names import WRONG
from secateur.codegen import get_target
from secateur.codegen.tune.tuner import SHIPPED

NETWORKS = (
    "ref/resnet50", "ref/resnext50_32x4d", "ref/se_resnet50", "ref/mobilenet_v1", "tv/mobilenet_v2",
    "timm/efficientnet_lite0", "ref/shufflenet_v1_g3", "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0",
    "tv/densenet121", "ref/resnet50@50%", "tv/mobilenet_v2@50%", "ref/shufflenet_v1_g3@50%",
    "ref/shufflenet_v1_g8@50%", "tv/shufflenet_v2_x1_0@50%",
)  # fmt: skip
OTHERS = ("openvino-default",)
PEERS = ("onnxruntime", "openvino", "torch.compile", "tvm-default", "tvm-metaschedule")
APART = ("ncnn", "mnn", "litert", "executorch", "deepsparse", "opencv")
INSTALLED = ("onnxruntime", "openvino", *OTHERS, "torch.compile", *APART)
MEMORY = ("secateur", "onnxruntime")
MATERIAL = common.MATERIAL / "latency"
SOURCES = ("src", "bench/nets", "bench/data", "bench/lib")  # what a prepared network depends on


def folder_of(name: str, batch: int = 1) -> Path:
    """Where a network is prepared, for so many pictures a run."""
    several = f"-x{batch}" if batch > 1 else ""
    return MATERIAL / (name.replace("/", "-").replace("@", "-at-").replace("%", "") + several)


def shipped() -> int:
    """How many records come with secateur for this machine."""
    file = SHIPPED / f"{get_target('native').name}.jsonl"
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def preparing(name: str, options: Sequence[str], batch: int = 1) -> list[str]:
    """The command that writes a network for all runtimes."""
    return [sys.executable, "-m", "bench.lib.prepare", name, str(folder_of(name, batch)), "--batch", str(batch),
            *options]  # fmt: skip


def prepare(name: str, options: Any) -> dict[str, Any]:
    """Write the network and our libraries, in a process of its own; what that one says."""
    arguments = ["--threads", *map(str, options.threads), "--seed", str(options.seed), "--round-to", options.round_to]
    for flag, value in (("--tune", options.tune), ("--records", options.records)):
        arguments += [flag, str(value)] if value is not None else []
    arguments += ["--precision", options.precision, *(["--classes"] if options.classes else [])]
    file, of = folder_of(name, options.batch) / "prepared.json", [arguments, sources(), common.versions()]
    if file.exists() and sources() is not None and options.tune is None and options.records is None:
        found: dict[str, Any] = json.loads(file.read_text())
        if found.get("of") == of:
            return found
    done = common.run(preparing(name, arguments, options.batch))
    if done.code != 0:
        raise SystemExit(f"prepare.py {name} ended with {done.code}:\n{done.stderr[-2000:]}")
    found = {**json.loads(file.read_text()), "of": of}
    file.write_text(json.dumps(found))
    return found


def sources() -> str | None:
    """Names the sources that a prepared network depends on; None where they differ from the commit."""
    told = [["rev-parse", *(f"HEAD:{path}" for path in SOURCES)], ["status", "--porcelain", "--", *SOURCES]]
    done = [subprocess.run(["git", *a], cwd=common.ROOT, capture_output=True, text=True, check=False) for a in told]
    return done[0].stdout if not any(d.returncode for d in done) and not done[1].stdout.strip() else None


def installed(runtimes: Sequence[str]) -> dict[str, str]:
    """The packages of the environments that the runtimes need, which are made where they are missing."""
    found: dict[str, str] = {}
    for engine in filter(None, {engines.serving(runtime): None for runtime in runtimes}):
        try:
            engines.prepare(engine)
            found |= engines.versions(engine)
        except engines.Unprepared as error:
            print(f"{engine.name}: {error}", flush=True)
    return {package: version for package, version in found.items() if package not in ("numpy", "torch", "protobuf")}


def start(name: str, threads: int, runtimes: Sequence[str], batch: int = 1) -> tuple[dict[str, Worker], dict[str, str]]:
    """Workers by name, loaded and stopped, and why others failed. ``dense`` is our library of the unpruned network."""
    folder = folder_of(name, batch)
    loading: dict[str, Worker] = {}
    ready: dict[str, Worker] = {}
    failed: dict[str, str] = {}
    for runtime in ("secateur", *(["dense"] if "@" in name else []), *runtimes):
        try:
            dense = runtime == "dense"
            loading[runtime] = Worker("secateur" if dense else runtime, folder / ("dense" * dense), threads)
        except WorkerError as error:
            failed[runtime] = str(error)
    for runtime, worker in loading.items():
        try:
            worker.ready()
            ready[runtime] = worker
        except WorkerError as error:
            worker.stop()
            failed[runtime] = str(error)
    return ready, failed


def memory(name: str, threads: int, batch: int = 1) -> dict[str, Any]:
    """Bytes at the peak of a process that loads and runs the network, ours over ONNX Runtime's."""
    try:
        found = {runtime: alone.measured(runtime, folder_of(name, batch), threads) for runtime in MEMORY}
    except ValueError as error:
        return {"failed": str(error)}
    ours, theirs = (found[runtime] for runtime in MEMORY)
    return {**found, "ratio": ours["peak"] / theirs["peak"]}


def searched(name: str) -> dict[str, Any]:
    """The processor seconds and trials that MetaSchedule had for a network."""
    from bench.lib.tvm_peers import spent

    return spent(folder_of(name))


def errors(workers: Mapping[str, Worker]) -> dict[str, float]:
    """The largest difference of each runtime's outputs from ONNX Runtime's, over the largest of those."""
    if "onnxruntime" not in workers:
        return {}
    wanted = workers["onnxruntime"].outputs
    return {
        name: max(
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(worker.outputs, wanted, strict=True)
        )
        for name, worker in workers.items()
        if name not in ("onnxruntime", "dense")
    }  # fmt: skip


def fastest(over: Mapping[str, float], error: Mapping[str, float]) -> str | None:
    """The peer that takes least of our time, of those whose outputs are right; None where there is none."""
    right = [k for k in over if k not in (*OTHERS, "dense") and error.get(k, 0.0) <= WRONG]
    return min(right, key=lambda k: over[k], default=None)


def expanded(runtimes: Sequence[str]) -> list[str]:
    """The runtimes of a command line, on which "installed" stands for all that users install."""
    return list(dict.fromkeys(k for name in runtimes for k in (INSTALLED if name == "installed" else (name,))))


def measure(name: str, threads: int, options: Any) -> dict[str, Any]:
    """One network, prepared before, on so many threads: all runtimes by turns."""
    workers, failed = start(name, threads, options.runtimes, options.batch)
    try:
        if "secateur" in failed:
            raise SystemExit(f"{name}: {failed['secateur']}")
        given = [(cores.share(), cores.handover())]
        samples = take_turns(workers, options.rounds, options.seed)
        given.append((cores.share(), cores.handover()))
        error, load = errors(workers), {k: w.load_seconds for k, w in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    found = summary(samples, "secateur")
    over, best = found["ratio"], fastest(found["ratio"], error)
    return {
        **found, "rounds": {k: len(kept(v)) for k, v in samples.items()}, "best_peer": best,
        "best_peer_ratio": over[best] if best else None, "of_dense": 1 / over["dense"] if "dense" in over else None,
        "best_cpu_ratio": found["cpu_ratio"][best] if best else None, "error": error, "load_s": load,
        "cores": [share for share, _ in given], "handover_us": [us for _, us in given],
        "metaschedule": searched(name) if "tvm-metaschedule" in over else {},
        "failed": failed, "memory": memory(name, threads, options.batch) if options.memory else {},
    }  # fmt: skip


def show(row: Mapping[str, Any]) -> None:
    """A row for people."""
    times = "  ".join(f"{k} {v['median']:.2f}" for k, v in row["ms"].items())
    best = f"  best {row['best_peer_ratio']:.2f} ({row['best_peer']})" if row["best_peer"] else ""
    best += f", of the processor {row['best_cpu_ratio']:.2f}" if row["best_peer"] else ""
    dense = f"  {row['of_dense']:.2f} of dense" if row["of_dense"] is not None else ""
    ratio = row["memory"].get("ratio")
    held = f"  memory {ratio:.2f}" if ratio is not None else ""
    error = max(row["error"].values(), default=math.nan)
    given = "" if row["threads"] == 1 else f"  cores {min(row['cores']):.2f}"
    print(f"{row['network']:26} {row['threads']}  {times}{best}{dense}{held}{given}  error {error:.0e}")
    for kind, found in row["classes"].items():
        share = f"{found['gflops']:.0f} GFLOP/s" if kind == "peak" else (
            f"{found['share']:.0%} of the peak ({found['padded_share']:.0%} with padding), {found['ms']:.2f} ms"
        )  # fmt: skip
        print(f"    {kind:16} {share}")
    for runtime, why in row["failed"].items():
        print(f"    {runtime}: {why.splitlines()[0][:120]}")
    sys.stdout.flush()


def main() -> int:
    """Measure the networks given, print a table, append JSON lines."""
    parser = common.parser(__doc__, "latency.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tune", type=float, default=None, help="seconds a library (default: do not tune)")
    parser.add_argument("--records", type=Path, default=None, help="tuning records to use and to extend")
    parser.add_argument("--round-to", default="auto", help="widths of pruned networks: auto or a number")
    parser.add_argument("--runtimes", nargs="*", default=list(PEERS), choices=(*PEERS, *OTHERS, *APART, "installed"))
    parser.add_argument("--batch", type=int, default=1, help="pictures a run")
    parser.add_argument("--precision", default="f32", help="of our libraries: f32, bf16 or auto")
    parser.add_argument("--no-classes", dest="classes", action="store_false", help="do not time single kernels")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--resume", action="store_true", help="leave out rows that the output has from this commit")
    parser.add_argument("--prepare", action="store_true", help="load every runtime once and measure nothing")
    options = parser.parse_args()
    options.runtimes = expanded(options.runtimes)
    kinds = {"batch": options.batch > 1, "bf16": options.precision != "f32", "engines": {*options.runtimes} & {*APART}}
    kind = next((kind for kind, asked in kinds.items() if asked), None)
    if kind and options.output == parser.get_default("output"):
        options.output = options.output.with_name(f"latency_{kind}.jsonl")
    packages = installed(options.runtimes)
    around = {**common.circumstances(options.seed), "shipped": shipped(), "packages": packages}
    here = [r for r in common.read(options.output) if r["git"] == around["git"]] if options.resume else []
    done = {(row["network"], row["threads"]) for row in here if row.get("batch", 1) == options.batch}
    for name in options.networks:
        wanted = [threads for threads in options.threads if (name, threads) not in done]
        prepared = prepare(name, options) if wanted else {}
        for threads in wanted:
            if options.prepare:
                workers, failed = start(name, threads, options.runtimes, options.batch)
                for worker in workers.values():
                    worker.stop()
                print(name, threads, {k: round(w.load_seconds, 1) for k, w in workers.items()}, failed, flush=True)
                continue
            row = {
                **around, "network": name, "threads": threads, "tune": options.tune,
                **({"batch": options.batch} if options.batch > 1 else {}),
                **({"precision": options.precision} if options.precision != "f32" else {}),
                "records": str(options.records) if options.records else None, **measure(name, threads, options),
                **prepared["libraries"][str(threads)], "classes": prepared.get("classes", {}) if threads == 1 else {},
            }  # fmt: skip
            common.append(options.output, [row])
            show(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
