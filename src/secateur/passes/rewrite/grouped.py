"""``grouped``: a dense window as a grouped one and a 1x1 that lets the groups talk (ResNeXt, Xie et al., CVPR 2017).

Before::

    %y = conv(%x, @c.weight) groups=1 pad=[1,1,1,1] .. : f32[1, 64, 8, 8]          @c.weight f32[64, 32, 3, 3]

After ``grouped{groups=4}``::

    %y.grouped = conv(%x, @c.grouped.weight) groups=4 pad=[1,1,1,1] .. : f32[1, 64, 8, 8]
    %y = conv(%y.grouped, @c.mix.weight) groups=1 pad=[0,0,0,0] .. : f32[1, 64, 8, 8]
    weights @c.grouped.weight f32[64, 8, 3, 3]   @c.mix.weight f32[64, 64, 1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph, InputError, Node

from .factor import check_groups, factored, full_rank
from .layers import Edit, Misfit, Names, chosen, no_window, rewrite_layers


@dataclass(frozen=True)
class Grouped:
    """Dense convolutions as one in ``groups`` groups and a 1x1 (ResNeXt, Xie et al. 2017).

    ``width`` is the number of channels between the two as a share of the outputs; above 100% the layer has more
    channels at the same cost, as ResNeXt has. Weights are the truncated SVD of each group of inputs: exact for a
    weight that is block-diagonal already. A layer that would cost more afterwards is left alone, unless ``always``.
    ``norm`` puts batch norm and ReLU between the two: for networks that will be trained.
    """

    name: ClassVar[str] = "grouped"
    groups: int = 4
    width: float = 1.0
    norm: bool = False
    layers: tuple[str, ...] = ("*",)
    always: bool = False

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer, or groups that divide no layer's channels."""
        if self.groups < 2:
            raise InputError(f"grouped{{groups={self.groups}}}: give 2 groups or more")
        if self.width <= 0:
            raise InputError(f"grouped{{width={self.width:g}}}: give the share of the outputs, such as 100%")
        names = Names(graph)

        def edit(node: Node) -> Edit | str:
            why = no_window(graph, node, "two of them compute no more than one")
            if why:
                return why
            outs, ins, *kernel = graph.weights[str(node.inputs[1])].shape
            middle = round(self.width * outs)
            check_groups(self.groups, ("inputs", ins), (f"channels in the middle (width {self.width:.4g})", middle))
            rank, full = middle // self.groups, full_rank((outs, ins, *kernel), self.groups)
            if rank > full:
                raise Misfit(
                    f"width {self.width:.4g} asks for {rank} channels a group where {full} are exact; give at most "
                    f"{full * self.groups / outs:.4g}"
                )
            return factored(graph, node, names, self.groups, rank, ("grouped", "mix"), self.norm)

        return rewrite_layers(graph, self, chosen(graph, self, self.layers, ("conv",)), edit, always=self.always)
