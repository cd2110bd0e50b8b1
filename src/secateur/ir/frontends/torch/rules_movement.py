"""Rules of movement: ATen calls that reorder, cut and join data without computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from secateur.ir.graph import Sym, Value
from secateur.ir.ops import END

from .build import Args, Builder, Result, Rule, Skip, axes_of, axis_of, ints
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
        return _scattered(b, a, axis, range(start, a.self.shape[axis] if end == END else end, int(a.step)))
    parts = [b.cast(a.src, a.dtype)]
    if start:
        parts.insert(0, b.slice(a.self, axis, 0, start))
    if end != END:
        parts.append(b.slice(a.self, axis, end, END))
    return parts[0] if len(parts) == 1 else b.emit("concat", parts, axis=axis)


def _scattered(b: Builder, a: Args, axis: int, places: range) -> Value:
    """Every so many positions from ``src``, the others as they are: both in a row, and an index of where each is."""
    size = a.self.shape[axis]
    if isinstance(size, Sym):
        raise Skip("slice_scatter with a step along an axis of open size")
    index = np.arange(int(size))
    index[places] = int(size) + np.arange(len(places))
    both = b.emit("concat", [a.self, b.cast(a.src, a.dtype)], axis=axis)
    return b.emit("gather", [both, b.const(index)], axis=axis)


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


def _bag(b: Builder, a: Args) -> Result:
    """Bags of equally many: rows picked, and their sum, mean or maximum."""
    a.shown("scale_grad_by_freq", "sparse")  # these speak of gradients
    offsets = b.now.get(a.offsets.name, b.array(a.offsets))
    if offsets is None or a.get("include_last_offset") or (a.get("padding_idx") or -1) >= 0:
        raise Skip("bags that differ in size")
    (total,), count = a.indices.shape, len(offsets)
    size = total // count
    if not np.array_equal(offsets, np.arange(0, total, size)):
        raise Skip("bags that differ in size")
    rows = b.emit("gather", [a.weight, b.reshape(a.indices, (count, size))], axis=0)
    if a.get("per_sample_weights") is not None:
        rows = b.emit("mul", [rows, b.reshape(a.per_sample_weights, (count, size, 1))])
    op = ("reduce_sum", "reduce_mean", "reduce_max")[a.get("mode", 0)]
    return b.emit(op, [rows], axes=(1,), keepdims=False), None, None, None


def _roll(b: Builder, a: Args) -> Value:
    if not a.dims:
        raise Skip("roll of the flattened tensor")
    axes = axes_of(a.dims, len(a.self.shape))
    return b.emit("roll", [a.self], shifts=ints(a.shifts, len(axes)), axes=axes)


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
        "index_select": _index_select, "embedding": _embedding, "embedding_bag": _bag,
        "roll": _roll, "flip": _flip, "pad": _pad(None), "constant_pad_nd": _pad("constant"),
        **{f"reflection_pad{d}d": _pad("reflect") for d in (1, 2, 3)},
        **{f"replication_pad{d}d": _pad("replicate") for d in (1, 2, 3)},
        "pixel_shuffle": _pixel_shuffle, "pixel_unshuffle": _pixel_unshuffle, "channel_shuffle": _channel_shuffle,
        **dict.fromkeys(("clone", "contiguous", "detach", "detach_", "alias", "lift_fresh", "lift_fresh_copy",
                         "lift", "positive"), first), "requires_grad_": _requires_grad,
        **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half", "double", "long", "int", "bool"), _cast),
    }
)  # fmt: skip
