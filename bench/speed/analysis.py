"""Coupling, choosing and cutting next to an earlier commit of the project: is the analysis slower than it was?

    python -m bench.speed.analysis 593d9ae
    python -m bench.speed.analysis 593d9ae --rounds 5 --networks tv/resnet50,light/shufflenet

Each network is written to one ONNX file. Both commits read it and remove half of its channels, as bench/reach/zoos.py
does, in processes that take turns; a process runs eight times. Ratios are now / before of the least processor seconds
of all: what else the machine does adds to them by a third, and takes nothing away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench.lib import common
from bench.nets import networks
from bench.speed.versions import by_turns, checkout
from secateur.ir.exporters.onnx.write import to_onnx

NETWORKS = (
    "tv/resnet50", "tv/mobilenet_v2", "tv/densenet121", "tv/googlenet", "tv/shufflenet_v2_x1_0", "tv/regnet_y_400mf",
    "tv/efficientnet_b0", "tv/convnext_tiny", "ref/shufflenet_v1_g3", "ref/resnext50_32x4d",
)  # fmt: skip
CUT = """
import sys, time, secateur
from secateur.passes import PASSES, Pipeline, parse_spec
graph, least = secateur.load(sys.argv[1]), 1e9
for _ in range(8):
    start = time.process_time()
    chosen = Pipeline(parse_spec("canonicalize,couple,l1,uniform{channels=50%}", PASSES))(graph)
    Pipeline(parse_spec("slim", PASSES))(chosen)
    least = min(least, time.process_time() - start)
print(least)
"""


def seconds(tree: Path, model: Path) -> float:
    """Processor seconds of one cut with a tree's sources. Raises SystemExit where it fails."""
    env = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CUT, str(model)], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree.name}: {model} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def main() -> int:
    """Measure both by turns, print the table, append a row each."""
    parser = common.parser(__doc__, "analysis.jsonl")
    parser.add_argument("before", help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each network (default 3)")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names as in networks.py")
    options = parser.parse_args()
    here = common.circumstances(options.seed) | {"before": options.before}
    cells = []
    with checkout(options.before) as before, tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            model = Path(folder, "model.onnx")
            model.write_bytes(to_onnx(networks.capture(name, options.seed).graph).SerializeToString())
            trees = {"before": before, "now": common.ROOT}
            found = by_turns({which: partial(seconds, tree, model) for which, tree in trees.items()}, options.rounds)
            ratio = min(found["now"]) / min(found["before"])
            load = os.getloadavg()[0]
            common.append(options.output, [{"network": name, "found": found, "ratio": ratio, "load": load} | here])
            cells.append([name, *(min(found[which]) for which in trees), f"{ratio:.2f}", f"{load:.1f}"])
            print(*cells[-1], flush=True)
    print(common.table(["network", "before, s", "now, s", "now / before", "load"], cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
