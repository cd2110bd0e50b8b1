"""Fourier transforms of torch as DFT, which reads and writes pairs along a last axis (``complex_numbers``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from secateur.ir.graph import Node, Sym
from secateur.ir.symbolic import as_size

from .calls import arguments
from .emitter import Emitter, Rule


def _transform(e: Emitter, x: str, axis: int, inverse: bool, onesided: bool = False, out: str | None = None) -> str:
    """One axis; the inverse is divided by its length."""
    attrs = {"inverse": int(inverse), "onesided": int(onesided)}
    if e.opset >= 20:
        return e.add("DFT", [x, "", e.scalar(axis, "i64")], out, **attrs)
    return e.add("DFT", [x], out, axis=axis, **attrs)


def _fft(kind: str, axes_of: str) -> Rule:
    """``aten.fft_*(self, n or s, dim, norm)``; ``kind``: fft, ifft, rfft or irfft; over one, two or n axes."""

    def form(e: Emitter, node: Node) -> None:
        e.needs(node, 17, "DFT")
        a = arguments(node, "self", "s", "dim", "norm")
        sizes = a.get("s", a.get("n"))
        shape = list(e.shape(node))
        pairs = kind == "irfft" or (kind != "rfft" and len(shape) == len(node.out.shape))
        shape = shape[:-1] if pairs else shape
        dims = a.get("dim")
        if dims is None:
            dims = {"": [-1], "2": [-2, -1], "n": list(range(len(shape)))}[axes_of]
            dims = dims[-len(sizes) :] if isinstance(sizes, list) else dims
        axes = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)]
        sizes = [sizes] if isinstance(sizes, int) else sizes
        lengths = dict(zip(axes, sizes or (), strict=False))
        whole = sizes[-1] if sizes else 2 * (_sized(shape[axes[-1]]) - 1)
        if kind == "irfft" and lengths:
            lengths[axes[-1]] = _sized(whole) // 2 + 1
        x, out = e.ins(node)[0], e.outs(node)[0]
        scaled = a.get("norm") not in (None, "backward")
        outs = [e.fresh(f"{e.label}_unscaled") if scaled else out]
        for axis, n in lengths.items():
            if n not in (-1, shape[axis]):
                x = _as_long(e, x, axis, shape[axis], n, len(shape) + pairs)
                shape[axis] = n
        if kind == "rfft":
            x = _transform(e, e.unsqueeze(x, [len(shape)]), axes[-1], False, True, outs[0] if len(axes) == 1 else None)
            _each(e, x, axes[:-1], False, outs[0])
        elif kind == "irfft":
            real_half(e, _each(e, x, axes[:-1], True, None), axes[-1], shape[axes[-1]], whole, len(shape), outs[0])
        else:
            _each(e, x if pairs else e.unsqueeze(x, [len(shape)]), axes, kind == "ifft", outs[0])
        if scaled:
            count = math.prod(_sized(shape[i]) for i in axes[:-1]) * _sized(
                whole if kind == "irfft" else shape[axes[-1]]
            )
            _scale(e, outs[0], count, a["norm"] == "ortho", kind in ("ifft", "irfft"), out)

    return form


def _scale(e: Emitter, x: str, count: int, root: bool, inverse: bool, out: str) -> None:
    """By a number of elements or its square root, times what ONNX has divided by, or over what it has not."""
    if not isinstance(count, Sym):
        factor = float(count) ** (0.5 if root else 1.0)
        e.add("Mul", [x, e.scalar(factor if inverse else 1 / factor, "f32")], [out])
        return
    number = e.cast(e.ints([count]), "i64", "f32")
    number = e.add("Sqrt", [number]) if root else number
    e.add("Mul" if inverse else "Div", [x, number], [out])


def _as_long(e: Emitter, x: str, axis: int, have: int, want: int, rank: int) -> str:
    """The first of an axis, or zeros after them."""
    if want < have:
        return e.add("Slice", [x, e.numbers([0]), e.ints([want]), e.numbers([axis])])
    pads: list[int] = [0] * (2 * rank)
    pads[rank + axis] = _sized(want) - _sized(have)
    return e.add("Pad", [x, e.ints(pads)])


def _each(e: Emitter, x: str, axes: list[int], inverse: bool, out: str | None) -> str:
    for i, axis in enumerate(axes):
        x = _transform(e, x, axis, inverse, out=out if i == len(axes) - 1 else None)
    return x


def real_half(e: Emitter, x: str, axis: int, half: int, whole: int, rank: int, out: str | None = None) -> str:
    """The real inverse along an axis of pairs of which half is there; what is missing is the conjugate, turned over.

    ``rank`` is that of the result. The first number, and the last of an even length, are taken as real.
    """
    back = e.add(
        "Slice", [x, e.ints([_sized(whole) - _sized(half)]), e.numbers([0]), e.numbers([axis]), e.numbers([-1])]
    )
    sign = e.add("Concat", [e.unsqueeze(e.scalar(v, "f32"), [0]) for v in (1.0, -1.0)], axis=0)
    full = e.add("Concat", [x, e.add("Mul", [back, sign])], axis=axis)
    y = _transform(e, full, axis, True)
    return e.add("Gather", [y, e.scalar(0, "i64")], out, axis=rank)


def _sized(number: int) -> int:
    """A size that can be counted with and still follows the inputs."""
    return as_size(number) if isinstance(number, Sym) else number


SPECTRA: Mapping[str, Rule] = MappingProxyType(
    {
        f"aten.fft_{kind}{more}.default": _fft(kind, more)
        for kind in ("fft", "ifft", "rfft", "irfft") for more in ("", "2", "n")
    }
)  # fmt: skip
