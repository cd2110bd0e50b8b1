"""Rules of movement: ATen calls that reorder, cut and join data without computing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from secateur.ir.graph import Array, Value
from secateur.ir.ops import END

from .build import Args, Builder, Rule, Skip, axes_of, axis_of, ints, size_of
from .rules_math import first


def _view(b: Builder, a: Args) -> Value:
    if "dtype" in a and "size" not in a and "shape" not in a:
        raise Skip("reinterpretation of bits")
    shape = a.get("size", a.get("shape"))
    return b.reshape(a.self, shape)


def _view_as(b: Builder, a: Args) -> Value:
    a.shown("other")
    return b.reshape(a.self, a.shape)


def _flatten(b: Builder, a: Args) -> Value:
    rank = len(a.self.shape)
    start, end = axis_of(a.start_dim, rank), axis_of(a.end_dim, rank)
    if rank == 0:
        return b.reshape(a.self, (1,))
    if start == end:
        x: Value = a.self
        return x
    return b.emit("flatten", [a.self], start=start, end=end)


def _unflatten(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    return b.reshape(a.self, (*a.self.shape[:axis], *a.sizes, *a.self.shape[axis + 1 :]))


def _permute(b: Builder, a: Args) -> Value:
    rank = len(a.self.shape)
    return b.transpose(a.self, [axis_of(d, rank) for d in a.dims])


def _transpose(b: Builder, a: Args) -> Value:
    rank = len(a.self.shape)
    perm = list(range(rank))
    if rank:
        i = axis_of(a.get("dim0", a.get("axis0")), rank)
        j = axis_of(a.get("dim1", a.get("axis1")), rank)
        perm[i], perm[j] = j, i
    return b.transpose(a.self, perm)


def _turn(b: Builder, a: Args) -> Value:
    """t, mT, numpy_T: the last two axes swapped (all reversed for numpy_T of more)."""
    rank = len(a.self.shape)
    if "numpy_T" in str(a.target):
        return b.transpose(a.self, tuple(reversed(range(rank))))
    return b.transpose(a.self, (*range(rank - 2), rank - 1, rank - 2) if rank > 1 else range(rank))


def _movedim(b: Builder, a: Args) -> Value:
    rank = len(a.self.shape)
    source, target = (axes_of(a.get(k), rank) for k in ("source", "destination"))
    rest = iter(i for i in range(rank) if i not in source)
    perm = [source[target.index(i)] if i in target else next(rest) for i in range(rank)]
    return b.transpose(a.self, perm)


def _squeeze(b: Builder, a: Args) -> Value:
    rank = len(a.self.shape)
    axes = axes_of(a.get("dim"), rank) if rank else ()
    axes = tuple(i for i in axes if a.self.shape[i] == 1)
    x: Value = a.self
    return b.emit("squeeze", [x], axes=axes) if axes else x


def _unsqueeze(b: Builder, a: Args) -> Value:
    return b.emit("unsqueeze", [a.self], axes=(axis_of(a.dim, len(a.self.shape) + 1),))


def _expand_to(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    shape = tuple(int(d) for d in shape)
    full = tuple(x.shape[i - len(shape)] if d == -1 else d for i, d in enumerate(shape))
    return x if full == x.shape else b.emit("expand", [x], shape=shape)


def _expand(b: Builder, a: Args) -> Value:
    # Kept even where nothing grows: at another batch size the same call does.
    shape = tuple(int(d) for d in a.size)
    return b.emit("expand", [a.self], shape=shape) if any(d != -1 for d in shape) else _expand_to(b, a.self, shape)


def _expand_as(b: Builder, a: Args) -> Value:
    a.shown("other")
    return _expand_to(b, a.self, a.shape)


def _copy(b: Builder, a: Args) -> Value:
    """x.copy_(source): the source in x's shape and type."""
    a.shown("self")
    source = b.cast(a.src, a.dtype) if isinstance(a.src, Value) else b.lift(a.src, a.dtype)
    return _expand_to(b, source, a.shape)


def _fill(b: Builder, a: Args) -> Value:
    """x.fill_(value) and x.zero_(): nothing of x but its shape and type is left."""
    a.shown("self")
    return _expand_to(b, b.lift(a.get("value", 0), a.dtype), a.shape)


def _repeat(b: Builder, a: Args) -> Value:
    repeats = tuple(int(r) for r in a.get("repeats", a.get("dims")))
    x: Value = a.self
    rank = max(len(repeats), len(x.shape))
    if len(x.shape) < rank:
        x = b.reshape(x, (1,) * (rank - len(x.shape)) + x.shape)
    repeats = (1,) * (rank - len(repeats)) + repeats
    return b.emit("tile", [x], repeats=repeats)


def _cat(b: Builder, a: Args) -> Value:
    parts = [b.cast(t, a.dtype) for t in a.tensors if t.shape != (0,)]
    axis = axis_of(a.dim, len(parts[0].shape))  # asked for in any case: of one part every axis is right
    return parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=axis)


def _stack(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.tensors[0].shape) + 1)
    parts = [b.emit("unsqueeze", [b.cast(t, a.dtype)], axes=(axis,)) for t in a.tensors]
    return parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=axis)


def _split_sizes(b: Builder, x: Value, axis: int, sizes: Sequence[int]) -> tuple[Value, ...]:
    return (x,) if len(sizes) == 1 else b.emit_many("split", [x], len(sizes), axis=axis, sizes=tuple(sizes))


def _split(b: Builder, a: Args) -> tuple[Value, ...]:
    """split, split_with_sizes, chunk, tensor_split: the sizes stand in the recorded results."""
    a.shown("split_size", "split_sizes", "chunks", "sections", "indices", "tensor_indices_or_sections")
    axis = axis_of(a.dim, len(a.self.shape))
    return _split_sizes(b, a.self, axis, [int(m.shape[axis]) for m in a.meta])


def _unbind(b: Builder, a: Args) -> tuple[Value, ...]:
    axis = axis_of(a.dim, len(a.self.shape))
    parts = _split_sizes(b, a.self, axis, (1,) * a.self.shape[axis])
    return tuple(b.emit("squeeze", [p], axes=(axis,)) for p in parts)


def _select(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    index = axis_of(int(a.index), a.self.shape[axis])
    return b.emit("squeeze", [b.slice(a.self, axis, index, index + 1)], axes=(axis,))


def _bounds(a: Args, size: int) -> tuple[int, int]:
    start = 0 if a.start is None else int(a.start)
    end = END if a.end is None else int(a.end)
    start = max(start + size, 0) if start < 0 else min(start, size)
    end = max(end + size, 0) if end < 0 else end
    return start, END if end >= size else end


def _slice(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    size = a.self.shape[axis]
    start, end = _bounds(a, size)
    x: Value = a.self
    if b.open_sizes and a.end is not None and size <= a.end < END:  # at another size it may end before
        return b.slice(x, axis, start, size, int(a.step))
    return x if start == 0 and end == END and a.step == 1 else b.slice(x, axis, start, end, int(a.step))


def _narrow(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    start = axis_of(int(a.start), a.self.shape[axis])
    end = start + int(a.length)
    return b.slice(a.self, axis, start, END if end == a.self.shape[axis] else end)


def _slice_scatter(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    start, end = _bounds(a, a.self.shape[axis])
    if a.step != 1:
        raise Skip("slice_scatter with a step")
    parts = [b.cast(a.src, a.dtype)]
    if start:
        parts.insert(0, b.slice(a.self, axis, 0, start))
    if end != END:
        parts.append(b.slice(a.self, axis, end, END))
    return parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=axis)


def _select_scatter(b: Builder, a: Args) -> Value:
    axis = axis_of(a.dim, len(a.self.shape))
    size = a.self.shape[axis]
    index = axis_of(int(a.index), size)
    parts = [b.emit("unsqueeze", [b.cast(a.src, a.dtype)], axes=(axis,))]
    if index:
        parts.insert(0, b.slice(a.self, axis, 0, index))
    if index + 1 < size:
        parts.append(b.slice(a.self, axis, index + 1, END))
    return parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=axis)


def _index_select(b: Builder, a: Args) -> Value:
    return b.emit("gather", [a.self, a.index], axis=axis_of(a.dim, len(a.self.shape)))


def _embedding(b: Builder, a: Args) -> Value:
    a.shown("padding_idx", "scale_grad_by_freq", "sparse")  # these speak of gradients
    return b.emit("gather", [a.weight, a.indices], axis=0)


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


def _roll(b: Builder, a: Args) -> Value:
    if not a.dims:
        raise Skip("roll of the flattened tensor")
    axes = axes_of(a.dims, len(a.self.shape))
    return b.emit("roll", [a.self], shifts=ints(a.shifts, len(axes)), axes=axes)


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
    """Each element so many times, one beside the other."""
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
    """im2col: the windows' places one beside the other, each a strided slice of the picture."""
    x: Value = a.self
    lone = len(x.shape) == 3
    x = b.emit("unsqueeze", [x], axes=(0,)) if lone else x
    kernel, dilation, pad, stride = (ints(v, 2) for v in (a.kernel_size, a.dilation, a.padding, a.stride))
    x = pad_pairs(b, x, (pad[1], pad[1], pad[0], pad[0]), "constant", 0.0)
    parts = [
        b.emit("unsqueeze", [_window(b, x, (i, j), kernel, dilation, stride)], axes=(2,))
        for i in reversed(range(kernel[0]))
        for j in reversed(range(kernel[1]))
    ]
    whole = b.emit("concat", parts[::-1], axis=2) if len(parts) > 1 else parts[0]
    flat = b.emit("flatten", [b.emit("flatten", [whole], start=3, end=4)], start=1, end=2)
    return b.emit("squeeze", [flat], axes=(0,)) if lone else flat


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


def _flip(b: Builder, a: Args) -> Value:
    return b.emit("flip", [a.self], axes=axes_of(a.dims, len(a.self.shape)))


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_pairs(b: Builder, x: Value, pairs: Sequence[int], mode: str, value: float) -> Value:
    """Pads in torch's order: pairs of (begin, end) from the last axis backwards."""
    rank = len(x.shape)
    pads = [0] * (2 * rank)
    for i in range(len(pairs) // 2):
        pads[rank - 1 - i], pads[2 * rank - 1 - i] = int(pairs[2 * i]), int(pairs[2 * i + 1])
    return b.emit("pad", [x], pads=tuple(pads), mode=_MODES[mode], value=value) if any(pads) or b.open_sizes else x


def _pad(mode: str | None) -> Rule:
    def rule(b: Builder, a: Args) -> Value:
        kind = mode or a.mode
        value = a.get("value") or 0
        pairs = a.get("pad", a.get("padding"))
        return pad_pairs(b, a.self, pairs, kind, value)

    return rule


def _pixel_shuffle(b: Builder, a: Args) -> Value:
    return b.emit("depth_to_space", [a.self], block=int(a.upscale_factor), mode="CRD")


def _pixel_unshuffle(b: Builder, a: Args) -> Value:
    return b.emit("space_to_depth", [a.self], block=int(a.downscale_factor), mode="CRD")


def _channel_shuffle(b: Builder, a: Args) -> Value:
    n, c, *rest = a.self.shape
    split = b.reshape(a.self, (n, a.groups, c // a.groups, *rest))
    return b.reshape(b.transpose(split, (0, 2, 1, *range(3, len(rest) + 3))), (n, c, *rest))


def _cast(b: Builder, a: Args) -> Value:
    a.shown("other")  # type_as and to take its element type
    return b.cast(a.first(), a.dtype)


def _requires_grad(b: Builder, a: Args) -> Value:
    a.shown("requires_grad")
    return first(b, a)


MOVE: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
        **dict.fromkeys(("view_as", "reshape_as"), _view_as),
        "flatten": _flatten, "unflatten": _unflatten, "permute": _permute,
        **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
        **dict.fromkeys(("t", "mT", "adjoint", "numpy_T"), _turn), "movedim": _movedim, "moveaxis": _movedim,
        "squeeze": _squeeze, "unsqueeze": _unsqueeze, "expand": _expand, "expand_as": _expand_as,
        "broadcast_to": _expand, "copy": _copy, "fill": _fill, "zero": _fill, "repeat": _repeat, "tile": _repeat,
        **dict.fromkeys(("cat", "concat", "concatenate"), _cat), "stack": _stack,
        **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split"), _split),
        "unbind": _unbind, "select": _select, "slice": _slice, "narrow": _narrow,
        "slice_scatter": _slice_scatter, "select_scatter": _select_scatter,
        "index_select": _index_select, "index": _index, "embedding": _embedding,
        "roll": _roll, "flip": _flip, "rot90": _rot90, "im2col": _unfold,
        "repeat_interleave": _repeat_interleave, "pad": _pad(None), "constant_pad_nd": _pad("constant"),
        **{f"reflection_pad{d}d": _pad("reflect") for d in (1, 2, 3)},
        **{f"replication_pad{d}d": _pad("replicate") for d in (1, 2, 3)},
        "pixel_shuffle": _pixel_shuffle, "pixel_unshuffle": _pixel_unshuffle, "channel_shuffle": _channel_shuffle,
        **dict.fromkeys(("clone", "contiguous", "detach", "detach_", "alias", "lift_fresh", "lift_fresh_copy",
                         "lift", "positive"), first), "requires_grad_": _requires_grad,
        **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half", "double", "long", "int", "bool"), _cast),
    }
)  # fmt: skip
