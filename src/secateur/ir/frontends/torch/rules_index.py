"""Rules of indices and windows: calls that pick places by tensors, or take one picture apart into many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from secateur.ir.graph import Array, Value
from secateur.ir.ops import END

from .build import Args, Builder, Rule, Skip, axes_of, axis_of, ints, positions, size_of, size_value
from .rules_movement import pad_pairs


def _index(b: Builder, a: Args) -> Value:
    """x[.., i, ..] with one integer index is a gather; indices of adjacent axes are joined into one."""
    used = [i for i, index in enumerate(a.indices) if index is not None]
    if not used or used != list(range(used[0], used[-1] + 1)):
        raise Skip("indices of axes that are not adjacent")
    indices = [a.indices[i] for i in used]
    if any(i.dtype not in ("i64", "i32") for i in indices):
        raise Skip("indexing with a mask")
    axis, x = used[0], a.self
    sizes = x.shape[axis : used[-1] + 1]
    known = [b.array(i) for i in indices]
    arrays = [_positive(k, n) for k, n in zip(known, sizes, strict=True) if k is not None]
    if len(arrays) < len(indices):
        return _index_computed(b, x, axis, indices)
    flat = np.zeros((), np.int64)
    for array, size in zip(arrays, sizes, strict=True):
        flat = flat * size + array
    if len(used) > 1:
        x = b.reshape(x, (*x.shape[:axis], math.prod(sizes), *x.shape[used[-1] + 1 :]))
    same = len(used) == 1 and np.array_equal(np.asarray(known[0]), flat)
    index = indices[0] if same else b.const(np.ascontiguousarray(flat))
    return b.emit("gather", [x, index], axis=axis)


def _index_computed(b: Builder, x: Value, axis: int, indices: Sequence[Value]) -> Value:
    """A gather by a computed index; by several, along their axes made one. Negative ones count from the end."""
    flat: Value | None = None
    for i, index in enumerate(indices, axis):
        index = b.cast(index, "i64")
        behind = b.emit("add", [index, size_of(b, x, i)])
        index = b.emit("where", [b.emit("lt", [index, b.scalar(0, "i64")]), behind, index])
        flat = index if flat is None else b.emit("add", [b.emit("mul", [flat, size_of(b, x, i)]), index])
    assert flat is not None
    if len(indices) > 1:
        x = b.emit("flatten", [x], start=axis, end=axis + len(indices) - 1)
    return b.emit("gather", [x, flat], axis=axis)


def _positive(index: Array, size: int) -> Array:
    return np.where(index < 0, index + size, index).astype(np.int64)


def _rot90(b: Builder, a: Args) -> Value:
    """Quarter turns from the first axis towards the second."""
    x: Value = a.self
    i, j = axes_of(a.dims, len(x.shape))
    turns = int(a.k) % 4
    perm = list(range(len(x.shape)))
    perm[i], perm[j] = j, i
    if turns == 2:
        return b.emit("flip", [x], axes=(i, j))
    if turns == 1:
        return b.transpose(b.emit("flip", [x], axes=(j,)), perm)
    return b.emit("flip", [b.transpose(x, perm)], axes=(j,)) if turns else x


def _repeat_interleave(b: Builder, a: Args) -> Value:
    """Each element so many times, one next to the other."""
    a.shown("output_size")
    count, x = a.repeats, a.self
    if not isinstance(count, int):
        raise Skip("repeats that are data")
    if a.dim is None:
        x = b.reshape(x, (-1,))
    axis = axis_of(a.dim or 0, len(x.shape))
    rank = len(x.shape) + 1
    wide = b.emit("tile", [b.emit("unsqueeze", [x], axes=(axis + 1,))], repeats=tuple(
        count if i == axis + 1 else 1 for i in range(rank)))  # fmt: skip
    return b.emit("flatten", [wide], start=axis, end=axis + 1)


def _unfold(b: Builder, a: Args) -> Value:
    """im2col, of a batch or of one picture."""
    x: Value = a.self
    lone = len(x.shape) == 3
    x = b.emit("unsqueeze", [x], axes=(0,)) if lone else x
    found = unfolded(b, x, *(ints(v, 2) for v in (a.kernel_size, a.dilation, a.padding, a.stride)))
    return b.emit("squeeze", [found], axes=(0,)) if lone else found


def unfolded(
    b: Builder, x: Value, kernel: Sequence[int], dilation: Sequence[int], pad: Sequence[int], stride: Sequence[int]
) -> Value:
    """``[N, C * kh * kw, L]``: the windows' places one next to the other, each a strided slice of the picture."""
    x = pad_pairs(b, x, (pad[1], pad[1], pad[0], pad[0]), "constant", 0.0)
    parts = [
        b.emit("unsqueeze", [_window(b, x, (i, j), kernel, dilation, stride)], axes=(2,))
        for i in reversed(range(kernel[0]))
        for j in reversed(range(kernel[1]))
    ]
    whole = b.emit("concat", parts[::-1], axis=2) if len(parts) > 1 else parts[0]
    return b.emit("flatten", [b.emit("flatten", [whole], start=3, end=4)], start=1, end=2)


def _window(
    b: Builder, x: Value, place: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> Value:
    """What lies at one place of every window."""
    starts = [i * d for i, d in zip(place, dilation, strict=True)]
    behind = [(k - 1 - i) * d for i, k, d in zip(place, kernel, dilation, strict=True)]
    far = [
        END if s > 1 or not lack else n - lack for n, lack, s in zip(x.shape[2:], behind, stride, strict=True)
    ]  # of stride 1, all but so many
    count = [(n - s - lack - 1) // t + 1 for n, s, lack, t in zip(x.shape[2:], starts, behind, stride, strict=True)]
    x = b.emit("slice", [x], axes=(2, 3), starts=tuple(starts), ends=tuple(far), steps=tuple(stride))
    crop = tuple(i for i in range(2) if stride[i] > 1 and behind[i])  # else one window too many may begin here
    for i in crop:
        x = b.slice(x, 2 + i, 0, count[i])
    return x


def _affine_grid(b: Builder, a: Args) -> Value:
    """Where each pixel of a picture of this size lies under an affine map of the plane."""
    if len(a.size) != 4:
        raise Skip("an affine map of space")
    n, rows, columns = a.theta.shape[0], int(a.size[2]), int(a.size[3])
    dtype = a.theta.dtype
    x = b.reshape(_line(b, columns, a.align_corners, dtype), (1, columns, 1))
    y = b.reshape(_line(b, rows, a.align_corners, dtype), (rows, 1, 1))
    one = b.scalar(1, dtype)
    parts = [b.emit("expand", [part], shape=(rows, columns, 1)) for part in (x, y, one)]
    base = b.emit("flatten", [b.emit("concat", parts, axis=2)], start=0, end=1)
    return b.reshape(b.emit("matmul", [base, b.transpose(a.theta, (0, 2, 1))]), (n, rows, columns, 2))


def _line(b: Builder, count: int, corners: bool, dtype: str) -> Value:
    """The pixels' middles between -1 and 1, or from corner to corner."""
    size = b.cast(size_value(b, count - 1 if corners else count), dtype)
    twice = b.binary("mul", b.cast(positions(b, count), dtype), 2.0, dtype)
    twice = twice if corners else b.binary("add", twice, 1.0, dtype)
    return b.binary("sub", b.emit("div", [twice, size]), 1.0, dtype)


INDEX: Mapping[str, Rule] = MappingProxyType(
    {
        "index": _index,
        "affine_grid_generator": _affine_grid,
        "rot90": _rot90,
        "im2col": _unfold,
        "repeat_interleave": _repeat_interleave,
    }
)
