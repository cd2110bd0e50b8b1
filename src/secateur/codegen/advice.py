"""What zeros gain: for each layer with enough of them, the time of its best block-sparse kernel next to the dense ones.

A network is planned and nothing is built. Times are estimates, those by which kernels are chosen that nobody measured,
and TVM is not needed; or seconds, where records have them of all kernels of a layer, or where these may be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from secateur.ir import Graph
from secateur.ir.progress import Progress, quiet

from .backends import backend_for
from .plan.family import Workload, family_of
from .plan.lower import lower
from .targets import Target, get_target

Times = Callable[[Sequence[Workload]], Sequence[float] | None]


@dataclass(frozen=True)
class Gain:
    """How many times as long the fastest dense kernel takes as the best sparse one; ``measured``, or estimated."""

    times: float
    measured: bool


def gains(
    graph: Graph,
    target: str | Target = "native",
    records: str | Path | None = None,
    seconds: float | None = None,
    progress: Progress = quiet,
) -> Mapping[str, Gain]:
    """What zeros gain, by the label of each layer that is offered a block-sparse kernel.

    ``seconds``: so long its kernels may be measured here, and are kept in ``records``, a file; without, what is in
    there is taken. A layer of several calls is as fast as these together. Raises InputError for an unknown target or
    records that cannot be read, and what planning raises.
    """
    chosen = get_target(target)
    backend = backend_for(chosen)
    program = lower(graph, chosen, 1, None, backend)
    calls: dict[str, list[dict[bool, list[Workload]]]] = {}
    for late in program.open:
        kinds: dict[bool, list[Workload]] = {False: [], True: []}
        for spec in late.specs:
            family = family_of(spec, backend.families)
            kinds[family is not None and family.sparse].append(cast(Workload, spec))
        calls.setdefault(program.calls[late.call].label, []).append(kinds)
    calls = {label: of for label, of in calls.items() if any(kinds[True] for kinds in of)}
    known: Times = lambda specs: None  # noqa: E731
    if records is not None or seconds is not None:
        known = _measured([s for of in calls.values() for kinds in of for s in (*kinds[False], *kinds[True])],
                          chosen, records, seconds, progress)  # fmt: skip
    return {label: _gain(of, chosen, known) for label, of in calls.items()}


def _measured(specs: Sequence[Workload], target: Target, records: str | Path | None, seconds: float | None,
              progress: Progress) -> Times:  # fmt: skip
    """Seconds of kernels that compute the same, where one file of records has them of all."""
    from .tune.tuner import Tuner, open_records

    tuner = Tuner(target, 1, open_records(target, records, seconds is None))
    if seconds is not None:
        works = sorted({s.workload() for s in specs}, key=lambda s: -s.macs)
        tuner.tune(works, seconds, progress)
    return tuner.seconds


def _gain(calls: Sequence[Mapping[bool, Sequence[Workload]]], target: Target, known: Times) -> Gain:
    """Of a layer: by seconds if all its kernels have them, else by estimates."""
    times: list[list[float]] = []
    measured = True
    for kinds in calls:
        found = known([*kinds[False], *kinds[True]])
        measured &= found is not None
        times.append(list(found or ()))
    if not measured:
        times = [[s.estimate(target) for s in (*kinds[False], *kinds[True])] for kinds in calls]
    dense = [min(of[: len(kinds[False])]) for kinds, of in zip(calls, times, strict=True)]
    best = [min(of[len(kinds[False]) :], default=d) for kinds, of, d in zip(calls, times, dense, strict=True)]
    return Gain(sum(dense) / max(sum(best), 1e-30), measured)
