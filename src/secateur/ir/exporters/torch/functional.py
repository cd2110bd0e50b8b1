"""Operators of the IR that torch has no single function for, as plain functions of tensors.

Exported modules call these; they need nothing else of secateur.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_END = 1 << 62


class SizeError(ValueError):
    """An input of a size that the network was not captured at."""


def expect_sizes(x: Tensor, name: str, shape: Sequence[int | None], why: str) -> Tensor:
    """The tensor, if it has these sizes; None stands for any. Raises SizeError."""
    if len(shape) != x.dim() or any(d is not None and d != e for d, e in zip(shape, x.shape, strict=True)):
        want = " x ".join("any" if d is None else str(d) for d in shape)
        raise SizeError(
            f"input '{name}' is {' x '.join(map(str, x.shape))}, and this network was captured at {want}: {why}. "
            "Give it that size, or compile the original again with example inputs of the size you need."
        )
    return x


def slice_tensor(
    x: Tensor, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """NumPy's slicing, negative steps included."""
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step > 0:
            index = [slice(None)] * axis + [slice(start, None if end >= _END else end, step)]
            x = x[tuple(index)]
        else:
            bounds = slice(None if start >= _END else start, None if end <= -_END else end, step)
            positions = list(range(*bounds.indices(x.shape[axis])))
            x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64, device=x.device))
    return x


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """ONNX's Gather: the index's shape replaces the axis; negative indices count from the end."""
    flat = index.reshape(-1).to(torch.int64)
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    picked = x.index_select(axis, flat)
    return picked.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape where 0 copies the input's dimension."""
    return x.reshape([x.shape[i] if d == 0 and i < x.dim() else d for i, d in enumerate(shape)])


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast to the shape; -1 and 1 keep the dimension."""
    lead = len(shape) - x.dim()
    full = (1,) * lead + tuple(x.shape)
    return x.reshape(full).expand([have if want in (-1, 1) else want for have, want in zip(full, shape, strict=True)])


def pad(x: Tensor, pads: Sequence[int], mode: str, value: float) -> Tensor:
    """Pads of all axes, begins then ends; negative pads crop."""
    rank = x.dim()
    if mode == "constant":
        pairs = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
        return F.pad(x, pairs, "constant", value)
    for axis in range(rank):
        begin, end = pads[axis], pads[rank + axis]
        if begin or end:
            size = x.shape[axis]
            positions = torch.arange(-begin, size + end, device=x.device)
            if mode == "edge":
                positions = positions.clamp(0, size - 1)
            elif mode == "wrap":
                positions = positions % size
            else:  # reflect, without repeating the edge
                period = max(2 * (size - 1), 1)
                positions = positions.abs() % period
                positions = torch.where(positions >= size, period - positions, positions)
            x = x.index_select(axis, positions)
    return x


def window_pad(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    """Pads of the spatial axes only."""
    d = len(pads) // 2
    return F.pad(x, [p for i in reversed(range(d)) for p in (pads[i], pads[d + i])], "constant", value)


def avg_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], ceil: bool, include_pad: bool
) -> Tensor:
    """Average pooling with pads that may differ at both ends.

    What a window that overhangs by ``ceil`` covers is never counted; pads count if ``include_pad``.
    """
    d = len(kernel)
    pool: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[d - 1]
    if list(pads[:d]) == list(pads[d:]) and all(2 * p <= k for p, k in zip(pads, kernel, strict=False)):
        return pool(x, list(kernel), list(stride), list(pads[:d]), ceil, include_pad)  # type: ignore[no-any-return]
    ones = torch.ones_like(x[:1, :1])
    padded, count = window_pad(x, pads, 0.0), window_pad(ones, pads, 1.0 if include_pad else 0.0)
    if ceil:
        extra = [0] * d
        for i in range(d):
            size = padded.shape[2 + i]
            windows = -(-(size - kernel[i]) // stride[i]) + 1
            if (windows - 1) * stride[i] >= x.shape[2 + i] + pads[i]:
                windows -= 1
            extra[i] = max((windows - 1) * stride[i] + kernel[i] - size, 0)
        padded, count = window_pad(padded, [0] * d + extra, 0.0), window_pad(count, [0] * d + extra, 0.0)
    total = pool(padded, list(kernel), list(stride))
    return total / pool(count, list(kernel), list(stride))  # type: ignore[no-any-return]


def max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int], ceil: bool
) -> Tensor:
    """Max pooling with pads that may differ at both ends, or be larger than half the window."""
    d = len(kernel)
    low = -math.inf if x.dtype.is_floating_point else torch.iinfo(x.dtype).min
    pool: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[d - 1]
    counts = []
    for i in range(d):
        span = x.shape[2 + i] + pads[i] + pads[d + i] - dilation[i] * (kernel[i] - 1) - 1
        count = (span + (stride[i] - 1 if ceil else 0)) // stride[i] + 1
        if ceil and (count - 1) * stride[i] >= x.shape[2 + i] + pads[i]:
            count -= 1
        counts.append((count - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1)
    ends = [counts[i] - x.shape[2 + i] - pads[i] for i in range(d)]
    padded = window_pad(x, [*pads[:d], *ends], low)
    return pool(padded, list(kernel), list(stride), 0, list(dilation))  # type: ignore[no-any-return]


def lrn(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Local response normalisation by ONNX's definition, which also fits even sizes."""
    begin = (size - 1) // 2
    square = F.pad((x * x).flatten(2).unsqueeze(1), (0, 0, begin, size - 1 - begin))
    total = F.avg_pool2d(square, (size, 1), 1).squeeze(1).reshape(x.shape) * size
    return x / (bias + alpha / size * total) ** beta


def depth_to_space(x: Tensor, block: int, mode: str) -> Tensor:
    """DCR and CRD, as ONNX names them."""
    if mode == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: Tensor, block: int, mode: str) -> Tensor:
    """The inverse of depth_to_space in the same mode."""
    if mode == "CRD":
        return F.pixel_unshuffle(x, block)
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block**2, h // block, w // block)


def reduce_prod(x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    """A product over several axes."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdims)
    return x


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """torch.einsum with the operands as arguments."""
    return torch.einsum(equation, *operands)


def prelu(x: Tensor, w: Tensor) -> Tensor:
    """A slope that broadcasts."""
    return torch.where(x > 0, x, x * w)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """clip(alpha x + beta, 0, 1)."""
    return (x * alpha + beta).clamp(0, 1)


def _reorder(w: Tensor, order: Sequence[int]) -> Tensor:
    parts = w.chunk(len(order), 0)
    return torch.cat([parts[g] for g in order])


def lstm(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None, c0: Tensor | None,
    hidden: int, direction: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """ONNX's LSTM (gates i o f g; y is [T, D, B, H]) by torch's kernel."""
    y, states = _recurrent(x, w, r, b, [h0, c0], hidden, direction, (0, 2, 3, 1))
    return y, states[0], states[1]


def gru(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None,
    hidden: int, direction: str, linear_before_reset: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """ONNX's GRU (gates z r n); step by step where the reset gate comes before the product."""
    if linear_before_reset:
        y, states = _recurrent(x, w, r, b, [h0], hidden, direction, (1, 0, 2))
        return y, states[0]
    return _gru_steps(x, w, r, b, h0, hidden, direction)


def rnn(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None,
    hidden: int, direction: str, activation: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """ONNX's RNN with one activation, "tanh" or "relu"."""
    y, states = _recurrent(x, w, r, b, [h0], hidden, direction, (0,), getattr(torch, f"rnn_{activation}"))
    return y, states[0]


def _recurrent(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, initial: list[Tensor | None], hidden: int, direction: str,
    order: Sequence[int], run: Any = None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    ways, (steps, batch, _) = w.shape[0], x.shape
    params: list[Tensor] = []
    for k in range(ways):
        params += [_reorder(w[k], order), _reorder(r[k], order)]
        if b is not None:
            params += [_reorder(half, order) for half in b[k].chunk(2)]
    states = [s if s is not None else x.new_zeros(ways, batch, hidden) for s in initial]
    if direction == "reverse":
        x = x.flip(0)
    hx: Any = tuple(states) if len(states) == 2 else states[0]
    run = run or (torch.lstm if len(states) == 2 else torch.gru)
    y, *last = run(x, hx, params, b is not None, 1, 0.0, False, ways == 2, False)
    if direction == "reverse":
        y = y.flip(0)
    return y.reshape(steps, batch, ways, hidden).transpose(1, 2), list(last)


def _gru_steps(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h0: Tensor | None, hidden: int, direction: str
) -> tuple[Tensor, Tensor]:
    outs, finals = [], []
    for k in range(w.shape[0]):
        wb, rb = b[k].chunk(2) if b is not None else (x.new_zeros(3 * hidden), x.new_zeros(3 * hidden))
        h = h0[k] if h0 is not None else x.new_zeros(x.shape[1], hidden)
        backwards = direction == "reverse" or k == 1
        row: list[Tensor] = []
        for t in reversed(range(x.shape[0])) if backwards else range(x.shape[0]):
            zx, rx, nx = F.linear(x[t], w[k], wb).chunk(3, 1)
            zr, rr = F.linear(h, r[k][: 2 * hidden], rb[: 2 * hidden]).chunk(2, 1)
            z, reset = torch.sigmoid(zx + zr), torch.sigmoid(rx + rr)
            n = torch.tanh(nx + F.linear(reset * h, r[k][2 * hidden :], rb[2 * hidden :]))
            h = (1 - z) * n + z * h
            row.append(h)
        outs.append(torch.stack(row[::-1] if backwards else row))
        finals.append(h)
    return torch.stack(outs, 1), torch.stack(finals)


def opaque(target: str, payload: str, *operands: Tensor, sizes: Sequence[int] = ()) -> Any:
    """Call an ATen operator word for word, as the frontend found it, with these sizes among its arguments."""
    space, name, overload = target.split(".")
    call = getattr(getattr(getattr(torch.ops, space), name), overload)
    spec = json.loads(payload)
    if name == "view_as_complex":  # copies that make memory contiguous are left out of the IR
        operands = tuple(o.contiguous() for o in operands)
    named = {k: _revive(v, operands, sizes) for k, v in spec["kwargs"].items()}
    return call(*_revive(spec["args"], operands, sizes), **named)


def _revive(item: Any, operands: Sequence[Tensor], sizes: Sequence[int]) -> Any:
    if isinstance(item, list):
        return [_revive(i, operands, sizes) for i in item]
    if isinstance(item, dict):
        if "$" in item:
            return operands[item["$"]]
        if "#" in item:
            return sizes[item["#"]]
        if "complex" in item:
            return complex(*item["complex"])
        if "torch" in item:
            return getattr(torch, item["torch"])
        return torch.device(item["device"]) if "device" in item else float(item["float"])
    return item
