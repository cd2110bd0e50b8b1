"""What it is worth that readers of one tensor keep their own channels: `knapsack{readers=own}` next to tied readers.

    python -m bench.accuracy.own_readers [--seeds 3] [--only dense,shuffle,residual]
    python -m bench.accuracy.own_readers --summary       the table alone, from the rows there are

Small networks on Fashion-MNIST (fashion.py), cut to half and to 30 % of their multiply-accumulates by `obs` and
`knapsack{loss=sum}`, tied and not, then repaired by `refit` with 1,024 pictures of the training set, no labels; judged
on the 10,000 test pictures. Both are timed by turns, one picture at a time on one thread, in generated code and in ONNX
Runtime, where an index is a Gather. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.accuracy import own_tables
from bench.accuracy.repair import LEFT, judged, subject
from bench.data import fashion
from bench.lib import common
from secateur.ir import Graph
from secateur.passes import PASSES, Pipeline, parse_spec
from secateur.passes.allocate import Knapsack
from secateur.passes.allocate.own_readers import OwnReaders, allocation_of
from secateur.passes.rewrite.slim import Slim
from secateur.passes.score.obs import OBS
from secateur.passes.score.slots import coupling_of
from secateur.timing.runtimes import measure

NETWORKS = ("dense", "shuffle", "residual")
RUNTIMES = ("secateur", "onnxruntime")
REPEATS = 100
PICTURES = 1024


def pair(graph: Graph, wanted: Tensor, test: fashion.Data, left: float) -> Iterator[common.Row]:
    """Tied readers and own ones: what each lost, what its answers are, and how long a run takes, by turns."""
    rows, repaired = [], {}
    method, scored = Knapsack(macs=left, round_to=1, loss="sum"), OBS()(graph)
    for readers, step in (("tied", method), ("own", OwnReaders(method))):
        start = time.process_time()
        chosen = step(scored)
        spent = time.process_time() - start
        cut = Slim()(chosen)
        network = Pipeline(parse_spec(f"refit{{examples={PICTURES}}}", PASSES))(cut)
        repaired[readers] = network
        rows.append(
            {
                "readers": readers, "left": left, "macs": allocation_of(chosen).reached, "cpu_s": round(spent, 1),
                "layers": sum(m.mode == "own" for m in coupling_of(chosen, "bench").mixing),
                "lost": OwnReaders(method).lost(chosen), "cut": judged(cut, test, wanted),
                **judged(network, test, wanted),
            }
        )  # fmt: skip
    timings = measure(repaired, RUNTIMES, threads=1, repeats=REPEATS)
    for row in rows:
        of = {t.runtime: round(t.median, 5) for t in timings if t.model == row["readers"]}
        yield row | {"ms": of}


def main() -> int:
    """Measure what is missing, network by network."""
    parser = common.of_networks(__doc__, "own_readers.jsonl", NETWORKS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {(r["network"], r["seed"], r["left"]) for r in common.read(options.output)}
    train, test = fashion.load("train"), fashion.load("t10k")
    for seed in range(0 if options.summary else options.seeds):
        for name in options.only.split(","):
            missing = [left for left in LEFT if (name, seed, left) not in done]
            graph, wanted = subject(name, seed, train, test, PICTURES) if missing else (None, None)
            for left in missing:
                assert graph is not None
                assert wanted is not None
                top1 = float((wanted == test.y).float().mean())
                shared = common.circumstances(seed) | {"network": name, "dense_top1": top1}
                rows = [shared | row for row in pair(graph, wanted, test, left)]
                common.append(options.output, rows)
                for row in rows:
                    print(f"{name:9} {seed} {left:.0%} {row['readers']:5} {row['layers']} own, lost {row['lost']:.4f}, "
                          f"{row['top1']:.2%}, kept {row['agreement']:.2%}, {row['ms']}", flush=True)  # fmt: skip
    print(own_tables.own(common.where))
    return 0


if __name__ == "__main__":
    sys.exit(main())
