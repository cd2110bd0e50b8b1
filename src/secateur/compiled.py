"""What compiling gives: the slim network with its recipe, its report and its libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.passes.recipe import Recipe

from .models import Runner, save_onnx
from .report import Report

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from secateur.codegen import Library


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network made smaller, with what is known about it. ``dense`` is the graph it was made from."""

    graph: Graph
    dense: Graph
    recipe: Recipe
    report: Report
    _run: Runner = dataclasses.field(default_factory=Runner, init=False, repr=False)
    _library: list[Library] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the slim network. Torch tensors give torch tensors, NumPy arrays give NumPy arrays.

        One output comes back alone, several as a tuple. A library that was built runs it, at the sizes it was
        built for. Raises InputError for missing or unknown inputs.
        """
        given = {**dict(zip((v.name for v in self.graph.inputs), inputs, strict=False)), **named}
        wanted = [v.name for v in self.graph.inputs]
        if len(inputs) > len(wanted) or set(given) != set(wanted):
            raise InputError(
                f"network '{self.graph.name}' takes the inputs {', '.join(wanted)}; given: {', '.join(given)}"
            )
        for library in self._library:
            if all(tuple(np.shape(given[p.name])) == p.shape for p in library.metadata.inputs):
                return library(**given)
        tensors = any(type(x).__module__.partition(".")[0] == "torch" for x in given.values())
        outputs = self._run(self.graph, {name: _array(x) for name, x in given.items()})
        if tensors:
            import torch

            outputs = [torch.from_numpy(np.ascontiguousarray(y)) for y in outputs]  # type: ignore[misc]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def module(self) -> GraphModule:
        """A torch module of its own that trains, saves and exports; parameters keep their names."""
        from secateur.ir.exporters.torch import to_module

        return to_module(self.graph)

    def save(self, path: str | Path) -> None:
        """Write ONNX. The file appears whole or not at all. Raises InputError."""
        save_onnx(self.graph, path)

    def build(
        self,
        target: str = "native",
        tune: str | float | None = None,
        threads: int = 1,
        records: str | Path | None = None,
        progress: Callable[[int, int, str], None] | None = None,
        batch: int | None = None,
    ) -> Library:
        """A tuned library of the slim network, which calls of this object use from then on.

        ``tune`` "60s": how long kernels may be measured; ``records``: the file that keeps what was measured; ``batch``:
        another one than the network was captured with. Raises InputError, and Unsupported without TVM.
        """
        from .build import build

        made = build(self.graph, target, tune, threads, records, progress, batch)
        self._library[:] = [made, *(old for old in self._library if old.metadata.inputs != made.metadata.inputs)]
        return made


def _array(x: Any) -> Array:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)
