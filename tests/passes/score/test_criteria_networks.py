"""Every criterion on every way in which channels hang together, from PyTorch and from ONNX: 60 % and the law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur import api
from secateur.ir import Graph, InputError
from secateur.passes import ALLOCATORS, COMPENSATION, CRITERIA
from secateur.passes.allocate.amount import takes_budget


def block(i: int, o: int, k: int = 3, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(i, o, k, padding=k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 12), block(12, 12), block(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return torch.relu(x + self.c(self.b(x)))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 8), block(8, 6, 1), block(14, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c(torch.cat([x, self.b(x)], 1))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 12), block(12, 12, 1, groups=3), block(12, 12, 1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        n, c, h, w = x.shape
        return self.c(x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w))


class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up, self.b = block(3, 12), nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1), block(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.b(x * gate)


KINDS = {
    "residual": Residual,
    "grouped": lambda: nn.Sequential(block(3, 12), block(12, 12, groups=3), block(12, 12, 1)),
    "depthwise": lambda: nn.Sequential(block(3, 12), block(12, 12, groups=12), block(12, 12, 1)),
    "concat": Concat,
    "shuffled": Shuffled,
    "excited": Excited,
}
X = np.random.default_rng(1).standard_normal((12, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(12) % 3  # the network knows a fourth class, which never occurs
MACS = 0.6


def network(kind: str) -> Graph:
    torch.manual_seed(0)
    body = KINDS[kind]()
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
    return api.capture(net, (torch.from_numpy(X[:2]),))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Graph, Graph]]:
    """Every network as captured from torch, and from the ONNX file of it."""
    folder = tmp_path_factory.mktemp("onnx")
    found = {}
    for kind in KINDS:
        graph = network(kind)
        path: Path = folder / f"{kind}.onnx"
        api.save_onnx(graph, path)
        found[kind] = (graph, api.load(path))
    return found


def compiled(graph: Graph, policy: str, data: Any = None) -> secateur.Compiled:
    return secateur.compile(graph, policy, calibration=data, macs=MACS, round_to=1, holdout=0)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_every_criterion_on_every_network(kind: str, criterion: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    shares = []
    for graph in both[kind]:
        done = compiled(graph, criterion, [(X, LABELS)])
        report = done.report
        assert report.verification is not None
        assert report.verification["passed"]
        assert report.after is not None
        assert 0 < report.after["macs"] <= MACS * report.before["macs"]
        if CRITERIA[criterion].data:
            assert any("calibrated on 12 examples" in r for r in report.remarks)
        shares.append(report.after["macs"] / report.before["macs"])
    assert shares[0] == pytest.approx(shares[1], abs=0.15)  # ties and rounding may fall apart, no more


@pytest.mark.parametrize("criterion", [n for n, c in CRITERIA.items() if c.data])
def test_a_criterion_that_looks_at_data_says_that_it_needs_some(
    criterion: str, both: dict[str, tuple[Graph, Graph]]
) -> None:
    with pytest.raises(InputError, match=rf"criterion '{criterion}' looks at .* needs calibration data"):
        compiled(both["residual"][0], criterion)


@pytest.mark.parametrize("criterion", ["taylor", "snip", "ccp", "dcp"])
def test_without_labels_the_loss_is_named(criterion: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    remarks = compiled(both["residual"][0], criterion, [X]).report.remarks
    assert any("network's own most likely class (no labels were given)" in r for r in remarks)
    remarks = compiled(both["residual"][0], criterion, [(X, LABELS)]).report.remarks
    assert any("cross-entropy with the labels" in r for r in remarks)


@pytest.mark.parametrize("criterion", [n for n, c in CRITERIA.items() if c.data])
def test_nan_in_the_data_is_named(criterion: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    broken = X.copy()
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"batch 0: input .* holds NaN"):
        compiled(both["residual"][0], criterion, [broken])


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_data_that_say_nothing_are_no_trouble(criterion: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    """One picture, again and again, and all weights alike: equal scores, singular matrices, one class."""
    graph = both["residual"][0]
    alike = {n: np.full_like(w, 0.1) if w.ndim > 1 else np.ones_like(w) for n, w in graph.weights.items()}
    one = np.repeat(X[:1], 4, axis=0)
    done = compiled(graph.rewrite(weights=alike), criterion, [(one, np.zeros(4, int))])
    assert done.report.verification is not None
    assert done.report.verification["passed"]


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_zeros_everywhere_are_no_trouble(criterion: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    """No activation, no gradient, no energy."""
    graph = both["concat"][0]
    shifted = {
        n: np.zeros_like(w) if w.ndim == 4 else np.minimum(w, 0) if n.endswith("bias") else w
        for n, w in graph.weights.items()
    }
    done = compiled(graph.rewrite(weights=shifted), criterion, [X * 0])
    assert done.report.after is not None
    assert done.report.after["macs"] <= MACS * done.report.before["macs"]


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_a_layer_of_one_channel_stays(criterion: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(block(3, 1), block(1, 12), block(12, 12), nn.Flatten(), nn.Linear(432, 4)).eval()
    done = secateur.compile(
        net, criterion, example_inputs=(torch.from_numpy(X[:2]),), calibration=[X], macs=MACS, round_to=1
    )
    assert done.report.verification is not None
    assert done.report.verification["passed"]
    first = next(n for n in done.graph.nodes if n.op == "conv")
    assert first.out.shape[1] == 1


def test_apoz_without_a_relu_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 4)).eval()
    with pytest.raises(InputError, match=r"criterion 'apoz' counts zeros after ReLUs, .* use taylor or l1"):
        secateur.compile(net, "apoz", example_inputs=(torch.from_numpy(X[:2]),), calibration=[X], macs=MACS)


def test_a_clip_that_lets_negative_numbers_through_is_no_relu() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardtanh(-1, 1), nn.Flatten(), nn.Linear(128, 4)).eval()
    with pytest.raises(InputError, match="after ReLUs"):
        secateur.compile(net, "apoz", example_inputs=(torch.from_numpy(X[:2]),), calibration=[X], macs=MACS)


@pytest.mark.parametrize("allocator", [name for name, kind in ALLOCATORS.items() if takes_budget(kind)])
@pytest.mark.parametrize("kind", ["residual", "shuffled"])
def test_every_allocation_takes_scores_of_data(allocator: str, kind: str, both: dict[str, tuple[Graph, Graph]]) -> None:
    other = "refit" if kind == "shuffled" else "fold_constants"  # either gives readers what they lost, not both
    mending = [
        name for name in COMPENSATION if name not in (other, "distill")
    ]  # which takes seconds, and has its own tests
    policy = f"taylor,{allocator}{{macs=60%,round_to=1}},slim," + ",".join(mending)
    done = secateur.compile(both[kind][1], policy, calibration=[(X, LABELS)])
    assert done.report.after is not None
    assert done.report.after["macs"] <= MACS * done.report.before["macs"]
    assert [p["spec"] for p in done.report.passes][-2:] == mending
    assert all(np.isfinite(w).all() for w in done.graph.weights.values())
