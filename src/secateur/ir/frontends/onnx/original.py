"""An ONNX file as it was given, run by nobody but ONNX Runtime, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.ir.graph import Array, Graph
from secateur.ir.onnx_origin import OnnxOrigin

from .process import Loaded, OnnxProcess, Refused

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 1 << 31  # bytes that one message holds


class OnnxOriginal:
    """The file, with the runtime's default options. ``graph`` says how its names are spelled in the IR.

    Raises Refused where ONNX Runtime cannot run it, InputError where it crashes.
    """

    reference = "the file in ONNX Runtime"

    def __init__(self, source: str | Path | ModelProto, graph: Graph, process: OnnxProcess, label: str = "") -> None:
        self._process, self._label = process, label
        self._source = source if isinstance(source, str | Path) else _bytes(source)
        origin = graph.note(OnnxOrigin)
        self._names = dict(origin.names) if origin is not None else {}
        # What no optimisation has merged yet runs other kernels; opaque nodes are about to be run like that here.
        self._careful = any(node.op == "opaque" for node in graph.nodes)
        self._sessions: dict[tuple[bool, tuple[str, ...]], Loaded] = {}

    def run(self, feed: Mapping[str, Array], more: float = 0.0) -> list[Array]:
        """The outputs in order for inputs by the IR's names; ``more``: processor seconds that are due."""
        given = self._spelled(feed)
        found = self._process.run(self._open(True), given, (), more)
        if self._careful:
            self._process.run(self._open(False), given, (), more)
        return found

    def inside(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Values of the file by the IR's names, those that it has, without the runtime's optimisations."""
        spelled = {self._names.get(name, name): name for name in names}
        loaded = self._open(False, tuple(spelled))
        asked = [name for name in loaded.outputs if name in spelled]
        found = self._process.run(loaded, self._spelled(feed), asked) if asked else []
        return {spelled[name]: array for name, array in zip(asked, found, strict=True)}

    def _open(self, optimise: bool, watch: tuple[str, ...] = ()) -> Loaded:
        key = (optimise, watch)
        if key not in self._sessions:
            if watch:  # one after the other: each holds all weights
                self._drop()
            self._sessions[key] = self._process.open(self._source, self._label, optimise=optimise, watch=watch)
        return self._sessions[key]

    def _drop(self) -> None:
        for loaded in self._sessions.values():
            self._process.close(loaded)
        self._sessions.clear()

    def close(self) -> None:
        """Free what the process holds of it."""
        self._drop()

    def _spelled(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return {self._names.get(name, name): np.asarray(array) for name, array in feed.items()}


def _bytes(model: ModelProto) -> bytes:
    if model.ByteSize() >= LARGEST:
        raise Refused("a model of more than 2 GB in memory cannot be handed over; give its path")
    data: bytes = model.SerializeToString()
    return data
