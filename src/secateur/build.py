"""From a graph to a tuned library: the front door of code generation. TVM loads when something is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Graph, InputError, LawError, Unsupported
from secateur.passes.law import random_inputs, relative_error

if TYPE_CHECKING:
    from secateur.codegen import Library

Progress = Callable[[int, int, str], None]
TOLERANCE = 1e-3  # of the largest output: a wrong kernel is far off, sums in another order are not
FINE = 1e-4  # a library that is further off is built again without Winograd's algorithm, in case that is why


def build(
    graph: Graph,
    target: str = "native",
    tune: str | float | None = None,
    threads: int = 1,
    records: str | Path | None = None,
    progress: Progress | None = None,
) -> Library:
    """Machine code for this graph at the sizes it was captured with.

    ``tune``: how long kernels may be measured, "60s", "2m" or seconds; None takes what ``records`` (a file) and
    secateur's own choices say. Where this machine can run it, it is run once beside the graph; what Winograd makes
    too coarse is built again without. Raises InputError, LawError where the two disagree, and Unsupported where
    TVM is missing or an operator has no code.
    """
    _need_tvm()
    from secateur import codegen

    def made(winograd: bool) -> tuple[Library, float]:
        duration = None if tune is None else seconds(tune)
        library = codegen.build(graph, target, duration, threads, records, progress, winograd)
        lacking = codegen.missing_features(library.metadata.target)
        return library, 0.0 if lacking else _error(graph, library)

    library, error = made(True)
    if not error <= FINE and library.metadata.winograd:
        direct, least = made(False)
        if not error < 2 * least:
            library, error = direct, least
    if not error <= TOLERANCE:
        raise LawError(
            f"the library of '{graph.name}' differs from the network by {error:.1e} of its largest output, more than "
            f"{TOLERANCE:g}: a fault in code generation, so nothing is handed out; run the ONNX file in ONNX Runtime"
        )
    return library


def _error(graph: Graph, library: Library) -> float:
    """Run a library once beside the graph: the largest difference over the largest output."""
    from .models import evaluate

    feed = random_inputs(graph, 0)
    found = library(**feed)
    outputs = found if isinstance(found, tuple) else (found,)
    return max(relative_error(want, have) for want, have in zip(evaluate(graph, feed), outputs, strict=True))


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
        raise InputError(f"tuning time '{text}' is no duration; write 60s, 2m or a number of seconds")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _need_tvm() -> None:
    if find_spec("tvm") is None:
        raise Unsupported(
            "building a library needs TVM, which is not installed: pip install 'secateur[tvm]'; "
            "without it, save ONNX and run it in ONNX Runtime"
        )
