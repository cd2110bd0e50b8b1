"""Tuning a slim network towards its original in torch: what ``distill`` does, step by step."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from secateur.ir import Array, Graph, InputError, Node, Sym
from secateur.ir.exporters.torch.module import flat_module
from secateur.ir.frontends.torch.arrays import to_numpy
from secateur.passes.context import context_of
from secateur.passes.pipeline import print_pass
from secateur.passes.recipe import Recipe
from secateur.passes.sweep.objective import Objective, mean_square
from secateur.passes.sweep.parallel import world
from secateur.passes.train.checkpoint import resumed, save_checkpoint
from secateur.passes.train.parallel import joint_mean_square, rows, sum_gradients, summed

from .augment import drawn, mixed, shifts
from .lockstep import pair
from .original import channel_axis, kept_rows

if TYPE_CHECKING:
    from .distill import Distill

WATCHED = 8  # of so many examples one is not tuned on
VIEWS = 256  # pictures that are watched: of fewer examples, several views each
KNOWN = 2**28  # bytes of the original's outputs for those that are kept from one time to the next
CHECKS = 10  # times that the distance to the original is taken on those
LAYERS = 16  # inner layers that follow the original's, evenly spread
NOTHING = 1e-10  # a distance that is rounding alone
EVERY = 30.0  # seconds between two states that are written
SMALLEST = 1e-3  # size of a tensor of zeros, which would not move else

Feed = dict[str, Tensor]


class Tuning:
    """One run of ``distill`` on one slim graph. Raises what ``lockstep`` raises, and Unsupported as ``to_module``."""

    def __init__(self, graph: Graph, how: Distill) -> None:
        original, fed, counts = pair(graph, how.name, how.examples, given=True)
        self.how, self.graph = how, graph
        context = context_of(graph)
        self.seed = context.calibration.seed if context.calibration is not None else 0
        self.tell, self.random = context.progress, torch.Generator().manual_seed(self.seed)
        self.pool = {k: torch.cat([x[k][:n] for x, n in zip(fed, counts, strict=True)]) for k in fed[0]}
        self.fixed = next((int(v.shape[0]) for v in graph.inputs if v.shape and not isinstance(v.shape[0], Sym)), 0)
        if how.mix and not all(x.is_floating_point() for x in self.pool.values()):
            raise InputError(f"{print_pass(how)}: inputs of whole numbers have no mixtures; leave mix=true out")
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
        self.number, self.check, self.spent, self.broken = 0, 1, 0.0, False
        self.saved, self.file = time.monotonic(), self._file
        self.known: list[Sequence[Tensor]] = []  # what the original says of what is watched, batch by batch

    def run(self) -> dict[str, Array]:
        """The weights that came nearest to the original, by name. Raises InputError for a damaged checkpoint."""
        watched, seen = self._parted()
        groups = [{"params": [p], "size": max(_size(p), SMALLEST)} for p in self.tuned.values()]
        self.best, self.kept = self._distance(watched), self._weights()
        if not math.isfinite(self.best):
            self._blame()
        if not groups or self.best <= NOTHING:
            return self.kept
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))
        self._resume()
        self.start = time.monotonic() - self.spent
        while (done := self._done()) < 1 and not self.broken:
            for group in self.optimiser.param_groups:
                group["lr"] = self.how.rate * group["size"] * (1 + math.cos(math.pi * done)) / 2
            if not self._step(seen):
                self.broken = True
                break
            self.number += 1
            self.tell(self.number, self.how.steps or None, "distill")
            if self._done() * CHECKS >= self.check:
                self.check, found = self.check + 1, self._distance(watched)
                if found < self.best:
                    self.best, self.kept = found, self._weights()
            self._save()
        self._save(force=True)
        return self.kept

    def _done(self) -> float:
        """How much of the way is done, 1 at its end, by steps or by the time of the first process."""
        if self.how.steps:
            return self.number / self.how.steps
        self.spent = summed([time.monotonic() - self.start if world()[0] == 0 else 0.0])[0]
        return self.spent / self.how.time

    def _step(self, seen: Tensor) -> bool:
        """One step; False where the loss is not a number."""
        self.optimiser.zero_grad(set_to_none=True)
        chosen = seen[torch.randint(len(seen), (self.how.batch,), generator=self.random)]
        total = 0.0
        with torch.enable_grad():
            for feed, count, share in self._mine(chosen, self.random if self.how.augment else None, self.how.mix):
                loss = self._losses(feed, count, self.how.inner, self._wanted(feed)).sum() * share / len(chosen)
                total += float(loss.detach())
                if math.isfinite(total):
                    loss.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(summed([total])[0]):
            return False
        sum_gradients(list(self.tuned.values()))
        self.optimiser.step()
        return True

    @torch.no_grad()
    def _distance(self, examples: Tensor) -> float:
        """The mean distance of the outputs alone, on the same views of pictures whenever it is taken.

        Pictures as they are would favour the weights at the beginning: ``refit`` has fitted these to them.
        """
        random: torch.Generator | None = None
        if self.how.augment and any(map(shifts, self.pool.values())):
            random = torch.Generator().manual_seed(self.seed)
            examples = examples.repeat(-(-VIEWS // len(examples)))
        total = 0.0
        for number, (feed, count, share) in enumerate(self._mine(examples, random)):
            wanted = self.known[number] if number < len(self.known) else self._wanted(feed)[: len(self.graph.outputs)]
            if number == len(self.known) and sum(x.nbytes for y in [*self.known, wanted] for x in y) <= KNOWN:
                self.known.append(wanted)
            total += float(self._losses(feed, count, 0.0, wanted).sum()) * share
        return summed([total])[0] / len(examples)

    def _mine(
        self, examples: Tensor, random: torch.Generator | None, mix: bool = False
    ) -> Iterator[tuple[Feed, int, float]]:
        """Of each batch this process's examples, and how many count, and for how much.

        All processes draw the same. Batches of one size are computed whole, each by one process.
        """
        rank, size = world()
        for number, (feed, count) in enumerate(self._feeds(examples, random, mix)):
            if not self.fixed:
                part, total = rows(count)
                mine = len(range(*part.indices(count)))
                yield {k: x[part] for k, x in feed.items()}, mine, count / total
            elif number % size == rank:
                yield feed, count, 1.0

    def _wanted(self, feed: Feed) -> Sequence[Tensor]:
        """What the original says, and its inner layers."""
        with torch.no_grad():
            said: Sequence[Tensor] = self.teacher(*(feed[v.name] for v in self.graph.inputs))
        return said

    def _losses(self, feed: Feed, count: int, inner: float, wanted: Sequence[Tensor]) -> Tensor:
        """f32[count]: the loss of each example that counts."""
        found, outputs = self.student(*(feed[v.name] for v in self.graph.inputs)), len(self.graph.outputs)
        square = mean_square if self.fixed or world()[1] == 1 else joint_mean_square
        loss = Objective(distill=1.0, by=self.how.by).losses(found[:outputs], None, wanted[:outputs], square)[:count]
        if not inner or len(found) == outputs:
            return loss
        parts = zip(found[outputs:], wanted[outputs:], self.rows, self.axes, strict=True)
        each = (_apart(a[:count], b[:count], kept, axis, square) for a, b, kept, axis in parts)
        apart = sum(each, torch.zeros(count))
        return loss + inner * apart / (len(found) - outputs)

    def _feeds(self, examples: Tensor, random: torch.Generator | None, mix: bool = False) -> Iterator[tuple[Feed, int]]:
        """Examples in the batches that the network takes, and how many of each count; views that ``random`` draws."""
        size = self.fixed or self.how.batch
        others = examples[torch.randperm(len(examples), generator=self.random)] if mix else examples
        for chosen, other in zip(torch.split(examples, size), torch.split(others, size), strict=True):
            feed = self._fed(chosen, random)
            yield (mixed(feed, self._fed(other, random), self.random) if mix else feed), len(chosen)

    def _fed(self, chosen: Tensor, random: torch.Generator | None) -> Feed:
        """These examples, in as many rows as the network takes; views that ``random`` draws."""
        padded = torch.cat([chosen, chosen[-1:].expand(self.fixed - len(chosen))]) if self.fixed else chosen
        feed = {k: x[padded] for k, x in self.pool.items()}
        return feed if random is None else {k: drawn(x, random, self.how.mirror) for k, x in feed.items()}

    def _blame(self) -> None:
        """Raise InputError for the first layer, or output, that is not finite."""
        everything = torch.arange(len(next(iter(self.pool.values()))))
        names = [*self.graph.outputs, *self.inner]
        for number, (feed, count) in enumerate(self._feeds(everything, None)):
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

    @property
    def _file(self) -> Path | None:
        """Where the state lies: by what is tuned, how, and on what."""
        folder = context_of(self.graph).checkpoints
        if folder is None:
            return None
        digest = hashlib.sha256(f"{print_pass(self.how)} {self.seed} {world()[1]}".encode())
        for name, weight in sorted(self.graph.weights.items()):
            digest.update(f"{name} {weight.shape}".encode() + np.ascontiguousarray(weight).tobytes())
        for name, x in sorted(self.pool.items()):
            digest.update(f"{name} {tuple(x.shape)}".encode() + x[:: max(1, len(x) // 16)].numpy().tobytes())
        return folder / f"distill-{digest.hexdigest()[:16]}.state"

    def _save(self, force: bool = False) -> None:
        """Write the state every so many seconds and at the end; the first process alone."""
        late = time.monotonic() - self.saved >= EVERY
        if self.file is None or world()[0] or not (force or late):
            return
        save_checkpoint(self.file, {
            "number": self.number, "check": self.check, "spent": self.spent, "best": self.best, "broken": self.broken,
            "kept": {n: torch.from_numpy(w) for n, w in self.kept.items()}, "random": self.random.get_state(),
            "now": {n: p.detach() for n, p in self.tuned.items()}, "optimiser": self.optimiser.state_dict(),
        })  # fmt: skip
        self.saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from what a run left that was killed, or has ended."""
        state = None if self.file is None else resumed(self.file)
        if state is None:
            return
        self.number, self.check = cast(int, state["number"]), cast(int, state["check"])
        self.spent, self.best = cast(float, state["spent"]), cast(float, state["best"])
        self.broken = cast(bool, state["broken"])
        self.kept = {n: to_numpy(w) for n, w in cast("dict[str, Tensor]", state["kept"]).items()}
        self.random.set_state(cast(Tensor, state["random"]))
        self.optimiser.load_state_dict(cast("dict[str, object]", state["optimiser"]))
        with torch.no_grad():
            for name, value in cast("dict[str, Tensor]", state["now"]).items():
                self.tuned[name].copy_(value)

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


def _apart(mine: Tensor, theirs: Tensor, rows: Array | None, axis: int, square: Callable[[Tensor], Tensor]) -> Tensor:
    """f32[n]: half the mean square of the difference over that of the original's, at the channels that are left."""
    if rows is not None:
        theirs = theirs.index_select(axis, torch.from_numpy(rows))
    if mine.shape != theirs.shape:
        return torch.zeros(len(mine))
    mean = square(theirs).clamp_min(1e-12)
    return (mine.float() - theirs.float()).square().flatten(1).mean(1) / mean / 2


def _size(parameter: Tensor) -> float:
    """The root mean square of a tensor."""
    return float(parameter.detach().float().square().mean().sqrt())
