"""Short-time Fourier transforms of torch, there and back: ONNX's STFT, and frames added where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from secateur.ir.graph import Node, Sym
from secateur.ir.symbolic import as_size

from .calls import arguments
from .emitter import Emitter, Rule
from .spectra import real_half

_MOST = 16  # frames over one sample that are added one by one


def _stft(e: Emitter, node: Node) -> None:
    """``aten.stft(self, n_fft, hop, win, window, normalized, onesided, return_complex)``: pairs ``[.., F, T, 2]``."""
    e.needs(node, 17, "STFT")
    a = arguments(node, "self", "n_fft", "hop", "win", "window", "normalized", "onesided", "return_complex", "aligned")
    n, hop = a["n_fft"], a.get("hop") or a["n_fft"] // 4
    if a.get("aligned"):
        raise e.unsupported(node, "align_to_window")
    x, rank = e.ins(node)[0], len(e.shape(node))
    x = e.unsqueeze(x, [rank] if rank == 2 else [0, 2])
    window, onesided = _window(e, node, a, n), a.get("onesided") in (None, True)
    y = e.add("STFT", [x, e.scalar(hop, "i64"), window, e.scalar(n, "i64")], onesided=int(onesided))
    if a.get("normalized"):
        y = e.add("Mul", [y, e.scalar(n**-0.5, e.dtype(node))])
    if rank == 1:
        y = e.axes("Squeeze", y, [0], 13)
    e.add("Transpose", [y], e.outs(node), perm=[0, 2, 1, 3] if rank == 2 else [1, 0, 2])


def _window(e: Emitter, node: Node, a: Mapping[str, Any], n: int) -> str:
    """The window in the middle of a frame, ones where there is none."""
    width = a.get("win") or n
    before = (n - width) // 2
    dtype = np.float64 if e.graph.value(node.inputs[a["self"]] or "").dtype in ("f64", "c128") else np.float32
    if a.get("window") is None:
        return e.const(np.pad(np.ones(width, dtype), (before, n - width - before)))
    name = e.ins(node)[a["window"]]
    return name if width == n else e.add("Pad", [name, e.numbers([before, n - width - before])])


def _istft(e: Emitter, node: Node) -> None:
    """``aten.istft(self, n_fft, hop, win, window, center, normalized, onesided, length, return_complex)``."""
    e.needs(node, 17, "DFT")
    a = arguments(
        node, "self", "n_fft", "hop", "win", "window", "center", "normalized", "onesided", "length", "complex"
    )
    n, hop, length = a["n_fft"], a.get("hop") or a["n_fft"] // 4, a.get("length")
    half, frames = _bins(e, node)
    if a.get("complex") or half != n // 2 + 1:
        raise e.unsupported(node, "a wave of complex numbers")
    x = e.ins(node)[0]
    lead = len(e.shape(node)) - (3 if _paired(e, node) else 2)
    x = e.add("Transpose", [x if lead else e.unsqueeze(x, [0])], perm=[0, 2, 1, 3])  # [B, T, F, 2]
    y = real_half(e, x, 2, half, n, 3)
    if a.get("normalized"):
        y = e.add("Mul", [y, e.scalar(n**0.5, node.out.dtype)])
    window = _window(e, node, a, n)
    squares = e.add("Mul", [window, window])
    ones = e.add("Expand", [e.scalar(1, node.out.dtype), e.ints([1, frames, 1])])
    wave = _added(e, e.add("Mul", [y, window]), n, hop, node.out.dtype)
    weight = _added(e, e.add("Mul", [ones, squares]), n, hop, node.out.dtype)
    start = n // 2 if a.get("center", True) else 0
    whole = _sized(frames) * hop + (n - hop)
    end = start + _sized(length) if length is not None else whole - start
    found = [e.add("Slice", [v, e.numbers([start]), e.ints([end]), e.numbers([1])]) for v in (wave, weight)]
    y = e.add("Div", found)
    if length is not None:
        y = _longer(e, y, length)
    e.add("Identity", [y] if lead else [e.axes("Squeeze", y, [0], 13)], e.outs(node))


def _longer(e: Emitter, y: str, length: int) -> str:
    """Zeros after a wave up to its length."""
    have = e.add("Slice", [e.add("Shape", [y]), e.numbers([1]), e.numbers([2])])
    lack = e.add("Sub", [e.ints([length]), have])
    return e.add("Pad", [y, e.add("Concat", [e.numbers([0, 0, 0]), lack], axis=0)])


def _added(e: Emitter, frames: str, n: int, hop: int, dtype: str) -> str:
    """``[B, T, n]`` frames, each ``hop`` after the one before, added: ``[B, (T - 1) * hop + n]``."""
    over = -(-n // hop)
    if over > _MOST:
        kernel = e.const(np.eye(n, dtype=np.float64 if dtype == "f64" else np.float32)[:, None])
        turned = e.add("Transpose", [frames], perm=[0, 2, 1])
        return e.axes("Squeeze", e.add("ConvTranspose", [turned, kernel], strides=[hop]), [1], 13)
    frames = e.add("Pad", [frames, e.numbers([0, 0, 0, 0, 0, over * hop - n])]) if n % hop else frames
    parts = []
    for i in range(over):
        part = e.add("Slice", [frames, e.numbers([i * hop]), e.numbers([(i + 1) * hop]), e.numbers([2])])
        part = e.add("Reshape", [part, e.numbers([0, -1])])
        parts.append(e.add("Pad", [part, e.numbers([0, i * hop, 0, (over - 1 - i) * hop])]))
    total = parts[0] if over == 1 else e.add("Sum", parts)
    lack = over * hop - n
    return e.add("Slice", [total, e.numbers([0]), e.numbers([-lack]), e.numbers([1])]) if lack else total


def _paired(e: Emitter, node: Node) -> bool:
    """Is the spectrum already pairs here?"""
    return e.shape(node)[-1] == 2 and len(e.shape(node)) == len(node.out.shape) + 2


def _bins(e: Emitter, node: Node) -> tuple[int, int]:
    """Frequencies and frames of the spectrum."""
    shape = e.shape(node)
    half, frames = (shape[:-1] if _paired(e, node) else shape)[-2:]
    return int(half), frames


def _sized(number: int) -> Any:
    return as_size(number) if isinstance(number, Sym) else number


SHORT_TIME: Mapping[str, Rule] = MappingProxyType({"aten.stft.default": _stft, "aten.istft.default": _istft})
