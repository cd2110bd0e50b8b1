"""Tuning a slim network towards its original in torch: what ``distill`` does, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from secateur.ir import Array, Graph, InputError, Node, Sym
from secateur.ir.exporters.torch.module import flat_module
from secateur.ir.frontends.torch.arrays import to_numpy
from secateur.passes.context import context_of
from secateur.passes.recipe import Recipe
from secateur.passes.sweep.objective import Objective

from .lockstep import pair
from .original import channel_axis, kept_rows

if TYPE_CHECKING:
    from .distill import Distill

WATCHED = 8  # of so many examples one is not tuned on
CHECKS = 10  # times that the distance to the original is taken on those
PICTURES = (1, 3, 4)  # channels of inputs that may be shifted and mirrored
SHIFT = 8  # pictures are shifted by up to this part of their size
LAYERS = 16  # inner layers that follow the original's, evenly spread
NOTHING = 1e-10  # a distance that is rounding alone
SMALLEST = 1e-3  # size of a tensor of zeros, which would not move else

Feed = dict[str, Tensor]


class Tuning:
    """One run of ``distill`` on one slim graph. Raises what ``lockstep`` raises, and Unsupported as ``to_module``."""

    def __init__(self, graph: Graph, how: Distill) -> None:
        original, fed, counts = pair(graph, how.name, how.examples)
        self.how, self.graph = how, graph
        context = context_of(graph)
        seed = context.calibration.seed if context.calibration is not None else 0
        self.tell, self.random = context.progress, torch.Generator().manual_seed(seed)
        self.pool = {k: torch.cat([x[k][:n] for x, n in zip(fed, counts, strict=True)]) for k in fed[0]}
        self.fixed = next((int(v.shape[0]) for v in graph.inputs if v.shape and not isinstance(v.shape[0], Sym)), 0)
        layers = _followed(graph, original)
        self.rows = [kept_rows(graph.note(Recipe), str(n.inputs[1])) for n in layers]
        self.axes = [channel_axis(n) for n in layers]
        self.inner = names = [n.name for n in layers]
        mine = graph.rewrite(outputs=[*graph.outputs, *names], weights={k: w.copy() for k, w in graph.weights.items()})
        self.teacher = flat_module(original.rewrite(outputs=[*original.outputs, *names]))[0]
        self.student, paths = flat_module(mine)
        tensors = dict(self.student.named_parameters())
        self.tuned = {n: tensors[paths[n]] for n in sorted(how.may_change(graph)) if paths.get(n) in tensors}
        for parameter in self.student.parameters():
            parameter.requires_grad_(False)
        for parameter in self.tuned.values():
            parameter.requires_grad_(True)

    def run(self) -> dict[str, Array]:
        """The weights that came nearest to the original, by name."""
        watched, seen = self._parted()
        groups = [{"params": [p], "size": max(_size(p), SMALLEST)} for p in self.tuned.values()]
        best, kept = self._distance(watched), self._weights()
        if not math.isfinite(best):
            self._blame()
        if not groups or best <= NOTHING:
            return kept
        optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))
        start, number, check = time.monotonic(), 0, 1
        while (done := self._done(number, time.monotonic() - start)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = self.how.rate * group["size"] * (1 + math.cos(math.pi * done)) / 2
            if not self._step(optimiser, seen):
                break
            number += 1
            self.tell(number, self.how.steps or None, "distill")
            if self._done(number, time.monotonic() - start) * CHECKS >= check:
                check, found = check + 1, self._distance(watched)
                if found < best:
                    best, kept = found, self._weights()
        return kept

    def _done(self, steps: int, seconds: float) -> float:
        """How much of the way is behind, 1 at its end: by steps, by time, or by what ends first."""
        return max(
            steps / self.how.steps if self.how.steps else 0.0,
            seconds / self.how.time if self.how.time and not self.how.steps else 0.0,
        )

    def _step(self, optimiser: torch.optim.Optimizer, seen: Tensor) -> bool:
        """One step; False where the loss is no number."""
        optimiser.zero_grad(set_to_none=True)
        drawn = seen[torch.randint(len(seen), (self.how.batch,), generator=self.random)]
        with torch.enable_grad():
            for feed, count in self._feeds(drawn, self.how.augment):
                loss = self._losses(feed, count, self.how.inner).sum() / len(drawn)
                if not bool(torch.isfinite(loss)):
                    return False
                loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return True

    @torch.no_grad()
    def _distance(self, examples: Tensor) -> float:
        """The mean distance of the outputs alone, on pictures as they are."""
        total = sum(float(self._losses(feed, n, 0.0).sum()) for feed, n in self._feeds(examples, False))
        return total / len(examples)

    def _losses(self, feed: Feed, count: int, inner: float) -> Tensor:
        """f32[count]: the loss of each example that counts."""
        inputs = [feed[v.name] for v in self.graph.inputs]
        with torch.no_grad():
            wanted = self.teacher(*inputs)
        found, outputs = self.student(*inputs), len(self.graph.outputs)
        loss = Objective(distill=1.0).losses(found[:outputs], None, wanted[:outputs])[:count]
        if not inner or len(found) == outputs:
            return loss
        parts = zip(found[outputs:], wanted[outputs:], self.rows, self.axes, strict=True)
        apart = sum((_apart(a[:count], b[:count], rows, axis) for a, b, rows, axis in parts), torch.zeros(count))
        return loss + inner * apart / (len(found) - outputs)

    def _feeds(self, examples: Tensor, augment: bool) -> Iterator[tuple[Feed, int]]:
        """Examples in the batches that the network takes, and how many of each count."""
        size = self.fixed or self.how.batch
        for chosen in torch.split(examples, size):
            padded = torch.cat([chosen, chosen[-1:].expand(self.fixed - len(chosen))]) if self.fixed else chosen
            feed = {k: x[padded] for k, x in self.pool.items()}
            yield ({k: self._drawn(x) for k, x in feed.items()} if augment else feed), len(chosen)

    def _drawn(self, x: Tensor) -> Tensor:
        """Pictures shifted, with their border repeated, and half of them mirrored; anything else as it is."""
        if x.dim() != 4 or x.shape[1] not in PICTURES or not x.is_floating_point() or min(x.shape[2:]) < SHIFT:
            return x
        h, w = x.shape[2:]
        down, right = (torch.randint(-(n // SHIFT), n // SHIFT + 1, (len(x), 1), generator=self.random) for n in (h, w))
        mirrored = torch.rand(len(x), 1, generator=self.random) < 0.5
        rows = (torch.arange(h) + down).clamp(0, h - 1)
        columns = (torch.where(mirrored, torch.arange(w).flip(0), torch.arange(w)) + right).clamp(0, w - 1)
        # Channels first in memory, too: the other way round torch 2.13 frees memory twice in the gradients of some
        # convolutions (1x1, stride 2, 7 to 17 channels), which ends the process.
        examples, channels = torch.arange(len(x))[:, None, None, None], torch.arange(x.shape[1])[:, None, None]
        return x[examples, channels, rows[:, None, :, None], columns[:, None, None, :]]

    def _blame(self) -> None:
        """Raise InputError for the first layer, or output, that is not finite."""
        everything = torch.arange(len(next(iter(self.pool.values()))))
        names = [*self.graph.outputs, *self.inner]
        for number, (feed, count) in enumerate(self._feeds(everything, False)):
            inputs = [feed[v.name] for v in self.graph.inputs]
            for found in (self.teacher(*inputs), self.student(*inputs)):
                off = [n for n, x in zip(names, found, strict=True) if not bool(torch.isfinite(x[:count]).all())]
                if off:
                    raise InputError(
                        f"calibration, batch {number}: what flows through '{off[-1]}' holds NaN or infinity; check how "
                        "the inputs are scaled, and the weights"
                    )

    def _parted(self) -> tuple[Tensor, Tensor]:
        """(examples to watch, examples to tune on): the same where there are too few."""
        total = len(next(iter(self.pool.values())))
        order = torch.randperm(total, generator=self.random)
        few = total // WATCHED
        return (order[:few], order[few:]) if few else (order, order)

    def _weights(self) -> dict[str, Array]:
        return {
            n: to_numpy(p.detach()).astype(self.graph.weights[n].dtype, copy=True).reshape(self.graph.weights[n].shape)
            for n, p in self.tuned.items()
        }


def _followed(graph: Graph, original: Graph) -> Sequence[Node]:
    """Layers inside whose outputs stand in the original under the same name, evenly spread."""
    known = {n.name for n in original.nodes}
    layers = [n for n in graph.nodes if n.op in ("conv", "linear") and n.name in known and n.name not in graph.outputs]
    layers = [n for n in layers if n.inputs[1] in graph.weights and not n.attrs.get("transposed", False)]
    places = np.unique(np.linspace(0, max(len(layers) - 1, 0), min(LAYERS, len(layers))).round().astype(int))
    return [layers[i] for i in places]


def _apart(mine: Tensor, theirs: Tensor, rows: Array | None, axis: int) -> Tensor:
    """f32[n]: half the mean square of the difference over that of the original's, at the channels that are left."""
    if rows is not None:
        theirs = theirs.index_select(axis, torch.from_numpy(rows))
    if mine.shape != theirs.shape:
        return torch.zeros(len(mine))
    mean = theirs.float().square().mean().clamp_min(1e-12)
    return (mine.float() - theirs.float()).square().flatten(1).mean(1) / mean / 2


def _size(parameter: Tensor) -> float:
    """The root mean square of a tensor."""
    return float(parameter.detach().float().square().mean().sqrt())
