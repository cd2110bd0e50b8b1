"""A library for a GPU call by call: what each computes, by which kernel, and where that stands under a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.lib import common
from secateur.codegen.devices.code import Kernel, Launch, Resources
from secateur.codegen.gpu_library import GpuLibrary
from secateur.codegen.kernels.gpu.conv.spec import GpuConvSpec
from secateur.codegen.kernels.gpu.conv.tiles import GpuConvChoice
from secateur.ir import Graph


@dataclass(frozen=True)
class Launched:
    """One call: its layer, the kind of its kernel, what it computes, how it is tiled, its kernels and what they take.

    A library for OpenCL does not know what its kernels take: then all of it is 0.
    """

    label: str
    kind: str
    spec: Any
    choice: Any
    kernels: Sequence[tuple[Kernel, Resources]]


@dataclass(frozen=True)
class Timed:
    """Seconds of one call, measured or predicted.

    ``least``: seconds at the roofline, where that is known, and ``bound`` what bounds them; ``occupancy``: of warps,
    where it is counted.
    """

    label: str
    kind: str
    seconds: float
    least: float | None = None
    bound: str = ""
    occupancy: float | None = None

    @property
    def share(self) -> float | None:
        """Of the roofline."""
        return None if self.least is None else self.least / self.seconds


def built(graph: Graph, target: str, mode: str) -> tuple[GpuLibrary, list[Launched]]:
    """A library in a precision, and its calls in order. Raises secateur's errors."""
    from secateur import codegen
    from secateur.codegen.gpu_backend import GPU
    from secateur.codegen.plan.lower import lower
    from secateur.codegen.plan.precision import Precision
    from secateur.codegen.records import Records
    from secateur.codegen.targets import GPUS
    from secateur.codegen.tune.tuner import Tuner

    precision = Precision(mode)
    library = codegen.build(graph, target, precision=precision)
    assert isinstance(library, GpuLibrary)
    # A library has forgotten what its launches compute: planned again, the program is the same.
    backend = replace(GPU, precision=precision)
    program = lower(graph, GPUS[target], 1, Tuner(GPUS[target], 1, Records()).choose, backend)
    code, found = library.code, []
    for call, launches in zip(program.calls, calls_of(code.launches), strict=True):
        assert call.label == launches[0].label
        kernels = [(code.kernels[one.kernel], code.resources.get(one.kernel, Resources(0, 0, 0))) for one in launches]
        found.append(Launched(call.label, kind_of(call.spec, call.choice), call.spec, call.choice, kernels))
    return library, found


def calls_of(launches: Sequence[Launch]) -> list[list[Launch]]:
    """The launches of each call of a program: a kernel that is launched after another is named after it."""
    from secateur.codegen.emit.gpu.assemble import THEN

    found: list[list[Launch]] = []
    for one in launches:
        if one.kernel.endswith(THEN):
            found[-1].append(one)
        else:
            found.append([one])
    return found


def kind_of(spec: Any, choice: Any) -> str:
    """The kind of a call's kernel: the family of GPU kernels, and of dense convolutions which of the three."""
    from secateur.codegen.gpu_backend import GPU
    from secateur.codegen.plan.family import family_of

    family = family_of(spec, GPU.families)
    if family is None:
        return "copies"
    if not isinstance(choice, GpuConvChoice) or not isinstance(spec, GpuConvSpec):
        return family.name
    if choice.kind == "tile":
        return "grouped tiles" if spec.groups > 1 else "1x1 tiles" if spec.taps == 1 else "kxk tiles"
    if choice.kind == "direct":
        return "depthwise" if spec.ci == spec.co == 1 else "grouped"
    return "sums"


def by_kind(calls: Sequence[Timed]) -> dict[str, common.Row]:
    """For each kind, and for all together: calls, microseconds, share of the roofline, mean occupancy."""
    found: dict[str, common.Row] = {}
    for name in [*dict.fromkeys(one.kind for one in calls), "all"]:
        rows = [one for one in calls if name in (one.kind, "all")]
        time = sum(one.seconds for one in rows)
        least = [one.least for one in rows if one.least is not None]
        there = [one.occupancy for one in rows if one.occupancy is not None]
        found[name] = {
            "calls": len(rows), "us": round(time * 1e6, 1),
            "share": round(sum(least) / time, 3) if least else None,
            "occupancy": round(sum(there) / len(there), 3) if there else None,
        }  # fmt: skip
    return found
