"""Which keep masks a coupling allows."""

from __future__ import annotations

import numpy as np

from secateur.ir import Array, PassError
from secateur.passes.notes import Coupling


def check_keep(coupling: Coupling, keep: Array) -> None:
    """Raise PassError unless the mask can be carried out."""
    if keep.shape != (coupling.size,) or keep.dtype != bool:
        raise PassError(f"keep mask is {keep.dtype}{keep.shape}, expected bool[{coupling.size}]")
    missing = np.flatnonzero(keep[coupling.size - len(coupling.own) :] & ~keep[coupling.own])
    if len(missing):
        unit = coupling.size - len(coupling.own) + int(missing[0])
        slot = next(s for s in coupling.slots if (s.units == unit).any())
        raise PassError(f"{slot} of {slot.node} would keep a channel of its own that is gone where it comes from")
    for group in coupling.groups:
        if group.frozen and not keep[group.units].all():
            raise PassError(f"group {group.id} ({', '.join(group.slots[:3])}) is frozen: {group.frozen}")
    for c in coupling.constraints:
        counts = np.bincount(c.block, coupling.live(c.units, keep), minlength=int(c.block.max()) + 1)
        if counts.min() != counts.max():
            raise PassError(
                f"grouped layer {c.node} ({c.side}put side): its groups keep between {int(counts.min())} and "
                f"{int(counts.max())} channels; keep equally many in each"
            )
    for slot in coupling.slots:
        if not coupling.live(slot.units, keep).any():
            raise PassError(f"{slot} of {slot.node} would be left with no channel")
