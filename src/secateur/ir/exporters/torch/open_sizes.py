"""Sizes in a written module: literals that follow its inputs, and a guard before those that are fixed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from secateur.ir.graph import Node
from secateur.ir.torch_origin import Literal

from . import functional as T
from .emitter import Emitter


def guard(e: Emitter) -> None:
    """Let inputs whose sizes are fixed through a check of them."""
    origin = e.origin
    if origin is None:
        return
    values = set(e.graph.values)
    lost = any(one.value and one.value not in values for many in origin.follows.values() for one in many)
    why = origin.why or ("a literal follows what is no longer part of the network" if lost else "")
    for value in e.graph.inputs:
        axes = [axis for name, axis in origin.fixed if name == value.name]
        if why and axes:
            shape = [int(d) if axis in axes else None for axis, d in enumerate(value.shape)]
            e.env[value.name] = e.call(T.expect_sizes, e.env[value.name], value.name, shape, why)


def opened(e: Emitter, node: Node) -> Node:
    """The node with its literals taken from the sizes that they follow; constants that it reads are spread to them."""
    if e.origin is None or not e.origin.follows:
        return node
    for name in node.inputs:
        if name is not None and name in e.graph.weights and name in e.origin.follows and name not in e.env:
            _spread(e, name, e.origin.follows[name])
    attrs = dict(node.attrs)
    for one in e.origin.follows.get(node.name, ()):
        value = attrs.get(one.attr)
        if not isinstance(value, tuple) or one.index >= len(value) or value[one.index] in (0, -1):
            continue  # it follows by itself
        if one.value and one.value not in e.env:
            continue
        attrs[one.attr] = (*value[: one.index], _number(e, one), *value[one.index + 1 :])
    return node.with_attrs(**attrs)


def _number(e: Emitter, one: Literal) -> Any:
    if not one.value:
        return -1
    found: fx.Node = e.method("size", e.env[one.value], one.axis)
    for function, amount, neutral in (
        (operator.mul, one.times, 1), (operator.floordiv, one.over, 1), (operator.add, one.plus, 0)
    ):  # fmt: skip
        found = found if amount == neutral else e.call(function, found, amount)
    return found


def _spread(e: Emitter, name: str, literals: Sequence[Literal]) -> None:
    whole = e.arg(name)
    axes = {one.index: one for one in literals}
    rank = e.graph.weights[name].ndim
    ones = [1] * len(axes)
    row = e.call(T.slice_tensor, whole, list(axes), [0] * len(axes), ones, ones)
    e.env[name] = e.call(T.expand, row, [_number(e, axes[i]) if i in axes else -1 for i in range(rank)])
