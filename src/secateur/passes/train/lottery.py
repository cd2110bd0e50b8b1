"""Lottery tickets: Zhou et al., "Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask", NeurIPS 2019.

Train, score every weight by what it was and what it became, keep the best of each layer (the mask criterion), start
again with what is kept (mask-1 action) and with what is not (mask-0 action), train, and once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

from .masks import Masks
from .weights import check_share, layers, path_of, weight_of

Score = Callable[[Tensor, Tensor, Generator], Tensor]  # (initial, final, random) -> higher is kept
One = Callable[[Tensor, Tensor, Generator], Tensor]  # (initial, kept: bool, random) -> where kept weights start


def rank(x: Tensor) -> Tensor:
    """Each number's place among all, from 0: what makes initial and final sizes comparable."""
    return x.flatten().argsort(stable=True).argsort(stable=True).view(x.shape).double()


# The two that look at both sizes keep what is large (small) in both: a common threshold on ranks, as the authors' code.
CRITERIA: Mapping[str, Score] = MappingProxyType({
    "large_final": lambda i, f, _: f.abs(),
    "small_final": lambda i, f, _: -f.abs(),
    "large_init": lambda i, f, _: i.abs(),
    "small_init": lambda i, f, _: -i.abs(),
    "large_init_large_final": lambda i, f, _: torch.minimum(rank(i.abs()), rank(f.abs())),
    "small_init_small_final": lambda i, f, _: -torch.maximum(rank(i.abs()), rank(f.abs())),
    "magnitude_increase": lambda i, f, _: f.abs() - i.abs(),
    "movement": lambda i, f, _: (f - i).abs(),
    "random": lambda i, f, r: torch.rand(i.shape, generator=r),
    "large_final_same_sign": lambda i, f, _: (f * i.sign()).clamp_min(0),
    "large_final_diff_sign": lambda i, f, _: (-f * i.sign()).clamp_min(0),
})  # fmt: skip


def _shuffle_all(initial: Tensor, kept: Tensor, random: Generator) -> Tensor:
    return initial.flatten()[torch.randperm(initial.numel(), generator=random)].view(initial.shape)


def _shuffle(initial: Tensor, kept: Tensor, random: Generator) -> Tensor:
    result, at = initial.clone().flatten(), kept.flatten().nonzero().flatten()
    result[at] = result[at[torch.randperm(len(at), generator=random)]]
    return result.view(initial.shape)


def _shuffle_by_sign(initial: Tensor, kept: Tensor, random: Generator) -> Tensor:
    result = initial
    for sign in (-1, 1):
        result = _shuffle(result, kept & (initial.sign() == sign), random)
    return result


def _deviation(initial: Tensor) -> Tensor:
    return initial.std(correction=0)


def _coins(initial: Tensor, random: Generator) -> Tensor:
    return torch.randint(2, initial.shape, generator=random).to(initial.dtype) * 2 - 1


# ``reinit`` draws from the distribution of the layer's initial values by shuffling them all, as the authors' code does.
ONES: Mapping[str, One] = MappingProxyType({
    "rewind": lambda i, k, r: i,
    "reinit": _shuffle_all,
    "reinit_signed": lambda i, k, r: _shuffle_all(i, k, r).abs() * i.sign(),
    "reshuffle": _shuffle,
    "reshuffle_signed": _shuffle_by_sign,
    "constant": lambda i, k, r: _coins(i, r) * _deviation(i),
    "constant_signed": lambda i, k, r: i.sign() * _deviation(i),
})  # fmt: skip
ZEROS = ("zero", "freeze", "zero_shrunk", "zero_all_shrunk")


@dataclass(frozen=True)
class Actions:
    """What a ticket starts with. ``one`` of ``ONES`` for kept weights, ``zero`` of ``ZEROS`` for the others.

    "rewind" to the initial value, "reinit" from its distribution, "reshuffle" among the kept ones, "constant" plus or
    minus the layer's initial standard deviation; "_signed" keeps the initial sign. Removed weights stay at "zero", or
    "freeze" at their initial value; "zero_shrunk": at zero those that training made smaller, the others frozen;
    "zero_all_shrunk": and kept weights that shrank start at zero too.
    """

    one: str = "rewind"
    zero: str = "zero"

    def __post_init__(self) -> None:
        """Raises InputError for an action that does not exist."""
        for given, known in ((self.one, tuple(ONES)), (self.zero, ZEROS)):
            if given not in known:
                raise InputError(f"there is no action '{given}'{did_you_mean(given, known)}; take {', '.join(known)}")

    def start(self, initial: Tensor, final: Tensor, kept: Tensor, random: Generator) -> Tensor:
        """Where all weights of a layer start; those that are not ``kept`` stay there."""
        shrunk = final.abs() < initial.abs()
        ones = ONES[self.one](initial, kept, random)
        zeros = torch.zeros_like(initial) if self.zero == "zero" else initial
        if self.zero.endswith("shrunk"):
            zeros = torch.where(shrunk, 0.0, zeros)
        if self.zero == "zero_all_shrunk":
            ones = torch.where(shrunk, 0.0, ones)
        return torch.where(kept, ones, zeros)


def cut(scores: Tensor, before: Tensor, share: float, random: Generator) -> Tensor:
    """bool: ``before`` without int(share * what is left) of its lowest scores, ties at random; nothing returns."""
    left = int(before.sum())
    order = torch.randperm(scores.numel(), generator=random)
    ranked = scores.flatten().double().masked_fill(~before.flatten(), -torch.inf)[order]
    best = order[ranked.argsort(descending=True, stable=True)[: left - int(share * left + 1e-9)]]
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[best] = True
    return mask.view(scores.shape) & before


@dataclass(frozen=True, eq=False)
class Ticket:
    """One round: masks by parameter name, and the weights that it starts with."""

    number: int
    masks: Mapping[str, Tensor]
    start: Mapping[str, Tensor]

    @property
    def density(self) -> float:
        """The share of the masked weights that is kept."""
        return sum(int(m.sum()) for m in self.masks.values()) / max(sum(m.numel() for m in self.masks.values()), 1)

    @torch.no_grad()
    def put_into(self, module: nn.Module) -> Masks:
        """Set the module's weights to where the ticket starts, and give the hook that keeps them masked."""
        parameters = dict(module.named_parameters())
        for name, value in self.start.items():
            parameters[name].copy_(value)
        return Masks(module, self.masks, {name: self.start[name] for name in self.masks})


def ticket(
    initial: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    criterion: str,
    share: float | Mapping[str, float],
    actions: Actions,
    random: Generator,
    before: Ticket | None = None,
) -> Ticket:
    """What is kept after training from ``initial`` to ``final``, and how it starts again.

    ``share`` of what is left goes from every weight of two axes or more, or from each by its name (none where it has
    none). Raises InputError for a criterion that does not exist, and for weights that do not fit.
    """
    if criterion not in CRITERIA:
        raise InputError(
            f"there is no mask criterion '{criterion}'{did_you_mean(criterion, CRITERIA)}; take {', '.join(CRITERIA)}"
        )
    masks, start = dict[str, Tensor](), {name: value.detach().clone() for name, value in initial.items()}
    for name, value in initial.items():
        if value.dim() < 2 or name not in final:
            continue
        amount = check_share(share.get(name, 0.0) if isinstance(share, Mapping) else share, "share")
        known = torch.ones(value.shape, dtype=torch.bool) if before is None else before.masks[name]
        scores = CRITERIA[criterion](value, final[name], random)
        masks[name] = cut(scores, known, amount, random)
        start[name] = actions.start(value, final[name], masks[name], random)
    return Ticket(0 if before is None else before.number + 1, masks, start)


def weights(module: nn.Module, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The module's layers' weights now, by parameter name: what ``ticket`` compares."""
    return {path_of(name): weight_of(layer).detach().clone() for name, layer in layers(module, names).items()}


def rounds(
    module: nn.Module,
    train: Callable[[nn.Module, Masks | None], None],
    count: int,
    criterion: str = "large_final",
    share: float | Mapping[str, float] = 0.2,
    actions: Actions | None = None,
    seed: int = 0,
    rewind: Callable[[], Mapping[str, Tensor]] | None = None,
) -> Iterator[Ticket]:
    """Iterative tickets: train, cut, set back, train again; each ticket comes out trained, masks nested.

    ``train`` trains the module in place with the hook on its optimiser; before it, all parameters and buffers are what
    they were in the beginning, weights what the ticket starts with. ``rewind``: the weights to go back to, asked for
    after the first training (early ones rather than initial ones, as large networks need; Frankle et al. 2019).
    """
    random = torch.Generator().manual_seed(seed)
    begin = {name: value.detach().clone() for name, value in module.state_dict().items()}
    initial = weights(module)
    train(module, None)
    if rewind is not None:
        initial = {name: value.detach().clone() for name, value in rewind().items()}
    found: Ticket | None = None
    for _ in range(count):
        final = weights(module)
        found = ticket(initial, final, criterion, share, actions or Actions(), random, found)
        module.load_state_dict(begin)
        train(module, found.put_into(module))
        yield found
