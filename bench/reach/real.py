"""Real networks through the command line: each to half of its multiply-accumulates, checked, and run elsewhere.

    python -m bench.reach.real [--only GLOB] [--keep FOLDER]

`secateur compile` prunes the file in a process of its own; what it wrote is then run by ONNX Runtime next to the
original. One JSON line for each network: sizes, the law, layers by state with the reasons of those that stayed, and
how far the outputs moved. The files with a recurrent network are inspected only: their LSTM is kept, and said so.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data import material
from bench.lib import common

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True)
class Network:
    """A name, how to get its file (written into the folder if it is made), and input shapes where the file is open."""

    name: str
    source: Callable[[Path], Path]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def _packaged(file: str) -> Callable[[Path], Path]:
    return lambda folder: material.path(file)


def _light(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import onnx

        onnx.save(material.light(name), folder / f"light_{name}.onnx")
        return folder / f"light_{name}.onnx"

    return make


def _mobilenet(folder: Path) -> Path:
    """Torch in, ONNX out: the product captures the module and writes it unpruned."""
    import torch

    import secateur
    from bench.data import photos

    slim = secateur.compile(photos.mobilenet_v2(), "none", example_inputs=(torch.randn(1, 3, 224, 224),))
    slim.save(folder / "mobilenet_v2.onnx")
    return folder / "mobilenet_v2.onnx"


NETWORKS = (
    Network("mobilenet_v2", _mobilenet),
    Network("open-nsfw", _packaged("open-nsfw.onnx"), {"input:0": (1, 224, 224, 3)}),
    Network("centerface", _packaged("centerface.onnx")),
    Network("ppocr_det", _packaged("ppocr_det.onnx"), {"x": (1, 3, 320, 320)}),
    Network("ppocr_rec", _packaged("ppocr_rec.onnx"), {"x": (1, 3, 48, 320)}),
    Network("ppocr_cls", _packaged("ppocr_cls.onnx"), {"x": (1, 3, 48, 192)}),
    Network("light_shufflenet", _light("shufflenet")),
    Network("light_densenet121", _light("densenet121")),
    Network("light_inception_v2", _light("inception_v2")),
)
# The last one hides its LSTM in the branches of an If, which is opaque as a whole: it must load, no more.
RECURRENT = ("silero_vad_16k_sequence.onnx", "silero_vad_16k_op15.onnx", "silero_vad.onnx")


def prune(network: Network, folder: Path, macs: str, seed: int) -> common.Row:
    """One network through the command, and its output through ONNX Runtime."""
    row: common.Row = {"network": network.name, "macs": macs}
    try:
        source = network.source(folder)
    except Exception as error:  # whatever it is, it belongs into this network's row, and the others go on
        return row | {"exit": None, "passed": False, "reason": f"no input: {type(error).__name__}: {error}"[:600]}
    target, report = folder / f"{network.name}.slim.onnx", folder / f"{network.name}.json"
    command: list[str | Path] = [
        "compile",
        source,
        target,
        "--macs",
        macs,
        "--json",
        report,
        "--seed",
        str(seed),
        "--overwrite",
    ]
    done = common.run(common.secateur(*command, "--recipe", folder / f"{network.name}.recipe.json"))
    row |= {"exit": done.code, "wall_s": round(done.seconds, 2)}
    if done.code != 0 or not report.exists():
        return row | {"passed": False, "reason": done.stderr.strip()[-600:]}
    found = json.loads(report.read_text())
    row |= {key: found[key] for key in ("before", "after", "budget", "verification")} | layers(found)
    try:
        row["moved"] = compare(source, target, network.shapes, seed)
    except Exception as error:
        return row | {"passed": False, "reason": f"ONNX Runtime: {type(error).__name__}: {error}"[:600]}
    passed = bool(found["verification"]["passed"])
    return row | {"passed": passed, "reason": None if passed else "the law"}


def layers(report: common.Row) -> common.Row:
    """How many layers are in each state, and why those that stayed did."""
    kept = [layer for layer in report["layers"] if layer["state"] != "pruned"]
    return {
        "layers": dict(Counter(layer["state"] for layer in report["layers"])),
        "nameless": sum(not layer["name"] for layer in report["layers"]),
        "reasons": {layer["name"]: layer["reason"] for layer in kept},
    }


def compare(source: Path, target: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> float:
    """How far the outputs moved on one random input: relative error in the 2-norm. Raises if a file does not run."""
    generator = np.random.default_rng(seed)
    before, after = _session(source), _session(target)
    feed = {}
    for i in after.get_inputs():
        shape = shapes.get(i.name, tuple(d if isinstance(d, int) else 1 for d in i.shape))
        feed[i.name] = generator.normal(size=shape).astype(np.float32)
    expected, found = before.run(None, feed), after.run(None, feed)
    if [y.shape for y in expected] != [y.shape for y in found]:
        raise ValueError(f"output shapes {[y.shape for y in found]}, were {[y.shape for y in expected]}")
    pairs = zip(expected, found, strict=True)
    return max(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30) for a, b in pairs)


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inspect(file: str) -> common.Row:
    """Whether a recurrent network loads and its LSTM is named with the reason why it stays."""
    done = common.run(common.secateur("inspect", material.path(file), "--json", "-"))
    row: common.Row = {"network": file, "exit": done.code, "wall_s": round(done.seconds, 2)}
    if done.code != 0:
        return row | {"passed": False, "reason": done.stderr.strip()[-600:]}
    found = json.loads(done.stdout)
    recurrent = {layer["name"]: layer["reason"] for layer in found["layers"] if layer["op"] in {"lstm", "gru"}}
    named = all(recurrent.values()) and (bool(recurrent) or file == RECURRENT[-1])
    return row | layers(found) | {"passed": named, "reason": None if named else f"not explained: {recurrent}"}


def main() -> int:
    """Run the networks, print the table, append the rows."""
    parser = common.parser(__doc__, "real.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'ppocr_*'")
    parser.add_argument("--macs", default="50%", help="what remains of the multiply-accumulates (default 50%%)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files here instead of a temporary folder")
    arguments = parser.parse_args()
    here = common.circumstances(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(_rows(arguments, folder))
    common.append(arguments.output, [row | here for row in rows])
    head = ["network", "passed", "MACs", "params", "pruned", "not", "law error", "moved", "wall s", "reason"]
    print(common.table(head, [_line(row) for row in rows]))
    return int(not all(row["passed"] for row in rows))


def _rows(arguments: argparse.Namespace, folder: Path) -> Any:
    for network in NETWORKS:
        if fnmatch.fnmatch(network.name, arguments.only):
            yield prune(network, folder, arguments.macs, arguments.seed)
    for file in RECURRENT:
        if fnmatch.fnmatch(file, arguments.only):
            yield inspect(file)


def _line(row: common.Row) -> list[object]:
    states = row.get("layers", {})
    ratio = [row["after"][k] / max(1, row["before"][k]) if row.get("after") else None for k in ("macs", "params")]
    stayed = sum(states.values()) - states.get("pruned", 0)
    error = row["verification"]["max_rel_err"] if row.get("verification") else None
    tail = (row["reason"] or "").splitlines()[-1:]
    values = [*ratio, states.get("pruned"), stayed, error, row.get("moved"), row.get("wall_s")]
    return [row["network"], "yes" if row["passed"] else "NO", *values, *(text[:100] for text in tail or [""])]


if __name__ == "__main__":
    sys.exit(main())
