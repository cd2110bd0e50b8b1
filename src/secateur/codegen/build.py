"""Graph -> Library."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from secateur.ir import Graph, InputError, Unsupported

from .library import Library, Metadata, Port
from .plan import plan
from .program import Program
from .specs import CHOICES, WinogradSpec
from .targets import Target, get_target, missing_features

Progress = Callable[[int, int, str], None]


def build(
    graph: Graph,
    target: str | Target = "native",
    tune: float | None = None,
    threads: int = 1,
    records: str | Path | None = None,
    progress: Progress | None = None,
    winograd: bool = True,
) -> Library:
    """A library for this graph at the sizes it was captured with.

    ``tune``: seconds to spend on measuring kernels that ``records`` (a file) has no entry for; None measures nothing.
    ``progress(done, total, what)`` is called while tuning. ``winograd`` False: 3x3 convolutions are computed directly,
    slower and with a smaller error. Raises InputError for an unknown target, Unsupported for an
    operator that has no code generation.
    """
    from .lower import compile_program
    from .tune import Tuner

    chosen = get_target(target)
    if threads < 1:
        raise InputError(f"threads is {threads}; give a number from 1 up")
    lacking = missing_features(chosen)
    if tune is not None and lacking:
        raise InputError(f"cannot tune for {chosen.name} here: this machine lacks {', '.join(lacking)}")
    check(graph)
    tuner = Tuner(chosen, threads, records)
    if tune is not None:
        tuner.tune(workloads(graph, chosen, threads), tune, progress)
    choose = tuner.choose if winograd else lambda spec, *_: tuner.choose(spec)
    program = plan(graph, chosen, threads, choose)
    compiled = compile_program(program, graph, chosen)
    metadata = Metadata(
        graph.name, chosen, threads,
        tuple(Port(v.name, tuple(map(int, v.shape)), v.dtype) for v in graph.inputs),
        tuple(Port(n, tuple(map(int, graph.value(n).shape)), graph.value(n).dtype) for n in graph.outputs),
        compiled.arena_words, versions(), (*(f"no template: {n}" for n in program.by_library), *tuner.notes),
        sum(isinstance(call.spec, WinogradSpec) for call in program.calls),
    )  # fmt: skip
    return Library(metadata, compiled.module, compiled.weights, compiled.tables)


def workloads(graph: Graph, target: Target, threads: int) -> list[Any]:
    """The distinct kernels of a graph that have a choice, the most expensive first."""
    from .tune import default_choice

    seen: dict[Any, int] = {}

    def note(spec: Any, *rivals: Any) -> Any:
        for rival in (spec, *rivals) if type(spec) in CHOICES else ():
            work = rival.workload()
            seen[work] = seen.get(work, 0) + rival.macs
        return default_choice(spec, target)

    plan(graph, target, threads, note)
    return sorted(seen, key=lambda s: -seen[s])


def check(graph: Graph) -> None:
    """Refuse what cannot be compiled before any work is done."""
    for value in (*graph.inputs, *(graph.value(n) for n in graph.outputs)):
        if value.dtype in {"str", "c64", "c128", "bf16"}:
            raise Unsupported(f"{value}: element type {value.dtype} has no code generation; use ONNX Runtime or torch")


def versions() -> dict[str, str]:
    """What made a library."""
    found = {}
    for name in ("secateur", "apache-tvm", "apache-tvm-ffi"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


__all__ = ["Program", "build", "workloads"]
