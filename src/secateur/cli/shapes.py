"""``--shape NAME:1,3,320,320``: the sizes at which a file with dynamic axes is counted, timed and built."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.ir import InputError


def shapes_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes by the inputs' names. Raises InputError for what is not a shape, and for an input given twice."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition(":")  # names may have a colon too
        parts = sizes.split(",")
        if not name or not all(p.strip().isdecimal() for p in parts):
            raise InputError(f"--shape {text}: write NAME:1,3,320,320 with the name of an input and its sizes")
        if name in shapes:
            raise InputError(f"--shape gives input '{name}' two shapes; give one")
        shapes[name] = tuple(int(p) for p in parts)
    return shapes
