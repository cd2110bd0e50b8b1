"""The kinds of machine that code is generated for, by the architecture of a target.

A backend and its kernels load when they are first asked for: a process that only runs libraries needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from secateur.ir import InputError

from .plan.backend import Backend
from .plan.precision import F32, Precision
from .targets import Target

KINDS: Mapping[str, str] = MappingProxyType({"x86_64": "cpu", "aarch64": "cpu", "opencl": "gpu", "cuda": "gpu"})


def backend_for(target: Target, precision: Precision = F32) -> Backend:
    """The backend of a target, by the first part of its triple, with layers in a precision where it has kernels for it.

    Raises InputError where there is none.
    """
    architecture = target.triple.partition("-")[0]
    if architecture not in KINDS:
        raise InputError(
            f"target {target.name}: no backend generates code for {architecture}; there are {', '.join(KINDS)}"
        )
    if KINDS[architecture] == "gpu":
        from .gpu_backend import GPU

        return replace(GPU, precision=precision)
    from .cpu_backend import CPU

    return replace(CPU, precision=precision)
