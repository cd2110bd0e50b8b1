"""Pruners of torch modules next to each other on the same networks: who is right, how long it takes, what is refused.

    python -m bench.reach.pruners                         ours, Torch-Pruning and torch-kirigami, found and told
    python -m bench.reach.pruners --only torch-kirigami --networks tv/resnet50

Each removes half of the channels of every layer but the classifier, by the sum of the weights' sizes, each network in a
process of its own. torch-kirigami first finds what may go, which takes most of its time, so it is also **told**: the
later half of each layer's rows, whatever their sizes. *right*: the law holds, and at least 30 % of the parameters are
gone. The law is judged alike for all, from the module before and after alone: an entry of a weight is found again by
its value, the original's columns that no row kept are put to zero in the original, and both run in torch. Where that
leaves doubt, or a layer norm counts over channels, *pruned* says that the module runs and is smaller, and no more.
Seconds are of the processor, from the module to the smaller one.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.lib import common, engines

if TYPE_CHECKING:
    from torch import Tensor, nn

NETWORKS = (
    "tv/resnet50", "tv/mobilenet_v2", "tv/mobilenet_v3_large", "tv/densenet121", "tv/googlenet", "tv/regnet_y_400mf",
    "tv/shufflenet_v2_x1_0", "tv/convnext_tiny", "tv/vit_b_16", "timm/res2net50_26w_4s",
)  # fmt: skip
TOLERANCE = 1e-4
VERSIONS = dict(package.split("==") for package in engines.PRUNERS)
VERSIONS["torch-kirigami-told"] = VERSIONS["torch-kirigami"]


def ours(module: nn.Module, x: Tensor) -> nn.Module:
    """This project's passes, as in bench/reach/zoos.py, and the module of the result."""
    from bench.reach.zoos import prune
    from secateur.ir.exporters.torch.module import to_module
    from secateur.ir.frontends.torch.trace import trace

    made: nn.Module = to_module(prune(trace(module, (x,), dynamic_batch=False)).after)
    return made


def torch_pruning(module: nn.Module, x: Tensor) -> nn.Module:
    """Torch-Pruning's high-level pruner; the last linear layer keeps its outputs."""
    import torch
    import torch_pruning as tp

    last = [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1:]
    importance = tp.importance.MagnitudeImportance(p=1)
    tp.pruner.MagnitudePruner(module, x, importance=importance, pruning_ratio=0.5, ignored_layers=last).step()
    return module


def torch_kirigami(module: nn.Module, x: Tensor) -> nn.Module:
    """torch-kirigami, every axis that it finds at half of its width, greedily by group magnitude."""
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    pruner = Pruner(module, graph=DependencyGraph.build(module, args=(x,)))
    candidates = pruner.discover_candidates()
    strategy = Greedy(GroupMagnitude(p=1), max_trials=1_000_000)
    made: nn.Module = pruner.prune(candidates, budget=ChannelRatio(0.5), strategy=strategy)[0]
    return made


def torch_kirigami_told(module: nn.Module, x: Tensor) -> nn.Module:
    """torch-kirigami, told which rows go: the later half of each layer but grouped ones and the last linear one."""
    import torch
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import Pruner

    graph = DependencyGraph.build(module, args=(x,))
    layers = {name: m for name, m in module.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}
    last = [m for m in layers.values() if isinstance(m, torch.nn.Linear)][-1:]
    weights = [
        graph.parameter(f"{n}.weight") for n, m in layers.items() if getattr(m, "groups", 1) == 1 and m not in last
    ]
    remove = [w.axis(0).select(range((w.shape[0] + 1) // 2, w.shape[0])) for w in weights if w.shape[0] > 1]
    pruner = Pruner(module, graph=graph)
    made: nn.Module = pruner.apply(pruner.plan_remove(remove))[0]
    return made


PRUNERS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "secateur": ours, "torch-pruning": torch_pruning, "torch-kirigami": torch_kirigami,
    "torch-kirigami-told": torch_kirigami_told,
}  # fmt: skip


def measure(name: str, pruner: str, seed: int) -> common.Row:
    """One network with one pruner."""
    import torch

    from bench.data import zoo
    from bench.reach import zoos

    torch.set_num_threads(1)
    collection, _, model = name.partition("/")
    module, x = zoo.build(collection, model, seed), zoo.example(collection, model, seed)
    if pruner == "secateur":  # has its own check, from the recipe
        row = zoos.measure(name, seed)
        fell = 1 - row["params_after"] / row["params_before"] if "params_after" in row else None
        kept = {key: row.get(key) for key in ("status", "cpu_s", "reason", "max_rel_err")}
        return kept | {"param_drop": fell, "seconds_of_capture": row.get("capture_cpu_s")}
    before, row = copy.deepcopy(module), common.Row()
    start = time.process_time()
    try:
        after = PRUNERS[pruner](module, x)
    except Exception as error:
        return {"status": "refused", "reason": said(error), "cpu_s": round(time.process_time() - start, 3)}
    row["cpu_s"] = round(time.process_time() - start, 3)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (before, after)]
    row["param_drop"] = 1 - sizes[1] / sizes[0]
    try:
        with torch.no_grad():
            found = after.eval()(x)
    except Exception as error:
        return row | {"status": "broken", "reason": said(error)}
    doubt = mask(before, after)
    if doubt is not None:
        return row | {"status": "pruned", "reason": doubt}
    with torch.no_grad():
        want = before(x)
    row["max_rel_err"] = float((want - found).abs().max() / want.abs().max()) if want.shape == found.shape else None
    if row["max_rel_err"] is None or not row["max_rel_err"] <= TOLERANCE:
        return row | {"status": "wrong", "reason": "differs from the masked original"}
    return row | ({"status": "right"} if row["param_drop"] >= 0.3 else {"status": "too little", "reason": "below 30 %"})


def said(error: Exception) -> str:
    """The error in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def mask(before: nn.Module, after: nn.Module) -> str | None:
    """Zero, in the original, what the smaller module does not read. None, or why that does not say all.

    Rows and columns are found by the values of their entries, which are drawn and so differ.
    """
    import torch

    if any(isinstance(m, torch.nn.LayerNorm) or "LayerNorm" in type(m).__name__ for m in before.modules()):
        return "a layer norm counts over the channels that are kept"
    new = dict(after.named_parameters())
    for name, weight in before.named_parameters():
        if weight.ndim < 2:
            continue
        if name not in new:
            return f"'{name}' is gone"
        kept = entries(weight.detach().numpy(), new[name].detach().numpy())
        if kept is None:
            return f"'{name}' has other values"
        with torch.no_grad():
            for row, columns in kept.items():
                gone = np.setdiff1d(np.arange(weight.shape[1]), columns)
                weight[row, torch.from_numpy(gone)] = 0
    return None


def entries(old: NDArray[np.float32], new: NDArray[np.float32]) -> dict[int, NDArray[np.int64]] | None:
    """The rows of a weight that are left, and the columns that each keeps; None where values are not found again."""
    if old.shape[2:] != new.shape[2:]:
        return None
    flat = old.reshape(old.shape[0], old.shape[1], -1)[..., 0]
    order = np.argsort(flat, axis=None, kind="stable")
    values = new.reshape(new.shape[0], new.shape[1], -1)[..., 0]
    at = np.searchsorted(flat.ravel()[order], values)
    if at.max(initial=0) >= flat.size:
        return None
    rows, columns = np.divmod(order[at], old.shape[1])
    first = np.array([np.bincount(row).argmax() for row in rows])  # a value may stand twice
    shared = np.array([np.bincount(column).argmax() for column in columns.T])
    if np.array_equal(old[np.ix_(first, shared)], new):
        return {int(row): shared for row in first}
    kept: dict[int, NDArray[np.int64]] = {}
    for i, row in enumerate(first):  # of grouped layers each row has its own columns
        found: list[int] = []
        for value in values[i]:
            same = [int(j) for j in np.flatnonzero(flat[row] == value) if j not in found]
            if not same:
                return None
            found.append(same[0])
        if not np.array_equal(old[row][found], new[i]):
            return None
        kept[int(row)] = np.array(found)
    return kept


def run_one(name: str, pruner: str, options: argparse.Namespace) -> common.Row:
    """The row of a network and a pruner from a process of its own."""
    command = [sys.executable, "-m", "bench.reach.pruners", "--child", name, "--only", pruner]
    command += ["--seed", str(options.seed), "--folder", str(options.folder)]
    done = common.run([*command, "--limit", str(options.limit)], threads=1)
    lines = done.stdout.strip().splitlines()
    row: common.Row = {"network": name, "pruner": pruner, "version": VERSIONS.get(pruner)}
    if done.code == 0 and lines and lines[-1].startswith("{"):
        found: common.Row = json.loads(lines[-1])
        return row | found
    if done.code == -signal.SIGXCPU:
        return row | {"status": "not finished", "reason": f"stopped after {options.limit} s of the processor"}
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return row | {"status": "broken", "reason": f"exit code {done.code}: {last}"[:400]}


def summary(rows: Sequence[common.Row]) -> str:
    """A line for each network."""
    found: dict[tuple[str, str], Any] = {(r["network"], r["pruner"]): r for r in rows}
    lines = []
    for name in dict.fromkeys(r["network"] for r in rows):
        cells = [found.get((name, pruner), {}) for pruner in PRUNERS]
        lines.append([name, *(part for c in cells for part in (c.get("status"), c.get("cpu_s")))])
    return common.table(["network", *(part for p in PRUNERS for part in (p, "s"))], lines)


def main() -> int:
    """Run all, append a row each, print the table."""
    parser = common.parser(__doc__, "pruners.jsonl")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names as in zoo.csv")
    parser.add_argument("--only", default=",".join(PRUNERS), help="some of the pruners")
    parser.add_argument("--limit", type=int, default=600, help="processor seconds for a network (default 600)")
    parser.add_argument("--folder", type=Path, default=engines.FOLDER, help="where the peers are installed")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        resource.setrlimit(resource.RLIMIT_CPU, (options.limit, options.limit + 5))
        sys.path.append(str(engines.prepare_pruners(options.folder)))
        print(json.dumps(measure(options.child, options.only, options.seed)))
        return 0
    here = common.circumstances(options.seed)
    for name in () if options.summary else options.networks.split(","):
        for pruner in options.only.split(","):
            row = run_one(name, pruner, options)
            common.append(options.output, [row | here])
            print(*(row[k] for k in ("network", "pruner", "status", "cpu_s", "reason") if k in row), flush=True)
    print(summary(common.read(options.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
