"""How far a detector's answers are from those of the same network written or built.

Lists of detections are compared whichever of two equally probable ones comes first, and where a network computes on
with what it chose among nearly equal scores, the module is given the other program's choices (chosen.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import secateur
from bench.reach import chosen
from secateur.codegen.library import Library
from secateur.ir import Graph

NEAR = 1e-3  # of the largest value: drawn weights are not gentle


def exported(module: nn.Module, path: Path, x: torch.Tensor) -> tuple[float, int]:
    """How far ONNX Runtime's answers are from the module's, and how many choices the module had to take from it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return judged(module, x, found, lambda: chosen.run_file(path, x.numpy()))


def built(module: nn.Module, library: Library, graph: Graph, x: torch.Tensor) -> tuple[float, int]:
    """The same of a library; where it chooses otherwise, one that puts its choices out as well is asked for them."""

    def choices() -> tuple[list[Any], list[Any]]:
        nodes = [n for n in graph.nodes if n.attrs.get("target") in ("aten.topk.default", "aten.sort.default")]
        asked = graph.rewrite(outputs=[*graph.outputs, *(v.name for n in nodes for v in n.outputs)])
        found, count = list(secateur.build(asked)(x.numpy())), len(graph.outputs)
        return found[:count], list(zip(found[count::2], found[count + 1 :: 2], strict=True))

    return judged(module, x, library(x.numpy()), choices)


def judged(
    module: nn.Module, x: torch.Tensor, found: Any, again: Callable[[], tuple[list[Any], list[Any]]]
) -> tuple[float, int]:
    """How far these answers are from the module's; else those of another run, with what was chosen in it."""
    try:
        return compared(eager(module, x), found), 0
    except AssertionError:
        outputs, choices = again()
        if not choices:
            raise
        given = chosen.outputs(module, x, choices, NEAR)
        return compared([t.numpy() for t in tensors(given)], outputs), len(choices)


def eager(module: nn.Module, x: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """The module's outputs, each once."""
    with torch.no_grad():
        return [t.numpy() for t in tensors(module(x))]


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors of an answer."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [t for part in parts for t in tensors(part)]


def compared(want: list[np.ndarray[Any, Any]], have: Any) -> float:
    """The largest difference, of the largest value of each output."""
    found = list(have) if isinstance(have, (list, tuple)) else [have]
    assert len(found) == len(want), f"{len(found)} outputs instead of {len(want)}"
    worst = 0.0
    for a, b in zip(want, found, strict=True):
        assert a.shape == np.shape(b), f"{np.shape(b)} instead of {a.shape}"
        apart = float(np.abs(a - np.asarray(b)).max() / max(np.abs(a).max(), 1e-12))
        worst = max(worst, min(apart, reordered(a, np.asarray(b))) if apart >= NEAR else apart)
    assert worst < NEAR, f"differs by {worst:.1e} of the largest value"
    return worst


def reordered(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """How far lists of detections [1, n, 4 and more] are apart where rows may have changed places; else infinite.

    The most probable come first, and two that are as probable as each other in another order from runtime to runtime.
    """
    if a.ndim != 3 or a.shape[0] != 1 or not 4 < a.shape[2] < a.shape[1]:
        return float("inf")
    from scipy.optimize import linear_sum_assignment

    scale = np.maximum(np.abs(a[0]).max(0), 1e-12)  # of boxes, of scores, and of classes each by itself
    each = np.abs((a[0][:, None] - b[0][None]) / scale).max(2)
    return float(each[linear_sum_assignment(each)].max())
