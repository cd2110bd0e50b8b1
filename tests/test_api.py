"""``compile`` and its sisters from Python."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur import api
from secateur.ir import BudgetError, Graph, InputError, LawError, Node, SlowerError, Value
from secateur.passes.analysis.cost import cost
from secateur.passes.law import Verification
from support.nets import chain, residual


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def test_import_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, secateur, secateur.ir, secateur.cli.app; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'tvm', 'scipy') if m in sys.modules])"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(secateur.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    for name in secateur.__all__:
        assert getattr(secateur, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        secateur.prune  # noqa: B018


def test_torch_in_and_everything_out(tmp_path: Path) -> None:
    net, x = module(), torch.randn(1, 3, 12, 12)
    slim = secateur.compile(net, "l1", example_inputs=(x,), macs=0.5)
    assert slim.report.after is not None
    assert slim.report.after["macs"] <= 0.5 * slim.report.before["macs"]
    assert slim.report.verification is not None
    assert slim.report.verification["passed"]
    y = slim(x)
    assert isinstance(y, torch.Tensor)
    assert y.shape == (1, 5)
    assert isinstance(slim(x.numpy()), np.ndarray)
    again = slim.module()
    torch.testing.assert_close(again(x), y)
    assert set(dict(again.named_parameters())) == set(dict(net.named_parameters()))
    slim.save(tmp_path / "slim.onnx")
    np.testing.assert_allclose(
        api.evaluate(secateur.load(tmp_path / "slim.onnx"), {_only(slim): x.numpy()})[0], y, atol=1e-5
    )
    slim.recipe.save(tmp_path / "slim.json")
    replayed = secateur.apply(tmp_path / "slim.json", slim.dense)
    assert cost(replayed.graph) == cost(slim.graph)


def _only(slim: secateur.Compiled) -> str:
    return slim.graph.inputs[0].name


def test_the_module_is_left_as_it_was() -> None:
    net, x = module(), torch.randn(1, 3, 12, 12)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    secateur.compile(net, "random", example_inputs=(x,), params="40%", seed=3)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_none_prunes_nothing() -> None:
    graph = chain()
    done = secateur.compile(graph, "none")
    assert done.report.before == done.report.after
    assert not done.recipe.weights
    assert {row["state"] for row in done.report.layers} == {"kept"}


def test_seeds_repeat() -> None:
    one, two, other = (secateur.compile(residual(), "random", seed=s).report.to_dict() for s in (1, 1, 2))
    for report in (one, two, other):
        del report["passes"], report["seed"]
    assert one == two
    assert one != other


def test_protected_layers_keep_their_channels() -> None:
    done = secateur.compile(residual(), "l1", protect=["b"])
    rows = {row["name"]: row for row in done.report.layers}
    assert rows["b"]["widths"][1][1] == 24
    assert "protected by 'b'" in rows["b"]["reason"]
    assert done.report.policy.startswith("couple{protect=[b]}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protect": ["fcc*"]}, "'fcc\\*' matches no layer.*did you mean fc"),
        ({"macs": 0.5, "params": 0.5}, "2 budgets"),
        ({"policy": "l9"}, "no pass 'l9'"),
        ({"macs": "lots"}, "not an amount"),
        ({"round_to": 0}, "round_to"),
        ({"sparsity": 1.0}, "below 100%"),
        ({"sparsity": "most"}, "share of weights"),
        ({"block": "auto"}, "give sparsity= as well"),
        ({"sparsity": 0.5, "block": "round"}, "not a pattern of zeros"),
        ({"checkpoint": "states"}, r"keep their state \(distill\), and policy .* has none"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        secateur.compile(chain(), **options)  # type: ignore[arg-type]


def test_a_failed_law_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "check", lambda *a, **k: Verification("exact", False, 0.3, 2, "masked original"))
    with pytest.raises(LawError, match=r"3\.0e-01"):
        secateur.compile(chain())


def test_the_law_catches_a_wrong_slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sabotage: a pipeline whose result has one weight changed."""
    whole = api.Pipeline.__call__

    def spoil(self: api.Pipeline, graph: Graph) -> Graph:
        done = whole(self, graph)
        weights = {**done.weights, "fc.w": done.weights["fc.w"][:, ::-1]}
        return done.rewrite(weights=weights)

    monkeypatch.setattr(api.Pipeline, "__call__", spoil)
    with pytest.raises(LawError):
        secateur.compile(chain())


def test_nan_weights_are_refused() -> None:
    graph = chain()
    broken = graph.weights["c2.w"].copy()
    broken[0, 0] = np.nan
    with pytest.raises(InputError, match=r"'c2\.w' of layer 'c2' holds 9 NaN"):
        secateur.compile(graph.rewrite(weights={**graph.weights, "c2.w": broken}), "none")


def test_models_of_the_wrong_kind() -> None:
    with pytest.raises(InputError, match="this is a int"):
        secateur.compile(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="example_inputs"):
        secateur.compile(module())
    with pytest.raises(InputError, match=r"no file 'nowhere\.onnx'"):
        secateur.compile("nowhere.onnx")


def test_calls_with_wrong_inputs() -> None:
    done = secateur.compile(chain(), "none")
    with pytest.raises(InputError, match="takes the inputs x"):
        done()
    with pytest.raises(InputError, match="takes the inputs x"):
        done(z=np.zeros(3))


def test_unneeded_calibration_is_said() -> None:
    """Outputs that are whole numbers, and no classes: there is nothing that data could show."""
    graph = residual()
    last = graph.value(graph.outputs[0])
    place = Node("argmax", (last.name,), (Value("place", (1, 1, 8, 8), "i64"),), {"axis": 1, "keepdims": True})
    graph = graph.rewrite(nodes=(*graph.nodes, place), outputs=("place",))
    done = secateur.compile(graph, macs=0.9, round_to=1, calibration=[np.ones((2, 3, 8, 8), np.float32)])
    assert any("not needed" in remark for remark in done.report.remarks)
    assert done.report.quality is done.report.deviation is None


def test_labels_give_the_quality() -> None:
    graph = chain()
    x = np.random.default_rng(0).standard_normal((7, 3, 8, 8)).astype(np.float32)
    labels = np.array([api.evaluate(graph, {"x": row[None]})[0].argmax() for row in x])
    whole = secateur.compile(graph, "none", calibration=[(x[:4], labels[:4]), (x[4:], labels[4:])]).report
    assert whole.quality == {"agreement": 1.0, "top1": [1.0, 1.0], "examples": 7, "held_out": True}
    wrong = secateur.compile(graph, "none", calibration=[(x, (labels + 1) % 5)]).report
    assert wrong.quality == {"agreement": 1.0, "top1": [0.0, 0.0], "examples": 7, "held_out": True}
    with pytest.raises(InputError, match="not scores by class"):
        secateur.compile(residual(), calibration=[(x, labels)])


def test_layers_are_protected_by_type_and_by_module() -> None:
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)
    )
    x = (torch.zeros(1, 3, 12, 12),)

    def widths(protect: Any) -> list[int]:
        report = secateur.compile(net.eval(), macs=0.5, round_to=1, example_inputs=x, protect=protect).report
        return [row["widths"][1][1] for row in report.layers]

    assert widths([net[1]])[1] == widths(["1"])[1] == 16
    assert widths(["0.*"])[0] == widths([net[0]])[0] == 16
    with pytest.raises(BudgetError):
        widths([nn.Conv2d])
    for wrong, message in ((nn.Linear, "is not a layer of"), (3, "3 is not a layer of")):
        with pytest.raises(InputError, match=message):
            widths([wrong])
    with pytest.raises(InputError, match="can only be found in a torch module"):
        secateur.compile(chain(), protect=[nn.Conv2d])


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending \.onnx"):
        secateur.compile(chain(), "none").save(tmp_path / "slim.pt")
    assert list(tmp_path.iterdir()) == []


def test_verify_on_given_inputs() -> None:
    done = secateur.compile(chain())
    given = [{"x": np.ones((1, 3, 8, 8), np.float32)}]
    found = secateur.verify(done.dense, done.graph, done.recipe, given=given)
    assert found.passed
    assert found.inputs == 3
    assert not secateur.verify(done.dense, done.dense, done.recipe).passed


def timed(monkeypatch: pytest.MonkeyPatch, **after: float) -> list[int]:
    """Let every measurement say that the original takes 10 ms, and the slim network so many, by runtime."""
    from secateur.timing import never_slower as latency
    from secateur.timing.runtimes import Timing

    asked: list[int] = []

    def fixed(models: dict[str, Graph], runtimes: tuple[str, ...], repeats: int, seed: int) -> list[Timing]:
        asked.append(repeats)
        assert list(models) == ["before", "after"]
        before = [Timing("before", r, 1, 10.0, 9.0, 11.0, 1.0) for r in runtimes]
        return before + [
            Timing("after", r, 1, after[r], after[r] - 1, after[r] + 1, 10 / after[r], float(after[r] > 10))
            for r in runtimes
        ]

    monkeypatch.setattr(latency, "measure", fixed)
    monkeypatch.setattr(latency, "installed", lambda runtime: runtime in after)
    return asked


def test_with_a_target_both_networks_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, secateur=5.0, onnxruntime=8.0)
    report = secateur.compile(residual(), macs=0.7, round_to=1, target="native").report
    assert report.latency_ms is not None
    assert report.latency_ms["runtime"] == "secateur"
    assert report.latency_ms["ratio"] == 2.0
    assert report.latency_ms["after"] == {"median": 5.0, "p10": 4.0, "p90": 6.0}
    assert not report.remarks
    assert "2.00 times as fast (secateur," in str(report)
    timed(monkeypatch, onnxruntime=8.0)
    report = secateur.compile(residual(), macs=0.7, round_to=1, target="native").report
    assert report.latency_ms is not None
    assert report.latency_ms["runtime"] == "onnxruntime"


def test_a_slower_network_is_measured_again_and_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(monkeypatch, secateur=20.0, onnxruntime=8.0)
    message = "slower than the original in secateur on this machine: 20 ms against 10.*leave target out"
    with pytest.raises(SlowerError, match=message):
        secateur.compile(residual(), macs=0.7, round_to=1, target="native")
    assert asked == [20, 40]
    timed(monkeypatch, secateur=5.0, onnxruntime=20.0)
    report = secateur.compile(residual(), macs=0.7, round_to=1, target="native").report
    assert report.remarks[0].startswith("slower than the original in onnxruntime")
    assert report.remarks[0].endswith("run it in secateur")


def test_widths_follow_the_target_and_the_policy_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    def widths(target: str | None) -> tuple[str, set[int]]:
        done = secateur.compile(chain(), "l1,uniform{macs=40%}", target=target)
        assert done.report.latency_ms is None
        return done.report.policy, {w.shape[0] for n, w in done.graph.weights.items() if n in ("c1.w", "c2.w")}

    assert widths("x86-avx2") == ("l1,uniform{macs=40%,round_to=8},slim", {8, 24})
    assert "not timed" in secateur.compile(chain(), target="x86-avx2").report.remarks[0]
    policy, sizes = widths("aarch64-neon")
    assert policy == "l1,uniform{macs=40%,round_to=4},slim"
    assert all(size % 4 == 0 for size in sizes)
    monkeypatch.setattr("secateur.codegen.targets.cpu_features", frozenset)
    assert widths(None)[0] == "l1,uniform{macs=40%,round_to=8},slim"
    with pytest.raises(InputError, match="unknown target 'cuda'"):
        secateur.compile(chain(), target="cuda")


def test_a_mended_network_is_verified_by_its_cut() -> None:
    graph = chain()
    data = [np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)]
    done = secateur.compile(graph, "l1,uniform{macs=60%,round_to=1},slim,refit", calibration=data)
    assert done.recipe.rewrites == ("refit",)
    cut = secateur.compile(graph, "l1,uniform{macs=60%,round_to=1},slim")
    assert any(not np.array_equal(w, cut.graph.weights[n]) for n, w in done.graph.weights.items())
    assert secateur.verify(graph, done.graph, done.recipe).passed
    assert not secateur.verify(graph, graph, done.recipe).passed
