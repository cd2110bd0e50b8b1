"""How every kind of spec is written: the ``TEMPLATES`` of each family's folder, together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from secateur.codegen.plan.family import Family, Template


@cache
def templates(families: tuple[Family, ...]) -> Mapping[type, Template]:
    """By kind of spec. TVM is imported for it.

    Raises ValueError where a family's template lacks a row for one of its specs.
    """
    found: dict[type, Template] = {}
    for family in families:
        own: Mapping[type, Template] = import_module(f"{__package__}.{family.name}.template").TEMPLATES
        if set(own) != set(family.choices):
            raise ValueError(f"kernel family '{family.name}': its specs and its templates have other rows")
        found.update(own)
    return MappingProxyType(found)
