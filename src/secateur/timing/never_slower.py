"""Never slower: what is handed back was timed against the original, in the code of its target and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.ir import Graph, InputError, SlowerError, Unsupported
from secateur.passes.context import LatencyModel
from secateur.report.parts import Latency, Quantiles

from .runtimes import Timing, installed, measure

RUNTIMES = ("secateur", "onnxruntime")  # the first that can run the network is the one that counts
REPEATS = 20
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


def latency_model(seed: int) -> LatencyModel:
    """Milliseconds of one run on one thread, the median: in the first runtime that is here and can run the network.

    Raises InputError where none is here.
    """
    here = [r for r in RUNTIMES if installed(r)]
    if not here:
        raise InputError(
            "budget latency_ms: no runtime is here to measure in; install onnxruntime, or give a budget in macs"
        )

    def measure_latency(graph: Graph) -> float:
        for runtime in here:
            try:
                return measure({"network": graph}, (runtime,), repeats=REPEATS, seed=seed)[0].median
            except Unsupported:  # an operator without code
                continue
        raise Unsupported(f"budget latency_ms: '{graph.name}' runs in none of {', '.join(here)}; give a budget in macs")

    return measure_latency


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
