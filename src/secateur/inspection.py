"""``inspect``: what is known of a model before anything is pruned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secateur.checks.comparison import RandomError, unread
from secateur.ir import Graph
from secateur.ir.frontends.onnx.process import OnnxProcess
from secateur.ir.progress import quiet
from secateur.passes import Pipeline
from secateur.passes.coupling.couple import Couple
from secateur.passes.rewrite.canonicalize import Canonicalize

from .capture import capture, check_protect, fresh, protected
from .checks.reading import check_reading
from .replay import with_baseline
from .report.collect import Collector, make_report
from .report.report import Report

if TYPE_CHECKING:
    from .capture import Model, Protect, Shapes


def inspect(
    model: Model, *, example_inputs: object = None, protect: Protect = (), trust: bool = False,
    shapes: Shapes | None = None,
) -> Report:  # fmt: skip
    """Groups, ties, what is frozen and why, and the cost of each layer; nothing is changed.

    Arguments as for ``compile``; in the report every ``after`` is None. Raises InputError, Unsupported, and LawError
    where the model computes something else than what was read from it, unless ``trust`` is given.
    """
    process = OnnxProcess()
    if isinstance(model, str | Path) and not trust:
        process.start()  # while the file is read
    dense = with_baseline(fresh(capture(model, example_inputs, process, shapes)))
    names = protected(model, dense, protect)
    check_protect(dense, names)
    reading = None
    if not trust:
        try:
            reading = check_reading(model, dense, example_inputs, process=process)
        except RandomError as error:  # nothing is compared here but this
            reading = unread(str(error))
    process.stop()
    collector = Collector(quiet)
    coupled = Pipeline((Canonicalize(), Couple(protect=names)), (collector.see,), collector.start)(dense)
    collector.coupled = coupled
    return make_report(title_of(model, dense), dense, None, collector, "none", 0, None, (), reading=reading)


def title_of(model: Model, graph: Graph) -> str:
    """The file's name, or what the graph is called."""
    return Path(model).name if isinstance(model, str | Path) else graph.name
