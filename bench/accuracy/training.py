"""Sparsity in training next to pruning afterwards: the same passes over the data, the same multiply-accumulates in the
end.

    python -m bench.accuracy.training [--seeds 3] [--quick]

A residual network of three blocks on Fashion-MNIST at 14x14 (`criteria_nets.residual`), small for two cores: four
passes over 6,000 pictures, cut to half of its multiply-accumulates, one more pass. What a method does, it does in the
four passes: group lasso by proximal steps, over filters and channels (SSL) or over coupled channels, network slimming,
iterative hard thresholding of channels, soft pruning, DCP's intermediate losses and choice of channels. SNIP cuts
before the first pass. `l1`, `taylor` and `lasso` cut what trained without any of it. A row states what
`zeros` alone leaves of the multiply-accumulates (an exact cut), and top-1 on all
10,000 test pictures after the cut and after the last pass. A run that was stopped goes on where it was. `--quick`: one
seed, 1,500 pictures, to out/training-quick.jsonl.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

import secateur
from bench.accuracy.lottery import small
from bench.data import fashion
from bench.data.fashion import Data
from bench.lib import common
from secateur.passes.train import (
    BatchNormL1,
    CoupledLasso,
    Discrimination,
    GroupLasso,
    HardThreshold,
    Hook,
    Masks,
    Selection,
    SoftPruning,
    Units,
    select_channels,
)  # fmt: skip

NETWORK, PASSES, LAST, MACS = "residual", 4, 1, 0.5
RATE, TUNED_RATE = 0.1, 0.05
KEY = ("method", "seed")


@dataclass(frozen=True)
class Method:
    """``hooks`` for the steps of training; ``criterion`` ranks what trained, ``zeros`` is that by which zeros go
    exactly.
    """

    criterion: str
    hooks: Callable[[nn.Module, int], Sequence[Hook]] = lambda module, steps: ()
    zeros: str = "l1,zeros"


def units(module: nn.Module) -> Units:
    """The coupled channels of the module."""
    return Units(module, secateur.trace(module.eval(), (torch.zeros(1, 1, 14, 14),)))


METHODS: Mapping[str, Method] = MappingProxyType({
    "l1": Method("l1"),
    "taylor": Method("taylor"),
    "lasso": Method("lasso"),
    "ssl": Method("group_lasso", lambda m, n: [GroupLasso(m, 0.08)], "group_lasso,zeros"),
    "coupled lasso": Method("l1", lambda m, n: [CoupledLasso(units(m), 0.2)]),
    "slimming": Method("slimming", lambda m, n: [BatchNormL1(m, 0.1, "proximal")], "fold_constants,slimming,zeros"),
    "iht": Method("l1", lambda m, n: [HardThreshold(m, 0.7, n // 8, n // 8, 3, 0.9, units=units(m))]),
    "soft": Method("l1", lambda m, n: [SoftPruning(units(m), 0.3, n // PASSES)]),
    "dcp": Method("group_lasso{groups=channel}", zeros="group_lasso{groups=channel},zeros"),
    "snip": Method("snip"),
})  # fmt: skip


class Bench:
    """Measures methods and writes rows as soon as they are known."""

    def __init__(self, train: Data, test: Data, output: Path) -> None:
        self.train, self.test, self.output = train, test, output
        self.circumstances = common.circumstances(0)
        self.done = {tuple(row[k] for k in KEY) for row in common.read(output)}
        self.x = test.x[:2]
        self.known = [(train.x[:256], train.y[:256])]

    def run(self, name: str, seed: int) -> None:
        """Measure it if it is missing."""
        if (name, seed) in self.done:
            return
        cpu = time.process_time()
        row = self._dense(seed) if name == "dense" else self._measure(name, METHODS[name], seed)
        whole = {"method": name, "seed": seed, "examples": len(self.train.x), "passes": PASSES + LAST} | row
        common.append(self.output, [self.circumstances | whole | {"cpu_s": time.process_time() - cpu}])
        print(name, seed, {k: round(v, 4) for k, v in row.items()}, f"{time.process_time() - cpu:.1f} s", flush=True)

    def _dense(self, seed: int) -> common.Row:
        module = fashion.fresh(NETWORK, seed)
        fashion.fit(module, self.train, PASSES + LAST, seed, RATE)
        return {"top1": fashion.accuracy(module, self.test)}

    def _measure(self, name: str, method: Method, seed: int) -> common.Row:
        module = fashion.fresh(NETWORK, seed)
        steps = PASSES * len(self.train.x) // fashion.BATCH
        row: common.Row = {}
        if name == "snip":  # first the cut, then all passes
            slim = self._cut(module, method.criterion)
            fashion.fit(slim.module(), self.train, PASSES + LAST, seed, RATE)
            return row | self._shape(slim) | {"top1": fashion.accuracy(slim.module(), self.test)}
        if name == "dcp":
            discriminate(module, self.train, seed)
        else:
            hooks = method.hooks(module, steps)
            fashion.fit(module, self.train, PASSES, seed, RATE, hooks)
            for hook in hooks:
                if isinstance(hook, SoftPruning | HardThreshold):
                    hook.finish()
        row["trained"] = fashion.accuracy(module, self.test)
        exact = secateur.compile(module.eval(), f"{method.zeros},slim", example_inputs=(self.x,), trust=True)
        row["exact_macs"] = self._shape(exact)["macs_left"]
        row["exact_gap"] = float((module(self.x) - exact.module()(self.x)).detach().abs().max())
        row["exact_top1"] = fashion.accuracy(exact.module(), self.test)
        slim = self._cut(module, method.criterion)
        row["bare"] = fashion.accuracy(slim.module(), self.test)
        fashion.fit(slim.module(), self.train, LAST, seed + 100, TUNED_RATE)
        return row | self._shape(slim) | {"top1": fashion.accuracy(slim.module(), self.test)}

    def _cut(self, module: nn.Module, criterion: str) -> secateur.Compiled:
        return secateur.compile(
            module.eval(), f"{criterion},global{{macs={MACS:.0%},round_to=1}},slim", example_inputs=(self.x,),
            calibration=self.known, trust=True,
        )  # fmt: skip

    def _shape(self, slim: secateur.Compiled) -> common.Row:
        before, after = slim.report.before, slim.report.after
        assert after is not None
        return {"macs_left": after.macs / before.macs}


def discriminate(module: nn.Module, data: Data, seed: int) -> None:
    """DCP: train, then with a classifier on the last block but one, then choose the inputs of each second
    convolution.
    """
    fashion.fit(module, data, PASSES - 2, seed, RATE)
    heads = Discrimination.on(module, {"2": 32}, classes=10)
    optimiser = torch.optim.SGD(
        [*module.parameters(), *heads.parameters()], TUNED_RATE, momentum=0.9, weight_decay=5e-4
    )
    module.train()
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed))
    for batch in torch.split(order, fashion.BATCH):
        optimiser.zero_grad()
        heads.loss(module(data.x[batch]), data.y[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    module.eval()
    heads.heads.eval()
    few = data.first(512)
    batches = list(zip(torch.split(few.x, 128), torch.split(few.y, 128), strict=True))

    def joint(x: Tensor, y: Tensor) -> Tensor:
        module(x)
        return heads.parts(y)[0]

    def final(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(module(x), y)

    masks: dict[str, Tensor] = {}
    for layer, loss in (("1.branch.1.0", joint), ("2.branch.1.0", joint), ("3.branch.1.0", final)):
        kept = select_channels(module, layer, batches, Selection(0.6, per_round=4, steps=4, rate=0.02), loss)
        weight = module.get_parameter(f"{layer}.weight")
        masks[f"{layer}.weight"] = kept[None, :, None, None].expand(weight.shape)
    fashion.fit(module, data, 1, seed, TUNED_RATE, [Masks(module, masks)])


def main() -> int:
    """Measure what is missing."""
    parser = common.parser(__doc__, "training.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="networks (default 3)")
    parser.add_argument("--quick", action="store_true", help="one seed, 1,500 pictures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, examples, output = arguments.seeds, 6000, arguments.output
    if arguments.quick:
        seeds, examples, output = 1, 1500, common.ROOT / "out" / "training-quick.jsonl"
    bench = Bench(small(fashion.load("train").first(examples)), small(fashion.load("t10k")), output)
    for seed in range(seeds):
        for name in ("dense", *METHODS):
            bench.run(name, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
