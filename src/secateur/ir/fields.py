"""Entries of a report: frozen dataclasses that also answer to the names that the report's JSON has for their fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


class Fields(Mapping[str, "Json"]):
    """Base of frozen dataclasses that go into a report: ``entry.macs``, or ``entry["macs"]`` as in the JSON.

    With ``eq=False`` they are equal to what holds the same under the JSON's names, a dict too.
    """

    def to_dict(self) -> dict[str, Json]:
        """The entry as JSON has it, in the order of its fields."""
        fields = dataclasses.fields(cast("DataclassInstance", self))
        return {field.name: as_json(getattr(self, field.name)) for field in fields}

    def __getitem__(self, name: str) -> Json:
        """Raises KeyError for a name that the JSON does not have."""
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())


def as_json(value: object) -> Json:
    """Lists for tuples, null for infinity, which JSON lacks. Raises TypeError for what it has no form for."""
    if isinstance(value, Fields):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a report cannot hold a {type(value).__name__}")
