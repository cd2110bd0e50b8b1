"""``--block`` as a pattern."""

from __future__ import annotations

import re

from secateur.ir import InputError

from .balanced import Balanced, Kernels
from .bmwm import BMWM
from .darb import DARB
from .irregular import Irregular
from .n_of_m import NOfM
from .pattern import Pattern
from .rectangles import Rectangles

SPELLED = "auto, kernels, irregular, darb, bmwm, N:M as in 2:4, or RxC as in 8x1 (outputs x inputs)"
NAMED: dict[str, type[Irregular | DARB | BMWM]] = {kind.name: kind for kind in (Irregular, DARB, BMWM)}


def pattern_of(block: str, lanes: int) -> Pattern:
    """The pattern that a text names; ``auto``: balanced blocks of ``lanes`` outputs, ``kernels``: with all taps of an
    input. Raises InputError.
    """  # fmt: skip
    if block == Balanced.name:
        return Balanced(lanes)
    if block == Kernels.name:
        return Kernels(lanes)
    if block in NAMED:
        return NAMED[block]()
    found = re.fullmatch(r"(\d{1,4})([:x])(\d{1,4})", block)
    if found is None:
        raise InputError(f"--block '{block}' is not a pattern of zeros; write {SPELLED}")
    a, b = int(found[1]), int(found[3])
    return NOfM(a, b) if found[2] == ":" else Rectangles(a, b)
