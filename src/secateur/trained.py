"""Weights that come back from training: into the graph by name, checked, and never half.

A graph's weights have a path each in the torch module that is made of it. What a module, a state dict or an ONNX file
brings is taken by these paths; a tensor too many, too few, or of another shape means that this is another network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir import Array, Graph, InputError, dtype_of
from secateur.ir.near import did_you_mean
from secateur.ir.numeric import random_inputs, relative_error
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.passes.recipe.digests import same

from .capture import check_weights
from .run import Runner

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.fx import GraphModule

COUNTER = "num_batches_tracked"  # how often a batch norm was trained: no part of what a network computes
WRAPPERS = ("module.", "_orig_mod.")  # what data parallel training and torch.compile put before every name
SAME = 1e-3  # two runs of one network differ by less, relative to its largest output


@dataclass(eq=False)
class Trained:
    """The one module of a network, and the network with that module's weights as they were last seen."""

    _module: list[GraphModule] = field(default_factory=list)
    _seen: list[Graph] = field(default_factory=list)
    _names: list[frozenset[str]] = field(default_factory=list)
    _paths: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def module(self, graph: Graph) -> GraphModule:
        """The module of this graph, made when it is first asked for."""
        if not self._module:
            from secateur.ir.exporters.torch.module import with_paths

            module, paths = with_paths(graph)
            self._paths.update(paths)
            self._names.append(frozenset(_tensors(module)))
            self._module.append(module)
        return self._module[0]

    def graph(self, pruned: Graph) -> Graph:
        """``pruned`` with the module's weights; the same object until a weight changes. Raises InputError."""
        if not self._module:
            return pruned
        module, seen = self._module[0], self._seen[0] if self._seen else pruned
        tensors = _tensors(module)
        _same_names(pruned, frozenset(tensors), self._names[0], "slim.module()")
        fresh = _replaced(seen, _by_path(seen, tensors, self._paths, "slim.module()"))
        if fresh is not seen:
            check_weights(fresh)
            _same_function(fresh, _runner(module), "slim.module()")
            self._seen[:] = [fresh]
        return fresh


def trained_graph(graph: Graph, trained: nn.Module | Mapping[str, object] | ModelProto | str | Path) -> Graph:
    """The graph with the weights of a module, a state dict or an ONNX file. Raises InputError."""
    kinds = {f"{t.__module__.partition('.')[0]}.{t.__name__}" for t in type(trained).__mro__}
    run: Callable[[Graph, Mapping[str, Array]], Sequence[Array]] | None = None
    if isinstance(trained, str | Path) or "onnx.ModelProto" in kinds:
        what = f"'{trained}'" if isinstance(trained, str | Path) else "the ONNX model"
        found, run = _of_onnx(graph, trained, what)  # type: ignore[arg-type]
    elif "torch.Module" in kinds:
        what = f"module {type(trained).__name__}"
        found, run = _all_by_path(graph, _tensors(trained), what), _runner(trained)
    elif isinstance(trained, Mapping):
        what = "the state dict"
        found = _all_by_path(graph, trained, what)
    else:
        raise InputError(
            f"with_weights takes a torch module, a state dict or an ONNX file; this is a {type(trained).__name__}"
        )
    fresh = _replaced(graph, found)
    check_weights(fresh)
    if run is not None:
        _same_function(fresh, run, what)
    return fresh


def _tensors(module: Any) -> dict[str, object]:
    """Parameters and buffers by name, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _unwrapped(tensors: Mapping[str, object]) -> Mapping[str, object]:
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): x for name, x in tensors.items()}
    return tensors


def _by_path(
    graph: Graph, tensors: Mapping[str, object], paths: Mapping[str, tuple[str, bool]], what: str
) -> dict[str, Array]:
    """The graph's weights that these tensors hold. Raises InputError for one that does not fit."""
    return {
        name: _checked(graph.weights[name], tensors[path], f"{what}: '{path}'")
        for name, (path, _) in paths.items()
        if path in tensors
    }


def _all_by_path(graph: Graph, tensors: Mapping[str, object], what: str) -> dict[str, Array]:
    """The same for all that training moves. Raises InputError for names too many or too few."""
    from secateur.ir.exporters.torch.module import with_paths

    paths = with_paths(graph, copy=False)[1]
    tensors = _unwrapped({name: x for name, x in tensors.items() if name.rpartition(".")[2] != COUNTER})
    known = frozenset(path for path, _ in paths.values())
    may_lack = frozenset(path for path, learns in paths.values() if not learns)
    _same_names(graph, frozenset(tensors) | may_lack, known, what)
    return _by_path(graph, tensors, paths, what)


def _same_names(graph: Graph, given: frozenset[str], known: frozenset[str], what: str) -> None:
    """Raises InputError for tensors that the network does not have, or that are missing."""
    more, less = sorted(given - known), sorted(known - given)
    if more:
        raise InputError(
            f"{what} holds '{more[0]}'{_and_more(more)}, which '{graph.name}' does not have"
            f"{did_you_mean(more[0], less or known)}; a network that was rebuilt is compiled anew, not taken in"
        )
    if less:
        raise InputError(f"{what} lacks '{less[0]}'{_and_more(less)}, which '{graph.name}' reads; give all weights")


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _checked(old: Array, tensor: object, what: str) -> Array:
    """The tensor as an array; the old array itself where nothing changed. Raises InputError."""
    if hasattr(tensor, "detach"):
        from secateur.ir.frontends.torch.arrays import to_numpy

        array = to_numpy(tensor.detach().cpu())
    else:
        array = np.asarray(tensor)
    if array.shape != old.shape:
        raise InputError(
            f"{what} has shape {array.shape}, the slim network has {old.shape} there; it is another network"
        )
    if array.dtype != old.dtype:
        raise InputError(
            f"{what} is {dtype_of(array)}, the slim network has {dtype_of(old)} there; convert it back, such as by "
            ".float()"
        )
    if same(array, old):
        return old
    if old.dtype.kind in "iub":
        raise InputError(
            f"{what} holds other numbers than the slim network, and is not a weight but part of its structure"
        )
    return array.copy()


def _replaced(graph: Graph, found: Mapping[str, Array]) -> Graph:
    """The graph with these weights; the same object where none is another."""
    if all(array is graph.weights[name] for name, array in found.items()):
        return graph
    return graph.rewrite(weights={**graph.weights, **found})


def _runner(module: Any) -> Callable[[Graph, Mapping[str, Array]], Sequence[Array]]:
    def run(graph: Graph, feed: Mapping[str, Array]) -> Sequence[Array]:
        from secateur.ir.exporters.torch.module import run_module

        return run_module(module, [feed[v.name] for v in graph.inputs])

    return run


def _same_function(graph: Graph, run: Callable[[Graph, Mapping[str, Array]], Sequence[Array]], what: str) -> None:
    """Raises InputError where what the weights came from computes something else than the graph with them."""
    feed = random_inputs(graph, 0)
    try:
        wanted = run(graph, feed)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"{what} cannot be run on the inputs of '{graph.name}', so nothing says that it is the same network "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); give its state_dict()"
        ) from error
    found = Runner()(graph, feed)
    gap = max((relative_error(w, f) for w, f in zip(wanted, found, strict=False)), default=0.0)
    if len(wanted) != len(found) or not gap <= SAME:
        raise InputError(
            f"{what} computes another function than '{graph.name}' with its weights (outputs differ by {gap:.1e}): "
            "it was changed beyond its weights; compile it anew"
        )


def _of_onnx(
    graph: Graph, source: str | Path | ModelProto, what: str
) -> tuple[dict[str, Array], Callable[[Graph, Mapping[str, Array]], Sequence[Array]]]:
    """Weights of an ONNX file by the names that the slim network's own file gives them."""
    from secateur.ir.exporters.onnx.write import frame

    from .capture import load

    other = load(source)
    names = _file_names(graph)
    theirs = {real: other.weights[name] for name, real in _file_names(other).items()}
    extra = frozenset(frame(graph)[1]) - frozenset(names.values())
    missing = sorted(set(names.values()) - set(theirs))
    if missing:
        raise InputError(
            f"{what} lacks weight '{missing[0]}'{_and_more(missing)}, which '{graph.name}' reads; export it with the "
            "names kept and nothing folded, or give the module"
        )
    more = sorted(set(theirs) - set(names.values()) - extra)
    if more:
        raise InputError(f"{what} holds weight '{more[0]}'{_and_more(more)}, which '{graph.name}' does not have")
    found = {name: _checked(graph.weights[name], theirs[real], f"{what}: weight '{real}'")
             for name, real in names.items()}  # fmt: skip
    session = Runner()
    mine, there = [v.name for v in graph.inputs], [v.name for v in other.inputs]

    def run(_: Graph, feed: Mapping[str, Array]) -> Sequence[Array]:
        if len(mine) != len(there):
            raise InputError(f"{what} takes {len(there)} inputs, '{graph.name}' takes {len(mine)}")
        return session(other, {new: feed[old] for old, new in zip(mine, there, strict=True)})

    return found, run


def _file_names(graph: Graph) -> dict[str, str]:
    """What each weight is called in the graph's file."""
    origin = graph.note(OnnxOrigin)
    names = {} if origin is None else origin.names
    return {name: names.get(name, name) for name in graph.weights}
