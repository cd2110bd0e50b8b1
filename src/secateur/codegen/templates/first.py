"""The first layer: few channels that lie row by row, read where the caller has them.

Neighbouring pixels of a row follow each other in memory, so one load brings those of many outputs; permutations put
each pixel beside four lanes, as in ``grouped``: the lanes of a vector are ``lanes / 4`` pixels by four outputs. Rows
above and below the picture are known at build time and left out; the first and the last tile of a row read through a
mask, which gives zeros outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from secateur.codegen.specs import QUAD, FirstChoice, FirstSpec
from secateur.codegen.writer import Expr, Kernel, segments

from .arrays import random_floats
from .epilogue import apply, operand_pointers
from .grouped import Packed, Pixel, packed, spread, write


def build(spec: FirstSpec, choice: FirstChoice) -> Any:
    """The kernel ``(x, w, bias, operands.., y)``."""
    return _First(spec, replace(choice, quads=min(choice.quads, spec.quads))).build()


class _First:
    def __init__(self, spec: FirstSpec, choice: FirstChoice) -> None:
        self.spec, self.choice = spec, choice
        self.k = k = Kernel(spec.lanes)
        self.x, self.w, self.bias = k.pointer("x"), k.pointer("w"), k.pointer("bias")
        self.operands = operand_pointers(k, spec.steps)
        self.y = k.pointer("y")
        self.per_quad = spec.ci * spec.kernel[0] * spec.kernel[1] * QUAD

    def build(self) -> Any:
        """Rows, tiles of quads, tiles of columns."""
        spec, k = self.spec, self.k
        shared = spec.threads > 1 and spec.h >= 4 * spec.threads

        def image(n: Expr) -> None:
            for start, count, low, high in _rows(spec):

                def row(r: Expr, start: int = start, low: int = low, high: int = high) -> None:
                    for q0, qcount, quads in segments(spec.quads, self.choice.quads):
                        k.loop(qcount, lambda t: self._columns(q0 + t * quads, quads, n, start + r, low, high))  # noqa: B023

                k.loop(count, row, shared, "oh")

        k.loop(spec.n, image, name="n")
        return k.finish()

    def _columns(self, quad: Expr, quads: int, image: Expr, row: Expr, low: int, high: int) -> None:
        """Tiles of a row: those that read nothing outside in a loop, the others one by one."""
        spec, k = self.spec, self.k
        run = 0
        for start, count, wide in segments(spec.w, self.choice.columns):
            firsts = [start + i * wide for i in range(count)]
            inside = [c for c in firsts if _mask(spec, c, wide) is None]
            for c in firsts:
                if c not in inside:
                    self.tile(quad, quads, image, row, c, wide, low, high, c)
            if inside:
                k.loop(len(inside), lambda t: self.tile(  # noqa: B023
                    quad, quads, image, row, inside[0] + t * wide, wide, low, high, None), name="ow")  # noqa: B023  # fmt: skip

    def tile(self, quad: Expr, quads: int, image: Expr, row: Expr, column: Expr, wide: int, low: int, high: int,
             edge: int | None) -> None:  # fmt: skip
        """``quads`` quads of outputs from ``quad``, ``wide`` pixels; ``edge``: the column, if the tile reads outside."""
        spec, k = self.spec, self.k
        vectors = packed([(0, c) for c in range(wide)], spec.lanes // QUAD)
        sums: list[list[Any]] = []
        for s in range(quads):
            sums.append(k.accumulators(len(vectors), k.vector(spread(k, k.load(self.bias, (quad + s) * QUAD, QUAD)))))
        top = row * spec.stride[0] - spec.pad[0]
        left = column * spec.stride[1] - spec.pad[1]
        base = k.bind(image * spec.x.image + top * spec.x.row + left, "int64")
        weights = k.bind(quad * self.per_quad, "int64")

        def taps(c: Expr, kh: Expr) -> None:
            at = k.bind(base + c * spec.x.block + kh * (spec.dilation[0] * spec.x.row), "int64")
            position = k.bind(weights + (c * spec.kernel[0] + kh) * (spec.kernel[1] * QUAD * quads), "int64")
            for kw in range(spec.kernel[1]):
                ws = [k.vector(spread(k, k.load(self.w, position + (kw * quads + s) * QUAD, QUAD))) for s in range(quads)]
                for t, wide_x in enumerate(self._inputs(at, kw, vectors, edge)):
                    for s, w in enumerate(ws):
                        k.add(sums[s][t], wide_x * w)

        k.loop(spec.ci, lambda c: k.loop(high - low, lambda i: taps(c, low + i), name="kh"), name="c")
        for s in range(quads):
            for pixels, total in zip(vectors, sums[s], strict=True):
                at = Packed(quad + s, image, row, column, pixels)
                place = _place(spec, quad + s)
                write(k, spec, self.y, place, apply(k, k.get(total), spec.steps, self.operands, at), at)

    def _inputs(self, at: Expr, kw: int, vectors: Sequence[Sequence[Pixel]], edge: int | None) -> list[Any]:
        """For each vector of pixels what its outputs read at a tap."""
        spec, k = self.spec, self.k
        shift, v = kw * spec.dilation[1], spec.lanes
        loads: dict[int, Any] = {}

        def load(j: int) -> Any:
            if j not in loads:
                index = at + (shift + j * v)
                mask = [True] * v if edge is None else _valid(spec, edge, shift + j * v)
                loads[j] = k.vector(k.load(self.x, index) if all(mask) else k.merge(self.x, index, mask, k.splat(0.0)))
            return loads[j]

        found = []
        for pixels in vectors:
            places = [c * spec.stride[1] for _, c in pixels]
            used = sorted({p // v for p in places})
            lanes = [used.index(p // v) * v + p % v for p in places for _ in range(QUAD)]
            found.append(k.vector(k.shuffle([load(j) for j in used], lanes)))
        return found


def _rows(spec: FirstSpec) -> list[tuple[int, int, int, int]]:
    """Rows of outputs that have the same taps inside of the picture: (first, rows, first tap, end tap)."""
    runs: list[tuple[int, int, int, int]] = []
    for o in range(spec.h):
        first = o * spec.stride[0] - spec.pad[0]
        inside = [t for t in range(spec.kernel[0]) if 0 <= first + t * spec.dilation[0] < spec.size[0]]
        low, high = (inside[0], inside[-1] + 1) if inside else (0, 0)
        if runs and runs[-1][2:] == (low, high):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, low, high)
        else:
            runs.append((o, 1, low, high))
    return runs


def _valid(spec: FirstSpec, column: int, shift: int) -> list[bool]:
    """Which lanes of a load for outputs from ``column`` on lie in the picture."""
    first = column * spec.stride[1] - spec.pad[1] + shift
    return [0 <= first + lane < spec.size[1] for lane in range(spec.lanes)]


def _mask(spec: FirstSpec, column: int, wide: int) -> int | None:
    """``column`` if a tile from there on reads outside of the picture."""
    first = column * spec.stride[1] - spec.pad[1]
    reach = (wide - 1) * spec.stride[1] // spec.lanes * spec.lanes + spec.lanes
    last = first + (spec.kernel[1] - 1) * spec.dilation[1] + reach
    return None if first >= 0 and last <= spec.size[1] else column


def _place(spec: FirstSpec, quad: Expr) -> Expr:
    """Where a quad of outputs lies: blocks in order."""
    per = spec.lanes // QUAD
    return quad // per * spec.y.block + quad % per * QUAD


def space(spec: FirstSpec, registers: int) -> Iterator[FirstChoice]:
    """The choices worth trying, the default first."""
    options = list(_options(spec, registers))
    yield from sorted(options, key=lambda c: _cycles(spec, c))[:12]


def _options(spec: FirstSpec, registers: int) -> Iterator[FirstChoice]:
    per = spec.lanes // QUAD
    for quads in sorted({-(-spec.quads // -(-spec.quads // most)) for most in (8, 7, 6, 5, 4, 3, 2, 1)}):
        for vectors in range(1, max(1, (registers - quads - 2) // quads) + 1):
            if (vectors - 1) * per < spec.w:
                yield FirstChoice(quads, vectors * per)


def _cycles(spec: FirstSpec, choice: FirstChoice) -> float:
    """About the time of a choice: two products, or two loads, a cycle; a sum is ready after four."""
    per, taps = spec.lanes // QUAD, spec.ci * spec.kernel[0] * spec.kernel[1]
    total = 0.0
    for _, qcount, quads in segments(spec.quads, choice.quads):
        for _, ccount, wide in segments(spec.w, choice.columns):
            vectors = -(-wide // per)
            sums, loads = vectors * quads, -(-wide * spec.stride[1] // spec.lanes) * 1.5 + quads
            cycles = max((sums + 0.5 * vectors) / 2, loads / 2, 4)
            total += qcount * ccount * (cycles * taps + 4.5 * sums + 10)
    return total * spec.n * spec.h


def arrays(spec: FirstSpec) -> tuple[list[Any], int]:
    """Arguments to time the kernel on, and where it begins in the first."""
    outputs = spec.quads * QUAD
    weights = random_floats(outputs * spec.ci * spec.kernel[0] * spec.kernel[1])
    y = random_floats(-(-outputs // spec.lanes) * spec.y.block + spec.n * spec.y.image)
    return [random_floats(spec.n * spec.ci * spec.size[0] * spec.x.row), weights, random_floats(outputs), y], 0
