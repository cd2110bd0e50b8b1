"""What the whole command costs on a file of 100 MB: wall time and memory from loading to the written, verified file.

    python -m bench.speed.command [--macs 50%] [--repeats 3]

The file is the onnx wheel's ResNet-50 graph with drawn weights. Memory is the peak resident size of the command's
process, less that of a Python that does nothing, and less that of one that has imported what the command imports.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.lib import common

BARE = "pass"
IMPORTS = "import secateur.cli.app, secateur.api, onnx_graphsurgeon, onnxruntime"  # no torch for a file


def measure(source: Path, target: Path, macs: str) -> common.Row:
    """One run of the command."""
    report = target.with_suffix(".json")
    done = common.run(common.secateur("compile", source, target, "--macs", macs, "--json", report, "--overwrite"))
    if done.code != 0 or not target.exists():
        raise SystemExit(f"secateur compile ended with {done.code}:\n{done.stderr[-2000:]}")
    return {
        "wall_s": done.seconds, "cpu_s": done.cpu_seconds, "peak_bytes": done.peak_bytes,
        "verification": json.loads(report.read_text())["verification"],
    }  # fmt: skip


def main() -> int:
    """Measure, print and append one row."""
    parser = common.parser(__doc__, "command.jsonl")
    parser.add_argument("--model", default="resnet50", help="a graph of light_models (default resnet50)")
    parser.add_argument("--macs", default="50%", help="what remains of the multiply-accumulates (default 50%%)")
    parser.add_argument("--repeats", type=int, default=3, help="runs; all are recorded, the median is printed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "model.onnx")
        # In a process of its own: what this one holds would count as memory of every command it starts.
        make = ["-m", "bench.data.light_models", arguments.model, str(source), "--seed", str(arguments.seed)]
        common.run([sys.executable, *make])
        size = source.stat().st_size
        bare = common.run([sys.executable, "-c", BARE]).peak_bytes
        imported = common.run([sys.executable, "-c", IMPORTS]).peak_bytes
        runs = [measure(source, Path(folder, "slim.onnx"), arguments.macs) for _ in range(arguments.repeats)]
    runs.sort(key=lambda run: run["wall_s"])
    middle = runs[len(runs) // 2]
    row = {
        "model": arguments.model, "model_bytes": size, "macs": arguments.macs, "wall_s": middle["wall_s"],
        "peak_bytes": middle["peak_bytes"], "bare_bytes": bare, "imported_bytes": imported,
        "times_over_bare": (middle["peak_bytes"] - bare) / size,
        "times_over_imported": (middle["peak_bytes"] - imported) / size, "runs": runs,
    }  # fmt: skip
    head = ["model", "MB", "wall s", "peak MB", "bare MB", "with imports MB", "x size over bare", "x size over imports"]
    mb = [value // 10**6 for value in (size, middle["peak_bytes"], bare, imported)]
    cells = [arguments.model, mb[0], middle["wall_s"], *mb[1:], row["times_over_bare"], row["times_over_imported"]]
    print(common.table(head, [cells]))
    common.append(arguments.output, [row | common.circumstances(arguments.seed)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
