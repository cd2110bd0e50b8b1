"""Writing a graph as ONNX, and never a file that was not run before."""

from __future__ import annotations

from pathlib import Path

from secateur.ir import Graph, InputError
from secateur.ir.files import write_all

from .checks.reading import checked_jobs


def save_onnx(graph: Graph, path: str | Path, trust: bool = False) -> None:
    """Write a graph as ONNX, whole or not at all, and run it before unless ``trust`` is given.

    Raises InputError and Unsupported, and LawError where the file computes something else.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise InputError(f"cannot write '{path}': results are written as ONNX; give the file the ending .onnx")
    write_all(checked_jobs(graph, path, trust)[0])
