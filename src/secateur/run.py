"""Running a graph: what came from ONNX in ONNX Runtime, everything else in torch, which load when needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from secateur.ir import Array, Graph, Unsupported
from secateur.ir.onnx_origin import OnnxOrigin

if TYPE_CHECKING:
    from secateur.ir.exporters.onnx.session import Session


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
        opaque = any(node.op == "opaque" and node.attrs["kind"] == "onnx" for node in graph.nodes)
        if graph.note(OnnxOrigin) is not None or opaque:
            try:
                return self._session(graph).run(inputs)
            except Unsupported:  # such as a type that ONNX Runtime has no code for
                if opaque or find_spec("torch") is None:
                    raise
        from secateur.ir.exporters.torch import module as torch

        return list(torch.evaluate(graph, dict(inputs)))

    def _session(self, graph: Graph) -> Session:
        known = next((s for s in self._sessions if s.graph is graph), None)
        if known is not None:
            return known
        del self._sessions[: max(0, len(self._sessions) - self._keep + 1)]
        from secateur.ir.exporters.onnx.session import Session

        self._sessions.append(Session(graph))
        return self._sessions[-1]


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
    """Run a graph once on arrays by input name, of the shapes and element types that its inputs state.

    Returns the outputs in the order of ``graph.outputs``. What came from ONNX runs in ONNX Runtime, everything else in
    torch. Raises InputError for missing or unknown inputs and wrong shapes, and Unsupported.
    """
    return Runner()(graph, inputs)
