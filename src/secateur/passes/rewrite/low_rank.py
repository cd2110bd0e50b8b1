"""``low_rank``: a layer as the product of two thinner ones, by SVD (Zhang et al., TPAMI 2016; Denton et al., 2014).

Before::

    %y = conv(%x, @c.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 64, 8, 8]          @c.weight f32[64, 64, 3, 3]

After ``low_rank{rank=16}``::

    %y.window = conv(%x, @c.window.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 16, 8, 8]
    %y = conv(%y.window, @c.mix.weight) groups=1 pad=[0,0,0,0] .. : f32[1, 64, 8, 8]
    weights @c.window.weight f32[16, 64, 3, 3]   @c.mix.weight f32[64, 16, 1, 1]
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph, InputError, Node
from secateur.passes.analysis.cost import cost
from secateur.passes.pipeline import print_pass

from .factor import check_rank, factored, full_rank
from .layers import Edit, Names, Row, chosen, noted, obstacle, price, rewrite_layers
from .ranks import ranks_within, spectra_of


@dataclass(frozen=True)
class LowRank:
    """Convolutions and linear layers as two thinner ones by truncated SVD (Zhang et al. 2016).

    The rank is ``rank``, or ``ratio`` times the full rank, or for each of ``layers`` its own of ``ranks``. Full rank is
    min(O, I*k); there the pair computes what the layer did. A layer that would cost more afterwards is left alone,
    unless ``always``. With ``macs`` ranks are chosen for all layers together so that at most this share of the
    network's multiply-accumulates is left: by what responses lack then, as far as that reaches the outputs, where there
    are calibration data (``ranks``). Ranks that were chosen are multiples of ``round_to``. The factors are those of the
    weights alone; ``refit`` after it solves both for what flows through.
    """

    name: ClassVar[str] = "low_rank"
    ratio: float = 0.5
    rank: int | None = None
    layers: tuple[str, ...] = ("*",)
    always: bool = False
    macs: float | None = None
    ranks: tuple[int, ...] = ()
    round_to: int = 1

    @property
    def data(self) -> bool:
        """Does it look at calibration data?"""
        return self.macs is not None

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer, a rank that no layer has, and a budget that no ranks meet."""
        if self.rank is None and not 0 < self.ratio <= 1:
            raise InputError(f"low_rank{{ratio={self.ratio:g}}}: the ratio is a share of the full rank; give 0 to 100%")
        if self.ranks and len(self.ranks) != len(self.layers):
            raise InputError(f"low_rank: {len(self.ranks)} ranks for {len(self.layers)} layers; give one for each")
        if sum((self.rank is not None, self.macs is not None, bool(self.ranks))) > 1:
            raise InputError(f"{print_pass(self)}: rank, ranks and macs each say what ranks are; give one of them")
        return self._rewritten(graph) if self.macs is None else self._within(graph, self.macs)

    def _rewritten(self, graph: Graph) -> Graph:
        """The layers at ranks that are given."""
        names, own = Names(graph), zip(self.layers, self.ranks, strict=False)
        ranks = {n.name: rank for pattern, rank in own for n in chosen(graph, self, (pattern,))}

        def edit(node: Node) -> Edit | str:
            why = _obstacle(graph, node)
            if why:
                return why
            full = _full(graph, node)
            rank = max(1, round(self.ratio * full)) if self.rank is None else self.rank
            rank = ranks.get(node.name, rank)
            check_rank(rank, full, f"a layer of full rank {full}")
            return factored(graph, node, names, 1, rank, ("window", "mix"), norm=False)

        return rewrite_layers(graph, self, chosen(graph, self, self.layers), edit, always=self.always)

    def _within(self, graph: Graph, share: float) -> Graph:
        """The layers at ranks that the budget allows, written down as such, so that it can be repeated without data."""
        if not 0 < share <= 1 or self.round_to < 1:
            raise InputError(f"{print_pass(self)}: macs is the share that remains, 0 to 100%; round_to 1 or more")
        found = chosen(graph, self, self.layers)
        free = [n for n in found if _obstacle(graph, n) is None]
        costs = {n.name: self._costs(graph, n) for n in free}
        total = cost(graph).macs
        fixed = total - sum(whole for whole, _ in costs.values())
        limit = int(share * total) - fixed
        narrow = sum(
            min(whole, self.round_to * each) if self.round_to <= _full(graph, n) else whole
            for n, (whole, each) in ((n, costs[n.name]) for n in free)
        )
        if narrow > limit:
            raise InputError(
                f"{print_pass(self)}: the least ranks leave {(fixed + narrow) / max(total, 1):.1%} of the "
                "multiply-accumulates; ask for more than that, or for other layers"
            )
        ranks = ranks_within(spectra_of(graph, free, costs), limit, self.round_to)
        taken = [n for n in free if n.name in ranks]
        once = dataclasses.replace(
            self, macs=None, round_to=1, layers=tuple(n.label for n in taken), ranks=tuple(ranks[n.name] for n in taken)
        )
        kept = {n.name: _obstacle(graph, n) or "the budget leaves it whole" for n in found if n.name not in ranks}
        graph = noted(graph, [_row(graph, n, print_pass(self), kept[n.name]) for n in found if n.name in kept])
        return once._rewritten(graph) if taken else graph

    @staticmethod
    def _costs(graph: Graph, node: Node) -> tuple[int, int]:
        """The multiply-accumulates of a layer, and of one rank of the two in its place."""
        whole = price(graph, (node,), {}).macs
        edit = factored(graph, node, Names(graph), 1, 1, ("window", "mix"), norm=False)
        return whole, price(graph, edit.nodes, edit.weights).macs


def _obstacle(graph: Graph, node: Node) -> str | None:
    """Why a layer keeps its weight, or None."""
    return obstacle(graph, node) or ("it is grouped already" if node.attrs.get("groups", 1) > 1 else None)


def _full(graph: Graph, node: Node) -> int:
    """The rank at which a layer's factors are exact."""
    shape = graph.weights[str(node.inputs[1])].shape
    return full_rank(shape[::-1] if node.attrs.get("transposed") else shape, 1)


def _row(graph: Graph, node: Node, spec: str, reason: str) -> Row:
    """A layer that is left alone."""
    costs = price(graph, (node,), {})
    return Row(node.label, node.name, spec, (costs.macs, costs.macs), (costs.params, costs.params), reason=reason)
