"""Torch in: a module or an ExportedProgram becomes a graph.

The module is traced in eval mode by ``torch.export`` without decompositions, so that layers stay
layers. Weights keep their names and share the module's memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from secateur.ir.errors import InputError
from secateur.ir.graph import Graph
from secateur.ir.torch_origin import TorchOrigin
from secateur.ir.verify import verify

from .capture import Capture, capture, from_exported
from .importer import Importer
from .sizes import free_sizes
from .training import train_remarks
from .untouched import untouched

__all__ = ["TorchOrigin", "trace"]


def trace(
    module: nn.Module | torch.export.ExportedProgram,
    example_inputs: object = None,
    name: str | None = None,
    dynamic_batch: bool = True,
    fold: bool = True,
) -> Graph:
    """Capture a network.

    ``example_inputs`` are the positional arguments of ``module`` (a lone tensor is one argument);
    an ExportedProgram needs none. With ``dynamic_batch`` the network is traced again with one more
    example in the batch and at other sizes, and where the traces agree the batch is ``Sym(n, "N")``.
    With ``fold`` weights that are normalised before use (weight norm, weight standardisation) are kept as what they
    are now, so that their channels can be pruned; without it they stay functions of the parameters.
    The module is left as it was, to the last attribute. Raises InputError, Unsupported.
    """
    if isinstance(module, torch.export.ExportedProgram):
        return _build(from_exported(module), name or "exported", fold)
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module or an ExportedProgram, got {type(module).__name__}.")
    args = _arguments(module, example_inputs)
    title = name or type(module).__name__
    graph = _build(capture(module, args), title, fold)
    said, origin = train_remarks(module), graph.note(TorchOrigin)
    if said and origin is not None:
        graph = graph.with_note(dataclasses.replace(origin, capture_remarks=(*origin.capture_remarks, *said)))
    if not dynamic_batch:
        return graph

    def read(other: tuple[object, ...]) -> Graph:
        with untouched(module), torch.no_grad():  # a run says sooner than a capture that it does not take them
            module.eval()(*other)
        return _build(capture(module, other), title, fold)

    return free_sizes(graph, args, read)


def _build(found: Capture, title: str, fold: bool) -> Graph:
    return verify(Importer(found, fold).run(title))


def _arguments(module: nn.Module, example: object) -> tuple[object, ...]:
    if example is None:
        raise InputError(
            f"{type(module).__name__}: example_inputs are missing. Pass a tuple of tensors of the shapes the network "
            "takes, for example (torch.randn(1, 3, 224, 224),)."
        )
    if isinstance(example, torch.Tensor | dict):
        return (example,)
    return tuple(cast("Iterable[object]", example))
