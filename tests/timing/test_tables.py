"""Latency tables: a CSV of layers as the latency model, and one that is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import secateur
from secateur import codegen
from secateur.codegen import Outcome, Tracker
from secateur.ir import BudgetError, Graph, InputError
from secateur.ir.exporters.torch.module import evaluate
from secateur.timing import measured_table as measuring
from secateur.timing import runtimes
from secateur.timing.measured_table import alone, measured_table
from secateur.timing.never_slower import latency_model
from secateur.timing.runtimes import Run
from secateur.timing.tables import Kind, Row, Shape, Table, read_table, shape_of
from support.network import Net

HEAD = "op,inputs,outputs,kernel,stride,groups,size,ms\n"
ROWS = "conv,3,64,3,1,1,8x8,1\nconv,64,64,3x3,1,1,8x8,4\nlinear,4096,5,1,1,1,1,0.5\nrest,,,,,,,2\n"
DENSE = Kind("conv", (1, 1), (1, 1), "dense", (4, 4))


def network() -> Graph:
    """Two convolutions and a linear layer."""
    net = Net(1, 3, 8, 8)
    x = net.relu(net.conv("x", 64))
    return net.graph(net.head(net.relu(net.conv(x, 64))))


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def test_a_table_is_the_latency_model(tmp_path: Path) -> None:
    graph = network()
    table = read_table(file(tmp_path, f"# a phone\n{HEAD}{ROWS}"))
    layers = [node for node in graph.nodes if node.op in ("conv", "linear")]
    assert table(graph)[0] == pytest.approx(2 + 1 + 4 + 0.5)
    assert list(table.layers(graph)) == [node.label for node in layers]
    assert table.source == "a phone"
    assert table.remarks(graph) == ()
    assert read_table(file(tmp_path, table.text())).rows == table.rows


def test_between_its_steps_a_table_is_interpolated_and_says_so() -> None:
    """A vector holds eight: 9 channels take what 16 do, and half the widths lie on a line through the products."""
    points = {(16, 16): 5.0, (32, 32): 17.0}
    table = Table(tuple(Row(Shape(DENSE, *widths), ms) for widths, ms in points.items()), lanes=8)
    assert table.at(Shape(DENSE, 16, 16)) == (5.0, False)
    assert table.at(Shape(DENSE, 9, 10)) == (5.0, True)
    assert table.at(Shape(DENSE, 32, 16)) == (pytest.approx(9.0), True)
    assert table.at(Shape(DENSE, 32, 64)) == (pytest.approx(33.0), True)
    assert table.at(Shape(DENSE, 8, 8)) == (pytest.approx(2.0), True)
    depthwise = Kind("conv", (3, 3), (1, 1), "depthwise", (4, 4))
    alone = Table((Row(Shape(depthwise, 16, 16, 16), 2.0),), lanes=8)
    assert alone.at(Shape(Kind("conv", (3, 3), (1, 1), "dense", (4, 4)), 1, 1, 1)) == (1.0, True)  # one channel is left
    assert alone.at(Shape(depthwise, 8, 8, 8)) == (pytest.approx(1.0), True)
    assert "1 are interpolated" in " ".join(Table(table.rows, lanes=8).remarks(one_by_one()))


def one_by_one() -> Graph:
    net = Net(1, 9, 4, 4)
    return net.graph(net.conv("x", 10, k=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with the columns op,inputs"),
        ("layer,ms\n", "does not begin with the columns"),
        (HEAD, "holds no layer"),
        (HEAD + "conv,3,16,3,1,1,8x8\n", "line 2: it has 7 columns, not 8"),
        (HEAD + "pool,3,16,3,1,1,8x8,1\n", "line 2: there is no layer 'pool'"),
        (HEAD + "conv,3,16,3,1,1,8x8,-1\n", "line 2: -1 is not a time"),
        (HEAD + "conv,3,16,3,1,1,8x8,soon\n", "line 2: could not convert"),
        (HEAD + "conv,3,none,3,1,1,8x8,1\n", "line 2: 'none' is not a number from 1 up"),
        (HEAD + "conv,3,16,3x3x3,1,1,8x8,1\n", "line 2: '3x3x3' has 3 axes, not 2"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(file(tmp_path, text))
    with pytest.raises(InputError, match="cannot read the latency table"):
        read_table(tmp_path / "none.csv")


def test_a_layer_that_the_table_has_not_is_named(tmp_path: Path) -> None:
    table = read_table(file(tmp_path, HEAD + "conv,3,16,3,1,1,8x8,1\n"))
    with pytest.raises(InputError, match=r"no row for '.*' \(dense linear 1, stride 1, to 1\): add rows"):
        table(network())


def test_a_budget_of_time_is_met_by_the_table(tmp_path: Path) -> None:
    """The widths that were rejected are in the report; a target that no width meets is refused with the least."""
    path = file(tmp_path, HEAD + ROWS)
    (whole,) = read_table(path)(network())
    done = secateur.compile(network(), "l1", latency_ms=0.8 * whole, latency_table=path, round_to=1, verify=False)
    budget = done.report.budget
    assert budget is not None
    assert 0.97 * 0.8 * whole <= budget.achieved <= 0.8 * whole
    tried = json.loads(done.report.to_json())["budget"]["tried"]
    assert [trial["taken"] for trial in tried].count(True) == 1
    assert all(len(trial["widths"]) == 3 for trial in tried)
    assert any("by the latency table" in remark for remark in done.report.remarks)
    assert any("interpolated between its steps" in remark for remark in done.report.remarks)
    with pytest.raises(BudgetError, match=r"the narrowest that there may be takes 3\.\d+ ms\. Raise"):
        secateur.compile(network(), "l1", latency_ms=2.0, latency_table=path, verify=False)
    with pytest.raises(InputError, match="a latency table says what a budget of time takes: give one"):
        secateur.compile(network(), "l1", macs=0.5, latency_table=path)


def test_a_table_is_measured_at_several_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call costs is taken off each layer; the rest of the network is what its layers leave."""
    seen: list[Graph] = []

    def prepared(graph: Graph, feed: object, threads: int) -> Run:
        seen.append(graph)
        return lambda: graph

    times = {"call": 1.0, "layer": 3.0}
    monkeypatch.setitem(measuring.RUNTIMES, "onnxruntime", prepared)
    monkeypatch.setattr(
        measuring, "race", lambda runs, *_: {i: [times.get(run().name, 20.0)] for i, run in runs.items()}
    )
    graph = network()
    table = measured_table(graph, "onnxruntime", 8)
    assert {row.ms for row in table.rows} == {2.0}
    assert table.rest == 20.0 - 3 * 2.0
    assert table.remarks(graph) == ()
    widths = {(row.shape.inputs, row.shape.outputs) for row in table.rows if row.shape.kind.op == "conv"}
    assert widths == {(3, 64), (3, 32), (3, 16), (64, 64), (32, 64), (64, 32), (32, 32), (16, 16)}


def test_a_table_of_boards_adds_up_the_kernels_of_each_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Seconds by hand: 1 us for a multiply-accumulate of a layer alone, and 9 ms of the network in no layer."""
    graph = network()
    boards = measuring.Boards(Tracker("host", 1, "pi"), "aarch64-neon", tmp_path / "r.jsonl", 5)
    shapes = [shape_of(graph, node) for node in graph.nodes if node.op in ("conv", "linear")]
    known = [True]

    def measured(graphs: list[Graph], *asked: object) -> tuple[list[float | None], Outcome]:
        assert asked[:3] == (5, tmp_path / "r.jsonl", "aarch64-neon")
        layers = [1e-6 * shape_of(g, g.nodes[0]).work if known[0] else None for g in graphs[1:]]
        return [9e-3 + 1e-6 * sum(s.work for s in shapes), *layers], Outcome(left=0 if known[0] else 2)

    monkeypatch.setattr(codegen, "kernel_seconds", measured)
    table = measuring.board_table(graph, boards, 8)
    assert table.rest == pytest.approx(9)
    assert [row.ms for row in table.rows] == pytest.approx([1e-3 * row.shape.work for row in table.rows])
    assert table.source == "boards 'pi' at host:1, code for aarch64-neon, one thread, layers of net"
    known[0] = False
    with pytest.raises(InputError, match=r"lacks 11 of 11 layers, dense conv 3x3.*the tuning time was up.*more --time"):
        measuring.board_table(graph, boards, 8)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_a_layer_alone_is_a_network(groups: int) -> None:
    net = Net(1, 8, 6, 6)
    graph = net.graph(net.conv("x", 16, groups=groups))
    (node,) = [node for node in graph.nodes if node.op == "conv"]
    shape = shape_of(graph, node)
    half = Shape(shape.kind, 4, 8, 4) if groups == 8 else Shape(shape.kind, 8 if groups == 4 else 4, 8, groups)
    small = alone(graph, node, half)
    assert shape_of(small, small.nodes[0]) == half
    (out,) = evaluate(small, {"x": np.zeros((1, half.inputs, 6, 6), np.float32)})
    assert out.shape == (1, 8, 6, 6)


def test_a_block_takes_as_many_runs_as_its_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original and the last network stay prepared; a clock by hand says how long a run takes."""
    now, prepared, runs = [0.0], list[Graph](), [0]

    def prepare(graph: Graph, feed: object, threads: int) -> Run:
        prepared.append(graph)
        seconds = pace * (1 if graph is original else 0.5)

        def run() -> None:
            runs[0] += 1
            now[0] += seconds

        return run

    original, small, other = network(), network(), network()
    monkeypatch.setattr(runtimes.time, "perf_counter", lambda: now[0])
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", prepare)
    for pace, asked in ((0.001, 2 * 4 * 20), (0.01, 2 * 2 * 8), (1.0, 2 * 2 * 1)):  # turns of 3 runs and 1, of 1 and 1
        prepared.clear()
        model = latency_model(0, "onnxruntime")
        assert model(original)[0] == pytest.approx(1e3 * pace)
        for graph, new in ((small, 1), (small, 0), (other, 1), (small, 1)):
            known, runs[0] = len(prepared), 0
            assert model(original, graph) == pytest.approx((1e3 * pace, 500 * pace))
            assert len(prepared) - known == new
            assert runs[0] == asked + 6 * new  # what is new is run before


def test_layers_of_another_runtime_are_priced_by_a_table_of_them() -> None:
    graph = network()
    model = latency_model(0, "onnxruntime")
    layers = model.layers(graph)
    assert list(layers) == [node.label for node in graph.nodes if node.op in ("conv", "linear")]
    assert min(layers.values()) > 0
    with pytest.raises(InputError, match="there is no runtime 'onnx'"):
        latency_model(0, "onnx")
    with pytest.raises(InputError, match="a runtime says what a budget of time takes: give one"):
        secateur.compile(graph, "l1", macs=0.5, runtime="onnxruntime")
