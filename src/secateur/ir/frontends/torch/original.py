"""A torch module as it was given, run in torch, without a trace on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from secateur.ir.errors import Unsupported
from secateur.ir.frontends.onnx.process import Refused
from secateur.ir.graph import Array, Graph
from secateur.ir.torch_origin import TorchOrigin

from .arrays import to_numpy, to_torch
from .untouched import untouched


class TorchOriginal:
    """The module in eval mode, or the program. ``graph`` is what was captured of it with ``example`` arguments.

    Runs raise Refused where the module does not take the inputs.
    """

    reference = "the module in torch"

    def __init__(self, model: nn.Module | torch.export.ExportedProgram, graph: Graph, example: Any) -> None:
        if isinstance(model, nn.Module):
            self._module: nn.Module = model
            arguments: Any = (((example,) if isinstance(example, torch.Tensor | dict) else tuple(example)), {})
        else:
            self._module, arguments = model.module(), model.example_inputs
        if arguments is None:
            raise Refused("the program was exported without example inputs")
        self._graph, self._origin = graph, graph.note(TorchOrigin)
        self._calls = 0
        self._leaves, self._spec = pytree.tree_flatten(arguments)

    def example(self) -> dict[str, Array]:
        """The example arguments by the graph's input names."""
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, torch.Tensor)]
        return {v.name: to_numpy(t).copy() for v, t in zip(self._graph.inputs, tensors, strict=True)}

    def run(self, feed: Mapping[str, Array], more: float = 0.0) -> list[Array]:
        """The outputs in order, for inputs by name."""
        found = pytree.tree_leaves(self._call(feed))
        places = self._origin.leaves if self._origin is not None else tuple(range(len(found)))
        outputs = {place: leaf for place, leaf in zip(places, found, strict=True) if isinstance(place, int)}
        return [to_numpy(outputs[i]).copy() for i in range(len(self._graph.outputs))]

    def inside(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """What submodules that are called once give, by the value of the IR that ends them."""
        last = {n.source.name: n.name for n in self._graph.nodes if n.source.name and len(n.outputs) == 1}
        wanted = {module: name for module, name in last.items() if name in set(names)}
        seen: dict[str, list[torch.Tensor]] = {}

        def hook(path: str) -> Any:
            return lambda _module, _args, out: seen.setdefault(path, []).append(out)

        with contextlib.ExitStack() as stack:
            for path, module in self._module.named_modules():
                if path in wanted:
                    stack.callback(module.register_forward_hook(hook(path)).remove)
            self._call(feed)
        once = {path: outs[0] for path, outs in seen.items() if len(outs) == 1 and isinstance(outs[0], torch.Tensor)}
        return {wanted[path]: to_numpy(out).copy() for path, out in once.items()}

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, feed: Mapping[str, Array]) -> Any:
        given = iter(self._graph.inputs)
        leaves = [
            to_torch(np.asarray(feed[next(given).name]), copy=True) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in self._leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        with untouched(self._module), torch.no_grad():
            if not isinstance(self._module, torch.fx.GraphModule):
                self._module.eval()
            self._calls += 1
            torch.manual_seed(self._calls)  # a module that is random shall not repeat itself
            try:
                return self._module(*args, **kwargs)
            except Exception as error:  # whatever the user's own code raises
                lines = str(error).strip().splitlines()
                raise Refused(lines[0] if lines else type(error).__name__) from error


__all__ = ["TorchOriginal", "Unsupported"]
