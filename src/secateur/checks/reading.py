"""Is what was read what the user gave? The original as it is runs next to the graph, and so does what is written.

The law compares graphs with each other, so a misread operator would pass it. Here the file runs in ONNX Runtime with
the runtime's own options, or the module in torch, on random inputs and on the user's, and where sizes may vary at
others too. Where the original takes an input, the graph must give the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.capture import graph_of
from secateur.ir import Array, Graph
from secateur.ir.files import Job
from secateur.ir.frontends.onnx.original import OnnxOriginal
from secateur.ir.frontends.onnx.process import OnnxProcess, Refused
from secateur.ir.onnx_origin import OnnxOrigin
from secateur.ir.progress import Progress, quiet
from secateur.passes.sweep.batches import batches

from .comparison import READ, WRITTEN, Comparison, Original, Reading, unread

if TYPE_CHECKING:
    from secateur.capture import Model

GIVEN = 2  # examples of the user's that are run


def check_reading(
    model: Model,
    graph: Graph,
    example_inputs: object = None,
    *,
    data: Iterable[object] | None = None,
    process: OnnxProcess | None = None,
    seed: int = 0,
    tell: Progress = quiet,
) -> Reading | None:
    """Compare the original with the graph that was read from it; None where the model is a graph itself.

    ``data``: calibration data, of which the first examples are run. Raises LawError where the two differ, with the
    first node where they part, and InputError where the original is random or crashes its runtime.
    """
    if graph_of(model) is not None:
        return None
    tell(0, None, "compare with the original")
    given = (
        [dict(batch.inputs) for _, batch in zip(range(1), batches(graph, data, GIVEN), strict=False)] if data else []
    )
    name = Path(model).name if isinstance(model, str | Path) else graph.name
    try:
        original, examples = _original(model, graph, example_inputs, process or OnnxProcess(), name)
    except Refused as error:
        return unread(f"not run: {error}")
    with contextlib.closing(original):
        return Comparison(original, bare(graph), f"'{name}'", READ).on([*examples, *given], seed)


def bare(graph: Graph) -> Graph:
    """The graph without the nodes of its file: what runs is what was read, and not the file once more."""
    origin = graph.note(OnnxOrigin)
    return graph if origin is None else graph.with_note(dataclasses.replace(origin, originals={}))


def check_written(
    path: Path, graph: Graph, process: OnnxProcess, name: str = "", read: Reading | None = None
) -> Reading:
    """Compare a file with the graph that it was written from. Raises LawError as ``check_reading`` does.

    ``read``: how the original compared, whose sizes the file is likely to take as well.
    """
    label = f"'{name or path.name}'"
    with contextlib.closing(OnnxOriginal(path, graph, process, label)) as original:
        return Comparison(original, graph, label, WRITTEN).on([], 0, read.taken if read is not None else ())


def checked_jobs(
    graph: Graph,
    path: str | Path,
    trust: bool = False,
    process: OnnxProcess | None = None,
    read: Reading | None = None,
) -> tuple[list[Job], list[Reading]]:
    """What ``files.write_all`` has to write for the graph, compared before it takes its place.

    The list gets the outcome when that is done; ``read``: see ``check_written``. Raises LawError then, and InputError
    and Unsupported now where the graph cannot be written.
    """
    from secateur.ir.exporters.onnx.write import jobs

    found: list[Reading] = []
    *others, (target, write) = jobs(graph, path)

    def write_and_check(temporary: Path) -> None:
        write(temporary)
        if not trust:
            found.append(check_written(temporary, graph, process or OnnxProcess(), Path(path).name, read))

    return [*others, (target, write_and_check)], found


def _original(
    model: Any, graph: Graph, example: object, process: OnnxProcess, name: str
) -> tuple[Original, list[dict[str, Array]]]:
    kinds = {f"{t.__module__.partition('.')[0]}.{t.__name__}" for t in type(model).__mro__}
    if kinds & {"torch.Module", "torch.ExportedProgram"}:
        from secateur.ir.frontends.torch.original import TorchOriginal

        module = TorchOriginal(model, graph, example)
        return module, [module.example()]
    return OnnxOriginal(model, graph, process, f"'{name}'"), []
