"""Kernels that need nothing of each other, on several threads: each partitioned among all, or assigned to one."""

from __future__ import annotations

from collections.abc import Sequence


def assign(estimates: Sequence[float], threads: int, sharing: float) -> list[int] | None:
    """The thread that computes each of these kernels; None where each is better partitioned among all.

    ``estimates``: their time on one thread, in multiply-accumulates; ``sharing``: what sharing a kernel costs.
    Neighbours go to the same thread: in a grouped network it reads again what it wrote in the layer before.
    """
    if threads == 1 or len(estimates) == 1:
        return None
    total, before = sum(estimates), 0.0
    found, loads = [], [0.0] * threads
    for estimate in estimates:
        owner = min(int((before + estimate / 2) / total * threads), threads - 1)
        found.append(owner)
        loads[owner] += estimate
        before += estimate
    return found if max(loads) <= total / threads + sharing * len(estimates) else None
