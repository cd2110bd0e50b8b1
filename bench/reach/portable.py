"""What `secateur compile` writes of pruned ShuffleNets, in every engine that a user may bring it to.

    python -m bench.reach.portable                        all networks, all engines
    python -m bench.reach.portable --engines ncnn,mnn --networks ref/shufflenet_v1_g8
    python -m bench.reach.portable --summary              the table alone, from the rows there are

Each network is written to an ONNX file, compiled by the command, and run in each engine's own environment
(bench/lib/engines.py) on one drawn input. What it must give is what ONNX Runtime gives for the *original* whose missing
columns are zero, made from the recipe alone; a row has the largest difference over the largest value. *right*: below
1e-4. The unpruned file runs next to it, so that an engine's own faults are not taken for ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.lib import common, engines
from bench.lib.turns import Worker, WorkerError
from bench.nets import networks
from bench.reach import onnx_reference
from bench.reach.names import ENGINES
from secateur.ir.exporters.onnx.write import to_onnx

NETWORKS = ("ref/shufflenet_v1_g3", "ref/shufflenet_v1_g8", "tv/shufflenet_v2_x1_0")
TOLERANCE = 1e-4
MOVES = ("Gather", "Transpose", "Split", "Concat")


def measured(name: str, folder: Path, options: argparse.Namespace) -> Iterator[common.Row]:
    """The rows of one network: the file as it was, and the pruned one, in each engine."""
    network = networks.capture(name, options.seed)
    given, slim, recipe = (folder / n for n in ("given.onnx", "slim.onnx", "recipe.json"))
    given.write_bytes(to_onnx(network.graph).SerializeToString())
    np.save(folder / "input.npy", network.x)
    done = common.run(common.secateur("compile", given, slim, "--macs", options.macs, "--recipe", recipe))
    if done.code != 0:
        raise SystemExit(f"{name}: secateur compile ended with {done.code}: {done.stderr[-800:]}")
    feeds = {network.graph.inputs[0].name: network.x}
    masked = onnx_reference.masked(onnx.load(given), json.loads(recipe.read_text()), feeds)
    for what, path, reference in (("given", given, onnx.load(given)), (options.macs, slim, masked)):
        want = next(iter(onnx_reference.answer(reference, feeds).values()))
        kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
        for engine in options.engines.split(","):
            row: common.Row = {"network": name, "macs": what, "engine": engine, **{k: kinds[k] for k in MOVES}}
            if engine == "onnxruntime":
                yield row | judged(want, next(iter(onnx_reference.answer(str(path), feeds).values())))
            else:
                yield row | elsewhere(engine, path, want, folder, options)


def elsewhere(
    name: str, path: Path, want: NDArray[np.float32], folder: Path, options: argparse.Namespace
) -> common.Row:
    """What an engine in its own environment gives for a file."""
    engine = next(e for e in engines.ENGINES if e.name == name)
    scratch = folder / f"{name}-{path.stem}"
    scratch.mkdir()
    for given, as_named in ((path, "model.onnx"), (folder / "input.npy", "input.npy")):
        (scratch / as_named).write_bytes(given.read_bytes())
    try:
        engines.prepare(engine)
    except engines.Unprepared as error:
        return {"status": "not installed", "reason": str(error)}
    packages = {"packages": engines.versions(engine)}
    worker = Worker(name, scratch, threads=1)
    try:
        worker.ready(options.timeout)
    except WorkerError as error:
        return {"status": "failed", "reason": str(error).replace(str(scratch), "")} | packages
    finally:
        worker.stop()
    return judged(want, worker.outputs[0]) | packages


def judged(want: NDArray[np.float32], have: NDArray[np.float32]) -> common.Row:
    """Right or wrong, and by how much."""
    error, _ = onnx_reference.difference({"y": want}, {"y": have})
    finite = error < float("inf")
    return {"status": "right" if error <= TOLERANCE else "wrong", "max_rel_err": error if finite else "not finite"}


def summary(rows: Sequence[common.Row]) -> str:
    """A line for each network and file, a column for each engine."""
    found = {(r["network"], r["macs"], r["engine"]): r for r in rows}
    lines = []
    for name, macs in dict.fromkeys((r["network"], r["macs"]) for r in rows):
        cells = [found.get((name, macs, engine), {}) for engine in ENGINES]
        lines.append([name, macs, *(cell.get("max_rel_err", cell.get("status")) for cell in cells)])
    text = common.table(["network", "MACs", *ENGINES.values()], lines)
    failed = [f"{r['network']} {r['macs']} {r['engine']}: {r['reason']}" for r in found.values() if "reason" in r]
    return "\n".join([text, *failed])


def main() -> int:
    """Run all, append a row each, print the table."""
    parser = common.parser(__doc__, "portable.jsonl")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names as in networks.py")
    parser.add_argument("--engines", default=",".join(ENGINES), help="some of the engines")
    parser.add_argument("--macs", default="50%", help="what remains (default 50%%)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for an engine with one file (default 900)")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    options = parser.parse_args()
    here = common.circumstances(options.seed)
    for name in () if options.summary else options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for row in measured(name, Path(folder), options):
                common.append(options.output, [row | here])
                print(
                    *(row.get(k) for k in ("network", "macs", "engine", "status", "max_rel_err", "reason")), flush=True
                )
    rows = common.read(options.output)
    print(summary(rows))
    newest = {(r["network"], r["macs"], r["engine"]): r["status"] for r in rows if r["macs"] != "given"}
    return int(any(status != "right" for status in newest.values()))


if __name__ == "__main__":
    sys.exit(main())
