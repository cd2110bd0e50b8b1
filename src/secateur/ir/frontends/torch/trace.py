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
from torch.utils import _pytree as pytree

from secateur.ir.errors import InputError
from secateur.ir.graph import Graph
from secateur.ir.torch_origin import Integers, TorchOrigin
from secateur.ir.verify import verify

from .arrays import to_numpy
from .capture import Capture, capture, from_exported
from .grown import NOTHING, Grown, differing
from .importer import Importer
from .sizes import free_sizes
from .training import train_remarks
from .untouched import untouched

__all__ = ["TorchOrigin", "trace"]

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


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
    found = capture(module, args)
    graph = _remarked(_build(found, title, fold), module)
    return _with_integers(_freed(graph, module, title, fold, args, found) if dynamic_batch else graph, args)


def _freed(graph: Graph, module: nn.Module, title: str, fold: bool, args: tuple[object, ...], found: Capture) -> Graph:
    """The graph with the sizes open that the module leaves open."""
    reader = _Reader(module, title, fold, args, found)
    freed = free_sizes(graph, args, reader)
    origin = freed.note(TorchOrigin)
    if origin is None or not (origin.fixed or origin.follows):
        return freed
    grown = reader.differing()
    again = free_sizes(_remarked(_build(found, title, fold, grown), module), args, reader.growing(grown))
    better = again.note(TorchOrigin)
    return freed if better is None or better.fixed or better.follows else again


class _Reader:
    """Captures the module at other sizes, each once."""

    def __init__(self, module: nn.Module, title: str, fold: bool, args: tuple[object, ...], found: Capture) -> None:
        self.module, self.title, self.fold = module, title, fold
        self.grown: Grown = NOTHING
        self.captures: dict[str, Capture | Exception] = {}
        self.first = found

    def __call__(self, other: tuple[object, ...]) -> Graph:
        key = str([tuple(t.shape) for t in pytree.tree_leaves(other) if isinstance(t, torch.Tensor)])
        if key not in self.captures:
            try:
                with untouched(self.module), torch.no_grad():  # a run says sooner than a capture that it takes no such
                    self.module.eval()(*other)
                self.captures[key] = capture(self.module, other, places=False)
            except Exception as error:
                self.captures[key] = error
        found = self.captures[key]
        if isinstance(found, Exception):
            raise found
        return _build(found, self.title, self.fold, self.grown)

    def differing(self) -> Grown:
        """What is not the same at all sizes; see ``grown``."""
        found: dict[str, frozenset[str]] = {}
        for other in self.captures.values():
            if isinstance(other, Capture):
                for name, what in differing(self.first, other).items():
                    found[name] = found.get(name, frozenset()) | what
        return found

    def growing(self, grown: Grown) -> _Reader:
        """The same captures, read with these calls in the graph."""
        self.grown = grown
        return self


def _with_integers(graph: Graph, args: tuple[object, ...]) -> Graph:
    """The graph with a note of the integers among its example inputs, which random ones could not stand for."""
    tensors = (leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor))
    found = {v.name: to_numpy(t).copy() for v, t in zip(graph.inputs, tensors, strict=False) if t.dtype in _WHOLE}
    return graph.with_note(Integers(found)) if found else graph


def _remarked(graph: Graph, module: nn.Module) -> Graph:
    said, origin = train_remarks(module), graph.note(TorchOrigin)
    if not said or origin is None:
        return graph
    return graph.with_note(dataclasses.replace(origin, capture_remarks=(*origin.capture_remarks, *said)))


def _build(found: Capture, title: str, fold: bool, grown: Grown = NOTHING) -> Graph:
    return verify(Importer(found, fold, grown).run(title))


def _arguments(module: nn.Module, example: object) -> tuple[object, ...]:
    if example is None:
        raise InputError(
            f"{type(module).__name__}: example_inputs are missing. Pass a tuple of tensors of the shapes the network "
            "takes, for example (torch.randn(1, 3, 224, 224),)."
        )
    if isinstance(example, torch.Tensor | dict):
        return (example,)
    return tuple(cast("Iterable[object]", example))
