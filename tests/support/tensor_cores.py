"""What tests of tensor cores share: OpenCL that has them, and what networks compute whose layers round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.codegen.kernels.gpu.mma.packing import tf32
from secateur.codegen.targets import GPUS
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate

EMULATED = replace(GPUS["opencl"], tensor_cores=True)
ABLE = [name for name, target in GPUS.items() if target.tensor_cores]


def half(x: np.ndarray) -> np.ndarray:
    """Rounded to FP16."""
    return x.astype(np.float16).astype(np.float32)


ROUNDED = {"tf32": tf32, "f16": half}


def rounded(graph: Graph, mode: str, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a network computes that rounds what its dense layers multiply: here the first of each output."""
    weights = {n: ROUNDED[mode](w) if w.ndim == 4 and w.shape[1] > 1 else w for n, w in graph.weights.items()}
    return evaluate(replace(graph, weights=weights), {"x": ROUNDED[mode](x)})
