"""Torch out: a graph becomes a trainable torch.fx.GraphModule, which also serves as executor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from secateur.ir.errors import InputError
from secateur.ir.frontends.torch.arrays import to_numpy, to_torch
from secateur.ir.graph import Array, Graph

from .emitter import Emitter, identifier
from .functional import SizeError
from .lower import LOWER
from .open_sizes import guard, opened
from .signature import ARGUMENTS, arguments, call_flat

__all__ = ["LOWER", "Session", "evaluate", "flat_module", "on_inputs", "run_module", "to_module", "with_paths"]

OUTSIDE = ("out of bounds", "out of range")  # what torch says of an index that a table does not have


def to_module(graph: Graph, copy: bool = True) -> fx.GraphModule:
    """The network as a torch module in eval mode, its parameters under their original names.

    A graph captured from torch takes the arguments of the original and returns the same structure;
    any other takes its inputs in order and returns one tensor, or a tuple. With ``copy=False`` weights share the
    graph's memory, so training would write into it. Sizes that follow the inputs' are computed from
    these in a run. Raises Unsupported for operators of other
    formats that torch cannot express.
    """
    return _build(graph, copy, structured=True)[0]


def flat_module(graph: Graph) -> tuple[fx.GraphModule, dict[str, str]]:
    """A module that shares the graph's memory and returns its outputs as a tuple, and each weight's path in it.

    Raises Unsupported as ``to_module`` does.
    """
    return _build(graph, copy=False, structured=False)


class Session:
    """One graph, ready to run in torch; it shares the graph's memory. Raises Unsupported as ``to_module`` does."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._module, _ = flat_module(graph)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs in order, for inputs by name.

        Raises InputError for an input that is missing or unknown, or of a size that is fixed to another.
        """
        names = [v.name for v in self.graph.inputs]
        if set(names) != set(inputs):
            raise InputError(f"network '{self.graph.name}' takes inputs {names}, got {sorted(inputs)}.")
        with torch.no_grad(), on_inputs(self.graph):
            outs = self._module(*(to_torch(np.asarray(inputs[name])) for name in names))
        return [to_numpy(o) for o in outs]


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
    """Run the network once on these inputs; as ``Session.run``, which says what is raised."""
    return Session(graph).run(inputs)


@contextlib.contextmanager
def on_inputs(graph: Graph, where: str = "") -> Iterator[None]:
    """What inputs are to blame for is an InputError: sizes, and numbers that a table or an axis has no entry for.

    ``where`` the inputs come from, as in "calibration, batch 3: ".
    """
    try:
        yield
    except SizeError as error:
        raise InputError(f"{where}{error}") from error
    except (IndexError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not isinstance(error, IndexError) and not any(words in said for words in OUTSIDE):
            raise
        raise InputError(
            f"{where}network '{graph.name}' cannot be run on these inputs: {said}; check that integers are indices "
            "which its tables have"
        ) from error


def with_paths(graph: Graph, copy: bool = True) -> tuple[fx.GraphModule, dict[str, tuple[str, bool]]]:
    """What ``to_module`` gives, and of each weight its path there and whether training moves it.

    Training moves parameters and the statistics of batch norms.
    """
    module, paths = _build(graph, copy, structured=True)
    emitter = Emitter(graph, copy=False)
    statistics = {name for node in graph.nodes if node.op == "batch_norm" for name in node.inputs[3:5]}
    return module, {name: (path, emitter.trains(name) or name in statistics) for name, path in paths.items()}


def run_module(module: nn.Module, inputs: Sequence[Array]) -> list[Array]:
    """The tensors that a module returns in eval mode, flat; it is left in the mode it was in. Raises what it raises."""
    training = [m for m in module.modules() if m.training]
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        module.eval()
        with torch.no_grad():
            found = call_flat(module, [to_torch(np.asarray(x), copy=True).to(device) for x in inputs])
    finally:
        for part in training:
            part.training = True
    return [to_numpy(x) for x in pytree.tree_leaves(found) if isinstance(x, torch.Tensor)]


def _build(graph: Graph, copy: bool, structured: bool) -> tuple[fx.GraphModule, dict[str, str]]:
    e = Emitter(graph, copy)
    if structured:
        arguments(e)
    else:
        for value in graph.inputs:
            e.env[value.name] = e.argument(value.name)
    guard(e)
    for node in graph.nodes:
        made = LOWER[node.op](e, opened(e, node))
        results = made if isinstance(made, tuple) else (made,)
        for value, result in zip(node.outputs, results, strict=True):
            e.env[value.name] = result
    flat = [e.arg(name) for name in graph.outputs]
    e.fx.output(_structure(e, flat) if structured else tuple(flat))
    title = identifier(graph.name).replace(".", "_")
    module = fx.GraphModule(e.root, e.fx, title if title.isidentifier() and title.isascii() else "Graph").eval()
    if structured and e.origin is not None:
        module.meta[ARGUMENTS] = e.origin
    return module, e.paths


def _structure(e: Emitter, flat: list[Any]) -> Any:
    """The outputs in the structure that the original module returned them in."""
    origin = e.origin
    leaves = origin.leaves if origin is not None else ()
    if origin is None or origin.out_spec is None or sum(isinstance(x, int) for x in leaves) != len(flat):
        return flat[0] if len(flat) == 1 else tuple(flat)
    filled = [flat[leaf] if isinstance(leaf, int) else leaf[0] for leaf in leaves]
    tree = pytree.tree_unflatten(filled, origin.out_spec)
    return _simple(tree)


def _simple(tree: Any) -> Any:
    """Containers that fx can print: any mapping becomes a dict, any other sequence a tuple or list."""
    if isinstance(tree, fx.Node) or not isinstance(tree, Mapping | list | tuple):
        return tree
    if isinstance(tree, Mapping):
        return {k: _simple(v) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_simple(v) for v in tree))
    return type(tree)(_simple(v) for v in tree) if type(tree) in (list, tuple) else tuple(map(_simple, tree))
