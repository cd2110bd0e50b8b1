"""Never slower: what is handed back was timed against the original, in the code of its target and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.deploy import layer_times
from secateur.ir import Graph, InputError, SlowerError, Unsupported
from secateur.ir.numeric import random_inputs
from secateur.passes.context import LatencyModel
from secateur.report.parts import Latency, Quantiles

from .runtimes import RUNTIMES as PREPARE
from .runtimes import Run, Timing, check_runtime, installed, measure, race
from .tables import Table

RUNTIMES = ("secateur", "onnxruntime")  # the first that can run the network is the one that counts
REPEATS = 20
WARMUPS = 3
BLOCK = 0.25  # seconds of measuring that one answer of a latency model takes, in rounds of LEAST to REPEATS
LEAST = 1
COUNTED, QUICK = 3, 5  # runs that count in a turn, where QUICK such rounds fit a block; else one
OFTEN = 0.9  # slower in so many rounds is slower: of two equally fast networks one in 5000 would be


def compare(dense: Graph, slim: Graph, seed: int) -> tuple[Latency, tuple[str, ...]]:
    """The report's ``latency_ms``, and a warning where another runtime got slower. One thread, interleaved.

    A network that is slower is measured again, twice as long. Raises SlowerError if it still is.
    """
    models = {"before": dense, "after": slim}
    timings = _measure(models, REPEATS, seed)
    if any(t.slower >= OFTEN for t in timings):
        timings = _measure(models, 2 * REPEATS, seed + 1)
    runtimes = list(dict.fromkeys(t.runtime for t in timings))
    rows = [[t for t in timings if t.runtime == runtime] for runtime in runtimes]
    worse = [_sentence(before, after) for before, after in rows if after.slower >= OFTEN]
    before, after = rows[0]
    if after.slower >= OFTEN:
        raise SlowerError(
            f"'{slim.name}' is {worse[0]}; nothing is handed out. Keep the original, let less remain, leave round_to "
            "at auto, or leave target out to get it all the same"
        )
    return _entry(before, after), tuple(f"{sentence}; run it in {runtimes[0]}" for sentence in worse)


def latency_model(seed: int, runtime: str | None = None) -> LatencyModel:
    """Medians on one thread, in the first runtime that is here and can run the first network that it is asked for, or
    in the one that is named.

    Raises InputError where none is here, or that one is not.
    """
    if runtime is not None:
        check_runtime(runtime)
    here = [r for r in RUNTIMES if installed(r)] if runtime is None else [runtime]
    if not here:
        raise InputError(
            "a budget of time: no runtime is here to measure in; install onnxruntime, or give a budget in macs"
        )
    return _Measuring(here, seed)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A network that is ready to run, and about how many seconds a run takes."""

    graph: Graph
    run: Run
    seconds: float


class _Measuring:
    """A latency model that keeps the network that it was asked for first, which all others are compared with, and the
    one that it was asked for last.

    A call is a block of turns of about ``BLOCK`` seconds: whoever wants to know better asks again.
    """

    def __init__(self, runtimes: Sequence[str], seed: int) -> None:
        self._asked, self._runtimes, self._seed = tuple(runtimes), list(runtimes), seed
        self._first: _Prepared | None = None
        self._last: _Prepared | None = None
        self._blocks = 0
        self._table: Table | None = None

    def __call__(self, *graphs: Graph) -> tuple[float, ...]:
        """Raises Unsupported where no runtime can run the first network, or its runtime another one."""
        prepared = [self._run(graph) for graph in graphs]
        once = sum(one.seconds for one in prepared)
        counted = COUNTED if QUICK * (1 + COUNTED) * once <= BLOCK else 1
        repeats = min(max(round(BLOCK / ((1 + counted) * once)), LEAST), REPEATS)
        self._blocks += 1
        runs = {place: one.run for place, one in enumerate(prepared)}
        times = race(runs, repeats, 0, self._seed + self._blocks, counted=counted)
        return tuple(float(np.median(times[place])) for place in runs)

    def layers(self, graph: Graph) -> Mapping[str, float]:
        """In our own code, whose steps carry the time at which they end; of another runtime by a table of the first
        network's layers, each of which ran alone.
        """
        from secateur.codegen.targets import get_target  # all of codegen, which few commands need

        from .measured_table import measured_table

        if self._runtimes[:1] == ["secateur"]:
            return layer_times(graph)
        try:
            if self._table is None:
                first = graph if self._first is None else self._first.graph
                self._table = measured_table(first, self._runtimes[0], get_target("native").lanes, self._seed)
            return self._table.layers(graph)
        except (InputError, Unsupported):  # no target for this machine, or layers that cannot stand alone
            return {}

    def _run(self, graph: Graph) -> _Prepared:
        for kept in (self._first, self._last):
            if kept is not None and graph.nodes is kept.graph.nodes:
                return kept
        if self._first is not None:
            self._last = self._prepared(graph, self._runtimes[0])
            return self._last
        while self._runtimes:
            try:
                self._first = self._prepared(graph, self._runtimes[0])
                return self._first
            except Unsupported:  # an operator without code
                self._runtimes.pop(0)
        raise Unsupported(
            f"a budget of time: '{graph.name}' runs in none of {', '.join(self._asked)}; give a budget in macs"
        )

    def _prepared(self, graph: Graph, runtime: str) -> _Prepared:
        run = PREPARE[runtime](graph, random_inputs(graph, self._seed), 1)
        times = race({0: run}, WARMUPS, 0, self._seed)[0]
        return _Prepared(graph, run, max(min(times) / 1e3, 1e-6))


def _measure(models: Mapping[str, Graph], repeats: int, seed: int) -> list[Timing]:
    """In every runtime that is here and can run both."""
    runtimes = tuple(filter(installed, RUNTIMES))
    try:
        return measure(models, runtimes, repeats=repeats, seed=seed)
    except Unsupported:  # an operator without code
        return measure(models, tuple(r for r in runtimes if r != "secateur"), repeats=repeats, seed=seed)


def _entry(before: Timing, after: Timing) -> Latency:
    dense, slim = (Quantiles(round(t.median, 4), round(t.p10, 4), round(t.p90, 4)) for t in (before, after))
    return Latency(after.runtime, after.threads, dense, slim, round(after.ratio, 4))


def _sentence(before: Timing, after: Timing) -> str:
    return (
        f"slower than the original in {after.runtime} on this machine: {after.median:.3g} ms against "
        f"{before.median:.3g}, and slower in {after.slower:.0%} of the rounds"
    )
