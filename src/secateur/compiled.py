"""What compiling gives: the slim network with its recipe, its report and its libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.ir import Array, Graph, InputError
from secateur.ir.progress import Progress
from secateur.passes.recipe import Recipe

from .report.report import Report
from .report.text import headline
from .run import Runner
from .save import save_onnx
from .trained import Trained, trained_graph

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn
    from torch.fx import GraphModule

    from secateur.codegen import Library

TRAINED = (
    "trained since: what stands above of law, quality and latency was found before, on the weights as they were cut; "
    "`secateur verify` will say that weights differ"
)


@dataclass(frozen=True, eq=False, repr=False)
class Compiled:
    """A network made smaller, with what is known about it.

    ``pruned`` is the graph as it was cut, ``dense`` the one it was made from, ``stated`` the report of that time;
    with ``trusted`` a file that is written is not run first.
    """

    pruned: Graph
    dense: Graph
    recipe: Recipe
    stated: Report
    trusted: bool = False
    _run: Runner = dataclasses.field(default_factory=Runner, init=False, repr=False)
    _libraries: list[tuple[Graph, Library]] = dataclasses.field(default_factory=list, init=False, repr=False)
    _trained: Trained = dataclasses.field(default_factory=Trained, init=False, repr=False)

    def __reduce__(self) -> tuple[type[Compiled], tuple[Graph, Graph, Recipe, Report, bool]]:
        return Compiled, (
            self.graph,
            self.dense,
            self.recipe,
            self.report,
            self.trusted,
        )  # a copy opens and builds its own

    def __repr__(self) -> str:
        return f"<Compiled: {headline(self.stated)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the report's page."""
        return self.report._repr_html_()

    @property
    def graph(self) -> Graph:
        """The slim network with the weights that it has now: those of ``module()`` once that was asked for.

        Raises InputError where that module is no longer the slim network: tensors of other names or shapes, or
        another function.
        """
        return self._trained.graph(self.pruned)

    @property
    def report(self) -> Report:
        """What was done and found. Of a network that was trained since, its remarks say so."""
        if self.graph is self.pruned or TRAINED in self.stated.remarks:
            return self.stated
        return dataclasses.replace(self.stated, remarks=(*self.stated.remarks, TRAINED))

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the slim network. Torch tensors give torch tensors, NumPy arrays give NumPy arrays.

        One output comes back alone, several as a tuple. A library that was built runs it, at the sizes it was
        built for and until the weights change. Raises InputError for missing or unknown inputs.
        """
        graph = self.graph
        given = {**dict(zip((v.name for v in graph.inputs), inputs, strict=False)), **named}
        wanted = [v.name for v in graph.inputs]
        if len(inputs) > len(wanted) or set(given) != set(wanted):
            raise InputError(f"network '{graph.name}' takes the inputs {', '.join(wanted)}; given: {', '.join(given)}")
        self._libraries[:] = [(of, library) for of, library in self._libraries if of is graph]
        for _, library in self._libraries:
            ports = zip(wanted, library.metadata.inputs, strict=True)  # which have the names of the user's file
            if all(tuple(np.shape(given[name])) == port.shape for name, port in ports):
                return library(*(given[name] for name in wanted))
        tensors = any(type(x).__module__.partition(".")[0] == "torch" for x in given.values())
        outputs = self._run(graph, {name: _array(x) for name, x in given.items()})
        if tensors:
            import torch

            outputs = [torch.from_numpy(np.ascontiguousarray(y)) for y in outputs]  # type: ignore[misc]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def module(self) -> GraphModule:
        """The network as a torch module that trains; parameters keep their names.

        It is the same object each time, and the network's weights are its own from then on: ``save``, ``build`` and
        calls see what was trained. Raises Unsupported for operators that torch cannot express.
        """
        return self._trained.module(self.pruned)

    def with_weights(self, trained: nn.Module | Mapping[str, object] | ModelProto | str | Path) -> Compiled:
        """The same network with weights that were trained elsewhere, by name; names, opset and inputs stay its own.

        ``trained``: a module, a state dict, or an ONNX file whose weights carry the names. Raises InputError for names
        or shapes that do not fit, for NaN, and where a module or file computes something else with these weights.
        """
        graph = trained_graph(self.graph, trained)
        remarks = self.stated.remarks if TRAINED in self.stated.remarks else (*self.stated.remarks, TRAINED)
        return Compiled(graph, self.dense, self.recipe, dataclasses.replace(self.stated, remarks=remarks), self.trusted)

    def save(self, path: str | Path) -> None:
        """Write ONNX. The file appears whole or not at all, and not before ONNX Runtime has computed the same from it.

        Raises InputError, and LawError where it computes something else.
        """
        save_onnx(self.graph, path, self.trusted)

    def build(
        self,
        target: str = "native",
        tune: str | float | None = None,
        threads: int = 1,
        records: str | Path | None = None,
        progress: Progress | None = None,
        batch: int | None = None,
        fast: bool = True,
        compact: bool = False,
        precision: str = "f32",
        calibration: Iterable[object] | None = None,
    ) -> Library:
        """A tuned library of the slim network, which calls of this object use until its weights change.

        ``tune`` "60s": how long kernels may be measured; ``records``: the file that keeps what was measured; ``batch``:
        another one than the network was captured with; ``fast`` False: without Winograd's and Strassen's algorithms;
        ``compact``: the same for a file no larger than its weights; ``precision`` "bf16" or "auto": products in
        bfloat16, with notes of how far that moves the outputs, on ``calibration`` as well (see ``secateur.build``).
        Raises InputError, and Unsupported without TVM.
        """
        from .deploy import build

        graph = self.graph
        made = build(graph, target, tune, threads, records, progress, batch, fast, compact, precision, calibration)
        others = [(of, old) for of, old in self._libraries if old.metadata.inputs != made.metadata.inputs]
        self._libraries[:] = [(graph, made), *others]
        return made


def _array(x: object) -> Array:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x)
