"""How ONNX operators that only move data become IR nodes, for every operator set since 7."""

from __future__ import annotations

import math

import numpy as np

from secateur.ir.ops import END
from secateur.ir.symbolic import Size

from .builder import Builder, Rule
from .names import Misfit, Odd, Op

FAR = 1 << 30  # ONNX files spell "to the end" as INT32_MAX or INT64_MAX


def norm_axis(axis: int, rank: int) -> int:
    """The axis counted from the front. Raises Misfit where there is no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise Misfit(f"axis {axis} of a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def _axes(b: Builder, op: Op, i: int, rank: int) -> tuple[int, ...] | None:
    """The ``axes`` attribute, or input ``i`` in newer operator sets; None where neither is given."""
    given = op.attrs.get("axes")
    if given is None and op.maybe(i) is not None:
        given = b.ints(op, i, "axes")
    return None if given is None else tuple(norm_axis(int(a), rank) for a in given)


def reduce_axes(b: Builder, op: Op, inputs_since: int) -> tuple[int, ...]:
    """The axes to reduce; all of them where none are named, unless the node says that means none."""
    rank = len(b.shape(op.input(0)))
    axes = _axes(b, op, 1, rank) if op.opset >= inputs_since or "axes" in op.attrs else None
    if not axes:
        return () if op.attrs.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axes))


def _reshape(b: Builder, op: Op) -> None:
    target = b.ints(op, 1, "target shape")
    if op.attrs.get("allowzero", 0) and 0 in target:
        raise Odd("it makes an empty tensor")
    b.result("reshape", [op.input(0)], op, shape=target)


def _flatten(b: Builder, op: Op) -> None:
    x = b.shape(op.input(0))
    axis = op.attrs.get("axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    if axis == 1 and len(x) >= 2:
        b.result("flatten", [op.input(0)], op, start=1, end=len(x) - 1)
    else:
        b.exact = False
        b.result("reshape", [op.input(0)], op, shape=(math.prod(x[:axis]), math.prod(x[axis:])))


def _transpose(b: Builder, op: Op) -> None:
    rank = len(b.shape(op.input(0)))
    perm = tuple(op.attrs.get("perm", range(rank - 1, -1, -1)))
    b.result("transpose", [op.input(0)], op, perm=perm)


def _squeeze(b: Builder, op: Op) -> None:
    x = b.shape(op.input(0))
    axes = _axes(b, op, 1, len(x))
    if axes is None:
        axes = tuple(i for i, d in enumerate(x) if d == 1)
        b.exact = False
    b.result("squeeze", [op.input(0)], op, axes=tuple(sorted(axes)))


def _unsqueeze(b: Builder, op: Op) -> None:
    given = op.attrs.get("axes")
    count = len(given) if given is not None else len(b.ints(op, 1, "axes"))
    axes = _axes(b, op, 1, len(b.shape(op.input(0))) + count)
    assert axes is not None
    b.result("unsqueeze", [op.input(0)], op, axes=tuple(sorted(axes)))


def _concat(b: Builder, op: Op) -> None:
    axis = norm_axis(op.attrs.get("axis", 1), len(b.shape(op.input(0))))
    parts = [i for i in op.inputs if i is None or b.shape(i)[axis] != 0]
    if len(parts) in (0, len(op.inputs)):
        b.result("concat", op.inputs, op, axis=axis)
        return
    b.exact = False  # an empty part adds nothing, and the graph holds no empty tensors
    if len(parts) == 1:
        b.result("identity", parts, op)
    else:
        b.result("concat", parts, op, axis=axis)


def _split(b: Builder, op: Op) -> None:
    x = b.shape(op.input(0))
    axis = norm_axis(op.attrs.get("axis", 0), len(x))
    count = len(op.outputs)
    sizes = tuple(op.attrs["split"]) if "split" in op.attrs else None
    if sizes is None and op.maybe(1) is not None:
        sizes = b.ints(op, 1, "sizes")
    if sizes is None:
        each = -(-x[axis] // count)  # the last part may be smaller
        sizes = (*(each,) * (count - 1), x[axis] - each * (count - 1))
    b.emit("split", [op.input(0)], [o or b.fresh() for o in op.outputs], axis=axis, sizes=sizes)


def _slice(b: Builder, op: Op) -> None:
    x = b.shape(op.input(0))
    if op.opset < 10:
        starts, ends = tuple(op.attrs["starts"]), tuple(op.attrs["ends"])
        axes, steps = tuple(op.attrs.get("axes", range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = b.ints(op, 1, "starts"), b.ints(op, 2, "ends")
        axes = b.ints(op, 3, "axes") if op.maybe(3) else tuple(range(len(starts)))
        steps = b.ints(op, 4, "steps") if op.maybe(4) else (1,) * len(starts)
    axes = tuple(norm_axis(a, len(x)) for a in axes)
    b.result(
        "slice", [op.input(0)], op, axes=axes, starts=tuple(map(_far, starts)), ends=tuple(map(_far, ends)), steps=steps
    )


def _far(position: int) -> int:
    if abs(position) < FAR:
        return position
    return END if position > 0 else -END


def _gather(b: Builder, op: Op) -> None:
    x, index = b.shape(op.input(0)), op.input(1)
    axis = norm_axis(op.attrs.get("axis", 0), len(x))
    known = b.const(index)
    if known is not None and (known < 0).any() and isinstance(x[axis], Size):
        index = b.follow(np.vectorize(lambda i: i + x[axis] if i < 0 else i, otypes=[object])(known), known.dtype)
        b.exact = False
    elif known is not None and (known < 0).any():
        b.exact = False
        index = b.constant(np.where(known < 0, known + x[axis], known).astype(known.dtype))
    b.result("gather", [op.input(0), index], op, axis=axis)


def _expand(b: Builder, op: Op) -> None:
    rank, target = len(b.shape(op.input(0))), b.ints(op, 1, "target shape")
    b.result("expand", [op.input(0)], op, shape=(*(1,) * (rank - len(target)), *target))


def _tile(b: Builder, op: Op) -> None:
    b.result("tile", [op.input(0)], op, repeats=b.ints(op, 1, "repeats"))


def _pad(b: Builder, op: Op) -> None:
    rank, value = len(b.shape(op.input(0))), op.attrs.get("value", 0.0)
    pads = tuple(op.attrs["pads"]) if op.opset < 11 else b.ints(op, 1, "pads")
    if op.opset >= 11 and op.maybe(2):
        value = b.array(op, 2, "value").reshape(-1)[0].item()
    axes = _axes(b, op, 3, rank) if op.opset >= 18 else None
    if axes is not None:
        full = [0] * (2 * rank)
        for i, axis in enumerate(axes):
            full[axis], full[rank + axis] = pads[i], pads[len(axes) + i]
        pads = tuple(full)
    b.result("pad", [op.input(0)], op, pads=pads, mode=op.attrs.get("mode", "constant"), value=value)


def _depth_to_space(b: Builder, op: Op) -> None:
    b.result("depth_to_space", [op.input(0)], op, block=op.attrs["blocksize"], mode=op.attrs.get("mode", "DCR"))


def _space_to_depth(b: Builder, op: Op) -> None:
    b.result("space_to_depth", [op.input(0)], op, block=op.attrs["blocksize"], mode="DCR")


def _resize(b: Builder, op: Op) -> None:
    a, x = op.attrs, b.shape(op.input(0))
    legacy = op.kind == "Upsample" or op.opset < 11
    scales, sizes = _resize_target(b, op, legacy)
    axes = [norm_axis(i, len(x)) for i in a.get("axes", range(len(x)))]
    if scales is not None:
        scales = tuple(scales[axes.index(i)] if i in axes else 1.0 for i in range(len(x)))
        fixed = all(s == 1 for s in scales[:2])
    else:
        assert sizes is not None
        sizes = tuple(sizes[axes.index(i)] if i in axes else x[i] for i in range(len(x)))
        fixed = sizes[:2] == x[:2]
        b.exact = False  # the file's sizes name the channels too
    coordinate = "asymmetric" if legacy else a.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if legacy else a.get("nearest_mode", "round_prefer_floor")
    if not fixed or len(x) < 3 or coordinate == "tf_crop_and_resize" or a.get("antialias", 0):
        raise Odd("it resizes more than the space, crops or smooths")
    if a.get("exclude_outside", 0) or abs(a.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise Odd("its cubic weights are unusual")
    if a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Odd("it keeps the aspect ratio")
    mode = {"bilinear": "linear", "trilinear": "linear"}.get(a.get("mode", "nearest"), a.get("mode", "nearest"))
    b.result(
        "resize", [op.input(0)], op, mode=mode, size=None if sizes is None else sizes[2:],
        scales=None if scales is None else scales[2:], coordinate=coordinate, rounding=rounding,
    )  # fmt: skip


def _resize_target(b: Builder, op: Op, legacy: bool) -> tuple[tuple[float, ...] | None, tuple[int, ...] | None]:
    """Scales or sizes over the named axes, whichever the node gives."""
    if "scales" in op.attrs:
        return tuple(op.attrs["scales"]), None
    at = 1 if legacy else 2
    if op.maybe(at) is not None:
        scales = b.floats(op, at, "scales")
        if scales:
            return scales, None
    return None, b.ints(op, 3, "sizes")


MOVEMENT: dict[str, Rule] = {
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather,
    "Expand": _expand, "Tile": _tile, "Pad": _pad, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Resize": _resize, "Upsample": _resize,
}  # fmt: skip
