"""Nodes and names of a file: what a conversion reads of it, before any size is chosen."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, NodeProto

from secateur.ir.errors import Unsupported
from secateur.ir.graph import Array, Node
from secateur.ir.plain import UNSEEN, one_line

UNCLEAN = re.compile(rf"[\s,()=#\"'{UNSEEN}]")


class Odd(Exception):
    """This use of the operator has no counterpart in the IR: keep the node as opaque, with this reason."""


class Misfit(Exception):
    """The operands do not fit at these input sizes."""


@dataclass(frozen=True, slots=True)
class Op:
    """One ONNX node with clean names and Python attributes. Absent optional inputs are None."""

    proto: NodeProto
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    attrs: Mapping[str, Any]
    opset: int
    outer: tuple[str, ...] = ()  # values around its subgraphs that these read

    @property
    def kind(self) -> str:
        return self.proto.op_type

    @property
    def label(self) -> str:
        """What a user calls it, fit to be shown."""
        return one_line(self.proto.name or f"{self.proto.op_type}_{next((o for o in self.proto.output if o), '')}")

    def input(self, i: int) -> str:
        """The i-th input. Raises Misfit where the file leaves it out."""
        name = self.inputs[i] if i < len(self.inputs) else None
        if name is None:
            raise Misfit(f"input {i} is missing")
        return name

    def maybe(self, i: int) -> str | None:
        """The i-th input, or None."""
        return self.inputs[i] if i < len(self.inputs) else None


@dataclass(frozen=True, slots=True)
class Branch:
    """One side of an If: its nodes, its weights and its outputs, by names that are unique in the whole model."""

    ops: tuple[Op, ...]
    weights: Mapping[str, Array]
    outputs: tuple[str, ...]


@dataclass
class Names:
    """Names of one graph of the file as the text form can print them, and the way back.

    Each branch of an If is a scope of its own: what it defines is called ``local`` there, and is unknown outside.
    ``repeated`` are names that more than one graph of the file defines.
    """

    clean_of: dict[str, str] = field(default_factory=dict)
    original: dict[str, str] = field(default_factory=dict)
    local: Mapping[str, str] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()

    def clean(self, name: str) -> str:
        """A printable, unique stand-in for a tensor name."""
        if name in self.local:
            return self.local[name]
        if name not in self.clean_of:
            self.clean_of[name] = fresh = self._fresh(name)
            self.original[fresh] = name
        return self.clean_of[name]

    def within(self, branch: GraphProto, place: str) -> Names:
        """The names inside of a branch; those that stand for something else elsewhere are called ``place/name``."""
        own: dict[str, str] = {}
        for name in defined(branch):
            if name in self.repeated:
                own[name] = fresh = self._fresh(f"{place}/{name}")
                self.original[fresh] = fresh
                self.clean_of.setdefault(fresh, fresh)
            else:
                own[name] = self.clean(name)
        return Names(self.clean_of, self.original, {**self.local, **own}, self.repeated)

    def _fresh(self, name: str) -> str:
        fresh = UNCLEAN.sub("_", name)
        while fresh in self.original:
            fresh += "_"
        return fresh


def defined(graph: GraphProto) -> list[str]:
    """What a graph itself defines: its inputs, its weights and what its nodes give."""
    names = [i.name for i in graph.input] + [t.name for t in graph.initializer]
    names += [s.values.name for s in graph.sparse_initializer] + [o for n in graph.node for o in n.output]
    return [n for n in dict.fromkeys(names) if n]


def repeated(graph: GraphProto) -> frozenset[str]:
    """Names that more than one graph defines, of this one and all inside of it."""
    seen: dict[str, int] = {}
    left = [graph]
    while left:
        each = left.pop()
        for name in defined(each):
            seen[name] = seen.get(name, 0) + 1
        left += [g for n in each.node for a in n.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
    return frozenset(name for name, count in seen.items() if count > 1)


def unknown_shape(label: str, node: NodeProto) -> Unsupported:
    """The error for an operator that neither ONNX nor the file says the result shapes of."""
    domain = node.domain or "ai.onnx"
    return Unsupported(
        f"{label}: {domain}::{node.op_type} '{node.name or node.output[0]}' gives a result whose shape neither the "
        "file nor a run in ONNX Runtime reveals; add value_info for it (its own framework knows the shape)"
    )


def operands(op: Op, node: Node, consts: Container[str]) -> tuple[int | str | None, ...] | None:
    """Of each input of the file's node the position among those of ``node``, its one IR node, or a constant's name.

    None where ``node`` reads something else than the file's node does, or leaves one of its own inputs unread there.
    """
    taken: list[int | str | None] = []
    for name in op.inputs:
        if name is None:
            taken.append(None)
        elif name in node.inputs:
            taken.append(node.inputs.index(name))
        elif name in consts:
            taken.append(name)
        else:  # such as sizes, which the IR node states as they follow the inputs
            return None
    read = {i for i in taken if isinstance(i, int)}
    return tuple(taken) if read >= {i for i, n in enumerate(node.inputs) if n is not None} else None
