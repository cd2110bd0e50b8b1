"""Along the channels of each pixel: softmax, layer norm, RMS norm, means and sums and maxima.

A few pixels at a time pass over their blocks two or three times, from the first-level cache after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import tirx

from secateur.codegen.emit.builder import KernelBuilder, const, even_tile, number, segments
from secateur.codegen.emit.maths import exp
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.conv.template import y_index
from secateur.codegen.kernels.post_ops.template import At, apply, block_base, operand_pointers
from secateur.codegen.plan.family import Template
from secateur.codegen.targets import Target

from .spec import RowSpec

LEAST = float("-inf")


def build(spec: RowSpec, choice: None, target: Target, width: int = 4) -> Function:
    """The kernel ``(x, [table], operands.., y)``."""
    return _Rows(spec).build(width)


class _Rows:
    def __init__(self, spec: RowSpec) -> None:
        self.spec = spec
        self.k = k = KernelBuilder(spec.lanes, spec.threads)
        self.x = k.pointer("x")
        self.table = k.pointer("table", "int32") if spec.table else None
        self.operands = operand_pointers(k, spec.post_ops)
        self.y = k.pointer("y")

    def build(self, width: int) -> Function:
        spec, k = self.spec, self.k
        shared = spec.threads > 1
        many_rows = spec.n * spec.h >= 2 * spec.threads

        def row(r: Expr) -> None:
            image, line = tirx.floordiv(r, spec.h), tirx.floormod(r, spec.h)
            image, line = (r, const(0)) if spec.h == 1 else (image, line)
            for start, count, tile in segments(spec.w, even_tile(spec.w, width)):

                def some(t: Expr, start: int = start, tile: int = tile) -> None:
                    self.tile([At(const(0), image, line, start + t * tile + c) for c in range(tile)])

                k.loop(count, some, shared and not many_rows, "w")

        k.loop(spec.n * spec.h, row, shared and many_rows, "h")
        return k.finish()

    def tile(self, pixels: list[At]) -> None:
        """All channels of some pixels."""
        getattr(self, f"_{self.spec.kind}")(pixels)

    def each(self, pixels: list[At], body: Callable[[int, At, Expr, Expr | None], None]) -> None:
        """``body(pixel, where, x, mask)`` block by block; a mask in the last one if lanes of it hold nothing."""
        spec, k = self.spec, self.k

        def block(b: Expr, mask: Expr | None) -> None:
            base = k.bind(block_base(k, self.table, b, spec.x.block), "int64")
            for i, p in enumerate(pixels):
                at = p.image * spec.x.image + p.row * spec.x.row + p.column * spec.x.column
                body(i, At(b, p.image, p.row, p.column), k.load(self.x, base + at), mask)

        rest = spec.width % spec.lanes
        whole = spec.width // spec.lanes
        k.loop(whole, lambda b: block(b, None), name="b")
        if rest:
            lane = tirx.Ramp(tirx.IntImm("int32", 0), tirx.IntImm("int32", 1), spec.lanes)
            block(const(whole), lane < tirx.Broadcast(tirx.IntImm("int32", rest), spec.lanes))

    def write(self, at: At, value: Expr) -> None:
        """What comes after, and the store."""
        value = apply(self.k, value, self.spec.post_ops, self.operands, at)
        self.k.store(self.y, y_index(self.spec, at), value)

    def sums(self, pixels: list[At], of: Callable[[int, Expr], Expr]) -> list[Expr]:
        """For each pixel the mean of something over its channels, in all lanes."""
        k = self.k
        found = k.accumulators(len(pixels), k.splat(0.0))

        def add(i: int, at: At, x: Expr, mask: Expr | None) -> None:
            value = of(i, x)
            k.add(found[i], value if mask is None else tirx.Select(mask, value, k.splat(0.0)))

        self.each(pixels, add)
        return [k.vector(k.splat(across(k, k.get(f), _plus) * number(1.0 / self.spec.width))) for f in found]

    def _layer_norm(self, pixels: list[At]) -> None:
        k = self.k
        means = self.sums(pixels, lambda i, x: x)

        def square(i: int, x: Expr) -> Expr:
            centred = k.vector(x - means[i])
            return centred * centred

        scales = self.scales(self.sums(pixels, square))
        self.each(pixels, lambda i, at, x, mask: self.write(at, (x - means[i]) * scales[i]))

    def _rms_norm(self, pixels: list[At]) -> None:
        scales = self.scales(self.sums(pixels, lambda i, x: x * x))
        self.each(pixels, lambda i, at, x, mask: self.write(at, x * scales[i]))

    def scales(self, squares: list[Expr]) -> list[Expr]:
        """1 / sqrt(variance + eps)."""
        k = self.k
        return [k.vector(k.splat(1.0) / tirx.sqrt(s + k.splat(self.spec.eps))) for s in squares]

    def highest(self, pixels: list[At]) -> list[Expr]:
        """For each pixel the largest of its channels, in all lanes."""
        k = self.k
        found = k.accumulators(len(pixels), k.splat(LEAST))

        def join(i: int, at: At, x: Expr, mask: Expr | None) -> None:
            x = x if mask is None else tirx.Select(mask, x, k.splat(LEAST))
            k.set(found[i], tirx.max(k.get(found[i]), x))

        self.each(pixels, join)
        return [k.vector(k.splat(across(k, k.get(f), tirx.max))) for f in found]

    def _reduce_mean(self, pixels: list[At]) -> None:
        for at, mean in zip(pixels, self.sums(pixels, lambda i, x: x), strict=True):
            self.write(at, mean)

    def _reduce_sum(self, pixels: list[At]) -> None:
        for at, mean in zip(pixels, self.sums(pixels, lambda i, x: x), strict=True):
            self.write(at, mean * self.k.splat(float(self.spec.width)))

    def _reduce_max(self, pixels: list[At]) -> None:
        for at, top in zip(pixels, self.highest(pixels), strict=True):
            self.write(at, top)

    def _softmax(self, pixels: list[At]) -> None:
        k, spec = self.k, self.spec
        top = self.highest(pixels)
        totals = k.accumulators(len(pixels), k.splat(0.0))

        def power(i: int, at: At, x: Expr, mask: Expr | None) -> None:
            e = k.vector(exp(k, x - top[i]))
            e = e if mask is None else k.vector(tirx.Select(mask, e, k.splat(0.0)))
            k.add(totals[i], e)
            k.store(self.y, y_index(spec, at), e)

        self.each(pixels, power)
        shares = [k.vector(k.splat(number(1.0) / across(k, k.get(t), _plus))) for t in totals]
        self.each(pixels, lambda i, at, x, mask: self.write(at, k.load(self.y, y_index(spec, at)) * shares[i]))

    def _log_softmax(self, pixels: list[At]) -> None:
        k = self.k
        top = self.highest(pixels)
        totals = k.accumulators(len(pixels), k.splat(0.0))

        def power(i: int, at: At, x: Expr, mask: Expr | None) -> None:
            e = exp(k, x - top[i])
            k.add(totals[i], e if mask is None else tirx.Select(mask, e, k.splat(0.0)))

        self.each(pixels, power)
        logs = [k.vector(k.splat(tirx.log(across(k, k.get(t), _plus)))) for t in totals]
        self.each(pixels, lambda i, at, x, mask: self.write(at, x - top[i] - logs[i]))


def _plus(a: Expr, b: Expr) -> Expr:
    return a + b


def across(k: KernelBuilder, value: Expr, join: Callable[[Expr, Expr], Expr]) -> Expr:
    """All lanes of a vector as one number, halving it."""
    lanes = k.lanes
    value = k.vector(value)
    while lanes > 1:
        lanes //= 2
        low, high = (tirx.Shuffle([value], list(range(s, s + lanes))) for s in (0, lanes))
        value = k.vector(join(low, high))
    return value


TEMPLATES: Mapping[type, Template] = {RowSpec: Template(build)}
