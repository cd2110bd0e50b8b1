"""PyTorch or ONNX in, PyTorch or ONNX out: all four ways, on one network with residuals, shuffles and gates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import secateur


class Unit(nn.Module):
    """Split, depthwise, squeeze-excite, concat, shuffle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.project = nn.Conv2d(half, half, 1, bias=False)
        self.bn = nn.BatchNorm2d(half)
        self.depthwise = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.down, self.up = nn.Linear(half, 4), nn.Linear(4, half)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        right = self.depthwise(torch.relu(self.bn(self.project(right))))
        gate = torch.sigmoid(self.up(torch.relu(self.down(right.mean(dim=(2, 3))))))
        right = self.dropout(right * gate[:, :, None, None])
        y = torch.cat([left, right], dim=1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.units = nn.Sequential(Unit(16), Unit(16))
        self.residual = nn.Conv2d(16, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 24, 3, groups=4)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.units(nn.functional.hardswish(self.stem(x)))
        y = torch.relu(self.grouped(y + self.residual(y)))
        return self.head(y.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = Small().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


X = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def run_onnx(path: Path, x: Tensor) -> np.ndarray:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def shrink(model: object, **more: object) -> secateur.Compiled:
    compiled = secateur.compile(model, macs=0.5, **more)  # type: ignore[arg-type]
    report = json.loads(compiled.report.to_json())
    assert report["verification"]["passed"]
    assert report["after"]["macs"] <= 0.5 * report["before"]["macs"]
    return compiled


def test_all_four_directions_agree(network: nn.Module, tmp_path: Path) -> None:
    from_torch = shrink(network, example_inputs=(X[:1],))
    dense = secateur.compile(network, "none", example_inputs=(X[:1],))
    dense.save(tmp_path / "dense.onnx")
    want_dense = network(X).detach().numpy()
    assert np.allclose(run_onnx(tmp_path / "dense.onnx", X), want_dense, atol=1e-4)
    from_onnx = shrink(str(tmp_path / "dense.onnx"))
    for name, compiled in {"torch": from_torch, "onnx": from_onnx}.items():
        want = np.asarray(compiled(X.numpy()))
        with torch.no_grad():
            assert np.allclose(compiled.module()(X).numpy(), want, atol=1e-5), name
        compiled.save(tmp_path / f"{name}.onnx")
        assert np.allclose(run_onnx(tmp_path / f"{name}.onnx", X), want, atol=1e-4), name
    # The same network either way: the same channels go, so the two slim networks agree.
    assert np.allclose(np.asarray(from_torch(X.numpy())), np.asarray(from_onnx(X.numpy())), atol=1e-4)


@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_the_module_trains_saves_and_is_captured_again(network: nn.Module, tmp_path: Path, source: str) -> None:
    model: object = network
    if source == "onnx":
        secateur.compile(network, "none", example_inputs=(X[:1],)).save(tmp_path / "dense.onnx")
        model = str(tmp_path / "dense.onnx")
    compiled = shrink(model, **({"example_inputs": (X[:1],)} if source == "torch" else {}))
    module = compiled.module().train()
    names = {n for n, _ in module.named_parameters()}
    assert {n for n, _ in network.named_parameters()} <= names
    mean = {n: b.clone() for n, b in module.named_buffers() if n.endswith("running_mean")}
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(module(X), torch.tensor([1, 3]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert mean
    assert all(not torch.equal(b, dict(module.named_buffers())[n]) for n, b in mean.items())
    module.eval()
    torch.save(module.state_dict(), tmp_path / "state.pt")
    fresh = compiled.module()
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(fresh(X), module(X))
    again = shrink(module, example_inputs=(X[:1],))
    assert again.report.before["macs"] == compiled.report.after["macs"]


def test_a_recipe_replays_on_a_fine_tuned_state_dict_and_on_onnx(network: nn.Module, tmp_path: Path) -> None:
    compiled = shrink(network, example_inputs=(X[:1],))
    compiled.recipe.save(tmp_path / "r.json")
    recipe = secateur.Recipe.load(tmp_path / "r.json")
    cut = recipe.apply_state_dict(network.state_dict())
    for name, parameter in compiled.module().named_parameters():
        assert torch.equal(cut[name], parameter), name
    secateur.compile(network, "none", example_inputs=(X[:1],)).save(tmp_path / "dense.onnx")
    replayed = secateur.apply(recipe, str(tmp_path / "dense.onnx"))
    for name, weight in replayed.graph.weights.items():
        if name in recipe.weights:
            assert np.array_equal(weight, compiled.graph.weights[name]), name


def test_capture_falls_back_to_symbolic_tracing(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("export is out of order")

    monkeypatch.setattr(torch.export, "export", broken)
    compiled = shrink(network, example_inputs=(X[:1],))
    from secateur.ir.exporters.torch.module import evaluate

    dense = secateur.compile(network, "none", example_inputs=(X[:1],)).graph
    want = network(X[:1]).detach().numpy()
    assert np.allclose(evaluate(dense, {dense.inputs[0].name: X[:1].numpy()})[0], want, atol=1e-5)
    assert {"stem.weight", "grouped.weight"} <= set(compiled.recipe.weights)
