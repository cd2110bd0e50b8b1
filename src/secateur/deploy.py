"""From a graph to a tuned library: the front door of code generation. TVM loads when something is built."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Error, Graph, InputError, LawError, Sym, Unsupported, reinfer
from secateur.ir.numeric import doubtful, moved, random_inputs, relative_error, worst_slice
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.precision import doubled, doubled_feed, tolerance, widened, widened_feed
from secateur.ir.progress import Progress, quiet
from secateur.ir.symbolic import resized

if TYPE_CHECKING:
    from secateur.codegen import Library, Outcome

TOLERANCE = 1e-3  # of the largest output: a wrong kernel is far off, sums in another order are not
FINE = 1e-4  # a library that is further off is built again without fast algorithms, in case that is why


def build(
    graph: Graph,
    target: str = "native",
    tune: str | float | None = None,
    threads: int = 1,
    records: str | Path | None = None,
    progress: Progress | None = None,
    batch: int | None = None,
    fast: bool = True,
    compact: bool = False,
) -> Library:
    """Machine code for this graph at the sizes it was captured with, or at another ``batch``.

    ``tune``: how long kernels may be measured, "60s", "2m" or seconds; None takes what ``records`` (a file) and those
    that come with secateur say. Ctrl-C ends the measuring early, and the library is built with what was measured;
    ``progress(done, total, kernel)`` is told what is measured. Where this machine can run the library, it is run once
    against the graph; if fast algorithms make it too coarse it is built without. ``fast`` False leaves Winograd's and
    Strassen's algorithms out: slower, with the rounding of plain sums. ``compact`` does so for the size of the file,
    which then is that of the weights, and the library's notes say what it costs.
    Raises InputError, LawError where the two disagree, and Unsupported where TVM is missing or an operator has no code.
    """
    _need_tvm()
    from secateur import codegen
    from secateur.passes.rewrite.fold_constants import compute_constants

    graph = compute_constants(settled(graph if batch is None else at_batch(graph, batch)))
    opened = codegen.open_records(target, records, tune is None)
    duration = None if tune is None else seconds(tune)
    library = codegen.build(graph, target, duration, threads, opened, progress or quiet, fast and not compact)
    if compact:
        price = codegen.cost_of_compact(graph, target, threads, opened)
        library.metadata = replace(library.metadata, notes=(*library.metadata.notes, str(price)))
    if codegen.missing_features(library.metadata.target):
        return library
    (error, wrong), limit = _error(graph, library), tolerance(graph, TOLERANCE)
    if (wrong or not error <= FINE) and codegen.approximate(library.metadata):
        direct = codegen.build(graph, target, None, threads, opened, fast=False)
        least, still = _error(graph, direct)
        if wrong or not error <= least:
            library, error, wrong = direct, least, still
    if (wrong or not error <= limit) and not _as_good_as_float32(graph, library):
        how = f"by {error:.1e} of its largest output, more than {limit:g}" if not error <= limit else wrong
        raise LawError(
            f"the library of '{graph.name}' differs from the network: {how}. This is a fault in code "
            "generation, so nothing is handed out; run the ONNX file in ONNX Runtime"
        )
    return library


def show_plan(
    graph: Graph,
    target: str = "native",
    threads: int = 1,
    records: str | Path | None = None,
    batch: int | None = None,
) -> str:
    """The kernels that a library of this graph calls, one line each: family, tiling, sizes, what is fused, the layer.

    Raises InputError and Unsupported as ``build`` does.
    """
    _need_tvm()
    from secateur import codegen

    graph = graph if batch is None else at_batch(graph, batch)
    return codegen.show_plan(graph, target, threads, codegen.open_records(target, records, True))


def tune(
    graph: Graph,
    records: str | Path,
    time: str | float = "60s",
    target: str = "native",
    threads: int = 1,
    progress: Progress | None = None,
    batch: int | None = None,
    tracker: str | None = None,
    key: str = "",
) -> tuple[Outcome, tuple[str, ...]]:
    """Measure the kernels of this graph that ``records`` (a file) has none of, for so long, and append what came of it.

    ``tracker`` "HOST:PORT": on all boards that a tracker of TVM's has under ``key``, instead of on this machine.
    Returns how many were measured, and remarks on lines of the file. Ctrl-C ends it early; what was measured is in the
    file at once. Raises InputError, and Unsupported where TVM is missing, no tracker answers or no board is left.
    """
    _need_tvm()
    from secateur import codegen

    graph = settled(graph if batch is None else at_batch(graph, batch))
    boards = None if tracker is None else codegen.Tracker.parse(tracker, key)
    return codegen.tune(graph, seconds(time), records, target, threads, progress or quiet, boards)


def write_candidates(
    graph: Graph,
    folder: str | Path,
    records: str | Path,
    target: str = "native",
    threads: int = 1,
    progress: Progress | None = None,
    batch: int | None = None,
) -> int:
    """Write the kernels that ``tune`` would measure to a new folder, with a script that measures them on the device.

    The script, ``measure.py``, needs NumPy and apache-tvm there; ``read_results`` takes the folder back. Returns how
    many kernels there are. Raises InputError, and Unsupported where TVM is missing.
    """
    _need_tvm()
    from secateur import codegen

    graph = settled(graph if batch is None else at_batch(graph, batch))
    return codegen.write_candidates(graph, Path(folder), records, target, threads, progress or quiet)


def read_results(
    graph: Graph,
    folder: str | Path,
    records: str | Path,
    target: str = "native",
    threads: int = 1,
    batch: int | None = None,
) -> Outcome:
    """Append to ``records`` what was measured in a folder of ``write_candidates`` for this graph.

    Raises InputError for results that are missing, damaged, of other candidates, of another network or another version,
    and where the device computed other numbers than this machine.
    """
    _need_tvm()
    from secateur import codegen

    graph = settled(graph if batch is None else at_batch(graph, batch))
    return codegen.read_results(graph, Path(folder), records, target, threads)


def layer_times(graph: Graph, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of each layer within a run of its library on this machine and one thread, by the layer's label.

    Nothing for a network that is no one piece of machine code. Raises Unsupported where TVM is missing.
    """
    _need_tvm()
    from secateur.codegen.tune.profile import profile
    from secateur.passes.rewrite.fold_constants import compute_constants

    found: dict[str, float] = {}
    try:
        for step in profile(compute_constants(settled(graph)), rounds=rounds):
            found[step.label] = found.get(step.label, 0.0) + step.microseconds / 1e3
    except Unsupported:
        return {}
    return found


def settled(graph: Graph) -> Graph:
    """The graph at its captured sizes alone: what computes sizes in a file with dynamic axes is folded.

    A library has one size, and no code for arithmetic on shapes.
    """
    free = any(isinstance(d, Sym) for v in graph.inputs for d in v.shape)
    if not free or graph.note(OnnxOrigin) is None or not any(n.op == "opaque" for n in graph.nodes):
        return graph
    from secateur.ir.exporters.onnx.write import to_onnx
    from secateur.ir.frontends.onnx.load import load

    model = to_onnx(graph)
    for info, value in zip(model.graph.input, graph.inputs, strict=True):
        for dim, size in zip(info.type.tensor_type.shape.dim, value.shape, strict=True):
            dim.dim_value = int(size)
    del model.graph.value_info[:]
    return load(model)


def at_batch(graph: Graph, batch: int) -> Graph:
    """The graph at another batch. Raises InputError where the model fixes it."""
    if batch < 1:
        raise InputError(f"batch is {batch}; give a number from 1 up")
    free = {v.name: v.shape[0] for v in graph.inputs if v.shape and isinstance(v.shape[0], Sym)}
    if not free:
        fixed = ", ".join(f"'{v.name}' {v}" for v in graph.inputs)
        raise InputError(
            f"the inputs of '{graph.name}' have a fixed batch: {fixed}; "
            "export the model with a dynamic batch, or at the size that is needed, and build it without this option"
        )
    try:
        return reinfer(resized(graph, {size.name: batch for size in free.values()}))
    except (Error, ValueError) as error:
        raise InputError(
            f"'{graph.name}' cannot be built for batch {batch}: {error}; export it at that size"
        ) from error


def _error(graph: Graph, library: Library) -> tuple[float, str]:
    """Run a library once against the graph: the largest difference over the largest output, and what else is wrong.

    A graph in half precision is computed in float32 for that, so that only the library's roundings count.
    """
    from .run import evaluate

    feed = random_inputs(graph, 0)
    found = library(*(feed[v.name] for v in graph.inputs))
    outputs = found if isinstance(found, tuple) else (found,)
    wide = widened(graph)
    exact, given = (graph, feed) if wide is None else (wide, widened_feed(feed))
    wants, limit = evaluate(exact, given), tolerance(graph, FINE)
    error = max((relative_error(want, have) for want, have in zip(wants, outputs, strict=True)), default=0.0)
    if not doubtful(wants, outputs, limit):
        return error, ""
    noisy = evaluate(*moved(exact, given))
    for name, want, have, noise in zip(graph.outputs, wants, outputs, noisy, strict=True):
        wrong = worst_slice(want, have, limit, noise)
        if wrong is not None:
            return error, f"in '{name}' {wrong}"
    return error, ""


def _as_good_as_float32(graph: Graph, library: Library) -> bool:
    """Is the library no further from double precision than twice what the network in float32 is?

    So it is where a network magnifies roundings, such as a variance written as E[x^2] - E[x]^2.
    """
    from .run import evaluate

    exact, feed = doubled(graph), random_inputs(graph, 0)
    if exact is None:
        return False
    try:
        wants = evaluate(exact, doubled_feed(feed))
    except Error:  # an operator without code for doubles
        return False
    found, plain = library(*(feed[v.name] for v in graph.inputs)), evaluate(graph, feed)
    haves = found if isinstance(found, tuple) else (found,)
    return all(
        relative_error(want, have) <= 2 * relative_error(want, near) and worst_slice(want, have, FINE, near) is None
        for want, have, near in zip(wants, haves, plain, strict=True)
    )


def load_library(path: str | Path) -> Library:
    """The library in a file that ``Library.save`` wrote. Raises InputError, and Unsupported without TVM."""
    _need_tvm()
    from secateur import codegen

    if not Path(path).is_file():
        raise InputError(f"there is no file '{path}'; check the path")
    return codegen.load_library(path)


def seconds(text: str | float) -> float:
    """ "60s", "2m", "60" or 60 as seconds. Raises InputError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", str(text))
    if not found or float(found[1]) <= 0:
        raise InputError(f"tuning time '{text}' is not a duration; write 60s, 2m or a number of seconds")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _need_tvm() -> None:
    if find_spec("tvm") is None:
        raise Unsupported(
            "building a library needs TVM, which is not installed: pip install 'secateur[tvm]'; "
            "without it, save ONNX and run it in ONNX Runtime"
        )
