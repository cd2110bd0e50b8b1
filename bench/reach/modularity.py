"""Are networks modular? n-cuts of networks drawn, trained and pruned, next to those of their shuffles (Filan et al.,
2020).

    python -m bench.reach.modularity [--seeds 3] [--shuffles 50]      measure what has no row yet, and draw
    docs/modularity.svg python -m bench.reach.modularity --plot                           only draw

Two networks on Fashion-MNIST: a multi-layer perceptron of three hidden layers of 64, as the paper has it, and the
plain residual network of rewrite_nets, each as drawn, trained, and trained, cut to the largest tenth of each layer's
weights and trained on with those. Four clusters; shuffles move each layer's nonzero edges among their places. p is
the share of networks that are at least as modular, the network itself among them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from bench.data import fashion
from bench.lib import common
from bench.nets import rewrite_nets
from secateur.passes.analysis.modularity import Clusters, Modularity

PICTURE = common.ROOT / "docs" / "modularity.svg"
STATES = ("drawn", "trained", "pruned")
KEPT, EXAMPLES, EPOCHS = 0.1, 15_000, 2


def perceptron() -> nn.Sequential:
    """784-64-64-64-10."""
    widths = (784, 64, 64, 64, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS = {"perceptron": perceptron, "plain": rewrite_nets.plain}


def masks(module: nn.Module) -> dict[str, torch.Tensor]:
    """The largest tenth of each layer's weights."""
    found = {}
    for name, weight in module.named_parameters():
        if weight.dim() > 1:
            edge = weight.detach().abs().flatten().kthvalue(round((1 - KEPT) * weight.numel())).values
            found[name] = (weight.detach().abs() > edge).float()
    return found


def fit_masked(module: nn.Module, kept: Mapping[str, torch.Tensor], train: fashion.Data, seed: int) -> None:
    """One more pass in which the other weights stay zero."""

    def apply() -> None:
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if name in kept:
                    weight.mul_(kept[name])

    apply()
    for name, weight in module.named_parameters():
        if name in kept:
            weight.register_hook(partial(torch.mul, kept[name]))  # type: ignore[no-untyped-call]
    fashion.fit(module, train, 1, seed, rate=fashion.RATE / 5)
    apply()


def measure(name: str, seed: int, shuffles: int, train: fashion.Data, test: fashion.Data) -> list[common.Row]:
    """A row for each state of one network."""
    torch.manual_seed(seed)
    module = NETWORKS[name]()
    rows: list[common.Row] = []
    for state in STATES:
        if state == "trained":
            fashion.fit(module, train, EPOCHS, seed, rate=fashion.RATE / 2)
        elif state == "pruned":
            fit_masked(module, masks(module), train, seed)
        found = Modularity(shuffles=shuffles)(rewrite_nets.graph_of(module)).note(Clusters)
        assert found is not None
        rows.append(
            {
                "network": name, "state": state, "of_seed": seed, "accuracy": fashion.accuracy(module.eval(), test),
                "ncut": found.ncut, "null": found.null.tolist(), "p": found.p,
                "vertices": int((found.labels >= 0).sum()),
            }
        )  # fmt: skip
        print(name, state, seed, f"{found.ncut:.4f} null {found.null.mean():.4f} p {found.p:.3f}", flush=True)
    return rows


def draw(rows: list[common.Row]) -> None:
    """A panel a network: shuffled n-cuts as a box, the network's own as a mark."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from bench.lib.plots import FIXED

    names = [n for n in NETWORKS if any(r["network"] == n for r in rows)]
    with matplotlib.rc_context(FIXED):
        figure, panels = pyplot.subplots(
            1, len(names), figsize=(4 * len(names), 3), squeeze=False, layout="constrained"
        )
        for axes, name in zip(panels[0], names, strict=True):
            mine = [r for r in rows if r["network"] == name]
            labels = [f"{r['state']}\nseed {r['of_seed']}" for r in mine]
            axes.boxplot([r["null"] for r in mine], positions=range(len(mine)), widths=0.5, showfliers=False)
            axes.scatter(range(len(mine)), [r["ncut"] for r in mine], color="#d55e00", zorder=3, label="the network")
            axes.set_xticks(range(len(mine)), labels, fontsize=6)
            axes.set_ylabel("n-cut, 4 clusters (lower: more modular)")
            axes.set_title(f"{name}: its shuffles (boxes) and itself", fontsize=10)
        figure.savefig(PICTURE, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    """Measure, append, draw."""
    parser = common.parser(__doc__, "modularity.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind (default 3)")
    parser.add_argument("--shuffles", type=int, default=50, help="shuffled networks next to each (default 50)")
    parser.add_argument("--plot", action="store_true", help="only draw")
    arguments = parser.parse_args()
    if not arguments.plot:
        torch.set_num_threads(1)
        train, test = fashion.load("train").first(EXAMPLES), fashion.load("t10k")
        done = {(r["network"], r["of_seed"]) for r in common.read(arguments.output)}
        for seed in range(arguments.seeds):
            for name in NETWORKS:
                if (name, seed) not in done:
                    rows = measure(name, seed, arguments.shuffles, train, test)
                    common.append(arguments.output, [r | common.circumstances(seed) for r in rows])
    rows = common.read(arguments.output)
    draw(rows)
    columns = ["network", "state", "of_seed", "accuracy", "ncut", "p"]
    shown = [[*(r[c] for c in columns), float(np.mean(r["null"]))] for r in rows]
    print(common.table([*columns, "mean of shuffles"], shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
