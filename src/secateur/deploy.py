"""From a graph to a tuned library: the front door of code generation. TVM loads when something is built."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Error, Graph, InputError, Sym, Unsupported, reinfer
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.progress import Progress, quiet
from secateur.ir.symbolic import resized

if TYPE_CHECKING:
    from secateur.codegen import Library, Outcome, Target
    from secateur.codegen.records import Records


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
    precision: str = "f32",
    calibration: Iterable[object] | None = None,
) -> Library:
    """Machine code for this graph at the sizes it was captured with, or at another ``batch``.

    ``tune``: how long kernels may be measured, "60s", "2m" or seconds; None takes what ``records`` (a file) and those
    that come with secateur say. Ctrl-C ends the measuring early, and the library is built with what was measured;
    ``progress(done, total, kernel)`` is told what is measured. Where this machine can run the library, it is run once
    against the graph; where fast algorithms are too coarse it is built again without, in as few layers as that takes,
    and its notes name them. ``fast`` False leaves Winograd's and Strassen's algorithms out: slower, with the rounding
    of plain sums. ``compact`` does so for the size of the file, which then is that of the weights, and the library's
    notes say what it costs.
    ``precision`` "bf16": layers multiply in bfloat16 and add up in float32, where they have such a kernel and are not
    too coarse; "auto": where that is faster, on a target that can; "tf32" and "f16" the same on tensor cores of GPUs.
    The notes say which do not, and how far the outputs are from float32, on random inputs and on ``calibration``,
    batches as ``compile`` takes them.
    Raises InputError, LawError where the two disagree, and Unsupported where TVM is missing or an operator has no code.
    """
    _need_tvm()
    from secateur import codegen
    from secateur.passes.rewrite.fold_constants import compute_constants

    from .checks.narrow import narrowed

    graph = compute_constants(settled(graph if batch is None else at_batch(graph, batch)))
    chosen = codegen.target_for(target, precision)
    opened = codegen.open_records(chosen, records, tune is None)
    duration, fast = None if tune is None else seconds(tune), fast and not compact
    mode = codegen.Precision(precision)
    library = codegen.build(graph, chosen, duration, threads, opened, progress or quiet, fast, precision=mode)
    if library.metadata.precision != "f32":
        library = narrowed(graph, library, threads, opened, fast, mode, calibration)
    if library.metadata.precision != "f32":  # and it was judged as such
        return library
    if compact:
        price = codegen.cost_of_compact(graph, chosen, threads, opened)
        library.metadata = replace(library.metadata, notes=(*library.metadata.notes, str(price)))
    if codegen.missing_features(library.metadata.target):
        return library
    return _checked(graph, library, chosen, threads, opened)


def _checked(graph: Graph, library: Library, target: Target, threads: int, records: Records) -> Library:
    """The library if it computes what the network does, or one without the fast algorithms that are too coarse.

    Raises LawError where neither does.
    """
    from secateur import codegen

    from .checks.coarse import refined
    from .checks.library import Check, differs
    from .checks.library_choices import decided

    def without(part: Graph, layers: Collection[str] | None) -> Library:
        return codegen.build(part, target, None, threads, records, fast=layers is not None, direct=layers or ())

    def fast(part: Graph) -> Collection[str]:
        return codegen.inexact_layers(part, target, threads, records)

    check = Check(graph)
    outputs = check.outputs(library)
    if check.passed(outputs):
        return library
    if what := decided(check, library, check.fine):
        return _deciding(library, what)
    if codegen.approximate(library.metadata):
        library = refined(library, check, without, fast)
        outputs = check.outputs(library)
    if not check.accepted(outputs, check.limit):
        if what := decided(check, library, check.limit):
            return _deciding(library, what)
        verdict = check.verdict(outputs)
        far = not verdict.error <= check.limit
        how = f"by {verdict.error:.1e} of its largest output, more than {check.limit:g}" if far else verdict.wrong
        raise differs(graph, how)
    return library


def _deciding(library: Library, what: str) -> Library:
    """The library with a note of the part whose choice roundings decide."""
    note = f"roundings decide what {what} gives: each part was compared by itself, and all of it with that choice"
    library.metadata = replace(library.metadata, notes=(*library.metadata.notes, note))
    return library


def show_plan(
    graph: Graph,
    target: str = "native",
    threads: int = 1,
    records: str | Path | None = None,
    batch: int | None = None,
    precision: str = "f32",
) -> str:
    """The kernels that a library of this graph calls, one line each: family, tiling, sizes, what is fused, the layer.

    Raises InputError and Unsupported as ``build`` does.
    """
    _need_tvm()
    from secateur import codegen

    graph = graph if batch is None else at_batch(graph, batch)
    chosen = codegen.target_for(target, precision)
    opened = codegen.open_records(chosen, records, True)
    return codegen.show_plan(graph, chosen, threads, opened, codegen.Precision(precision))


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
    precision: str = "f32",
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
    mode = codegen.Precision(precision)
    return codegen.tune(graph, seconds(time), records, target, threads, progress or quiet, boards, mode)


def write_candidates(
    graph: Graph,
    folder: str | Path,
    records: str | Path,
    target: str = "native",
    threads: int = 1,
    progress: Progress | None = None,
    batch: int | None = None,
    precision: str = "f32",
) -> int:
    """Write the kernels that ``tune`` would measure to a new folder, with a script that measures them on the device.

    The script, ``measure.py``, needs NumPy and apache-tvm there; ``read_results`` takes the folder back. Returns how
    many kernels there are. Raises InputError, and Unsupported where TVM is missing.
    """
    _need_tvm()
    from secateur import codegen

    graph = settled(graph if batch is None else at_batch(graph, batch))
    mode = codegen.Precision(precision)
    return codegen.write_candidates(graph, Path(folder), records, target, threads, progress or quiet, mode)


def read_results(
    graph: Graph,
    folder: str | Path,
    records: str | Path,
    target: str = "native",
    threads: int = 1,
    batch: int | None = None,
    precision: str = "f32",
) -> Outcome:
    """Append to ``records`` what was measured in a folder of ``write_candidates`` for this graph.

    Raises InputError for results that are missing, damaged, of other candidates, of another network or another version,
    and where the device computed other numbers than this machine.
    """
    _need_tvm()
    from secateur import codegen

    graph = settled(graph if batch is None else at_batch(graph, batch))
    return codegen.read_results(graph, Path(folder), records, target, threads, codegen.Precision(precision))


def layer_times(graph: Graph, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of each layer within a run of its library on this machine and one thread, by the layer's label.

    Nothing for a network that is not one piece of machine code. Raises Unsupported where TVM is missing.
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
