"""Knapsack allocation: the widths of all layers at once that keep most importance under one budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np

from secateur.ir import Array, BudgetError, Graph, InputError, PassError
from secateur.passes.notes import Coupling, KeepMask

from .amount import Allocation, Amount, Budgeted
from .budget import before, meet, notes_of, roundings
from .estimate import fixed_cost, work_of_weights
from .select import Ladder, by_score, climb
from .solver.choice import answer
from .solver.problem import Problem
from .widths import Stops, stops

MOST_PLANS = 120_000  # products of options that one programme may hold; beyond, products are linearised in turns
TURNS = 8
PROVEN = MappingProxyType({"share": 5e-4, "sum": 1e-4})  # gaps that count as none; many products are nearly alike
LEAST = 1e-6  # the share that a set counts as keeping where it keeps nothing


@dataclass(frozen=True)
class Knapsack(Budgeted):
    """Of ``levels`` widths for every set of channels, those that keep most importance (HALP, NeurIPS 2022, and the
    cross-layer knapsack in general), solved by branch and bound to within 1e-4 of the least loss, 5e-4 for shares.

    ``loss`` "share": the product over all sets of the share of its importance that each keeps is largest, as what one
    layer lost no later one has. Its logarithms add up whether or not scores of different layers compare, and a set
    loses more with each channel, so that none is starved. "sum": the importance that goes is least in sum, as in HALP;
    it takes scores that add up over layers, and gives up whole layers where these are alike within each.

    A layer costs the product of its two widths; these products enter exactly, or, in networks whose layers read very
    many others (DenseNet), linearised around the last solution, in turns. ``macs``, ``params``, ``bytes``: what
    remains at most; ``latency_ms``: how long a run may take; ``speedup``: how many times as fast it is at least.
    ``rounds``: prune in so many steps, and repair and score again after each. ``floor``: the share of every set that
    stays whatever its scores. ``by`` "time": under a budget of time what each layer took in a run of the
    network is shared out, where layers can be timed, multiply-accumulates as well, both in equal parts, and with
    calibration data one share of all layers and, with ``round_to`` "auto", widths of half vectors: of the networks
    that meet the budget as measured, the one is taken that answers most like the original once it is repaired, on
    data that its repair did not see, or without data the one that loses least. ``readers`` "own", with
    ``obs``: layers that read the same tensor may each go without other channels of it, where the network then loses
    less (UPSCALE, ICML 2023; ``OwnReaders``).
    """

    name: ClassVar[str] = "knapsack"
    levels: int = 16
    floor: float = 0.1
    loss: Literal["share", "sum"] = "share"
    by: Literal["macs", "time"] = "macs"
    readers: Literal["tied", "own"] = "tied"

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for senseless options, BudgetError that states the least that can be reached."""
        return self.within(graph, self.amount)

    def lost(self, graph: Graph) -> float:
        """What the graph's mask gives up of the importance, in the terms of ``loss``."""
        coupling, importance = notes_of(graph, self.name)
        mask = graph.note(KeepMask)
        assert mask is not None
        ladder = climb(coupling, importance.scores, self.floor)
        there = np.zeros(len(ladder.orbit), bool)
        there[ladder.rung[(ladder.rung >= 0) & mask.mask]] = True
        kept = np.bincount(ladder.orbit[there], minlength=len(ladder.length))
        return float(sum(lost(ladder, o, kept[o : o + 1], self.loss)[0] for o in range(len(kept))))

    def within(self, graph: Graph, amount: Amount) -> Graph:
        """The same for another budget, which may be one of kind "time" where the graph has ``Prices``."""
        if not 0 <= self.floor <= 1 or self.levels < 2:
            raise InputError(f"knapsack{{levels={self.levels},floor={self.floor:g}}}: 2 levels or more, floor a share")
        if self.loss not in ("share", "sum"):
            raise InputError(f"knapsack{{loss={self.loss}}}: the loss is share or sum")
        if self.by not in ("macs", "time"):
            raise InputError(f"knapsack{{by={self.by}}}: by macs or time")
        if self.readers not in ("tied", "own"):
            raise InputError(f"knapsack{{readers={self.readers}}}: readers are tied, or keep their own channels (own)")
        if self.readers != "tied":
            raise PassError("'knapsack{readers=own}': an allocation ties readers; a policy unties them (OwnReaders)")
        coupling, importance = notes_of(graph, self.name, self.rounds)
        ladder = climb(coupling, importance.scores, self.floor)
        table = stops(coupling, ladder, roundings(graph, self.round_to)[0], work_of_weights(graph, "macs"))
        options = [_options(ladder, table, orbit, self.levels) for orbit in range(len(ladder.length))]
        limit = amount.limit(before(graph, amount.kind)) - fixed_cost(graph, amount.kind)
        kept, gap = widths(graph, coupling, ladder, options, amount.kind, limit, self.loss)
        order = by_score(ladder)
        chosen = ladder.rank[order] < kept[ladder.orbit[order]]
        # The solution, then what it leaves out: the budget is met by the real count along this order.
        done = meet(graph, amount, ladder, np.concatenate([order[chosen], order[~chosen]]), self.round_to)
        return _noted(done, gap, PROVEN[self.loss])


def _noted(graph: Graph, gap: float | None, proven: float) -> Graph:
    """The allocation with the gap that the solver left, and a sentence where the best choice is not proven."""
    note = graph.note(Allocation)
    assert note is not None
    remarks = note.remarks
    if gap is None:
        remarks += (
            "knapsack: products of widths were linearised in turns, so its choice is not proven to be the best",
        )
    elif gap > proven:
        remarks += (
            f"knapsack: time was over before the best choice was proven; one that loses {gap:.2%} less may exist",
        )
    return graph.with_note(dataclasses.replace(note, remarks=remarks, gap=gap))


def _options(ladder: Ladder, table: Stops, orbit: int, levels: int) -> Array:
    """int[..]: the numbers of rungs that an orbit may keep, rising, whole at the end; at most ``levels`` of them."""
    least, length = int(ladder.least[orbit]), int(ladder.length[orbit])
    base = np.zeros(len(ladder.length), np.int64)
    found = {length}
    for rungs in range(least, length):
        base[orbit] = rungs
        near = int(table.rounded(base)[orbit])
        if least <= near <= length:
            found.add(near)
    every = np.array(sorted(found), np.int64)
    if len(every) <= levels:
        return every
    return every[np.unique(np.round(np.linspace(0, len(every) - 1, levels)).astype(np.int64))]


def widths(
    graph: Graph, coupling: Coupling, ladder: Ladder, options: list[Array], kind: str, limit: float, of: str
) -> tuple[Array, float | None]:
    """(int[orbits]: rungs kept, the gap left or None where it is not known).

    Nothing is given up where not even the least widths fit (``meet`` then says so).
    """
    loss = [lost(ladder, orbit, kept, of) for orbit, kept in enumerate(options)]
    layers = _layers(graph, coupling, ladder, options, kind)
    whole = np.array([len(o) - 1 for o in options])
    gap: float | None
    try:
        if sum(len(options[a]) * len(options[b]) for a, b in _pairs(layers)) <= MOST_PLANS:
            cost, pairs, fixed = _expand(layers, options)
            found = answer(Problem(loss, cost, pairs, limit - fixed), PROVEN[of])
            chosen, gap = np.array(found.chosen), found.gap
        else:
            chosen, gap = _in_turns(layers, loss, options, limit, whole, PROVEN[of]), None
    except BudgetError:
        chosen, gap = whole, None
    return np.array([o[k] for o, k in zip(options, chosen, strict=True)], np.int64), gap


def lost(ladder: Ladder, orbit: int, kept: Array, of: str) -> Array:
    """f64[options]: ``of`` "sum" the importance of the units that go at each option, "share" -log of the share left."""
    mine = np.flatnonzero(ladder.orbit == orbit)
    mine = mine[np.argsort(ladder.rank[mine])]
    value = np.maximum(ladder.score[mine], 0.0) * ladder.members[mine]
    total = np.concatenate([[0.0], np.cumsum(value)])
    if of == "sum":
        return np.asarray(total[-1] - total[kept])
    if total[-1] <= 0:  # nothing in this set matters
        return np.zeros(len(kept))
    return np.asarray(-np.log(np.maximum(total[kept] / total[-1], LEAST)))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A weight: its whole cost, and for each side the share that is fixed and that of each orbit by option."""

    cost: float
    sides: tuple[tuple[float, Mapping[int, Array]], ...]

    def share(self, side: int, chosen: Array) -> float:
        """The share of a side that stays."""
        fixed, parts = self.sides[side]
        return fixed + sum(float(p[chosen[o]]) for o, p in parts.items())


def _layers(graph: Graph, coupling: Coupling, ladder: Ladder, options: list[Array], kind: str) -> list[_Layer]:
    cost = work_of_weights(graph, kind)
    sides: dict[str, dict[int, tuple[float, dict[int, Array]]]] = {}
    for slot in coupling.slots:
        if slot.weight not in cost or slot.axis in sides.get(slot.weight, {}):
            continue
        live = slot.units >= 0
        rung = ladder.rung[slot.units[live]]
        orbit, rank = ladder.orbit[rung], ladder.rank[rung]
        parts = {}
        for o in np.unique(orbit).tolist():
            ranks = np.sort(rank[orbit == o])
            parts[o] = np.searchsorted(ranks, options[o], side="left") / len(slot.units)
        sides.setdefault(slot.weight, {})[slot.axis] = (float((~live).sum()) / len(slot.units), parts)
    whole: tuple[float, dict[int, Array]] = (1.0, {})
    found = []
    for name, price in cost.items():
        known = list(sides.get(name, {}).values())[:2]
        found.append(_Layer(float(price), tuple([*known, whole, whole][:2])))
    return found


def _pairs(layers: list[_Layer]) -> set[tuple[int, int]]:
    """The orbits whose widths are multiplied somewhere, each pair once."""
    return {(min(a, b), max(a, b)) for layer in layers for a in layer.sides[0][1] for b in layer.sides[1][1] if a != b}


def _expand(layers: list[_Layer], options: list[Array]) -> tuple[list[Array], dict[tuple[int, int], Array], float]:
    """(cost of single orbits, cost of pairs, cost of what is fixed): the products multiplied out."""
    cost = [np.zeros(len(o)) for o in options]
    pairs: dict[tuple[int, int], Array] = {}
    constant = 0.0
    for layer in layers:
        (left, ones), (right, others) = layer.sides
        constant += layer.cost * left * right
        for o, part in ones.items():
            cost[o] += layer.cost * right * part
        for o, part in others.items():
            cost[o] += layer.cost * left * part
        for a, one in ones.items():
            for b, other in others.items():
                if a == b:
                    cost[a] += layer.cost * one * other
                    continue
                matrix = layer.cost * np.outer(one, other)
                key, matrix = ((a, b), matrix) if a < b else ((b, a), matrix.T)
                pairs[key] = pairs[key] + matrix if key in pairs else matrix
    return cost, pairs, constant


def _in_turns(
    layers: list[_Layer], loss: list[Array], options: list[Array], limit: float, whole: Array, gap: float
) -> Array:
    """Products linearised around the last solution, solved again until it stays; the best that fits is taken."""
    spent = sum(layer.cost * layer.share(0, whole) * layer.share(1, whole) for layer in layers)
    start = np.sqrt(min(1.0, limit / max(spent, 1.0)))
    at = np.array([round(start * w) for w in whole])
    best, least = whole, np.inf
    for _ in range(TURNS):
        cost, constant = [np.zeros(len(o)) for o in options], 0.0
        for layer in layers:
            s, t = layer.share(0, at), layer.share(1, at)
            (left, ones), (right, others) = layer.sides
            constant += layer.cost * (left * t + right * s - s * t)
            for o, part in ones.items():
                cost[o] += layer.cost * t * part
            for o, part in others.items():
                cost[o] += layer.cost * s * part
        chosen = np.array(answer(Problem(loss, cost, {}, limit - constant), gap).chosen)
        real = sum(layer.cost * layer.share(0, chosen) * layer.share(1, chosen) for layer in layers)
        lost = sum(float(v[k]) for v, k in zip(loss, chosen, strict=True))
        if real <= limit * 1.02 and lost < least:
            best, least = chosen, lost
        if np.array_equal(chosen, at):
            break
        at = chosen
    return best
