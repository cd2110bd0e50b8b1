"""DCP as the paper trains it: Zhuang et al., "Discrimination-aware Channel Pruning for DNNs", NeurIPS 2018.

A stage: a classifier on an intermediate layer (``Head``) is trained with the network, then channels of the layers
before it are chosen one after another, by the gradient of the reconstruction loss and the classifier's, and trained as
they join. (The criterion ``dcp`` does without classifiers and training.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

from .weights import grouped, ungrouped, weight_of

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # (input, labels) -> what is added to the reconstruction loss


class Head(nn.Module):
    """F = mean over the picture of ReLU(BN(O)), and a linear classifier on it, for the output O of ``layer``."""

    def __init__(self, module: nn.Module, layer: str, channels: int, classes: int) -> None:
        super().__init__()
        self.norm, self.theta = nn.BatchNorm1d(channels), nn.Linear(channels, classes)
        self.seen: list[Tensor] = []
        module.get_submodule(layer).register_forward_hook(
            lambda _, __, output: self.seen.__setitem__(slice(None), [output])
        )

    def forward(self, output: Tensor) -> Tensor:
        """Scores by class, for an output [n, channels, ..]."""
        flat = output.flatten(2) if output.dim() > 2 else output[:, :, None]
        found: Tensor = self.theta(F.relu(self.norm(flat)).mean(2))
        return found

    def loss(self, labels: Tensor) -> Tensor:
        """L_S: the mean cross-entropy for what the layer computed last."""
        return F.cross_entropy(self(self.seen[0]), labels)


@dataclass(frozen=True)
class Discrimination:
    """Intermediate losses on these layers: ``loss`` of the network's own output plus every head's.

    heads = Discrimination.on(net, {"layer2": 64}, classes=10)
    optimiser = SGD([*net.parameters(), *heads.parameters()])
    heads.loss(net(x), y).backward()
    """

    heads: nn.ModuleDict
    weight: float = 1.0

    @staticmethod
    def on(module: nn.Module, layers: dict[str, int], classes: int, weight: float = 1.0) -> Discrimination:
        """``layers``: names of submodules, and how many channels each gives. Raises InputError for one that is none."""
        known = dict(module.named_modules())
        for name in layers:
            if name not in known:
                raise InputError(f"there is no layer '{name}' in the module{did_you_mean(name, known)}")
        heads = {name.replace(".", "/"): Head(module, name, c, classes) for name, c in layers.items()}
        return Discrimination(nn.ModuleDict(heads), weight)

    def parameters(self) -> list[nn.Parameter]:
        """The heads' own."""
        return list(self.heads.parameters())

    def parts(self, labels: Tensor) -> list[Tensor]:
        """Each head's loss for the batch that the network has just seen."""
        return [head.loss(labels) for head in self.heads.values() if isinstance(head, Head)]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """L_f + weight * the sum of all L_S."""
        return F.cross_entropy(outputs, labels) + self.weight * torch.stack(self.parts(labels)).sum()


def gradient_norms(gradient: Tensor, kind: Literal["frobenius", "l21"] = "frobenius") -> Tensor:
    """One number for each input channel of a weight's gradient [groups, outputs, inputs, ..taps]: ``grouped``.

    "frobenius" is the paper's; "l21", the sum over outputs of the norms over taps, is what the authors' code computes.
    """
    flat = gradient.flatten(3) if gradient.dim() > 3 else gradient[..., None]
    if kind == "frobenius":
        return flat.square().sum((1, 3)).sqrt().flatten()
    return flat.square().sum(3).sqrt().sum(1).flatten()


@dataclass(frozen=True)
class Selection:
    """How channels join: until ``keep`` (a share of the inputs) are there, or the loss falls by less than ``least`` of
    the first in a round; ``per_round`` at a time (the paper: one), each round trained for ``steps`` at ``rate``.
    """

    keep: float = 0.5
    per_round: int = 1
    steps: int = 1
    rate: float = 0.01
    least: float = 0.0
    norm: Literal["frobenius", "l21"] = "frobenius"


def select_channels(
    module: nn.Module,
    layer: str,
    batches: Sequence[Batch],
    selection: Selection,
    discrimination: Loss | None = None,
    reference: nn.Module | None = None,
) -> Tensor:
    """bool[inputs]: the input channels that the layer keeps; all others are exactly zero in its weight afterwards.

    L = 1/(2 Q) |O - O_b|^2 + ``discrimination``(x, y), O_b what the layer gives in ``reference`` (the module as it is).
    A round adds the channels with the largest gradient norms, starts them at their weights in the reference, and trains
    the chosen columns alone. Norms and heads are as in eval mode. Raises InputError where there is no batch.
    """
    if not batches:
        raise InputError("dcp: channels are chosen by gradients over data; give at least one batch")
    base = copy.deepcopy(module if reference is None else reference).eval()
    state = _Stage(module.eval(), base, layer, discrimination)
    view = grouped(state.layer)
    known, inputs = grouped(base.get_submodule(layer)).clone(), view.shape[0] * view.shape[2]
    most = max(1, round(selection.keep * inputs))
    chosen = torch.zeros(inputs, dtype=torch.bool)
    view.zero_()
    loss, gradient = state.gradient(batches)
    first = last = loss
    while int(chosen.sum()) < most:
        norms = gradient_norms(gradient, selection.norm).masked_fill(chosen, -1.0)
        joins = norms.argsort(descending=True, stable=True)[: min(selection.per_round, most - int(chosen.sum()))]
        chosen[joins] = True
        fresh = torch.zeros(inputs, dtype=torch.bool)
        fresh[joins] = True
        view.add_(known * _columns(fresh, view))
        state.train(batches, ungrouped(_columns(chosen, view).expand(view.shape), state.layer), selection)
        loss, gradient = state.gradient(batches)
        if selection.least and abs(last - loss) <= selection.least * abs(first):
            break
        last = loss
    return chosen


def _columns(chosen: Tensor, view: Tensor) -> Tensor:
    """bool[inputs] so that it multiplies ``grouped``: [groups, 1, inputs, 1..]."""
    return chosen.view(view.shape[0], 1, view.shape[2], *(1,) * (view.dim() - 3)).to(view.dtype)


class _Stage:
    """The joint loss of one layer, with what both networks compute there."""

    def __init__(self, module: nn.Module, base: nn.Module, layer: str, discrimination: Loss | None) -> None:
        self.module, self.base, self.discrimination = module, base, discrimination
        self.layer = module.get_submodule(layer)
        self.weight, self.there = weight_of(self.layer), base.get_submodule(layer)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hooks = [m.register_forward_hook(lambda _, __, out: seen.append(out)) for m in (self.there, self.layer)]
        with torch.no_grad():
            self.base(x)
        extra = None if self.discrimination is None else self.discrimination(x, y)
        if len(seen) < 2:  # the discrimination loss may have run the network already
            self.module(x)
        for hook in hooks:
            hook.remove()
        gap = (seen[1] - seen[0]).square().sum() / (2 * seen[0].numel())
        return gap if extra is None else gap + extra

    def gradient(self, batches: Iterable[Batch]) -> tuple[float, Tensor]:
        """The mean loss over the batches, and its gradient by the weight, laid out as ``grouped``."""
        total, sums, count = 0.0, torch.zeros_like(self.weight), 0
        for x, y in batches:
            loss = self.loss(x, y)
            (found,) = torch.autograd.grad(loss, [self.weight])
            total, sums, count = total + float(loss.detach()) * len(x), sums + found * len(x), count + len(x)
        holder = copy.copy(self.layer)
        holder._parameters = {**self.layer._parameters, "weight": nn.Parameter(sums / count)}
        return total / count, grouped(holder)

    def train(self, batches: Sequence[Batch], mask: Tensor, selection: Selection) -> None:
        for number in range(selection.steps):
            x, y = batches[number % len(batches)]
            (found,) = torch.autograd.grad(self.loss(x, y), [self.weight])
            with torch.no_grad():
                self.weight.sub_(selection.rate * found * mask)
