"""``low_rank``: a layer as the product of two thinner ones, by SVD (Zhang et al., TPAMI 2016; Denton et al., 2014).

Before::

    %y = conv(%x, @c.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 64, 8, 8]          @c.weight f32[64, 64, 3, 3]

After ``low_rank{rank=16}``::

    %y.window = conv(%x, @c.window.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 16, 8, 8]
    %y = conv(%y.window, @c.mix.weight) groups=1 pad=[0,0,0,0] .. : f32[1, 64, 8, 8]
    weights @c.window.weight f32[16, 64, 3, 3]   @c.mix.weight f32[64, 16, 1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph, InputError, Node

from .factor import check_rank, factored, full_rank
from .layers import Edit, Names, chosen, obstacle, rewrite_layers


@dataclass(frozen=True)
class LowRank:
    """Convolutions and linear layers as two thinner ones by truncated SVD (Zhang et al. 2016).

    The rank is ``rank``, or ``ratio`` times the full rank. Full rank is min(O, I*k); there the pair computes what the
    layer did. A layer that would cost more afterwards is left alone, unless ``always``.
    """

    name: ClassVar[str] = "low_rank"
    ratio: float = 0.5
    rank: int | None = None
    layers: tuple[str, ...] = ("*",)
    always: bool = False

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer or a rank that no layer has."""
        if self.rank is None and not 0 < self.ratio <= 1:
            raise InputError(f"low_rank{{ratio={self.ratio:g}}}: the ratio is a share of the full rank; give 0 to 100%")
        names = Names(graph)

        def edit(node: Node) -> Edit | str:
            why = obstacle(graph, node)
            if why:
                return why
            if node.attrs.get("groups", 1) > 1:
                return "it is grouped already"
            shape = graph.weights[str(node.inputs[1])].shape
            full = full_rank(shape[::-1] if node.attrs.get("transposed") else shape, 1)
            rank = max(1, round(self.ratio * full)) if self.rank is None else self.rank
            check_rank(rank, full, f"a layer of full rank {full}")
            return factored(graph, node, names, 1, rank, ("window", "mix"), norm=False)

        return rewrite_layers(graph, self, chosen(graph, self, self.layers), edit, always=self.always)
