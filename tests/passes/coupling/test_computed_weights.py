"""Weights that are computed from parameters, or stored in eight bits, lose rows and columns as any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import secateur
from bench.reach import onnx_reference

CIN, COUT = 32, 48  # channels in and out of the layer in the middle


class Layer(nn.Module):
    """A convolution whose weight ``make`` computes from the parameters ``parts``."""

    def __init__(self, make: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.make = make
        self.parts = nn.ParameterList(nn.Parameter(torch.randn(shape) / 17) for shape in shapes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.make(*self.parts), padding=1)


def masked() -> nn.Module:
    layer = nn.Conv2d(CIN, COUT, 3, padding=1)
    prune.random_unstructured(layer, "weight", 0.5)
    return layer


KINDS: dict[str, Callable[[], nn.Module]] = {
    "equalised learning rate": lambda: Layer(lambda w: w * 0.06, (COUT, CIN, 3, 3)),
    "low rank adaptation": lambda: Layer(
        lambda w, a, b: w + (b @ a).view(COUT, CIN, 3, 3), (COUT, CIN, 3, 3), (4, CIN * 9), (COUT, 4)
    ),
    "two branches": lambda: Layer(lambda a, b: a + F.pad(b, (1, 1, 1, 1)), (COUT, CIN, 3, 3), (COUT, CIN, 1, 1)),
    "a slice": lambda: Layer(lambda w: w[:-8, :-4], (COUT + 8, CIN + 4, 3, 3)),
    "another order": lambda: Layer(lambda w: w.permute(3, 2, 0, 1), (3, 3, CIN, COUT)),
    "a matrix": lambda: Layer(lambda w: w.view(COUT, CIN, 3, 3), (COUT, CIN * 9)),
    "a mask": masked,
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(CIN, COUT, 3, padding=1)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(CIN, COUT, 3, padding=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_around_and_with_computed_weights_are_cut(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, CIN, 3, padding=1), nn.ReLU(), KINDS[kind](), nn.ReLU(), nn.Conv2d(COUT, 32, 3),
                           nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)).eval()  # fmt: skip
    x = torch.randn(2, 3, 10, 10)
    slim = secateur.compile(module, macs="50%", example_inputs=(x,))
    assert {g.frozen for g in slim.report.groups} == {None, "graph output"}
    conv = [n.out.shape[1] for n in slim.graph.nodes if n.op == "conv"]
    assert conv[0] < CIN and conv[1] < COUT
    slim.save(tmp_path / "slim.onnx")
    (found,) = onnx_reference.answer(str(tmp_path / "slim.onnx"), {slim.graph.inputs[0].name: x.numpy()}).values()
    trained = slim.module().train()
    trained(x).sum().backward()
    assert all(p.grad is not None for p in trained.parameters() if p.requires_grad)
    with torch.no_grad():
        assert np.abs(found - trained.eval()(x).numpy()).max() < 1e-4


class Quantised:
    """Builds a network of convolutions whose weights are int8, with pairs of quantisers between them."""

    def __init__(self) -> None:
        self.rng, self.nodes, self.weights = np.random.default_rng(0), list[NodeProto](), list[TensorProto]()

    def held(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, out: str, *inputs: str, **attrs: int | list[int]) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=f"node_{out}", **attrs))
        return out

    def pair(self, x: str) -> str:
        """One scale and one zero point for all of a value."""
        scale, zero = self.held(f"{x}.scale", np.float32(0.02)), self.held(f"{x}.zero", np.uint8(128))
        return self.node(
            "DequantizeLinear", f"{x}.dq", self.node("QuantizeLinear", f"{x}.q", x, scale, zero), scale, zero
        )

    def weight(self, name: str, each: bool, *shape: int) -> str:
        """An int8 weight with a scale for every row, or one for all."""
        size = (shape[0],) if each else ()
        scale = (0.7 / 127 / np.sqrt(np.prod(shape[1:])) * self.rng.uniform(0.5, 1.5, size)).astype(np.float32)
        data = self.held(name, self.rng.integers(-127, 127, shape).astype(np.int8))
        more = (self.held(f"{name}.scale", np.asarray(scale)), self.held(f"{name}.zero", np.zeros(size, np.int8)))
        return self.node("DequantizeLinear", f"{name}.dq", data, *more, axis=0)

    def conv(self, x: str, name: str, i: int, o: int, each: bool) -> str:
        out = self.node("Conv", f"{name}.conv", x, self.weight(name, each, o, i, 3, 3), pads=[1] * 4)
        return self.pair(self.node("Relu", f"{name}.relu", out))


def test_quantised_weights_stay_quantised(tmp_path: Path) -> None:
    net = Quantised()
    a = net.conv(net.pair("x"), "first", 3, 32, each=True)
    b = net.conv(a, "second", 32, 32, each=False)
    c = net.conv(net.node("Add", "sum", a, b), "third", 32, 48, each=True)
    flat = net.node("Flatten", "flat", net.node("GlobalAveragePool", "pooled", c))
    net.node("Gemm", "y", flat, net.weight("fc", True, 10, 48), transB=1)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ("N", 3, 12, 12)), ("y", ("N", 10)))
    ]
    graph = helper.make_graph(net.nodes, "net", ends[:1], ends[1:], net.weights)
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(given, tmp_path / "given.onnx")
    slim = secateur.compile(tmp_path / "given.onnx", macs="40%")
    slim.save(tmp_path / "slim.onnx")
    written = onnx.load(tmp_path / "slim.onnx")
    kinds = {t.name: (t.data_type, list(t.dims)) for t in written.graph.initializer}
    width = kinds["first"][1][0]
    assert width < 32
    assert kinds["first"] == (TensorProto.INT8, [width, 3, 3, 3])
    assert kinds["second"] == (TensorProto.INT8, [width, width, 3, 3])
    assert kinds["first.scale"][1] == kinds["first.zero"][1] == [width]
    assert kinds["second.scale"][1] == []
    x = {"x": np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)}
    masked_file = onnx_reference.masked(given, json.loads(slim.recipe.to_json()))
    want, have = (onnx_reference.answer(m, x) for m in (masked_file, str(tmp_path / "slim.onnx")))
    error, what = onnx_reference.difference(want, have)
    assert error < 3e-2, what  # steps of eight bits, which the runtime's fused kernels round elsewhere


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2, 1])
        self.register_buffer("kernel", (row[:, None] * row / 16)[None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.repeat(channels, 1, 1, 1), stride=2, padding=1, groups=channels)


@pytest.mark.parametrize("middle", [Blur, lambda: nn.LocalResponseNorm(5)])
def test_filters_for_all_channels_and_norms_over_neighbours_freeze_nothing(middle: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), middle(), nn.Conv2d(32, 64, 3, padding=1),
                           nn.ReLU(), middle(), nn.Conv2d(64, 4, 1)).eval()  # fmt: skip
    slim = secateur.compile(module, macs="50%", example_inputs=(torch.randn(1, 3, 16, 16),))
    assert {g.frozen for g in slim.report.groups} <= {None, "graph output"}
