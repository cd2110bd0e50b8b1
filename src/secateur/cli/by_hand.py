"""``--widths FILE``: widths and channels chosen by hand, as a TOML file says.

[widths]
"layer3.*" = "50%"      # a share of the output channels that remains, or their number
conv1 = 48
[drop]
fc1 = [3, 7]            # output channels that go, in the layer's own numbering
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import InputError
from secateur.ir.near import did_you_mean

if TYPE_CHECKING:
    from secateur.capture import Layer

SECTIONS = ("widths", "drop")


@dataclass(frozen=True)
class ByHand:
    """What the file says, by globs of layer names; None for a section that it does not have."""

    widths: Mapping[Layer, float | int] | None = None
    drop: Mapping[Layer, Sequence[int]] | None = None


def by_hand(path: Path | None) -> ByHand:
    """Read the file. Raises InputError for what cannot be read, and for what is neither a width nor channels."""
    if path is None:
        return ByHand()
    where = f"--widths '{path}'"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{where} cannot be read: {error}") from error
    for name, section in data.items():
        if name not in SECTIONS:
            near = did_you_mean(name, SECTIONS)
            raise InputError(f"{where}: unknown section '{name}'{near}; write [widths] or [drop]")
        if not isinstance(section, dict):
            raise InputError(f"{where}: '{name}' stands alone; write it as a section, [{name}]")
    if not data:
        raise InputError(f"{where} is empty; write layers and their widths under [widths], or channels under [drop]")
    widths, drop = data.get("widths"), data.get("drop")
    return ByHand(
        None if widths is None else {layer: _width(where, layer, value) for layer, value in widths.items()},
        None if drop is None else {layer: _channels(where, layer, value) for layer, value in drop.items()},
    )


def _width(where: str, layer: str, value: object) -> float | int:
    from secateur.passes.pipeline import number

    found = number(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{where}: {layer} = {value!r} is not a width; write a share (\"50%\", 0.5) or a number (48); "
                         "names with dots stand in quotes")  # fmt: skip
    return found


def _channels(where: str, layer: str, value: object) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        shown = repr(value)[:40]
        raise InputError(
            f"{where}: {layer} = {shown} is not a list of channels; write [3, 7], and names with dots in quotes"
        )
    return value
