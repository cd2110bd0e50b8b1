"""Does a sample of a batch change the answers to others? Every family of kernels, batches of 2 to 16.

    python -m bench.speed.batch                 all families, all batches
    python -m bench.speed.batch linear lstm     some of them

Each network below makes code generation write the kernels that it names. A library for the batch runs on ordinary
numbers, and again with one sample all NaN, infinite or 1e30; counted are the other samples of which any bit of any
output is another one. Where several leading axes count samples (the rows of a linear layer), one row is replaced, and
all other rows are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as f

import secateur
from bench.lib import common
from secateur import codegen
from secateur.codegen.backends import backend_for
from secateur.codegen.plan.lower import lower
from secateur.codegen.plan.precision import F32, Precision
from secateur.codegen.records import Records
from secateur.codegen.targets import Target, native
from secateur.codegen.tune.tuner import Tuner
from secateur.ir import Graph

BAD: Mapping[str, float] = MappingProxyType({"nan": float("nan"), "inf": float("inf"), "1e30": 1e30})
BATCHES = tuple(range(2, 17))


class Function(nn.Module):
    """A module of a function, with other modules that it calls."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(x, *self.parts)


@dataclass(frozen=True)
class Family:
    """A network of inputs [batch, *shape] whose program has kernels of these specs; ``leading`` axes count samples.

    ``precision`` of its layers: bfloat16 by arithmetic that rounds as the instructions do, which runs anywhere.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    specs: tuple[str, ...]
    leading: int = 1
    precision: Precision = F32

    @property
    def target(self) -> Target:
        """This machine, with products of bfloat16 where they are asked for."""
        return native() if self.precision == F32 else replace(native(), bf16="portable")


def _residual(x: Tensor, a: nn.Module, b: nn.Module, gate: nn.Module) -> Tensor:
    y: Tensor = b(a(x).relu())
    y = y * torch.sigmoid(gate(y.mean((2, 3), keepdim=True)))
    total: Tensor = y + a(x)
    return total.relu()


def _shuffled(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    y: Tensor = b(f.channel_shuffle(torch.cat([x, a(x)], 1), 3))
    return y


def _attention(x: Tensor, qkv: nn.Module) -> Tensor:
    q, k, v = (t.unflatten(2, (4, 16)).transpose(1, 2) for t in qkv(x).chunk(3, 2))
    y: Tensor = (q @ k.transpose(2, 3)).softmax(3) @ v
    return y.transpose(1, 2).flatten(2)


def _sparse(layer: nn.Conv2d | nn.Linear, whole: bool = False) -> nn.Module:
    """The layer with one block of 16 outputs in five kept for each input and tap, so that whole registers are zero;
    or for each input, with all taps, if ``whole``.
    """  # fmt: skip
    with torch.no_grad():
        blocks = layer.weight.reshape(-1, 16, *layer.weight.shape[1:])
        each = blocks[:, :1, :, :1, :1] if whole else blocks[:, :1]
        kept = torch.arange(each.numel()).view_as(each) % 5 == 0
        layer.weight *= kept.expand_as(blocks).flatten(0, 1)
    return layer


def _scattered(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with one weight in sixteen kept, in no blocks of outputs: row r keeps those r places further on."""
    with torch.no_grad():
        rows, columns = torch.arange(len(layer.weight))[:, None], torch.arange(layer.weight.shape[1])
        layer.weight *= ((columns - rows) % 16 == 0).view_as(layer.weight)
    return layer


def _resized(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Function(lambda x: f.interpolate(x, **options) * 2)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "direct": Family(lambda: nn.Sequential(nn.Conv2d(5, 24, 3, 2), nn.ReLU(), nn.Conv2d(24, 40, 5)), (5, 19, 17),
                         ("ConvSpec",)),
        "pointwise": Family(lambda: nn.Sequential(nn.Conv2d(7, 40, 1), nn.SiLU(), nn.Conv2d(40, 24, 1)), (7, 6, 5),
                            ("ConvSpec",)),
        "winograd": Family(lambda: nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()), (64, 13, 11),
                           ("WinogradSpec",)),
        "strassen": Family(lambda: nn.Conv2d(512, 512, 1), (512, 14, 14), ("StrassenSpec",)),
        "strassen with a stride": Family(lambda: nn.Conv2d(512, 512, 1, 2), (512, 32, 32), ("StrassenSpec",)),
        "linear": Family(lambda: nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 512)), (1024,),
                         ("ConvSpec",)),
        "linear of rows": Family(lambda: nn.Sequential(nn.Linear(512, 512), nn.GELU()), (14, 512), ("ConvSpec",), 2),
        "product with a constant": Family(lambda: Function(lambda x, w: x @ w.weight, nn.Linear(512, 512)), (3, 7, 512),
                                          ("ConvSpec",), 3),
        "grouped": Family(lambda: nn.Conv2d(48, 48, 3, padding=1, groups=4), (48, 9, 10), ("GroupedConvSpec",)),
        "groups of four": Family(lambda: nn.Conv2d(32, 32, 3, padding=1, groups=8), (32, 7, 9), ("WindowSpec",)),
        "depthwise": Family(lambda: nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1, groups=24), nn.Hardswish()), (24, 13, 12),
                            ("WindowSpec",)),
        "pools": Family(lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
                        (20, 13, 12), ("WindowSpec",)),
        "means": Family(lambda: Function(lambda x: x.mean((2, 3)) + x.amax((2, 3))), (20, 5, 7), ("MeanSpec",)),
        "operands": Family(lambda: Function(_residual, nn.Conv2d(8, 24, 3, padding=1), nn.Conv2d(24, 24, 1),
                                            nn.Conv2d(24, 24, 1)), (8, 9, 7), ("ConvSpec", "MeanSpec")),
        "shuffled": Family(lambda: Function(_shuffled, nn.Conv2d(24, 24, 3, padding=1, groups=3),
                                            nn.Conv2d(48, 20, 3, padding=1)), (24, 6, 7), ("WinogradSpec",)),
        "rows": Family(lambda: Function(lambda x, n: n(x).log_softmax(2) + x.softmax(2), nn.LayerNorm(50)), (6, 50),
                       ("RowSpec",), 2),
        "group norm": Family(lambda: nn.Sequential(nn.GroupNorm(4, 24), nn.ReLU()), (24, 6, 5), ("MomentSpec",)),
        "instance norm": Family(lambda: nn.InstanceNorm2d(20, affine=True), (20, 6, 5), ("MomentSpec",)),
        "attention": Family(lambda: Function(_attention, nn.Linear(64, 192)), (9, 64), ("MatmulSpec", "RowSpec")),
        "lstm": Family(lambda: Function(lambda x, r: r(x)[0], nn.LSTM(512, 256, batch_first=True)),
                       (32, 512), ("RecurrentSpec",)),
        "gru": Family(lambda: Function(lambda x, r: r(x)[0], nn.GRU(24, 20, batch_first=True)), (6, 24),
                      ("RecurrentSpec",)),
        "linear resize": Family(_resized(scale_factor=1.7, mode="bilinear"), (20, 7, 6), ("ResizeSpec",)),
        "cubic resize": Family(_resized(size=(5, 9), mode="bicubic"), (20, 7, 6), ("ResizeSpec",)),
        "nearest resize": Family(_resized(scale_factor=2.0), (20, 7, 6), ("TableCopySpec",)),
        "transposed": Family(lambda: nn.ConvTranspose2d(24, 32, 4, 2, 1), (24, 6, 7), ("ConvSpec",)),
        "transposed depthwise": Family(lambda: nn.ConvTranspose2d(24, 24, 3, 2, groups=24), (24, 6, 7),
                                       ("WindowSpec",)),
        "transposed pointwise": Family(lambda: nn.ConvTranspose2d(512, 512, 1), (512, 14, 14), ("StrassenSpec",)),
        "pixel shuffle": Family(lambda: nn.Sequential(nn.Conv2d(8, 36, 3), nn.PixelShuffle(3), nn.Conv2d(4, 8, 3)),
                                (8, 7, 6), ("ConvSpec",)),
        "signals": Family(lambda: nn.Sequential(nn.Conv1d(6, 32, 5), nn.ReLU(), nn.Conv1d(32, 20, 1)), (6, 40),
                          ("ConvSpec",)),
        "block-sparse": Family(lambda: _sparse(nn.Linear(512, 512)), (512,), ("BlockSparseSpec",)),
        "block-sparse panels": Family(lambda: nn.Sequential(_sparse(nn.Conv2d(512, 512, 1)), nn.ReLU()), (512, 9, 9),
                                      ("PanelSpec",)),
        "zeros that make no blocks": Family(
            lambda: nn.Sequential(_scattered(nn.Conv2d(256, 256, 1)), nn.ReLU()), (256, 9, 9), ("UnstructuredSpec",)
        ),
        "zeros in rows": Family(lambda: _scattered(nn.Linear(512, 512)), (512,), ("RowSparseSpec",)),
        "Winograd without kernels of zeros": Family(
            lambda: nn.Sequential(_sparse(nn.Conv2d(64, 64, 3, padding=1), whole=True), nn.ReLU()), (64, 9, 9),
            ("SparseWinogradSpec",),
        ),
        "bfloat16": Family(lambda: nn.Sequential(nn.Conv2d(24, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 24, 1)),
                           (24, 7, 9), ("Bf16ConvSpec",), precision=Precision("bf16")),
        "without a template": Family(lambda: nn.Sequential(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6), nn.ReLU()),
                                     (3, 4, 6, 5), ("TensorSpec",)),
    }
)  # fmt: skip


def captured(family: Family, batch: int, seed: int = 0) -> Graph:
    """The network at a batch, its weights drawn from a seed."""
    torch.manual_seed(seed)
    return secateur.trace(family.make().eval(), (torch.randn(batch, *family.shape),))


def specs(graph: Graph, family: Family, threads: int = 1) -> set[str]:
    """The kinds of kernels that this machine computes a family's graph with, where nobody measured any."""
    target, backend = family.target, backend_for(family.target, family.precision)
    calls = lower(graph, target, threads, Tuner(target, threads, Records()).choose, backend).calls
    return {type(call.spec).__name__ for call in calls}


def built(graph: Graph, family: Family, threads: int = 1) -> codegen.Library:
    """The library of a family's graph."""
    return codegen.build(graph, family.target, threads=threads, precision=family.precision)


def changed(library: codegen.Library, family: Family, batch: int, bad: float, seed: int = 0) -> int:
    """How many other samples have other bits in an output once the first or the last is ``bad``."""
    x = np.random.default_rng(seed).standard_normal((batch, *family.shape), np.float32)
    usual = _samples(library(x), family.leading)
    total = 0
    for which in (0, len(usual) - 1):
        spoilt = x.copy()
        spoilt.reshape(len(usual), -1)[which] = bad
        differs = (_samples(library(spoilt), family.leading) != usual).any(1)
        total += int(differs.sum()) - int(differs[which])
    return total


def _samples(y: NDArray[np.float32], leading: int) -> NDArray[np.uint32]:
    """An output's bits, a row for each sample."""
    return np.ascontiguousarray(y).view(np.uint32).reshape(int(np.prod(y.shape[:leading])), -1)


def rows(names: list[str], seed: int) -> Iterator[common.Row]:
    """A row for each family and batch, on one thread or two by turns."""
    for name in names:
        for batch in BATCHES:
            family, threads = FAMILIES[name], 1 + batch % 2
            graph = captured(family, batch, seed)
            library = built(graph, family, threads)
            counts = {kind: changed(library, family, batch, bad, seed) for kind, bad in BAD.items()}
            kinds = sorted(specs(graph, family, threads))
            yield {"family": name, "batch": batch, "threads": threads, "specs": kinds, **counts}


def main() -> None:
    """Run the families asked for, append JSON lines, print how many samples changed in each."""
    parser = common.parser(__doc__, "batch.jsonl")
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help="by name (default: all)")
    options = parser.parse_args()
    around = common.circumstances(options.seed)
    totals: dict[str, list[int]] = {name: [0] * len(BAD) for name in options.families}
    for row in rows(options.families, options.seed):
        common.append(options.output, [{**around, **row}])
        totals[row["family"]] = [t + row[kind] for t, kind in zip(totals[row["family"]], BAD, strict=True)]
    print(common.table(["family", *BAD], [[name, *counts] for name, counts in totals.items()]))


if __name__ == "__main__":
    main()
