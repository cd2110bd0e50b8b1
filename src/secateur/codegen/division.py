"""A graph cut into parts: what has code, and what ONNX Runtime computes in its place.

Parts are runs of nodes of one kind, in order; a part of plain arithmetic between two of the runtime's goes to the
runtime as well, so that values change hands only for what takes a network's time::

    conv > conv > NonMaxSuppression > gather      ->  compiled: conv, conv | ONNX Runtime: NonMaxSuppression, gather
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

from secateur.ir import Graph, Node, Unsupported
from secateur.ir.precision import computed_wide

from .plan.lower import NoCode, Unplanned
from .plan.opaque import has_code

PRODUCTS = frozenset({"conv", "conv_transpose", "linear", "matmul", "einsum", "lstm", "gru", "rnn"})  # they take time
FOREIGN = frozenset({"str", "c64", "c128", "bf16"})  # element types without code
# What gives as many elements as the data say: whatever reads them has no size to be compiled for.
DATA_SIZED = frozenset(
    {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "StringSplit", "SequenceConstruct",
     "SplitToSequence"}
)  # fmt: skip
T = TypeVar("T")
MOST_UNPLANNED = 16  # operators that are left to the runtime because planning failed


@dataclass(frozen=True)
class Piece:
    """A part of a graph that is a graph itself. ``foreign`` names what keeps it from being compiled, if anything does:
    operators, each with its label."""

    graph: Graph
    foreign: tuple[str, ...] = ()


def _computable(graph: Graph) -> Graph:
    """The graph in float32 where it multiplies in half precision, which has no kernels."""
    half = any(node.op in PRODUCTS and node.out.dtype in {"f16", "bf16"} for node in graph.nodes)
    return computed_wide(graph) if half else graph


def divided(graph: Graph, use: Callable[[tuple[Piece, ...]], T]) -> T:
    """What ``use`` makes of the parts of a graph. A node that cannot be planned goes to the runtime.

    Raises Unsupported, naming the node, where that does not help.
    """
    apart: dict[str, str] = {}
    while True:
        try:
            return use(divide(graph, apart))
        except Unplanned as error:
            name = _own_name(graph, error.name)
            if isinstance(error, NoCode) and name and name not in apart:
                apart[name] = error.why
                continue
            if isinstance(error, NoCode):
                raise Unsupported(f"'{graph.name}' cannot be compiled: {error}") from error
            if not name or name in apart or len(apart) == MOST_UNPLANNED:
                raise Unsupported(
                    f"'{graph.name}' cannot be compiled: planning {error} failed, which is a fault in code generation; "
                    "run this network in ONNX Runtime"
                ) from error
            apart[name] = ""


def _own_name(graph: Graph, name: str) -> str:
    """The node of the graph that a node of a part was made of: whatever is made of 'x' is called 'x.something'."""
    while name and name not in graph.producer:
        name = name.rpartition(".")[0]
    return graph.producer[name].name if name else ""


def divide(graph: Graph, apart: Mapping[str, str]) -> tuple[Piece, ...]:
    """The parts in order; one alone where everything has code, or where nothing that has code takes time.

    Compiled ones are computed in float32 where they multiply in half precision, unless the operators between which that
    happens want it. ``apart``: nodes for the runtime whatever they are, by name, and why that is, if it can be said.
    """
    given, graph = graph, _computable(graph)
    owners = [(n, _own_name(given, n.name)) for n in graph.nodes]
    reasons = {n.name: _title(n, apart[own]) for n, own in owners if own in apart} | _without_code(graph)
    if not reasons:
        return (Piece(graph),)
    foreign = set(reasons)
    while True:
        levels = _levels(graph, foreign)
        idle = _idle(graph, levels)
        if not idle:
            break
        foreign |= idle
    return tuple(_piece(graph, levels, level, reasons) for level in sorted(set(levels.values())))


def _without_code(graph: Graph) -> dict[str, str]:
    """The nodes that the runtime has to compute, by name, and what they are called."""
    found: dict[str, str] = {}
    loose: set[str] = set()  # values whose sizes only a run reveals
    for node in graph.nodes:
        types = {graph.value(n).dtype for n in node.inputs if n is not None} | {v.dtype for v in node.outputs}
        if any(n in loose for n in node.inputs) or _sized_by_data(node):
            loose |= {v.name for v in node.outputs}
            found[node.name] = _title(node)
        elif types & FOREIGN or (node.op == "opaque" and not has_code(graph, node)) or _computed_gates(graph, node):
            found[node.name] = _title(node)
    return found


def _computed_gates(graph: Graph, node: Node) -> bool:
    """A recurrent layer without code: a plain one, or one whose weights only a run reveals."""
    if node.op in ("lstm", "gru"):
        return any(name is not None and name not in graph.weights for name in node.inputs[1:4])
    return node.op == "rnn"


def _sized_by_data(node: Node) -> bool:
    return node.op == "opaque" and str(node.attrs["target"]).rpartition("::")[2] in DATA_SIZED


def _title(node: Node, why: str = "") -> str:
    kind = str(node.attrs["target"]).removeprefix("ai.onnx::") if node.op == "opaque" else node.op
    return f"{kind} '{node.label}'" + (f" ({why})" if why else "")


def _levels(graph: Graph, foreign: Set[str]) -> dict[str, int]:
    """By node: how often values change hands before it. Even: compiled, odd: the runtime."""
    levels: dict[str, int] = {}
    for node in graph.nodes:
        makers = [graph.producer[n].name for n in node.inputs if n in graph.producer]
        level = max((levels[m] for m in makers), default=0)
        levels[node.name] = level + ((level % 2 == 1) != (node.name in foreign))
    return levels


def _idle(graph: Graph, levels: Mapping[str, int]) -> set[str]:
    """The nodes of compiled parts that multiply nothing."""
    busy = {levels[node.name] for node in graph.nodes if node.op in PRODUCTS}
    return {name for name, level in levels.items() if level % 2 == 0 and level not in busy}


def _piece(graph: Graph, levels: Mapping[str, int], level: int, reasons: Mapping[str, str]) -> Piece:
    nodes = [node for node in graph.nodes if levels[node.name] == level]
    made = {v.name for node in nodes for v in node.outputs}
    read = dict.fromkeys(n for node in nodes for n in node.inputs if n is not None)
    given = tuple(graph.values[n] for n in read if n not in made and n not in graph.weights)
    later = {n for node in graph.nodes if levels[node.name] != level for n in node.inputs} | set(graph.outputs)
    outputs = tuple(v.name for node in nodes for v in node.outputs if v.name in later)
    weights = {name: graph.weights[name] for name in read if name in graph.weights}
    part = graph.rewrite(inputs=given, nodes=nodes, outputs=outputs, weights=weights)
    if not level % 2:
        return Piece(_computable(part))
    named = tuple(dict.fromkeys(reasons[n.name] for n in nodes if n.name in reasons))
    return Piece(part, named)
