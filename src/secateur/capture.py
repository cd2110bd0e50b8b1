"""From any model to a graph and back: captured, run, checked and written. torch and onnx load when needed."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from secateur.ir import Graph, InputError, Unsupported
from secateur.ir.near import did_you_mean
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.torch_origin import TorchOrigin
from secateur.passes.allocate import Allocation
from secateur.passes.analysis.cost import cost
from secateur.passes.context import Context
from secateur.passes.recipe import Recipe
from secateur.passes.rewrite.layers import Rewritten
from secateur.passes.sparsify.zeros import Sparsified, check_zeros

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.export import ExportedProgram

    from secateur.ir.frontends.onnx.process import OnnxProcess

    from .compiled import Compiled

    Layer: TypeAlias = str | type | nn.Module
    Protect: TypeAlias = str | Sequence[Layer]
    Shapes: TypeAlias = Mapping[str, Sequence[int]]
    Model: TypeAlias = nn.Module | ExportedProgram | ModelProto | str | Path | Graph | Compiled


def load(path: str | Path | ModelProto, process: OnnxProcess | None = None, *, shapes: Shapes | None = None) -> Graph:
    """The graph of an ONNX file or ModelProto, of opset 7 and later, run in ``process`` if need be.

    ``shapes``: shapes of inputs, by name, to count and to time at where the file leaves sizes open. What a file of ours
    says of zeros in its weights is compared with them. Raises InputError for what is missing, damaged or not ONNX, and
    Unsupported.
    """
    from secateur.ir.frontends.onnx import load as onnx

    if isinstance(path, str | Path):
        if not Path(path).exists():
            raise InputError(f"there is no file '{path}'; check the path")
        if Path(path).is_dir():
            raise InputError(f"'{path}' is a folder; name the .onnx file in it")
    graph = onnx.load(path, process, shapes)
    check_zeros(graph, f"'{path}'" if isinstance(path, str | Path) else "this model")
    return graph


def trace(
    module: nn.Module | ExportedProgram, example_inputs: object, name: str | None = None, fold: bool = True
) -> Graph:
    """The graph of a torch module, captured by running it on these example inputs: tensors of the shapes that it takes.

    They are a tuple in the order of its arguments, or one tensor alone; an ExportedProgram has its own. Batch and sizes
    stay open where the module leaves them open. ``fold`` as in ``ir.frontends.torch.trace``. Raises InputError and
    Unsupported, with what to do.
    """
    from secateur.ir.frontends.torch import trace as torch

    return torch.trace(module, example_inputs, name=name, fold=fold)


def graph_of(model: object) -> Graph | None:
    """The graph of a model that is one already, or that carries one, as ``Compiled`` does; None of another."""
    found = model if isinstance(model, Graph) else getattr(model, "graph", None)
    return found if isinstance(found, Graph) else None


def capture(
    model: Model,
    example_inputs: object = None,
    process: OnnxProcess | None = None,
    shapes: Shapes | None = None,
    fold: bool = True,
) -> Graph:
    """The graph of any model that ``compile`` takes; for ``shapes`` see ``load``, for ``fold`` ``trace``.

    Raises InputError.
    """
    given = graph_of(model)
    if given is not None:
        if shapes:
            raise InputError("shapes= is for ONNX files; a graph has its sizes already: give them to secateur.load")
        return given
    if isinstance(model, str | Path):
        return load(model, process, shapes=shapes)
    kinds = {f"{t.__module__.partition('.')[0]}.{t.__name__}" for t in type(model).__mro__}
    if "onnx.ModelProto" in kinds:
        return load(model, process, shapes=shapes)  # type: ignore[arg-type]
    if shapes:
        raise InputError(
            f"{type(model).__name__}: shapes= is for ONNX; a torch module has the sizes of its example_inputs"
        )
    if "torch.ExportedProgram" in kinds:
        return trace(cast("ExportedProgram", model), example_inputs, fold=fold)
    if "torch.Module" not in kinds:
        raise InputError(
            f"a model is a torch.nn.Module, an ExportedProgram, an onnx.ModelProto or the path of an .onnx file; "
            f"this is a {type(model).__name__}"
        )
    if example_inputs is None:
        raise InputError(
            f"{type(model).__name__}: a torch module is captured by running it; pass example_inputs=(x,) with a "
            "tensor of the shape it takes"
        )
    return trace(cast("nn.Module", model), example_inputs, fold=fold)


def reread(graph: Graph, like: Graph, example_inputs: object = None) -> Graph | None:
    """The graph as it is read back from the format that ``like`` came from; None where it cannot be written in it."""
    try:
        if like.note(OnnxOrigin) is not None:
            from secateur.ir.exporters.onnx.write import to_onnx

            return load(to_onnx(graph))
        if like.note(TorchOrigin) is not None and example_inputs is not None:
            from secateur.ir.exporters.torch.module import to_module

            return trace(to_module(graph), example_inputs)
    except (InputError, Unsupported, ValueError):  # the last: protobuf's, of more than 2 GB
        return None
    return None


def fresh(graph: Graph) -> Graph:
    """The graph without what an earlier run left on it or knew of its data and target: a model like any other."""
    return graph.without(Allocation, Context, Recipe, Rewritten, Sparsified)


def check_weights(graph: Graph) -> None:
    """Raise InputError where a weight holds NaN."""
    for name, weight in graph.weights.items():
        if weight.dtype.kind != "f" or not np.isnan(weight.min(initial=0)):  # min hands NaN on
            continue
        users = [n.label for n in graph.users.get(name, ())]
        where = f" of layer '{users[0]}'" if users else ""
        count = int(np.isnan(weight).sum())
        raise InputError(
            f"'{graph.name}': weight '{name}'{where} holds {count} NaN of {weight.size} numbers, so nothing can be "
            "compared or checked; repair or retrain the model"
        )


def protected(model: Model, graph: Graph, protect: Protect) -> tuple[str, ...]:
    """Globs of the layers to leave alone: names as they are, types and modules by the names they have in ``model``.

    Raises InputError for other things, and for types and modules that are not a layer of it.
    """
    given = [protect] if isinstance(protect, str) else protect
    return tuple(dict.fromkeys(name for each in given for name in patterns_of(model, graph, each, "protect")))


def patterns_of(model: Model, graph: Graph, layer: Layer, option: str) -> list[str]:
    """Globs for a layer that ``option`` names: a name as it is, a type or a module by the names it has in ``model``.

    Raises InputError for other things, and for types and modules that are not a layer of it.
    """
    if isinstance(layer, str):
        return [layer]
    named: Callable[[], Iterable[tuple[str, object]]] | None = getattr(model, "named_modules", None)
    if named is None:
        raise InputError(
            f"{option}: {layer!r} can only be found in a torch module, '{graph.name}' is none; give names of layers"
        )
    labels = {node.label for node in graph.nodes}
    names = [glob.escape(name) for name, module in named() if name and (module is layer or _is_a(module, layer))]
    patterns = [pattern for name in names for pattern in (name, f"{name}.*")]
    here = [p for p in patterns if any(fnmatch.fnmatchcase(label, p) for label in labels)]
    if not here:
        raise InputError(
            f"{option}: {layer!r} is not a layer of '{graph.name}', nor the type of one; give names, types or modules "
            "of the network itself"
        )
    return here


def _is_a(module: object, kind: object) -> bool:
    return isinstance(kind, type) and isinstance(module, kind)


def check_protect(graph: Graph, patterns: Sequence[str]) -> None:
    """Raise InputError where a pattern matches no layer, with the names that come close."""
    labels = list(dict.fromkeys(node.label for node in graph.nodes))
    for pattern in patterns:
        if not fnmatch.filter(labels, pattern) and not any(fnmatch.fnmatchcase(label, pattern) for label in labels):
            named = [row.label for row in cost(graph).layers] or labels
            near = did_you_mean(pattern, named) or f"; layers are named {', '.join(named[:5])}, ..."
            raise InputError(
                f"protect: '{pattern}' matches no layer of '{graph.name}'{near}. `secateur inspect` lists them all"
            )
