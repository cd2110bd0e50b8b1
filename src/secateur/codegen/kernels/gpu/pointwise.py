"""Kernels of one work item an output: element-wise chains, pools, resizing and copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tvm import tirx

from secateur.codegen.emit.gpu.builder import LEAST, GpuBuilder, Pointer, div, each, flat, mod, number
from secateur.codegen.emit.types import Expr, Function
from secateur.codegen.kernels.elementwise.spec import MapSpec, MeanSpec
from secateur.codegen.kernels.resize.spec import ResizeSpec
from secateur.codegen.kernels.window.spec import WindowSpec
from secateur.codegen.plan.copy_specs import CopySpec, MoveSpec, TableCopySpec
from secateur.codegen.plan.family import Template
from secateur.codegen.plan.program import TensorSpec
from secateur.codegen.targets import Target
from secateur.ir.graph import NUMPY_NAMES

from .post_ops import At, apply, base, operands, position
from .reductions import build_mean

Spec = MapSpec | ResizeSpec | WindowSpec


def _by_output(spec: Spec, extra: Callable[[GpuBuilder], list[Pointer]],
               value: Callable[[GpuBuilder, Pointer, list[Pointer], Expr, At], Expr]) -> Function:  # fmt: skip
    """The kernel ``(x, extra.., [table], operands.., y)``: ``value`` of each output, from where its channel begins."""
    pixels = spec.n * spec.h * spec.w
    k = flat(spec.blocks * pixels)
    x = k.pointer("x")
    more = extra(k)
    table = k.pointer("table", "int32") if spec.table else None
    pointers = operands(k, spec.post_ops)
    y = k.pointer("y")

    def one(i: Expr) -> None:
        channel = k.bind(div(i, pixels))
        at = position(k, spec, channel, k.bind(mod(i, pixels)))
        begin = k.bind(base(k, table, channel, spec.x.block) + at.image * spec.x.image)
        found = value(k, x, more, begin, at)
        k.store(y, at.place(spec.y), apply(k, found, spec.post_ops, pointers, at))

    each(k, spec.blocks * pixels, one)
    return k.finish()


def build_map(spec: MapSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, [table], operands.., y)``."""

    def value(k: GpuBuilder, x: Pointer, more: list[Pointer], begin: Expr, at: At) -> Expr:
        return k.load(x, begin + at.row * spec.x.row + at.column * spec.x.column)

    return _by_output(spec, lambda k: [], value)


def build_pool(spec: WindowSpec, choice: object, target: Target) -> Function:
    """The kernel ``(x, [table], operands.., y)``; a window over a whole image is a reduction."""
    if spec.kernel == spec.size and spec.pad == (0, 0, 0, 0) and spec.h == spec.w == 1 and spec.dilation == (1, 1):
        kind = "max" if spec.kind == "max" else "mean"
        return build_mean(MeanSpec(kind, 1, spec.n, spec.blocks, *spec.size, spec.x, spec.y, spec.table, spec.post_ops),
                          None, target)  # fmt: skip
    return _by_output(spec, lambda k: [], lambda k, x, more, begin, at: _window(k, spec, x, begin, at))


def _window(k: GpuBuilder, spec: WindowSpec, x: Pointer, begin: Expr, at: At) -> Expr:
    total, best = k.local(1, LEAST if spec.kind == "max" else 0.0), spec.kind == "max"
    count = None if spec.count_pad or best else k.local(1, 0.0)
    top = k.bind(at.row * spec.stride[0] - spec.pad[0])
    left = k.bind(at.column * spec.stride[1] - spec.pad[1])

    def row(i: Expr) -> None:
        line = k.bind(top + i * spec.dilation[0])

        def column(j: Expr) -> None:
            place = k.bind(left + j * spec.dilation[1])

            def join() -> None:
                value = k.load(x, begin + line * spec.x.row + place * spec.x.column)
                k.store(total, 0, tirx.max(k.load(total, 0), value) if best else k.load(total, 0) + value)
                if count is not None:
                    k.add(count, 0, number(1.0))

            k.branch(inside(spec, line, place), join)

        k.loop(spec.kernel[1], column, "kw", unroll=True)

    k.loop(spec.kernel[0], row, "kh")
    if best:
        return k.load(total, 0)
    if count is not None:
        return k.load(total, 0) / k.load(count, 0)
    return k.load(total, 0) * number(1.0 / (spec.kernel[0] * spec.kernel[1]))


def inside(spec: WindowSpec, line: Expr, place: Expr) -> Expr | None:
    """Is this pixel one of the input? None where all are."""
    checks = []
    for at, size, low, out, stride, kernel, dilation in (
        (line, spec.size[0], spec.pad[0], spec.h, spec.stride[0], spec.kernel[0], spec.dilation[0]),
        (place, spec.size[1], spec.pad[1], spec.w, spec.stride[1], spec.kernel[1], spec.dilation[1]),
    ):
        checks += [at >= 0] if low > 0 else []
        checks += [at < size] if (out - 1) * stride - low + (kernel - 1) * dilation >= size else []
    return tirx.all(*checks) if len(checks) > 1 else checks[0] if checks else None


def build_resize(spec: ResizeSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, rows, row weights, columns, column weights, [table], operands.., y)``."""

    def tables(k: GpuBuilder) -> list[Pointer]:
        return [k.pointer("rows", "int32"), k.pointer("row_weights"), k.pointer("columns", "int32"),
                k.pointer("column_weights")]  # fmt: skip

    def value(k: GpuBuilder, x: Pointer, more: list[Pointer], begin: Expr, at: At) -> Expr:
        total = k.local(1, 0.0)
        rows, row_weights, columns, column_weights = more
        for j in range(spec.taps[1]):
            across = k.bind(at.column * spec.taps[1] + j)
            part = k.local(1, 0.0)
            for i in range(spec.taps[0]):
                down = at.row * spec.taps[0] + i
                pixel = k.load(x, begin + k.load(rows, down) + k.load(columns, across))
                k.add(part, 0, pixel * k.load(row_weights, down))
            k.add(total, 0, k.load(part, 0) * k.load(column_weights, across))
        return k.load(total, 0)

    return _by_output(spec, tables, value)


def build_copy(spec: CopySpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, places of x, places of y, y)``; neighbouring work items write neighbouring numbers."""
    pixels = spec.n * spec.h * spec.w
    k = flat(spec.channels * pixels)
    x, xs, ys, y = k.pointer("x"), k.pointer("xs", "int32"), k.pointer("ys", "int32"), k.pointer("y")
    by_channel = spec.y.column != 1 or pixels == 1  # then channels follow each other

    def one(i: Expr) -> None:
        channel = k.bind(mod(i, spec.channels) if by_channel else div(i, pixels))
        at = position(k, spec, channel, k.bind(div(i, spec.channels) if by_channel else mod(i, pixels)))
        source = k.bind(k.load(xs, channel))
        value = k.load_if(source >= 0, x, source + at.pixel(spec.x))
        k.store(y, k.load(ys, channel) + at.pixel(spec.y), value)

    each(k, spec.channels * pixels, one)
    return k.finish()


def build_move(spec: MoveSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, sources, y)``: channels in another order, one source each; -1 writes zeros."""
    pixels, blocks = spec.n * spec.h * spec.w, len(spec.picks)
    assert all(pick == (0,) for pick in spec.picks), "a plane has one channel"
    k = flat(blocks * pixels)
    x, sources, y = k.pointer("x"), k.pointer("sources", "int32"), k.pointer("y")

    def one(i: Expr) -> None:
        at = position(k, spec, k.bind(div(i, pixels)), k.bind(mod(i, pixels)))
        k.store(y, at.place(spec.y), k.load(x, k.load(sources, at.block) + at.pixel(spec.x)))

    each(k, blocks * pixels, one)
    return k.finish()


def build_table_copy(spec: TableCopySpec, choice: None, target: Target) -> Function:
    """The kernel ``([x, xo, xi], yo, yi, y)``."""
    k = flat(spec.outer * spec.inner)
    x = None if spec.zero else k.pointer("x")
    xo, xi = (None, None) if x is None else (k.pointer("xo", "int32"), k.pointer("xi", "int32"))
    yo, yi, y = k.pointer("yo", "int32"), k.pointer("yi", "int32"), k.pointer("y")

    def one(i: Expr) -> None:
        outer, inner = k.bind(div(i, spec.inner)), k.bind(mod(i, spec.inner))
        value = number(0.0)
        if x is not None and xo is not None and xi is not None:
            value = k.load(x, k.load(xo, outer) + k.load(xi, inner))
        k.store(y, k.load(yo, outer) + k.load(yi, inner), value)

    each(k, spec.outer * spec.inner, one)
    return k.finish()


def build_identity(spec: TensorSpec, choice: None, target: Target) -> Function:
    """The kernel ``(x, y)``: a value as it is, to the caller's memory."""
    (shape, dtype), total = spec.outputs[0], 1
    for size in shape:
        total *= size
    k = flat(total)
    x, y = k.pointer("x", NUMPY_NAMES[dtype]), k.pointer("y", NUMPY_NAMES[dtype])
    each(k, total, lambda i: k.store(y, i, k.load(x, i)))
    return k.finish()


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        MapSpec: Template(build_map),
        WindowSpec: Template(build_pool),
        ResizeSpec: Template(build_resize),
        CopySpec: Template(build_copy),
        MoveSpec: Template(build_move),
        TableCopySpec: Template(build_table_copy),
    }
)
