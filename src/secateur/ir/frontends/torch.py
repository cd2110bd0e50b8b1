"""Torch in: a module or an ExportedProgram becomes a graph.

The module is traced in eval mode by ``torch.export`` without decompositions, so that layers stay
layers. Weights keep their names and share the module's memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.ir.errors import InputError
from secateur.ir.graph import Graph
from secateur.ir.verify import verify

from .torch_batch import free_batch
from .torch_capture import Capture, capture, from_exported
from .torch_import import Importer
from .torch_origin import TorchOrigin

__all__ = ["TorchOrigin", "trace"]


def trace(
    module: nn.Module | torch.export.ExportedProgram,
    example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor | None = None,
    name: str | None = None,
    dynamic_batch: bool = True,
) -> Graph:
    """Capture a network.

    ``example_inputs`` are the positional arguments of ``module`` (a lone tensor is one argument);
    an ExportedProgram needs none. With ``dynamic_batch`` the network is traced a second time with
    one more example in the batch, and where both traces agree the batch is ``Sym(n, "N")``.
    The module is left as it was, to the last attribute. Raises InputError, Unsupported.
    """
    if isinstance(module, torch.export.ExportedProgram):
        return _build(from_exported(module), name or "exported")
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module or an ExportedProgram, got {type(module).__name__}.")
    args = _arguments(module, example_inputs)
    title = name or type(module).__name__
    graph = _build(capture(module, args), title)
    if not dynamic_batch:
        return graph
    more = _one_more(args)
    if more is None:
        return graph
    try:
        other = _build(capture(module, more), title)
    except Exception:  # a network that only takes this batch keeps it
        return graph
    return free_batch(graph, other)


def _build(found: Capture, title: str) -> Graph:
    return verify(Importer(found).run(title))


def _arguments(module: nn.Module, example: Any) -> tuple[Any, ...]:
    if example is None:
        raise InputError(
            f"{type(module).__name__}: example_inputs are missing. Pass a tuple of tensors of the shapes the network "
            "takes, for example (torch.randn(1, 3, 224, 224),)."
        )
    if isinstance(example, torch.Tensor | dict):
        return (example,)
    return tuple(example)


def _one_more(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The example with its first row of each input once more; None if the inputs have no common batch."""
    leaves, spec = pytree.tree_flatten(args)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves if isinstance(leaf, torch.Tensor)}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        return None
    grown = [torch.cat([leaf, leaf[:1]]) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args_again: tuple[Any, ...] = pytree.tree_unflatten(grown, spec)
    return args_again
