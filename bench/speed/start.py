"""How long a process takes from its start to the first answer, next to other runtimes, and how large its files are.

    python -m bench.speed.start                         all networks
    python -m bench.speed.start tv/mobilenet_v2 --rounds 15

Each measurement is a process of its own (bench/lib/alone.py) on one thread, which imports the runtime, loads the
network and runs it; the processes run one after the other, in an order that is drawn anew each round. Files are in the
system's cache: a first round is not counted. `answer` is from the start of the process to the first answer, Python and
NumPy included. A library is one file with its weights; the others load the ONNX file.
"""

from __future__ import annotations

import compileall
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lib import alone, common
from bench.lib.turns import spread
from bench.speed import latency

NETWORKS = ("tv/mobilenet_v2", "tv/shufflenet_v2_x1_0", "ref/resnet50")
RUNTIMES = ("secateur", "onnxruntime", "openvino")


def measured(folder: Path, rounds: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """What each process of each runtime printed, the first round left out. Raises ValueError."""
    rng = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(rounds + 1):
        for runtime in rng.sample(RUNTIMES, len(RUNTIMES)):
            found[runtime].append(alone.measured(runtime, folder, 1))
    return {runtime: of[1:] for runtime, of in found.items()}


def answer(seconds: Mapping[str, float]) -> float:
    """From the start of the process to the first answer."""
    return seconds["python"] + seconds["import"] + seconds["load"] + seconds["first"]


def row_of(found: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> common.Row:
    """Milliseconds of each step and of the answer, its ratio to ours, and sizes in bytes."""
    seconds = {runtime: [process["seconds"] for process in of] for runtime, of in found.items()}
    answers = {runtime: [answer(s) for s in of] for runtime, of in seconds.items()}
    sizes = {"secateur": folder / "secateur-1.so", "onnx": folder / "model.onnx"}
    return {
        "ms": {
            runtime: {step: spread([1e3 * s[step] for s in of]) for step in of[0]}
            | {"answer": spread([1e3 * s for s in answers[runtime]])}
            for runtime, of in seconds.items()
        },
        "ratio": {
            runtime: statistics.median(b / a for a, b in zip(answers["secateur"], of, strict=True))
            for runtime, of in answers.items() if runtime != "secateur"
        },
        "peak": {runtime: statistics.median(process["peak"] for process in of) for runtime, of in found.items()},
        "bytes": {what: file.stat().st_size for what, file in sizes.items()},
    }  # fmt: skip


def main() -> int:
    """Append a row for each network."""
    parser = common.parser(__doc__, "start.jsonl")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    compileall.compile_dir(str(common.ROOT / "src"), quiet=1)  # as an installed package is
    around = {**common.circumstances(options.seed), "packages": latency.installed(RUNTIMES)}
    for name in options.networks:
        done = common.run(latency.preparing(name, ["--threads", "1", "--seed", str(options.seed)]))
        if done.code:
            print(f"{name} was not prepared: {done.stderr[-300:]}", file=sys.stderr)
            return 1
        folder = latency.folder_of(name)
        row = row_of(measured(folder, options.rounds, options.seed), folder)
        common.append(options.output, [{**around, "network": name, "threads": 1, "rounds": options.rounds, **row}])
        for runtime, ms in row["ms"].items():
            steps = "  ".join(f"{step} {of['median']:.0f}" for step, of in ms.items())
            print(f"{name:26} {runtime:12} {steps}  peak {row['peak'][runtime] / 1e6:.0f} MB", flush=True)
        print(f"{'':26} library {row['bytes']['secateur'] / 1e6:.1f} MB, ONNX file {row['bytes']['onnx'] / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
