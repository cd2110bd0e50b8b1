"""Running a graph: what came from ONNX in ONNX Runtime, everything else in torch, which load when needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

from secateur.ir import Array, Graph, Unsupported
from secateur.ir.onnx_origin import OnnxOrigin


class Session(Protocol):
    """One graph in one runtime."""

    graph: Graph

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs in order, for inputs by name."""


class Runner:
    """Runs graphs on NumPy arrays: what came from ONNX in ONNX Runtime, everything else in torch.

    It keeps the sessions of the last ``keep`` graphs, and lets one go before it opens the next.
    """

    def __init__(self, keep: int = 1) -> None:
        self._keep = keep
        self._sessions: list[Session] = []

    def __reduce__(self) -> tuple[type[Runner], tuple[int]]:
        return Runner, (self._keep,)  # sessions cannot be copied; a copy opens its own

    def __call__(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs in order, for inputs by name. Raises InputError and Unsupported."""
        known = next((s for s in self._sessions if s.graph is graph), None)
        if known is None:
            del self._sessions[: max(0, len(self._sessions) - self._keep + 1)]
            known = _opened(graph)
            self._sessions.append(known)
        return known.run(inputs)


def _opened(graph: Graph) -> Session:
    opaque = any(node.op == "opaque" and node.attrs["kind"] == "onnx" for node in graph.nodes)
    if graph.note(OnnxOrigin) is not None or opaque:
        from secateur.ir.exporters.onnx import session as onnx

        try:
            return onnx.Session(graph)
        except Unsupported:  # such as a type that ONNX Runtime has no code for
            if opaque or find_spec("torch") is None:
                raise
    from secateur.ir.exporters.torch import module as torch

    return torch.Session(graph)


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
    """Run a graph once on arrays by input name, of the shapes and element types that its inputs state.

    Returns the outputs in the order of ``graph.outputs``. What came from ONNX runs in ONNX Runtime, everything else in
    torch. Raises InputError for missing or unknown inputs and wrong shapes, and Unsupported.
    """
    return Runner()(graph, inputs)
