"""Libraries in bfloat16 from the front door: what they say of themselves, and layers that stay in float32."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from secateur.checks import narrow
from secateur.checks.narrow import rows
from secateur.codegen.targets import Target, native
from secateur.deploy import build
from secateur.ir import Graph
from secateur.ir.exporters.torch.module import evaluate
from support.network import Net

pytest.importorskip("tvm", reason="code generation needs apache-tvm")


def chain() -> Graph:
    net = Net(2, 16, 6, 6)
    x = net.relu(net.conv("x", 24, 3))
    x = net.relu(net.conv(x, 16, 1))
    return net.graph(net.linear(net.node("flatten", x, start=1, end=3), 10))


@pytest.fixture
def able() -> Target:
    return replace(native(), bf16="portable", bf16_rate=2.0)


def test_a_library_says_how_far_its_outputs_are_from_float32(able: Target) -> None:
    graph = chain()
    data = np.random.default_rng(0).standard_normal((5, 16, 6, 6)).astype(np.float32)
    library = build(graph, able, precision="bf16", calibration=[data])  # type: ignore[arg-type]
    assert library.metadata.precision == "bf16"
    assert library.metadata.dtype == "f32"
    (noise,) = (note for note in library.metadata.notes if "random inputs" in note)
    (known,) = (note for note in library.metadata.notes if "calibration" in note)
    assert known.startswith("on 5 examples of the calibration data ")
    assert "of the answers are the same" in known
    assert 1e-5 < float(noise.split(" by ")[1].split()[0]) < narrow.LIMIT
    have, want = rows(library, [data])[0], np.concatenate([evaluate(graph, {"x": data[i : i + 2]})[0] for i in (0, 2)])
    assert have.shape == (5, 10)
    assert 1e-5 < np.abs(have[:4] - want).max() / np.abs(want).max() < narrow.LIMIT


@pytest.mark.parametrize(("limit", "kept"), [(2e-2, 1), (1e-6, 3)])
def test_layers_that_are_too_coarse_stay_in_float32(able: Target, limit: float, kept: int) -> None:
    """One whose inputs hardly differ loses what tells them apart; where that is not enough, all do."""
    net = Net(1, 16, 6, 6)
    x = net.conv(net.node("add", "x", net.weight("shift", 1, 16, 1, 1, scale=0.0, shift=300.0)), 16, 1)
    x = net.relu(net.node("sub", x, net.node("reduce_mean", x, axes=(2, 3), keepdims=True)))
    graph = net.graph(net.conv(net.relu(net.conv(x, 16, 1)), 16, 1))
    labels = [node.label for node in graph.nodes if node.op == "conv"]
    with patch.object(narrow, "LIMIT", limit):
        metadata = build(graph, able, precision="bf16").metadata  # type: ignore[arg-type]
    assert metadata.precision == ("bf16" if kept == 1 else "f32")
    assert f"in f32, as bf16 is too coarse for them: {', '.join(labels[:kept])}" in metadata.notes
    assert any("differ from those in f32" in note for note in metadata.notes) == (kept == 1)
