"""Building and checking single kernels in tests: small graphs, and a library next to the torch executor."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from secateur import codegen
from secateur.codegen.runtime import use_threads
from secateur.codegen.targets import TARGETS, Target
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from secateur.ir.graph import numpy_dtype
from support.guarded import guarded
from support.network import Net

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu": {}, "clip": {"min": 0.0, "max": 6.0}, "sigmoid": {}, "tanh": {}, "silu": {}, "mish": {}, "erf": {},
    "exp": {}, "neg": {}, "abs": {}, "floor": {}, "ceil": {}, "softsign": {}, "hard_swish": {},
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.5}, "gelu": {"approximate": "none"}, "elu": {"alpha": 0.7},
    "celu": {"alpha": 1.3}, "selu": {}, "leaky_relu": {"slope": 0.1},
}  # fmt: skip

# Drawn shapes of a kernel, each of which is compiled: five a test in the suite, forty in bench/reach/kernel_shapes.
DRAWN = settings(max_examples=settings().max_examples // 20, suppress_health_check=[HealthCheck.too_slow])

# After sums that are rounded otherwise these may differ by 1: they are tested on numbers half-way between whole ones.
STEPS = ("ceil", "floor")
CONTINUOUS = sorted(set(ACTIVATIONS) - set(STEPS))


def runnable() -> list[Target]:
    """Targets of all widths that this machine can run."""
    return [t for t in TARGETS.values() if not codegen.targets.missing_features(t)]


def widths() -> list[Target]:
    """The first target of each width of vector."""
    return list({t.lanes: t for t in reversed(TARGETS.values())}.values())


def check(graph: Graph, target: Target | str = "native", tolerance: float = 1e-4, threads: int = 0,
          precision: str = "f32") -> codegen.Library:  # fmt: skip
    """Build, run and compare, in memory that may not be left.

    Without a number of threads the graph's text makes it one, two or three: all that is tested is shared, too. The
    arena holds NaN first, so that a lane read before it is written shows; inputs and outputs are aligned to their
    numbers only, as a caller's may be.
    """
    threads = threads or 1 + zlib.crc32(str(graph).encode()) % 3
    lib = codegen.build(graph, target, threads=threads, precision=codegen.Precision(precision))
    rng = np.random.default_rng(1)
    inputs = {v.name: rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    arena, *constants = map(np.from_dlpack, lib._fixed)
    fixed = [guarded(a, 64) for a in (np.full_like(arena, np.nan), *constants)]
    ports = [guarded(inputs[p.name]) for p in lib.metadata.inputs]
    found = [guarded(np.empty(p.shape, numpy_dtype(p.dtype))) for p in lib.metadata.outputs]
    use_threads(threads)
    lib._main(*map(lib._view, (*fixed, *ports, *found)))
    for got, want in zip(found, evaluate(graph, inputs), strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        assert np.abs(got - want).max() <= tolerance * max(np.abs(want).max(), 1e-6)
    return lib


def conv(net: Net, x: str, out: int, kernel: tuple[int, int], groups: int = 1, stride: tuple[int, int] = (1, 1),
         dilation: tuple[int, int] = (1, 1), pad: tuple[int, int, int, int] = (0, 0, 0, 0)) -> str:  # fmt: skip
    """A convolution with a bias."""
    k = len(net.nodes)
    w = net.weight(f"w{k}", out, net.shape(x)[1] // groups, *kernel, scale=0.3)
    b = net.weight(f"b{k}", out)
    made: str = net.node("conv", x, w, b, stride=stride, dilation=dilation, pad=pad, groups=groups)
    return made


def halves(net: Net) -> None:
    """Round all weights, and add a half to the vectors: layers on whole numbers give halves, exactly."""
    for name, w in net.weights.items():
        net.weights[name] = np.round(4 * w) + (0.5 if w.ndim == 1 else 0.0)
        net.weights[name] = net.weights[name].astype(np.float32)


def outputs(net: Net, *names: str) -> Graph:
    """The graph with these results."""
    return Graph("net", tuple(net.inputs), tuple(net.nodes), names, net.weights)
