"""How processors multiply in bfloat16: what one product takes, by the name that a target's ``bf16`` has for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Dot:
    """One product, which adds to a vector of float32: ``channels`` neighbouring input channels of ``pixels`` pixels.

    With one pixel, its channels meet those of every lane of outputs; with two, a vector holds two outputs of each.
    ``feature`` is what a processor must have, in the names of /proc/cpuinfo; nothing where plain arithmetic does it.
    """

    channels: int
    pixels: int
    feature: str = ""


# The portable ones round their inputs in the same way and multiply in float32: slow, and right on every machine, so
# that all but the instruction itself can be run anywhere.
DOTS: Mapping[str, Dot] = MappingProxyType(
    {
        "dpbf16ps": Dot(2, 1, "avx512_bf16"),
        "bfmmla": Dot(4, 2, "bf16"),
        "portable": Dot(2, 1),
        "portable_matrix": Dot(4, 2),
    }
)
