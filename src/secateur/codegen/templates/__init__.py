"""Kernels by template: one file a family, and a row here for each kind of spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from secateur.codegen.specs import ConvSpec, CopySpec, FillSpec, GroupedSpec, MapSpec, MeanSpec, MoveSpec, WindowSpec

from . import conv, grouped, simple, window


@dataclass(frozen=True)
class Template:
    """How a kind of kernel is written, and what of it can be tuned.

    ``build(spec, choice)`` makes the function; ``space(spec, registers)`` lists the choices, the default first (None:
    there is nothing to choose); ``arrays(spec)`` makes arguments to time it on, and where in the first of them the
    kernel begins.
    """

    build: Callable[[Any, Any], Any]
    space: Callable[[Any, int], Iterable[Any]] | None = None
    arrays: Callable[[Any], tuple[list[Any], int]] | None = None


TEMPLATES: Mapping[type, Template] = MappingProxyType(
    {
        ConvSpec: Template(conv.build, conv.space, conv.arrays),
        GroupedSpec: Template(grouped.build, grouped.space, grouped.arrays),
        WindowSpec: Template(window.build, window.space, window.arrays),
        MapSpec: Template(simple.build_map),
        MeanSpec: Template(simple.build_mean),
        CopySpec: Template(simple.build_copy),
        MoveSpec: Template(simple.build_move),
        FillSpec: Template(simple.build_fill),
    }
)
