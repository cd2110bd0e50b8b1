"""The benchmark of GPUs: its measuring on an OpenCL device that is a processor, and its predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.docs.readme_gpu import speeds
from bench.lib.gpu_networks import Subject
from bench.speed import gpu as script
from bench.speed.gpu_peers import torch_ways
from bench.speed.gpu_programs import by_kind
from bench.speed.gpu_roofline import BOARDS, board_of, least, predicted, traffic, work
from secateur.codegen.devices.opencl import OpenClSession
from secateur.codegen.kernels.recurrent.spec import RecurrentSpec
from secateur.codegen.plan.strides import Strides
from secateur.ir.frontends.torch.trace import trace
from support import gpu

pytest.importorskip("tvm", reason="code generation needs apache-tvm")
H200 = BOARDS["H200"]


@pytest.fixture(scope="module")
def small() -> Subject:
    """A layer of each kind of convolution."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 32, 1, groups=4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 8, 8)
    return Subject("small", trace(module, (x,), dynamic_batch=False), module, x.numpy())


KINDS = {"kxk tiles": 1, "depthwise": 1, "1x1 tiles": 1, "grouped": 1, "elementwise": 1, "sums": 1, "copies": 2}


def test_boards_are_known_by_the_names_of_their_devices() -> None:
    assert board_of("NVIDIA H200") is H200
    assert board_of("Orin (nvgpu)") is BOARDS["Jetson AGX Orin"]
    assert board_of("cpu-znver3") is None


def test_work_of_a_recurrent_layer_by_hand() -> None:
    """5 steps of 2 elements of 6 units: 4 gates of 6 products for each; what the input adds, weights and results."""
    none = Strides(0, 0, 0, 0)
    spec = RecurrentSpec("lstm", 1, 5, 2, 6, 6, none, none, none, none)
    assert work(spec) == 2 * 5 * 2 * 6 * 4 * 6
    assert traffic(spec) == 4 * (4 * 5 * 2 * 6 + 4 * 6 * 6 + 5 * 2 * 6)


def test_torch_runs_what_the_library_does(small: Subject) -> None:
    """On a processor as on a GPU, but for what only a GPU has."""
    ways = torch_ways(small.module, small.x, "f32", "cpu")
    assert list(ways) == ["torch"]
    assert script.compared(ways, small)["torch"] < 1e-6
    assert ways["torch"].turn(0, 0.0).wall > 0


class TestOnGpus:
    """What takes PoCL or nvcc."""

    pytestmark = gpu.marks()  # skipped where one of these is missing, which Python alone does not bring

    def test_a_library_is_measured_call_by_call(self, small: Subject) -> None:
        """By PoCL, as if it were a board whose peaks are known: shares are least times over measured ones."""
        library, calls = script.built(small.graph, "opencl", "f32")
        library.__dict__["session"] = OpenClSession(library.code, ["-cl-opt-disable"])
        row = script.measure(library, calls, small, "f32", 1, board=H200)
        assert row["status"] == "right"
        assert list(row["errors"]) == list(row["us"]) == ["secateur"]
        kinds = row["families"]
        assert {kind: found["calls"] for kind, found in kinds.items()} == {**KINDS, "all": sum(KINDS.values())}
        assert all(us > 0 for _, _, us, _, _ in row["calls"])
        assert kinds["all"]["us"] == pytest.approx(sum(us for _, _, us, _, _ in row["calls"]), abs=1)
        for call, (_, kind, us, share, bound) in zip(calls, row["calls"], strict=True):
            seconds, why = least(call, H200)
            assert (kind, bound) == (call.kind, why)
            assert share == pytest.approx(seconds / us * 1e6, abs=6e-4)
        text = script.show(script.head("measurement", small, 1, "f32", "a device") | row)
        assert "small on a device, batch 1: right" in text
        nameless = script.measure(library, calls, small, "f32", 1)["families"]
        assert {found["share"] for found in nameless.values()} == {None}
        wrong = replace(small, x=np.flip(small.x).copy())
        library.session.put([small.x], [np.empty((1, 5), np.float32)])
        assert script.compared({"secateur": script.ours(library, small.x)}, wrong)["secateur"] > 1e-3

    def test_predictions_are_of_kinds_of_kernels(self, small: Subject) -> None:
        _, calls = script.built(small.graph, H200.target, "f32")
        timed = [predicted(one, H200) for one in calls]
        found = by_kind(timed)
        assert {kind: row["calls"] for kind, row in found.items()} == {**KINDS, "all": sum(KINDS.values())}
        assert all(0 < one.least <= one.seconds and 0 < one.occupancy <= 1 for one in timed)
        assert found["all"]["us"] == pytest.approx(1e6 * sum(one.seconds for one in timed), abs=0.1)

    def test_without_a_device_it_says_that_it_predicts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", ["gpu", "--only", "none", "--predict"])
        assert script.main() == 0
        assert "PREDICTED by counting" in capsys.readouterr().out


def test_pages_keep_predictions_and_measurements_apart() -> None:
    families = {"1x1 tiles": {"calls": 3, "us": 30.0, "share": 0.5, "occupancy": 0.2},
                "all": {"calls": 3, "us": 30.0, "share": 0.5, "occupancy": 0.2}}  # fmt: skip
    common = {"network": "net", "board": "H200", "batch": 1, "families": families, "git": "abc",
              "machine": {"cpu": "c", "cores": 2}, "versions": {"python": "3", "torch": "2"}}  # fmt: skip
    times = {"secateur": {"median": 40.0}, "torch": {"median": 80.0}}
    text = speeds([
        {"kind": "prediction", **common},
        {"kind": "measurement", **common, "us": times, "ratios": {"torch": {"median": 2.0}}},
    ])  # fmt: skip
    assert text.index("Predicted, by counting and not measured") < text.index("Measured")
    assert "| net | H200 | 1 | 50% | 50% | 30 |" in text
    assert "| net | H200 | 1 | 40 | 80 (2.00) |" in text
