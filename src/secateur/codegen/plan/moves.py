"""What moves data and computes nothing, done to any NumPy array: to constants, or to the addresses of a value.

A value that was reshaped, turned, cut or resized to the nearest pixel is described by where each of its elements lies;
so whatever chain of such operators led to it becomes one copy, or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateur.ir import RESHAPES, Node
from secateur.ir.infer_movement import slice_range

from .program import Attrs
from .sampling import taps

Array = NDArray[Any]
NOTHING = -1  # the address of a zero
MOST = 1 << 24  # elements whose addresses are looked at; larger values are copied by TVM's library
Move = Callable[[Sequence[Array], Attrs, tuple[int, ...]], "Array | list[Array]"]


def _slice(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    y = x[0]
    for axis, start, end, step in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        y = y.take(np.asarray(slice_range(y.shape[axis], start, end, step), np.int64), axis)
    return y


def _split(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> list[Array]:
    return np.split(x[0], np.cumsum(a["sizes"])[:-1].tolist(), a["axis"])


def _gather(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    found: Array = x[0].take(x[1].astype(np.int64) % x[0].shape[a["axis"]], a["axis"])
    return found


Repeats = Literal["reflect", "edge", "wrap"]
_PAD: Mapping[str, Repeats] = MappingProxyType({"reflect": "reflect", "edge": "edge", "wrap": "wrap"})


def _pad(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    rank, pads = x[0].ndim, a["pads"]
    y = x[0][tuple(slice(max(-pads[i], 0), x[0].shape[i] - max(-pads[rank + i], 0)) for i in range(rank))]
    width = [(max(pads[i], 0), max(pads[rank + i], 0)) for i in range(rank)]
    if a["mode"] == "constant":
        return np.pad(y, width, constant_values=NOTHING)
    mode: Repeats = _PAD[a["mode"]]
    return np.pad(y, width, mode)


def _roll(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    return np.roll(x[0], a["shifts"], a["axes"])


def _depth_to_space(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    (n, c, h, w), b = x[0].shape, a["block"]
    if a["mode"] == "CRD":
        return x[0].reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(shape)
    return x[0].reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(shape)


def _space_to_depth(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    (n, c, h, w), b = x[0].shape, a["block"]
    order = (0, 1, 3, 5, 2, 4) if a["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return x[0].reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(shape)


def _resize(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    y = x[0]
    for axis, one in enumerate(taps(a, x[0].shape, shape)):
        y = y if one is None else y.take(np.array([t[0][0] for t in one]), axis)
    return y


def _reshape(x: Sequence[Array], a: Attrs, shape: tuple[int, ...]) -> Array:
    return x[0].reshape(shape)


MOVE: Mapping[str, Move] = MappingProxyType(
    {
        "concat": lambda x, a, s: np.concatenate(x, a["axis"]), "split": _split, "slice": _slice, "gather": _gather,
        **dict.fromkeys(RESHAPES, _reshape),
        "transpose": lambda x, a, s: x[0].transpose(a["perm"]),
        "expand": lambda x, a, s: np.broadcast_to(x[0], s), "tile": lambda x, a, s: np.tile(x[0], a["repeats"]),
        "pad": _pad, "roll": _roll, "flip": lambda x, a, s: np.flip(x[0], a["axes"]),
        "depth_to_space": _depth_to_space, "space_to_depth": _space_to_depth, "resize": _resize,
        "identity": lambda x, a, s: x[0], "dropout": lambda x, a, s: x[0],
    }
)  # fmt: skip


def moves_only(node: Node, weights: Container[str | None]) -> bool:
    """Does this node move what it reads, or zeros, and nothing else?"""
    if node.op not in MOVE or not all(0 < math.prod(v.shape) <= MOST for v in node.outputs):
        return False
    if node.op == "gather":
        return node.inputs[1] in weights
    if node.op == "resize":
        return bool(node.attrs["mode"] == "nearest")
    if node.op == "pad":
        return bool(node.attrs["mode"] != "constant" or node.attrs["value"] == 0)
    return True


def move(node: Node, arrays: Sequence[Array], name: str) -> Array:
    """The output ``name`` of a node that ``moves_only``."""
    which = [v.name for v in node.outputs].index(name)
    shape = tuple(map(int, node.outputs[which].shape))
    made = MOVE[node.op](arrays, node.attrs, shape)
    found: Array = made[which] if isinstance(made, list) else made
    assert found.shape == shape, f"{node.op} of {node.label}: {found.shape} instead of {shape}"
    return found
