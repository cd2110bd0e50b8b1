"""How much of the zoo can be pruned, and is the result right? 233 networks, half of the channels, one process each.

    python -m bench.reach.zoos                          all that this commit has no row for yet, two at a time
    python -m bench.reach.zoos --only 'timm/res2net*'   some of them
    python -m bench.reach.zoos --summary                the table alone, from the rows there are

A network is **right** where the law holds and its parameters fell by 30 % or more; **refused** where it was left alone,
as a whole or in too large a part, with reasons; **wrong** where the law fails; **broken** where something crashed or
did not end in time. Two checks decide on right and wrong: the product's own, and a second one in plain PyTorch that
reads nothing but the recipe (where the recipe speaks of the module's own parameters alone).
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.lib import common, forked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from secateur.ir import Graph
    from secateur.passes.recipe import Recipe

TOLERANCE = 1e-4
# Torch-Pruning 1.6.1 on the same networks, inputs and kind of weights: networks, fully right.
PEER = {"tv": (76, 63), "seg": (6, 6), "det": (6, 4), "timm": (145, 100)}
PEER_TEXT = "Torch-Pruning 1.6.1: 173 right of 233, 160 with 90 % of layers cut, CPU s median 0.43, maximum 63"


# --- the product: what a change of its interface touches -------------------------------------------------


@dataclass(frozen=True)
class Pruned:
    """The graph before (coupled, with its keep mask), after, the recipe, and CPU seconds from one to the other."""

    before: Graph
    after: Graph
    recipe: Recipe
    seconds: float


def prune(graph: Graph) -> Pruned:
    """Half of the channels of every pool, by the size of their weights."""
    from secateur.passes import PASSES, Pipeline, parse_spec
    from secateur.passes.recipe import Recipe

    start = time.process_time()
    chosen = Pipeline(parse_spec("canonicalize,couple,l1,uniform{channels=50%}", PASSES))(graph)
    slim = Pipeline(parse_spec("slim", PASSES))(chosen)
    seconds = time.process_time() - start
    recipe = slim.note(Recipe)
    if recipe is None:
        raise RuntimeError("slim left no recipe")
    return Pruned(chosen, slim, recipe, seconds)


def check_law(pruned: Pruned, seed: int) -> tuple[str, float]:
    """The product's own check: `exact` or `inexact`, and the largest relative error."""
    from secateur.ir.exporters.torch.module import evaluate
    from secateur.passes.law import check

    done = check(pruned.before, pruned.after, pruned.recipe, run=evaluate, seed=seed, inputs=1)
    return done.law, done.max_rel_err


# --- the second check, in plain PyTorch ------------------------------------------------------------------


def check_plain(module: nn.Module, x: Tensor, pruned: Pruned) -> tuple[float | None, str | None]:
    """Zero what the recipe says in the module itself and compare. (error, None), or (None, why it does not apply).

    Changes the module's weights.
    """
    import torch

    state = module.state_dict()
    foreign = [name for name in pruned.recipe.weights if name not in state]
    if pruned.recipe.mixing:
        return None, "nodes mix along channels without a weight"
    if foreign:
        return None, f"weights that are no parameters of the module: {foreign[0]}"
    if any("Std" in type(m).__name__ for m in module.modules()):
        return None, "convolutions that standardise their weights"
    transposed = {
        f"{name}.weight"
        for name, m in module.named_modules()
        if isinstance(m, torch.nn.modules.conv._ConvTransposeNd) or type(m).__name__ == "CondConv2d"  # [experts, ..]
    }
    with torch.no_grad():
        for name, axes in pruned.recipe.weights.items():
            axis = 0 if name in transposed else 1
            if axis in axes and state[name].ndim > 1:
                _zero(state[name], axis, axes[axis])
        return compare(module(x), pruned, x), None


def _zero(weight: Tensor, axis: int, kept: Any) -> None:
    """Zero the columns that are not kept; ``kept`` holds one list for each group of rows of a grouped convolution."""
    import torch

    lists = kept if kept and isinstance(kept[0], list | tuple) else [kept]
    rows = weight.shape[0] // len(lists)
    for group, columns in enumerate(lists):
        gone = torch.ones(weight.shape[axis], dtype=torch.bool)
        gone[list(columns)] = False
        part = weight[group * rows : (group + 1) * rows] if len(lists) > 1 else weight
        part.index_fill_(axis, gone.nonzero().flatten(), 0)


def compare(expected: Any, pruned: Pruned, x: Tensor) -> float:
    """Largest difference between the module's result and the slim graph's, over the largest value of the former."""
    from torch.utils import _pytree as pytree

    from secateur.ir.exporters.torch.module import evaluate
    from secateur.ir.frontends.torch.trace import TorchOrigin

    found = evaluate(pruned.after, {pruned.after.inputs[0].name: x.numpy()})
    leaves = pytree.tree_leaves(expected)
    origin = pruned.after.note(TorchOrigin)
    places = origin.leaves if origin is not None and origin.leaves else tuple(range(len(leaves)))
    worst = 0.0
    for leaf, place in zip(leaves, places, strict=True):
        if isinstance(place, int):
            want = leaf.detach().double().numpy()
            if want.shape != found[place].shape:
                return float("inf")
            error = float(abs(want - found[place]).max() / max(abs(want).max(), 1e-30))
            worst = max(worst, error if error == error else float("inf"))
    return worst


# --- one network, in a process of its own ----------------------------------------------------------------


def measure(name: str, seed: int) -> common.Row:
    """Build, capture, prune, check: the row of one network. Every end of it is a row."""
    import torch

    from bench.data import zoo
    from secateur.ir import Error
    from secateur.ir.frontends.torch.trace import trace

    torch.set_num_threads(1)
    collection, _, model = name.partition("/")
    row: common.Row = {"network": name, "stage": "build"}
    try:
        module = zoo.build(collection, model, seed)
        x = zoo.example(collection, model, seed)
        row["stage"] = "capture"
        start = time.process_time()
        graph = trace(module, (x,), dynamic_batch=False)
        row |= {"capture_cpu_s": round(time.process_time() - start, 3), "stage": "prune"}
        pruned = prune(graph)
        row |= {"cpu_s": round(pruned.seconds, 4), **describe(pruned), "stage": "check"}
        law, error = check_law(pruned, seed)
        row |= {"law": law, "max_rel_err": error}
        with torch.no_grad():
            row["rel_vs_unpruned"] = compare(module(x), pruned, x)
        row["plain_rel_err"], row["plain_skipped"] = check_plain(module, x, pruned)
    except Error as error:
        return row | {"status": "refused", "reason": f"{type(error).__name__}: {error}"[:600]}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} @{where.filename.rpartition('/')[2]}:{where.lineno}"
        return row | {"status": "broken", "reason": reason[:600]}
    row["stage"] = "done"
    return row | judge(row)


def judge(row: common.Row) -> common.Row:
    """The verdict on a network that ran to the end."""
    if not row["max_rel_err"] <= TOLERANCE:
        return {"status": "wrong", "reason": f"the law fails: relative error {row['max_rel_err']:.3g}"}
    if row["plain_rel_err"] is not None and not row["plain_rel_err"] <= TOLERANCE:
        return {"status": "wrong", "reason": f"the check in plain PyTorch fails: {row['plain_rel_err']:.3g}"}
    if row["params_after"] > 0.7 * row["params_before"]:
        fell = 1 - row["params_after"] / row["params_before"]
        return {
            "status": "refused",
            "reason": f"parameters fell by {fell:.0%} only: {next(iter(row['unreached']), '')}",
        }
    return {"status": "right", "reason": None}


def describe(pruned: Pruned) -> common.Row:
    """Sizes before and after, layers cut, and the MACs not reached with the reasons of their freezing.

    A convolution of one channel to one, as efficient channel attention has over the channels, is no layer that could be
    cut: it has no channel to spare. It counts among what is not reached.
    """
    from secateur.passes.analysis.cost import cost
    from secateur.passes.notes import Coupling

    before, after = cost(pruned.before), cost(pruned.after)
    weight = {node.name: node.inputs[1] for node in pruned.before.nodes if node.op in LAYERS and len(node.inputs) > 1}
    frozen: dict[str, set[str]] = {}
    coupling = pruned.before.note(Coupling)
    for group in coupling.groups if coupling is not None else ():
        for slot in group.slots:
            if group.frozen:
                frozen.setdefault(slot.rpartition("[")[0], set()).add(group.frozen)
    widths = {layer.node: (layer.widths, layer.params) for layer in after.layers}
    unreached: Counter[str] = Counter()
    layers = cut = reached = 0
    for layer in before.layers:
        touched = widths.get(layer.node) != (layer.widths, layer.params)
        reached += layer.macs if touched else 0
        if layer.node in weight and layer.widths != (1, 1):
            layers, cut = layers + 1, cut + touched
        if not touched:
            reasons = frozen.get(str(weight.get(layer.node)), set())
            unreached["; ".join(sorted(reasons)) or f"{layer.op} kept, nothing around it was cut"] += layer.macs
    return {
        "nodes": len(pruned.before.nodes), "groups": len(coupling.groups) if coupling is not None else 0,
        "params_before": before.params, "params_after": after.params,
        "macs_before": before.macs, "macs_after": after.macs,
        "layers": layers, "layers_cut": cut, "macs_reached": reached, "unreached": dict(unreached.most_common(8)),
    }  # fmt: skip


LAYERS = {"conv", "conv_transpose", "linear"}

# --- all of them -----------------------------------------------------------------------------------------


def run_one(name: str, arguments: argparse.Namespace, server: forked.Server) -> common.Row:
    """The row of a network from a process of its own, killed at the limit."""
    return {"network": name, "reason": None} | server.run(measure, name, arguments.seed, timeout=arguments.timeout)


def line(row: common.Row) -> str:
    """One network: verdict, CPU seconds, and the share of its MACs that was reached, with the reason for the rest."""
    text = f"{row['network']:40} {row['status']:8} {row.get('cpu_s', '-')!s:>8}"
    if row.get("macs_before"):
        text += f"  reached {row['macs_reached'] / row['macs_before']:6.1%}"
        if row["unreached"]:
            text += f", not: {next(iter(row['unreached']))}"
    return f"{text}  {row['reason'] or ''}"[:240].rstrip()


def summary(rows: list[common.Row]) -> str:
    """One line for each collection next to the peer's, the times, and every network that is not right."""
    lines = []
    for zoo, (count, peer) in [*PEER.items(), ("all", (233, 173))]:
        of = [r for r in rows if zoo == "all" or r["network"].startswith(zoo + "/")]
        by = Counter(r["status"] for r in of)
        deep = sum(r["status"] == "right" and r["layers_cut"] >= 0.9 * r["layers"] for r in of)
        inexact = sum(r.get("law") == "inexact" for r in of)
        verdicts = [by[status] for status in ("right", "refused", "wrong", "broken")]
        lines.append([zoo, count, len(of), *verdicts, deep, inexact, peer])
    head = ["set", "networks", "run", "right", "refused", "wrong", "broken", "90% cut", "inexact", "peer right"]
    text = common.table(head, lines)
    seconds = [r["cpu_s"] for r in rows if "cpu_s" in r]
    if seconds:
        text += f"\nanalysis and slim, CPU s: median {statistics.median(seconds):.2f}, maximum {max(seconds):.2f}"
    text += f"\n{PEER_TEXT}\n"
    other = [[r["network"], r["status"], str(r["reason"])[:140]] for r in rows if r["status"] != "right"]
    partly = [
        [r["network"], f"{r['layers_cut']}/{r['layers']} layers", next(iter(r["unreached"]), "")[:140]]
        for r in rows
        if r["status"] == "right" and r["layers_cut"] < 0.9 * r["layers"]
    ]
    return text + (("\n" + common.table(["network", "status", "reason"], other + partly)) if other + partly else "")


def latest(path: Any, seed: int) -> dict[str, common.Row]:
    """The newest row of each network."""
    return {r["network"]: r for r in common.read(path) if r.get("seed", seed) == seed}


def main() -> int:
    """Run what has no row of this commit yet, then print the summary of the newest rows."""
    parser = common.parser(__doc__, "coverage.jsonl")
    parser.add_argument("--only", default="*", metavar="GLOB", help="networks such as 'tv/*' or 'timm/res2net*'")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time (default 2)")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds for a network (default 600)")
    parser.add_argument("--again", action="store_true", help="also run those that this commit has a row for")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    with (common.ROOT / "bench" / "data" / "zoo.csv").open(newline="", encoding="utf-8") as file:
        listed = [f"{row['zoo']}/{row['model']}" for row in csv.DictReader(file)]  # without loading torch here
    names = [name for name in listed if fnmatch.fnmatch(name, arguments.only)]
    here = common.circumstances(arguments.seed)
    rows = latest(arguments.output, arguments.seed)
    fresh = {name for name, row in rows.items() if row.get("git") == here["git"] and not arguments.again}
    todo = [] if arguments.summary else [name for name in names if name not in fresh]
    os.environ.update(common.environment(threads=1))
    server = forked.Server(("bench.data.zoo", "timm", "torch._dynamo", "secateur.ir.frontends.torch.trace"))
    with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        for done in as_completed([pool.submit(run_one, name, arguments, server) for name in todo]):
            row = done.result()
            common.append(arguments.output, [row | here])
            print(line(row), flush=True)
    rows = latest(arguments.output, arguments.seed)
    print(summary([rows[name] for name in names if name in rows]))
    return int(any(rows[name]["status"] in {"wrong", "broken"} for name in names if name in rows))


if __name__ == "__main__":
    sys.exit(main())
