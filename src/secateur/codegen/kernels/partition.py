"""Kernels that need nothing of each other, on several threads: each shared by all, or each whole on one of them."""

from __future__ import annotations

from collections.abc import Sequence

SHARING = 16 << 10  # what sharing a kernel is taken to cost, in multiply-accumulates


def whole(efforts: Sequence[float], threads: int) -> list[int] | None:
    """The thread that computes each of these kernels; None if they better share each.

    ``efforts``: their time on one thread, in multiply-accumulates. Neighbours go to the same thread: in a grouped
    network it reads again what it wrote in the layer before.
    """
    if threads == 1 or len(efforts) == 1:
        return None
    total, before = sum(efforts), 0.0
    owners, loads = [], [0.0] * threads
    for effort in efforts:
        owner = min(int((before + effort / 2) / total * threads), threads - 1)
        owners.append(owner)
        loads[owner] += effort
        before += effort
    return owners if max(loads) <= total / threads + SHARING * len(efforts) else None
