"""Recurrent calls of torch that the IR keeps as they are (LSTMs with projections): where their operands stand."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .graph import Graph, Node

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction of one layer: positions of its operands among the node's inputs; ``down`` is the projection."""

    weight: int
    recurrent: int
    biases: tuple[int, ...]
    down: int | None


@dataclass(frozen=True, slots=True)
class RecurrentCall:
    """``aten.lstm.input`` and its like, ``[T, B, I]`` or batch first.

    ``states``: the positions of what it starts from: the output's, and of an LSTM the cells' state. ``cells`` are in
    the order of the layers, both directions of a layer side by side.
    """

    kind: str
    x: int
    states: tuple[int, ...]
    cells: tuple[Cell, ...]
    ways: int

    @property
    def gates(self) -> int:
        """The gates whose rows a weight has one after the other."""
        return GATES[self.kind]


def recurrent_call(node: Node) -> RecurrentCall | None:
    """What a node's operands are, if it is such a call."""
    name = str(node.attrs["target"]) if node.op == "opaque" else ""
    kind, _, overload = name.removeprefix("aten.").rpartition(".")
    if kind not in GATES or overload != "input":
        return None
    x, states, params, biases, layers, _, _, both = json.loads(node.attrs["payload"])["args"][:8]
    at = [item["$"] for item in params]
    ways = 1 + bool(both)
    each = len(at) // (layers * ways)
    rows = [at[i : i + each] for i in range(0, len(at), each)]
    split = 4 if biases else 2
    cells = [Cell(r[0], r[1], tuple(r[2:split]), r[split] if each > split else None) for r in rows]
    first = states if isinstance(states, list) else [states]
    return RecurrentCall(kind, x["$"], tuple(s["$"] for s in first), tuple(cells), ways)


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one run: every element of a matrix, at each step of each sequence."""
    call = recurrent_call(node)
    if call is None:
        return 0
    steps, batch = graph.value(str(node.inputs[call.x])).shape[:2]
    total = 0
    for cell in call.cells:
        for place in (cell.weight, cell.recurrent, cell.down):
            if place is not None:
                rows, columns = graph.value(str(node.inputs[place])).shape
                total += int(rows) * int(columns)
    return int(steps) * int(batch) * total


def widths(graph: Graph, node: Node) -> tuple[int, int] | None:
    """Input features and outputs of both directions."""
    call = recurrent_call(node)
    if call is None or str(node.inputs[call.cells[0].weight]) not in graph.weights:
        return None
    return int(graph.value(str(node.inputs[call.x])).shape[-1]), int(node.out.shape[-1])
