"""The kinds of machine that code is generated for: a target is a GPU, or a processor.

A backend and its kernels load when they are first asked for: a process that only runs libraries needs none.
"""

from __future__ import annotations

from dataclasses import replace

from secateur.ir import InputError

from .plan.backend import Backend
from .plan.precision import F32, Precision
from .targets import GPUS, TARGETS, Target


def backend_for(target: Target, precision: Precision = F32) -> Backend:
    """The backend of a target, with layers in a precision where it has kernels for it.

    Raises InputError where no target with a row (``targets``) has its architecture, the first part of its triple.
    """
    known = dict.fromkeys(_architecture(row) for row in (*TARGETS.values(), *GPUS.values()))
    if _architecture(target) not in known:
        raise InputError(
            f"target {target.name}: no backend generates code for {_architecture(target)}; there are {', '.join(known)}"
        )
    if target.gpu:
        from .gpu_backend import GPU

        return replace(GPU, precision=precision)
    from .cpu_backend import CPU

    return replace(CPU, precision=precision)


def _architecture(target: Target) -> str:
    return target.triple.partition("-")[0]
