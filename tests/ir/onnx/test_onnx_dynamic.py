"""Dynamic axes: what follows the input's size is right at every size, whatever sizes a file was read at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto

import secateur
from secateur.ir import Sym
from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.exporters.torch.module import to_module
from secateur.ir.frontends.onnx.load import OnnxOrigin, load
from secateur.ir.graph import Array, Graph
from secateur.ir.text import parse_graph
from secateur.passes.masked import masked
from support.dynamic_models import NETS

SIZES = ((1, 224, 224), (2, 64, 96), (1, 37, 61), (3, 9, 11), (1, 331, 12))


def runner(model: ModelProto) -> Callable[[Array], list[Array]]:
    """With optimisations that believe what the file says of shapes, short of those that change the layout.

    Kernels for blocks of channels, which machine and width decide on, take automatic padding that others refuse.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: list(session.run(None, {"x": x}))


def shape_of(model: ModelProto) -> Sequence[Any]:
    """The dimensions of the only input."""
    dims: Sequence[Any] = model.graph.input[0].type.tensor_type.shape.dim
    return dims


def inputs(original: ModelProto) -> list[Array]:
    """Inputs at several sizes."""
    rank = len(shape_of(original))
    shapes = [(n, 3, h, w) if rank == 4 else (n, 8, h) for n, h, w in SIZES]
    rng = np.random.default_rng(5)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def agree(written: ModelProto, original: ModelProto) -> None:
    """Both give the same at every size that the original takes."""
    taken, theirs, mine = 0, runner(original), runner(written)
    for x in inputs(original):
        try:
            want = theirs(x)
        except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException:
            continue
        taken += 1
        for a, b in zip(want, mine(x), strict=True):
            assert a.shape == b.shape, x.shape
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1e-6, float(np.abs(a).max(initial=0))))
    assert taken >= 3


def anew(graph: Graph) -> Graph:
    """The same graph, every node of which has to be written anew."""
    origin = graph.note(OnnxOrigin)
    assert origin is not None
    return graph.with_note(OnnxOrigin(origin.header, origin.opset, names=origin.names, probes=origin.probes))


@pytest.mark.parametrize("name", NETS)
def test_right_at_every_size(name: str) -> None:
    original = NETS[name]()
    graph = load(original)
    assert all(isinstance(d, Sym) for v in graph.inputs for i, d in enumerate(v.shape) if i != 1), "an axis was fixed"
    assert str(parse_graph(str(graph))) == str(graph)
    agree(to_onnx(graph), original)
    if name != "automatic padding of pools":  # has no form of its own next to the file's
        agree(to_onnx(anew(graph)), original)


FROZEN = "branch by size"  # a branch reads all channels, of the only layer that could be narrower


@pytest.mark.parametrize("name", [name for name, make in NETS.items() if name != FROZEN and len(shape_of(make())) == 4])
def test_pruned_networks_are_right_at_every_size(name: str) -> None:
    original = NETS[name]()
    graph = load(original)
    slim = secateur.compile(graph, "l1", macs=0.8)
    agree(to_onnx(slim.graph), to_onnx(masked(graph, slim.recipe)))


@pytest.mark.parametrize(
    "name", ["resize to the skip", "resize to twice and one", "shuffle", "tokens", "windows", "tile", "halves",
             "crop to a third", "expand to a shape", "rows of a table"],
)  # fmt: skip
def test_torch_modules_take_the_same_sizes(name: str) -> None:
    original = NETS[name]()
    module = to_module(load(original))
    theirs = runner(original)
    for x in inputs(original):
        (want,) = theirs(x)
        have = module(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max()))


def test_torch_modules_refuse_sizes_that_they_cannot_follow() -> None:
    module = to_module(load(NETS["automatic padding"]()))
    module(torch.zeros(1, 3, 224, 224))
    with pytest.raises(ValueError, match=r"conv.*is written for one size"):
        module(torch.zeros(1, 3, 225, 224))
