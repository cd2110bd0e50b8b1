"""From a graph to a tuned library: the front door of code generation. TVM loads when something is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.ir import Graph, InputError, Unsupported

if TYPE_CHECKING:
    from secateur.codegen import Library

Progress = Callable[[int, int, str], None]


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
    secateur's own choices say. Raises InputError, and Unsupported where TVM is missing or an operator has no code.
    """
    _need_tvm()
    from secateur import codegen

    return codegen.build(graph, target, None if tune is None else seconds(tune), threads, records, progress)


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
