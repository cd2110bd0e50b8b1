"""``sparsity=`` and ``block=``: the pass that makes zeros, and which layers gain by them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Error, Graph, InputError
from secateur.ir.progress import Progress, quiet
from secateur.passes.pipeline import Pass, number, print_pass
from secateur.passes.sparsify import Sparsify
from secateur.passes.sparsify.balanced import Balanced, Kernels
from secateur.passes.sparsify.layers import places

if TYPE_CHECKING:
    from secateur.codegen.advice import Gain

LEAST = 1.05  # a layer whose kernel gains less stays dense
NAMED = 3  # layers that a remark names


def sparse_of(
    sparsity: float | str | None, block: str | tuple[int, int] | None, data: bool, lanes: int
) -> Sparsify | None:
    """The pass that makes zeros, if a share was given. ``data``: is there calibration data?

    Raises InputError for what is not a share, for an unknown pattern, and for a pattern without a share.
    """
    if sparsity is None:
        if block is not None:
            raise InputError("block= says where zeros stand, and nothing how many; give sparsity= as well, as 0.7")
        return None
    share = number(sparsity) if isinstance(sparsity, str) else sparsity
    if isinstance(share, str | bool) or not 0 <= share < 1:
        raise InputError(f"sparsity {sparsity}: the share of weights that become zero, as 70% or 0.7, below 100%")
    spelled = "x".join(map(str, block)) if isinstance(block, tuple) else block or "auto"
    width = lanes if spelled in (Balanced.name, Kernels.name) else 0
    return Sparsify(float(share), spelled, "moments" if data else "magnitude", width)


def with_zeros(spec: str, zeros: Sequence[Pass]) -> str:
    """The spec line with the passes that make zeros; these alone where nothing else is done."""
    return ",".join([*(() if zeros and spec == "none" else (spec,)), *map(print_pass, zeros)])


def advised(
    graph: Graph,
    step: Sparsify | None,
    target: str | None,
    records: str | Path | None = None,
    tune: str | float | None = None,
    progress: Progress = quiet,
) -> tuple[tuple[Sparsify, ...], tuple[str, ...]]:
    """The pass without the layers that would gain nothing, and sentences on these for the report.

    ``auto`` is for speed: the network is planned with zeros by magnitude, and a layer whose best block-sparse kernel
    gains less than ``LEAST`` over the fastest dense one loses whole kernels instead of single taps if that gains, and
    else keeps its weights: by measured seconds where ``records`` have them or kernels may be measured (``tune``, so
    long), else by estimates. Other patterns are made as they were asked
    for. Where this network cannot be planned, so are these. Raises InputError for records that cannot be read.
    """
    if step is None or step.block != "auto" or not step.sparsity:
        return (() if step is None else (step,)), ()
    from secateur.deploy import seconds

    end = None if tune is None else time.monotonic() + seconds(tune)
    if records is not None and end is None and not Path(records).exists():
        raise InputError(f"there are no records '{records}'; check the path, or tune to make them")
    judge = partial(_judged, graph, target or "native", records, end, progress)
    try:
        known = judge(step)
        slow = [name for name, gain in known.items() if not _pays(gain)]
        taken = {p.node.name: p.taps(graph.weights[p.weight]) for p in places(graph, step.protect)}
        taps = [name for name in slow if taken[name] > 1]
        others = judge(dataclasses.replace(step, whole=tuple(map(_literal, taps)))) if taps else {}
    except Error as error:
        return (step,), (f"sparsity: which layers gain could not be estimated: {error}",)
    whole = [name for name in taps if _pays(others[name])]
    dense = [name for name in slow if name not in whole]
    known |= {name: others[name] for name in whole}
    named = partial(_named, {node.name: node.label for node in graph.nodes})
    remarks = []
    if measured := sum(gain is not None and gain.measured for gain in known.values()):
        remarks.append(f"sparsity: {measured} of {len(known)} layers were judged by measured seconds")
    if dense and taken.keys() <= set(dense):
        why = f"no layer gains {LEAST - 1:.0%} by {step.sparsity:.0%} of zeros on this target, as {named(dense, known)}"
        return (), (
            *remarks, f"sparsity: nothing was set to zero: {why}; ask for more, or name a block, as --block 8x1",
        )  # fmt: skip
    if whole:
        remarks.append(
            f"sparsity: in {len(whole)} of {len(known)} layers whole kernels go, which Winograd's algorithm leaves "
            f"out, since zeros in single taps would gain nothing: {named(whole, known)}"
        )
    if dense:
        remarks.append(
            f"sparsity: {len(dense)} layers stay dense, whose kernels gain less than {LEAST - 1:.0%}: "
            f"{named(dense, known)}"
        )
    protect = (*step.protect, *map(_literal, dense))
    return (dataclasses.replace(step, protect=protect, whole=tuple(map(_literal, whole))),), tuple(remarks)


def _judged(graph: Graph, target: str, records: str | Path | None, end: float | None, progress: Progress,
            step: Sparsify) -> dict[str, Gain | None]:  # fmt: skip
    """What each layer gains by its zeros; ``end``: until then kernels may be measured."""
    from secateur.codegen.advice import gains

    left = None if end is None else max(0.0, end - time.monotonic())
    trial = dataclasses.replace(step, by="magnitude")(graph)
    found = gains(trial, target, records, left, progress)
    return {p.node.name: found.get(p.node.label) for p in places(graph, step.protect) if not p.recurrent}


def _pays(gain: Gain | None) -> bool:
    return gain is not None and gain.times >= LEAST


def _named(labels: Mapping[str, str], layers: Sequence[str], known: Mapping[str, Gain | None]) -> str:
    """Some of these layers and what they gain, for people."""
    shown = ", ".join(f"{labels[name]} ({_said(known[name])})" for name in layers[:NAMED])
    return f"{shown} and {len(layers) - NAMED} more" if len(layers) > NAMED else shown


def _said(gain: Gain | None) -> str:
    """What a layer gains, for people."""
    if gain is None:
        return "no block-sparse kernel fits it, or none is worth a trial"
    return f"{gain.times:.2f} times as fast, {'measured' if gain.measured else 'estimated'}"


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
