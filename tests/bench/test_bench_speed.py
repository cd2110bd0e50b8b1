"""The benchmarks of speed: turns of stopped processes, classes of layers, merged records, tables from JSON lines."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bench.data import classes
from bench.docs import readme, readme_headlines, readme_peers, readme_speed
from bench.lib import alone, common, engines, plots, serving, turns
from bench.speed import latency, sparse_peers, start, tuning
from secateur.ir.exporters.onnx.write import to_onnx
from secateur.ir.frontends.torch.trace import trace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small network as prepare.py writes it, without a library."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.ones(1, 3, 8, 8)
    (tmp_path / "model.onnx").write_bytes(to_onnx(trace(module, (x,), dynamic_batch=False)).SerializeToString())
    np.save(tmp_path / "input.npy", x.numpy())
    np.save(tmp_path / "wanted.npy", module(x).detach().numpy())
    return tmp_path


def state(worker: turns.Worker) -> str:
    """R, S, or T for a stopped process."""
    return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_worker_is_stopped_unless_it_has_its_turn(folder: Path) -> None:
    worker = turns.Worker("onnxruntime", folder, 1)
    try:
        worker.ready()
        np.testing.assert_allclose(worker.outputs[0], np.load(folder / "wanted.npy"), rtol=1e-5)
        assert state(worker) == "T"
        sample = worker.turn(1, 0.0)
        assert sample.wall > 0 and sample.processor > 0
        assert state(worker) == "T"
        worker.process.kill()
        os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)  # its end of the pipe is closed
        with pytest.raises(turns.WorkerError, match="died"):
            worker.turn(1, 0.0)
    finally:
        worker.stop()


def test_worker_that_cannot_load_says_why(folder: Path) -> None:
    worker = turns.Worker("secateur", folder, 1)
    try:
        with pytest.raises(turns.WorkerError, match=r"InputError: there is no file .*secateur-1\.so"):
            worker.ready()
    finally:
        worker.stop()


def test_an_engine_runs_by_the_python_of_its_own_environment_and_sees_bench_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "FOLDER", tmp_path / "engines")
    with pytest.raises(turns.WorkerError, match=r"not installed; run python -m bench\.lib\.engines opencv"):
        turns.Worker("opencv", folder, 1)
    engine = engines.serving("opencv")
    assert engine is not None
    assert engines.serving("onnxruntime") is None
    own = tmp_path / "engines" / "opencv"
    library = own / f"lib/python3.{sys.version_info.minor}/site-packages"
    library.mkdir(parents=True)
    (own / "bin").mkdir()
    (own / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (own / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (library / "numpy").symlink_to(Path(np.__file__).parent)
    (library / "numpy.libs").symlink_to(Path(np.__file__).parent.with_name("numpy.libs"))
    (library / "cv2.py").write_text(
        "import importlib.util as u, types\n"
        "assert u.find_spec('secateur') is None and u.find_spec('onnx') is None\n"
        "setNumThreads = lambda n: None\n"
        "net = types.SimpleNamespace(setInput=lambda x: setattr(net, 'x', x), forward=lambda: net.x * 2)\n"
        "dnn = types.SimpleNamespace(readNetFromONNX=lambda path: net)\n"
    )
    (own / engines.STAMP).write_text(engines.stamp(engine))
    worker = turns.Worker("opencv", folder, 1)
    try:
        worker.ready()
        np.testing.assert_array_equal(worker.outputs[0], np.load(folder / "input.npy") * 2)
    finally:
        worker.stop()


def test_what_is_converted_is_kept_by_content_and_whole(folder: Path) -> None:
    def make(into: Path) -> None:
        made.append(into)
        (into / "model").write_bytes(place.onnx.read_bytes())

    def fail(into: Path) -> None:
        (into / "half").touch()
        raise RuntimeError("broken")

    made: list[Path] = []
    place = serving.Place(folder, 1)
    with pytest.raises(RuntimeError):
        place.made("engine", fail)
    first = place.made("engine", make)
    assert (place.made("engine", make), len(made)) == (first, 1)
    assert [file.name for file in first.iterdir()] == ["model"]
    place.onnx.write_bytes(b"another network")
    assert place.made("engine", make) != first


class Scripted:
    """A worker that takes so many milliseconds, and writes down when."""

    def __init__(self, name: str, ms: float, log: list[str]) -> None:
        self.name, self.ms, self.log = name, ms, log

    def turn(self, warm: int = turns.WARM, least: float = turns.LEAST) -> turns.Sample:
        self.log.append(self.name)
        return turns.Sample(self.ms, self.ms**2)


def test_everyone_has_one_turn_a_round_in_a_changing_order_and_the_slow_seldom() -> None:
    log: list[str] = []
    workers = {name: Scripted(name, ms, log) for name, ms in (("ours", 1.0), ("peer", 2.0), ("slow", 11.0))}
    samples = turns.take_turns(workers, 10, seed=0)  # type: ignore[arg-type]
    assert samples["ours"] == [(1.0, 1.0)] * 10
    assert [s is not None for s in samples["slow"]] == [True, False, False, False, False] * 2
    assert turns.ratios(samples["slow"], samples["ours"]) == [(11.0, 121.0)] * 2
    found = turns.summary(samples, "ours")
    assert found["ratio"] == {"peer": 2.0, "slow": 11.0}
    assert found["cpu_ratio"] == {"peer": 4.0, "slow": 121.0}
    assert found["cpu_ms"]["peer"] == {"p10": 4.0, "median": 4.0, "p90": 4.0, "min": 4.0}
    quick = [name for name in log[6:] if name != "slow"]
    rounds = [tuple(quick[i : i + 2]) for i in range(0, len(quick), 2)]
    assert all(set(r) == {"ours", "peer"} for r in rounds)
    assert len(set(rounds)) == 2


def test_classes_are_named_by_the_layer() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 5, groups=16), nn.Conv2d(16, 32, 1, groups=2), nn.Conv2d(32, 8, 1),
        nn.ConvTranspose2d(8, 8, 2), nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    graph = trace(module.eval(), (torch.ones(1, 3, 8, 8),), dynamic_batch=False)
    found = [classes.layer_class(graph, n) for n in graph.nodes if n.op in ("conv", "conv_transpose", "linear")]
    assert found == ["first 3x3", "depthwise 5x5", "grouped 1x1", "conv 1x1", "transposed 2x2", "linear"]


def test_merged_records_judge_a_choice_by_the_median_of_its_medians(tmp_path: Path) -> None:
    def line(*timings: tuple[list[int], float]) -> str:
        best = min(timings, key=lambda t: t[1])
        return json.dumps({"target": "t", "workload": "w", "choice": best[0], "seconds": best[1], "timings": timings})

    files = [tmp_path / name for name in "abc"]
    files[0].write_text(line(([1], 1.0), ([2], 9.0)))  # a lucky run of [1]
    files[1].write_text(line(([1], 8.0), ([2], 5.0)))
    files[2].write_text(line(([1], 7.0), ([2], 4.0)))
    tuning.merge(files, tmp_path / "all")
    merged = json.loads((tmp_path / "all").read_text())
    assert (merged["choice"], merged["seconds"]) == ([2], 5.0)
    assert merged["timings"] == [[[1], 7.0], [[2], 5.0]]


def row(network: str, threads: int, **peers: float) -> dict[str, object]:
    """A row of latency.jsonl in which our library takes 2 ms."""
    ms = {name.replace("_", "-"): {"median": value} for name, value in {"secateur": 2.0, **peers}.items()}
    over = {name: value["median"] / 2 for name, value in ms.items() if name != "secateur"}
    return {
        "network": network, "threads": threads, "tune": None, "records": None, "ms": ms, "ratio": over,
        "best_peer_ratio": min(over.values()), "of_dense": 0.5 if "@" in network else None,
        "memory": {"ratio": 1.25}, "classes": {"conv 1x1": {"ms": 1.0, "share": 0.875}}, "git": "0123456789abcdef",
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"python": "3.11", "torch": "2", "onnxruntime": "1", "openvino": "2"},
    }  # fmt: skip


def test_who_computes_something_else_is_marked_and_other_machines_stand_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = row("ref/one@50%", 2, onnxruntime=8.0) | {"machine": {"cpu": "another", "cores": 2}}
    rows = [other, row("ref/one", 1, onnxruntime=3.0, openvino=2.5) | {"error": {"secateur": 1e-6, "openvino": 0.92}}]
    (tmp_path / "latency.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert readme_speed.speeds() == rows[1:]
    text = readme_speed.latency()
    assert "| one | 2.00 | 3.00 | 2.50† |" in text
    assert "† is off: OpenVINO on one by 0.92 of the outputs' scale." in text
    assert "on another machine, with the code of then (another, 2 cores" in text
    assert "| one at 50% | 4.00 | 50% |" in text


def test_tables_and_plot_come_from_the_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("ref/one", 1, onnxruntime=3.0, openvino=4.0), row("ref/one@50%", 1, onnxruntime=6.0),
        row("ref/one", 2, openvino=2.5, tvm_default=100.0), row("ref/one", 1, onnxruntime=5.0, openvino=4.0),
    ]  # fmt: skip
    (tmp_path / "latency.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    text = readme_speed.latency()
    assert "| one | 2.00 | 5.00 | 4.00 | 2.00 |  | 1.25 |" in text  # the newer row of the two
    assert "| one at 50% | 2.00 | 6.00 |  | 3.00 | 50% | 1.25 |" in text
    assert "| one | 2.00 | 2.50 | 100.00 | 1.25 |  | 1.25 |" in text
    assert "Geometric mean of best/ours: 2.45 over all 2, 2.00 over the 1 unpruned." in text
    assert "conv 1x1 88% (88% to 88% in 3 networks)" in " ".join(text.split())

    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plots, "PICTURE", tmp_path / "latency.svg")
    plots.draw(readme_speed.speeds())
    first = (tmp_path / "latency.svg").read_bytes()
    plots.draw(readme_speed.speeds())
    assert (tmp_path / "latency.svg").read_bytes() == first
    assert b">50<" in first  # beyond the edge, told as a number


def test_what_pruning_pays_and_what_libraries_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert readme_speed.pays() == readme_speed.libraries() == ""
    around = {k: v for k, v in row("ref/one", 1, onnxruntime=3.0).items() if k in ("git", "machine", "versions")}
    cases = [("uniform", 0.5, 0.51), ("global", 0.5, 1.02), ("uniform", 0.25, 0.26)]
    found = [
        {**around, "network": "ref/one", "runtime": "torch", "method": m, "macs": s, "of_whole": t} for m, s, t in cases
    ]
    (tmp_path / "pays.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    text = readme_speed.pays()
    assert "Slower than the whole network: 1 of 3;\nthe least gain is 1.02." in text
    assert "| one | 25% | 0.26 |\n| one | 50% | 0.51 / 1.02 |" in text
    built = [
        {**around, "network": n, "status": s, "error": e, "ratio": 2.0}
        for n, s, e in (("a", "wrong", 0.5), ("a", "right", 1e-5), ("b", "wrong", 0.5))
    ]
    (tmp_path / "libraries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in built))
    text = " ".join(readme_speed.libraries().split())
    assert "**Libraries of 2 networks**" in text
    assert "1 compute what the torch executor computes (largest error 1e-05" in text
    assert "in 0.50 of ONNX Runtime's time" in text


def test_every_engine_stands_next_to_ours_and_the_wrong_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert readme_peers.installed() == readme_headlines.installed() == ""
    one = row("ref/one", 1, onnxruntime=3.0, ncnn=2.5, executorch=1.0)
    one |= {
        "cpu_ratio": {"onnxruntime": 1.6, "ncnn": 1.2, "executorch": 0.5}, "best_cpu_ratio": 1.2,
        "best_peer": "ncnn", "best_peer_ratio": 1.25, "error": {"secateur": 2e-6, "ncnn": 1e-6, "executorch": 0.5},
        "packages": {"ncnn": "1.0"}, "failed": {"mnn": "RuntimeError: no; not at all"},
    }  # fmt: skip
    wrong = row("ref/wrong", 1, ncnn=3.0) | {
        "cpu_ratio": {"ncnn": 1.5}, "best_cpu_ratio": None, "best_peer_ratio": None, "failed": {},
        "error": {"secateur": 1e-6, "ncnn": 0.5}, "packages": {},
    }  # fmt: skip
    (tmp_path / "latency_engines.jsonl").write_text(json.dumps(wrong) + "\n")
    assert readme_headlines.installed() == ""
    assert "Geometric mean" not in readme_peers.installed()
    (tmp_path / "latency_engines.jsonl").write_text(f"{json.dumps(one)}\n{json.dumps(wrong)}\n")
    text = readme_peers.installed()
    assert "| wrong | 2.00 |  | 1.50 / 1.50† |  | none is right |" in text
    assert "Geometric mean of best/ours: 1.25 by the wall, 1.20 by the processor." in text
    assert "| 1 thread | ours, ms | ONNX Runtime | ncnn | ExecuTorch | best/ours |" in text
    assert "| one | 2.00 | 1.50 / 1.60 | 1.25 / 1.20 | 0.50 / 0.50† | 1.25 / 1.20 |" in text
    assert "- MNN failed on one: RuntimeError: no\n" in text
    assert "at most 2e-06 of their scale" in text
    assert "(ONNX Runtime, ncnn, ExecuTorch) the fastest takes **1.25 times**" in readme_headlines.installed()
    assert " off; " not in text
    for error, said in (
        (
            {"ncnn": 3e-3},
            "3e-03 off; of engines within 0.0001, as our libraries have to be, the best is ONNX Runtime, 1.50",
        ),
        (
            {"ncnn": 3e-3, "onnxruntime": 2e-3},
            "3e-03 off; no other engine is within 0.0001, as our libraries have to be.",
        ),
    ):
        rough = one | {"best_peer": "ncnn", "error": {"executorch": 0.5, **error}}
        (tmp_path / "latency_engines.jsonl").write_text(json.dumps(rough) + "\n")
        assert f"ncnn's outputs of one are {said}" in readme_peers.installed()


def test_the_fastest_peer_is_one_that_is_right_and_computes_in_float32() -> None:
    over = {"onnxruntime": 1.4, "ncnn": 1.2, "mnn": 1.1, "openvino-default": 1.0, "dense": 0.5}
    assert latency.fastest(over, {"mnn": 0.5, "ncnn": 1e-6}) == "ncnn"
    assert latency.fastest({"mnn": 1.1, "dense": 2.0}, {"mnn": 0.5}) is None


def test_what_users_install_may_stand_next_to_other_runtimes() -> None:
    assert latency.expanded(["installed", "ncnn"]) == list(latency.INSTALLED)
    assert latency.expanded(["tvm", "ncnn"]) == ["tvm", "ncnn"]
    assert latency.expanded(["tvm", "installed"])[:2] == ["tvm", latency.INSTALLED[0]]


def test_the_way_to_a_first_answer_is_measured_from_the_start_of_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", folder)
    assert readme_peers.start() == ""
    process = alone.measured("onnxruntime", folder, 1)
    assert list(process["seconds"]) == ["python", "import", "load", "first", "again"]
    assert all(s > 0 for s in process["seconds"].values())
    assert process["peak"] >= process["imports"] > 1e6
    (folder / "secateur-1.so").write_bytes(bytes(2_500_000))
    steps = {"python": 0.1, "import": 0.02, "load": 0.03, "first": 0.01, "again": 0.004}
    ours, theirs = ({"seconds": steps | {"load": load}, "peak": 5e7, "imports": 1e7} for load in (0.03, 0.11))
    found = start.row_of({"secateur": [ours] * 3, "onnxruntime": [theirs] * 3}, folder)
    around = {k: v for k, v in row("ref/one", 1, onnxruntime=3.0).items() if k in ("git", "machine", "versions")}
    (folder / "start.jsonl").write_text(json.dumps({**around, "network": "ref/one", **found}) + "\n")
    text = readme_peers.start()
    assert "| one | secateur | 2.5 MB | 100 | 20 | 30 | 10 | 160 |  | 4.0 | 50 MB |" in text
    assert "| one | ONNX Runtime | 0.0 MB | 100 | 20 | 110 | 10 | 240 | 1.50 | 4.0 | 50 MB |" in text
    with pytest.raises(ValueError, match=r"secateur: .*damaged|secateur: .*not a library"):
        alone.measured("secateur", folder, 1)


def test_a_block_without_results_stays() -> None:
    text = "a <!-- x:begin -->\nold\n<!-- x:end --> b"
    assert readme.fill(text, {"x": lambda: ""}) == text
    assert readme.fill(text, {"x": lambda: "new"}) == "a <!-- x:begin -->\nnew\n<!-- x:end --> b"


def test_peers_of_sparse_layers_compute_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 24)) * (rng.random((16, 24)) < 0.3)).astype(np.float32)
    x = rng.standard_normal((1, 24, 5, 5)).astype(np.float32)
    onnx.save(sparse_peers.model_of(weight, 5), tmp_path / "layer.onnx")
    want = weight @ x.reshape(24, 25)
    for name, run in sparse_peers.here(tmp_path / "layer.onnx", weight, x, 8):
        found = run()
        np.testing.assert_allclose(np.asarray(found[0]).reshape(16, 25) if name == "onnxruntime" else
                                   np.asarray(found).reshape(16, 25), want, rtol=1e-4, atol=1e-5)  # fmt: skip
