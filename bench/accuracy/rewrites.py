"""Each rewrite end to end: a plain network, rewritten, trained, pruned, written as ONNX, checked; next to a plain one.

    python -m bench.accuracy.rewrites [--seeds 3] [--epochs 2]
        train what has no row yet, one JSON line a network and seed
    python -m bench.accuracy.rewrites --latency             time all of them side by side (a quiet machine, no training)
    python -m bench.accuracy.rewrites --tables                     the committed rows as tables

The plain network (rewrite_nets) is rewritten with batch norm between the pieces, all weights are drawn anew, and it
is trained on Fashion-MNIST: SGD, the same passes over the same pictures for every network. Next to each stands a plain
network as narrow as its multiply-accumulates ask for. Then secateur prunes each to half of its multiply-accumulates
(l1, global, widths of any size; to 60 % where the groups leave no way to half), it is tuned for half a pass, and goes
through an ONNX file. `shufflenet g=..` are ShuffleNets of one complexity and as many channels as their number of
groups allows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import secateur
from bench.data import fashion
from bench.docs import readme_rewrites
from bench.lib import common
from bench.nets import rewrite_nets as nets
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import to_module
from secateur.passes import REWRITES, Pipeline, parse_spec
from secateur.passes.analysis.cost import cost
from secateur.passes.rewrite.layers import Rewritten
from secateur.timing.runtimes import measure

RESULTS = "rewrites.jsonl"
SPECS = {
    "separable": "separable{norm=true}",
    "grouped": "grouped{groups=4,norm=true}",
    "shuffled": "shuffled{groups=2,width=50%,norm=true}",
    "low_rank": "low_rank{ratio=25%}",
    "squeeze_excite": "squeeze_excite{reduction=4,limit=100%}",
    "regroup": "regroup{groups=2}",
    "drop_layer": "drop_layer{count=2}",
}
SHARES, TUNING = (0.5, 0.6), 0.5
KEPT_AS_DRAWN = "excite"  # the gates' last layer starts at zero, which is what makes them start open


def rewritten(spec: str) -> tuple[Graph, dict[str, Any]]:
    """The plain network after these rewrites, and what they did to its layers."""
    torch.manual_seed(0)
    graph = Pipeline(parse_spec(spec, REWRITES))(nets.graph_of(nets.plain()))
    note = graph.note(Rewritten)
    assert note is not None
    left = {r.layer: r.reason for r in note.rows if r.reason}
    return graph, {"spec": spec, "changed": len(note.rows) - len(left), "left": left}


def networks() -> dict[str, Callable[[], nn.Module]]:
    """Every network by name, those that carry a figure first."""
    made: dict[str, Callable[[], nn.Module]] = {"plain": nets.plain}
    for name, spec in SPECS.items():
        graph, _ = rewritten(spec)
        made[name] = partial(to_module, graph)
        if name != "squeeze_excite":  # whose partner is the plain network itself
            made[f"plain at {name}"] = partial(nets.plain, nets.plain_width(cost(graph).macs))
    made.update(
        {f"shufflenet g={g}": partial(nets.shufflenet, g, nets.shuffle_width(g)) for g in readme_rewrites.GROUPS}
    )
    return made


def draw(module: nn.Module, seed: int) -> nn.Module:
    """All weights anew, as torch draws them."""
    torch.manual_seed(seed)
    for name, child in module.named_modules():
        reset = getattr(child, "reset_parameters", None)
        if reset is not None and KEPT_AS_DRAWN not in name:
            reset()
    return module


def pruned(module: nn.Module) -> tuple[secateur.Compiled, float]:
    """The network at half of its multiply-accumulates, or at 60 % where its groups leave no way to less."""
    for share in SHARES:
        try:
            x = (torch.zeros(1, 1, 28, 28),)
            return secateur.compile(module, "l1", example_inputs=x, macs=share, round_to=1), share
        except secateur.BudgetError:
            if share == SHARES[-1]:
                raise
    raise AssertionError("SHARES is empty")


def cell(
    make: Callable[[], nn.Module], seed: int, epochs: float, train: fashion.Data, test: fashion.Data
) -> common.Row:
    """Train, prune, tune, write, read, check: what one network and seed comes to."""
    module = draw(make(), seed)
    start = time.perf_counter()
    fashion.fit(module, train, epochs, seed)
    row: common.Row = {"train_s": time.perf_counter() - start, "accuracy": fashion.accuracy(module, test)}
    done, row["share"] = pruned(module)
    before, after, law = done.report.before, done.report.after, done.report.verification
    assert after is not None
    assert law is not None
    slim = done.module()
    row["pruned_untuned"] = fashion.accuracy(slim, test)
    fashion.fit(slim, train, TUNING, seed + 100, rate=fashion.RATE / 5)
    row["pruned"] = fashion.accuracy(slim, test)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slim.onnx"
        graph = secateur.trace(slim, (torch.zeros(1, 1, 28, 28),))
        secateur.compile(graph, "none").save(path)
        x = test.x[:64]
        answers = np.concatenate([secateur.compile(path, "none", verify=False)(x[i : i + 1].numpy()) for i in range(8)])
        with torch.no_grad():
            expected = slim(x[:8]).numpy()
    row |= {
        "macs": before.macs, "params": before.params,
        "pruned_macs": after.macs, "pruned_params": after.params,
        "law": dict(law), "onnx_error": float(np.abs(answers - expected).max() / np.abs(expected).max()),
    }  # fmt: skip
    return row


def train_all(arguments: Any) -> None:
    """Every cell that has no row yet."""
    torch.set_num_threads(1)
    train, test = fashion.load("train").first(arguments.examples), fashion.load("t10k")
    made = networks()
    settings = {"epochs": arguments.epochs, "examples": arguments.examples}
    key = ("network", "seed", "epochs", "examples")
    done = {tuple(r.get(k) for k in key) for r in common.read(arguments.output)}
    for seed in range(arguments.seeds):
        for name, make in made.items():
            if (name, seed, *settings.values()) in done:
                continue
            row = {"network": name, **settings, **cell(make, seed, arguments.epochs, train, test)}
            if name in SPECS:
                row |= rewritten(SPECS[name])[1]
            common.append(arguments.output, [row | common.circumstances(seed)])
            print(f"{name:24} {seed} {row['accuracy']:.4f} {row['pruned']:.4f} {row['train_s']:.0f} s", flush=True)


def time_all(arguments: Any) -> None:
    """All networks by turns on one thread, in ONNX Runtime and in secateur's own code."""
    torch.set_num_threads(1)
    graphs = {name: nets.graph_of(draw(make(), 0)) for name, make in networks().items()}
    timings = measure(graphs, ("onnxruntime", "secateur"), threads=1, repeats=arguments.repeats)
    about = common.circumstances(arguments.seed)
    rows = [{"latency": t.model, "runtime": t.runtime, "ms": t.median, "p10": t.p10, "p90": t.p90} for t in timings]
    common.append(arguments.output, [r | about for r in rows])
    print(common.table(["network", "runtime", "ms"], [[r["latency"], r["runtime"], r["ms"]] for r in rows]))


def main() -> int:
    """Train, time, or show."""
    parser = common.parser(__doc__, RESULTS)
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind (default 3)")
    parser.add_argument("--epochs", type=float, default=2, help="passes over the data (default 2)")
    parser.add_argument("--examples", type=int, default=15_000, help="pictures of a pass (default 15000)")
    parser.add_argument("--repeats", type=int, default=51, help="timed rounds (default 51)")
    parser.add_argument("--latency", action="store_true", help="time instead of training")
    parser.add_argument("--tables", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    if arguments.latency:
        time_all(arguments)
    elif not arguments.tables:
        train_all(arguments)
    print(readme_rewrites.end_to_end(), readme_rewrites.groups(), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
