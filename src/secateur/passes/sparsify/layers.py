"""Which layers lose weights, and their weights as matrices: a row for each output, a column for each input and tap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from secateur.ir import Array, Graph, InputError, Node

FEW = 8  # inputs and taps of an output: layers with fewer stay dense, their weights are few and their kernels no slower


@dataclass(frozen=True)
class Place:
    """A weight that may lose some of its numbers: ``transposed`` if its columns are the outputs."""

    node: Node
    weight: str
    transposed: bool = False

    def rows(self, array: Array) -> Array:
        """[outputs, inputs and taps]; of a recurrent layer, [directions, gates and units]."""
        wide = array.T if self.transposed else array
        return wide.reshape(-1, wide.shape[-1]) if self.recurrent else wide.reshape(len(wide), -1)

    @property
    def recurrent(self) -> bool:
        """Is it a matrix of a recurrent layer?"""
        return self.node.op in RECURRENT

    def taps(self, array: Array) -> int:
        """Columns of an input, which follow each other."""
        return math.prod(array.shape[2:]) if self.node.op == "conv" else 1

    def units(self, array: Array) -> int:
        """Rows of a gate of a recurrent layer, of others all."""
        return int(self.node.attrs["hidden"]) if self.recurrent else len(self.rows(array))

    def shaped(self, rows: Array, like: Array) -> Array:
        """The inverse, in the shape and type of the weight."""
        whole = rows.reshape(like.shape[::-1] if self.transposed else like.shape)
        return np.ascontiguousarray(whole.T if self.transposed else whole).astype(like.dtype)


RECURRENT = {"lstm", "gru"}


def places(graph: Graph, protect: Sequence[str] = ()) -> Iterator[Place]:
    """The weights of convolutions, linear and recurrent layers, in order, each once.

    Left out are layers that ``protect`` names (globs), depthwise ones, and those of fewer than ``FEW`` columns. Raises
    InputError for NaN or infinity in one of them.
    """
    seen: set[str] = set()
    for node in graph.nodes:
        if any(fnmatchcase(node.name, glob) for glob in protect):
            continue
        for place in _of(graph, node):
            array = graph.weights[place.weight]
            rows = place.rows(array)
            if place.weight in seen or array.dtype.kind != "f" or rows.shape[1] < FEW:
                continue
            seen.add(place.weight)
            if not np.isfinite(array).all():
                raise InputError(
                    f"weight '{place.weight}' of {node.label} holds NaN or infinity, so nothing can be said about "
                    "which of its numbers count; repair the model, or protect the layer"
                )
            yield place


def _of(graph: Graph, node: Node) -> Iterator[Place]:
    own = [name for name in node.inputs[1:3] if name is not None and name in graph.weights]
    if node.op == "conv" and own and graph.weights[own[0]].ndim > 2:
        yield Place(node, own[0])
    elif node.op == "linear" and own and node.inputs[1] == own[0]:
        yield Place(node, own[0], bool(node.attrs["transposed"]))
    elif node.op in RECURRENT:
        yield from (Place(node, name) for name in own)
