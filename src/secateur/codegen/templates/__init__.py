"""Kernels by template: one file a family, and a row here for each kind of spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from secateur.codegen.specs import ConvSpec, CopySpec, FillSpec, GroupedSpec, MapSpec, MeanSpec, MoveSpec, WindowSpec
from secateur.codegen.specs_fast import StrassenSpec, WinogradSpec
from secateur.codegen.specs_fixed import (
    GroupSpec,
    MatmulSpec,
    MomentSpec,
    RecurrentSpec,
    ResizeSpec,
    RowSpec,
    TableCopySpec,
)

from . import conv, copies, grouped, matmul, norms, recurrent, resize, rows, simple, strassen, window, winograd


@dataclass(frozen=True)
class Template:
    """How a kind of kernel is written, and what of it can be tuned.

    ``build(spec, choice)`` makes the function; ``space(spec, registers)`` lists the choices, the default first (None:
    there is nothing to choose); ``arrays(spec)`` makes arguments to time it on, and where in the first of them the
    kernel begins; after the first come ``constants`` arguments, weights and biases, if it has any. ``revision`` is what
    tuning records are kept under: it rises when the code or the space changes, and older records are not used any more.
    """

    build: Callable[[Any, Any], Any]
    space: Callable[[Any, int], Iterable[Any]] | None = None
    arrays: Callable[[Any], tuple[list[Any], int]] | None = None
    revision: int = 1
    constants: int = 2


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        ConvSpec: Template(conv.build, conv.space, conv.arrays, conv.REVISION),
        WinogradSpec: Template(winograd.build, winograd.space, winograd.arrays, winograd.REVISION),
        StrassenSpec: Template(strassen.build, strassen.space, strassen.arrays, strassen.REVISION),
        GroupedSpec: Template(grouped.build, grouped.space, grouped.arrays, grouped.REVISION),
        WindowSpec: Template(window.build, window.space, window.arrays, window.REVISION),
        MapSpec: Template(simple.build_map),
        MeanSpec: Template(simple.build_mean),
        ResizeSpec: Template(resize.build),
        RowSpec: Template(rows.build),
        MomentSpec: Template(norms.build_moments),
        GroupSpec: Template(norms.build_group),
        MatmulSpec: Template(matmul.build),
        RecurrentSpec: Template(recurrent.build),
        CopySpec: Template(simple.build_copy),
        TableCopySpec: Template(copies.build_table_copy),
        MoveSpec: Template(simple.build_move),
        FillSpec: Template(simple.build_fill),
    }
)
