"""Zeros through the front door: alone, after a cut, in the files, and in a recipe that is replayed and verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import secateur
from secateur.codegen.advice import gains
from secateur.codegen.kernels.block_sparse.spec import BlockSparseSpec, PanelSpec
from secateur.codegen.plan.family import Workload
from secateur.codegen.records import record_of
from secateur.codegen.tune.tuner import Outcome, Tuner, versions
from secateur.ir import Graph, InputError
from secateur.passes.sparsify import Sparsify
from secateur.passes.sparsify.packed import read
from support.network import Net


def network() -> Graph:
    net = Net(1, 16, 8, 8)
    y = net.relu(net.bn(net.conv("x", 32)))
    y = net.relu(net.bn(net.conv(y, 32)))
    return net.graph(net.head(y))


def zeros(graph: Graph, op: str = "conv") -> list[float]:
    names = [n.inputs[1] or "" for n in graph.nodes if n.op == op]
    return [float((graph.weights[name] == 0).mean()) for name in names]


@pytest.fixture
def batches() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 16, 8, 8)).astype(np.float32) for _ in range(8)]


def test_zeros_alone() -> None:
    """Shapes stay; what is written holds the zeros; the report says how many there are."""
    done = secateur.compile(network(), "none", sparsity="75%", block="8x1", seed=1)
    assert min(zeros(done.graph)) >= 0.75
    assert {n: w.shape for n, w in done.graph.weights.items()} == {n: w.shape for n, w in network().weights.items()}
    assert done.report.policy == "sparsify{sparsity=75%,block=8x1}"
    assert any(remark.startswith("sparsity: ") for remark in done.report.remarks)
    assert done.recipe.rewrites == ("sparsify{sparsity=75%,block=8x1}",)


@pytest.mark.parametrize("block", [None, "auto", "kernels"])
def test_blocks_follow_the_target(block: str | None) -> None:
    done = secateur.compile(network(), "none", sparsity=0.5, block=block, target="x86-avx512", verify=False)
    assert "lanes=16" in done.report.policy
    w = done.graph.weights[next(n.inputs[1] or "" for n in done.graph.nodes if n.op == "conv")]
    gone = (w.reshape(2, 16, -1) == 0).all(1)
    assert gone.mean() == 0.5
    assert np.ptp(gone.sum(1)) == 0


def test_fewer_channels_and_zeros(batches: list[np.ndarray], tmp_path: Path) -> None:
    """Both in one go, by second moments; the files hold them, and the recipe is verified against the original."""
    graph = network()
    done = secateur.compile(graph, "l1", macs=0.6, sparsity=0.7, block="irregular", calibration=batches)
    assert done.report.after is not None
    assert done.report.after.macs <= 0.6 * done.report.before.macs
    assert min(zeros(done.graph)) >= 0.7
    assert "by=moments" in done.report.policy
    done.save(tmp_path / "slim.onnx")
    model = onnx.load(tmp_path / "slim.onnx")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert sum(float((w == 0).mean()) >= 0.7 for w in stored.values() if w.ndim == 4) == 2
    said = {p.key.removeprefix("secateur.zeros."): p.value for p in model.metadata_props}
    assert len(said) == 3
    for name, text in said.items():
        matrix = stored[name].reshape(len(stored[name]), -1)
        np.testing.assert_array_equal(read(text, matrix, name).unpacked(), matrix)
    found = secateur.verify(graph, done.graph, done.recipe)
    assert found.passed
    assert len(found.changed) >= 3
    spoiled = {n: w + (w != 0) * 1e-3 if w.ndim == 4 else w for n, w in done.graph.weights.items()}
    spoiled = {n: w.astype(np.float32) for n, w in spoiled.items()}
    assert not secateur.verify(graph, done.graph.rewrite(weights=spoiled), done.recipe).passed


def test_a_file_is_read_if_its_weights_are_what_it_says_of_zeros(tmp_path: Path) -> None:
    """Of convolutions, linear and recurrent layers; and refused in a sentence where one of them is damaged."""
    net = Net(5, 2, 16)
    names = [net.weight(f"w{width}", 1, 32, width) for width in (16, 8)]
    y = net.node("lstm", "x", *names, None, None, None, hidden=8, direction="forward")
    for graph in (network(), net.graph(y)):
        done = secateur.compile(graph, "none", sparsity=0.5, block="8x1", verify=False)
        done.save(tmp_path / "slim.onnx")
        read_again = secateur.load(tmp_path / "slim.onnx")
        assert min(float((w == 0).mean()) for w in read_again.weights.values() if w.ndim > 2) >= 0.5
        model = onnx.load(tmp_path / "slim.onnx")
        said = next(p for p in model.metadata_props if p.key.startswith("secateur.zeros."))
        good, said.value = said.value, said.value[:-9] + said.value[-5:]
        with pytest.raises(InputError, match=f"weight '{said.key.removeprefix('secateur.zeros.')}': .* damaged"):
            secateur.load(model)
        said.value = good
        stored = next(t for t in model.graph.initializer if said.key.endswith(t.name))
        stored.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored) + np.float32(1), stored.name))
        with pytest.raises(InputError, match="the weights were changed"):
            secateur.load(model)
        said.key = "secateur.zeros.renamed"
        secateur.load(model)


def test_a_recipe_makes_zeros_by_magnitude_again(tmp_path: Path) -> None:
    graph = network()
    done = secateur.compile(graph, "l1", macs=0.6, sparsity=0.5, block="bmwm")
    done.recipe.save(tmp_path / "r.json")
    again = secateur.apply(tmp_path / "r.json", graph)
    for name, w in done.graph.weights.items():
        np.testing.assert_array_equal(again.graph.weights[name], w)


def test_protected_layers_stay_dense() -> None:
    graph = network()
    first = next(n.name for n in graph.nodes if n.op == "conv")
    done = secateur.compile(graph, "none", sparsity=0.5, block="8x1", protect=[first])
    assert zeros(done.graph)[0] == 0
    assert zeros(done.graph)[1] >= 0.5


def wide() -> Graph:
    """A convolution that gains by zeros and one of four outputs, whose only block is half empty."""
    net = Net(1, 64, 14, 14)
    return net.graph(net.relu(net.conv(net.relu(net.conv("x", 128, 1)), 4, 1)))


def test_auto_leaves_layers_dense_that_would_gain_nothing() -> None:
    graph = wide()
    done = secateur.compile(graph, "none", sparsity=0.8, target="x86-avx2", verify=False)
    first = zeros(done.graph)
    assert first[0] >= 0.8
    few = secateur.compile(graph, "none", sparsity=0.03, target="x86-avx2", verify=False)
    assert max(zeros(few.graph)) == 0
    assert any("nothing was set to zero" in remark for remark in few.report.remarks)
    asked = secateur.compile(graph, "none", sparsity=0.1, block="8x1", target="x86-avx2", verify=False)
    assert min(zeros(asked.graph)) >= 0.1


def test_auto_takes_whole_kernels_where_single_taps_gain_nothing() -> None:
    """A 3x3 layer that Winograd's algorithm computes, at half; at 90 % single taps gain. 1x1 layers have no others."""
    net = Net(1, 16, 28, 28)
    y = net.relu(net.conv(net.relu(net.conv("x", 128, 1)), 128))
    graph = net.graph(net.conv(net.relu(y), 256, 1))
    name = next(n.name for n in graph.nodes if n.op == "conv" and graph.weights[n.inputs[1] or ""].shape[2] == 3)
    done = secateur.compile(graph, "none", sparsity=0.5, target="x86-avx2", verify=False)
    assert f"whole=[{name}]" in done.report.policy
    assert any("in 1 of 3 layers whole kernels go" in remark for remark in done.report.remarks)
    w = next(w for w in done.graph.weights.values() if w.shape == (128, 128, 3, 3))
    kept = (w != 0).reshape(16, 8, 128, 9)
    assert np.array_equal(kept.any((1, 3)), kept.all((1, 3)))
    assert set(kept.any((1, 3)).sum(1)) == {64}
    more = secateur.compile(graph, "none", sparsity=0.9, target="x86-avx2", verify=False)
    assert "whole" not in more.report.policy
    few = secateur.compile(graph, "none", sparsity=0.03, target="x86-avx2", verify=False)
    assert max(zeros(few.graph)) == 0  # whole kernels would gain nothing either
    again = secateur.apply(done.recipe, graph)
    assert all(np.array_equal(again.graph.weights[n], w) for n, w in done.graph.weights.items())


def test_gains_are_of_layers_with_zeros() -> None:
    graph = wide()
    assert gains(graph, "x86-avx2") == {}
    found = gains(Sparsify(0.8, lanes=8)(graph), "x86-avx2")
    assert max(gain.times for gain in found.values()) > 2
    assert not any(gain.measured for gain in found.values())


def test_seconds_decide_where_kernels_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of all kernels of a layer, by which it is slower with zeros, against the estimate; and a remark."""
    graph, path = wide(), tmp_path / "records.jsonl"

    def tune(tuner: Tuner, specs: Sequence[Workload], seconds: float, progress: object) -> Outcome:
        for spec in specs:
            slow = isinstance(spec, BlockSparseSpec | PanelSpec)
            revision = tuner.backend.templates[type(spec)].revision
            tuner.records.add(record_of(tuner.target.name, spec, None, 2.0 if slow else 1.0, versions=versions(),
                                        revision=revision))  # fmt: skip
        return Outcome()

    monkeypatch.setattr(Tuner, "tune", tune)
    done = secateur.compile(graph, "none", sparsity=0.8, records=path, tune="1s", verify=False)
    assert max(zeros(done.graph)) == 0
    assert any("0.50 times as fast, measured" in remark for remark in done.report.remarks)
    again = secateur.compile(graph, "none", sparsity=0.8, records=path, verify=False)
    assert max(zeros(again.graph)) == 0
    with pytest.raises(InputError, match="give sparsity="):
        secateur.compile(graph, "none", records=path)
    with pytest.raises(InputError, match="there are no records"):
        secateur.compile(graph, "none", sparsity=0.8, records=tmp_path / "none.jsonl", verify=False)
