"""Graph -> Library, where all of the graph has code; and the tuning of its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from secateur.ir import Graph, InputError, Unsupported
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.precision import HALF
from secateur.ir.progress import Progress, quiet

from .backends import backend_for
from .division import FOREIGN, PRODUCTS, Piece, divided
from .library import Library, linker
from .metadata import Metadata, Port
from .plan.backend import Backend
from .plan.family import Workload, choices, family_of
from .plan.lower import lower
from .plan.precision import F32, Precision
from .plan.program import Program
from .plan.text import show
from .records import Records
from .targets import Target, missing_features, target_for
from .tune import offline
from .tune.boards import Boards
from .tune.tracker import Tracker
from .tune.tuner import Outcome, Tuner, open_records, versions


def build_piece(
    graph: Graph,
    target: str | Target,
    tune: float | None,
    threads: int,
    records: str | Path | Records | None,
    progress: Progress,
    fast: bool,
    direct: Collection[str] = (),
    precision: Precision = F32,
) -> Library:
    """A library for a graph that ``divide`` leaves whole; arguments and errors are those of ``assembly.build``."""
    check(graph)
    tuner = _tuner(target, threads, records, tune is not None, precision=precision)
    backend = backend_for(tuner.target, precision).exact(direct if fast else None)
    program = lower(graph, tuner.target, threads, tuner.choose if tune is None else None, backend)
    outcome = Outcome() if tune is None else tuner.tune(_open_workloads([program], backend), tune, progress)
    program.settle(tuner.choose)  # weights are packed once, when it is known how
    compiled = backend.assemble(program, graph, tuner.target)
    metadata = Metadata(
        graph.name, tuner.target, threads,
        tuple(port(graph, v.name) for v in graph.inputs), tuple(port(graph, name) for name in graph.outputs),
        compiled.arena_words, versions(),
        (*(f"no template: {n}" for n in program.by_library), *outcome.notes, *tuner.notes,
         *_in_float32(graph, program, backend, precision)),
        kernels=_count(program, backend), precision=_multiplies(program, backend),
    )  # fmt: skip
    return compiled.library(metadata)


def port(graph: Graph, name: str) -> Port:
    """An input or output under the name that the user's file has for it."""
    origin, value = graph.note(OnnxOrigin), graph.value(name)
    spelled = name if origin is None else origin.names.get(name, name)
    return Port(spelled, tuple(map(int, value.shape)), value.dtype)


def show_piece(graph: Graph, target: str | Target, threads: int, records: str | Path | Records | None,
               precision: Precision = F32) -> str:  # fmt: skip
    """What a library of such a graph would call, one line a kernel (``plan.text``)."""
    check(graph)
    tuner = _tuner(target, threads, records, False, precision=precision)
    backend = backend_for(tuner.target, precision)
    return show(lower(graph, tuner.target, threads, tuner.choose, backend), backend.families)


def tune(
    graph: Graph,
    seconds: float,
    records: str | Path,
    target: str | Target = "native",
    threads: int = 1,
    progress: Progress = quiet,
    tracker: Tracker | None = None,
    precision: Precision = F32,
) -> tuple[Outcome, tuple[str, ...]]:
    """Measure the kernels of a graph that ``records`` has no entry for, and append them.

    ``tracker``: on all boards that it has, instead of here. Returns what came of it, and what there is to say about the
    file's lines. Ctrl-C ends it; what was measured stays. Raises InputError as ``build`` does, and Unsupported where no
    tracker answers or no board is left.
    """
    tuner = _tuner(target, threads, records, True, tracker, precision)
    outcome = tuner.tune(workloads(graph, tuner.target, threads, precision), seconds, progress)
    return outcome, tuner.notes


def kernel_seconds(
    graphs: Sequence[Graph],
    seconds: float,
    records: str | Path,
    target: str | Target = "native",
    progress: Progress = quiet,
    tracker: Tracker | None = None,
) -> tuple[list[float | None], Outcome]:
    """What the kernels of each graph take on one thread, in seconds; ``records`` grows by what it has none of.

    Of kernels that compute the same the fastest counts. Steps without a choice (pools, copies, arithmetic) are not
    measured and count nothing; a graph is None where a kernel of its could not be measured, or the time was up. Raises
    as ``tune`` does, and Unsupported for a graph that is not one piece of machine code.
    """
    tuner = _tuner(target, 1, records, True, tracker)
    backend = backend_for(tuner.target)
    programs = []
    for graph in graphs:
        check(graph)
        programs.append(lower(graph, tuner.target, 1, None, backend))
    outcome = tuner.tune(_open_workloads(programs, backend), seconds, progress)
    tuned = choices(backend.families)
    found: list[float | None] = []
    for program in programs:
        calls = [[cast(Workload, s) for s in late.specs if type(s) in tuned] for late in program.open]
        best = [tuner.least(specs) for specs in calls if specs]
        found.append(None if None in best else sum(t for t in best if t is not None))
    return found, outcome


def write_candidates(graph: Graph, folder: Path, records: str | Path, target: str | Target = "native",
                     threads: int = 1, progress: Progress = quiet, precision: Precision = F32) -> int:  # fmt: skip
    """Write what tuning would measure to a folder, to be measured on another machine; how many kernels there are.

    Raises InputError as ``tune`` does, and where the folder is in use or the cross compiler is missing.
    """
    chosen = target_for(target, precision.mode)
    _refuse_gpu(chosen)
    linker(chosen)
    tuner = Tuner(chosen, threads, open_records(chosen, records))
    return offline.write(tuner, workloads(graph, chosen, threads, precision), folder, progress=progress)


def read_results(graph: Graph, folder: Path, records: str | Path, target: str | Target = "native",
                 threads: int = 1, precision: Precision = F32) -> Outcome:  # fmt: skip
    """Append what was measured in a folder of ``write_candidates``. Raises InputError as ``offline.read`` does."""
    chosen = target_for(target, precision.mode)
    tuner = Tuner(chosen, threads, open_records(chosen, records))
    return offline.read(tuner, workloads(graph, chosen, threads, precision), folder)


def _refuse_gpu(target: Target) -> None:
    """Raises InputError for a target whose kernels cannot be measured."""
    if target.gpu:
        raise InputError(
            f"cannot tune for {target.name}: how kernels of GPUs are tiled is decided without measuring so far; "
            "build without a tuning time"
        )


def _tuner(target: str | Target, threads: int, records: str | Path | Records | None, measures: bool,
           tracker: Tracker | None = None, precision: Precision = F32) -> Tuner:  # fmt: skip
    """Refuse what cannot be built, read the records, load TVM. What measures does so here, or on a tracker's boards."""
    chosen = target_for(target, precision.mode)
    if threads < 1:
        raise InputError(f"threads is {threads}; give a number from 1 up")
    if measures:
        _refuse_gpu(chosen)
    lacking = missing_features(chosen) if measures and tracker is None else []
    if lacking:
        raise InputError(
            f"cannot tune for {chosen.name} here: this machine lacks {', '.join(lacking)}; tune on a machine that "
            "fits, or on boards behind a tracker (--tracker), and build here from its records"
        )
    opened = open_records(chosen, records, not measures)
    if tracker is None:
        return Tuner(chosen, threads, opened)
    linker(chosen)
    return Tuner(chosen, threads, opened, partial(Boards, tracker=tracker))


def workloads(graph: Graph, target: Target, threads: int, precision: Precision = F32) -> list[Workload]:
    """The distinct kernels of a graph that have a choice, the most expensive first."""
    backend = backend_for(target, precision)

    def plan(pieces: tuple[Piece, ...]) -> list[Program]:
        return [lower(piece.graph, target, threads, None, backend) for piece in pieces if not piece.foreign]

    return _open_workloads(divided(graph, plan), backend)


def _open_workloads(programs: Sequence[Program], backend: Backend) -> list[Workload]:
    """The distinct kernels that programs leave open and that have a choice, the most expensive first."""
    seen: dict[Workload, int] = {}
    tuned = choices(backend.families)
    for spec in (s for program in programs for late in program.open for s in late.specs if type(s) in tuned):
        kernel = cast(Workload, spec)  # as its family says that it has a choice
        work = kernel.workload()
        seen[work] = seen.get(work, 0) + kernel.macs
    return sorted(seen, key=lambda s: -seen[s])


def _count(program: Program, backend: Backend) -> dict[str, int]:
    """How many calls are of each kernel family, the largest number first."""
    families = [family_of(call.spec, backend.families) for call in program.calls]
    return dict(Counter("tvm" if f is None else f.name for f in families).most_common())


def _multiplies(program: Program, backend: Backend) -> str:
    """The narrowest element type that a kernel of the program multiplies in."""
    families = [family_of(call.spec, backend.families) for call in program.calls]
    return next((f.dtype for f in families if f is not None and f.dtype != "f32"), "f32")


def _in_float32(graph: Graph, program: Program, backend: Backend, precision: Precision) -> list[str]:
    """Where another precision was asked for: the layers that multiply in float32 nevertheless, by name."""
    if precision.mode == "f32":
        return []
    families = [(call.label, family_of(call.spec, backend.families)) for call in program.calls]
    narrow = {label for label, family in families if family is not None and family.dtype != "f32"}
    plain = dict.fromkeys(n.label for n in graph.nodes if n.op in PRODUCTS and n.label not in narrow)
    kept = [label for label in plain if label in precision.plain]
    rest = [label for label in plain if label not in precision.plain]
    kind = "bf16" if precision.mode == "auto" else precision.mode
    why = f"they have no {kind} kernel"
    why = f"f32 is as fast or {why}" if precision.mode == "auto" else why
    said = [f"{kind}: {len(narrow)} layers multiply in {kind} and add up in f32"]
    said += [f"in f32, as {kind} is too coarse for them: {', '.join(kept)}"] if kept else []
    return said + ([f"in f32, as {why}: {', '.join(rest)}"] if rest else [])


def approximate(metadata: Metadata) -> bool:
    """Does a library hold kernels whose rounding is coarser than that of a sum in another order?"""
    return any(metadata.kernels.get(f.name, 0) for f in backend_for(metadata.target).families if not f.exact)


def check(graph: Graph) -> None:
    """Refuse what cannot be compiled before any work is done."""
    for value in (*graph.inputs, *(graph.value(n) for n in graph.outputs)):
        if value.dtype in FOREIGN:
            raise Unsupported(f"{value}: element type {value.dtype} has no code generation; use ONNX Runtime or torch")
    for node in graph.nodes:
        if node.op in PRODUCTS and node.out.dtype in HALF:
            raise Unsupported(
                f"{node.label}: {node.op} in {node.out.dtype} has no code generation (TVM's own takes hundreds of "
                "times as long as float32); convert the network to float32, or run it in ONNX Runtime or torch"
            )


__all__ = [
    "approximate", "build_piece", "port", "read_results", "show_piece", "tune", "workloads", "write_candidates",
]  # fmt: skip
