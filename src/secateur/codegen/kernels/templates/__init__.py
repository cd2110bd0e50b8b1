"""Kernels by template: one file a family, and a row here for each kind of spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from secateur.codegen.kernels.conv import template as conv
from secateur.codegen.kernels.conv.spec import ConvSpec
from secateur.codegen.kernels.copies import template as copies
from secateur.codegen.kernels.copies.spec import CopySpec, FillSpec, MoveSpec, TableCopySpec
from secateur.codegen.kernels.elementwise import template as simple
from secateur.codegen.kernels.elementwise.spec import MapSpec, MeanSpec
from secateur.codegen.kernels.grouped import template as grouped
from secateur.codegen.kernels.grouped.spec import GroupedSpec
from secateur.codegen.kernels.matmul import template as matmul
from secateur.codegen.kernels.matmul.spec import MatmulSpec
from secateur.codegen.kernels.norms import template as norms
from secateur.codegen.kernels.norms.spec import GroupSpec, MomentSpec
from secateur.codegen.kernels.recurrent import template as recurrent
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.kernels.resize import template as resize
from secateur.codegen.kernels.resize.spec import ResizeSpec
from secateur.codegen.kernels.rows import template as rows
from secateur.codegen.kernels.rows.spec import RowSpec
from secateur.codegen.kernels.strassen import template as strassen
from secateur.codegen.kernels.strassen.spec import StrassenSpec
from secateur.codegen.kernels.window import template as window
from secateur.codegen.kernels.window.spec import WindowSpec
from secateur.codegen.kernels.winograd import template as winograd
from secateur.codegen.kernels.winograd.spec import WinogradSpec


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
        CopySpec: Template(copies.build_copy),
        TableCopySpec: Template(copies.build_table_copy),
        MoveSpec: Template(copies.build_move),
        FillSpec: Template(copies.build_fill),
    }
)
