"""Shape rules of the operators that only move data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from secateur.ir.expr import Expr

from .graph import Node, Sym, Value
from .ops import END
from .symbolic import Size, is_fixed, largest, least, unknown

Result = list[tuple[tuple[int, ...], str]]


def _x(ins: Sequence[Value | None], i: int = 0) -> Value:
    value = ins[i]
    if value is None:
        raise ValueError(f"input {i} is missing")
    return value


def reshaped(shape: tuple[int, ...], target: Sequence[int]) -> tuple[int, ...]:
    """The concrete result of reshaping ``shape`` to ``target`` (0 copies, -1 is inferred)."""
    out = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(target)]
    total = math.prod(shape)
    if -1 in out:
        known = math.prod(d for d in out if d != -1)
        hole = out.index(-1)
        if known == 0 or total % known:
            raise ValueError(f"{shape} does not reshape to {tuple(target)}")
        out[hole] = total // known
        # A batch that was spelled -1 keeps its name when it comes through unchanged.
        if hole < len(shape) and shape[hole] == out[hole] and not isinstance(out[hole], Size):
            out[hole] = shape[hole]
    if math.prod(out) != total:
        raise ValueError(f"{shape} does not reshape to {tuple(target)}")
    return tuple(out)


def _reshape(node: Node, ins: Sequence[Value | None]) -> Result:
    return [(reshaped(_x(ins).shape, node.attrs["shape"]), _x(ins).dtype)]


def _flatten(node: Node, ins: Sequence[Value | None]) -> Result:
    s, a, b = _x(ins).shape, node.attrs["start"], node.attrs["end"]
    return [((*s[:a], math.prod(s[a : b + 1]), *s[b + 1 :]), _x(ins).dtype)]


def _transpose(node: Node, ins: Sequence[Value | None]) -> Result:
    s = _x(ins).shape
    if sorted(node.attrs["perm"]) != list(range(len(s))):
        raise ValueError(f"perm {node.attrs['perm']} of rank {len(s)}")
    return [(tuple(s[p] for p in node.attrs["perm"]), _x(ins).dtype)]


def _squeeze(node: Node, ins: Sequence[Value | None]) -> Result:
    s, axes = _x(ins).shape, node.attrs["axes"]
    for a in axes:
        if s[a] != 1:
            raise ValueError(f"axis {a} of {s} is not 1")
    return [(tuple(d for i, d in enumerate(s) if i not in axes), _x(ins).dtype)]


def _unsqueeze(node: Node, ins: Sequence[Value | None]) -> Result:
    s, axes = list(_x(ins).shape), sorted(node.attrs["axes"])
    for a in axes:
        s.insert(a, 1)
    return [(tuple(s), _x(ins).dtype)]


def _expand(node: Node, ins: Sequence[Value | None]) -> Result:
    s, target = _x(ins).shape, node.attrs["shape"]
    lead = len(target) - len(s)
    if lead < 0:
        raise ValueError(f"{s} does not expand to the shorter {target}")
    s = (1,) * lead + s
    out = []
    for have, want in zip(s, target, strict=True):
        if want not in (-1, 1) and have not in (1, want):
            raise ValueError(f"{s} does not expand to {target}")
        stays = want in (-1, 1) or have == want
        out.append(want if isinstance(want, Sym) and type(have) is int else have if stays else want)
    return [(tuple(out), _x(ins).dtype)]


def _tile(node: Node, ins: Sequence[Value | None]) -> Result:
    s, repeats = _x(ins).shape, node.attrs["repeats"]
    kept = [r == 1 and is_fixed(r) for r in repeats]
    return [(tuple(d if k else d * r for d, r, k in zip(s, repeats, kept, strict=True)), _x(ins).dtype)]


def _concat(node: Node, ins: Sequence[Value | None]) -> Result:
    shapes = [_x(ins, i).shape for i in range(len(ins))]
    axis, first = node.attrs["axis"], shapes[0]
    for s in shapes[1:]:
        if len(s) != len(first) or any(a != b for i, (a, b) in enumerate(zip(s, first, strict=True)) if i != axis):
            raise ValueError(f"shapes {first} and {s} do not concatenate along axis {axis}")
    joined = first[axis] if len(shapes) == 1 else sum(s[axis] for s in shapes)
    return [((*first[:axis], joined, *first[axis + 1 :]), _x(ins).dtype)]


def _split(node: Node, ins: Sequence[Value | None]) -> Result:
    s, axis, sizes = _x(ins).shape, node.attrs["axis"], node.attrs["sizes"]
    if sum(sizes) != s[axis]:
        raise ValueError(f"sizes {sizes} do not sum to {s[axis]}")
    return [((*s[:axis], n, *s[axis + 1 :]), _x(ins).dtype) for n in sizes]


def slice_range(size: int, start: int, end: int, step: int) -> range:
    """The positions that a slice with these attributes takes from an axis of ``size``."""
    if step > 0:
        return range(*slice(start, None if end >= END else end, step).indices(size))
    return range(*slice(None if start >= END else start, None if end <= -END else end, step).indices(size))


def slice_count(size: int, start: int, end: int, step: int) -> int:
    """How many positions such a slice takes, at every size of the inputs where one of them follows these.

    Then it is taken to be no empty one, since nothing could be computed from that.
    """
    count = len(slice_range(size, start, end, step))
    if not any(isinstance(v, Size) for v in (size, start, end)):
        return count
    if step < 0 and ((start not in (-1, END) and start < END) or end > -END):
        return unknown(count, f"{Expr.of(size)}[{Expr.of(start)}:{Expr.of(end)}:{step}]")
    if step < 0:
        return -(-size // -step)
    first = start if not start < 0 else size + start if isinstance(start, Size) else largest(size + start, 0)
    last = size if end >= END else size + end if end < 0 else least(end, size)
    return -(-(last - first) // step)


def _slice(node: Node, ins: Sequence[Value | None]) -> Result:
    s, a = list(_x(ins).shape), node.attrs
    for axis, start, end, step in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        count = slice_count(s[axis], start, end, step)
        s[axis] = s[axis] if count == s[axis] and not isinstance(count, Size) else count
    return [(tuple(s), _x(ins).dtype)]


def _gather(node: Node, ins: Sequence[Value | None]) -> Result:
    s, index, axis = _x(ins).shape, _x(ins, 1).shape, node.attrs["axis"]
    return [((*s[:axis], *index, *s[axis + 1 :]), _x(ins).dtype)]


def _pad(node: Node, ins: Sequence[Value | None]) -> Result:
    s, pads = _x(ins).shape, node.attrs["pads"]
    n = len(s)
    if len(pads) != 2 * n:
        raise ValueError(f"{len(pads)} pads for rank {n}")
    both = [(pads[i], pads[n + i]) for i in range(n)]
    out = tuple(d if (a, b) == (0, 0) and is_fixed((a, b)) else d + a + b for d, (a, b) in zip(s, both, strict=True))
    if any(d < 0 for d in out):
        raise ValueError(f"pads {pads} leave nothing of {s}")
    return [(out, _x(ins).dtype)]


def _same(node: Node, ins: Sequence[Value | None]) -> Result:
    return [(_x(ins).shape, _x(ins).dtype)]


def _depth_to_space(node: Node, ins: Sequence[Value | None]) -> Result:
    (n, c, h, w), r = _x(ins).shape, node.attrs["block"]
    if c % (r * r):
        raise ValueError(f"{c} channels are no multiple of block {r} squared")
    return [((n, c // (r * r), h * r, w * r), _x(ins).dtype)]


def _space_to_depth(node: Node, ins: Sequence[Value | None]) -> Result:
    (n, c, h, w), r = _x(ins).shape, node.attrs["block"]
    if h % r or w % r:
        raise ValueError(f"block {r} does not divide {h}x{w}")
    return [((n, c * r * r, h // r, w // r), _x(ins).dtype)]


MOVEMENT: dict[str, Callable[[Node, Sequence[Value | None]], Result]] = {
    "reshape": _reshape, "flatten": _flatten, "transpose": _transpose, "squeeze": _squeeze,
    "unsqueeze": _unsqueeze, "expand": _expand, "tile": _tile, "concat": _concat, "split": _split,
    "slice": _slice, "gather": _gather, "pad": _pad, "roll": _same, "flip": _same,
    "depth_to_space": _depth_to_space, "space_to_depth": _space_to_depth,
}  # fmt: skip
