"""``separable``: a dense window as a depthwise one and a 1x1 (MobileNet, Howard et al., 2017).

The weights come from the trained layer in closed form, channel by channel: network decoupling (Guo et al., BMVC 2018).

Before::

    %y = conv(%x, @c.weight) groups=1 pad=[1,1,1,1] stride=[2,2] .. : f32[1, 64, 4, 4]     @c.weight f32[64, 32, 3, 3]

After ``separable{rank=1}``::

    %y.depthwise = conv(%x, @c.depthwise.weight) groups=32 pad=[1,1,1,1] stride=[2,2] .. : f32[1, 32, 4, 4]
    %y = conv(%y.depthwise, @c.pointwise.weight) groups=1 pad=[0,0,0,0] stride=[1,1] .. : f32[1, 64, 4, 4]
    weights @c.depthwise.weight f32[32, 1, 3, 3]   @c.pointwise.weight f32[64, 32, 1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.ir import Graph, Node

from .factor import check_rank, factored, full_rank
from .layers import Edit, Names, chosen, no_window, rewrite_layers


@dataclass(frozen=True)
class Separable:
    """Dense convolutions as depthwise and 1x1 (MobileNet, 2017), in closed form (Guo et al. 2018).

    ``rank`` depthwise channels for each input. At rank min(O, k) the pair computes what the layer did. Costs 1/O +
    1/k of the layer at rank 1. A layer that would cost more afterwards is left alone, unless ``always``. ``norm``
    puts batch norm and ReLU between the two, as MobileNet has them: for networks that will be trained, since nothing
    is approximated then.
    """

    name: ClassVar[str] = "separable"
    rank: int = 1
    norm: bool = False
    layers: tuple[str, ...] = ("*",)
    always: bool = False

    def __call__(self, graph: Graph) -> Graph:
        """Raises InputError for an unknown layer or a rank that no layer has."""
        names = Names(graph)

        def edit(node: Node) -> Edit | str:
            why = no_window(graph, node, "there is no window to separate")
            if why:
                return why
            shape = graph.weights[str(node.inputs[1])].shape
            full = full_rank(shape, shape[1])
            check_rank(self.rank, full, f"{full} independent windows a channel")
            return factored(graph, node, names, shape[1], self.rank, ("depthwise", "pointwise"), self.norm)

        return rewrite_layers(graph, self, chosen(graph, self, self.layers, ("conv",)), edit, always=self.always)
