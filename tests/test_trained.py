"""One module: what was trained is what is saved, run, built and compiled again; and nothing else is taken in."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import secateur
from secateur import api
from secateur.compiled import TRAINED
from secateur.ir import InputError
from support.nets import chain

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@pytest.fixture
def slim() -> secateur.Compiled:
    return secateur.compile(net(), "l1", example_inputs=(X,), macs=0.5)


def train(module: nn.Module) -> None:
    """Two steps, batch norm statistics included."""
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        module(X).square().sum().backward()
        optimiser.step()


def test_one_module_that_everything_sees(slim: secateur.Compiled, tmp_path: Path) -> None:
    module, before, graph = slim.module(), slim(X), slim.graph
    assert slim.module() is module
    assert slim.graph is graph
    assert TRAINED not in slim.report.remarks
    train(module)
    assert module.training
    after = slim(X)
    assert module.training  # looking at it does not change its mode
    assert not torch.allclose(after, before, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(after, copy.deepcopy(module).eval()(X))
    assert slim.graph is slim.graph
    assert TRAINED in slim.report.remarks
    slim.save(tmp_path / "slim.onnx")
    saved = api.evaluate(secateur.load(tmp_path / "slim.onnx"), {slim.graph.inputs[0].name: X.numpy()})
    np.testing.assert_allclose(saved[0], after, atol=1e-5)
    assert not secateur.verify(net(), slim, slim.recipe, example_inputs=(X,)).passed
    again = secateur.compile(slim, "none")
    torch.testing.assert_close(again(X), after)
    assert slim.module() is module


def test_batch_norm_statistics_come_back(slim: secateur.Compiled) -> None:
    module = slim.module().train()
    with torch.no_grad():
        module(X)
    assert np.array_equal(slim.graph.weights["1.running_mean"], module.get_buffer("1.running_mean").numpy())


def test_a_library_does_not_answer_for_trained_weights(
    slim: secateur.Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Built:
        metadata = type(
            "M", (), {"inputs": [type("P", (), {"name": slim.graph.inputs[0].name, "shape": (2, 3, 12, 12)})]}
        )

        def __call__(self, *_: Any) -> str:
            return "the library"

    monkeypatch.setattr("secateur.deploy.build", lambda *_: Built())
    slim.build()
    assert slim(X) == "the library"
    module = slim.module()
    assert slim(X) == "the library"
    train(module)
    assert isinstance(slim(X), torch.Tensor)
    slim.build()
    assert slim(X) == "the library"


def _module(slim: secateur.Compiled, _: Path) -> Any:
    return copy.deepcopy(slim.module())


def _state(slim: secateur.Compiled, _: Path) -> Any:
    return {f"module.{name}": x for name, x in slim.module().state_dict().items()}


def _file(slim: secateur.Compiled, folder: Path) -> Any:
    slim.save(folder / "trained.onnx")
    return folder / "trained.onnx"


def _proto(slim: secateur.Compiled, folder: Path) -> Any:
    return onnx.load(str(_file(slim, folder)))


@pytest.mark.parametrize("source", [_module, _state, _file, _proto])
def test_weights_from_elsewhere(
    slim: secateur.Compiled, source: Callable[[secateur.Compiled, Path], Any], tmp_path: Path
) -> None:
    train(slim.module())
    cut = secateur.compile(net(), "l1", example_inputs=(X,), macs=0.5)
    taken = cut.with_weights(source(slim, tmp_path))
    torch.testing.assert_close(taken(X), slim(X))
    assert not torch.allclose(cut(X), slim(X), atol=1e-3)
    assert TRAINED in taken.report.remarks
    assert taken.graph.inputs == cut.graph.inputs


def test_weights_go_into_the_original_file(tmp_path: Path) -> None:
    """Trained in torch, the network is still the file that it was: names, operator set, inputs."""
    api.save_onnx(chain(), tmp_path / "dense.onnx")
    cut = secateur.compile(tmp_path / "dense.onnx")
    module = cut.module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.25)
    cut.save(tmp_path / "slim.onnx")
    proto = onnx.load(str(tmp_path / "slim.onnx"))
    assert {"c1.w", "fc.w"} <= {t.name for t in proto.graph.initializer}
    x = np.ones((1, 3, 8, 8), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(cut(x), module.eval()(torch.from_numpy(x)), rtol=1e-4)


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["7.wait"] = state.pop("7.weight")
    return state


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {n: x for n, x in s.items() if n != "0.weight"}, "lacks '0.weight'"),
        (lambda s: s | {"9.weight": s["7.weight"]}, "holds '9.weight'.*does not have"),
        (_renamed, "holds '7.wait'.*did you mean 7.weight"),
        (lambda s: s | {"7.weight": s["7.weight"][:, :2]}, r"'7\.weight' has shape \(5, 2\)"),
        (lambda s: s | {"7.weight": s["7.weight"].half()}, "is f16.*convert it back"),
        (lambda s: s | {"7.bias": s["7.bias"] * float("nan")}, "NaN"),
        (lambda s: {}, "lacks"),
        (lambda s: 7, "takes a torch module, a state dict or an ONNX file"),
        (lambda s: net(), r"has shape \(16, 3, 3, 3\)"),
        (lambda s: "nowhere.onnx", "there is no file"),
    ],
)
def test_what_does_not_fit_is_refused(slim: secateur.Compiled, spoil: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        slim.with_weights(spoil(dict(slim.module().state_dict())))


def test_a_module_that_was_rebuilt_is_refused(slim: secateur.Compiled) -> None:
    other = copy.deepcopy(slim.module())
    for node in other.graph.nodes:
        if node.target is torch.relu:
            node.target = torch.sigmoid
    other.recompile()
    with pytest.raises(InputError, match="computes another function"):
        slim.with_weights(other)
    slim.module().add_module("head", nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"holds 'head\.bias' and 1 more"):
        slim.save("never.onnx")


def test_an_onnx_file_with_folded_weights_is_refused(slim: secateur.Compiled, tmp_path: Path) -> None:
    folded = secateur.rewrite(slim, "fold_bn")
    folded.save(tmp_path / "folded.onnx")
    with pytest.raises(InputError, match=r"lacks weight '1\.\w+' and 3 more"):
        slim.with_weights(tmp_path / "folded.onnx")


def test_pickles_and_copies_hold_what_was_trained(slim: secateur.Compiled) -> None:
    train(slim.module())
    for other in (pickle.loads(pickle.dumps(slim)), copy.deepcopy(slim)):
        torch.testing.assert_close(other(X), slim(X))
        assert other.module() is not slim.module()
        assert TRAINED in other.report.remarks


def test_what_data_made_pickles_too() -> None:
    data = [np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)]
    done = secateur.compile(chain(), "taylor,global{macs=60%},slim,refit", calibration=data)
    assert np.array_equal(pickle.loads(pickle.dumps(done))(data[0][:1]), done(data[0][:1]))
