"""A network that reports what its read sites read while it runs, and gates whose derivatives need no kept gradient.

Whoever listens gets a site's values at once, so none is kept for the end of the run; a gate's derivative is summed as
soon as the gradient passes by, so no gradient is kept either. Both bound the memory of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from secateur.ir import Graph
from secateur.ir.exporters.torch.module import flat_module

from .needs import ReadSite
from .read_sites import exposed

Tensor = torch.Tensor
Listener = Callable[[ReadSite, Tensor], Tensor]


class Gate(torch.autograd.Function):
    """``x`` times a gate of 1 for each example and position along ``axis``.

    The gate f32[examples, positions] passes values on as they are, whatever it holds. Its derivative is the sum of
    gradient times value over all other axes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        product = ctx.saved_tensors[0] * gradient
        others = [d for d in range(1, product.dim()) if d != ctx.axis]
        return gradient, (product.sum(others) if others else product).float(), None


class Squares(torch.autograd.Function):
    """``x`` itself, and f32[examples, channels]: that one's derivative is the sum of x's squares over other axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beside: Tensor, axis: int) -> Tensor:
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        squares = gradient * gradient
        others = [d for d in range(1, squares.dim()) if d != ctx.axis]
        return gradient, (squares.sum(others) if others else squares).float(), None


class _Watch(nn.Module):
    """The identity, but for what the listener makes of a site's values."""

    def __init__(self, site: ReadSite, listener: Listener) -> None:
        super().__init__()
        self.site, self.listener = site, listener

    def forward(self, x: Tensor) -> Tensor:
        return self.listener(self.site, x)


def watched(graph: Graph, sites: Sequence[ReadSite], listener: Listener) -> tuple[fx.GraphModule, Mapping[str, str]]:
    """``flat_module`` of the graph, but that what flows through each site goes through ``listener(site, values)``.

    Of several sites with one value each gets what the one before returned. Raises Unsupported where torch cannot.
    """
    module, places = flat_module(exposed(graph, sites))
    (end,) = (n for n in module.graph.nodes if n.op == "output")
    outs = list(end.args[0])
    count = len(graph.outputs)
    for number, (site, value) in enumerate(zip(sites, outs[count:], strict=True)):
        path = f"watch_{number}"
        while hasattr(module, path):
            path += "_"
        module.add_submodule(path, _Watch(site, listener))
        with module.graph.inserting_after(value):
            heard = module.graph.call_module(path, (value,))
        value.replace_all_uses_with(heard, delete_user_cb=lambda user, heard=heard: user is not heard)
    end.args = (tuple(end.args[0][:count]),)
    module.recompile()
    return module, places
