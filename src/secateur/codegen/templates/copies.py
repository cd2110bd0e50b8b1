"""Copies by tables: every change of layout that strides cannot say."""

from __future__ import annotations

from typing import Any

from secateur.codegen.specs_fixed import TableCopySpec
from secateur.codegen.writer import Expr, Kernel


def build_table_copy(spec: TableCopySpec, choice: None = None) -> Any:
    """The kernel ``([x, xo, xi], yo, yi, y)``."""
    k = Kernel(spec.lanes, spec.threads)
    x, xo, xi = (
        (None, None, None) if spec.zero else (k.pointer("x"), k.pointer("xo", "int32"), k.pointer("xi", "int32"))
    )
    yo, yi, y = k.pointer("yo", "int32"), k.pointer("yi", "int32"), k.pointer("y")

    def at(table: Any, index: Expr) -> Expr:
        return k.scalar(table, index).astype("int64")

    def outer(o: Expr) -> None:
        source = None if x is None else k.bind(at(xo, o), "int64")
        target = k.bind(at(yo, o), "int64")

        def inner(i: Expr) -> None:
            value = k.splat(0.0) if source is None else k.load(x, source + at(xi, i))
            k.store(y, target + at(yi, i), value)

        k.loop(spec.inner, inner, name="i")

    k.loop(spec.outer, outer, spec.threads > 1 and spec.outer >= 2 * spec.threads, "o")
    return k.finish()
